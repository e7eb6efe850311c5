"""Which promises of an output are broken, one line each."""

from __future__ import annotations

from math import sqrt

import numpy as np

from geo_refdiff.engine.consistency import Residual
from geo_refdiff.engine.finish import BandSums
from geo_refdiff.engine.publish import statistics
from geo_refdiff.plan.output import output_of
from geo_refdiff.raster.band_names import band_name
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.validate.declared import Declared, Left

STRICT_SHARE = 1e-4
"""What strict mode promises of floating data, as a share of the scene's range."""

_DIGITS = 1e-3
"""Figures are read from tags with four digits."""

_EPSILONS = 4 * float(np.finfo(np.float32).eps)
"""Sums are of float32: so much of the largest value may come out otherwise on another machine."""

_SUMS = 1e-6


def metadata(info: RasterInfo, source: RasterInfo, declared: Declared) -> list[str]:
    """Whether an output tells its numbers as the scene does: bands, type, units, scale and offset, nodata.

    Args:
        info: the output, with as many bands as are declared.
        source: the scene.
    """
    found: list[str] = []
    if info.dtype != source.dtype:
        found.append(f"data type: {info.dtype}, the scene has {source.dtype}")
    wanted = output_of(source, declared.area == "polygon")
    if not _same(info.nodata, wanted.nodata, info.dtype):
        found.append(f"nodata: declared as {_told(info.nodata)}, the scene asks for {_told(wanted.nodata)}")
    if wanted.mask != (info.validity == "mask"):
        found.append(
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
                found.append(f"{what}: {_told(ours)} in band {place + 1}, the scene's {name} has {_told(theirs)}")
    return found


def missing(lost: int, invented: int, sums: list[BandSums], declared: Declared) -> list[str]:
    """Whether the right pixels are valid.

    Args:
        lost, invented: HR pixels, by the scene's own; none are lost in a polygon, whose place is not known.
        sums: of the output's valid pixels, a band each.
    """
    if lost or invented:
        return [f"nodata: {lost} valid pixels lost, {invented} invented"]
    for place, (found, told) in enumerate(zip(sums, declared.valid, strict=True)):
        if found.count != told:
            what = "lost" if found.count < told else "invented"
            number = abs(told - found.count)
            return [f"nodata: {number} valid pixels {what} in band {place + 1}; the tags say that {told} are valid"]
    return []


def measured(sums: list[BandSums], declared: Declared) -> list[str]:
    """Whether the statistics in the file are those of its pixels."""
    for place, (band, told) in enumerate(zip(sums, declared.statistics, strict=True)):
        if told is None or not band.count:
            continue
        of = statistics(band, band.count)
        found = (of.minimum, of.maximum, of.mean, of.stddev)
        slack = _SUMS * max(abs(band.minimum), abs(band.maximum))
        if not np.allclose(found, told, rtol=_SUMS, atol=slack):
            return [
                f"statistics: band {place + 1} has mean {of.mean:.6g} and standard deviation {of.stddev:.6g}, the tags "
                f"say {told[2]:.6g} and {told[3]:.6g}: its pixels were changed"
            ]
    return []


def consistency(found: Residual, declared: Declared, dtype: str, value_range: float, magnitude: float) -> list[str]:
    """Whether the output keeps to the scene as strictly as its tags say.

    Args:
        found: measured of the file's pixels.
        dtype: of the scene.
        value_range: of the scene, in its numbers.
        magnitude: the largest absolute value of the output.
    """
    broken: list[str] = []
    slack, unit = _EPSILONS * magnitude, "DN" if np.dtype(dtype).kind != "f" else "in the scene's units"
    if declared.consistency == "strict" and unit == "DN" and found.beyond > found.saturated:
        broken.append(
            f"LR consistency: strict mode promises half a DN, {found.beyond - found.saturated} scene pixels are off by "
            f"more without a saturated pixel in sight"
        )
    limit = STRICT_SHARE * value_range + slack
    if declared.consistency == "strict" and unit != "DN" and found.largest > limit:
        broken.append(
            f"LR consistency: strict mode promises {limit:.4g} {unit} ({STRICT_SHARE:g} of the scene's range), "
            f"{found.largest:.4g} are left"
        )
    if declared.left is not None:
        broken += [f"LR consistency: {line}" for line in _beyond_tags(found, declared.left, slack, unit)]
    return broken


def _beyond_tags(found: Residual, told: Left, slack: float, unit: str) -> list[str]:
    """More than the tags say; less is what a cut-out has, since pixels whose surroundings were cut off do not count."""
    lines = []
    if found.largest > told.largest * (1 + _DIGITS) + slack:
        lines.append(f"{found.largest:.4g} {unit} are left in one place, the tags say {told.largest:.4g}")
    most = sqrt(told.count) * (told.rms * (1 + _DIGITS) + slack)
    if sqrt(found.squares) > most:
        rms = most / sqrt(max(found.count, 1))
        lines.append(f"a root mean square of {found.rms:.4g} {unit} is left, the tags allow {rms:.4g}")
    if told.beyond is not None and found.beyond > told.beyond * (1 + _DIGITS) + 1:
        lines.append(f"{found.beyond} scene pixels are off by more than half a DN, the tags say {told.beyond}")
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


def _told(value: float | str | None) -> str:
    return "none" if value is None else f"'{value}'" if isinstance(value, str) else f"{value:.10g}"
