"""The manifest: a GeoPackage with one row an area, written while the batch runs and open to any reader meanwhile."""

from __future__ import annotations

import os
import sqlite3
import struct
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import shapely
from shapely.geometry.base import BaseGeometry

from geo_refdiff.batch.areas import Area
from geo_refdiff.batch.folder import is_there, output_of
from geo_refdiff.batch.jobs import Stamp
from geo_refdiff.errors import OutputError, ResumeError
from geo_refdiff.raster.files import atomic_path, output_error
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.styles import write_field_style

LAYER = "areas"
FILE = "manifest.gpkg"
STATUS_COLOURS = {"done": (27, 120, 55), "failed": (215, 48, 31), "running": (43, 108, 176), "pending": (154, 154, 154)}
"""Red, green and blue, 0..255."""

_WAIT = 5.0
_LAST_WAIT = 60.0
_EVERY = 0.5
_BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file, and would play back into another one of the same name."""

_SHOWN = 6
_DTYPES: Mapping[Any, str] = {
    msgspec.inspect.StrType: "object",
    msgspec.inspect.FloatType: "float64",
    msgspec.inspect.IntType: "Int64",
}

Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]


class Figures(msgspec.Struct, kw_only=True):
    """What a finished output is like; None: not known.

    Attributes:
        megapixels, blocks: size of the output.
        valid_percent: of its pixels.
        scene_residual_rms, scene_residual_max: between the scene and the output as the sensor sees it, digital numbers.
        ref_correlation: of the reference with the scene, mean over bands.
        from_reference, generated, interpolated, cloudy: shares of the pixels by where their detail comes from, 0..1.
    """

    megapixels: Finite | None = None
    blocks: int | None = None
    valid_percent: Finite | None = None
    scene_residual_rms: Finite | None = None
    scene_residual_max: Finite | None = None
    ref_correlation: Finite | None = None
    from_reference: Finite | None = None
    generated: Finite | None = None
    interpolated: Finite | None = None
    cloudy: Finite | None = None


class Row(Figures, kw_only=True):
    """An area in the manifest; see docs/batch.md for the fields."""

    name: str
    status: str | None = None
    error: str | None = None
    scene: str | None = None
    scene_file: str | None = None
    reference: str | None = None
    mask: str | None = None
    scene_date: str | None = None
    ref_date: str | None = None
    covered: Finite | None = None
    output: str | None = None
    started: str | None = None
    finished: str | None = None
    seconds: Finite | None = None
    attempts: int | None = None
    worker: str | None = None
    notes: str | None = None
    outline_sha256: str | None = None
    inputs: str | None = None


COLUMNS = tuple(sorted(Row.__struct_fields__, key=lambda name: name in Figures.__struct_fields__))
"""Fields of the layer: what the area is, then what its output is like."""


class Manifest:
    """The manifest of a batch; one process writes it.

    Changes are collected and written twice a second, so that a reader that holds the file for a moment, as QGIS does,
    stops nobody.

    Args:
        path: of the GeoPackage; made by `sync_rows`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changes: dict[str, dict[str, Any]] = {}
        self._written = time.monotonic()

    def sync_rows(self, areas: Sequence[Area], keep: Collection[str]) -> None:
        """Have one row an area, and no others; makes the file if there is none, whole or not at all.

        A file that is there is changed within one transaction and never replaced: others, as QGIS, may hold it with a
        write-ahead log beside it, which would be played back into whatever bears its name.

        Args:
            areas: one row each.
            keep: names of rows that stay as they are; those of all other areas start over.

        Raises:
            OutputError: it cannot be written.
        """
        if not self.path.exists():
            self._create(areas)
            return
        names = {area.name for area in areas}
        bounds = shapely.total_bounds([a.lonlat for a in areas]).tolist()

        def sync(base: sqlite3.Connection) -> None:
            existing = base.execute(f'SELECT fid, name FROM "{LAYER}"').fetchall()
            obsolete = [(fid,) for fid, name in existing if name not in names or name not in keep]
            base.executemany(f'DELETE FROM "{LAYER}" WHERE fid = ?', obsolete)
            base.executemany(
                f'INSERT INTO "{LAYER}" (geom, name, status, attempts, outline_sha256) VALUES (?, ?, ?, 0, ?)',
                [(geometry_blob(a.lonlat), a.name, "pending", a.sha256) for a in areas if a.name not in keep],
            )
            base.execute("UPDATE gpkg_contents SET min_x = ?, min_y = ?, max_x = ?, max_y = ?", bounds)

        self._patiently(sync)

    def _create(self, areas: Sequence[Area]) -> None:
        """Write the file, and beside it the style by which QGIS draws it."""
        import geopandas
        import pandas

        rows = [Row(name=a.name, status="pending", attempts=0, outline_sha256=a.sha256) for a in areas]
        table = pandas.DataFrame([msgspec.structs.asdict(row) for row in rows], columns=list(COLUMNS))
        for field in msgspec.inspect.type_info(Row).fields:  # type: ignore[attr-defined]
            kinds = getattr(field.type, "types", (field.type,))
            table[field.name] = table[field.name].astype(next(_DTYPES[type(k)] for k in kinds if type(k) in _DTYPES))
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
            raise OutputError(f"{self.path}: cannot be written ({one_line(error)}); check the disk") from error

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

    def rows(self) -> dict[str, Row]:
        """All rows, by name.

        Raises:
            ResumeError: the file is no manifest, or is damaged.
        """
        try:
            with closing(self._connect()) as base:
                base.row_factory = sqlite3.Row
                raw = base.execute(f'SELECT {", ".join(COLUMNS)} FROM "{LAYER}" ORDER BY fid').fetchall()
        except (sqlite3.Error, OSError, UnicodeError) as error:
            raise ResumeError(
                f"{self.path}: is no manifest of a batch ({error}); move it away: finished outputs are recognised"
            ) from error
        rows = {}
        for number, values in enumerate(raw, 1):
            try:
                row = msgspec.convert(dict(values), Row)
            except msgspec.ValidationError as error:
                raise ResumeError(
                    f"{self.path}: is damaged, row {number} ({error}); move it away: finished outputs are recognised"
                ) from error
            rows[row.name] = row
        return rows

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
                f"{self.path}: cannot be written ({error}); run the same command again: finished areas are recognised"
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
        add_geometry_functions(base)
        return base


@dataclass(frozen=True)
class Opened:
    """A manifest for some areas, with what the batch that is there has done of them.

    Attributes:
        manifest: with a row for each area.
        todo: areas to be done.
        attempts: that were made at each area before.
        failed_before: failures that are kept as they are.
        notes: what deserves a look.
    """

    manifest: Manifest
    todo: list[Area]
    attempts: Mapping[str, int]
    failed_before: int
    notes: list[str]


def open_manifest(
    folder: Path, areas: Sequence[Area], options: Mapping[str, Any], *, retry_failed: bool, overwrite: bool
) -> Opened:
    """Open the manifest of a folder, or make it.

    Args:
        folder: held.
        areas: of the batch.
        options: of `upscale`.
        retry_failed: whether failures are to be done again.
        overwrite: nothing counts as done.

    Raises:
        ResumeError: what is there is no manifest, or an area of the same name had another outline.
        OutputError: it cannot be written.
    """
    for leftover in folder.glob(f".{FILE.removesuffix('.gpkg')}.tmp-*"):  # of a killed writer
        os.unlink(leftover)
    manifest, old = Manifest(folder / FILE), {}
    if manifest.path.exists():
        try:
            old = manifest.rows()
        except ResumeError:
            if not overwrite:
                raise
            manifest.remove()
    if overwrite:
        old = {}
    check_outlines(folder, areas, old)
    removed = len(set(old) - {area.name for area in areas})
    notes = (
        [f"{removed} areas of the batch before are not among the areas any more; their files stay"] if removed else []
    )
    if old.keys() != {area.name for area in areas}:
        manifest.sync_rows(areas, old)
    status = {area.name: status_of(old.get(area.name), folder, options, retry_failed=retry_failed) for area in areas}
    todo = [area for area in areas if status[area.name] == "pending"]
    for area in todo:
        if area.name in old and old[area.name].status != "pending":
            manifest.set(area.name, status="pending", error=None)
    manifest.write()
    return Opened(
        manifest,
        todo,
        {name: row.attempts or 0 for name, row in old.items()},
        sum(word == "failed" for word in status.values()),
        notes + _changed_since([old[name] for name, word in status.items() if word == "done"]),
    )


def status_of(row: Row | None, folder: Path, options: Mapping[str, Any], *, retry_failed: bool) -> str:
    """Whether an area is "done", has "failed" and is kept as it is, or is to be done: "pending"."""
    if row is not None and row.status == "done" and is_there(output_of(folder, row.name, options), options):
        return "done"
    return "failed" if row is not None and row.status == "failed" and not retry_failed else "pending"


def check_outlines(folder: Path, areas: Sequence[Area], old: Mapping[str, Row]) -> None:
    """Whether areas are those that the batch began with, as far as it had them.

    Raises:
        ResumeError: an area of the same name had another outline.
    """
    moved = [area.name for area in areas if area.name in old and old[area.name].outline_sha256 != area.sha256]
    if moved:
        raise ResumeError(
            f"{folder}: area '{moved[0]}'{f' and {len(moved) - 1} more' if len(moved) > 1 else ''} had another "
            f"outline when the batch began; choose another --out, or --overwrite to start over"
        )


def _changed_since(done: Iterable[Row]) -> list[str]:
    """A line for each file, of the first few, that was changed after areas were made of it; one that is gone does not
    count."""
    now: dict[str, Stamp | None] = {}
    changed: dict[str, list[str]] = {}
    for row in done:
        try:
            stamps = msgspec.json.decode(row.inputs or "[]", type=list[Stamp])
        except ValueError:
            continue
        for stamp in stamps:
            name = stamp[0]
            if name not in now:
                now[name] = _stamp(name)
            if now[name] not in (None, stamp):
                changed.setdefault(name, []).append(row.name)
    lines = [
        f"{name}: was changed after {areas[0]}{f' and {len(areas) - 1} more areas' if len(areas) > 1 else ''} "
        f"had been made of it; they stay as they are: remove their outputs to have them made again"
        for name, areas in list(changed.items())[:_SHOWN]
    ]
    more = len(changed) - _SHOWN
    return [*lines, f"{more} more inputs were changed after areas had been made of them"] if more > 0 else lines


def _stamp(name: str) -> Stamp | None:
    try:
        state = os.stat(name)
    except (OSError, ValueError):
        return None
    return name, state.st_size, state.st_mtime_ns


_ENVELOPE_BYTES = (0, 32, 48, 48, 64)
"""By the code in the flags."""


def geometry_blob(geometry: BaseGeometry, srs: int = 4326) -> bytes:
    """A polygon as a MultiPolygon in a GeoPackage's binary form, with its bounds; Z is dropped.

    Sources: OGC GeoPackage 1.3, clause 2.1.3.
    """
    flat = shapely.force_2d(geometry)
    parts = [part for part in shapely.get_parts(flat) if not part.is_empty]
    multi = shapely.MultiPolygon(parts)
    if not parts:
        return struct.pack("<2sBBi", b"GP", 0, 0b10001, srs) + bytes(shapely.to_wkb(multi, byte_order=1))
    xmin, ymin, xmax, ymax = multi.bounds
    head = struct.pack("<2sBBi4d", b"GP", 0, 0b00011, srs, xmin, xmax, ymin, ymax)
    return head + bytes(shapely.to_wkb(multi, byte_order=1))


def add_geometry_functions(base: sqlite3.Connection) -> None:
    """Give a connection the functions in the triggers of a spatial index; without them no row can be written."""
    for place, function in enumerate(("ST_MinX", "ST_MinY", "ST_MaxX", "ST_MaxY")):
        base.create_function(function, 1, _bound(place), deterministic=True)
    base.create_function("ST_IsEmpty", 1, lambda blob: None if blob is None else _parsed(blob).is_empty)


def _bound(place: int) -> Callable[[bytes | None], float | None]:
    return lambda blob: None if blob is None else float(_parsed(blob).bounds[place])


def _parsed(blob: bytes) -> BaseGeometry:
    return shapely.from_wkb(blob[8 + _ENVELOPE_BYTES[blob[3] >> 1 & 7] :])
