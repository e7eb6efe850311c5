"""Windows: integer rectangles that never disagree with plain sets of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_refdiff.raster.window import Window

positions = st.integers(-60, 60)
sizes = st.integers(1, 40)
windows = st.builds(Window, positions, positions, sizes, sizes)


def pixels(window: Window) -> set[tuple[int, int]]:
    return {(r, c) for r in range(window.row, window.stop_row) for c in range(window.col, window.stop_col)}


@settings(max_examples=50)
@given(windows, windows)
def test_intersection_is_the_common_pixels(a: Window, b: Window) -> None:
    common = a.intersect(b)
    assert (pixels(common) if common else set()) == pixels(a) & pixels(b)
    assert a.contains(b) == (pixels(b) <= pixels(a))


@settings(max_examples=50)
@given(windows, windows)
def test_slices_pick_the_windows_own_pixels(outer: Window, other: Window) -> None:
    rows, cols = np.mgrid[outer.row : outer.stop_row, outer.col : outer.stop_col]
    inner = other.intersect(outer)
    if inner is None:
        return
    at = inner.within(outer)
    assert rows[at].shape == inner.shape
    assert (rows[at][0, 0], cols[at][0, 0]) == (inner.row, inner.col)


@settings(max_examples=50)
@given(windows, st.integers(1, 9))
def test_divide_covers_and_multiply_is_its_inverse(window: Window, n: int) -> None:
    assert window.multiply(n).divide(n) == window
    covering = window.divide(n).multiply(n)
    assert covering.contains(window)
    assert window.row - covering.row < n
    assert covering.stop_col - window.stop_col < n


@settings(max_examples=50)
@given(windows, st.integers(1, 50))
def test_tiles_cover_every_pixel_once(window: Window, side: int) -> None:
    tiles = list(window.tiles(side))
    assert tiles == sorted(tiles)
    assert sum(tile.area for tile in tiles) == window.area
    assert set().union(*map(pixels, tiles)) == pixels(window)
    for tile in tiles:
        assert (tile.row - window.row) % side == 0 == (tile.col - window.col) % side
        assert tile.height == side or tile.stop_row == window.stop_row
        assert tile.width == side or tile.stop_col == window.stop_col


@settings(max_examples=50)
@given(windows, st.integers(1, 50))
def test_cells_are_the_same_whatever_the_window_and_their_parts_cover_it_once(window: Window, side: int) -> None:
    cells = list(window.cells(side))
    assert cells == sorted(cells)
    assert sum(part.area for _, part in cells) == window.area
    assert set().union(*(pixels(part) for _, part in cells)) == pixels(window)
    for cell, part in cells:
        assert cell.row % side == 0 == cell.col % side
        assert cell.shape == (side, side)
        assert cell.contains(part)


def test_pad_shift_and_order() -> None:
    window = Window(-3, 5, 4, 6)
    assert window.pad(2) == Window(-5, 3, 8, 10)
    assert window.pad(2).pad(-2) == window
    assert window.shift(3, -5) == Window(0, 0, 4, 6)
    assert (window.shape, window.area) == ((4, 6), 24)
    assert sorted([Window(1, 0, 1, 1), Window(0, 9, 1, 1)])[0] == Window(0, 9, 1, 1)


def test_impossible_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="width=0"):
        Window(0, 0, 4, 0)
    with pytest.raises(ValueError, match="not inside"):
        Window(0, 0, 4, 4).within(Window(1, 0, 4, 4))
