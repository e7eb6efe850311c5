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


def equals_nodata(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    """Where `values` hold `nodata`, compared in their own dtype; nowhere if the dtype cannot hold it."""
    dtype = values.dtype
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        if abs(nodata) > limit:  # written with too many digits, as GDAL does for float32
            nodata = limit if nodata > 0 else -limit
        return np.asarray(values == dtype.type(nodata), dtype=np.bool_)
    bounds = np.iinfo(dtype)
    if nodata != int(nodata) or not bounds.min <= nodata <= bounds.max:
        return np.zeros(values.shape, dtype=np.bool_)
    return np.asarray(values == dtype.type(int(nodata)), dtype=np.bool_)


def avoid_nodata_collision(
    pixels: NDArray[Any], valid: NDArray[np.bool_] | None, scene: NDArray[np.bool_] | None, nodata: float
) -> None:
    """Move valid values that happen to equal `nodata` by one digital number, in place.

    Args:
        pixels: (C, height, width).
        valid: the same shape; None: all.
        scene: the same shape, True = the scene itself holds this number there in a valid pixel (a dark pixel,
            not a hole), so it may stay; None: nowhere.
        nodata: a finite number.
    """
    collides = equals_nodata(pixels, nodata)
    if valid is not None:
        collides &= valid
    if scene is not None:
        collides &= ~scene
    if not collides.any():
        return
    value = pixels[collides].flat[0]
    if pixels.dtype.kind == "f":
        moved = value  # GDAL compares floating nodata with a tolerance of a few of the least steps
        for _ in range(_FLOAT_STEPS):
            moved = np.nextafter(moved, pixels.dtype.type(0 if value > 0 else np.inf))
    else:
        moved = value - 1 if value == np.iinfo(pixels.dtype).max else value + 1
    pixels[collides] = moved


def avoid_nodata_pixels(pixels: NDArray[Any], valid: NDArray[np.bool_] | None, nodata: float) -> None:
    """Move valid pixels that hold `nodata` in all bands, as `avoid_nodata_collision`; in some only they are dark.

    Args:
        pixels: (C, height, width).
        valid: (C, height, width) or (height, width), True = valid; None: all.
        nodata: a finite number.
    """
    dark = ~equals_nodata(pixels, nodata).all(axis=0)
    spread = None if valid is None else np.broadcast_to(valid, pixels.shape)
    avoid_nodata_collision(pixels, spread, np.broadcast_to(dark, pixels.shape), nodata)
