"""Plans as files: reading one, and what differs between two, for a run that is to be resumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geo_refdiff.errors import ResumeError
from geo_refdiff.plan.records import THREADS, Plan
from geo_refdiff.raster.gdal import one_line


def read_plan(path: Path) -> Plan:
    """A plan from plan.json.

    Raises:
        ResumeError: it is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        text = one_line(error)
        raise ResumeError(f"{path}: the plan cannot be read ({text}); start anew with --overwrite") from error
    if not isinstance(data, dict):
        raise ResumeError(f"{path}: holds no plan; start anew with --overwrite")
    return Plan.from_dict(data)


def differences(old: Plan, new: Plan) -> list[str]:
    """What differs between two plans and changes pixels or block files, as "key: old -> new"; empty if nothing does."""
    flat_old, flat_new = _flat(old.to_dict()), _flat(new.to_dict())
    keys = [k for k in [*flat_old, *flat_new] if k != f"software.{THREADS}"]
    found = []
    for key in dict.fromkeys(keys):
        before, after = flat_old.get(key), flat_new.get(key)
        if before != after:
            found.append(f"{key}: {_short(before)} -> {_short(after)}")
    return found


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
