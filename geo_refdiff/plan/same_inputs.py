"""Whether what a plan was made from is what is to be seen here: for whoever computes its blocks elsewhere or later."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from geo_refdiff.change.polygons import VectorInfo, inspect_polygons
from geo_refdiff.errors import InputError, ResumeError
from geo_refdiff.plan.records import Plan
from geo_refdiff.products.clouds import own_layer
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.clouds import NamedLayer, cloud_layer
from geo_refdiff.raster.info import CloudLayer, RasterInfo, Role
from geo_refdiff.signed_urls import unsigned

_Info = TypeVar("_Info", RasterInfo, VectorInfo)


def check_inputs(plan: Plan, names: Iterable[str] | None = None) -> Plan:
    """Look at the scene, the reference, their clouds, the mask and its confidence again.

    Args:
        plan: as it was made, or as it was read from a file, without the signatures of URLs.
        names: what the inputs are called now, signatures included; None: as the plan says.

    Returns:
        The plan with its inputs as they are now.

    Raises:
        InputError: one is missing, unreadable, or another file than the plan's (also by its time of change).
        ResumeError: the plan names a file that is not among `names`.
    """
    called = None if names is None else {unsigned(name): name for name in names}

    def again(info: _Info | None, look: Callable[[str, _Info], _Info]) -> _Info | None:
        if info is None:
            return None
        name = info.path if called is None else called.get(unsigned(info.path))
        if name is None:
            raise ResumeError(f"the plan names {info.path}, which was not asked for; remove the plan, and plan again")
        now = look(name, info)
        if _unsigned(now) != _unsigned(info):
            raise InputError(f"{info.path}: is another file here, or was changed")
        return now

    def raster(role: Role) -> Callable[[str, RasterInfo], RasterInfo]:
        return lambda name, at: with_clouds(inspect(name, role, coarser=at.coarser > 0), at.clouds)

    def with_clouds(info: RasterInfo, layer: CloudLayer | None) -> RasterInfo:
        if layer is None:
            return info
        own = own_layer(info)
        offered = {unsigned(layer.path): layer.path} if called is None else dict(called)
        offered |= {} if own is None else {unsigned(own.path): own.path}
        name = offered.get(unsigned(layer.path))
        if name is None:
            raise ResumeError(f"the plan names {layer.path}, which was not asked for; remove the plan, and plan again")
        polygons = own.polygons if own is not None and name == own.path else ""
        now = cloud_layer(NamedLayer(name, layer.kind, polygons), info)
        if (now.size_bytes, now.mtime_ns) != (layer.size_bytes, layer.mtime_ns):
            raise InputError(f"{layer.path}: is another file here, or was changed")
        return replace(info, clouds=now)

    scene, reference, mask = again(plan.scene, raster("scene")), again(plan.reference, raster("reference")), plan.mask
    if mask is not None:
        polygons = again(mask.polygons, lambda path, at: inspect_polygons(str(replace(at.source, path=path)), at.field))
        confidence = again(mask.confidence, raster("mask"))
        mask = replace(mask, raster=again(mask.raster, raster("mask")), polygons=polygons, confidence=confidence)
    return replace(plan, scene=scene or plan.scene, reference=reference, mask=mask)


def _unsigned(info: _Info) -> _Info:
    if isinstance(info, RasterInfo) and info.vrt is not None:
        info = replace(info, vrt=unsigned(info.vrt))
    if isinstance(info, RasterInfo) and info.clouds is not None:
        layer = replace(info.clouds, path=unsigned(info.clouds.path), vrt=unsigned(info.clouds.vrt))
        info = replace(info, clouds=layer)
    return replace(info, path=unsigned(info.path))
