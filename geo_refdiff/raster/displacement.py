"""Displacement between two rasters: a linear function or a spline of the position."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geo_refdiff.raster.geobox import compose

Coordinates = NDArray[np.float64]
Rows = tuple[tuple[float, ...], ...]

_DIGITS = 4
_INVERSIONS = 6
_CHECKED = 65


@dataclass(frozen=True, slots=True)
class Displacement:
    """Position p of one raster corresponds to p + d(p) of another.

    d is linear, or a bicubic spline through the nodes of a lattice, which is extended constantly beyond its edges.
    Positions are in pixels from the corner of the grid: the centre of pixel (i, j) is (i + 0.5, j + 0.5).

    Attributes:
        matrix: (a, b, c, d, e, f): d = (a row + b col + c, d row + e col + f), rows and columns; unused with a lattice.
        rows, cols: positions of the lattice's nodes, ascending; empty without a lattice.
        drows, dcols: d at the nodes, row by row.
    """

    matrix: tuple[float, float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    rows: tuple[float, ...] = ()
    cols: tuple[float, ...] = ()
    drows: Rows = ()
    dcols: Rows = ()

    @staticmethod
    def constant(drow: float, dcol: float) -> Displacement:
        """A constant displacement."""
        return Displacement((0.0, 0.0, float(drow), 0.0, 0.0, float(dcol)))

    @staticmethod
    def lattice(rows: Coordinates, cols: Coordinates, drows: Coordinates, dcols: Coordinates) -> Displacement:
        """A spline through nodes; `drows` and `dcols` are (len(rows), len(cols))."""
        return Displacement(
            rows=tuple(float(v) for v in rows),
            cols=tuple(float(v) for v in cols),
            drows=tuple(tuple(float(v) for v in line) for line in drows),
            dcols=tuple(tuple(float(v) for v in line) for line in dcols),
        )

    @property
    def is_zero(self) -> bool:
        """Whether d is 0 everywhere."""
        return not any(self.matrix) and not any(v for line in (*self.drows, *self.dcols) for v in line)

    @property
    def is_linear(self) -> bool:
        """Whether d is linear."""
        return not self.rows

    def at(self, rows: Coordinates, cols: Coordinates) -> tuple[Coordinates, Coordinates]:
        """d (rows, columns) at positions, in the broadcast shape of `rows` and `cols`."""
        if self.is_linear:
            a, b, c, d, e, f = self.matrix
            return np.asarray(a * rows + b * cols + c), np.asarray(d * rows + e * cols + f)
        rows, cols = np.broadcast_arrays(
            np.clip(rows, self.rows[0], self.rows[-1]), np.clip(cols, self.cols[0], self.cols[-1])
        )
        down, right = (_spline(self.rows, self.cols, values) for values in (self.drows, self.dcols))
        return np.asarray(down.ev(rows, cols)), np.asarray(right.ev(rows, cols))

    def came_from(self, rows: Coordinates, cols: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Inverse: positions p with p + d(p) = (rows, cols), for a d that varies slowly."""
        row, col = rows, cols
        for _ in range(_INVERSIONS):
            drow, dcol = self.at(row, col)
            row, col = rows - drow, cols - dcol
        return np.asarray(row), np.asarray(col)

    def reach(self, shape: tuple[int, int]) -> int:
        """Upper bound of |d| along an axis on a grid of `shape` (height, width), whole pixels."""
        rows, cols = (np.linspace(0.0, n, _CHECKED) for n in shape)
        d = self.at(rows[:, None], cols[None])
        return int(np.ceil(max(float(np.abs(v).max()) for v in d) * 1.1)) if not self.is_zero else 0

    def on_pixels(self, shape: tuple[int, int], origin: tuple[int, int] = (0, 0)) -> NDArray[np.float32]:
        """d at the centres of `shape` (height, width) pixels from `origin` (row, col); (2, height, width) float32."""
        rows, cols = (np.arange(n, dtype=np.float64) + (first + 0.5) for n, first in zip(shape, origin, strict=True))
        if self.is_linear:
            d = self.at(rows[:, None], cols[None])
        else:
            ends = (np.clip(rows, self.rows[0], self.rows[-1]), np.clip(cols, self.cols[0], self.cols[-1]))
            down, right = (_spline(self.rows, self.cols, values)(*ends) for values in (self.drows, self.dcols))
            d = np.asarray(down), np.asarray(right)
        return np.stack([np.broadcast_to(v, shape) for v in d]).astype(np.float32)

    def scaled(self, factor: float) -> Displacement:
        """The same displacement in pixels `factor` times smaller."""
        a, b, c, d, e, f = self.matrix
        many = (tuple(tuple(v * factor for v in line) for line in part) for part in (self.drows, self.dcols))
        rows, cols = (tuple(v * factor for v in part) for part in (self.rows, self.cols))
        return Displacement((a, b, c * factor, d, e, f * factor), rows, cols, *many)

    def rounded(self) -> Displacement:
        """d rounded to 1e-4 pixels, for plans and comparisons."""
        a, b, c, d, e, f = self.matrix
        matrix = (round(a, 9), round(b, 9), round(c, _DIGITS), round(d, 9), round(e, 9), round(f, _DIGITS))
        many = (tuple(tuple(round(v, _DIGITS) for v in line) for line in part) for part in (self.drows, self.dcols))
        return Displacement(matrix, self.rows, self.cols, *many)

    def moved(self, affine: Affine) -> Affine:
        """Affine (col, row) -> CRS of the grid whose pixel p is where `affine` puts p + d(p).

        Raises:
            ValueError: d is not linear.
        """
        if not self.is_linear:
            raise ValueError("a lattice of shifts is no affine")
        a, b, c, d, e, f = self.matrix
        return compose(affine, Affine(1 + e, d, f, b, 1 + a, c))


@lru_cache(maxsize=16)
def _spline(rows: tuple[float, ...], cols: tuple[float, ...], values: Rows) -> Any:
    from scipy.interpolate import RectBivariateSpline

    return RectBivariateSpline(rows, cols, np.array(values), kx=min(3, len(rows) - 1), ky=min(3, len(cols) - 1), s=0)
