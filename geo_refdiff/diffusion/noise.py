"""Noise that belongs to places: standard normal values addressed by (seed, lattice pixel, channel, step).

A counter-based generator (Philox 4x64-10, Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3") has one
stream for each lattice cell of 64 x 64 pixels and step, and its 32-bit words become normal by the inverse
distribution function. So a pixel's value is the same whatever window asks for it, in whatever order, on whatever
machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

if TYPE_CHECKING:
    from geo_refdiff.raster.window import Window

CELL = 64
"""Side of a lattice cell in HR pixels; even, so that a cell's plane is a whole number of 64-bit words."""
_DOMAIN = 0x67656F2D72656664
"""Second half of the Philox key: keeps these streams apart from other uses of the same seed."""
_WORD = 0xFFFF_FFFF_FFFF_FFFF


def lattice_noise(window: Window, channels: int, seed: int, step: int) -> NDArray[np.float32]:
    """Standard normal noise for a window.

    Args:
        window: on the HR lattice; rows and columns may be negative.
        channels: number of channels; channel c has the same values whatever the number.
        seed: any integer (taken modulo 2^64).
        step: any integer (modulo 2^64); 0 for the start, 1, 2, ... for the steps of a sampler.

    Returns:
        (channels, height, width) float32, every value finite (|z| < 6.4).
    """
    out = np.empty((channels, window.height, window.width), dtype=np.float32)
    for cell_row in range(window.row // CELL, -(-(window.row + window.height) // CELL)):
        rows, from_rows = _overlap(window.row, window.height, cell_row)
        for cell_col in range(window.col // CELL, -(-(window.col + window.width) // CELL)):
            cols, from_cols = _overlap(window.col, window.width, cell_col)
            words = _cell_words(cell_row, cell_col, channels, seed, step)[:, from_rows, from_cols]
            out[:, rows, cols] = ndtri((words + 0.5) * 2.0**-32)
    return out


def _overlap(start: int, length: int, cell: int) -> tuple[slice, slice]:
    """Where a cell meets [start, start + length): as a slice of the window, and of the cell."""
    first, last = max(start, cell * CELL), min(start + length, (cell + 1) * CELL)
    return slice(first - start, last - start), slice(first - cell * CELL, last - cell * CELL)


def _cell_words(cell_row: int, cell_col: int, channels: int, seed: int, step: int) -> NDArray[np.uint32]:
    """(channels, CELL, CELL) uniform 32-bit words of a cell; counter = (running, row, column, step)."""
    key = np.array([seed & _WORD, _DOMAIN], dtype=np.uint64)
    counter = np.array([0, cell_row & _WORD, cell_col & _WORD, step & _WORD], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(channels * CELL * CELL // 2)
    return raw.astype("<u8", copy=False).view("<u4").reshape(channels, CELL, CELL)
