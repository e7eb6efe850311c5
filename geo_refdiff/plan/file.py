"""Plans as files: reading one strictly, and what differs between two, for a run that is to be resumed.

The file may have been damaged or tampered with; it is checked here, not in the middle of a run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyproj

from geo_refdiff.errors import ResumeError
from geo_refdiff.plan.layout import MAX_WINDOW, WindowLayout, plan_blocks
from geo_refdiff.plan.records import THREADS, VERSION, Bands, Plan
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.vrt import GDAL_TYPES
from geo_refdiff.raster.window import Window

_MOST_THREADS = 4096


def read_plan(path: Path) -> Plan:
    """A plan from plan.json.

    Raises:
        ResumeError: it is missing or damaged.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ResumeError(
            f"{path}: the plan cannot be read ({one_line(error)}); start over with --overwrite"
        ) from error
    return parsed(text)


def parsed(text: bytes | str) -> Plan:
    """A plan from its JSON, the inverse of `Plan.to_dict`.

    Raises:
        ResumeError: another version of the format, or a field that is missing, unknown, wrong, or at odds with others.
    """
    try:
        data = msgspec.json.decode(text)
        if not isinstance(data, dict):
            raise ValueError("holds no plan")
        if data.get("version") != VERSION:
            raise ResumeError(
                f"the plan has format version {str(data.get('version'))[:20]}, this program writes {VERSION}; "
                f"start over with --overwrite"
            )
        plan = msgspec.convert(_nodata_as_numbers(data), Plan)
        _check_plan(plan)
        extra = differing(data, plan.to_dict())
        if extra:
            raise ValueError(f"{extra[0]}, which does not belong to it")
    except (msgspec.MsgspecError, ArithmeticError, RecursionError, TypeError, ValueError) as error:
        raise ResumeError(f"the plan is damaged ({one_line(error)}); start over with --overwrite") from error
    return plan


def differences(old: Plan, new: Plan) -> list[str]:
    """What differs between two plans and changes pixels or block files, as "key: old -> new"; empty if nothing does."""
    return differing(old.to_dict(), new.to_dict(), (f"software.{THREADS}",))


def differing(old: Mapping[str, Any], new: Mapping[str, Any], ignored: tuple[str, ...] = ()) -> list[str]:
    """What differs between two nested mappings as "key.key: old -> new"."""
    flat_old, flat_new = _flat(old), _flat(new)
    return [
        f"{key}: {_short(flat_old.get(key))} -> {_short(flat_new.get(key))}"
        for key in dict.fromkeys([*flat_old, *flat_new])
        if key not in ignored and flat_old.get(key) != flat_new.get(key)
    ]


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nodata_as_numbers(value: Any) -> Any:
    """NaN and the infinite ones are text in JSON."""
    if not isinstance(value, dict):
        return value
    return {
        key: float(item) if key == "nodata" and isinstance(item, str) else _nodata_as_numbers(item)
        for key, item in value.items()
    }


def _check_plan(plan: Plan) -> None:
    """Whether a plan holds together.

    Raises:
        ValueError: names what is wrong, with its value.
    """
    scene, grid = plan.scene, plan.grid
    _claim(scene.width >= 1 and scene.height >= 1, "the scene's shape", (scene.height, scene.width))
    for info in (scene, plan.reference):
        if info is not None:
            _check_place(info.transform, info.crs_wkt)
    _claim(grid.scale >= 1, "scale", grid.scale)
    _claim(Window(0, 0, scene.height, scene.width).contains(grid.crop), "crop", grid.crop)
    _claim(plan.blocks == plan_blocks(plan.blocks.size, plan.shape), "blocks", plan.blocks)
    _check_windows(plan.windows, grid.scale)
    _claim(plan.output.dtype in GDAL_TYPES, "output.dtype", plan.output.dtype)
    _check_bands(plan, plan.bands)
    _claim(len(plan.sensors) == len(plan.bands.computed), "sensor.sigmas", plan.sensor.sigmas)
    noise = plan.sensor.noise
    _claim(len(noise) == len(plan.bands.computed) and min(noise) >= 0, "sensor.noise", noise)
    mixed = plan.sensor.noise_components
    noisy = sum(sigma > 0 for sigma in noise)
    _claim([len(row) for row in mixed] == [noisy] * noisy, "sensor.noise_components", mixed)
    for key, value in plan.software.items():
        whole = not key.endswith("threads") or (value.isdecimal() and int(value) <= _MOST_THREADS)
        _claim(whole, f"software.{key}", value)


def _check_place(transform: tuple[float, ...], crs_wkt: str) -> None:
    a, b, _, d, e, _ = transform
    _claim(abs(a * e - b * d) > 0, "affine", transform)
    try:
        pyproj.CRS.from_wkt(crs_wkt)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"its CRS is {crs_wkt[:60]!r}") from error


def _check_windows(layout: WindowLayout, scale: int) -> None:
    fits = layout.step >= 1 and not layout.step % scale and not layout.stride % layout.step
    fits = fits and not (layout.halo + layout.overlap // 2) % layout.step
    sound = layout.stride > 0 and 0 <= layout.overlap <= layout.stride and layout.overlap % 2 == 0 and layout.halo >= 0
    _claim(fits and sound and layout.size <= MAX_WINDOW, "windows", layout)


def _check_bands(plan: Plan, bands: Bands) -> None:
    scene_bands = set(plan.scene.data_bands)
    _claim(bool(bands.scene) and scene_bands.issuperset(bands.output), "bands.scene", bands.output)
    _claim(max(scene_bands) <= plan.scene.count and min(scene_bands) >= 1, "data_bands", plan.scene.data_bands)
    reference_bands = set(plan.reference.data_bands) if plan.reference else set()
    _claim(reference_bands.issuperset(bands.reference), "bands.reference", bands.reference)
    _claim(len(bands.reference_names) == len(bands.reference), "bands.reference_names", bands.reference_names)
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
