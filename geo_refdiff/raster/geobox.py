"""Georeferenced pixel grids, thin on odc-geo's GeoBox, and the lattice on which windows and noise are addressed."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.raster.window import Window

# Grids sit at whole pixels or, Landsat's, at half a pixel from the CRS origin. A rounding border at 3/4 of a
# pixel is as far as can be from both, so that float noise in a file's corner never moves it by a pixel.
_PHASE = 0.25


class Georeferenced(Protocol):
    """What a raster says about its grid."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def transform(self) -> tuple[float, ...]: ...
    @property
    def crs_wkt(self) -> str: ...


def scene_geobox(info: Georeferenced) -> GeoBox:
    """The grid of a raster: its shape (height, width), affine and CRS."""
    return GeoBox((info.height, info.width), Affine(*info.transform[:6]), info.crs_wkt)


def output_geobox(gbox: GeoBox, scale: int) -> GeoBox:
    """The grid with `scale` x `scale` pixels for each pixel of `gbox`: same corner, same extent, same CRS."""
    if scale < 1:
        raise ValueError(f"scale must be a whole number of 1 or more, got {scale}")
    height, width = gbox.shape
    a, b, c, d, e, f = gbox.affine[:6]
    affine = Affine(a / scale, b / scale, c, d / scale, e / scale, f)
    return GeoBox((height * scale, width * scale), affine, gbox.crs)


def coarse_geobox(gbox: GeoBox, scale: int) -> GeoBox:
    """The grid with one pixel for each whole `scale` x `scale` pixels of `gbox`: same corner, same CRS.

    Rows and columns of `gbox` that do not fill a pixel are left out.

    Raises:
        ValueError: `scale` below 1, or not one whole pixel.
    """
    height, width = (int(n) // scale if scale >= 1 else 0 for n in gbox.shape)
    if height < 1 or width < 1:
        raise ValueError(f"a grid of {gbox.shape[0]} x {gbox.shape[1]} pixels holds no pixel of the scale {scale}")
    a, b, c, d, e, f = gbox.affine[:6]
    affine = Affine(a * scale, b * scale, c, d * scale, e * scale, f)
    return GeoBox((height, width), affine, gbox.crs)


def crs_wkt(gbox: GeoBox) -> str:
    """The CRS of a georeferenced grid as WKT.

    Raises:
        ValueError: the grid has no CRS.
    """
    if gbox.crs is None:
        raise ValueError("the grid has no CRS")
    return str(gbox.crs.to_wkt())


def crop(gbox: GeoBox, window: Window) -> GeoBox:
    """The part of `gbox` under `window` (pixels of `gbox`; may reach outside, then the grid is extended)."""
    return GeoBox(window.shape, translated(gbox.affine, window.row, window.col), gbox.crs)


def compose(outer: Affine, inner: Affine) -> Affine:
    """The affine that applies `inner` first, then `outer`."""
    a, b, c, d, e, f = outer[:6]
    g, h, i, j, k, m = inner[:6]
    return Affine(a * g + b * j, a * h + b * k, a * i + b * m + c, d * g + e * j, d * h + e * k, d * i + e * m + f)


def translated(affine: Affine, row: float, col: float) -> Affine:
    """The affine of the grid whose corner is pixel (row, col) of the grid of `affine`."""
    a, b, c, d, e, f = affine[:6]
    return Affine(a, b, a * col + b * row + c, d, e, d * col + e * row + f)


def point(affine: Affine, col: float, row: float) -> tuple[float, float]:
    """The image (x, y) of the point (col, row)."""
    a, b, c, d, e, f = affine[:6]
    return a * col + b * row + c, d * col + e * row + f


def apply(
    affine: Affine, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The images (x, y) of the points (cols, rows); those of points that are not finite are not finite."""
    a, b, c, d, e, f = affine[:6]
    with np.errstate(invalid="ignore"):  # 0 times infinity
        return np.asarray(a * cols + b * rows + c), np.asarray(d * cols + e * rows + f)


def apply_linear(affine: Affine, dcols: Any, drows: Any) -> tuple[Any, Any]:
    """The images of differences: without the affine's translation."""
    a, b, _, d, e, _ = affine[:6]
    return a * dcols + b * drows, d * dcols + e * drows


def edge(height: float, width: float, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(cols, rows) of `steps` points a side of a rectangle, from its upper left corner to the right and around."""
    t = np.arange(steps) / steps
    zero, one = np.zeros(steps), np.ones(steps)
    return np.concatenate([t, one, 1 - t, zero]) * width, np.concatenate([zero, t, one, 1 - t]) * height


def lattice_origin(transform: Affine) -> tuple[int, int]:
    """(row, col) of a raster's corner on the lattice of its own CRS and affine.

    With the affine's linear part L and corner (c, f) this is `floor(inv(L) @ (c, f) + 0.25)`: rasters cut
    from one another at whole pixels differ by exactly those whole pixels.

    Args:
        transform: pixel (col, row) to CRS units; any rotation, either vertical direction.
    """
    a, b, c, d, e, f = (float(v) for v in transform[:6])
    det = a * e - b * d
    col = (e * c - b * f) / det
    row = (a * f - d * c) / det
    return floor(row + _PHASE), floor(col + _PHASE)


@dataclass(frozen=True, slots=True)
class Refinement:
    """How pixels of a fine grid lie in those of a coarse one: fine = scale * coarse + (row, col).

    Attributes:
        scale: fine pixels along a coarse one, by the size of pixels; 0 where that is no whole number, or one of the
            grids is turned or mirrored against the other.
        size: fine pixels along a coarse one, as they are.
        row, col: where the corner of the coarse grid is, fine pixels.
    """

    scale: int
    size: float
    row: float
    col: float

    def is_exact(self, within: float, times: int = 1) -> bool:
        """Whether coarse pixels are whole fine ones, cut into `times` x `times` parts, to `within` of such a part."""
        return bool(self.scale) and all(abs(v * times - round(v * times)) <= within for v in (self.row, self.col))


def refinement(coarse: GeoBox, fine: GeoBox, within: float) -> Refinement:
    """How a fine grid is placed in a coarse one of the same CRS; neither needs to contain the other.

    Args:
        within: fine pixels by which a whole factor may be missed at the coarse grid's far corner.
    """
    a, b, col, d, e, row = compose(~fine.affine, coarse.affine)[:6]
    height, width = (int(n) for n in coarse.shape)
    size = (abs(a * e - b * d)) ** 0.5
    scale = max(1, round(size))
    drift = max(abs(a - scale) * width, abs(d) * width, abs(b) * height, abs(e - scale) * height)
    return Refinement(scale if drift <= within else 0, size, row, col)


def starts(lo: int, hi: int, stride: int) -> range:
    """The multiples of `stride` whose cells `[k, k + stride)` meet the half-open interval `[lo, hi)`.

    The cells lie on the lattice and do not depend on the interval. Empty where `hi <= lo`.
    """
    if hi <= lo:
        return range(0)
    return range(lo // stride * stride, hi, stride)
