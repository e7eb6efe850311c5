"""The manifest: a GeoPackage with one row an area, written while the batch runs and open to any reader meanwhile."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any

from geo_refdiff.errors import OutputError, ResumeError
from geo_refdiff.io.atomic import atomic_path
from geo_refdiff.io.styles import write_field_style
from geo_refdiff.pipeline.batch.areas import Area

LAYER = "areas"
FILE = "manifest.gpkg"
STATUS_COLOURS = {"done": (27, 120, 55), "failed": (215, 48, 31), "running": (43, 108, 176), "pending": (154, 154, 154)}
"""Red, green and blue, 0..255."""

COLUMNS: Mapping[str, type] = {
    "name": str,
    "status": str,
    "error": str,
    "scene": str,
    "scene_file": str,
    "reference": str,
    "mask": str,
    "scene_date": str,
    "ref_date": str,
    "covered": float,
    "output": str,
    "started": str,
    "finished": str,
    "seconds": float,
    "attempts": int,
    "worker": str,
    "megapixels": float,
    "blocks": int,
    "valid_percent": float,
    "lr_residual_rms": float,
    "lr_residual_max": float,
    "ref_correlation": float,
    "from_reference": float,
    "generated": float,
    "interpolated": float,
    "notes": str,
    "outline_sha256": str,
}
"""Fields of the layer; see docs/batch.md."""

_OF_TRIGGERS = ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY")
"""Functions in the triggers of the spatial index; they fire where geometries change, never here, but must exist."""

_WAIT = 5.0
_LAST_WAIT = 60.0
_EVERY = 0.5


class Manifest:
    """The manifest of a batch; one process writes it.

    Changes are collected and written twice a second, so that a reader that holds the file for a moment, as QGIS does,
    stops nobody.

    Args:
        path: of the GeoPackage; made by `create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changes: dict[str, dict[str, Any]] = {}
        self._written = time.monotonic()

    @staticmethod
    def create(
        path: Path, areas: Sequence[Area], outlines: Sequence[str], old: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Write a manifest for areas, whole or not at all, and beside it the style by which QGIS draws it.

        Args:
            path: of the file.
            areas: one row each.
            outlines: SHA-256 of each area's text.
            old: values to begin with by name, where there are any.

        Raises:
            OutputError: it cannot be written.
        """
        import geopandas
        import pandas

        rows = []
        for area, outline in zip(areas, outlines, strict=True):
            known = old.get(area.name, {})
            rows.append(
                {"status": "pending", "attempts": 0} | dict(known) | {"name": area.name, "outline_sha256": outline}
            )
        table = pandas.DataFrame(rows, columns=list(COLUMNS))
        for column, kind in COLUMNS.items():
            dtype: Any = {str: object, float: "float64", int: "Int64"}[kind]
            table[column] = table[column].astype(dtype)
        frame = geopandas.GeoDataFrame(table, geometry=[a.lonlat for a in areas], crs="EPSG:4326")
        try:
            write_field_style(path.with_suffix(".qml"), "status", STATUS_COLOURS)
            with atomic_path(path) as temporary:
                frame.to_file(temporary, driver="GPKG", layer=LAYER, promote_to_multi=True)
                with closing(sqlite3.connect(temporary)) as base, base:
                    base.execute(f'CREATE UNIQUE INDEX "{LAYER}_by_name" ON "{LAYER}" (name)')
        except OutputError:
            raise
        except Exception as error:  # pyogrio has its own
            raise OutputError(f"{path}: cannot be written ({' '.join(str(error).split())}); check the disk") from error

    def values(self) -> dict[str, dict[str, Any]]:
        """All fields of all rows, by name.

        Raises:
            ResumeError: the file is no manifest, or is damaged.
        """
        try:
            with closing(self._connect()) as base:
                base.row_factory = sqlite3.Row
                rows = [dict(row) for row in base.execute(f'SELECT {", ".join(COLUMNS)} FROM "{LAYER}" ORDER BY fid')]
        except (sqlite3.Error, OSError, UnicodeError) as error:
            raise ResumeError(
                f"{self.path}: is no manifest of a batch ({error}); move it away: finished outputs are found again"
            ) from error
        for row in rows:
            for column, kind in COLUMNS.items():
                if not _fits(row[column], kind):
                    raise ResumeError(
                        f"{self.path}: is damaged ({column} = {repr(row[column])[:40]}); move it away: finished "
                        f"outputs are found again"
                    )
        return {str(row["name"]): row for row in rows}

    def set(self, name: str, **values: Any) -> None:
        """Note values of an area's row; they are written soon."""
        unknown = set(values) - set(COLUMNS)
        if unknown:
            raise KeyError(f"no such columns: {sorted(unknown)}")
        self._changes.setdefault(name, {}).update(values)

    def write_soon(self) -> None:
        """Write what was noted, unless something was written a moment ago or somebody holds the file."""
        if self._changes and time.monotonic() - self._written > _EVERY:
            self._try(_WAIT)

    def write(self) -> None:
        """Write what was noted, now.

        Raises:
            OutputError: it cannot be written.
        """
        deadline, error = time.monotonic() + _LAST_WAIT, self._try(_WAIT)
        while error is not None and "locked" in str(error) and time.monotonic() < deadline:
            error = self._try(_WAIT)
        if error is not None:
            raise OutputError(
                f"{self.path}: cannot be written ({error}); run the same command again: finished areas are found"
            ) from error

    def _try(self, wait: float) -> sqlite3.Error | None:
        """The error of an attempt to write, after which the changes are still noted."""
        if not self._changes:
            return None
        try:
            with closing(self._connect(wait)) as base, base:
                for name, values in self._changes.items():
                    fields = ", ".join(f"{key} = ?" for key in values)
                    base.execute(f'UPDATE "{LAYER}" SET {fields} WHERE name = ?', [*values.values(), name])
                base.execute("UPDATE gpkg_contents SET last_change = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
        except sqlite3.Error as error:
            return error
        finally:
            self._written = time.monotonic()
        self._changes.clear()
        return None

    def _connect(self, wait: float = _WAIT) -> sqlite3.Connection:
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        base = sqlite3.connect(self.path, timeout=wait)
        for function in _OF_TRIGGERS:
            base.create_function(function, 1, lambda geometry: None, deterministic=True)
        return base


def _fits(value: Any, kind: type) -> bool:
    return value is None or (isinstance(value, (int, float) if kind is float else kind) and value not in (inf, -inf))


def text_of_notes(notes: Sequence[str]) -> str:
    """Notes of a run as one field."""
    return "; ".join(notes)


def as_json(value: Any) -> str:
    """Stable JSON, as it is hashed."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def remove_leftovers(folder: Path) -> None:
    """What a killed writer of the manifest left."""
    for leftover in folder.glob(f".{FILE.removesuffix('.gpkg')}.tmp-*"):
        os.unlink(leftover)
