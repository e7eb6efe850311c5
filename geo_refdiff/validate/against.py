"""Comparison of an output with a truth, and with the reference that it was made with, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite, log10
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch.nn import functional as F

from geo_refdiff.engine.conditions import enlarged
from geo_refdiff.engine.finish import rounded
from geo_refdiff.errors import GridError, InputError
from geo_refdiff.evaluate.metrics import haarpsi, ssim
from geo_refdiff.raster.band_pairs import band_list, matching_bands
from geo_refdiff.raster.crs import covered_window
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.sampling import spread_tiles
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window, repeated
from geo_refdiff.registration.rasters import register_rasters
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.validate.promises import Declared

_TILE = 256
_WIDEST = 16
"""Pixels along the widest wavelet of HaarPSI; SSIM's window has 11."""
_NO_TILE = f"no part of {_WIDEST} pixels or more a side is without missing or cloudy pixels"
_LEAST = 1.0
"""Difference of scene and truth, in units of 255 for the scene's range, below which a place does not count."""


@dataclass(frozen=True, slots=True)
class AgainstTruth:
    """An output compared with a truth; values are in units of 255 for the scene's range.

    Attributes:
        figures: "PSNR" (dB) over all valid pixels but cloudy ones; "SSIM" and "HaarPSI", means over tiles without
            missing or cloudy pixels, weighted by area.
        bicubic: the same figures of the scene enlarged by bicubic interpolation, in the output's data type.
        unmeasured: for each figure that is missing, the reason.
        correctness: scene pixels of each class of `correctness`; empty if there are none.
        registration: of the truth on the scene, see `against_reference`; the truth is not moved.
    """

    figures: dict[str, float] = field(default_factory=dict)
    bicubic: dict[str, float] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    correctness: dict[str, int] = field(default_factory=dict)
    registration: dict[str, Any] = field(default_factory=dict)


def against_truth(
    info: RasterInfo,
    truth: RasterInfo,
    source: RasterInfo,
    declared: Declared,
    corner: tuple[int, int],
    value_range: float,
) -> AgainstTruth:
    """Compare an output with a truth, tile by tile.

    Args:
        info: the output.
        truth: on any grid; its bands are matched by name, else by place.
        source: the scene; `corner` (row, col) is its pixel in the output's corner.
        declared: of the output.
        value_range: of the scene, in its units.

    Raises:
        InputError: the truth has other bands than the output, or other units.
    """
    own, other = _Figures(), _Figures()
    counts = np.zeros(len(CLASSES), dtype=np.int64)
    scale, bands = declared.scale, declared.bands
    chosen = matching_bands(info, truth, range(len(info.data_bands)))
    check_units(source, bands, truth, chosen, scale, value_range)
    side, unit = max(_TILE // scale, 1), 255.0 / value_range
    with (
        RasterReader(info, info.data_bands) as fine,
        WarpedReader(truth, chosen, scene_geobox(info), "cubic") as true,
        RasterReader(source, bands) as coarse,
    ):
        for tile in tiles(info, scale, side):
            window = tile.multiply(scale)
            (pixels, valid), (wanted, truth_valid) = fine.read(window), true.read(window)
            smooth, _, lr_valid = enlarged(coarse, tile.shift(*corner), scale)
            both = valid & truth_valid & repeated(lr_valid, scale)
            own.feed(pixels, wanted, both, unit)
            other.feed(rounded(torch.from_numpy(smooth), np.dtype(source.dtype)).numpy(), wanted, both, unit)
            if both.all():
                a, b, c = (_tensor(x, unit) for x in (pixels, smooth, wanted))
                counts += correctness(a, b, c, scale, _LEAST).numpy()
    figures, unmeasured = own.means()
    classes = dict(zip(CLASSES, counts.tolist(), strict=True)) if counts.sum() else {}
    registration = _registration(source, bands, truth, chosen, declared.sensors[0])[0]
    return AgainstTruth(figures, other.means()[0], unmeasured, classes, registration)


class _Figures:
    """Figures of an image against a truth, fed tile by tile."""

    def __init__(self) -> None:
        self.squares, self.count = 0.0, 0
        self.of_tiles: dict[str, list[tuple[float, int]]] = {"SSIM": [], "HaarPSI": []}

    def feed(self, image: NDArray[Any], truth: NDArray[Any], both: NDArray[np.bool_], unit: float) -> None:
        """Add a tile, (C, height, width); `both`: where image and truth are valid."""
        error = (image[both].astype(np.float64) - truth[both]) * unit
        self.squares, self.count = self.squares + float(np.square(error).sum()), self.count + error.size
        if both.all() and min(image.shape[1:]) >= _WIDEST:
            a, b = _tensor(image, unit), _tensor(truth, unit)
            for key, figure in zip(self.of_tiles, (ssim, haarpsi), strict=True):
                self.of_tiles[key].append((float(figure(a, b)), image[0].size))

    def means(self) -> tuple[dict[str, float], dict[str, str]]:
        """The figures; for each that is missing, the reason."""
        figures, unmeasured = {}, {}
        if self.squares:
            figures["PSNR"] = 10.0 * log10(255.0**2 * self.count / self.squares)
        else:
            unmeasured["PSNR"] = "all common pixels are the same" if self.count else "no pixel is valid in both"
        for key, values in self.of_tiles.items():
            kept = np.array([v for v in values if isfinite(v[0])])  # an image of zeros has no HaarPSI
            if kept.size:
                figures[key] = float(np.average(kept[:, 0], weights=kept[:, 1]))
            else:
                unmeasured[key] = "all is black" if values else _NO_TILE
        return figures, unmeasured


def _tensor(image: NDArray[Any], unit: float) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32) * np.float32(unit))[None]


def against_reference(
    info: RasterInfo, reference: RasterInfo, source: RasterInfo, declared: Declared, corner: tuple[int, int]
) -> dict[str, Any]:
    """Compare an output with its reference: registration on the scene, coverage, and shared detail.

    Args:
        info: the output.
        reference: its bands are matched as by `upscale`, for the bands that the model made, or as declared.
        source: the scene; `corner` (row, col) is its pixel in the output's corner.
        declared: of the output.

    Returns:
        "covered": share of the output's valid pixels where the reference is valid. "registration": verdict, reason,
        shift (rows, columns), its standard error "sigma" and the residual "after", scene px, None unless measured.
        "detail_shared": correlation of the detail of both below some 9 px, -1..1, where both are valid and the
        scene is free of clouds, after registration. "bicubic_detail_shared": the same of the scene enlarged by bicubic
        interpolation.

    Raises:
        InputError: the reference has other bands than the scene, or lacks declared ones.
    """
    scale, bands = declared.scale, [declared.bands[k] for k in declared.modelled]
    chosen = declared.reference or matching_bands(source, reference, [source.data_bands.index(b) for b in bands])
    if not set(chosen) <= set(reference.data_bands):
        raise InputError(
            f"{reference.path}: has bands {band_list(reference)}, the output was made with "
            f"{', '.join(map(str, chosen))} of its reference (--ref-bands); give that reference"
        )
    registration, displacement = _registration(source, bands, reference, chosen, declared.sensors[0])
    own, other, pixels, covered = np.zeros(3), np.zeros(3), 0, 0
    with (
        RasterReader(info, [info.data_bands[k] for k in declared.modelled]) as fine,
        RasterReader(source, bands) as coarse,
        ExitStack() as stack,
    ):
        moved = None if displacement is None or displacement.is_zero else displacement.scaled(scale)
        target = output_geobox(scene_geobox(source), scale)
        try:
            old = stack.enter_context(WarpedReader(reference, chosen, target, "cubic", moved))
        except GridError:
            nothing = {"detail_shared": None, "bicubic_detail_shared": None}
            return {"registration": registration, "covered": 0.0, **nothing}
        for tile in tiles(info, scale, max(2 * _TILE // scale, 1)):
            image, valid = fine.read(tile.multiply(scale))
            values, ref_valid = old.read(tile.shift(*corner).multiply(scale))
            whole = valid.all(axis=0)
            pixels, covered = pixels + int(whole.sum()), covered + int((whole & ref_valid).sum())
            smooth, _, lr_valid = enlarged(coarse, tile.shift(*corner), scale)
            both = whole & ref_valid & repeated(lr_valid, scale).all(axis=0)
            if both.any():
                a, b, c = (_detail(x.astype(np.float64), both) for x in (image, values, smooth))
                own += ((a * b).sum(), (a * a).sum(), (b * b).sum())
                other += ((c * b).sum(), (c * c).sum(), (b * b).sum())
    return {
        "registration": registration,
        "covered": covered / pixels if pixels else 0.0,
        "detail_shared": _correlation(own),
        "bicubic_detail_shared": _correlation(other),
    }


def _correlation(sums: NDArray[np.float64]) -> float | None:
    """From the sums of products and squares; None where one of the two is flat."""
    return float(sums[0] / np.sqrt(sums[1] * sums[2])) if sums[1] and sums[2] else None


def tiles(info: RasterInfo, scale: int, side: int) -> Iterator[Window]:
    """Tiles of a raster, in pixels `scale` times as large as its own."""
    return Window(0, 0, info.height // scale, info.width // scale).tiles(side)


def _registration(
    source: RasterInfo, bands: Sequence[int], other: RasterInfo, chosen: Sequence[int], sensor: SensorModel
) -> tuple[dict[str, Any], Displacement | None]:
    """Registration of a raster on the scene, JSON-ready, and its displacement, scene pixels; None unless registered."""
    unknown: dict[str, Any] = {"shift": None, "sigma": None, "after": None}
    try:
        registration = register_rasters(source, bands, other, chosen, sensor)
    except GridError as error:
        return {"verdict": "no overlap", "reason": str(error), **unknown}, None
    if not registration.registered:
        return {"verdict": registration.verdict, "reason": registration.reason, **unknown}, None
    measured = {
        "shift": [round(v, 4) for v in registration.shift],
        "sigma": round(registration.sigma, 4),
        "after": round(registration.after, 4) if isfinite(registration.after) else None,
    }
    return {"verdict": registration.verdict, "reason": registration.reason, **measured}, registration.displacement


def _detail(image: NDArray[np.float64], both: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Image less its mean over 9 x 9 pixels, 0 where not both are valid."""
    weight = np.maximum(uniform_filter(both.astype(np.float64), 9, mode="constant"), 1e-9)
    mean = np.stack([uniform_filter(np.where(both, band, 0.0), 9, mode="constant") for band in image]) / weight
    return np.where(both, np.where(both, image, 0.0) - mean, 0.0)


CLASSES = ("improvement", "omission", "hallucination")
GAMMA = 0.8
_LEAST_DISTANCE = 1e-3


def correctness(image: torch.Tensor, scene: torch.Tensor, truth: torch.Tensor, side: int, least: float) -> torch.Tensor:
    """Places where an output adds truth, nothing, or invention: (3,) int64 counts in the order of `CLASSES`.

    The correctness scores of opensr-test (Aybar, Montero, Donike, Kalaitzis and Gomez-Chova 2024, "A comprehensive
    benchmark for optical remote sensing image super-resolution"), written from their definitions. Distances are local
    mean absolute differences over all bands, divided by that of the up-sampled scene and the truth: d_im between output
    and truth, d_om between output and up-sampled scene. With H = d_im + d_om - 1, never negative:

        improvement    d_im + d_om (1 - exp(-gamma H))      small where the output is the truth
        omission       d_om + d_im (1 - exp(-gamma H))      small where it is still the scene
        hallucination  exp(-gamma d_im d_om)                small where it is neither

    The smallest names the place. Output and truth are compared as they are, without harmonisation.

    Args:
        image, scene, truth: (N, C, H, W) output, scene up-sampled to its grid, truth; one unit.
        side: of a place, pixels; H and W are multiples of it.
        least: places where scene and truth differ by less, in that unit, do not count: there is nothing to add.
    """

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d((a - b).abs().mean(dim=1, keepdim=True), side)

    apart = distance(scene, truth)
    counted = apart > max(least, _LEAST_DISTANCE)
    apart = apart.clamp(min=_LEAST_DISTANCE)
    d_im, d_om = distance(image, truth) / apart, distance(image, scene) / apart
    wrong = 1.0 - torch.exp(-GAMMA * (d_im + d_om - 1.0).clamp(min=0.0))
    scores = torch.cat([d_im + d_om * wrong, d_om + d_im * wrong, torch.exp(-GAMMA * d_im * d_om)], dim=1)
    chosen = scores.argmin(dim=1, keepdim=True)[counted]
    return torch.bincount(chosen, minlength=len(CLASSES))


_UNITS_SIDE, _UNITS_TILES = 32, 4
"""scene pixels along a tile, and tiles along an axis."""

_FACTOR = 3.0
"""How many times wider one range may be than the other: other light or season stays well below."""

_TELLING = 0.1
"""Of the scene's range: what spreads less, and is closer, may be anything (a lake)."""

_LOW, _HIGH = 0.5, 99.5
_FEWEST = 16


def check_units(
    source: RasterInfo,
    bands: Sequence[int],
    truth: RasterInfo,
    chosen: Sequence[int],
    scale: int,
    value_range: float,
) -> None:
    """Whether truth and scene can be compared number by number, by what they declare and by their values.

    Args:
        source, truth: as inspected.
        bands, chosen: 1-based, pair by pair.
        scale: output pixels along a scene pixel.
        value_range: of the scene, in its numbers.

    Raises:
        InputError: units, scale or offset that both declare differ; or values over the same ground are apart by more
            than they spread, or one spreads 3 times as wide as the other.
        GridError: no overlap.
    """
    for band, other in zip(bands, chosen, strict=True):
        ours, theirs = _declared(source, band), _declared(truth, other)
        for what, own, problem in zip(("unit", "scale and offset"), ours, theirs, strict=True):
            if own is not None and problem is not None and own != problem:
                raise InputError(
                    f"{truth.path}: its band {other} has {what} {problem}, the scene's band {band} has {own}; "
                    f"give a truth in the scene's own numbers"
                )
    for place, (a, b) in enumerate(_samples(source, bands, truth, chosen, scale)):
        if a.size < _FEWEST:
            continue
        (low, high), (least, most) = np.percentile(a, [_LOW, _HIGH]), np.percentile(b, [_LOW, _HIGH])
        narrow, wide = sorted((high - low, most - least))
        apart = abs(float(np.median(a)) - float(np.median(b)))
        if max(apart, wide) > _TELLING * value_range and (apart > wide or wide > _FACTOR * narrow):
            raise InputError(
                f"{truth.path}: its band {chosen[place]} holds {least:.4g} to {most:.4g} where the scene holds "
                f"{low:.4g} to {high:.4g}; give a truth in the scene's own numbers (gdal_translate -scale ... -ot ...)"
            )


def _declared(info: RasterInfo, band: int) -> tuple[str | None, tuple[float, float] | None]:
    """Unit, and (scale, offset); None where nothing is said."""
    pair = (info.scales[band - 1], info.offsets[band - 1])
    return info.units[band - 1] or None, None if pair == (1.0, 0.0) else pair


def _samples(
    source: RasterInfo, bands: Sequence[int], truth: RasterInfo, chosen: Sequence[int], scale: int
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each band values of the scene and means of the truth over the same scene pixels."""
    samples: list[list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = [[] for _ in bands]
    target = output_geobox(scene_geobox(source), scale)
    with RasterReader(source, bands) as coarse, WarpedReader(truth, chosen, target, "cubic") as fine:
        for tile in spread_tiles(covered_window(truth, source), _UNITS_SIDE, _UNITS_TILES, _UNITS_TILES):
            values, valid = coarse.read(tile)
            image, truth_valid = fine.read(tile.multiply(scale))
            cells = (tile.height, scale, tile.width, scale)
            whole = truth_valid.reshape(cells).all(axis=(1, 3))
            means = image.astype(np.float64).reshape(len(bands), *cells).mean(axis=(2, 4))
            for band, pairs in enumerate(samples):
                good = whole & valid[band]
                pairs.append((values[band][good].astype(np.float64), means[band][good]))
    none = np.zeros(0)
    return [
        (np.concatenate([none, *(a for a, _ in pairs)]), np.concatenate([none, *(b for _, b in pairs)]))
        for pairs in samples
    ]
