"""What the page on batches promises and no other file shows: end to end where that is cheap."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil

from geo_refdiff.batch import folder, jobs, work
from geo_refdiff.batch import run as module
from geo_refdiff.batch.catalogue import read_catalogue
from geo_refdiff.batch.run import batch, plan_batch
from geo_refdiff.cli.main import run as cli
from geo_refdiff.cli.progress import BatchMeter, RunMeter
from geo_refdiff.engine.run import Progress

from .conftest import EAST, NORTH, OPTIONS, PIXEL, Country, square, write_areas


def manifest(folder: Path) -> Any:
    return geopandas.read_file(folder / "manifest.gpkg", layer="areas").set_index("name")


def test_of_equal_scenes_the_one_with_least_nodata_is_on_top(
    country: Country, make_raster: Any, tmp_path: Path
) -> None:
    with rasterio.open(country.scenes / "west_20210503.tif") as dataset:
        whole, transform = dataset.read(), dataset.transform
    few, many = whole.copy(), whole.copy()
    many[:, 2:8, 2:8] = 0
    few[:, 8, 8] = 0
    (country.scenes / "west_20210503.tif").unlink()
    for name, values in (("a_20210503.tif", many), ("b_20210503.tif", few)):
        make_raster(f"scenes/{name}", values, transform=transform, names=("red", "green", "blue"), nodata=0)
    areas = write_areas(tmp_path / "one.gpkg", {"plain": square(2, 2, 8)})
    batch(areas, country.sources(), tmp_path / "out", options=OPTIONS)
    row = manifest(tmp_path / "out").loc["plain"]
    assert row["scene"] == "b_20210503.tif + a_20210503.tif"
    assert row["valid_percent"] == 100


def test_a_vrt_is_an_input_like_any_other(country: Country, tmp_path: Path) -> None:
    scene = country.scenes / "west_20210503.tif"
    rasterio.shutil.copy(str(scene), str(country.scenes / "copy_20220101.vrt"), driver="VRT")
    result = read_catalogue([country.scenes], "scene")
    assert {entry.name for entry in result} == {"copy_20220101.vrt", scene.name, "east_20210613.tif"}
    areas = write_areas(tmp_path / "one.gpkg", {"plain": square(2, 2, 8)})
    batch(areas, country.sources(), tmp_path / "out", options=OPTIONS)
    assert manifest(tmp_path / "out").loc["plain", "scene"] == "copy_20220101.vrt"
    batch(areas, country.sources(date="2021"), tmp_path / "older", options=OPTIONS)
    with rasterio.open(tmp_path / "out" / "plain.tif") as a, rasterio.open(tmp_path / "older" / "plain.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_ctrl_c_is_130_and_one_line(
    country: Country, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = module.run_here

    def stops(tasks: Any, watch: Any) -> Any:
        for done, outcome in enumerate(real(tasks, watch), 1):
            yield outcome
            if done == 2:
                raise KeyboardInterrupt

    command = ["batch", str(country.areas), "--scene", str(country.scenes), "--model", "bicubic", "--scale", "2"]
    command += ["--device", "cpu", "--products", "none", "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(module, "run_here", stops)
        assert cli(command) == 130
    reported = capsys.readouterr()
    assert reported.out == ""
    last = reported.err.splitlines()[-1]
    assert re.fullmatch(r"interrupted: 2 of 6 areas are done in .*; the same command continues", last)
    assert cli([*command, "--plan-only"]) == 1
    table = capsys.readouterr().out
    assert re.search(r"^plain +done +west_20210503\.tif +- +- +16 x 16 +1 +0\.0$", table, re.MULTILINE), table
    assert re.search(
        r"^3 of 6 areas would run: 0\.0 MPix, 3 blocks, 0\.0 MiB uncompressed, about 0\.0 MiB on disk, \d+ MiB of "
        r"memory a process, about \d+ s of one process by the speed so far$",
        table,
        re.MULTILINE,
    ), table
    assert cli(command) == 1
    assert "5 of 6 areas done" in capsys.readouterr().out


def test_the_model_is_opened_once_whatever_the_number_of_areas(
    country: Country, tiny_compact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = work.open_model, []

    def counting(name: Any, **more: Any) -> Any:
        opened.append(name)
        return real(name, **more)

    monkeypatch.setattr(work, "open_model", counting)
    monkeypatch.setattr(work, "_models", {})
    options = OPTIONS | {"model": str(tiny_compact), "scale": 8}
    areas = write_areas(tmp_path / "two.gpkg", {"plain": square(2, 2, 4), "seam": square(4, 16, 4)})
    assert batch(areas, country.sources(), tmp_path / "out", options=options).done == 2
    assert len(opened) == 2  # to plan with, and to work with


def test_options_are_those_of_upscale(
    country: Country, make_raster: Any, tiny_compact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Each that is not about one output; two of them in a run, with a file named as it is in this folder."""
    from geo_refdiff.cli.batch import batch as batch_command
    from geo_refdiff.cli.upscale import upscale as upscale_command

    known = {parameter.name for parameter in batch_command.params}
    only = {parameter.name for parameter in upscale_command.params} - known
    assert only == {"scene", "ref", "mask", "aoi", "scene_date", "resume", "keep"}
    monkeypatch.chdir(country.root)
    transform = rasterio.Affine(PIXEL, 0, EAST, 0, -PIXEL, NORTH)
    make_raster("mask.tif", np.eye(24, dtype="uint8")[None], transform=transform)
    sure = make_raster("sure.tif", np.full((1, 24, 24), 0.4, "float32"), transform=transform)
    areas = write_areas(tmp_path / "one.gpkg", {"plain": square(2, 2, 4)})
    command = ["batch", str(areas), "--scene", "scenes", "--mask", "mask.tif", "--mask-confidence", "sure.tif"]
    command += ["--uncertainty", "2", "--model", str(tiny_compact), "--scale", "8", "--device", "cpu", "--out", "out"]
    assert cli(command) == 0, capsys.readouterr().err
    assert (tmp_path / "out" / "plain.uncertainty.tif").stat().st_size > 0
    row = manifest(tmp_path / "out").loc["plain"]
    assert [Path(name) for name, *_ in json.loads(row["inputs"])][-1] == sure
    assert jobs.plain_options({"class_map": Path("sure.tif"), "mask_confidence": "/vsimem/x.tif"}) == {
        "class_map": str(sure),
        "mask_confidence": "/vsimem/x.tif",
    }
    asked, out = {"products": "none", "uncertainty": 2}, tmp_path / "out" / "plain.tif"
    assert folder.is_there(out, asked)
    (tmp_path / "out" / "plain.uncertainty.tif").unlink()
    assert not folder.is_there(out, asked)


def test_cost_counts_what_is_left(country: Country, tmp_path: Path) -> None:
    planned = plan_batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS | {"block_size": 16})
    sides = {"plain": 16, "round": 12, "seam": 20, "far_east": 18, "Größe_.._x": 12}
    assert {a.name: (a.width, a.height) for a in planned.areas if a.width} == {k: (v, v) for k, v in sides.items()}
    totals = planned.totals()
    assert totals["megapixels"] == round(sum(v * v for v in sides.values()) / 1e6, 3)
    assert totals["raw_mib"] == pytest.approx(sum(3 * v * v for v in sides.values()) / 2**20, abs=1e-3)
    assert totals["blocks"] == sum((-(-v // 16)) ** 2 for v in sides.values())
    assert totals["seconds"] is None


def test_without_a_terminal_there_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every ten seconds an area is done; areas under way and changes of a second show nothing."""
    now = 0.0
    monkeypatch.setattr("geo_refdiff.cli.progress.monotonic", lambda: now)
    with BatchMeter() as meter:
        meter.total(1, 0, 20)
        assert capsys.readouterr().err == "1 of 20 areas are done already, 0 failed\n"
        for over in range(2, 15):
            now += 10
            meter.started(f"area{over}", "host:1")
            meter.progress(f"area{over}", Progress("blocks", 0.5, 4))
            meter.total(over - 1, 1, 20)
        assert capsys.readouterr().err.splitlines() == [
            "7 of 20 areas, 1 failed (35%), 2 min 10 s left",
            "13 of 20 areas, 1 failed (65%), 1 min 10 s left",
        ]
    with RunMeter() as run:
        for block in range(13):
            run(Progress("blocks", block, 12))
            now += 10
        run(Progress("publish", 0, 12))
        assert capsys.readouterr().err.splitlines() == [
            "block 7 of 12 (50%), 1 min 00 s left",
            "block 12 of 12 (100%)",
        ]
