"""The manifest while others hold it open: changed in place, never replaced under them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import geopandas
import pytest
import shapely

from geo_refdiff.batch import manifest as module
from geo_refdiff.batch.areas import Area
from geo_refdiff.batch.manifest import Manifest, add_geometry_functions, open_manifest
from geo_refdiff.errors import OutputError

CORNERS = {"one": (10.0, 50.0), "two": (11.0, 51.0), "three": (12.0, 49.0)}


def areas(*names: str) -> list[Area]:
    result = []
    for name in names:
        west, south = CORNERS[name]
        polygon = shapely.box(west, south, west + 0.5, south + 0.5)
        result.append(Area(name, f"EPSG:4326;{polygon.wkt}", polygon))
    return result


def opened(folder: Path, *names: str, overwrite: bool = False) -> tuple[Manifest, list[str]]:
    result = open_manifest(folder, areas(*names), {}, retry_failed=False, overwrite=overwrite)
    return result.manifest, [area.name for area in result.todo]


@contextmanager
def held_with_frames(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection, as QGIS has it in edit mode: a write-ahead log with something in it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        add_geometry_functions(base)
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA wal_autocheckpoint = 0")
        base.execute("UPDATE areas SET notes = coalesce(notes, '') || 'seen' WHERE name = 'one'")
        assert path.with_name(f"{path.name}-wal").stat().st_size > 0
        yield base


def check(path: Path, *names: str) -> None:
    """Whole, also in what is kept beside the rows: the spatial index, the count and the extent."""
    with closing(sqlite3.connect(path)) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert base.execute("SELECT feature_count FROM gpkg_ogr_contents").fetchall() == [(len(names),)]
        extent = base.execute("SELECT min_x, min_y, max_x, max_y FROM gpkg_contents").fetchone()
    frame = geopandas.read_file(path, layer="areas")
    assert sorted(frame["name"]) == sorted(names)
    assert extent == tuple(frame.total_bounds)
    for name, (west, south) in CORNERS.items():
        result = geopandas.read_file(path, layer="areas", bbox=(west + 0.1, south + 0.1, west + 0.2, south + 0.2))
        assert list(result["name"]) == ([name] if name in names else [])
        assert all(result.geometry.geom_type == "MultiPolygon")


@pytest.mark.parametrize("overwrite", [False, True])
def test_rows_change_under_a_program_that_holds_the_file(tmp_path: Path, overwrite: bool) -> None:
    manifest, _ = opened(tmp_path, "one")
    manifest.set("one", status="failed", error="x")
    manifest.write()
    file = manifest.path.stat().st_ino
    with held_with_frames(manifest.path) as other:
        manifest, todo = opened(tmp_path, "one", "two", "three", overwrite=overwrite)
        assert todo == (["one", "two", "three"] if overwrite else ["two", "three"])
        assert manifest.path.stat().st_ino == file
        assert other.execute("SELECT count(*) FROM areas").fetchone() == (3,)
        manifest.set("two", status="done")
        manifest.write()
    check(manifest.path, "one", "two", "three")
    rows = manifest.rows()
    assert {name: row.status for name, row in rows.items()} == {
        "one": "pending" if overwrite else "failed",
        "two": "done",
        "three": "pending",
    }
    assert rows["one"].notes == (None if overwrite else "seen")
    with held_with_frames(manifest.path):
        opened(tmp_path, "three", "one")
    check(manifest.path, "one", "three")


def test_a_log_without_its_file_is_not_played_back(tmp_path: Path) -> None:
    manifest, _ = opened(tmp_path, "one")
    with held_with_frames(manifest.path):
        log = manifest.path.with_name("manifest.gpkg-wal").read_bytes()
    manifest.path.unlink()
    manifest.path.with_name("manifest.gpkg-wal").write_bytes(log)
    opened(tmp_path, "two", "three")
    check(manifest.path, "two", "three")


def test_waiting_for_a_held_file_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT", 0.05)
    monkeypatch.setattr(module, "_LAST_WAIT", 0.1)
    manifest, _ = opened(tmp_path, "one")
    with closing(sqlite3.connect(manifest.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutputError, match=r"manifest\.gpkg: cannot be written \(database is locked\)"):
            opened(tmp_path, "one", "two")
    opened(tmp_path, "one", "two")
    check(manifest.path, "one", "two")


def test_overwrite_replaces_what_is_no_manifest_unless_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT", 0.05)
    path = tmp_path / "manifest.gpkg"
    path.write_text("nonsense")
    opened(tmp_path, "one", overwrite=True)
    check(path, "one")
    os.unlink(path)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE areas (name)")
        with pytest.raises(OutputError, match="another program holds it; close it there"):
            opened(tmp_path, "one", overwrite=True)
    opened(tmp_path, "one", overwrite=True)
    check(path, "one")
