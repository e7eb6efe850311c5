"""Registration of rasters: what is read of them does not grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from geo_refdiff.raster.crs import footprint
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window, around
from geo_refdiff.registration.common import evenly, known_tiles
from geo_refdiff.registration.estimate import RADIUS
from geo_refdiff.registration.register import register_tiles, register_view
from geo_refdiff.registration.registration import Mode, Registration
from geo_refdiff.registration.repeatable import repeatable_opencv
from geo_refdiff.registration.view import OVERSAMPLING, View, make_view
from geo_refdiff.sensor.sensor import SensorModel

WHOLE = 512 * 512
"""LR pixels up to which the scene under the reference is compared as a whole."""

_TILE = 128
_SPARE = 4
_FEWEST, _MOST = 3, 6
"""Tiles along an axis."""

_APART = 384
_BANDS = 3
"""More bands tell little more."""


@repeatable_opencv()
def register_rasters(
    scene: RasterInfo,
    scene_bands: Sequence[int],
    reference: RasterInfo,
    reference_bands: Sequence[int],
    sensor: SensorModel,
    mode: Mode = "auto",
) -> Registration:
    """How a reference lies on a scene, each known by its georeference to within 16 LR pixels.

    A scene of up to 512 x 512 LR pixels under the reference is compared as a whole, a larger one in tiles of
    128 x 128, at most 36 of them, which are read one by one. If these have too little in common to tell, as with a
    swath or a reference of scattered sheets, the part of the scene where both have pixels is compared in the same way.
    What is found does not depend on any area of interest.

    Args:
        scene, reference: from `inspect`.
        scene_bands, reference_bands: 1-based, pair by pair; they need not show the same part of the spectrum.
        sensor: the declared operator.
        mode: see `register_view`.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is known.
        InputError: a raster cannot be read.
    """
    chosen = sorted({0, len(scene_bands) // 2, len(scene_bands) - 1})[:_BANDS]
    fine = output_geobox(scene_geobox(scene), OVERSAMPLING)
    area = footprint(reference, scene).pad(RADIUS).intersect(Window(0, 0, scene.height, scene.width))
    assert area is not None
    with (
        RasterReader(scene, [scene_bands[k] for k in chosen]) as lr,
        WarpedReader(reference, [reference_bands[k] for k in chosen], fine) as hr,
    ):
        if area.area <= WHOLE:
            return register_view(_read(area, lr, hr, sensor), mode)
        found = register_tiles((_read(tile, lr, hr, sensor) for tile in _tiles(area)), area, mode)
        if found.verdict != "too small":
            return found
        tiles = known_tiles(scene, lr.bands[0], _TILE, (reference, hr.bands[0]))
        if not tiles:
            return found
        part = around(tiles)
        if part.area <= WHOLE:
            return register_view(_read(part, lr, hr, sensor), mode)
        return register_tiles((_read(tile, lr, hr, sensor) for tile in evenly(tiles, _MOST**2)), part, mode)


def _read(window: Window, lr: RasterReader, hr: WarpedReader, sensor: SensorModel) -> View:
    values, valid = lr.read(window)
    reference, known = hr.read(window.pad(RADIUS + _SPARE).multiply(OVERSAMPLING))
    return make_view(values, np.asarray(valid.all(axis=0)), reference, known, sensor, (window.row, window.col))


def _tiles(area: Window) -> Iterator[Window]:
    """Evenly from edge to edge."""
    for row in _starts(area.row, area.height):
        for col in _starts(area.col, area.width):
            tile = Window(row, col, _TILE, _TILE).intersect(area)
            if tile is not None:
                yield tile


def _starts(first: int, length: int) -> list[int]:
    if length <= _TILE:
        return [first]
    count = int(np.clip(length // _APART, min(_FEWEST, -(-length // _TILE)), _MOST))
    return [first + round(v) for v in np.linspace(0, length - _TILE, count)]
