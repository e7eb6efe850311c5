"""The change detector: features on the scene grid, the network and its folder, and the change mask it finds.

Features are the scene, the reference as the scene's sensor would have seen it, and the reference's texture and layout
within each scene pixel.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from math import log2
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.classes import NO_CHANGE, UNKNOWN_CLASS
from geo_refdiff.diffusion.checkpoint import match_weights
from geo_refdiff.diffusion.model_folder import model_digest, read_json, read_weights, resolve_model
from geo_refdiff.errors import ModelError
from geo_refdiff.nn.strips import in_strips
from geo_refdiff.raster.window import Window, repeated
from geo_refdiff.records import decode
from geo_refdiff.sensor.resize import cell_means
from geo_refdiff.sensor.sensor import SensorModel

BANDS = ("red", "green", "blue", "nir")
"""Bands of the detector, in this order; near infrared is optional."""

LAYOUT_SIDE = 4
"""Each scene pixel is divided into 4 x 4 parts, whose means describe the layout of the reference within it."""

LAYOUT = len(BANDS) * LAYOUT_SIDE**2
"""Channels of the layout: for each band its 16 parts row by row, in the order of `pixel_unshuffle`."""

CHANNELS = LAYOUT + 20
"""Channels of the features: layout; scene (4) and its NDVI; reference as seen by the sensor (4), texture (4), edges,
share of vegetation, NDVI; has nir, scale, scene is valid, reference is valid."""

_NIR = BANDS.index("nir")
_VEGETATED = 0.12  # NDVI above which a reference pixel counts as vegetation
_DARK = 0.05
_FLOOR = 0.01


def change_features(lr: Tensor, lr_valid: Tensor, ref: Tensor, sensor: SensorModel, *, nir: bool) -> Tensor:
    """Features of each scene pixel, from that pixel and the output pixels that the sensor sees there.

    Args:
        lr: (4, h, w) red, green, blue, nir of the scene in model units; values of invalid pixels are ignored.
        lr_valid: (h, w) bool, True = valid in all bands.
        ref: (4, h scale, w scale) the reference in the scene's radiometry, model units, NaN in every band where
            missing.
        sensor: how the scene's sensor sees the reference; what is beyond the border is missing.
        nir: whether both have near infrared.

    Returns:
        (CHANNELS, h, w) in the dtype of `lr`, 0 where the pixels they are computed from are missing. The last channel
        but one is 1 where the scene is valid, the last one where at least half of the scene pixel's reference is.
    """
    there = ~torch.isnan(ref[:1])
    images = [ref[None]] if bool(there.all()) else [torch.where(there, ref, 0.0)[None], there[None]]

    def of_cells(image: Tensor, valid: Tensor | None = None) -> tuple[Tensor, ...]:
        known = None if valid is None else valid[0].to(image.dtype)
        return tuple(part[None] for part in _within(image[0], known, sensor.scale, nir))

    rows = lr.shape[-2]
    layout, texture, edges, green, share = (part[0] for part in in_strips(of_cells, *images, rows=rows, reach=0))
    observed = sensor.observe_valid(images[0], images[1] if len(images) > 1 else None)[0][0]
    has_ref = (share >= 0.5).to(lr.dtype)
    valid = lr_valid[None].to(lr.dtype)
    scene = torch.where(valid > 0, lr, 0.0)
    bands = torch.ones(len(BANDS), 1, 1, dtype=lr.dtype)
    bands[_NIR] = float(nir)
    scene, observed, texture = scene * bands, observed * bands, texture * bands
    of_scene = torch.cat([scene, _ndvi(scene) * float(nir)])
    layout = layout * bands.repeat_interleave(LAYOUT_SIDE**2, 0)
    of_reference = torch.cat([observed, texture, edges, green * float(nir), _ndvi(observed) * float(nir)])
    constant = torch.tensor([float(nir), log2(sensor.scale / 8)], dtype=lr.dtype)[:, None, None].expand(
        2, *lr.shape[1:]
    )
    return torch.cat([layout * has_ref, of_scene * valid, of_reference * has_ref, constant * valid, valid, has_ref])


def _within(image: Tensor, valid: Tensor | None, scale: int, nir: bool) -> tuple[Tensor, ...]:
    """What valid output px (None: all) tell of each scene px.

    Returns:
        layout (LAYOUT, h, w), the mean of each part less that of the scene px, 0 where a part has no data; texture (4,
        h, w), edges, share of vegetation and share of valid pixels (1, h, w).
    """

    def mean(values: Tensor) -> Tensor:
        means = cell_means(values if valid is None else values * valid, scale)
        return means if valid is None else means / share.clamp(min=1e-3)

    def of_rows(values: Tensor) -> Tensor:
        return torch.unflatten(values, -2, (-1, scale))  # (., h, scale, W): rows are long

    share = image.new_ones(1, *(n // scale for n in image.shape[1:])) if valid is None else cell_means(valid, scale)
    means, parts = mean(image), _parts(image, scale)
    around = means.repeat_interleave(LAYOUT_SIDE, -2).repeat_interleave(LAYOUT_SIDE, -1)
    if valid is None:
        layout = parts - around
    else:
        parts_share = _parts(valid, scale)
        layout = torch.where(parts_share > 0, parts / parts_share.clamp(min=1e-3) - around, 0.0)
    off = of_rows(image) - means.repeat_interleave(scale, -1).unsqueeze(-2)  # squares of the image need more digits
    texture = torch.log2(mean(off.square_().flatten(-3, -2)).sqrt() + _FLOOR) / 4 + 1
    grey = of_rows(image[:3].mean(dim=0, keepdim=True))
    steps = (grey[..., 1:, 1:] - grey[..., :-1, 1:]).abs_() + (grey[..., 1:, 1:] - grey[..., 1:, :-1]).abs_()
    if valid is not None:
        there = of_rows(valid)
        steps *= there[..., 1:, 1:] * there[..., :-1, 1:] * there[..., 1:, :-1]
    by_column = torch.unflatten(F.pad(steps.sum(dim=-2), (1, 0)), -1, (-1, scale))
    within = by_column[..., 1:]  # steps across borders of scene pixels are left out
    edges = within.sum(dim=-1) / scale**2 / share.clamp(min=1e-3)
    green = torch.zeros_like(edges)
    if nir:  # a step, which float32 may take at another place
        green = mean((_ndvi(image, torch.float64) > _VEGETATED).to(image.dtype))
    return F.pixel_unshuffle(layout, LAYOUT_SIDE), texture, 4 * edges, green, share


def _parts(image: Tensor, scale: int) -> Tensor:
    """Means of the parts of scene pixels, which share output pixels unless `LAYOUT_SIDE` divides the scale."""
    if scale % LAYOUT_SIDE == 0:
        return cell_means(image, scale // LAYOUT_SIDE)
    height, width = (n // scale * LAYOUT_SIDE for n in image.shape[-2:])
    return F.adaptive_avg_pool2d(image[None], (height, width))[0]


def _ndvi(image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """NDVI (Rouse 1974) of model units, where -1 is no light; (1, ...), computed in a dtype, None = the image's."""
    red, infra = (image[at : at + 1].clamp(min=-1).to(dtype or image.dtype).add_(1) for at in (0, _NIR))
    light = (infra + red).add_(_DARK)
    return infra.sub_(red).div_(light)


ARCHITECTURE: Final = "change-detector"
"""Value of "architecture" in config.json."""

BUNDLED = "detectors/change"
"""The detector that comes with the package: a folder within its models."""

_DILATIONS = (1, 1, 2, 4, 1)


class ChangeNetwork(nn.Module):
    """Dilated 3 x 3 convolutions without padding; the receptive field reaches `reach` scene pixels to each side.

    Args:
        width: channels.
        classes: K, class 0 ("no change") included.
    """

    reach = sum(_DILATIONS)

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        inputs = [CHANNELS] + [width] * (len(_DILATIONS) - 1)
        self.layers = nn.ModuleList(nn.Conv2d(n, width, 3, dilation=d) for n, d in zip(inputs, _DILATIONS, strict=True))
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, CHANNELS, h + 2 reach, w + 2 reach) -> class logits (N, K, h, w)."""
        x = features
        for layer, dilation in zip(self.layers, _DILATIONS, strict=True):
            fresh = torch.relu(layer(x))
            x = fresh if x.shape[1] != fresh.shape[1] else fresh + x[..., dilation:-dilation, dilation:-dilation]
        logits: Tensor = self.last(x)
        return logits


@dataclass(frozen=True)
class Detector:
    """A loaded detector.

    Attributes:
        network: in float64, in evaluation mode, so that results agree to some 13 digits on all machines.
        classes: names, class 0 is "no change".
        threshold: probability of change from which a pixel counts as changed.
        psf_sigma: of the sensor it was trained for, scene pixels.
        sha256: of its files.
    """

    network: ChangeNetwork
    classes: tuple[str, ...]
    threshold: float
    psf_sigma: float
    sha256: str

    @cached_property
    def networks(self) -> dict[torch.dtype, ChangeNetwork]:
        """The network in float64 and in float32."""
        fast = copy.deepcopy(self.network).float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return {torch.float64: self.network, torch.float32: fast}


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig:
    """config.json of a detector: see `Detector`; `trained` says how it came about."""

    architecture: Literal["change-detector"] = ARCHITECTURE
    width: Annotated[int, Meta(ge=1, le=4096)]
    classes: Annotated[tuple[str, ...], Meta(min_length=1, max_length=255)]
    threshold: Annotated[float, Meta(ge=0, le=1)]
    reach: Annotated[int, Meta(ge=ChangeNetwork.reach, le=ChangeNetwork.reach)] = ChangeNetwork.reach
    psf_sigma: Annotated[float, Meta(ge=0, le=4)]
    bands: tuple[str, ...] = ()
    trained: dict[str, Any] = field(default_factory=dict)


def load_detector(folder: str | Path | None = None) -> Detector:
    """Load a detector from its folder; None: the bundled one, which a process loads once.

    Raises:
        ModelError: not a model folder, damaged, or not a change detector.
    """
    if folder is None:
        return _bundled()
    folder = resolve_model(folder)
    raw = read_json(folder)
    if raw.get("architecture") != ARCHITECTURE:
        other = repr(raw.get("architecture"))[:60]
        raise ModelError(f"{folder}: is a {other} model, not a {ARCHITECTURE}; name another one")
    config = decode(DetectorConfig, raw, str(folder / "config.json"), ModelError)
    with torch.device("meta"):  # names and shapes alone: a wrong width may ask for any amount of memory
        network = ChangeNetwork(config.width, len(config.classes))
    state = read_weights(folder)
    match_weights(network, state, folder)
    network.load_state_dict(state, assign=True)
    network.double().eval().requires_grad_(False)
    return Detector(network, config.classes, config.threshold, config.psf_sigma, model_digest(folder))


@cache
def _bundled() -> Detector:
    return load_detector(Path(str(resources.files("geo_refdiff.models"))) / BUNDLED)


ReadScene = Callable[[Window], tuple[Tensor, Tensor]]
"""Window of the scene lattice -> values (C, h, w) in model units and valid (C, h, w)."""

ReadReference = Callable[[Window], Tensor]
"""Window of the output lattice -> (C, h, w) in the scene's radiometry, model units, NaN in every band where missing."""

AUTO_MIN_CONFIDENCE = 0.7
"""Default confidence below which a detected change is not given to a model."""

CLASSES_FOR_MODEL = {NO_CHANGE: UNKNOWN_CLASS}
"""The class that a model is given for a class of the detector: "no change" is given as unknown, because a change that
was overlooked costs more than a correct "no change" gains (figures in docs/change-masks.md)."""

CONFIDENCE_STEPS = 250
"""Confidence is rounded to steps of 1 / 250."""

_COARSE = 1e-4
"""How far probabilities in float32 may be off; some 1e-6 was seen."""

_FEW, _PATCH = 2, 400
"""scene pixels up to which single ones are computed again, rather than all: these, and of each so many one."""

_HR_SIDE = 1280
_LEAST_TILE = 16


class DetectedMask:
    """Classes of change and their confidence, detected by comparing the scene with the reference tile by tile.

    A scene px's class depends on the scene within `reach` scene px around it and on the reference that the sensor
    sees there. It is that of probabilities in float64, rounded to steps of 1 / 250: the mask depends neither on the
    windows that are read nor on the machine. `read` computes in float32, and again in float64 where that is too coarse
    to tell the class, which takes less than half of the time.

    Args:
        detector: the network.
        sensor: how the scene's sensor sees the reference.
        scene, reference: readers of windows of the scene and the output lattice.
        channels: positions of red, green, blue, nir among the bands that `scene` and `reference` give; None for a
            missing nir.
        classes: class index of the detector -> of the model.
        min_confidence: below it the class is unknown.
        origin: (row, col) of the target's corner on the scene lattice, for `read`.
    """

    def __init__(
        self,
        detector: Detector,
        sensor: SensorModel,
        scene: ReadScene,
        reference: ReadReference,
        channels: tuple[int | None, ...],
        classes: Mapping[int, int] | None = None,
        min_confidence: float = 0.0,
        origin: tuple[int, int] = (0, 0),
    ) -> None:
        self.detector, self.sensor, self.channels = detector, sensor, channels
        self._scene, self._reference = scene, reference
        self._min_confidence, self._origin = min_confidence, origin
        self._classes = np.arange(256, dtype=np.uint8)
        for index, other in (classes or {}).items():
            self._classes[index] = other
        self.reach = detector.network.reach + -(-sensor.reach // sensor.scale)
        self._side = max(_LEAST_TILE, _HR_SIDE // sensor.scale)

    def detect(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Classes (h, w), 255 = unknown, and confidence (h, w) in steps of 1 / 250, 0 = unknown.

        Confidence is the network's probability of the class. A class is unknown where the scene, or more than half of
        the scene pixel's reference, is missing, and where its confidence is below the limit.

        Args:
            window: of the scene lattice.
        """
        classes, confidence = (np.empty(window.shape, dtype=np.uint8) for _ in range(2))
        for tile in window.tiles(self._side):
            at = tile.within(window)
            classes[at], confidence[at] = self._classify(*self._probabilities(tile, torch.float64))
        return classes, confidence

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices, 255 = unknown; `window` in pixels of the target, may reach outside."""
        scale = self.sensor.scale
        window = window.shift(self._origin[0] * scale, self._origin[1] * scale)
        cover = window.divide(scale)
        classes = np.empty(cover.shape, dtype=np.uint8)
        for tile in cover.tiles(self._side):
            classes[tile.within(cover)] = self._classes_of(tile)
        fine = repeated(classes, scale)
        return np.ascontiguousarray(fine[window.within(cover.multiply(scale))])

    def close(self) -> None:
        """Nothing is open."""

    def _classes_of(self, tile: Window) -> NDArray[np.uint8]:
        """The classes of `detect`."""
        probabilities, valid = self._probabilities(tile, torch.float32)
        classes = self._classify(probabilities, valid)[0]
        doubtful = np.argwhere(valid & self._is_doubtful(probabilities))
        if len(doubtful) > max(_FEW, tile.area // _PATCH):
            return self._classify(*self._probabilities(tile, torch.float64))[0]
        for row, col in doubtful.tolist():
            one = Window(tile.row + row, tile.col + col, 1, 1)
            classes[row, col] = self._classify(*self._probabilities(one, torch.float64))[0][0, 0]
        return classes

    def _is_doubtful(self, probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(h, w), True where probabilities (K, h, w) in float32 are too coarse to tell the class."""
        limits = (round(self.detector.threshold * CONFIDENCE_STEPS), round(self._min_confidence * CONFIDENCE_STEPS))
        unchanged, changes = probabilities[0], np.sort(probabilities[1:], axis=0)
        off = [(1 - unchanged, limits[0]), (unchanged, limits[1]), (changes[-1], limits[1])]
        doubtful = np.zeros(unchanged.shape, dtype=np.bool_)
        for value, limit in off:
            doubtful |= np.abs(value - (limit - 0.5) / CONFIDENCE_STEPS) < _COARSE
        if len(changes) > 1:  # classes whose steps may be the same
            doubtful |= (changes[-1] - changes[-2] < 1 / CONFIDENCE_STEPS + _COARSE) & (
                1 - unchanged > (limits[0] - 1) / CONFIDENCE_STEPS
            )
        return doubtful

    def _probabilities(self, tile: Window, dtype: torch.dtype) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Of each class (K, h, w), computed in a dtype, and where scene and reference are valid (h, w)."""
        reach, margin = self.detector.network.reach, self.reach - self.detector.network.reach
        wide = tile.pad(self.reach)
        values, valid = self._scene(wide)
        whole = valid.all(dim=0)
        if not bool(whole[tile.within(wide)].any()):
            return np.zeros((len(self.detector.classes), *tile.shape)), np.zeros(tile.shape, np.bool_)
        reference = self._reference(wide.multiply(self.sensor.scale))
        nir = self.channels[BANDS.index("nir")] is not None
        with torch.inference_mode():
            features = change_features(
                self._bands(values, dtype),
                whole,
                self._bands(reference, dtype),
                self.sensor,
                nir=nir,
            )
            features = features[:, margin : features.shape[1] - margin, margin : features.shape[2] - margin]
            probabilities = torch.softmax(self.detector.networks[dtype](features[None]), 1)[0].double().numpy()
            both_valid = (features[-2:] > 0).all(dim=0).numpy()[reach:-reach, reach:-reach]
        return probabilities, both_valid

    def _classify(
        self, probabilities: NDArray[np.float64], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Classes and confidence from probabilities (K, h, w); `valid` (h, w): scene and reference are valid."""
        steps = np.rint(probabilities * CONFIDENCE_STEPS).astype(np.uint8)
        changed = np.rint((1 - probabilities[0]) * CONFIDENCE_STEPS) >= round(
            self.detector.threshold * CONFIDENCE_STEPS
        )
        likeliest = np.argmax(steps[1:], axis=0) + 1
        confidence = np.where(changed, np.take_along_axis(steps, likeliest[None], axis=0)[0], steps[0]).astype(np.uint8)
        classes = self._classes[np.where(changed, likeliest, 0)]
        unknown = ~valid | (confidence < round(self._min_confidence * CONFIDENCE_STEPS))
        classes[unknown] = UNKNOWN_CLASS
        confidence[~valid] = 0
        return classes, confidence

    def _bands(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """The detector's bands; a missing band is 0, or NaN where the image is."""
        if self.channels == tuple(range(len(image))):
            return image.to(dtype)
        zeros = torch.where(torch.isnan(image[:1]), torch.nan, 0.0)
        parts = [zeros if at is None else image[at : at + 1] for at in self.channels]
        return torch.cat(parts).to(dtype)
