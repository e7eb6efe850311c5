"""The layout of windows and blocks: blocks from the output's corner, windows in them or on the lattice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm
from typing import NamedTuple

from geo_refdiff.errors import OptionError
from geo_refdiff.raster.window import Window

BLOCK_MULTIPLE = 16
"""Blocks are GeoTIFFs with tiles, whose sides are multiples of 16."""

MAX_WINDOW = 8192


class WindowSpan(NamedTuple):
    """A window along one axis, output pixels of the lattice, half-open.

    Attributes:
        first, last: what it sees.
        start, stop: what it contributes; it cross-fades with its neighbours where they overlap.
    """

    first: int
    last: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """How a region is cut into windows, in output pixels.

    A window contributes half an overlap more than it owns on the sides where it cross-fades with a neighbour, and sees
    a halo beyond that, which is dropped.

    Where nothing beyond the halo changes a pixel, the region is cut into as few windows of one size as can be, that see
    no more than it takes and nothing beyond the scene. Else windows all have one size and lie on the lattice, so that a
    place is seen in the same window whatever region asks.

    Attributes:
        size: largest side of a window.
        halo: dropped on each side.
        overlap: width of the cross-fade, even; 0 = none.
        step: windows start on its multiples, and sides are multiples of it.
        fixed: whether all have one size and lie on the lattice.
    """

    size: int
    halo: int
    overlap: int
    step: int
    fixed: bool

    @property
    def stride(self) -> int:
        """What a window owns along an axis, at most; where windows are fixed, the distance between two."""
        return self.size - 2 * self.halo - self.overlap

    def spans(self, lo: int, hi: int, scene: tuple[int, int]) -> list[WindowSpan]:
        """The windows along an axis that make up `[lo, hi)`, in order.

        Args:
            lo, hi: the region.
            scene: where the scene begins and ends.
        """
        half, step = self.overlap // 2, self.step
        if self.fixed:
            numbers = range((lo - half) // self.stride, (hi - 1 + half) // self.stride + 1)
            kept = [(n * self.stride - half, (n + 1) * self.stride + half) for n in numbers]
            return [WindowSpan(start - self.halo, stop + self.halo, start, stop) for start, stop in kept]
        ends = _round_down(scene[0], step), _round_up(scene[1], step)
        count = 0
        while True:
            count += 1
            between = {_round_up(lo + (hi - lo) * n // count, step) for n in range(1, count)}
            edges = [lo, *sorted(edge for edge in between if edge < hi), hi]
            spans = []
            for number in range(len(edges) - 1):
                start = edges[number] - half * (number > 0)
                stop = edges[number + 1] + half * (number + 2 < len(edges))
                first, last = _round_down(start - self.halo, step), _round_up(stop + self.halo, step)
                spans.append(WindowSpan(max(first, ends[0]), min(last, ends[1]), start, stop))
            if count * self.stride >= hi - lo or all(span.last - span.first <= self.size for span in spans):
                return spans

    def windows(self, region: Window, scene: Window) -> tuple[list[WindowSpan], list[WindowSpan]]:
        """Rows and columns of the windows that make up a region; both on the lattice."""
        return (
            self.spans(region.row, region.stop_row, (scene.row, scene.stop_row)),
            self.spans(region.col, region.stop_col, (scene.col, scene.stop_col)),
        )


def seen(row: WindowSpan, col: WindowSpan) -> Window:
    """What a window sees."""
    return Window(row.first, col.first, row.last - row.first, col.last - col.first)


def kept(row: WindowSpan, col: WindowSpan) -> Window:
    """What a window contributes."""
    return Window(row.start, col.start, row.stop - row.start, col.stop - col.start)


def plan_windows(size: int, overlap: int, halo: int, scale: int, multiple: int, *, fixed: bool) -> WindowLayout:
    """The layout nearest to what is asked for, rounded up until everything fits.

    Args:
        size: largest side of a window, output pixels.
        overlap: width of the cross-fade, output pixels.
        halo: what the restorer needs dropped, output pixels.
        scale: windows start on scene pixels.
        multiple: the restorer's own divisor of window sides.
        fixed: as of `WindowLayout`.

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
    layout = WindowLayout(stride + 2 * margin, margin - half, 2 * half, step, fixed)
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


def _round_down(value: int, step: int) -> int:
    return value // step * step
