"""Tiles that stand for a raster where it cannot be read as a whole: evenly spread, or where there are valid pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray

from geo_refdiff.raster.geobox import apply
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.window import Window

_PLACES = 512
"""Pixels along each side of a raster that are probed for validity."""


def spread_starts(start: int, length: int, side: int, count: int) -> list[int]:
    """Starts of up to `count` tiles of `side` pixels, evenly from edge to edge; a single one in the middle."""
    room = max(length - side, 0)
    if count == 1:
        return [start + room // 2]
    return list(dict.fromkeys(start + round(k * room / (count - 1)) for k in range(count)))


def spread_tiles(area: Window, side: int, rows: int, cols: int) -> list[Window]:
    """Up to `rows` x `cols` tiles of `side` pixels, evenly over an area and cut off at its border, row by row."""
    corners = (
        (row, col)
        for row in spread_starts(area.row, area.height, side, rows)
        for col in spread_starts(area.col, area.width, side, cols)
    )
    tiles = (Window(row, col, side, side).intersect(area) for row, col in corners)
    return [tile for tile in tiles if tile is not None]


def pick_evenly(tiles: Sequence[Window], count: int) -> list[Window]:
    """At most `count` of the tiles, evenly from the first to the last."""
    if len(tiles) <= count:
        return list(tiles)
    return [tiles[round(k)] for k in np.linspace(0, len(tiles) - 1, count)]


def tiles_with_data(
    scene: RasterInfo, band: int, side: int, reference: tuple[RasterInfo, int] | None = None
) -> list[Window]:
    """Tiles of the scene in which it, and a reference if there is one, has valid pixels, row by row.

    Both are probed at 512 x 512 pixels at most: specks between these are not found.

    Args:
        scene: inspected.
        band: of the scene, 1-based.
        side: of a tile, scene pixels; tiles start at multiples of it.
        reference: and a band of it, 1-based.

    Raises:
        InputError: a raster cannot be read.
    """
    with RasterReader(scene, (band,)) as reader:
        corners = _tile_indices(*reader.known_places(_PLACES), side)
    if reference is not None:
        info, other = reference
        with RasterReader(info, (other,)) as reader:
            rows, cols = reader.known_places(_PLACES)
        x, y = apply(Affine(*info.transform), cols, rows)
        x, y = (np.asarray(v) for v in rasterio.warp.transform(info.crs_wkt, scene.crs_wkt, x, y)[:2])
        cols, rows = apply(~Affine(*scene.transform), x, y)
        finite = np.isfinite(rows) & np.isfinite(cols)
        corners &= _tile_indices(rows[finite], cols[finite], side)
    whole = scene.window
    tiles = (Window(row * side, col * side, side, side).intersect(whole) for row, col in sorted(corners))
    return [tile for tile in tiles if tile is not None]


def _tile_indices(rows: NDArray[np.float64], cols: NDArray[np.float64], side: int) -> set[tuple[int, int]]:
    pairs = np.unique(np.stack([rows, cols], axis=1) // side, axis=0).astype(int)
    return {(int(row), int(col)) for row, col in pairs}
