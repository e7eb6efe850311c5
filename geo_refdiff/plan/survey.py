"""What the plan needs to know of the pixels: ranges and the radiometric fit, from fixed small tiles of the whole scene.

The tiles do not depend on the area of interest, so that a cut-out is treated like the whole. Where they happen to meet
next to no valid pixels, as in a swath or with a reference of scattered sheets, more are laid where there are some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.options import AUTO, snr_of
from geo_refdiff.plan.records import Bands, Radiometry
from geo_refdiff.plan.transfer import fit_transfer
from geo_refdiff.raster.crs import covered_window
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.gdal import is_remote
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.sampling import pick_evenly, spread_starts, tiles_with_data
from geo_refdiff.raster.warp import TILE, WarpedReader
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.radiometry import fit_radiometry
from geo_refdiff.sensor.noise import estimate_noise
from geo_refdiff.sensor.recognised import Instrument
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.wiener import components

_TILES = 8
"""Tiles along each axis for the scene's range."""

_REFERENCE_TILES = 4
"""Tiles along each axis for the radiometric fit, each of some 256 x 256 output pixels: warping them takes time."""

_SCENE_TILE = 64
"""Side of a tile for the scene's range, scene pixels."""

_LEAST_SEEN = 0.5
"""Part of what the sensor sees of the reference that must be there for a pixel to count; it stands for the whole."""

_ENOUGH = 0.25
"""Part of the tiles' pixels that must be valid; with fewer, more tiles are laid where there are some."""

_MANY_ZEROS = 0.02
"""Part of the pixels that are 0 in all bands from which on they are no shadows."""

_SENTINELS = (-9999.0, -32768.0, -99999.0)
"""Values that stand for missing pixels where real numbers and signed ones do not say which."""

_LOW, _HIGH = 0.5, 99.5
"""Percentiles of the range."""

ALIKE_UNITS = (0.2, 5.0)
"""Gains that the haze, the season and the sun's height explain, between data of one type."""

_RUN_ALIKE = 0.5
"""Correlation of a band from which on a gain beyond that is believed: the reference is in other units."""


@dataclass(frozen=True, slots=True)
class SeenReference:
    """A reference as the sensor would see it.

    Attributes:
        info: the reference.
        bands: 1-based.
        target: the whole scene's output grid.
        sensor: the declared operator.
        displacement: of the reference, pixels of the target.
    """

    info: RasterInfo
    bands: tuple[int, ...]
    target: GeoBox
    sensor: SensorModel
    displacement: Displacement | None = None


_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def remembered(survey: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """A survey of rasters, cached for the areas of one scene; repeated where a file has no modification time."""
    kept = lru_cache(maxsize=4)(survey)

    @wraps(survey)
    def call(*args: _Given.args, **options: _Given.kwargs) -> _Result:
        infos = [each.info if isinstance(each, SeenReference) else each for each in args]
        rasters = [each for each in infos if isinstance(each, RasterInfo)]
        remote = any(each.clouds is not None and is_remote(each.clouds.path) for each in rasters)
        dated = not remote and all(each.mtime_ns for each in rasters)
        return kept(*args, **options) if dated else survey(*args, **options)  # type: ignore[arg-type]

    return call


def survey_scene(
    info: RasterInfo, bands: Sequence[int], *, model_units: bool, scene_range: tuple[float, float] | None
) -> Radiometry:
    """Range of the scene, and the mid value of each band.

    Args:
        info: the scene.
        bands: 1-based.
        model_units: whether the restorer wants model units: uint8 is then `v / 127.5 - 1`, other types map
            the 0.5 .. 99.5 percentile range over all bands to [-1, 1], without clipping.
        scene_range: (low, high) that map to -1 and 1 instead.
    """
    sample = _sample(info, tuple(bands))
    fill = tuple(_middle(band) for band in sample)
    if scene_range is not None:
        low, high = scene_range
    elif not model_units:
        return Radiometry(0.0, 1.0, fill)
    elif info.dtype == "uint8":
        low, high = 0.0, 255.0
    else:
        low, high = _range(sample)
    return Radiometry((low + high) / 2, (high - low) / 2, fill)


def fill_note(info: RasterInfo, bands: Sequence[int]) -> str | None:
    """That the nodata value stands in single bands, where it counts as a measured one; None where it does not."""
    if info.validity != "nodata" or info.nodata is None:
        return None
    filled = (_sample(info, tuple(bands)) == info.nodata).any(axis=1)  # pixels that are missing are NaN
    numbers = [str(band) for band, any_filled in zip(bands, filled, strict=True) if any_filled]
    if not numbers:
        return None
    return (
        f"{info.nodata:g}, the nodata value, stands in band {', '.join(numbers)} where other bands hold data: it is "
        f"taken for a measured value there; if it is none, declare the bands' negative offset (gdal_edit.py -offset)"
    )


def undeclared_fill_note(info: RasterInfo, bands: Sequence[int]) -> str | None:
    """That pixels look missing where no nodata value says so, and so count as data; None where none do.

    0 in all bands of whole numbers, the greatest value of long ones, and values that cannot be measured (-9999).
    """
    if info.validity not in ("none", "nan"):
        return None
    sample, kind = _sample(info, tuple(bands)), np.dtype(info.dtype)
    shares = {0.0: _MANY_ZEROS} if kind.kind != "f" else {}
    if kind.kind != "u":
        shares |= dict.fromkeys(_SENTINELS, 0.0)
    if kind.kind != "f":
        shares |= {float(end): 0.0 for end in (np.iinfo(kind).min, np.iinfo(kind).max) if abs(int(end)) > 255}
    for value, least in shares.items():
        share = float((sample == value).all(axis=0).mean())
        if share > least:
            return (
                f"no nodata value is declared, so {value:g} in all bands ({max(share, 1e-3):.1%} of the pixels seen) "
                f"is taken for data; if these are missing, say so: gdal_edit.py -a_nodata {value:g}, or "
                f".rio.write_nodata({value:g}) of an array"
            )
    return None


def survey_others(info: RasterInfo, bands: Bands, radiometry: Radiometry) -> tuple[Bands, Radiometry]:
    """How the bands that the model does not know depend on those that it knows, and their mid values."""
    if not bands.other:
        return bands, radiometry
    sample = _sample(info, bands.computed)
    count = len(bands.scene)
    fits = [fit_transfer(sample[:count], band) for band in sample[count:]]
    weights, fitness = tuple(f.weights for f in fits), tuple(f.correlation for f in fits)
    fill = radiometry.fill + tuple(_middle(band) for band in sample[count:])
    return replace(bands, weights=weights, fitness=fitness), replace(radiometry, fill=fill)


@dataclass(frozen=True, slots=True)
class Noise:
    """The scene's noise.

    Attributes:
        sigmas: standard deviation for each computed band, digital numbers.
        usual: whether that is the sensor's usual one, since it could not be measured.
        uncertain: whether it may be off by a factor of two, since the ground hides it everywhere.
        components: mixtures of the bands with noise, see `sensor.wiener.components`.
    """

    sigmas: tuple[float, ...]
    usual: tuple[bool, ...]
    uncertain: tuple[bool, ...]
    components: tuple[tuple[float, ...], ...]


@remembered
def survey_noise(
    info: RasterInfo,
    bands: Bands,
    radiometry: Radiometry,
    asked: str | float,
    instrument: Instrument | None = None,
    reference: SeenReference | None = None,
) -> Noise:
    """The noise of the scene.

    Args:
        radiometry: of all these bands.
        asked: "auto": estimated from the scene itself, and the reference where it covers enough, 0 where it is lost in
            rounding; "SNR:..." of each band's mid value, offset taken into account; or the figure itself.
        instrument: whose usual noise is taken where the scene is too small to tell, or cloudy; None: 0 there.
        reference: as it is placed; None: there is none.
    """
    count = len(bands.computed)
    none = (False,) * count
    if asked == 0:
        return Noise((0.0,) * count, none, none, ())
    tiles = _tiles(info, bands.computed)
    if asked == AUTO:
        estimate = None if reference is None else estimate_noise(*_pairs(info, bands.computed, reference))
        if estimate is None or np.isnan(estimate.sigmas).any():
            estimate = estimate_noise(tiles)
        own = info.count - info.coarser  # bands behind these were resampled, which smooths noise: nothing to measure
        estimates = [s if band <= own else 0.0 for band, s in zip(bands.computed, estimate.sigmas, strict=True)]
        undetermined = tuple(bool(np.isnan(sigma)) for sigma in estimates)
        usual = [_usual(info, bands, k, instrument) for k in range(len(estimates))]
        sigmas = tuple(u if unsure else s for s, u, unsure in zip(estimates, usual, undetermined, strict=True))
        uncertain = tuple(unsure and sigma > 0 for unsure, sigma in zip(estimate.uncertain, estimates, strict=True))
        return Noise(sigmas, undetermined, uncertain, components(tiles, sigmas))
    if isinstance(asked, str):
        zeros = (info.offsets[band - 1] / (info.scales[band - 1] or 1.0) for band in bands.computed)
        sigmas = tuple(abs(fill + zero) / snr_of(asked) for fill, zero in zip(radiometry.fill, zeros, strict=True))
    else:
        sigmas = (asked,) * count
    return Noise(sigmas, none, none, components(tiles, sigmas))


def _usual(info: RasterInfo, bands: Bands, place: int, instrument: Instrument | None) -> float:
    """Of an instrument, for a computed band, in digital numbers; 0 where it, or what they mean, is not known."""
    scale = info.scales[bands.computed[place] - 1]
    usual = None if instrument is None else instrument.noise((bands.names + bands.other_names)[place])
    return 0.0 if usual is None or scale == 1 or not scale else usual / abs(scale)


@lru_cache(maxsize=1)  # two questions are asked of it
def _sample(info: RasterInfo, bands: tuple[int, ...]) -> NDArray[np.float64]:
    """(C, n) pixels of tiles over the whole scene, NaN = missing."""
    return np.concatenate([tile.reshape(len(bands), -1) for tile in _tiles(info, bands)], axis=1)


@remembered
def _tiles(info: RasterInfo, bands: tuple[int, ...]) -> tuple[NDArray[np.float64], ...]:
    """(C, h, w) tiles over the whole scene, NaN = missing."""
    samples: list[NDArray[np.float64]] = []
    whole = Window(0, 0, info.height, info.width)
    with RasterReader(info, bands) as reader:

        def take(window: Window) -> int:
            """Take the pixels of a window, and say how many are valid."""
            values, valid = reader.read(window)
            samples.append(np.where(valid, values.astype(np.float64), np.nan))
            return int(valid.all(axis=0).sum())

        fixed = list(_spread(whole, _SCENE_TILE, 1, _TILES))
        if _is_thin(sum(take(window) for window in fixed), fixed, whole):
            for window in pick_evenly(tiles_with_data(info, bands[0], _SCENE_TILE), _TILES**2):
                take(window)
    return tuple(samples)


@remembered
def fit_reference(
    radiometry: Radiometry, scene: RasterInfo, scene_bands: tuple[int, ...], reference: SeenReference
) -> Radiometry:
    """Gain and offset from the reference, as the sensor would see it, to the scene; a pair a band for the run.

    Args:
        radiometry: of the scene; comes back with the fit added.
    """
    pairs = _pairs(scene, scene_bands, reference)
    b, a = (np.concatenate([tile.reshape(len(tile), -1) for tile in tiles], axis=1) for tiles in pairs)
    good = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    return _fitted(radiometry, a[:, good], b[:, good], same_type=scene.dtype == reference.info.dtype)


@remembered
def _pairs(
    scene: RasterInfo, scene_bands: tuple[int, ...], reference: SeenReference
) -> tuple[tuple[NDArray[np.float64], ...], tuple[NDArray[np.float64], ...]]:
    """(C, h, w) tiles of the scene, and of the reference as the sensor would see it; NaN where either is missing."""
    area = covered_window(reference.info, scene)
    sensor = reference.sensor
    reference_values: list[NDArray[np.float64]] = []
    scene_values: list[NDArray[np.float64]] = []
    side = max(8, TILE // sensor.scale)
    with (
        RasterReader(scene, scene_bands) as lr,
        WarpedReader(reference.info, reference.bands, reference.target, "cubic", reference.displacement) as hr,
    ):

        def compare(window: Window) -> int:
            """Take what both know in a window, and say how many pixels that is."""
            image, present = hr.read(window.multiply(sensor.scale))
            values, valid = lr.read(window)
            fine, fine_valid = torch.from_numpy(image.astype(np.float32))[None], torch.from_numpy(present)[None, None]
            mean, share = sensor.observe_valid(fine, fine_valid)
            good = (share[0, 0].numpy() >= _LEAST_SEEN) & valid.all(axis=0)
            reference_values.append(np.where(good, mean[0].numpy().astype(np.float64), np.nan))
            scene_values.append(np.where(good, values.astype(np.float64), np.nan))
            return int(good.sum())

        fixed = list(_spread(area, side, side, _REFERENCE_TILES))
        if _is_thin(sum(compare(window) for window in fixed), fixed, area):
            both = tiles_with_data(scene, scene_bands[0], side, (reference.info, reference.bands[0]))
            for window in pick_evenly(both, _REFERENCE_TILES**2):
                compare(window)
    return tuple(scene_values), tuple(reference_values)


def _fitted(
    radiometry: Radiometry, reference: NDArray[np.float64], scene: NDArray[np.float64], *, same_type: bool
) -> Radiometry:
    """The fit, where data of one type are in other units only if they run alike."""
    fit = fit_radiometry(reference, scene, np.ones(scene.shape[1], dtype=bool))
    gain, offset = np.array(fit.gain), np.array(fit.offset)
    if same_type and fit.pixels:
        limited = np.clip(gain, *ALIKE_UNITS)
        implausible = (limited != gain) & (np.array(fit.correlation) < _RUN_ALIKE)
        offset = np.where(implausible, np.median(scene, axis=1) - limited * np.median(reference, axis=1), offset)
        gain = np.where(implausible, limited, gain)
    return replace(
        radiometry,
        gain=tuple(float(g) for g in gain),
        offset=tuple(float(o) for o in offset),
        correlation=fit.correlation,
        pixels=fit.pixels,
    )


def _spread(area: Window, side: int, grid: int, tiles: int) -> Iterator[Window]:
    """Up to `tiles` x `tiles` tiles of `side` pixels, evenly over `area`, from multiples of `grid`, none twice."""
    rows = _starts(area.row, area.height, side, grid, tiles)
    cols = _starts(area.col, area.width, side, grid, tiles)
    for row in rows:
        for col in cols:
            tile = Window(row, col, side, side).intersect(area)
            if tile is not None:
                yield tile


def _is_thin(valid: int, tiles: Sequence[Window], area: Window) -> bool:
    """Whether tiles that do not cover all of an area hold too few valid pixels."""
    total = sum(tile.area for tile in tiles)
    return valid < _ENOUGH * total < _ENOUGH * area.area


def _starts(start: int, length: int, side: int, grid: int, tiles: int) -> list[int]:
    if length <= tiles * side:
        return list(range(start, start + length, side))
    starts = spread_starts(start, length, side, tiles)
    return sorted({max(start, place // grid * grid) for place in starts})


def _range(sample: NDArray[np.float64]) -> tuple[float, float]:
    """(0.5, 99.5) percentile over all bands; a flat or empty sample gives a range of 1 around its value."""
    valid = sample[np.isfinite(sample)]
    if not valid.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(valid, [_LOW, _HIGH]))
    return (low, high) if high - low > 1e-9 * max(abs(low), abs(high), 1e-12) else (low - 0.5, low + 0.5)


def _middle(band: NDArray[np.float64]) -> float:
    valid = band[np.isfinite(band)]
    return float(np.float32(np.median(valid))) if valid.size else 0.0
