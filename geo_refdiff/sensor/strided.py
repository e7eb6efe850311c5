"""Strided convolution over valid pixels alone, tile by tile of one shape, so that the bits do not depend on the cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.sensor.kernels import Taps
from geo_refdiff.sensor.reduce import Factors

TILE = (4, 16)
"""LR rows and columns that are computed at once; narrow ones waste little of a kernel's matrix."""

_WHOLE = 1e-9


def reach_of(kernel: Factors, scale: int) -> int:
    """HR pixels beyond an LR pixel's own area that a kernel sees, on each side."""
    return int(kernel[0].shape[1] - scale) // 2


class ValidConvolution:
    """Normalised convolution (Knutsson and Westin 1993) of bands with holes by one kernel.

    An LR pixel is valid where at least half of its own area is, and is the weighted mean of the valid pixels that the
    kernel sees; what missing pixels hold does not matter. Arrays that are cut from one another at multiples of `TILE`
    LR pixels give the same bits.

    Args:
        valid: (h scale + 2 reach, w scale + 2 reach), True = valid; the context on each side is the kernel's reach.
        kernel: rows and cols (`kernels.oriented`).
        scale: HR pixels along an LR pixel.

    Attributes:
        ok: (h, w), True = a valid LR pixel.
    """

    def __init__(self, valid: NDArray[np.bool_], kernel: Factors, scale: int) -> None:
        self.valid, self.scale = valid, scale
        self.reach = reach_of(kernel, scale)
        self.shape = tuple((n - 2 * self.reach) // scale for n in valid.shape)
        self._down, self._across = _matrices(kernel, scale)
        height, width = self.shape
        own = valid[self.reach : self.reach + height * scale, self.reach : self.reach + width * scale]
        share = own.reshape(height, scale, width, scale).sum(axis=(1, 3), dtype=np.int32)
        self.ok: NDArray[np.bool_] = 2 * share >= scale * scale
        self._everywhere = bool(valid.all())
        self._weight = np.ones(self.shape)
        if not self._everywhere and self.ok.any():
            weight = self._convolved(valid)
            # exactly 1 where nothing is missing, as where there are no holes at all
            self._weight = np.where(~self.ok | (np.abs(weight - 1.0) < _WHOLE), 1.0, weight)

    def observe(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """One band as the sensor sees it.

        Args:
            values: real numbers, the shape of `valid`.

        Returns:
            (h, w) float64, 0 where not `ok`.
        """
        if not self.ok.any():
            return np.zeros(self.shape)
        seen = self._convolved(values)
        seen /= self._weight
        seen[~self.ok] = 0.0
        return seen

    def _convolved(self, image: NDArray[Any]) -> Taps:
        (height, width), (rows, cols) = self.shape, TILE
        x_rows, x_cols = (n * self.scale + 2 * self.reach for n in TILE)
        out = np.zeros((height, width))
        for top in range(0, height, rows):
            for left in range(0, width, cols):
                at = (
                    slice(top * self.scale, top * self.scale + x_rows),
                    slice(left * self.scale, left * self.scale + x_cols),
                )
                part, tile = image[at], np.zeros((x_rows, x_cols))
                inner = tile[: part.shape[0], : part.shape[1]]
                inner[...] = part
                if not self._everywhere:
                    inner[~self.valid[at]] = 0.0
                narrow = (self._down @ tile).reshape(rows, -1)
                kept = out[top : top + rows, left : left + cols]
                kept[...] = (narrow @ self._across)[: kept.shape[0], : kept.shape[1]]
        return out


def _matrices(kernel: Factors, scale: int) -> tuple[Taps, Taps]:
    """(rows rank, x_rows) and (rank x_cols, cols): a tile between them becomes its LR pixels."""
    rank, length = kernel[0].shape
    x_rows, x_cols = (n * scale + length - scale for n in TILE)
    down = np.zeros((TILE[0], rank, x_rows))
    for row in range(TILE[0]):
        down[row, :, row * scale : row * scale + length] = kernel[0]
    across = np.zeros((rank, x_cols, TILE[1]))
    for col in range(TILE[1]):
        across[:, col * scale : col * scale + length, col] = kernel[1]
    return down.reshape(TILE[0] * rank, x_rows), across.reshape(rank * x_cols, TILE[1])
