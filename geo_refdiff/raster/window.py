"""Integer pixel rectangles, and what is kept for tiles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open integer pixel rectangle: rows `row .. row + height - 1`, columns `col .. col + width - 1`.

    `row` and `col` may be negative (lattice coordinates); `height` and `width` are at least 1.

    Raises:
        ValueError: a height or width below 1.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"a window needs at least one pixel, got height={self.height}, width={self.width}")

    @property
    def stop_row(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def intersect(self, other: Window) -> Window | None:
        """The pixels common to both, or None."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.stop_row, other.stop_row) - row
        width = min(self.stop_col, other.stop_col) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def pad(self, n: int) -> Window:
        """The window with `n` more pixels on each side (fewer for a negative `n`)."""
        return Window(self.row - n, self.col - n, self.height + 2 * n, self.width + 2 * n)

    def shift(self, drow: int, dcol: int) -> Window:
        """The window moved down by `drow` and right by `dcol` pixels."""
        return Window(self.row + drow, self.col + dcol, self.height, self.width)

    def contains(self, other: Window) -> bool:
        """Whether every pixel of `other` is in this window."""
        return (
            self.row <= other.row
            and self.col <= other.col
            and self.stop_row >= other.stop_row
            and self.stop_col >= other.stop_col
        )

    def within(self, outer: Window) -> tuple[slice, slice]:
        """This window's (rows, columns) slices in an array that covers `outer`.

        Raises:
            ValueError: a pixel of this window is outside `outer`.
        """
        if not outer.contains(self):
            raise ValueError(f"{self} is not inside {outer}")
        row, col = self.row - outer.row, self.col - outer.col
        return slice(row, row + self.height), slice(col, col + self.width)

    def tiles(self, side: int) -> Iterator[Window]:
        """The window cut into squares of `side` pixels from its corner, row by row; the last ones may be smaller."""
        for row in range(self.row, self.stop_row, side):
            for col in range(self.col, self.stop_col, side):
                yield Window(row, col, min(side, self.stop_row - row), min(side, self.stop_col - col))

    def cells(self, side: int) -> Iterator[tuple[Window, Window]]:
        """The squares of `side` pixels, counted from pixel (0, 0), that the window meets, row by row, and what of each
        is in the window."""
        for cell in self.divide(side).multiply(side).tiles(side):
            part = cell.intersect(self)
            if part is not None:
                yield cell, part

    def divide(self, n: int) -> Window:
        """The smallest window of pixels `n` times larger that covers this one (output to scene)."""
        row, col = self.row // n, self.col // n
        return Window(row, col, -(-self.stop_row // n) - row, -(-self.stop_col // n) - col)

    def multiply(self, n: int) -> Window:
        """The same ground in pixels `n` times smaller (scene to output)."""
        return Window(self.row * n, self.col * n, self.height * n, self.width * n)


def around(windows: Sequence[Window]) -> Window:
    """The smallest window that holds all of some, at least one."""
    row, col = min(w.row for w in windows), min(w.col for w in windows)
    return Window(row, col, max(w.stop_row for w in windows) - row, max(w.stop_col for w in windows) - col)


def repeated(lr: NDArray[Any], scale: int) -> NDArray[Any]:
    """(..., h, w) -> (..., h scale, w scale), every pixel repeated."""
    return np.repeat(np.repeat(lr, scale, axis=-2), scale, axis=-1)


T = TypeVar("T")


class TileCache(Generic[T]):
    """What belongs to each tile, for those last used, from any thread.

    Threads that want the same missing tile at once each make it, so a tile must come out the same whoever makes it.

    Args:
        capacity: tiles kept, at least 1.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tiles: OrderedDict[Window, T] = OrderedDict()
        self._lock = Lock()

    def get(self, tile: Window, make: Callable[[Window], T]) -> T:
        """What belongs to `tile`: kept from before, or made now, without the lock.

        Raises:
            Exception: what `make` raises; nothing is kept then.
        """
        with self._lock:
            if tile in self._tiles:
                self._tiles.move_to_end(tile)
                return self._tiles[tile]
        made = make(tile)
        with self._lock:
            self._tiles[tile] = made
            self._tiles.move_to_end(tile)
            while len(self._tiles) > self.capacity:
                self._tiles.popitem(last=False)
        return made

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._tiles.clear()
