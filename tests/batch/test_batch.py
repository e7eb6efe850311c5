"""The batch in one process: outputs, manifest, resuming, failures, refusals."""

from __future__ import annotations

import json
import pickle
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import msgspec
import numpy as np
import pandas
import pytest
import rasterio
import rasterio.warp
import shapely

from geo_refdiff import upscale
from geo_refdiff.batch import run as module
from geo_refdiff.batch.areas import read_areas
from geo_refdiff.batch.folder import held_folder
from geo_refdiff.batch.jobs import Job, Settings, stamps_of
from geo_refdiff.batch.manifest import Row
from geo_refdiff.batch.run import BatchInterrupted, Silent, batch, plan_batch
from geo_refdiff.batch.selection import Planner
from geo_refdiff.batch.work import same_software, work
from geo_refdiff.cli.main import run
from geo_refdiff.errors import BusyError, InputError, OutputError, ResumeError
from geo_refdiff.options import Sources

from .conftest import OPTIONS, Country, square, write_areas

DONE = ("plain", "round", "seam", "far_east", "Größe_.._x")


def table(folder: Path) -> Any:
    return geopandas.read_file(folder / "manifest.gpkg", layer="areas").set_index("name")


def pixels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.dataset_mask()


def test_every_area_gets_what_upscale_would_have_made(country: Country, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = batch(country.areas, country.sources(), out, options=OPTIONS)
    assert (result.areas, result.done, result.failed) == (6, 5, 1)
    assert not result.complete
    assert result.errors == (("nowhere", "no scene of 2 overlaps the area; give one that does"),)
    rows = table(out)
    assert list(rows.index) == list(country.names)
    assert rows.loc["nowhere", "status"] == "failed"
    assert "overlaps" in rows.loc["nowhere", "error"]
    assert set(rows.loc[list(DONE), "status"]) == {"done"}
    assert rows.loc["plain", "scene"] == "west_20210503.tif"
    assert rows.loc["far_east", "scene"] == "east_20210613.tif"
    assert rows.loc["seam", "scene"] == "west_20210503.tif + east_20210613.tif"
    assert rows.loc["far_east", "scene_date"] == "2021-06-13"
    assert rows.loc["plain", "output"] == "plain.tif"
    assert rows.loc["round", "valid_percent"] < 90
    assert rows.crs.to_epsg() == 4326
    assert rows.geometry["plain"].area > 0
    scene = country.scenes / "west_20210503.tif"
    frame = geopandas.read_file(country.areas)
    frame[frame["name"] == "round"].to_file(tmp_path / "one.gpkg", layer="one")
    alone = upscale(scene, out=tmp_path / "alone.tif", aoi=str(tmp_path / "one.gpkg"), **OPTIONS).out
    for one, other in zip(pixels(alone), pixels(out / "round.tif"), strict=True):
        np.testing.assert_array_equal(one, other)
    values, valid = pixels(out / "seam.tif")
    assert values.shape[1:] == (20, 20)
    assert valid.all()
    assert not list(out.glob("*.parts"))


def test_work_begins_before_all_is_planned(country: Country, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing inputs may take long, over a network: work begins, and continues, in between."""
    log: list[str] = []
    real, work_here = Planner.plan, module.run_here

    def slow(self: Planner, *given: Any) -> Any:
        time.sleep(0.3)
        log.append("planned")
        return real(self, *given)

    def noting(tasks: Any, watch: Any) -> Any:
        for outcome in work_here(tasks, watch):
            log.append("done")
            yield outcome

    monkeypatch.setattr(Planner, "plan", slow)
    batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS, runner=noting)
    assert log.index("done") <= 2
    assert (log.count("planned"), log.count("done")) == (6, 5)


def test_scenes_that_do_not_fit_are_reported_and_not_counted(country: Country, tmp_path: Path) -> None:
    """The eastern scene in other units: the manifest names what is used, and says what is not, after the run, too."""
    with rasterio.open(country.scenes / "east_20210613.tif", "r+") as dataset:
        dataset.scales = (1e-4,) * 3
    out = tmp_path / "out"
    batch(country.areas, country.sources(), out, options=OPTIONS)
    row = table(out).loc["seam"]
    assert row["status"] == "done"
    assert row["scene"] == "west_20210503.tif"
    assert row["covered"] == pytest.approx(0.8, abs=0.01)
    assert pixels(out / "seam.tif")[0].shape[1:] == (20, 16)
    assert "left out under scene west_20210503.tif: east_20210613.tif (scale 0.0001 instead of 1.0)" in row["notes"]
    assert "scenes cover 80.0% of the area" in row["notes"]


def test_an_area_that_holds_no_pixel_fails(country: Country, tmp_path: Path) -> None:
    """Neither done and empty, nor found out only after a run."""
    areas = write_areas(tmp_path / "small.gpkg", {"plain": square(2, 2, 8), "tiny": square(3.1, 3.1, 0.1)})
    planned = plan_batch(areas, country.sources(), tmp_path / "out", options=OPTIONS)
    assert [a.status for a in planned.areas] == ["pending", "impossible"]
    result = batch(areas, country.sources(), tmp_path / "out", options=OPTIONS)
    ((name, error),) = result.errors
    assert name == "tiny"
    assert "no pixel centre of the output is inside" in error
    assert not (tmp_path / "out" / "tiny.tif").exists()


def test_scenes_by_the_names_of_gdals_drivers(
    country: Country, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second image of a TIFF, by its name and in an index; the first one is elsewhere."""
    pages = tmp_path / "pages_20210503.tif"
    for scene, more in (
        (country.scenes / "east_20210613.tif", {}),
        (country.scenes / "west_20210503.tif", {"append_subdataset": True}),
    ):
        with rasterio.open(scene) as source, rasterio.open(pages, "w", **source.profile, **more) as page:
            page.write(source.read())
    areas = write_areas(tmp_path / "one.gpkg", {"plain": square(2, 2, 8)})
    monkeypatch.chdir(tmp_path)
    name = "GTIFF_DIR:2:pages_20210503.tif"
    (tmp_path / "index.csv").write_text(f"path\n{name}\n")
    batch(areas, country.sources(), tmp_path / "plain", options=OPTIONS)
    for source in (name, "index.csv"):
        out = tmp_path / f"by {source[:5]}"
        assert batch(areas, Sources([source]), out, options=OPTIONS).done == 1
        np.testing.assert_array_equal(pixels(out / "plain.tif")[0], pixels(tmp_path / "plain" / "plain.tif")[0])
        assert table(out).loc["plain", ["scene", "scene_date"]].tolist() == ["pages_20210503.tif", "2021-05-03"]


def test_the_time_of_day_of_an_index_is_that_of_the_output(country: Country, tmp_path: Path) -> None:
    areas = write_areas(tmp_path / "one.gpkg", {"plain": square(2, 2, 8)})
    scene = country.scenes / "west_20210503.tif"
    frame = geopandas.GeoDataFrame({"path": [str(scene)]}, geometry=[square(0, 0, 24)], crs="EPSG:26914")
    frame["datetime"] = pandas.Timestamp("2021-05-03T10:30:21", tz="UTC")
    frame.to_file(tmp_path / "index.gpkg")
    (tmp_path / "index.csv").write_text(f"path,datetime\n{scene},2021-05-03T05:30:21-05:00\n")
    with rasterio.open(scene) as dataset:
        ground = shapely.geometry.mapping(
            shapely.box(*rasterio.warp.transform_bounds(dataset.crs, 4326, *dataset.bounds))
        )
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "x",
        "geometry": ground,
        "bbox": [0, 0, 1, 1],
        "links": [],
    }
    item |= {"properties": {"datetime": "2021-05-03T10:30:21Z"}, "assets": {"data": {"href": str(scene)}}}
    (tmp_path / "item.json").write_text(json.dumps(item))
    for index in ("index.gpkg", "index.csv", "item.json"):
        out = tmp_path / f"by {index}"
        batch(areas, Sources([tmp_path / index]), out, options=OPTIONS | {"products": "stac"})
        reported = json.loads((out / "plain.json").read_text())["properties"]
        assert (reported["datetime"], reported["geo_refdiff:datetime_from"]) == ("2021-05-03T10:30:21Z", "given")
        assert table(out).loc["plain", "scene_date"] == "2021-05-03"


def test_what_runs_have_made_is_no_scene(country: Country, tmp_path: Path) -> None:
    """The outputs lie among the scenes: of this batch, of another one in shards, of a run of its own with its maps."""
    sources = country.sources()
    before = plan_batch(country.areas, sources, tmp_path / "none", options=OPTIONS)
    out = country.scenes / "out"
    first = batch(country.areas, sources, out, options=OPTIONS)
    assert list((out / "batch" / "mosaics").glob("*.vrt"))
    shards = OPTIONS | {"block_size": 16, "shard_size": 16}
    batch(country.areas, sources, country.scenes / "deep" / "other", options=shards)
    made = OPTIONS | {"products": "all", "model": "matched-ref", "mask": "none"}
    scene = country.scenes / "west_20210503.tif"
    upscale(scene, ref=scene, out=country.scenes / "sharp_20250101.tif", **made)
    upscale(scene, out=country.scenes / "sharp_20250102.vrt", **shards)
    assert {".vrt", ".shards", ".png"} <= {p.suffix for p in country.scenes.iterdir()}
    said = Silent()
    second = batch(country.areas, sources, out, options=OPTIONS, overwrite=True, listener=said)
    assert first.done == second.done == 5
    (line,) = said.messages
    assert line.startswith(f"left out: {country.scenes}: 3 outputs of runs, such as {country.scenes}/sharp_20250101.s")
    after = plan_batch(country.areas, sources, tmp_path / "none", options=OPTIONS)
    assert [replace(area, seconds=None) for area in after.areas] == list(before.areas)  # the time is known by now
    named = country.scenes / "sharp_20250101.tif"
    planned = plan_batch(country.areas, Sources([named]), tmp_path / "none", options=OPTIONS)
    assert planned.areas[0].scene == "sharp_20250101.tif"
    with pytest.raises(InputError, match="out: holds the outputs of a batch; name those that are meant"):
        plan_batch(country.areas, Sources([out]), tmp_path / "none", options=OPTIONS)


@pytest.fixture
def partial(country: Country, make_raster: Any, make_texture: Any, tmp_path: Path) -> Country:
    """Of two areas one has references and a mask of its own."""
    values = np.round(20 + 200 * make_texture((3, 96, 48), seed=3)).astype("uint8")
    for name in ("old_2014.tif", "ref_2018.tif"):
        make_raster(f"references/{name}", values, pixel=10.0, names=("red", "green", "blue"))
    (tmp_path / "masks").mkdir()
    make_raster("masks/changes.tif", np.zeros((1, 96, 48), "uint8"), pixel=10.0)
    areas = write_areas(tmp_path / "two.gpkg", {"west": square(2, 2, 8), "east": square(2, 30, 8)})
    return replace(country, areas=areas, names=("west", "east"))


def test_an_archive_may_be_partial(partial: Country, tmp_path: Path) -> None:
    """An area without a reference or a mask of its own is done without; the manifest and the plan say why."""
    sources = partial.sources(references=[partial.references], masks=[tmp_path / "masks"])
    options = OPTIONS | {
        "no_change": 0,
        "min_confidence": 0.6,
        "mask_confidence": str(tmp_path / "masks" / "changes.tif"),
    }
    planned = plan_batch(partial.areas, sources, tmp_path / "out", options=options)
    missing = "no reference of 2 overlaps the area: none is used; no mask of 1 overlaps the area: none is used"
    assert [(a.status, a.reference, a.mask, a.notes) for a in planned.areas] == [
        ("pending", "ref_2018.tif", "changes.tif", ""),
        ("pending", "", "", missing),
    ]
    assert f"east: {missing}" in str(planned)
    result = batch(partial.areas, sources, tmp_path / "out", options=options)
    assert result.done == 2, result.errors
    rows = table(tmp_path / "out")
    assert rows.loc["west", ["reference", "ref_date", "mask"]].tolist() == ["ref_2018.tif", "2018", "changes.tif"]
    assert rows.loc["east", ["reference", "ref_date", "mask"]].isna().all()
    assert rows.loc["east", "notes"].startswith(missing)
    alone = upscale(
        partial.scenes / "east_20210613.tif", aoi=read_areas(partial.areas)[1].text, out=tmp_path / "x.tif", **OPTIONS
    )
    for one, other in zip(pixels(alone.out), pixels(tmp_path / "out" / "east.tif"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_pairing_of_bands_is_printed_once(partial: Country, tmp_path: Path) -> None:
    """Of three areas two have a reference: one pairing, in the text and for programs, of the plan and of the run."""
    shapes = {"west": square(2, 2, 8), "too": square(3, 3, 8), "east": square(2, 30, 8)}
    areas = write_areas(tmp_path / "three.gpkg", shapes)
    sources = partial.sources(references=[partial.references])
    planned = plan_batch(areas, sources, tmp_path / "out", options=OPTIONS)
    result = batch(areas, sources, tmp_path / "out", options=OPTIONS)
    assert result.done == 3, result.errors
    (pairing,) = result.bands
    references = [pair.split(" <- ")[1].split(" (")[0] for pair in pairing.split("; ")]
    assert references == ["ref band 1", "ref band 2", "ref band 3"]
    assert [area.bands for area in planned.areas] == [pairing, pairing, ""]
    for shown in (planned, result):
        assert shown.to_dict()["bands"] == [pairing]
        assert str(shown).count(f"bands: {pairing}") == 1


def test_without_a_reference_nothing_is_compared(partial: Country, tmp_path: Path) -> None:
    sources = partial.sources(references=[partial.references], masks=["auto"])
    result = batch(partial.areas, sources, tmp_path / "out", options=OPTIONS | {"min_confidence": 0.6})
    assert result.done == 2, result.errors
    rows = table(tmp_path / "out")
    assert rows["mask"].fillna("-").tolist() == ["auto", "-"]
    assert "without a reference no change can be looked for" in rows.loc["east", "notes"]


def test_dates_may_exclude_all_references(partial: Country, tmp_path: Path) -> None:
    sources = partial.sources(references=[partial.references], ref_before="2014")
    result = batch(partial.areas, sources, tmp_path / "out", options=OPTIONS)
    assert result.done == 2, result.errors
    reported = "no reference of the dates asked for overlaps the area (2014, 2018): none is used"
    assert reported in table(tmp_path / "out").loc["west", "notes"]


def test_a_model_that_needs_a_reference_fails_where_there_is_none(partial: Country, tmp_path: Path) -> None:
    sources, options = partial.sources(references=[partial.references]), OPTIONS | {"model": "matched-ref"}
    reported = (
        "matched-ref needs a reference, but no reference of 2 overlaps the area; give one, or use --model bicubic-ibp"
    )
    planned = plan_batch(partial.areas, sources, tmp_path / "out", options=options)
    assert [a.error for a in planned.areas] == ["", reported]
    assert batch(partial.areas, sources, tmp_path / "out", options=options).errors == (("east", reported),)


def test_one_area_never_stops_a_plan(country: Country, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.Planner.plan

    def plan(self: Any, area: Any, settings: Any) -> Any:
        if area.name == "round":
            raise RuntimeError("of a library")
        return real(self, area, settings)

    monkeypatch.setattr(module.Planner, "plan", plan)
    planned = plan_batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS)
    errors = {a.name: a.error for a in planned.areas if a.status == "impossible"}
    assert errors == {"round": "unexpected RuntimeError: of a library", "nowhere": planned.areas[-1].error}
    result = batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS)
    assert dict(result.errors) == errors


def test_rerun_goes_on_and_retries_only_if_asked(country: Country, tmp_path: Path) -> None:
    out = tmp_path / "out"
    real, seen = module.run_here, []

    def stops(tasks: Any, watch: Any) -> Any:
        for task in list(tasks):  # all planned at once
            if len(seen) == 2:
                raise KeyboardInterrupt
            seen.append(task.name)
            yield from real([task], watch)

    with pytest.raises(BatchInterrupted, match=r"2 of 6 areas are done .* the same command continues"):
        batch(country.areas, country.sources(), out, options=OPTIONS, runner=stops)
    rows = table(out)
    assert sorted(rows["status"]) == ["done", "done", "failed", "pending", "pending", "pending"]
    times = {name: (out / f"{name}.tif").stat().st_mtime_ns for name in seen}
    result = batch(country.areas, country.sources(), out, options=OPTIONS)
    assert (result.done, result.failed, result.failed_before) == (5, 1, 1)
    assert {name: (out / f"{name}.tif").stat().st_mtime_ns for name in seen} == times
    assert result.errors == ()
    again = batch(country.areas, country.sources(), out, options=OPTIONS, retry_failed=True)
    assert [name for name, _ in again.errors] == ["nowhere"]
    (out / "plain.tif").unlink()
    batch(country.areas, country.sources(), out, options=OPTIONS)
    assert (out / "plain.tif").exists()
    assert table(out)["attempts"].to_dict()["plain"] == 2


def test_lost_manifest_finds_finished_outputs(country: Country, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch(country.areas, country.sources(), out, options=OPTIONS)
    times = {f.name: f.stat().st_mtime_ns for f in out.glob("*.tif")}
    (out / "manifest.gpkg").unlink()
    assert batch(country.areas, country.sources(), out, options=OPTIONS).done == 5
    assert {f.name: f.stat().st_mtime_ns for f in out.glob("*.tif")} == times
    (out / "manifest.gpkg").write_text("nonsense")
    with pytest.raises(ResumeError, match="is no manifest of a batch"):
        batch(country.areas, country.sources(), out, options=OPTIONS)


def test_other_settings_are_refused_by_name(country: Country, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch(country.areas, country.sources(), out, options=OPTIONS)
    with pytest.raises(ResumeError, match=r"scale: 2 -> 4; give the same, another --out, or --overwrite"):
        batch(country.areas, country.sources(), out, options=OPTIONS | {"scale": 4})
    with pytest.raises(ResumeError, match=r'date: null -> "2021"'):
        batch(country.areas, country.sources(date="2021"), out, options=OPTIONS)
    moved = write_areas(tmp_path / "moved.gpkg", {"plain": square(1, 1, 5)})
    with pytest.raises(ResumeError, match="area 'plain' had another outline"):
        batch(moved, country.sources(), out, options=OPTIONS)
    result = batch(country.areas, country.sources(), out, options=OPTIONS | {"scale": 4}, overwrite=True)
    assert result.done == 5
    assert pixels(out / "plain.tif")[0].shape[1:] == (32, 32)


def test_new_areas_join_and_gone_ones_are_reported(country: Country, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch(country.areas, country.sources(), out, options=OPTIONS)
    frame = geopandas.read_file(country.areas)
    kept = frame[frame["name"].isin(["plain", "seam"])]
    new = geopandas.GeoDataFrame({"name": ["fresh"]}, geometry=[square(3, 3, 4)], crs="EPSG:26914").to_crs(frame.crs)
    import pandas

    pandas.concat([kept, new]).to_file(tmp_path / "next.gpkg", layer="areas")
    before = (out / "plain.tif").stat().st_mtime_ns
    result = batch(tmp_path / "next.gpkg", country.sources(), out, options=OPTIONS)
    assert (result.areas, result.done) == (3, 3)
    assert result.notes[0].startswith("4 areas of the batch before")
    assert (out / "plain.tif").stat().st_mtime_ns == before


def test_damaged_input_fails_its_own_areas_only(country: Country, tmp_path: Path) -> None:
    rows = ["path,date,west,south,east,north"]
    for path in sorted(country.scenes.iterdir()):
        with rasterio.open(path) as dataset:
            box = rasterio.warp.transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
        rows.append(",".join([str(path), "", *map(str, box)]))
    (tmp_path / "index.csv").write_text("\n".join(rows))
    (country.scenes / "east_20210613.tif").write_bytes(b"II*\0 cut short")
    indexed = Sources([tmp_path / "index.csv"])
    result = batch(country.areas, indexed, tmp_path / "one", options=OPTIONS)
    failed = dict(result.errors)
    assert "east_20210613.tif" in failed["far_east"]
    assert result.done == 3
    watch = Silent()
    result = batch(country.areas, country.sources(), tmp_path / "two", options=OPTIONS, listener=watch)
    assert "left out: " in watch.messages[0]
    assert "east_20210613.tif: cannot be opened" in watch.messages[0]
    assert dict(result.errors)["far_east"].startswith("no scene of 1 overlaps")
    assert result.done == 4


def test_second_client_is_refused(country: Country, tmp_path: Path) -> None:
    import os
    import socket

    out = tmp_path / "out"
    with (
        held_folder(out),
        pytest.raises(BusyError, match=rf"another run holds it \(process {os.getpid()} on {socket.gethostname()}\)"),
    ):
        batch(country.areas, country.sources(), out, options=OPTIONS)


def test_foreign_folder_is_left_alone(country: Country, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("42")
    with pytest.raises(OutputError, match="holds other files"):
        batch(country.areas, country.sources(), tmp_path / "mine", options=OPTIONS)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_plan_only_says_what_would_run(country: Country, tmp_path: Path) -> None:
    planned = plan_batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS)
    assert not (tmp_path / "out").exists()
    assert [a.status for a in planned.areas] == ["pending"] * 5 + ["impossible"]
    assert (planned.areas[0].width, planned.areas[0].height) == (16, 16)
    assert planned.totals()["pending"] == 5
    assert "nowhere: no scene of 2 overlaps" in str(planned)
    batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS)
    later = plan_batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS)
    assert [a.status for a in later.areas] == ["done"] * 5 + ["impossible"]


def test_manifest_is_readable_and_may_be_held_meanwhile(country: Country, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[dict[str, str]] = []

    def peeks(tasks: Any, watch: Any) -> Any:
        from geo_refdiff.batch.run import run_here

        for number, outcome in enumerate(run_here(tasks, watch)):
            yield outcome
            yield None
            if number == 1:
                reader = sqlite3.connect(out / "manifest.gpkg")
                reader.execute("PRAGMA journal_mode=WAL")  # as QGIS does
                seen.append(dict(reader.execute("SELECT name, status FROM areas").fetchall()))
                reader.close()

    batch(country.areas, country.sources(), out, options=OPTIONS, runner=peeks)
    assert len(seen[0]) == 6
    assert set(table(out)["status"]) == {"done", "failed"}


def test_command_says_all_and_exits_by_success(
    country: Country, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", f"{country.areas}|layername=areas", "--scene", str(country.scenes), "--model", "bicubic"]
    command += ["--scale", "2", "--device", "cpu", "--products", "none", "--out", str(tmp_path / "out")]
    assert run([*command, "--plan-only"]) == 1
    assert "5 of 6 areas would run" in capsys.readouterr().out
    assert run([*command, "--json"]) == 1
    reported = capsys.readouterr()
    assert json.loads(reported.out)["done"] == 5
    lines = reported.err.splitlines()
    assert "[6/6]" in reported.err
    assert any(line.endswith("nowhere failed: no scene of 2 overlaps the area; give one that does") for line in lines)
    assert sum(" done in " in line for line in lines) == 5
    few = write_areas(tmp_path / "few.gpkg", {"plain": square(2, 2, 8)})
    assert run(["batch", str(few), *command[2:-1], str(tmp_path / "other")]) == 0
    assert "1 of 1 areas done, 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (["--date", "soon"], 2, "--date 'soon': give a date"),
        (["--ref", "gone.tif"], 1, "gone.tif: no such file"),
        (["--mask", "auto", "--mask", "x.tif"], 2, "mask 'auto' and others"),
        (["--name-field", "town"], 2, "has no field 'town'"),
        (["--model", "unheard-of"], 1, "unknown model"),
        (["--workers", "0"], 2, "workers 0: give 1 or more"),
        (["--workers", "1", "--scheduler", "tcp://x:1"], 2, "give one of --workers"),
        (["--resource", "GPU=1"], 2, "--resource needs workers"),
        (["--workers", "1", "--resource", "GPU=0"], 2, "resource 'GPU=0': give NAME=NUMBER"),
        (["--workers", "1", "--worker-wait", "-1"], 2, "worker wait -1: give minutes, 0 or more"),
        (["--workers", "1", "--split", "-1"], 2, "split -1: give a whole number, 0 or more"),
        (["--threads", "0"], 2, "threads 0"),
        (["--device", "tpu"], 2, "device 'tpu'"),
    ],
)
def test_bad_options_are_one_line(
    country: Country, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, text: str
) -> None:
    command = ["batch", str(country.areas), "--scene", str(country.scenes), "--out", str(tmp_path / "out")]
    assert run([*command, *(["--model", "bicubic"] if "--model" not in more else []), *more]) == code
    reported = capsys.readouterr()
    assert reported.err.count("\n") == 1
    assert text in reported.err
    assert not (tmp_path / "out").exists()


def test_jobs_stay_inside_the_folder_of_their_batch(country: Country, tmp_path: Path) -> None:
    """Whatever a worker is sent; and one that does not see the folder writes nowhere."""
    out, scene = tmp_path / "out", str(country.scenes / "west_20210503.tif")
    settings = Settings(OPTIONS, {}, "", 1, same_software())
    area = "EPSG:26914;" + square(2, 2, 8).wkt
    job = Job(str(out), settings, "plain", area, scene, None, None, stamps_of([scene]))
    unseen = work(job)
    assert (unseen.name, unseen.kind) == ("plain", "worker")
    assert "out: cannot be seen here; all workers need the output folder" in unseen.error
    assert not out.exists()
    (out / "batch").mkdir(parents=True)
    (out / "batch" / "batch.json").touch()
    evil = work(msgspec.structs.replace(job, name="../evil"))
    assert (evil.kind, "no name of an area" in evil.error) == ("area", True)
    assert not (tmp_path / "evil.tif").exists()
    assert work(pickle.loads(pickle.dumps(job))).kind == "done"
    assert (out / "plain.tif").exists()


def test_tampered_settings_and_manifest_stay_inside(country: Country, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch(country.areas, country.sources(), out, options=OPTIONS)
    with sqlite3.connect(out / "manifest.gpkg") as base:
        for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
            base.create_function(name, 1, lambda g: None)
        base.execute("UPDATE areas SET output = '../../evil.tif', status = 'weird' WHERE name = 'plain'")
    base.close()
    batch(country.areas, country.sources(), out, options=OPTIONS)
    assert table(out).loc["plain", ["output", "status"]].tolist() == ["plain.tif", "done"]
    settings = out / "batch" / "batch.json"
    settings.write_text(settings.read_text().replace('"threads"', '"thread"').replace('"rules"', '"rule"'))
    with pytest.raises(ResumeError, match=r"json: is damaged \(.*unknown field `rule`.*\); start over with --over"):
        batch(country.areas, country.sources(), out, options=OPTIONS)
    settings.write_text('{"version": 0}')
    with pytest.raises(ResumeError, match="format version: 0 -> 1; give the same, another --out, or --overwrite"):
        batch(country.areas, country.sources(), out, options=OPTIONS)


def test_inputs_that_change_are_reported(country: Country, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        batch(tmp_path / "none.gpkg", country.sources(), tmp_path / "out", options=OPTIONS)


def test_a_report_replaces_reports_only(country: Country, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "report.html"
    page.write_text("<html>mine</html>")
    options = OPTIONS | {"model": "bicubic", "products": "none"}
    with pytest.raises(OutputError, match=r"report.html: is no report of a batch; choose another name or say --overw"):
        batch(country.areas, country.sources(), out, options=options, report=page)
    assert page.read_text() == "<html>mine</html>"
    assert not out.exists()
    with pytest.raises(OutputError, match="it is a folder; choose a file name"):
        batch(country.areas, country.sources(), out, options=options, report=tmp_path)
    batch(country.areas, country.sources(), out, options=options, report=page, overwrite=True)
    first = page.read_text()
    batch(country.areas, country.sources(), out, options=options, report=page)
    assert page.read_text() == first != "<html>mine</html>"


def test_collection_and_report_of_what_is_done(country: Country, tmp_path: Path) -> None:
    import xml.etree.ElementTree as ET

    import pystac
    import pystac.validation

    out, page = tmp_path / "out", tmp_path / "report.html"
    options = OPTIONS | {"model": "bicubic-ibp", "products": "stac"}
    result = batch(country.areas, country.sources(), out, options=options, report=page)
    assert result.done == 5
    collection = pystac.Collection.from_file(str(out / "collection.json"))
    collection.validate()
    items = list(collection.get_items())
    assert [item.id for item in items] == list(DONE)
    for item in items:
        pystac.validation.validate_dict(item.to_dict() | {"stac_extensions": []})  # the core's schemas: no network
        assert Path(item.assets["data"].get_absolute_href() or "").exists()
        assert item.get_collection() is collection
        day = "2021-06-13" if item.id == "far_east" else "2021-05-03"
        assert item.to_dict()["properties"]["datetime"] == f"{day}T00:00:00Z"
    frame = geopandas.read_parquet(out / "items.parquet")
    assert list(frame["id"]) == list(DONE)
    assert frame.geometry.iloc[0].equals_exact(shapely.geometry.shape(items[0].geometry), 1e-9)
    text = page.read_text()
    assert "http" not in text.replace("http://www.w3.org", "")
    assert "6 areas: 5 done, 1 failed" in text
    assert text.count("data:image/png;base64,") == 10
    svg = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    reported = [path.find("title") for path in svg]
    assert [t.text for t in reported if t is not None] == [f"{name}: done" for name in DONE]
    assert "Beyond the map, which shows where areas are done: nowhere (failed)<" in text
    assert "no scene of 2 overlaps the area" in text
    item = json.loads((out / "plain.json").read_text())
    year = ["2021-01-01T00:00:00Z", "2021-12-31T23:59:59Z"]
    item["properties"] |= {"datetime": year[0], "start_datetime": year[0], "end_datetime": year[1]}
    (out / "plain.json").write_text(json.dumps(item))
    again = batch(country.areas, country.sources(), out, options=options)
    assert again.done == 5
    assert len(list(pystac.Collection.from_file(str(out / "collection.json")).get_items())) == 5
    assert json.loads((out / "collection.json").read_text())["extent"]["temporal"]["interval"] == [year]


def test_report_of_areas_with_heights_is_small(country: Country, make_raster: Any, tmp_path: Path) -> None:
    """Areas with Z; one of 400 scene pixels, whose pictures are reduced."""
    import base64
    import io
    import re

    from PIL import Image

    from geo_refdiff.batch.report import write_report

    wide = make_raster("wide.tif", np.tile(np.arange(400, dtype="uint8") % 200, (1, 300, 1)), pixel=10.0)
    out = upscale(wide, out=tmp_path / "wide_out.tif", model="bicubic", scale=2, device="cpu").out
    outline = shapely.force_3d(shapely.box(7.0, 50.0, 7.1, 50.1), 300.0)
    row = Row(name="wide", status="done", scene_file=str(wide))
    write_report(tmp_path / "page.html", "Wide", {"wide": row}, {"wide": outline}, {"wide": out})
    text = (tmp_path / "page.html").read_text()
    assert 'id="map"' in text
    pictures = [Image.open(io.BytesIO(base64.b64decode(p))) for p in re.findall(r"base64,([^\"]+)\"", text)]
    assert [p.size for p in pictures] == [(320, 240), (320, 240)]
    before, after = (np.asarray(p.convert("L"), dtype=float) for p in pictures)
    assert np.abs(before - after).mean() < 8


def test_report_never_costs_the_work(country: Country, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for page, reported in (
        (tmp_path / "no" / "r.html", "does not exist; create it first"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(OutputError, match=reported):
            batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS, report=page)
    assert not (tmp_path / "out").exists()

    def fails(*given: Any) -> None:
        raise ZeroDivisionError("no picture")

    monkeypatch.setattr("geo_refdiff.batch.report.write_report", fails)
    page = tmp_path / "out" / "report.html"
    result = batch(country.areas, country.sources(), tmp_path / "out", options=OPTIONS, report=page)
    assert result.done == 5
    assert result.notes == ("no report: unexpected ZeroDivisionError: no picture",)


@pytest.mark.parametrize("workers", [None, 1])
def test_long_runs_keep_memory_and_open_files(tmp_path: Path, workers: int | None) -> None:
    """In one process; with a worker, this process is client and scheduler."""
    from benchmarks.batch import run_batch

    clock = run_batch(tmp_path, 45, 8, "bicubic", workers)
    assert len(clock.times) == 45
    more = clock.handles[-1] - clock.handles[10]
    assert more == 0 if workers is None else more <= 4  # a cluster's connections come and go
    assert np.mean(clock.resident[-15:]) < 1.05 * np.mean(clock.resident[10:25])
