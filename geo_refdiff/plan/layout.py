"""Where windows and blocks lie: windows on the lattice, blocks from the output's corner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm

from geo_refdiff.errors import OptionError
from geo_refdiff.raster.window import Window

BLOCK_MULTIPLE = 16
"""Blocks are GeoTIFFs with tiles, whose sides are multiples of 16."""

MAX_WINDOW = 8192


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """Windows of one size on the HR lattice, in HR pixels.

    Along each axis window k owns `[k stride, (k + 1) stride)`. It contributes half an overlap more on both
    sides, where it cross-fades with its neighbours, and sees another halo beyond that, which is dropped.

    Attributes:
        size: side of a window, `stride + overlap + 2 halo`; starts and size are multiples of the restorer's
            own multiple and of the scale.
        stride: distance between windows, at least `overlap`.
        halo: dropped on each side.
        overlap: width of the cross-fade, even; 0 = none.
    """

    size: int
    stride: int
    halo: int
    overlap: int

    @property
    def kept_size(self) -> int:
        """Side of what a window contributes."""
        return self.stride + self.overlap

    def kept(self, row: int, col: int) -> Window:
        """What window (row, col) contributes, on the lattice."""
        half = self.overlap // 2
        return Window(row * self.stride - half, col * self.stride - half, self.kept_size, self.kept_size)

    def seen(self, row: int, col: int) -> Window:
        """What window (row, col) sees, on the lattice."""
        return self.kept(row, col).pad(self.halo)

    def rows(self, region: Window) -> range:
        """Indices of the rows of windows that contribute to `region`."""
        return self._indices(region.row, region.stop_row)

    def cols(self, region: Window) -> range:
        """Indices of the columns of windows that contribute to `region`."""
        return self._indices(region.col, region.stop_col)

    def meeting(self, region: Window) -> list[tuple[int, int]]:
        """(row, col) of all windows that contribute to `region`, row by row."""
        return [(row, col) for row in self.rows(region) for col in self.cols(region)]

    def _indices(self, lo: int, hi: int) -> range:
        half = self.overlap // 2
        return range((lo - half) // self.stride, (hi - 1 + half) // self.stride + 1)


def plan_windows(size: int, overlap: int, halo: int, scale: int, multiple: int) -> WindowLayout:
    """The layout nearest to what is asked for, rounded up until everything fits.

    Args:
        size: side of a window, HR pixels.
        overlap: width of the cross-fade, HR pixels.
        halo: what the restorer needs dropped, HR pixels.
        scale: windows start on LR pixels.
        multiple: the restorer's own divisor of window sides.

    Raises:
        OptionError: a negative number, or windows beyond 8192 pixels.
    """
    if size < 1 or overlap < 0:
        raise OptionError(
            f"window {size} and overlap {overlap}: give a window of at least 1 pixel and an overlap of 0 or more"
        )
    step = lcm(scale, multiple)
    half = -(-overlap // 2)
    margin = _round_up(halo + half, step)
    stride = max(_round_up(max(size - 2 * margin, 1), step), _round_up(2 * half, step))
    layout = WindowLayout(stride + 2 * margin, stride, margin - half, 2 * half)
    if layout.size > MAX_WINDOW:
        raise OptionError(
            f"window {size} with overlap {overlap} and halo {halo} makes windows of {layout.size} pixels; at most "
            f"{MAX_WINDOW} are allowed"
        )
    return layout


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """Square blocks counted from the output's corner, row by row.

    Attributes:
        size: side in output pixels; those at the right and lower edge are smaller.
        rows, cols: how many.
    """

    size: int
    rows: int
    cols: int

    @property
    def count(self) -> int:
        """Number of blocks."""
        return self.rows * self.cols

    def window(self, index: int, shape: tuple[int, int]) -> Window:
        """Block `index` in pixels of the output of `shape` (height, width)."""
        row, col = divmod(index, self.cols)
        top, left = row * self.size, col * self.size
        return Window(top, left, min(self.size, shape[0] - top), min(self.size, shape[1] - left))

    def within(self, region: Window) -> Iterator[int]:
        """Indices of the blocks that have their corner in a region of the output, row by row."""
        for row in range(-(-region.row // self.size), min(-(-region.stop_row // self.size), self.rows)):
            for col in range(-(-region.col // self.size), min(-(-region.stop_col // self.size), self.cols)):
                yield row * self.cols + col

    def serpentine(self) -> Iterator[int]:
        """All indices, each next to the one before it: every second row runs backwards."""
        for row in range(self.rows):
            cols = range(self.cols) if row % 2 == 0 else reversed(range(self.cols))
            for col in cols:
                yield row * self.cols + col


def plan_blocks(size: int, shape: tuple[int, int]) -> BlockLayout:
    """Blocks of `size` over an output of `shape` (height, width).

    Raises:
        OptionError: `size` is no multiple of 16 within 16..16384.
    """
    if size % BLOCK_MULTIPLE or not BLOCK_MULTIPLE <= size <= 16384:
        raise OptionError(f"block size {size}: give a multiple of {BLOCK_MULTIPLE} from 16 to 16384")
    return BlockLayout(size, -(-shape[0] // size), -(-shape[1] // size))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
