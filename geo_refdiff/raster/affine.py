"""Arithmetic of affines on plain numbers and arrays, the same with every version of the affine package."""

from __future__ import annotations

from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray


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
