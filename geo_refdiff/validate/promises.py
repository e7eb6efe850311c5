"""The promises of an output of `upscale`: what its tags declare, and which of it does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TypeVar, get_args

import numpy as np
import rasterio

from geo_refdiff.engine.consistency import Residual
from geo_refdiff.engine.rasters import BAND_TAG, EXTENT_TAG, PLAN_TAG, REF_BAND_TAG, VALID_TAG
from geo_refdiff.errors import InputError
from geo_refdiff.options import CloudMode, Consistency
from geo_refdiff.plan.records import Output
from geo_refdiff.raster.band_names import band_name
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.statistics import BandSums
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.sensor import Kernel, SensorModel

_Word = TypeVar("_Word", bound=str)

_STATISTICS = ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV")


STRICT_SHARE = 1e-4
"""Largest residual of floating-point data in strict mode, as a share of the scene's range."""

_DIGITS = 1e-3
"""Relative precision of figures in tags, which have four digits."""

_EPSILONS = 4 * float(np.finfo(np.float32).eps)
"""Relative error of float32 sums between machines."""

_SUMS = 1e-6


@dataclass(frozen=True, slots=True)
class DeclaredResidual:
    """The difference between scene and output as the tags declare it, see `engine.consistency.Residual`.

    Attributes:
        largest, rms: in the scene's units.
        count: scene pixels, each band counted.
        beyond, saturated: None for floating data.
    """

    largest: float
    rms: float
    count: int
    beyond: int | None
    saturated: int | None


@dataclass(frozen=True, slots=True)
class Declared:
    """The tags of an output.

    Attributes:
        scale: output pixels along a scene pixel.
        bands: 1-based bands of the scene, in the output's order.
        modelled: places of the bands made by the model; the others were made by transfer.
        reference: bands of the reference for these, where --ref-bands chose them; empty: as names and places say.
        area: "none", "box" or "polygon".
        clouds: what became of the scene's clouds: "keep", "nodata", or "none" where there were none.
        extent: window of the output on the whole scene's output grid.
        valid: number of valid pixels of each band.
        consistency: mode.
        sensors: sensor operator of each band.
        residual: between scene and output; None where consistency was off.
        statistics: (minimum, maximum, mean, standard deviation) of each band; None where the file does not say.
    """

    scale: int
    bands: tuple[int, ...]
    modelled: tuple[int, ...]
    reference: tuple[int, ...]
    area: str
    clouds: str
    extent: Window
    valid: tuple[int, ...]
    consistency: Consistency
    sensors: tuple[SensorModel, ...]
    residual: DeclaredResidual | None
    statistics: tuple[tuple[float, float, float, float] | None, ...]


def read_declared(info: RasterInfo) -> Declared:
    """Read the tags of an output.

    Raises:
        InputError: they are missing, incomplete or damaged.
    """
    with rasterio.open(info.path) as dataset:
        tags = dict(dataset.tags())
        band_tags = [dict(dataset.tags(b)) for b in info.data_bands]
    if PLAN_TAG not in tags or "GEO_REFDIFF_BANDS" not in tags:
        raise InputError(f"{info.path}: carries no tags of geo-refdiff upscale; give a file as it was written")
    try:
        return _parsed(tags, band_tags)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{info.path}: its tags of geo-refdiff upscale are incomplete or damaged ({error}); give a file as this "
            f"version writes it"
        ) from error


def _parsed(tags: Mapping[str, str], band_tags: list[dict[str, str]]) -> Declared:
    scale = int(tags["GEO_REFDIFF_SCALE"])
    if scale < 2:
        raise ValueError(f"scale {scale}")
    return Declared(
        scale=scale,
        bands=_numbers(tags["GEO_REFDIFF_BANDS"]),
        modelled=tuple(k for k, tags in enumerate(band_tags) if tags.get(BAND_TAG, "model") == "model"),
        reference=tuple(int(tags[REF_BAND_TAG]) for tags in band_tags if REF_BAND_TAG in tags),
        area=_one_of(tags["GEO_REFDIFF_AOI"], ("none", "box", "polygon")),
        clouds=_one_of(tags.get("GEO_REFDIFF_CLOUDS", "none"), ("none", *get_args(CloudMode))),
        extent=Window(*_numbers(tags[EXTENT_TAG])),
        valid=_numbers(tags[VALID_TAG]),
        consistency=_one_of(tags["GEO_REFDIFF_CONSISTENCY"], get_args(Consistency)),
        sensors=tuple(
            SensorModel(scale, float(sigma), _one_of(tags["GEO_REFDIFF_PSF_KERNEL"], get_args(Kernel)))
            for sigma in tags["GEO_REFDIFF_PSF_SIGMAS"].split(",")
        ),
        residual=_residual(tags),
        statistics=tuple(_statistics(tags) for tags in band_tags),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(v) for v in text.split(","))


def _one_of(text: str, choices: tuple[_Word, ...]) -> _Word:
    for value in choices:
        if text == value:
            return value
    raise ValueError(f"'{text}' is none of {', '.join(choices)}")


def _residual(tags: Mapping[str, str]) -> DeclaredResidual | None:
    if "GEO_REFDIFF_SCENE_PIXELS" not in tags:
        return None
    beyond, saturated = (
        int(tags[key]) if key in tags else None
        for key in ("GEO_REFDIFF_SCENE_PIXELS_BEYOND_HALF_DN", "GEO_REFDIFF_SCENE_PIXELS_BEYOND_SATURATED")
    )
    return DeclaredResidual(
        float(tags["GEO_REFDIFF_SCENE_RESIDUAL_MAX"]),
        float(tags["GEO_REFDIFF_SCENE_RESIDUAL_RMS"]),
        int(tags["GEO_REFDIFF_SCENE_PIXELS"]),
        beyond,
        saturated,
    )


def _statistics(tags: Mapping[str, str]) -> tuple[float, float, float, float] | None:
    """Also None for approximate statistics, which other programs compute from overviews."""
    texts = [tags.get(f"STATISTICS_{name}") for name in _STATISTICS]
    if "STATISTICS_APPROXIMATE" in tags or None in texts:
        return None
    minimum, maximum, mean, deviation = (float(v) for v in texts if v is not None)
    return (minimum, maximum, mean, deviation) if np.isfinite([minimum, maximum, mean, deviation]).all() else None


def metadata(info: RasterInfo, source: RasterInfo, declared: Declared) -> list[str]:
    """Check data type, nodata, band names, scales, offsets and units against those of the scene.

    Args:
        info: the output, with the declared number of bands.
        source: the scene.
    """
    broken: list[str] = []
    if info.dtype != source.dtype:
        broken.append(f"data type: {info.dtype}, the scene has {source.dtype}")
    wanted = Output.of(source, more=declared.area == "polygon" or declared.clouds == "nodata")
    if not _same(info.nodata, wanted.nodata, info.dtype):
        broken.append(f"nodata: declared as {_quoted(info.nodata)}, the scene asks for {_quoted(wanted.nodata)}")
    if wanted.mask != (info.validity == "mask"):
        broken.append(
            "nodata: " + ("the mask band is gone" if wanted.mask else "there is a mask band that none asked for")
        )
    for place, (own, band) in enumerate(zip(info.data_bands, declared.bands, strict=True)):
        name = f"band {band_name(source, source.data_bands.index(band)).removeprefix('band ')}"
        for what, ours, theirs in (
            ("name", info.descriptions[own - 1] or None, source.descriptions[band - 1] or None),
            ("scale", info.scales[own - 1], source.scales[band - 1]),
            ("offset", info.offsets[own - 1], source.offsets[band - 1]),
            ("unit", info.units[own - 1] or None, source.units[band - 1] or None),
        ):
            if ours != theirs:
                broken.append(f"{what}: {_quoted(ours)} in band {place + 1}, the scene's {name} has {_quoted(theirs)}")
    return broken


def missing(lost: int, invented: int, sums: list[BandSums], declared: Declared) -> list[str]:
    """Check which pixels are valid.

    Args:
        lost, invented: output pixels that are valid in the scene alone, and in the output alone.
        sums: over the valid pixels of each output band.
    """
    if lost or invented:
        return [f"nodata: {lost} valid pixels lost, {invented} invented"]
    for place, (band, count) in enumerate(zip(sums, declared.valid, strict=True)):
        if band.count != count:
            what = "lost" if band.count < count else "invented"
            number = abs(count - band.count)
            return [f"nodata: {number} valid pixels {what} in band {place + 1}; the tags say that {count} are valid"]
    return []


def measured(sums: list[BandSums], declared: Declared) -> list[str]:
    """Check the statistics in the tags against the pixels."""
    for place, (band, tagged) in enumerate(zip(sums, declared.statistics, strict=True)):
        if tagged is None or not band.count:
            continue
        own = band.statistics(band.count)
        measured = (own.minimum, own.maximum, own.mean, own.stddev)
        slack = _SUMS * max(abs(band.minimum), abs(band.maximum))
        if not np.allclose(measured, tagged, rtol=_SUMS, atol=slack):
            return [
                f"statistics: band {place + 1} has mean {own.mean:.6g} and standard deviation {own.stddev:.6g}, the "
                f"tags say {tagged[2]:.6g} and {tagged[3]:.6g}: its pixels were changed"
            ]
    return []


def consistency(residual: Residual, declared: Declared, dtype: str, value_range: float, magnitude: float) -> list[str]:
    """Check the residual between scene and output against the mode and the tags.

    Args:
        residual: measured.
        dtype: of the scene.
        value_range: of the scene, in its units.
        magnitude: the largest absolute value of the output.
    """
    broken: list[str] = []
    slack, unit = _EPSILONS * magnitude, "DN" if np.dtype(dtype).kind != "f" else "in the scene's units"
    if declared.consistency == "strict" and unit == "DN" and residual.beyond > residual.saturated:
        broken.append(
            f"consistency: strict mode promises half a DN, {residual.beyond - residual.saturated} scene pixels are "
            f"off by more without a saturated pixel in sight"
        )
    limit = STRICT_SHARE * value_range + slack
    if declared.consistency == "strict" and unit != "DN" and residual.largest > limit:
        broken.append(
            f"consistency: strict mode promises {limit:.4g} {unit} ({STRICT_SHARE:g} of the scene's range), "
            f"{residual.largest:.4g} remain"
        )
    if declared.residual is not None:
        broken += [f"consistency: {line}" for line in _exceeds_tags(residual, declared.residual, slack, unit)]
    return broken


def _exceeds_tags(residual: Residual, declared: DeclaredResidual, slack: float, unit: str) -> list[str]:
    """Residuals above the tagged ones; a cut-out has fewer, because pixels with cut-off surroundings do not count."""
    lines = []
    if residual.largest > declared.largest * (1 + _DIGITS) + slack:
        lines.append(f"{residual.largest:.4g} {unit} remain in one place, the tags say {declared.largest:.4g}")
    most = sqrt(declared.count) * (declared.rms * (1 + _DIGITS) + slack)
    if sqrt(residual.squares) > most:
        rms = most / sqrt(max(residual.count, 1))
        lines.append(f"a root mean square of {residual.rms:.4g} {unit} remains, the tags allow {rms:.4g}")
    if declared.beyond is not None and residual.beyond > declared.beyond * (1 + _DIGITS) + 1:
        lines.append(f"{residual.beyond} scene pixels are off by more than half a DN, the tags say {declared.beyond}")
    return lines


def _same(ours: float | None, wanted: float | None, dtype: str) -> bool:
    if ours is None or wanted is None:
        return ours is wanted
    if np.isnan(ours) or np.isnan(wanted):
        return bool(np.isnan(ours) and np.isnan(wanted))
    if np.dtype(dtype).kind == "f":
        kind = np.finfo(dtype)
        return bool(
            np.clip(ours, kind.min, kind.max).astype(dtype) == np.clip(wanted, kind.min, kind.max).astype(dtype)
        )
    return ours == wanted


def _quoted(value: float | str | None) -> str:
    return "none" if value is None else f"'{value}'" if isinstance(value, str) else f"{value:.10g}"
