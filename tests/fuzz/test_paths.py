"""A folder of a run that was tampered with: nothing outside of it is written, or read that was not asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geo_refdiff import upscale
from geo_refdiff.batch.work import open_batch_model
from geo_refdiff.engine.run import run_blocks
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.errors import GeoRefDiffError, InputError, OutputError, ResumeError
from geo_refdiff.plan.file import read_plan
from geo_refdiff.plan.layout import BlockLayout

OPTIONS: dict[str, Any] = {"model": "bicubic", "scale": 4, "block_size": 32, "device": "cpu"}


def everything(folder: Path, but: Path) -> dict[Path, tuple[int, bytes]]:
    """Contents and times of all files of a folder, but for one folder in it."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and but not in p.parents)
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def resume(job: Path, **more: Any) -> Path:
    return upscale(job / "scene.tif", ref=job / "ref.tif", out=job / "job.tif", resume=True, **(OPTIONS | more)).out


@pytest.fixture
def secret(job: Path) -> Path:
    """A raster beside the job that nobody asked for."""
    path = job / "elsewhere" / "secret.tif"
    path.parent.mkdir()
    shutil.copy(job / "scene.tif", path)
    return path


@pytest.mark.parametrize("role", ["scene", "reference"])
@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../../../etc/passwd", "elsewhere/secret.tif", "/vsicurl/http://127.0.0.1:9/x.tif", "\u0000"],
)
def test_resuming_believes_no_path_of_the_plan(job: Path, secret: Path, role: str, name: str) -> None:
    path = job / "job.tif.parts" / "plan.json"
    data = json.loads(path.read_text())
    data[role]["path"] = str(secret) if "secret" in name else name
    path.write_text(json.dumps(data))
    before = everything(job, path.parent)
    with pytest.raises(ResumeError, match=rf"{role}\.path: .* -> ") as caught:
        resume(job)
    assert "\n" not in str(caught.value)
    assert everything(job, path.parent) == before


def test_resumed_run_uses_what_was_planned_now(job: Path) -> None:
    path = job / "job.tif.parts" / "plan.json"
    data = json.loads(path.read_text())
    data["software"]["torch_threads"] = "3"
    path.write_text(json.dumps(data))
    upscale(job / "scene.tif", ref=job / "ref.tif", out=job / "job.tif", resume=True, keep=True, **OPTIONS)
    again = json.loads(path.read_text())
    assert again["software"]["torch_threads"] == "3"


@pytest.mark.parametrize("threads", ["-1", "1000000", "../x", 3])
def test_threads_of_a_plan_are_a_number_of_threads(job: Path, threads: Any) -> None:
    path = job / "job.tif.parts" / "plan.json"
    data = json.loads(path.read_text())
    data["software"]["torch_threads"] = threads
    path.write_text(json.dumps(data))
    with pytest.raises(ResumeError, match="damaged"):
        resume(job)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("blocks", "cols"), -3),
        (("blocks", "cols"), 10**9),
        (("blocks", "size"), 32.0),
        (("grid", "scale"), 4.0),
        (("grid", "scale"), True),
        (("grid", "crop", "row"), -1),
        (("grid", "crop", "width"), 10**6),
        (("windows",), {"size": 8, "stride": 0, "halo": 0, "overlap": 8}),
        (("bands", "scene"), [1, 2, 9]),
        (("scene", "transform"), [0, 0, 0, 0, 0, 0]),
        (("scene", "crs_wkt"), "../../etc"),
        (("sensor", "sigmas"), [1e9, 1, 1]),
        (("output", "dtype"), "object"),
        (("seed",), 1.5),
        (("grid", "extra"), "../x"),
    ],
)
def test_plan_that_does_not_hold_together_is_refused(job: Path, keys: tuple[str, ...], value: Any) -> None:
    path = job / "job.tif.parts" / "plan.json"
    data = json.loads(path.read_text())
    holder = data
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = value
    path.write_text(json.dumps(data))
    with pytest.raises(ResumeError, match="damaged") as caught:
        read_plan(path)
    assert "--overwrite" in str(caught.value)


def work(job: Path, index: int = 0) -> None:
    """Computes a block as a worker does."""
    workdir = Workdir(job / "job.tif.parts")
    plan = read_plan(workdir.plan)
    restorer = plan.restorer(open_batch_model(OPTIONS))
    run_blocks(plan, workdir, restorer, order=[index])


def linked(job: Path, name: str, target: Path) -> Path:
    """Puts a link in the place of something in the run's folder."""
    place = job / "job.tif.parts" / name
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    return place


def test_linked_folder_of_blocks_is_refused(job: Path, secret: Path) -> None:
    linked(job, "blocks", secret.parent)
    for call in (work, resume):
        with pytest.raises(OutputError, match="is a link, which is not followed"):
            call(job)
    assert list(secret.parent.iterdir()) == [secret]
    assert upscale(job / "scene.tif", out=job / "other.tif", **OPTIONS).out.exists()
    assert list(secret.parent.iterdir()) == [secret]


def test_linked_folder_of_the_run_is_refused(job: Path, secret: Path) -> None:
    parts = job / "job.tif.parts"
    parts.rename(secret.parent / "moved")
    parts.symlink_to(secret.parent / "moved")
    before = everything(job, parts)
    for call in (work, resume):
        with pytest.raises(OutputError, match="is a link"):
            call(job)
    assert everything(job, parts) == before


def test_linked_block_is_rewritten_by_workers_and_refused_by_the_client(job: Path, secret: Path) -> None:
    before = secret.read_bytes()
    block = linked(job, "blocks/r00000_c00000.tif", secret)
    with pytest.raises(OutputError, match="is a link"):
        resume(job)
    work(job)
    assert not block.is_symlink()
    assert secret.read_bytes() == before
    linked(job, "blocks/r00000_c00000.source.tif", secret)
    with pytest.raises(OutputError, match="is a link"):
        resume(job)


@pytest.mark.parametrize("name", ["lock", "workers"])
def test_linked_locks_are_refused(job: Path, name: str) -> None:
    target = job / "precious.txt"
    target.write_text("precious")
    linked(job, name, target)
    with pytest.raises(OutputError, match="is a link, which is not followed"):
        upscale(job / "scene.tif", out=job / "job.tif", overwrite=True, **OPTIONS)
    assert target.read_text() == "precious"


def test_linked_plan_is_not_written_through(job: Path) -> None:
    plan = job / "job.tif.parts" / "plan.json"
    target = job / "plan-elsewhere.json"
    plan.rename(target)
    before = target.read_bytes()
    plan.symlink_to(target)
    assert resume(job, keep=True).exists()
    assert not plan.is_symlink()
    assert target.read_bytes() == before


def test_nothing_valid_marks_no_file_elsewhere(make_raster: Callable[..., Path], tmp_path: Path) -> None:
    scene = make_raster("dark.tif", np.zeros((3, 8, 8), np.uint8), nodata=0)
    upscale(scene, out=tmp_path / "dark_out.tif", plan_only=True, **OPTIONS)
    target = tmp_path / "precious.txt"
    target.write_text("precious")
    stamp = target.stat().st_mtime_ns
    (tmp_path / "dark_out.tif.parts" / "blocks" / "r00000_c00000.empty").symlink_to(target)
    workdir = Workdir(tmp_path / "dark_out.tif.parts")
    with pytest.raises(OutputError, match="is a link"):
        workdir.blocks(BlockLayout(32, 1, 1)).mark_empty(0)
    (tmp_path / "none.empty").symlink_to(tmp_path / "made")
    assert target.stat().st_mtime_ns == stamp


def test_block_that_is_a_virtual_raster_is_not_read(job: Path, secret: Path) -> None:
    with rasterio.open(secret) as dataset:
        rasterio.shutil.copy(dataset, job / "job.tif.parts" / "blocks" / "r00000_c00000.tif", driver="VRT")
    with pytest.raises(InputError, match="is not a finished block"):
        resume(job)


def test_names_of_blocks_stay_in_their_folder() -> None:
    layout = BlockLayout(16, 3, 10**6)
    blocks = Workdir(Path("/x.parts")).blocks(layout)
    for index in (0, 10**6, 3 * 10**6 - 1):
        assert blocks.file(index).parent == Path("/x.parts/blocks")


def test_odd_files_among_blocks_are_no_blocks(job: Path) -> None:
    workdir = Workdir(job / "job.tif.parts")
    for name in ("r99999_c00000.tif", "r00000_c00000.tif.tmp", "r-0001_c00000.tif", "r00000_c٠٠٠٠٠.tif", "x.tif"):
        (workdir.path / "blocks" / name).touch()
    assert workdir.done(read_plan(workdir.plan).blocks) == set()
    (workdir.path / "blocks" / "r00001_c00002.tif").touch()
    (workdir.path / "blocks" / "r00000_c00001.empty").touch()
    layout = read_plan(workdir.plan).blocks
    assert workdir.done(layout) == {1, layout.cols + 2}
    assert workdir.blocks(layout).filled() == {layout.cols + 2}
    assert workdir.done(layout, [0, 1]) == {1}


def test_every_error_is_one_line_that_can_be_printed() -> None:
    assert str(GeoRefDiffError("a\nb\x1b[31m\ud800 ü")) == "a b\\x1b[31m\\ud800 ü"
    assert str(GeoRefDiffError("C:\\x y")) == "C:\\x y"
