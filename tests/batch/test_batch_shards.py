"""Outputs of a batch as shards and VRTs: the same pixels and habits as single files, in one process and on workers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pystac
import pytest
import rasterio

from geo_refdiff.batch.run import BatchInterrupted, batch, plan_batch
from geo_refdiff.batch.workers import batch_runner
from geo_refdiff.cli.main import run as cli
from geo_refdiff.errors import ResumeError
from geo_refdiff.options import ClusterOptions

from .conftest import OPTIONS, Country, square, write_areas

PLAIN = OPTIONS | {"scale": 4, "block_size": 16}
SHARDED = PLAIN | {"shard_size": 32}
DONE = ("plain", "round", "seam", "far_east", "Größe_.._x")


def files_of(folder: Path) -> dict[str, bytes]:
    """Outputs with their shards, by name."""
    actual = [*folder.glob("*.vrt"), *folder.glob("*.shards/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(actual)}


def times_of(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in files_of(folder)}


def table(folder: Path) -> Any:
    return geopandas.read_file(folder / "manifest.gpkg", layer="areas").set_index("name")


@pytest.fixture
def sharded(country: Country, tmp_path: Path) -> Path:
    """A finished batch."""
    result = batch(country.areas, country.sources(), tmp_path / "out", options=SHARDED, threads=1)
    assert (result.done, result.failed) == (5, 1)
    return tmp_path / "out"


def test_shards_are_the_single_files_wherever_they_are_moved(country: Country, sharded: Path, tmp_path: Path) -> None:
    batch(country.areas, country.sources(), tmp_path / "one", options=PLAIN)
    rows = table(sharded)
    assert rows.loc[list(DONE), "output"].tolist() == [f"{name}.vrt" for name in DONE]
    single = table(tmp_path / "one")
    for column in ("status", "megapixels", "blocks", "valid_percent"):
        assert rows[column].equals(single[column]), column
    assert not list(sharded.glob("*.tif"))
    assert not list(sharded.glob("*.parts"))
    moved = shutil.move(sharded, tmp_path / "moved")
    for name in DONE:
        with rasterio.open(moved / f"{name}.vrt") as whole, rasterio.open(tmp_path / "one" / f"{name}.tif") as one:
            np.testing.assert_array_equal(whole.read(), one.read())
            np.testing.assert_array_equal(whole.dataset_mask(), one.dataset_mask())
            assert (whole.transform, whole.crs, whole.descriptions) == (one.transform, one.crs, one.descriptions)
        assert str(tmp_path) not in (moved / f"{name}.vrt").read_text()
    assert len(list((moved / "seam.shards").glob("r*.tif"))) == 4
    before = times_of(moved)
    assert batch(country.areas, country.sources(), moved, options=SHARDED).done == 5
    assert times_of(moved) == before


def test_rerun_does_what_is_missing_and_nothing_else(country: Country, sharded: Path) -> None:
    expected, before = files_of(sharded), times_of(sharded)
    again = batch(country.areas, country.sources(), sharded, options=SHARDED)
    assert (again.done, again.megapixels) == (5, 0.0)
    assert times_of(sharded) == before
    (sharded / "manifest.gpkg").unlink()
    assert batch(country.areas, country.sources(), sharded, options=SHARDED).done == 5
    assert times_of(sharded) == before
    assert table(sharded).loc["seam", "output"] == "seam.vrt"
    (sharded / "seam.shards" / "r00000_c00001.tif").unlink()
    (sharded / "plain.vrt").unlink()
    planned = plan_batch(country.areas, country.sources(), sharded, options=SHARDED)
    assert [a.name for a in planned.areas if a.status == "pending"] == ["plain", "seam"]
    batch(country.areas, country.sources(), sharded, options=SHARDED)
    assert files_of(sharded) == expected
    assert {name for name, when in times_of(sharded).items() if when != before[name]} == {
        name for name in before if name.startswith(("seam", "plain"))
    }
    assert table(sharded)["attempts"].to_dict() == dict.fromkeys(DONE, 1) | {"plain": 2, "seam": 2, "nowhere": 0}


def test_interrupted_in_the_midst_of_shards(
    country: Country, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geo_refdiff.engine import shards

    real, calls = shards.publish_cog, []

    def stops(*args: Any, **more: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "publish_cog", stops)
        with pytest.raises(BatchInterrupted, match="the same command continues"):
            batch(country.areas, country.sources(), tmp_path / "two", options=SHARDED, threads=1)
    assert list((tmp_path / "two").glob("*.vrt.parts"))
    assert batch(country.areas, country.sources(), tmp_path / "two", options=SHARDED).done == 5
    assert files_of(tmp_path / "two") == files_of(sharded)
    assert not list((tmp_path / "two").glob("*.parts"))


def test_failures_are_tried_again(country: Country, sharded: Path) -> None:
    names = list(country.names)
    assert batch(country.areas, country.sources(), sharded, options=SHARDED, retry_failed=True).failed == 1
    hidden = (country.scenes / "east_20210613.tif").rename(country.root / "east_20210613.tif")
    shutil.rmtree(sharded)
    result = batch(country.areas, country.sources(), sharded, options=SHARDED)
    assert [name for name, _ in result.errors] == [names[3], names[5]]
    hidden.rename(country.scenes / hidden.name)
    assert batch(country.areas, country.sources(), sharded, options=SHARDED).done == 4
    assert batch(country.areas, country.sources(), sharded, options=SHARDED, retry_failed=True).done == 5


def test_started_over_in_another_form(country: Country, sharded: Path) -> None:
    with pytest.raises(ResumeError, match=r"shard_size: 32 -> null; give the same, another --out, or --overwrite"):
        batch(country.areas, country.sources(), sharded, options=PLAIN)
    with pytest.raises(ResumeError, match="shard_size: 32 -> 64"):
        batch(country.areas, country.sources(), sharded, options=SHARDED | {"shard_size": 64})
    (sharded / "plain.shards" / "diary.txt").write_text("mine")
    result = batch(country.areas, country.sources(), sharded, options=PLAIN, overwrite=True)
    assert (result.done, sorted(name for name, _ in result.errors)) == (4, ["nowhere", "plain"])
    assert "diary.txt is there; move it away" in dict(result.errors)["plain"]
    assert (sharded / "plain.shards" / "diary.txt").read_text() == "mine"
    (sharded / "plain.shards" / "diary.txt").unlink()
    batch(country.areas, country.sources(), sharded, options=PLAIN, retry_failed=True)
    assert {p.name for p in sharded.glob("*.tif")} == {f"{name}.tif" for name in DONE}
    assert table(sharded).loc["seam", "output"] == "seam.tif"
    assert files_of(sharded) == {}
    assert not list(sharded.glob("*.shards"))
    batch(country.areas, country.sources(), sharded, options=SHARDED | {"shard_size": 64}, overwrite=True)
    assert not list(sharded.glob("*.tif"))
    assert {p.name for p in sharded.glob("*.vrt")} == {f"{name}.vrt" for name in DONE}


def test_collection_and_report(country: Country, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "report.html"
    options = SHARDED | {"products": "source,style,stac"}
    assert batch(country.areas, country.sources(), out, options=options, report=page).done == 5
    items = list(pystac.Collection.from_file(str(out / "collection.json")).get_items())
    assert [item.id for item in items] == list(DONE)
    for item in items:
        assert Path(item.assets["data"].get_absolute_href() or "").name == f"{item.id}.vrt"
        assert (out / f"{item.id}.source.tif").exists()
    assert list(geopandas.read_parquet(out / "items.parquet")["id"]) == list(DONE)
    text = page.read_text()
    assert "6 areas: 5 done, 1 failed" in text
    assert text.count("data:image/png;base64,") == 10


def test_workers_give_the_same_shards_split_or_not(
    start_cluster: Callable[[int], Any], country: Country, sharded: Path, tmp_path: Path
) -> None:
    address = start_cluster(2).scheduler_address
    for folder, split in (("two", 16), ("six", 1)):
        runner = batch_runner(ClusterOptions(scheduler=address), split)
        result = batch(country.areas, country.sources(), tmp_path / folder, options=SHARDED, runner=runner)
        assert result.done == 5
        assert files_of(tmp_path / folder) == files_of(sharded)
        workers = table(tmp_path / folder)["worker"].dropna()
        assert len(workers) == 5
        assert not list((tmp_path / folder).glob("*.parts"))


def test_the_command(country: Country, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    areas = write_areas(tmp_path / "few.gpkg", {"plain": square(2, 2, 8), "seam": square(4, 16, 10)})
    command = ["batch", str(areas), "--scene", str(country.scenes), "--model", "bicubic", "--scale", "4"]
    command += ["--device", "cpu", "--out", str(tmp_path / "out")]
    for size, reported in (("0", "a multiple of 2048, the block size"), ("100", "a multiple of 2048")):
        assert cli([*command, "--shard-size", size]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert reported in said
        assert not (tmp_path / "out").exists()
    sharding = ["--block-size", "16", "--shard-size", "32"]
    assert cli([*command, *sharding, "--plan-only"]) == 0
    assert "2 of 2 areas would run" in capsys.readouterr().out
    assert cli([*command, *sharding, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["done"] == 2
    assert sorted(p.name for p in (tmp_path / "out").glob("seam.*")) == [
        "seam.json", "seam.png", "seam.qml", "seam.shards", "seam.source.qml", "seam.source.tif",
        "seam.source.tif.aux.xml", "seam.vrt",
    ]  # fmt: skip
