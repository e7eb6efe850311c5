"""The cache of tiles: kept while used, forgotten in the order of last use, the same answers for all threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from geo_refdiff.raster.window import TileCache, Window

TILES = [Window(0, col, 8, 8) for col in range(0, 48, 8)]


def test_the_tile_used_longest_ago_goes_first() -> None:
    made: list[Window] = []
    cache: TileCache[int] = TileCache(2)

    def make(tile: Window) -> int:
        made.append(tile)
        return tile.col

    a, b, c = TILES[:3]
    assert [cache.get(tile, make) for tile in (a, b, a, c, a, b)] == [0, 8, 0, 16, 0, 8]
    assert made == [a, b, c, b]
    cache.clear()
    cache.get(a, make)
    assert made == [a, b, c, b, a]


def test_a_tile_that_cannot_be_made_is_tried_again() -> None:
    cache: TileCache[int] = TileCache(2)
    with pytest.raises(ZeroDivisionError):
        cache.get(TILES[0], lambda tile: 1 // tile.row)
    assert cache.get(TILES[0], lambda tile: 7) == 7


def test_a_tile_in_use_by_one_thread_is_there_for_the_others() -> None:
    cache: TileCache[int] = TileCache(len(TILES))
    for tile in TILES:
        cache.get(tile, lambda t: t.col)

    def fail(tile: Window) -> int:
        raise AssertionError(f"{tile} was kept and is made again")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: cache.get(TILES[n % 3], fail), range(5000))) == [n % 3 * 8 for n in range(5000)]
