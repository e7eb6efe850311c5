"""From restored values to the pixels that are written: digital numbers, missing pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.raster.nodata import avoid_nodata_pixels, write_nodata
from geo_refdiff.raster.window import Window, repeated

if TYPE_CHECKING:  # a plan knows modes of consistency, which finish pixels
    from geo_refdiff.plan.records import Radiometry


def to_digital_numbers(image: NDArray[np.float32], radiometry: Radiometry) -> NDArray[np.float32]:
    """Restorer's units -> the scene's digital numbers, not rounded; in place.

    Args:
        image: (C, height, width).
        radiometry: of the plan.
    """
    if radiometry.half_range != 1.0:
        image *= np.float32(radiometry.half_range)
    if radiometry.centre != 0.0:
        image += np.float32(radiometry.centre)
    return image


def rounded(image: NDArray[np.float32] | NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Digital numbers in the scene's dtype, rounded half to even and clipped; `image` (C, height, width) is used up."""
    if dtype.kind == "f":
        return image.astype(dtype, copy=False)
    bounds = np.iinfo(dtype)
    if dtype.itemsize > 2:  # float32 does not hold the limits of these
        wide = np.rint(image.astype(np.float64))
        top = np.nextafter(float(bounds.max), 0) if float(bounds.max) > bounds.max else float(bounds.max)
        return np.clip(wide, float(bounds.min), top).astype(dtype)
    np.rint(image, out=image)
    np.clip(image, np.float32(bounds.min), np.float32(bounds.max), out=image)
    return image.astype(dtype)


def expand(lr: NDArray[Any], cover: Window, block: Window, scale: int) -> NDArray[Any]:
    """LR pixels (..., h, w) of `cover` (LR lattice) as the HR pixels of `block` (HR lattice) that they cover."""
    rows, cols = block.within(cover.multiply(scale))
    return repeated(lr, scale)[..., rows, cols]


def delivered(
    values: NDArray[np.float32] | NDArray[np.float64],
    valid: NDArray[np.bool_],
    dtype: np.dtype[Any],
    nodata: float | None,
) -> NDArray[Any]:
    """Values as a file holds them: rounded to its data type, valid pixels apart from nodata, missing ones written.

    Args:
        values: (C, height, width), used up.
        valid: the same shape, True = valid.
        dtype, nodata: the file's.
    """
    pixels = rounded(values, dtype)
    if nodata is not None and not np.isnan(nodata):
        avoid_nodata_pixels(pixels, valid, nodata)
    if not valid.all():
        write_nodata(pixels, valid, nodata)
    return pixels
