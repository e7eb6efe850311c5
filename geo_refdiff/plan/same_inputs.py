"""Whether what a plan was made from is what is to be seen here: for whoever computes its blocks elsewhere or later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from geo_refdiff.change.polygons import VectorInfo, inspect_polygons
from geo_refdiff.errors import InputError
from geo_refdiff.plan.records import Plan
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.info import RasterInfo, Role
from geo_refdiff.raster.info import inspect as inspect_file

_Info = RasterInfo | VectorInfo


def check_inputs(plan: Plan) -> None:
    """Look at the scene, the reference, their clouds, the mask and its confidence anew.

    Raises:
        InputError: one is missing, unreadable, or another file than the plan's (also by its time of change).
    """
    for info, look in _inputs(plan):
        if look() != (replace(info, clouds=None) if isinstance(info, RasterInfo) else info):
            raise InputError(f"{info.path}: is another file here, or was changed")
    for raster in (plan.scene, plan.reference):
        layer = None if raster is None else raster.clouds
        if layer is not None:
            found = inspect_file(layer.path, "clouds")
            if (found.size_bytes, found.mtime_ns) != (layer.size_bytes, layer.mtime_ns):
                raise InputError(f"{layer.path}: is another file here, or was changed")


def _inputs(plan: Plan) -> Iterator[tuple[_Info, Callable[[], _Info]]]:
    mask = plan.mask
    rasters: list[tuple[RasterInfo | None, Role]] = [(plan.scene, "scene"), (plan.reference, "reference")]
    if mask is not None:
        rasters += [(mask.raster, "mask"), (mask.confidence, "mask")]
        if mask.polygons is not None:
            layer = mask.polygons
            yield layer, partial(inspect_polygons, str(layer.source), layer.field)
    for info, role in rasters:
        if info is not None:
            yield info, partial(inspect, info.path, role)
