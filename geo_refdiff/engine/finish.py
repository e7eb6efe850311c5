"""From restored values to the pixels that are written: digital numbers, missing pixels, statistics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.raster.reader import equals_nodata, telltale
from geo_refdiff.raster.reduce import repeated
from geo_refdiff.raster.window import Window

if TYPE_CHECKING:  # a plan knows modes of consistency, which finish pixels
    from geo_refdiff.plan.records import Radiometry

_HISTOGRAM = ("uint8", "uint16")
_CHUNK = 2**20
_FLOAT_STEPS = 16


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


def apply_missing(pixels: NDArray[Any], valid: NDArray[np.bool_], nodata: float | None) -> None:
    """Write the missing pixels into `pixels` (C, height, width), in place.

    A pixel that is missing in every band becomes `nodata` (0 without one, where a mask tells). One that is
    missing in some bands only, which floating data can tell, becomes `nodata` there if that is no measured value, else
    NaN.

    Args:
        pixels: the output.
        valid: (C, height, width), True = valid.
        nodata: the output's.
    """
    missing = ~valid.any(axis=0)
    if pixels.dtype.kind == "f":
        pixels[~valid] = nodata if telltale(pixels.dtype, nodata) else np.nan
    pixels[:, missing] = 0 if nodata is None else nodata


def keep_valid(
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


@dataclass(frozen=True, slots=True)
class BandSums:
    """Sums over one band's valid pixels that can be added up: count, minimum, maximum, sum, sum of squares."""

    count: int
    minimum: float
    maximum: float
    total: float
    squares: float

    @staticmethod
    def of(band: NDArray[Any], valid: NDArray[np.bool_] | None) -> BandSums:
        """The sums of a band (height, width); not finite values do not count."""
        values = band.ravel() if valid is None else band[valid]
        if values.dtype.name in _HISTOGRAM:
            return _from_histogram(values)
        wide = values.astype(np.float64)
        wide = wide[np.isfinite(wide)]
        if not wide.size:
            return EMPTY
        return BandSums(
            int(wide.size), float(wide.min()), float(wide.max()), float(wide.sum()), float(np.square(wide).sum())
        )

    def plus(self, other: BandSums) -> BandSums:
        """Both together."""
        if not other.count:
            return self
        if not self.count:
            return other
        return BandSums(
            self.count + other.count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.total + other.total,
            self.squares + other.squares,
        )


EMPTY = BandSums(0, 0.0, 0.0, 0.0, 0.0)


def _from_histogram(values: NDArray[Any]) -> BandSums:
    counts = np.zeros(int(np.iinfo(values.dtype).max) + 1, dtype=np.int64)
    for start in range(0, values.size, _CHUNK):
        counts += np.bincount(values[start : start + _CHUNK], minlength=counts.size)
    present = np.flatnonzero(counts)
    if not present.size:
        return EMPTY
    hits = counts[present].astype(np.float64)
    level = present.astype(np.float64)
    return BandSums(
        int(values.size), float(level[0]), float(level[-1]), float((hits * level).sum()), float((hits * level**2).sum())
    )


def dump_sums(sums: Sequence[BandSums]) -> str:
    """As text for a block file's metadata; lossless."""
    return json.dumps([[s.count, s.minimum, s.maximum, s.total, s.squares] for s in sums])


def load_sums(text: str) -> list[BandSums]:
    """The inverse of `dump_sums`."""
    return [BandSums(int(row[0]), *(float(v) for v in row[1:])) for row in json.loads(text)]
