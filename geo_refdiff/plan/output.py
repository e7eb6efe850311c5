"""How an output tells its missing pixels, from how its scene does."""

from __future__ import annotations

import numpy as np

from geo_refdiff.plan.records import Output
from geo_refdiff.raster.info import RasterInfo


def output_of(scene: RasterInfo, more: bool) -> Output:
    """How an output with the scene's data type tells its missing pixels; `more`: beyond a polygon, or under clouds."""
    if scene.validity == "nodata" and scene.nodata is not None and _representable(scene.nodata, scene.dtype):
        return Output(scene.dtype, scene.nodata, False)
    if np.dtype(scene.dtype).kind == "f" and scene.validity in ("nodata", "nan", "none"):
        return Output(scene.dtype, float("nan"), False)
    return Output(scene.dtype, None, scene.validity in ("alpha", "mask") or more)


def _representable(value: float, dtype: str) -> bool:
    if not np.isfinite(value):
        return False
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    bounds = np.iinfo(kind)
    return value == int(value) and bounds.min <= value <= bounds.max
