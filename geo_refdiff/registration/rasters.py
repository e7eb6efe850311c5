"""Registration of two raster files: what is read does not grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np

from geo_refdiff.options import RegistrationMode
from geo_refdiff.raster.crs import covered_window
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.sampling import pick_evenly, spread_tiles, tiles_with_data
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window, around
from geo_refdiff.registration.estimate import RADIUS
from geo_refdiff.registration.register import Registration, register_tiles, register_view
from geo_refdiff.registration.view import OVERSAMPLING, View, make_view
from geo_refdiff.sensor.sensor import SensorModel


@contextmanager
def repeatable_opencv() -> Iterator[None]:
    """Run OpenCV on one thread and without Intel's library, so that results are the same bit for bit.

    Sums over threads vary in their last digits from run to run, and Intel's routines depend on the alignment of arrays
    in memory.
    """
    threads, library = cv2.getNumThreads(), cv2.ipp.useIPP()
    cv2.setNumThreads(1)
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(library)
        cv2.setNumThreads(threads)


WHOLE = 512 * 512
"""scene pixels up to which the part of the scene under the reference is compared as a whole."""

_TILE = 128
_MARGIN = 4
_MIN_TILES, _MAX_TILES = 3, 6
"""Tiles along an axis."""

_DISTANCE = 384
_BANDS = 3
"""Bands that are compared at most: more add little."""


@repeatable_opencv()
def register_rasters(
    scene: RasterInfo,
    scene_bands: Sequence[int],
    reference: RasterInfo,
    reference_bands: Sequence[int],
    sensor: SensorModel,
    mode: RegistrationMode = "auto",
) -> Registration:
    """Register a reference on a scene; their georeferences must agree to within 16 scene pixels.

    The part of the scene under the reference is compared as a whole up to 512 x 512 scene px, else in at most 36 tiles
    of 128 x 128, which are read one by one. If these have too little in common, as with a swath or a reference of
    scattered sheets, tiles are taken where both have valid pixels. The result does not depend on an area of interest.

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
    area = covered_window(reference, scene).pad(RADIUS).intersect(Window(0, 0, scene.height, scene.width))
    assert area is not None
    with (
        RasterReader(scene, [scene_bands[k] for k in chosen]) as lr,
        WarpedReader(reference, [reference_bands[k] for k in chosen], fine) as hr,
    ):
        if area.area <= WHOLE:
            return register_view(_read(area, lr, hr, sensor), mode)
        fixed = spread_tiles(area, _TILE, _tile_count(area.height), _tile_count(area.width))
        registration = register_tiles((_read(tile, lr, hr, sensor) for tile in fixed), area, mode)
        if registration.verdict != "too small":
            return registration
        tiles = tiles_with_data(scene, lr.bands[0], _TILE, (reference, hr.bands[0]))
        if not tiles:
            return registration
        part = around(tiles)
        if part.area <= WHOLE:
            return register_view(_read(part, lr, hr, sensor), mode)
        return register_tiles((_read(tile, lr, hr, sensor) for tile in pick_evenly(tiles, _MAX_TILES**2)), part, mode)


def _read(window: Window, lr: RasterReader, hr: WarpedReader, sensor: SensorModel) -> View:
    values, valid = lr.read(window)
    hr_values, hr_valid = hr.read(window.pad(RADIUS + _MARGIN).multiply(OVERSAMPLING))
    return make_view(values, np.asarray(valid.all(axis=0)), hr_values, hr_valid, sensor, (window.row, window.col))


def _tile_count(length: int) -> int:
    """Tiles along an axis."""
    return int(np.clip(length // _DISTANCE, min(_MIN_TILES, -(-length // _TILE)), _MAX_TILES))
