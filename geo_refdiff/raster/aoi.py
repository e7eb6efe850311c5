"""The area of interest, as pixels."""

from __future__ import annotations

import numpy as np
import shapely
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from geo_refdiff.raster.window import Window

_TILE = 1024


class AreaOfInterest:
    """A polygon in pixels of the whole scene's output grid; a pixel belongs to it if its centre does.

    Args:
        polygon: WKT, in the grid's CRS.
        target: the grid.
        part: the output, in pixels of it.
    """

    def __init__(self, polygon: str, target: GeoBox, part: Window) -> None:
        self._part = part
        a, b, c, d, e, f = (~target.affine)[:6]
        self._geometry: BaseGeometry = shapely.affinity.affine_transform(shapely.from_wkt(polygon), [a, b, d, e, c, f])
        shapely.prepare(self._geometry)

    @property
    def is_empty(self) -> bool:
        """Whether no pixel of the output belongs to it."""
        return not any(self.inside(tile).any() for tile in Window(0, 0, *self._part.shape).tiles(_TILE))

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """(height, width), True inside.

        Args:
            window: in output pixels.
        """
        place = window.shift(self._part.row, self._part.col)
        near = shapely.box(place.col - 1, place.row - 1, place.stop_col + 1, place.stop_row + 1)
        if not self._geometry.intersects(near):
            return np.zeros(window.shape, dtype=np.bool_)
        if self._geometry.contains(near):
            return np.ones(window.shape, dtype=np.bool_)
        pixels = Affine.translation(place.col, place.row)
        return np.asarray(geometry_mask([self._geometry], window.shape, pixels, invert=True), dtype=np.bool_)
