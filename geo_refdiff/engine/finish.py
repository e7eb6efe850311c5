"""From restored values to the pixels that are written: digital numbers, missing pixels.

Pixels stay real numbers on their device, whole where the type is, until all is decided: float32 holds every value of
8- and 16-bit types, float64 those of wider ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.raster.nodata import in_dtype, is_sentinel, next_to_nodata

_SHORT = 2


def rounded(image: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Real numbers to values of a type: rounded half to even and clipped for whole numbers; still real numbers."""
    if dtype.kind == "f":
        return image.to(torch.float64 if dtype.itemsize > 4 else torch.float32)
    bounds = np.iinfo(dtype)
    if dtype.itemsize <= _SHORT:
        return image.round().clamp(float(bounds.min), float(bounds.max))
    top = np.nextafter(float(bounds.max), 0) if float(bounds.max) > bounds.max else float(bounds.max)
    return image.to(torch.float64).round().clamp(float(bounds.min), top)


def equals(pixels: Tensor, value: float, dtype: np.dtype[Any]) -> Tensor:
    """Where values of a type equal a number, compared in that type; nowhere if the type cannot hold it."""
    number = in_dtype(value, dtype)
    return torch.zeros_like(pixels, dtype=torch.bool) if number is None else pixels == float(number)


def write_nodata(pixels: Tensor, valid: Tensor, nodata: float | None, dtype: np.dtype[Any]) -> Tensor:
    """Pixels with the missing ones marked.

    A pixel that is missing in every band becomes `nodata` (0 where a mask marks it instead). One that is missing in
    some bands only becomes `nodata` there; of real numbers NaN, if `nodata` is no sentinel.

    Args:
        pixels: (C, height, width), values of `dtype`.
        valid: the same shape, True = valid.
        nodata: the output's.
        dtype: of the output.
    """
    if dtype.kind == "f":
        pixels = torch.where(valid, pixels, nodata if nodata is not None and is_sentinel(dtype, nodata) else torch.nan)
    elif nodata is not None:
        pixels = torch.where(valid, pixels, nodata)
    return torch.where(valid.any(dim=0), pixels, 0.0 if nodata is None else nodata)


def avoid_nodata_collision(
    pixels: Tensor, valid: Tensor | None, scene: Tensor | None, nodata: float, dtype: np.dtype[Any]
) -> Tensor:
    """Pixels with the valid values that happen to equal `nodata` moved to the number next to it.

    Args:
        pixels: (C, height, width), values of `dtype`.
        valid: the same shape; None: all.
        scene: the same shape, True = the scene itself holds this number there in a valid pixel (a dark pixel,
            not a hole), so it may stay; None: nowhere.
        nodata: a finite number.
        dtype: of the output.
    """
    collides = equals(pixels, nodata, dtype)
    if valid is not None:
        collides &= valid
    if scene is not None:
        collides &= ~scene
    return torch.where(collides, float(next_to_nodata(nodata, dtype)), pixels)


def as_array(pixels: Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values of a type, on any device, in this type on the host."""
    if dtype.kind == "f":
        return np.asarray(pixels.cpu().numpy().astype(dtype, copy=False))
    return np.asarray(pixels.to(getattr(torch, dtype.name)).cpu().numpy())


def delivered(values: Tensor, valid: Tensor, dtype: np.dtype[Any], nodata: float | None) -> NDArray[Any]:
    """Values as a file holds them: rounded to its data type, valid pixels apart from nodata, missing ones written.

    Args:
        values: (C, height, width), real numbers.
        valid: the same shape, True = valid.
        dtype, nodata: the file's.
    """
    pixels = rounded(values, dtype)
    if nodata is not None and not np.isnan(nodata):
        missing = equals(pixels, nodata, dtype).all(dim=0)  # in some bands only they are dark
        pixels = avoid_nodata_collision(pixels, valid, (~missing).expand(pixels.shape), nodata, dtype)
    return as_array(pixels if bool(valid.all()) else write_nodata(pixels, valid, nodata, dtype), dtype)
