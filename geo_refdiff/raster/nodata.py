"""Nodata values: which pixels hold them, and how missing and valid pixels are kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT_STEPS = 16


def is_sentinel(dtype: np.dtype[Any], nodata: float | None, offset: float = 0.0) -> bool:
    """Whether a nodata value is a sentinel that no sensor measures, so that it means "missing" band by band.

    Of real numbers any but 0; of signed whole numbers one below 0, or the type's greatest; of unsigned ones 0 where
    `offset` (digital numbers become physical values by it) is negative, so that no measurement is as low. Others, as 0
    and 255 of uint8, are measured, too, in the dark and in the light.
    """
    if nodata is None or np.isnan(nodata):
        return False
    if dtype.kind == "u":
        return nodata == 0 and offset < 0
    return nodata != 0 if dtype.kind == "f" else nodata < 0 or nodata == np.iinfo(dtype).max


def in_dtype(number: float, dtype: np.dtype[Any]) -> Any | None:
    """A number as a scalar of a type; None if the type cannot hold it.

    One that was written with too many digits for a floating type, as GDAL does for float32, is the type's limit.
    """
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        return dtype.type(min(max(number, -limit), limit))
    bounds = np.iinfo(dtype)
    return dtype.type(int(number)) if number == int(number) and bounds.min <= number <= bounds.max else None


def next_to_nodata(nodata: float, dtype: np.dtype[Any]) -> Any:
    """The number of a type that valid pixels get instead of `nodata`, a number of that type: the one next to it.

    GDAL compares floating nodata with a tolerance of a few of the least steps, so there it is 16 of them away.
    """
    if dtype.kind != "f":
        return dtype.type(int(nodata) + (-1 if nodata == np.iinfo(dtype).max else 1))
    moved: Any = in_dtype(nodata, dtype)
    for _ in range(_FLOAT_STEPS):
        moved = np.nextafter(moved, dtype.type(0 if nodata > 0 else np.inf))
    return moved


def equals_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Where `values` hold `nodata`, compared in their own dtype; nowhere if the dtype cannot hold it."""
    number = in_dtype(nodata, values.dtype)
    if number is None:
        return np.zeros(values.shape, dtype=np.bool_)
    return np.asarray(values == number, dtype=np.bool_)


def avoid_nodata_pixels(pixels: NDArray[Any], valid: NDArray[np.bool_] | None, nodata: float) -> None:
    """Move valid pixels that hold `nodata` in all bands to the number next to it, in place; in some only they are dark.

    Args:
        pixels: (C, height, width).
        valid: (height, width), True = valid; None: all.
        nodata: a finite number.
    """
    collides = equals_nodata(pixels, nodata).all(axis=0)
    if valid is not None:
        collides &= valid
    if collides.any():
        pixels[:, collides] = next_to_nodata(nodata, pixels.dtype)
