"""A single scene on workers, each a process of its own, with the plain command: the bytes of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geo_refdiff import upscale
from geo_refdiff.batch.workers import block_runner
from geo_refdiff.cli.main import run as cli
from geo_refdiff.commands.upscale import Interrupted
from geo_refdiff.errors import WorkerError
from geo_refdiff.options import ClusterOptions
from geo_refdiff.raster.process import cores

from .conftest import PIXEL

pytest.importorskip("distributed", reason="needs dask: pip install 'geo-refdiff[dask]'")

PATIENCE = 150
_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


@pytest.fixture
def command(make_pair: Any, make_raster: Any, tiny_compact: Path, tmp_path: Path) -> list[str]:
    """A run of six blocks with a diffusion model, reference and mask, but its output; from the scene's folder."""
    make_pair(32, 48)
    mask = np.zeros((1, 256, 384), "uint8")
    mask[:, 100:180, 50:300] = 1
    make_raster("mask.tif", mask, pixel=PIXEL / 8)
    given = ["upscale", "scene.tif", "--ref", "ref.tif", "--mask", "mask.tif", "--model", str(tiny_compact.name)]
    return [*given, "--block-size", "128", "--device", "cpu", "--products", "source", "--coregister", "off"]


def geo_refdiff(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "geo_refdiff.cli.main", *arguments]
    return subprocess.run(
        program, cwd=folder, capture_output=True, text=True, env=_ENVIRONMENT, timeout=PATIENCE, check=False
    )


def test_workers_give_the_bytes_of_one_process(command: list[str], tmp_path: Path) -> None:
    one = geo_refdiff(*command, "--threads", "2", "-o", "one.tif", "--json", folder=tmp_path)
    assert one.returncode == 0, one.stderr
    two = geo_refdiff(*command, "--threads", "2", "-o", "two.tif", "--json", "--workers", "2", folder=tmp_path)
    assert two.returncode == 0, two.stderr
    reported = json.loads(two.stdout)
    assert reported["counts"]["blocks"] == 6
    assert reported["counts"]["windows"] >= json.loads(one.stdout)["counts"]["windows"] > 0
    for product in ("tif", "source.tif"):
        assert (tmp_path / f"one.{product}").read_bytes() == (tmp_path / f"two.{product}").read_bytes()
    assert not list(tmp_path.glob("*.parts"))
    count = cores()
    assert two.stderr.count(f"2 workers with 2 threads each share {count} cores") == (count < 4)


def test_shards_of_workers_on_a_cluster_that_is_there(
    command: list[str],
    write_scheduler_file: Callable[[Path, int], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    more = ["--threads", "1", "--shard-size", "256", "-o"]
    assert cli([*command, *more, "a/x.vrt"]) == 0
    write_scheduler_file(tmp_path / "scheduler.json", 2)
    assert cli([*command, *more, "b/x.vrt", "--scheduler-file", "scheduler.json"]) == 0, capsys.readouterr().err
    files = {p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.tif")}
    assert {str(p) for p in files} == {"x.shards/r00000_c00000.tif", "x.shards/r00000_c00001.tif", "x.source.tif"}
    for file in (*files, Path("x.vrt")):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_interrupted_and_resumed(command: list[str], tmp_path: Path) -> None:
    one = geo_refdiff(*command, "-o", "one.tif", folder=tmp_path)
    assert one.returncode == 0, one.stderr
    program = [sys.executable, "-m", "geo_refdiff.cli.main", *command, "-o", "two.tif", "--workers", "2"]
    with subprocess.Popen(
        program, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=_ENVIRONMENT, start_new_session=True
    ) as process:
        blocks, deadline = tmp_path / "two.tif.parts" / "blocks", time.monotonic() + PATIENCE
        while not list(blocks.glob("r*_c?????.tif")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: client and workers
        reported = process.communicate(timeout=PATIENCE)[1]
    if process.returncode == 0:
        pytest.skip("the run was done before Ctrl-C came")
    assert process.returncode == 130, reported
    *begun, stopped = reported.splitlines()
    assert all(line.startswith("note: ") or "megapixels in" in line for line in begun)
    assert "of 6 blocks are finished" in stopped
    actual = len(list(blocks.glob("r*_c?????.tif")))
    again = geo_refdiff(*command, "-o", "two.tif", "--workers", "2", "--resume", "--json", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["counts"]["blocks_resumed"] >= actual > 0
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()


def test_no_scheduler_costs_no_finished_block(make_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_refdiff.batch.cluster._CONNECT_TIMEOUT", 0.0)
    scene, _ = make_pair(16, 16)
    options: dict[str, Any] = {"model": "bicubic", "scale": 8, "block_size": 64, "device": "cpu"}
    expected = upscale(scene, out=tmp_path / "one.tif", **options).out.read_bytes()
    out = tmp_path / "two.tif"

    def stop(progress: Any) -> None:
        if progress.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="of 4 blocks are finished"):
        upscale(scene, out=out, progress=stop, **options)
    said: list[str] = []
    nobody = block_runner(ClusterOptions(scheduler="tcp://127.0.0.1:9"), options, said.append)
    with pytest.raises(WorkerError, match=r"the scheduler tcp://127.0.0.1:9 does not answer"):
        upscale(scene, out=out, resume=True, runner=nobody, **options)
    result = upscale(scene, out=out, resume=True, **options)
    assert result.counts["blocks_resumed"] >= 1
    assert out.read_bytes() == expected
    assert not said


def test_unfit_workers_are_an_error(make_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, _ = make_pair(16, 16)
    options: dict[str, Any] = {"model": "bicubic", "scale": 8, "block_size": 64, "device": "cpu"}
    said: list[str] = []
    runner = block_runner(ClusterOptions(workers=1), options, said.append)
    with monkeypatch.context() as patch:
        patch.setattr("geo_refdiff.batch.workers.same_software", lambda: {"numpy": "0.1"})
        with pytest.raises(WorkerError, match=r"instead of 0\.1; give all workers the same versions"):
            upscale(scene, out=tmp_path / "x.tif", runner=runner, **options)
    assert not (tmp_path / "x.tif").exists()
    assert upscale(scene, out=tmp_path / "x.tif", runner=runner, overwrite=True, **options).counts["blocks"] == 4
