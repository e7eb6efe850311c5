"""Where two rasters have something to compare, if that is in a small part of them only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray

from geo_refdiff.raster.affine import apply
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.window import Window

_PLACES = 512
"""Pixels along a side that are looked at."""


def known_tiles(
    scene: RasterInfo, band: int, side: int, reference: tuple[RasterInfo, int] | None = None
) -> list[Window]:
    """Tiles of the scene in which it, and a reference if there is one, has valid pixels, in reading order.

    Both are looked at thinly, in at most 512 x 512 places: a speck between them is not found.

    Args:
        scene: as inspected.
        band: of the scene, 1-based.
        side: of a tile, LR pixels; tiles start at multiples of it.
        reference: and a band of it.

    Raises:
        InputError: a raster cannot be read.
    """
    with RasterReader(scene, (band,)) as reader:
        found = _tiles_of(*reader.known_places(_PLACES), side)
    if reference is not None:
        info, other = reference
        with RasterReader(info, (other,)) as reader:
            rows, cols = reader.known_places(_PLACES)
        x, y = apply(Affine(*info.transform), cols, rows)
        x, y = (np.asarray(v) for v in rasterio.warp.transform(info.crs_wkt, scene.crs_wkt, x, y)[:2])
        cols, rows = apply(~Affine(*scene.transform), x, y)
        there = np.isfinite(rows) & np.isfinite(cols)
        found &= _tiles_of(rows[there], cols[there], side)
    whole = Window(0, 0, scene.height, scene.width)
    tiles = (Window(row * side, col * side, side, side).intersect(whole) for row, col in sorted(found))
    return [tile for tile in tiles if tile is not None]


def evenly(tiles: Sequence[Window], most: int) -> list[Window]:
    """At most so many of the tiles, evenly from the first to the last."""
    if len(tiles) <= most:
        return list(tiles)
    return [tiles[round(k)] for k in np.linspace(0, len(tiles) - 1, most)]


def _tiles_of(rows: NDArray[np.float64], cols: NDArray[np.float64], side: int) -> set[tuple[int, int]]:
    pairs = np.unique(np.stack([rows, cols], axis=1) // side, axis=0).astype(int)
    return {(int(row), int(col)) for row, col in pairs}
