"""Whether a plan that was read from a file can be a plan: kinds of its values, and how they fit together.

The file may have been damaged or tampered with; what is wrong is found here, not in the middle of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

import pyproj

from geo_refdiff.plan.layout import MAX_WINDOW, WindowLayout, plan_blocks
from geo_refdiff.raster.vrt import GDAL_TYPES
from geo_refdiff.raster.window import Window

if TYPE_CHECKING:
    from geo_refdiff.plan.records import Bands, Plan

_LARGEST = 1e300
_MOST_THREADS = 4096
_ANY_NUMBER = ("nodata",)


def check_plan(plan: Plan) -> None:
    """Whether a plan holds together.

    Raises:
        ValueError: names what is wrong, with its value.
    """
    check_kind(plan, type(plan), "plan")
    scene, grid = plan.scene, plan.grid
    _claim(scene.width >= 1 and scene.height >= 1, "the scene's shape", (scene.height, scene.width))
    for info in (scene, plan.reference):
        if info is not None:
            _check_place(info.transform, info.crs_wkt)
    _claim(grid.scale >= 1, "scale", grid.scale)
    _claim(Window(0, 0, scene.height, scene.width).contains(grid.crop), "crop", grid.crop)
    _claim(plan.blocks == plan_blocks(plan.blocks.size, plan.shape), "blocks", plan.blocks)
    if plan.windows is not None:
        _check_windows(plan.windows)
    _claim(plan.output.dtype in GDAL_TYPES, "output.dtype", plan.output.dtype)
    _check_bands(plan, plan.bands)
    _claim(len(plan.sensors) == len(plan.bands.output), "sensor.sigmas", plan.sensor.sigmas)
    for key, value in plan.software.items():
        whole = not key.endswith("threads") or (value.isdecimal() and int(value) <= _MOST_THREADS)
        _claim(whole, f"software.{key}", value)


def check_kind(value: Any, kind: Any, where: str) -> None:
    """Whether a value is what an annotation says, and everything in it, too; numbers are finite, whole ones whole.

    Args:
        value: a dataclass, or a value in one.
        kind: a dataclass, str, int, float, bool, None, Any, Literal, tuple, Mapping, or a union of them.
        where: what an error calls it.

    Raises:
        ValueError: it is not.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return
    if is_dataclass(kind) and isinstance(kind, type):
        _claim(isinstance(value, kind), where, value)
        for name, hint in _hints(kind).items():
            check_kind(getattr(value, name), hint, f"{where}.{name}")
    elif origin in (Union, UnionType):
        _claim(any(_fits(value, each, where) for each in inner), where, value)
    elif origin is Literal:
        _claim(isinstance(value, str) and value in inner, where, value)
    elif origin is tuple:
        _claim(isinstance(value, tuple), where, value)
        many = len(inner) == 2 and inner[1] is Ellipsis
        _claim(many or len(value) == len(inner), where, value)
        for number, item in enumerate(value):
            check_kind(item, inner[0] if many else inner[number], f"{where}[{number}]")
    elif origin is Mapping:
        _claim(isinstance(value, dict), where, value)
        for key, item in value.items():
            check_kind(key, inner[0], where)
            check_kind(item, inner[1], f"{where}.{key}")
    else:
        _claim(_plain(value, kind, where), where, value)


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {item.name: hints[item.name] for item in fields(kind)}


def _fits(value: Any, kind: Any, where: str) -> bool:
    try:
        check_kind(value, kind, where)
    except ValueError:
        return False
    return True


def _plain(value: Any, kind: Any, where: str) -> bool:
    if kind in (bool, NoneType):
        return isinstance(value, kind)
    if kind is str:
        return isinstance(value, str) and bool(value.encode() or True)  # half a surrogate pair is no text
    if isinstance(value, bool) or not isinstance(value, int | float if kind is float else int):
        return False
    return -_LARGEST < value < _LARGEST or where.endswith(_ANY_NUMBER)


def _check_place(transform: tuple[float, ...], crs_wkt: str) -> None:
    a, b, _, d, e, _ = transform
    _claim(abs(a * e - b * d) > 0, "affine", transform)
    try:
        pyproj.CRS.from_wkt(crs_wkt)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"its CRS is {crs_wkt[:60]!r}") from error


def _check_windows(layout: WindowLayout) -> None:
    fits = layout.size == layout.stride + layout.overlap + 2 * layout.halo
    sound = layout.stride > 0 and 0 <= layout.overlap <= layout.stride and layout.overlap % 2 == 0 and layout.halo >= 0
    _claim(fits and sound and layout.size <= MAX_WINDOW, "windows", layout)


def _check_bands(plan: Plan, bands: Bands) -> None:
    own = set(plan.scene.data_bands)
    _claim(bool(bands.scene) and own.issuperset(bands.output), "bands.scene", bands.output)
    _claim(max(own) <= plan.scene.count and min(own) >= 1, "data_bands", plan.scene.data_bands)
    known = set(plan.reference.data_bands) if plan.reference else set()
    _claim(known.issuperset(bands.reference), "bands.reference", bands.reference)
    lengths = (len(bands.names), len(bands.other_names), len(bands.weights), len(bands.fitness))
    _claim(lengths == (len(bands.scene), *[len(bands.other)] * 3), "bands.names", bands.names)
    _claim(all(len(row) == len(bands.scene) for row in bands.weights), "bands.weights", bands.weights)
    places = set(range(len(bands.scene)))
    _claim(places.issuperset(c for c in bands.channels if c is not None), "bands.channels", bands.channels)
    _claim(len(plan.radiometry.fill) == len(bands.output), "radiometry.fill", plan.radiometry.fill)
    for part in (plan.radiometry.gain, plan.radiometry.offset):
        _claim(len(part) in (0, len(bands.reference)), "radiometry.gain", part)
    for name in ("descriptions", "scales", "offsets", "units", "colorinterp"):
        part = getattr(plan.scene, name)
        _claim(len(part) == plan.scene.count, f"scene.{name}", part)


def _claim(holds: bool, name: str, value: Any) -> None:
    if not holds:
        text = repr(value)
        raise ValueError(f"{name} is {text if len(text) <= 60 else text[:57] + '...'}")
