"""Tiles that stand for a raster: evenly from edge to edge, each once."""

from __future__ import annotations

import pytest

from geo_refdiff.raster.sampling import pick_evenly, spread_starts, spread_tiles
from geo_refdiff.raster.window import Window


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((10, 100, 20, 3), [10, 50, 90]),  # the last ends where the interval does
        ((0, 7, 2, 3), [0, 2, 5]),  # 2.5 is rounded to even
        ((5, 100, 20, 1), [45]),
        ((5, 12, 20, 4), [5]),  # shorter than a tile
        ((0, 22, 20, 4), [0, 1, 2]),
    ],
)
def test_starts_lie_evenly_from_edge_to_edge(interval: tuple[int, int, int, int], expected: list[int]) -> None:
    assert spread_starts(*interval) == expected


def test_tiles_stay_in_their_area_row_by_row() -> None:
    area = Window(4, 6, 10, 50)
    tiles = spread_tiles(area, 20, 3, 2)
    assert tiles == [Window(4, 6, 10, 20), Window(4, 36, 10, 20)]


def test_the_first_and_the_last_tile_are_picked() -> None:
    tiles = [Window(0, k, 1, 1) for k in range(11)]
    assert pick_evenly(tiles, 3) == [tiles[0], tiles[5], tiles[10]]
    assert pick_evenly(tiles, 20) == tiles
