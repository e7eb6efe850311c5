"""Whether a change mask from a file lies on the scene, or where the reference lies, and is moved with it."""

from __future__ import annotations

import rasterio
from odc.geo.geobox import GeoBox

from geo_refdiff.raster.affine import compose
from geo_refdiff.raster.geobox import Georeferenced, scene_geobox
from geo_refdiff.raster.info import RasterInfo

TAG = "GEO_REFDIFF_LIES_ON"
"""Of a raster: "scene" where it was made on the scene, and is right there."""

_SLACK = 0.01
"""Pixels of the finer grid, over the whole of both."""


def lies_on_scene(mask: RasterInfo, target: GeoBox, reference: Georeferenced | None) -> bool:
    """Whether a mask is the scene's own rather than the reference's, by its tag, else by its grid.

    A mask on the reference's very grid lies where the reference does; else one whose pixels are whole pixels of the
    scene's lattice, or divide them, lies on the scene; any other lies where the reference does.

    Args:
        mask: inspected.
        target: the whole scene's output grid.
        reference: its grid.
    """
    with rasterio.open(mask.path) as dataset:
        said = dataset.tags().get(TAG)
    if said in ("scene", "ref"):
        return bool(said == "scene")
    own = scene_geobox(mask)
    if reference is not None and _share_lattice(own, scene_geobox(reference), ratio=1):
        return False
    return _share_lattice(own, target)


def _share_lattice(first: GeoBox, second: GeoBox, ratio: int | None = None) -> bool:
    """Whether pixels of one are whole pixels of the other, `ratio` along an axis (None: any whole number)."""
    if first.crs != second.crs:
        return False
    coarse, fine = sorted((first.affine, second.affine), key=lambda a: -abs(a.determinant))
    step = compose(~fine, coarse)
    factor = round(step.a)
    if factor < 1 or (ratio is not None and factor != ratio):
        return False
    corners = (step.c - round(step.c), step.f - round(step.f))
    wide = max(*first.shape, *second.shape)
    skew = max(abs(step.a - factor), abs(step.e - factor), abs(step.b), abs(step.d))
    return bool(skew * wide + max(map(abs, corners)) < _SLACK)
