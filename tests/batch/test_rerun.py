"""What a rerun believes of the run before it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from geo_refdiff.batch.manifest import add_geometry_functions
from geo_refdiff.batch.run import batch, plan_batch
from geo_refdiff.cli.main import run as cli
from geo_refdiff.errors import OutputError, ResumeError
from geo_refdiff.options import Sources

from .conftest import OPTIONS, Country, square, write_areas


@pytest.fixture
def one(country: Country) -> Path:
    """A single area."""
    return write_areas(country.root / "one.gpkg", {"plain": square(2, 2, 8)})


def attempts(folder: Path) -> list[int]:
    import geopandas

    return list(geopandas.read_file(folder / "manifest.gpkg", layer="areas")["attempts"])


def test_other_sources_are_refused_by_name_but_files_may_join(
    country: Country, one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    batch(one, country.sources(masks=["none"]), out, options=OPTIONS)
    west = country.scenes / "west_20210503.tif"
    for other, output in (
        (country.sources(masks=["auto"]), r'mask: \["none"\] -> \["auto"\]'),
        (country.sources(masks=["none"], references=[west]), r'ref: \[\] -> \["/[^"]*west_20210503\.tif"\]'),
        (Sources([west], masks=["none"]), r'scene: \["[^"]*scenes"\] -> \["[^"]*west_20210503\.tif"\]'),
        (country.sources(masks=["none"], scene_asset="red"), r'scene_asset: null -> "red"'),
    ):
        with pytest.raises(ResumeError, match=output):
            batch(one, other, out, options=OPTIONS)
    shutil.copy(west, country.scenes / "again_20210504.tif")
    monkeypatch.chdir(country.root)
    assert batch(one, Sources(["scenes"], masks=["none"]), out, options=OPTIONS).notes == ()
    assert attempts(out) == [1]


@pytest.mark.parametrize("name", ["plain.tif", "plain.json", "plain.source.tif", "plain.qml", "plain.png"])
@pytest.mark.parametrize("left", [None, b""])
def test_a_missing_or_empty_file_is_made_again(
    country: Country, one: Path, tmp_path: Path, name: str, left: bytes | None
) -> None:
    out = tmp_path / "out"
    options = OPTIONS | {"products": "all"}
    batch(one, country.sources(), out, options=options)
    collection, good = (out / "collection.json").read_bytes(), (out / name).read_bytes()
    if left is None:
        (out / name).unlink()
    else:
        (out / name).write_bytes(left)
    assert batch(one, country.sources(), out, options=options).complete
    assert attempts(out) == [2]
    if name != "plain.json":  # which tells when it was made
        assert (out / name).read_bytes() == good
    assert (out / "collection.json").read_bytes() == collection
    batch(one, country.sources(), out, options=options)
    assert attempts(out) == [2]


def test_plan_only_is_a_dry_run_of_the_same_command(
    country: Country, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    named = {"plain": square(2, 2, 8), "seam": square(4, 16, 10), "broken": square(3, 3, 5)}
    areas = write_areas(tmp_path / "three.gpkg", named)
    command = ["batch", str(areas), "--scene", str(country.scenes), "--out", str(out), "--model", "bicubic"]
    command += ["--device", "cpu", "--products", "none", "--scale"]
    assert cli([*command, "2"]) == 0
    capsys.readouterr()
    with sqlite3.connect(out / "manifest.gpkg") as base:
        add_geometry_functions(base)
        base.execute("UPDATE areas SET status = 'failed' WHERE name = 'broken'")
    base.close()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    command.insert(-1, "--plan-only")
    for more, would_run in ((["2"], 0), (["2", "--retry-failed"], 1), (["2", "--overwrite"], 3)):
        assert cli([*command, *more]) == 0
        assert f"{would_run} of 3 areas would run" in capsys.readouterr().out
    for more, output in (
        (["4"], "scale: 2 -> 4; give the same, another --out, or --overwrite to start over"),
        (["2", "--mask", "none"], 'mask: [] -> ["none"]'),
        (["2", "--workers", "1", "--resource", "GPU=0"], "resource 'GPU=0': give NAME=NUMBER"),
    ):
        assert cli([*command, *more]) != 0
        assert output in capsys.readouterr().err
    assert cli([*command, "4", "--overwrite"]) == 0
    moved = write_areas(tmp_path / "moved.gpkg", {"plain": square(1, 1, 5)})
    assert cli(["batch", str(moved), *command[2:], "2"]) == 1
    assert "area 'plain' had another outline" in capsys.readouterr().err
    with pytest.raises(OutputError, match="holds other files"):
        plan_batch(areas, country.sources(), country.scenes, options=OPTIONS)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_empty_shard_is_made_again(country: Country, one: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = OPTIONS | {"shard_size": 16, "block_size": 16}
    batch(one, country.sources(), out, options=options)
    (shard,) = (out / "plain.shards").glob("r*.tif")
    good = shard.read_bytes()
    shard.write_bytes(b"")
    assert batch(one, country.sources(), out, options=options).complete
    assert shard.read_bytes() == good


def test_a_changed_input_is_reported_and_made_of_again_only_if_asked(
    country: Country, one: Path, tmp_path: Path
) -> None:
    out, scene = tmp_path / "out", country.scenes / "west_20210503.tif"
    batch(one, country.sources(), out, options=OPTIONS)
    assert batch(one, country.sources(), out, options=OPTIONS).notes == ()
    os.utime(scene, ns=(1, 1))
    notes = batch(one, country.sources(), out, options=OPTIONS).notes
    assert notes == (
        f"{scene}: was changed after plain had been made of it; they stay as they are: remove their outputs to have "
        f"them made again",
    )
    assert attempts(out) == [1]
    (out / "plain.tif").unlink()
    assert batch(one, country.sources(), out, options=OPTIONS).notes == ()
    assert batch(one, country.sources(), out, options=OPTIONS).notes == ()
    assert attempts(out) == [2]
    scene.unlink()
    shutil.copy(country.scenes / "east_20210613.tif", country.scenes / "later.tif")
    assert batch(one, country.sources(), out, options=OPTIONS).notes == ()


def test_sources_are_kept_as_they_were_named(country: Country, one: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(country.root)
    batch(one, Sources(["scenes"]), tmp_path / "out", options=OPTIONS)
    rules = json.loads((tmp_path / "out" / "batch" / "batch.json").read_text())["rules"]
    assert rules["scene"] == [str(country.scenes)]
    assert (rules["ref"], rules["mask"], rules["ref_asset"]) == ([], [], None)
