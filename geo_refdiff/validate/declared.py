"""What an output of `upscale` says of itself in its tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
import rasterio

from geo_refdiff.engine.tags import BAND_TAG, EXTENT_TAG, PLAN_TAG, VALID_TAG
from geo_refdiff.errors import InputError
from geo_refdiff.options import Consistency
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.sensor import Kernel, SensorModel

_Word = TypeVar("_Word", bound=str)

_STATISTICS = ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV")


@dataclass(frozen=True, slots=True)
class Left:
    """What the tags say was left between scene and output, as `engine.consistency.Residual` counts it.

    Attributes:
        largest, rms: in the scene's numbers.
        count: scene pixels, bands counted apart.
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
        scale: HR pixels along an LR pixel.
        bands: 1-based bands of the scene, in the output's order.
        modelled: how many of them, from the first, are the model's; the others were made by transfer.
        area: "none", "box" or "polygon".
        extent: which part of the whole scene's output grid it holds.
        valid: valid pixels of each band.
        consistency: mode.
        sensors: the declared operator for each band.
        left: None where consistency was off.
        statistics: (minimum, maximum, mean, standard deviation) of each band; None where the file does not tell.
    """

    scale: int
    bands: tuple[int, ...]
    modelled: int
    area: str
    extent: Window
    valid: tuple[int, ...]
    consistency: Consistency
    sensors: tuple[SensorModel, ...]
    left: Left | None
    statistics: tuple[tuple[float, float, float, float] | None, ...]


def read_declared(info: RasterInfo) -> Declared:
    """The tags of an output.

    Raises:
        InputError: it carries none, or none that can be understood.
    """
    with rasterio.open(info.path) as dataset:
        tags = dict(dataset.tags())
        of_bands = [dict(dataset.tags(b)) for b in info.data_bands]
    if PLAN_TAG not in tags or "GEO_REFDIFF_BANDS" not in tags:
        raise InputError(f"{info.path}: carries no tags of geo-refdiff upscale; give a file as it was written")
    try:
        return _parsed(tags, of_bands)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{info.path}: its tags of geo-refdiff upscale are incomplete or damaged ({error}); give a file as this "
            f"version writes it"
        ) from error


def _parsed(tags: Mapping[str, str], of_bands: list[dict[str, str]]) -> Declared:
    scale = int(tags["GEO_REFDIFF_SCALE"])
    if scale < 2:
        raise ValueError(f"scale {scale}")
    return Declared(
        scale=scale,
        bands=_numbers(tags["GEO_REFDIFF_BANDS"]),
        modelled=sum(found.get(BAND_TAG, "model") == "model" for found in of_bands),
        area=_one_of(tags["GEO_REFDIFF_AOI"], ("none", "box", "polygon")),
        extent=Window(*_numbers(tags[EXTENT_TAG])),
        valid=_numbers(tags[VALID_TAG]),
        consistency=_one_of(tags["GEO_REFDIFF_CONSISTENCY"], get_args(Consistency)),
        sensors=tuple(
            SensorModel(scale, float(sigma), _one_of(tags["GEO_REFDIFF_PSF_KERNEL"], get_args(Kernel)))
            for sigma in tags["GEO_REFDIFF_PSF_SIGMAS"].split(",")
        ),
        left=_left(tags),
        statistics=tuple(_statistics(found) for found in of_bands),
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(v) for v in text.split(","))


def _one_of(text: str, known: tuple[_Word, ...]) -> _Word:
    for value in known:
        if text == value:
            return value
    raise ValueError(f"'{text}' is none of {', '.join(known)}")


def _left(tags: Mapping[str, str]) -> Left | None:
    if "GEO_REFDIFF_LR_PIXELS" not in tags:
        return None
    beyond, saturated = (
        int(tags[key]) if key in tags else None
        for key in ("GEO_REFDIFF_LR_PIXELS_BEYOND_HALF_DN", "GEO_REFDIFF_LR_PIXELS_BEYOND_SATURATED")
    )
    return Left(
        float(tags["GEO_REFDIFF_LR_RESIDUAL_MAX"]),
        float(tags["GEO_REFDIFF_LR_RESIDUAL_RMS"]),
        int(tags["GEO_REFDIFF_LR_PIXELS"]),
        beyond,
        saturated,
    )


def _statistics(tags: Mapping[str, str]) -> tuple[float, float, float, float] | None:
    """None also where another program has written its own, from overviews."""
    found = [tags.get(f"STATISTICS_{name}") for name in _STATISTICS]
    if "STATISTICS_APPROXIMATE" in tags or None in found:
        return None
    minimum, maximum, mean, deviation = (float(v) for v in found if v is not None)
    return (minimum, maximum, mean, deviation) if np.isfinite([minimum, maximum, mean, deviation]).all() else None
