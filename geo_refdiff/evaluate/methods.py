"""What is compared: models run as the product runs them, classical baselines, results of other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from geo_refdiff import options
from geo_refdiff.classes import UNKNOWN_CLASS, class_index
from geo_refdiff.diffusion.checkpoint import load_denoiser, model_digest
from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.engine.consistency import LrConsistency
from geo_refdiff.errors import ModelError, OptionError
from geo_refdiff.evaluate.image_folder import ImageFolder
from geo_refdiff.evaluate.masks import MaskSource
from geo_refdiff.evaluate.options import Consistency, Reference
from geo_refdiff.evaluate.tiles import Tile
from geo_refdiff.restore.diffusion import DiffusionRestorer, SamplerSettings
from geo_refdiff.restore.restorers import CLASSICAL, LR_MARGIN, Conditions, Restorer
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.sensor.wiener import NoiseFilter, components


@dataclass(frozen=True, slots=True)
class Observation:
    """One tile as a method sees it: its LR, and what is told of it; images (1, C, ...) float32 in DN.

    Attributes:
        tile: with the truth, which methods leave alone.
        lr: as the sensor saw the truth.
        sensor: the operator as the methods are told.
        other: the reference of another place in the radiometry of the LR, where a method asks for it.
        consistency: "window", or how the product corrects the whole; see `MethodOptions`.
        noise: standard deviation of the noise of `lr`, DN.
    """

    tile: Tile
    lr: Tensor
    sensor: SensorModel
    other: Tensor | None = None
    consistency: Consistency = "window"
    noise: float = 0.0


@dataclass(frozen=True)
class LoadedModel:
    """A model folder, ready for a data set.

    Attributes:
        label: what the report calls it.
        denoiser, digest: as loaded, and the SHA-256 of its files.
        channels: for each band of the model that of the data set, None where it lacks it.
        classes: names of the model's own, empty where it has none.
        class_map: (256,) uint8, class index of the data set -> of the model.
        unknown_classes: classes of the data set that the model does not know; they are given as 255, not known.
    """

    label: str
    denoiser: Denoiser
    digest: str
    channels: tuple[int | None, ...]
    classes: tuple[str, ...]
    class_map: Tensor
    unknown_classes: tuple[str, ...]


def load_models(
    names: Sequence[str],
    bands: Sequence[str],
    classes: Sequence[str],
    scales: Sequence[int],
    device: str,
    dtype: torch.dtype,
) -> list[LoadedModel]:
    """Models for a data set with these bands and classes.

    Raises:
        ModelError: unknown or damaged, or bands or a scale that it cannot do.
    """
    loaded = []
    for name, label in zip(names, model_labels(names), strict=True):
        denoiser = load_denoiser(name, device, dtype)
        config = denoiser.config
        known = config.scales or tuple(scales)
        for scale in scales:
            if scale not in known:
                told = ", ".join(str(s) for s in known)
                raise ModelError(f"model '{label}' does not know scale {scale}; its scales are {told}")
        channels = _channels(label, denoiser.bands, config.optional_bands, bands)
        table, unknown = class_map(config.classes, classes)
        loaded.append(LoadedModel(label, denoiser, model_digest(name), channels, config.classes, table, unknown))
    return loaded


def model_labels(names: Sequence[str]) -> list[str]:
    """Last parts of the paths, as many as are needed to tell them apart."""
    paths = [Path(name).expanduser().resolve() if Path(name).exists() else Path(name) for name in names]
    if len(set(paths)) < len(paths):
        raise OptionError(f"a model is named twice among {', '.join(names)}; name each once")
    labels, count = [path.name for path in paths], 1
    while len(set(labels)) < len(labels):
        count += 1
        labels = ["/".join(path.parts[-count:]) for path in paths]
    return labels


def _channels(
    label: str, wanted: Sequence[str], optional: Sequence[str], bands: Sequence[str]
) -> tuple[int | None, ...]:
    lowered = [band.lower() for band in bands]
    missing = [band for band in wanted if band.lower() not in (*lowered, *(o.lower() for o in optional))]
    strange = [band for band in lowered if band not in [w.lower() for w in wanted]]
    if missing or strange:
        raise ModelError(
            f"model '{label}' takes the bands {', '.join(wanted)}, the data set has {', '.join(bands)}; "
            f"choose among them with --bands"
        )
    return tuple(lowered.index(band.lower()) if band.lower() in lowered else None for band in wanted)


def class_map(known: Sequence[str], classes: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """From class indices to those of a model, by name where the model names its classes, else as they are.

    Args:
        known: names of the model's classes.
        classes: names of the classes that are to be mapped.

    Returns:
        (256,) uint8, and the names that the model does not know, which become 255.
    """
    table = torch.arange(256, dtype=torch.uint8)
    if not known:
        return table, ()
    table[1:] = UNKNOWN_CLASS
    unknown_classes = []
    for index, name in enumerate(classes[1:], 1):
        own = class_index(name, known)
        if own is None:
            unknown_classes.append(name)
        else:
            table[index] = own
    return table, tuple(unknown_classes)


Kind = Literal["model", "baseline", "outputs"]
_MODES: dict[Consistency, options.Consistency] = {"standard": "standard", "strict": "strict"}


class Method(Protocol):
    """Something that gives an HR image for an observation."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...

    def restore(self, seen: Observation) -> Tensor:
        """(1, C, H, W) float32, DN, neither rounded nor clipped."""
        ...


@dataclass(frozen=True, slots=True)
class Baseline:
    """A classical restorer of the engine, or "ref": the reference as the files hold it, bicubic where it is missing."""

    name: str
    kind: Kind = "baseline"

    def restore(self, seen: Observation) -> Tensor:
        """(1, C, H, W), DN."""
        if self.name == "ref":
            up = upsample(seen.lr, seen.sensor.scale)
            return torch.where(torch.isnan(seen.tile.raw).any(dim=1, keepdim=True), up, seen.tile.raw)
        batch = Conditions((seen.tile.spec.lattice,), _padded(seen.lr, LR_MARGIN), seen.tile.ref)
        return _restored(CLASSICAL[self.name](seen.sensor), batch, seen)


BASELINES = ("bicubic", "bicubic-ibp", "ref", "matched-ref")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Result images of another method."""

    name: str
    folder: ImageFolder
    kind: Kind = "outputs"

    def restore(self, seen: Observation) -> Tensor:
        """(1, C, H, W), DN."""
        return self.folder.read(seen.tile.spec)


@dataclass(frozen=True)
class ModelRun:
    """A model with the conditions that it is given.

    Attributes:
        name: label, and what differs between the runs of this evaluation.
        model: loaded.
        settings: of the sampler.
        masks, reference: what it is given; see `MethodOptions`.
        classes: number of mask classes of the data set.
        seed: of the noise.
    """

    name: str
    model: LoadedModel
    settings: SamplerSettings
    masks: MaskSource
    reference: Reference
    classes: int
    seed: int
    kind: Kind = "model"
    _restorers: dict[SensorModel, DiffusionRestorer] = field(default_factory=dict, repr=False)

    def restore(self, seen: Observation) -> Tensor:
        """(1, C, H, W), DN."""
        return _restored(self.restorer(seen.sensor), self.conditions(seen), seen)

    def restorer(self, sensor: SensorModel) -> DiffusionRestorer:
        """The model for a sensor, as the engine runs it."""
        if sensor not in self._restorers:
            model = self.model
            self._restorers[sensor] = DiffusionRestorer(
                model.denoiser, self.settings, sensor, model.channels, model.label
            )
        return self._restorers[sensor]

    def conditions(self, seen: Observation) -> Conditions:
        """What the model is told of a tile, model units; the tile is a scene of its own, with noise of its own."""
        ref = {"given": seen.tile.ref, "raw": seen.tile.raw, "none": None, "other": seen.other}[self.reference]
        mask = self._mask(seen, ref)
        return Conditions(
            (seen.tile.spec.lattice,),
            BYTES.to_model(_padded(seen.lr, LR_MARGIN)),
            None if ref is None else BYTES.to_model(ref),
            mask,
            seed=self.seed,
        ).to(self.model.denoiser.device)

    def _mask(self, seen: Observation, ref: Tensor | None) -> Tensor | None:
        if self.masks.detector is not None:
            if ref is None:
                return None
            table, _ = class_map(self.model.classes, self.masks.detector.classes)
            return table[self.masks.detector.find(seen.lr, ref, seen.sensor).long()]
        mask = self.masks.of(seen.tile, self.classes)
        return None if mask is None else self.model.class_map[mask.long()]


def _restored(restorer: Restorer, batch: Conditions, seen: Observation) -> Tensor:
    """What a restorer gives, in DN: back-projected by itself, or corrected as the product corrects the whole."""
    by_itself = seen.consistency == "window" or not restorer.consistent
    image = restorer.restore(replace(batch, project=by_itself)).to("cpu", torch.float32)
    image = BYTES.to_numbers(image) if restorer.model_units else image
    if by_itself:
        return image
    numbers = seen.tile.spec.numbers
    values, lr = (numbers.own(x).to(torch.float32) for x in (image, seen.lr))
    mode = _MODES[seen.consistency]
    noise = (seen.noise * (numbers.high - numbers.low) / 255.0,) * lr.shape[1]
    known = NoiseFilter(noise, components(list(lr.numpy()), noise)) if seen.noise else None
    correction = LrConsistency((seen.sensor,) * lr.shape[1], mode, np.dtype(numbers.dtype), noise=known)
    values = correction.correct(values, correction.target(lr, lambda margin: _padded(lr, margin)), None)
    return numbers.scaled(correction.finish(values, lr, None) if mode == "strict" else values)


def _padded(lr: Tensor, margin: int) -> Tensor:
    return torch.nn.functional.pad(lr, (margin,) * 4, mode="replicate")
