"""The area of interest, as pixels."""

from __future__ import annotations

import numpy as np
import shapely
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from geo_refdiff.engine.plan import Plan
from geo_refdiff.grid.window import Window


class AreaOfInterest:
    """The plan's polygon in pixels of the whole scene's output grid; a pixel belongs to it if its centre does.

    Args:
        plan: with a polygon.
    """

    def __init__(self, plan: Plan) -> None:
        self._crop = plan.grid.crop.multiply(plan.grid.scale)
        polygon: BaseGeometry = shapely.from_wkt(plan.grid.aoi or "POLYGON EMPTY")
        a, b, c, d, e, f = (~plan.target.affine)[:6]
        self._geometry = shapely.affinity.affine_transform(polygon, [a, b, d, e, c, f])

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """(height, width), True inside.

        Args:
            window: in output pixels.
        """
        place = window.shift(self._crop.row, self._crop.col)
        near = shapely.box(place.col - 1, place.row - 1, place.stop_col + 1, place.stop_row + 1)
        if not self._geometry.intersects(near):
            return np.zeros(window.shape, dtype=np.bool_)
        if self._geometry.contains(near):
            return np.ones(window.shape, dtype=np.bool_)
        pixels = Affine.translation(place.col, place.row)
        return np.asarray(geometry_mask([self._geometry], window.shape, pixels, invert=True), dtype=np.bool_)
