"""The manifest: a GeoPackage with one row an area, written while the batch runs and open to any reader meanwhile."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any

import shapely

from geo_refdiff.batch.areas import Area
from geo_refdiff.batch.gpkg import geometry_blob, know_geometries
from geo_refdiff.errors import OutputError, ResumeError
from geo_refdiff.raster.atomic import atomic_path, output_error
from geo_refdiff.raster.styles import write_field_style

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
    "inputs": str,
}
"""Fields of the layer; see docs/batch.md."""

_WAIT = 5.0
_LAST_WAIT = 60.0
_EVERY = 0.5
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file, and would play back into another one of the same name."""


class Manifest:
    """The manifest of a batch; one process writes it.

    Changes are collected and written twice a second, so that a reader that holds the file for a moment, as QGIS does,
    stops nobody.

    Args:
        path: of the GeoPackage; made by `bring`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changes: dict[str, dict[str, Any]] = {}
        self._written = time.monotonic()

    def bring(self, areas: Sequence[Area], outlines: Sequence[str], keep: Collection[str]) -> None:
        """Have one row an area, and no others; makes the file if there is none, whole or not at all.

        A file that is there is changed within one transaction and never replaced: others, as QGIS, may hold it with a
        write-ahead log beside it, which would be played back into whatever bears its name.

        Args:
            areas: one row each.
            outlines: SHA-256 of each area's text.
            keep: names of rows that stay as they are; those of all other areas are begun anew.

        Raises:
            OutputError: it cannot be written.
        """
        if not self.path.exists():
            self._create(areas, outlines)
            return
        names = {area.name for area in areas}
        fresh = [(a, o) for a, o in zip(areas, outlines, strict=True) if a.name not in keep]
        bounds = shapely.total_bounds([a.lonlat for a in areas]).tolist()

        def bring(base: sqlite3.Connection) -> None:
            there = base.execute(f'SELECT fid, name FROM "{LAYER}"').fetchall()
            gone = [(fid,) for fid, name in there if name not in names or name not in keep]
            base.executemany(f'DELETE FROM "{LAYER}" WHERE fid = ?', gone)
            base.executemany(
                f'INSERT INTO "{LAYER}" (geom, name, status, attempts, outline_sha256) VALUES (?, ?, ?, 0, ?)',
                [(geometry_blob(area.lonlat), area.name, "pending", outline) for area, outline in fresh],
            )
            base.execute("UPDATE gpkg_contents SET min_x = ?, min_y = ?, max_x = ?, max_y = ?", bounds)

        self._patiently(bring)

    def _create(self, areas: Sequence[Area], outlines: Sequence[str]) -> None:
        """Write the file, and beside it the style by which QGIS draws it."""
        import geopandas
        import pandas

        rows = [
            {"name": area.name, "status": "pending", "attempts": 0, "outline_sha256": outline}
            for area, outline in zip(areas, outlines, strict=True)
        ]
        table = pandas.DataFrame(rows, columns=list(COLUMNS))
        for column, kind in COLUMNS.items():
            dtype: Any = {str: object, float: "float64", int: "Int64"}[kind]
            table[column] = table[column].astype(dtype)
        frame = geopandas.GeoDataFrame(table, geometry=[shapely.force_2d(a.lonlat) for a in areas], crs="EPSG:4326")
        try:
            self._remove_beside()
            write_field_style(self.path.with_suffix(".qml"), "status", STATUS_COLOURS)
            with atomic_path(self.path) as temporary:
                frame.to_file(temporary, driver="GPKG", layer=LAYER, promote_to_multi=True)
                with closing(sqlite3.connect(temporary)) as base, base:
                    base.execute(f'CREATE UNIQUE INDEX "{LAYER}_by_name" ON "{LAYER}" (name)')
        except OutputError:
            raise
        except Exception as error:  # pyogrio has its own
            raise OutputError(
                f"{self.path}: cannot be written ({' '.join(str(error).split())}); check the disk"
            ) from error

    def remove(self) -> None:
        """Remove a file that is no manifest, or of another layout.

        Raises:
            OutputError: another program holds it.
        """
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT)) as base:
                base.execute("PRAGMA journal_mode = DELETE")  # refused as long as others hold a log beside it
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise OutputError(f"{self.path}: another program holds it; close it there, then try again") from error
        except sqlite3.DatabaseError:  # nothing that anybody could hold
            pass
        try:
            self.path.unlink(missing_ok=True)
            self._remove_beside()
        except OSError as error:
            raise output_error(self.path, error) from error

    def _remove_beside(self) -> None:
        for end in _BESIDE:
            self.path.with_name(f"{self.path.name}{end}").unlink(missing_ok=True)

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
        if self._changes and time.monotonic() - self._written > _EVERY and self._try(self._update) is None:
            self._changes.clear()

    def write(self) -> None:
        """Write what was noted, now.

        Raises:
            OutputError: it cannot be written.
        """
        if self._changes:
            self._patiently(self._update)
            self._changes.clear()

    def _update(self, base: sqlite3.Connection) -> None:
        for name, values in self._changes.items():
            fields = ", ".join(f"{key} = ?" for key in values)
            base.execute(f'UPDATE "{LAYER}" SET {fields} WHERE name = ?', [*values.values(), name])

    def _patiently(self, change: Callable[[sqlite3.Connection], None]) -> None:
        """Change the file, waiting for whoever holds it."""
        deadline, error = time.monotonic() + _LAST_WAIT, self._try(change)
        while error is not None and "locked" in str(error) and time.monotonic() < deadline:
            error = self._try(change)
        if error is not None:
            raise OutputError(
                f"{self.path}: cannot be written ({error}); run the same command again: finished areas are found"
            ) from error

    def _try(self, change: Callable[[sqlite3.Connection], None]) -> sqlite3.Error | None:
        """The error of an attempt to change the file, in one transaction."""
        try:
            with closing(self._connect()) as base, base:
                base.execute("BEGIN IMMEDIATE")
                change(base)
                base.execute("UPDATE gpkg_contents SET last_change = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')")
        except sqlite3.Error as error:
            return error
        finally:
            self._written = time.monotonic()
        return None

    def _connect(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: no such file")
        base = sqlite3.connect(self.path, timeout=_WAIT)
        know_geometries(base)
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
