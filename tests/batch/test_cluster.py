"""A batch on dask: a real scheduler and real workers, each a process of its own, and what befalls them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest

from geo_refdiff import upscale
from geo_refdiff.batch.cluster import Cluster as Workers
from geo_refdiff.batch.jobs import Settings
from geo_refdiff.batch.run import Silent, batch
from geo_refdiff.batch.work import same_software
from geo_refdiff.batch.workers import ClusterBlocks, batch_runner, work_blocks
from geo_refdiff.cli.main import run as cli
from geo_refdiff.options import ClusterOptions
from geo_refdiff.plan.file import read_plan

from .conftest import OPTIONS, Country, square, write_areas

pytest.importorskip("distributed", reason="needs dask: pip install 'geo-refdiff[dask]'")

PATIENCE = 120
SLOW = OPTIONS | {"model": "bicubic-ibp", "window": 160, "block_size": 32, "scale": 4}
"""Several blocks an area."""

_ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "DASK_DISTRIBUTED__WORKER__LIFETIME__RESTART": "False",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
}


class Cluster:
    """A scheduler and workers, started with dask's own command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        port = ["--port", str(self.port)]
        self.scheduler = self._start("dask_scheduler", *port, "--no-dashboard", "--scheduler-file", str(file))
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        self.port = int(json.loads(file.read_text())["address"].rsplit(":", 1)[1])

    def start_worker(self, *more: str, preload: str = "", **environment: str) -> subprocess.Popen[bytes]:
        """A worker without a nanny, maybe with some code run in it first."""
        arguments = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--memory-limit", "0"]
        if preload:
            file = self.folder / f"preload_{len(self.processes)}.py"
            file.write_text(textwrap.dedent(preload))
            arguments += ["--preload", str(file)]
        return self._start("dask_worker", self.address, *arguments, *more, **environment)

    def _start(self, module: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
        log = (self.folder / f"log_{len(self.processes)}.txt").open("wb")
        process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=_ENVIRONMENT | environment)
        log.close()
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    started = Cluster(tmp_path / "cluster")
    started.start_scheduler()
    yield started
    started.stop()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.glob("*.tif"))}


@pytest.fixture
def expected(country: Country, tmp_path: Path) -> dict[str, bytes]:
    """Outputs of the same batch in one process, into a folder whose name is as long."""
    batch(country.areas, country.sources(), tmp_path / "one", options=SLOW, threads=1)
    return bytes_of(tmp_path / "one")


def in_background(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    actual: list[Any] = []

    def call() -> None:
        actual.append(function())

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread, actual


HANGS_ONCE = """
    import os, time
    from geo_refdiff.engine import writer
    def hanging(real):
        def write_block(path, *rest):
            flag = os.environ["HANG_FLAG"]
            if str(path).endswith("r00001_c00000.tif") and not os.path.exists(flag):
                with open(flag + ".new", "w") as stream:
                    stream.write(str(path))
                os.rename(flag + ".new", flag)
                time.sleep(600)
            return real(path, *rest)
        return write_block
    writer.write_block = hanging(writer.write_block)
"""


def test_killed_worker_loses_nothing(
    country: Country, tmp_path: Path, cluster: Cluster, expected: dict[str, bytes]
) -> None:
    flag = tmp_path / "hanging"
    victim = cluster.start_worker(preload=HANGS_ONCE, HANG_FLAG=str(flag))
    runner = batch_runner(ClusterOptions(scheduler=cluster.address))
    thread, actual = in_background(
        lambda: batch(country.areas, country.sources(), tmp_path / "two", options=SLOW, runner=runner)
    )
    wait_for(flag.exists)
    part = Path(flag.read_text()).parents[1]
    wait_for(lambda: any((part / "blocks").glob("r00000*.tif")))
    victim.send_signal(signal.SIGKILL)
    cluster.start_worker()
    thread.join(PATIENCE)
    assert actual[0].done == 5
    assert bytes_of(tmp_path / "two") == expected
    assert not list((tmp_path / "two").glob("*.parts"))
    rows = geopandas.read_file(tmp_path / "two" / "manifest.gpkg").set_index("name")
    assert rows.loc[part.name.removesuffix(".tif.parts"), "attempts"] == 2
    assert rows["attempts"].sum() == 6


def test_scheduler_restarted(country: Country, tmp_path: Path, cluster: Cluster, expected: dict[str, bytes]) -> None:
    flag, watch = tmp_path / "hanging", Silent()
    cluster.start_worker(preload=HANGS_ONCE, HANG_FLAG=str(flag))
    runner = batch_runner(ClusterOptions(scheduler=cluster.address))
    thread, actual = in_background(
        lambda: batch(country.areas, country.sources(), tmp_path / "two", options=SLOW, runner=runner, listener=watch)
    )
    wait_for(flag.exists)
    for process in cluster.processes:
        process.kill()
        process.wait()
    cluster.start_scheduler()
    cluster.start_worker()
    thread.join(PATIENCE)
    assert actual[0].done == 5
    assert "the scheduler is gone; waiting for it to come back" in watch.messages
    assert bytes_of(tmp_path / "two") == expected


def test_a_scheduler_keeps_nothing_of_areas_that_are_done(country: Country, tmp_path: Path, cluster: Cluster) -> None:
    import distributed

    def kept(dask_scheduler: Any) -> tuple[set[str], int, int]:
        return set(dask_scheduler.task_prefixes), len(dask_scheduler.tasks), len(dask_scheduler.task_groups)

    cluster.start_worker()
    runner = batch_runner(ClusterOptions(scheduler=cluster.address))
    with distributed.Client(cluster.address, set_as_default=False) as client:
        before = client.run_on_scheduler(kept)
        done = batch(country.areas, country.sources(), tmp_path / "two", options=OPTIONS, runner=runner)
        assert done.done == 5
        wait_for(lambda: client.run_on_scheduler(kept)[1:] == before[1:])
        assert client.run_on_scheduler(kept)[0] - before[0] == {"geo-refdiff"}


CANNOT_READ = """
    import os
    def blind(real):
        def stat(path, *rest, **named):
            if "/scenes/" in str(path):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            return real(path, *rest, **named)
        return stat
    os.stat = blind(os.stat)
"""
DISK_FULL = """
    import errno
    from pathlib import Path
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")
    Path.write_bytes = full
"""


@pytest.mark.parametrize(("preload", "output"), [(CANNOT_READ, "No such file"), (DISK_FULL, "the disk is full")])
def test_unfit_worker_is_left_out(
    country: Country, tmp_path: Path, cluster: Cluster, expected: dict[str, bytes], preload: str, output: str
) -> None:
    watch = Silent()
    cluster.start_worker(preload=preload)
    cluster.start_worker()
    with Workers(ClusterOptions(scheduler=cluster.address), watch.message) as pool:
        wait_for(lambda: pool.threads == 2)
    runner = batch_runner(ClusterOptions(scheduler_file=str(cluster.folder / "scheduler.json")))
    result = batch(country.areas, country.sources(), tmp_path / "two", options=SLOW, runner=runner, listener=watch)
    assert result.done == 5
    assert any(output in line and "another one tries" in line for line in watch.messages)
    assert bytes_of(tmp_path / "two") == expected


def test_only_unfit_workers_is_a_failure_that_can_be_retried(
    country: Country, tmp_path: Path, cluster: Cluster
) -> None:
    cluster.start_worker(preload=CANNOT_READ)
    runner = batch_runner(ClusterOptions(scheduler=cluster.address))
    result = batch(country.areas, country.sources(), tmp_path / "two", options=SLOW, runner=runner)
    assert result.failed == 6
    assert "all workers need the same inputs" in dict(result.errors)["plain"]
    again = batch(country.areas, country.sources(), tmp_path / "two", options=SLOW, retry_failed=True)
    assert again.done == 5


def test_tasks_go_to_workers_that_have_what_they_need(
    country: Country, tmp_path: Path, cluster: Cluster, expected: dict[str, bytes]
) -> None:
    watch = Silent()
    cluster.start_worker(preload=CANNOT_READ)
    cluster.start_worker("--resources", "GPU=1")
    with Workers(ClusterOptions(scheduler=cluster.address), watch.message) as pool:
        wait_for(lambda: pool.threads == 2)
    runner = batch_runner(ClusterOptions(scheduler=cluster.address, resources=("GPU=1",)))
    result = batch(country.areas, country.sources(), tmp_path / "two", options=SLOW, runner=runner, listener=watch)
    assert result.done == 5
    assert not any("another one tries" in line for line in watch.messages)
    assert bytes_of(tmp_path / "two") == expected


def test_missing_resources_are_reported_and_waited_for(
    country: Country, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geo_refdiff.batch.cluster._NOTICE_AFTER", 0.5)
    watch = Silent()
    runner = batch_runner(ClusterOptions(scheduler=cluster.address, resources=("GPU=1",)))
    thread, actual = in_background(
        lambda: batch(
            country.areas, country.sources(), tmp_path / "two", options=OPTIONS, runner=runner, listener=watch
        )
    )
    wait_for(lambda: bool(watch.messages))
    assert watch.messages == [
        f"the cluster has no workers (dask worker {cluster.address} --nthreads 1); waiting for one, up to 60 min"
    ]
    cluster.start_worker()
    time.sleep(3)
    cluster.start_worker("--resources", "GPU=1", preload=CANNOT_READ)
    cluster.start_worker("--resources", "GPU=2 DISK=10")
    thread.join(PATIENCE)
    assert actual[0].done == 5
    assert len(watch.messages) == 1 + sum("another one tries" in line or "left out" in line for line in watch.messages)


def test_resources_that_nobody_offers_end_in_one_line(
    country: Country, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("geo_refdiff.batch.cluster._NOTICE_AFTER", 0.5)
    cluster.start_worker()
    cluster.start_worker("--resources", "DISK=10")
    with Workers(ClusterOptions(scheduler=cluster.address), print) as pool:
        wait_for(lambda: pool.threads == 2)
    where = ["--scheduler", cluster.address, "--resource", "GPU=1", "--worker-wait", "0.05"]
    cheap = ["--model", "bicubic", "--scale", "2", "--device", "cpu"]
    batched = ["batch", str(country.areas), "--scene", str(country.scenes), "--out", str(tmp_path / "two")]
    single = ["upscale", str(country.scenes / "west_20210503.tif"), "--out", str(tmp_path / "one.tif")]
    for command in (batched, single):
        assert cli([*command, *cheap, *where]) == 1
        output = [
            line for line in capsys.readouterr().err.splitlines() if not re.search("nowhere failed|megapixels in", line)
        ]
        lacking = (
            rf"no worker offers GPU=1, they offer 1 x (nothing|DISK=10), 1 x (nothing|DISK=10) "
            rf'\(dask worker {cluster.address} --nthreads 1 --resources "GPU=1"\)'
        )
        waiting, ending = rf"{lacking}; waiting for one, up to 0\.05 min", rf"error: {lacking}, after 0\.05 min .*"
        assert all(re.fullmatch(waiting, line) for line in output[:-1]), output  # none where planning took longer
        assert re.fullmatch(ending, output[-1])
        assert output[-1].endswith(" (--worker-wait); start one, then give the same command again")
    assert not (tmp_path / "one.tif").exists()
    assert cli([*batched, *cheap]) == 1
    assert "5 of 6 areas done" in capsys.readouterr().out


HAS_CUDA = """
    import torch
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    from dataclasses import replace
    from geo_refdiff.engine import block
    real = block.BlockComputer.__init__
    def init(self, plan, *rest, real=real, **more):
        real(self, replace(plan, device="cpu"), *rest, **more)
    block.BlockComputer.__init__ = init
"""
"""A worker that takes itself for one with a GPU, and computes on the CPU."""


def test_the_client_needs_no_gpu(
    country: Country, tmp_path: Path, cluster: Cluster, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geo_refdiff.batch import workers as module
    from geo_refdiff.plan.records import Plan

    seen: list[tuple[str, int]] = []
    real = module.ClusterBlocks.__call__

    def noting(self: ClusterBlocks, plan: Plan, *rest: Any, batch_size: int = 1, **more: Any) -> Any:
        seen.append((plan.device, batch_size))
        return real(self, plan, *rest, batch_size=batch_size, **more)

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    cluster.start_worker(preload=HAS_CUDA)
    areas = write_areas(tmp_path / "one.gpkg", {"plain": square(2, 2, 8)})
    where = ["--scheduler", cluster.address]
    cheap = ["--model", "bicubic", "--scale", "2", "--block-size", "16", "--products", "none"]
    command = ["batch", str(areas), "--scene", str(country.scenes), *cheap, "--split", "0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.ClusterBlocks, "__call__", noting)
        assert cli([*command, "--device", "cuda", *where, "--out", str(tmp_path / "a")]) == 0, capsys.readouterr().err
        split = [command[0], str(country.areas), *command[2:-1], "1", *where]
        for device in ("cuda", "auto"):
            assert cli([*split, "--device", device, "--out", str(tmp_path / device)]) == 1
            assert "5 of 6 areas done" in capsys.readouterr().out
        assert set(seen) == {("cuda", 8)}
    assert cli([*command, "--device", "cuda", *where, "--out", str(tmp_path / "b"), "--plan-only"]) == 0
    capsys.readouterr()
    scene = ["upscale", str(country.scenes / "west_20210503.tif"), *cheap, "--out", str(tmp_path / "one.tif")]
    assert cli([*scene, "--device", "cuda", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == "cuda"
    for wrong, output in ((["--device", "cuda"], "has 0 CUDA devices"), (["--device", "tpu", *where], "device 'tpu'")):
        assert cli([*command, *wrong, "--out", str(tmp_path / "c")]) == 2
        assert output in capsys.readouterr().err


def test_large_area_is_split_by_blocks(
    country: Country, tmp_path: Path, cluster: Cluster, expected: dict[str, bytes], tiny_compact: Path
) -> None:
    flag = tmp_path / "hanging"
    victim = cluster.start_worker(preload=HANGS_ONCE, HANG_FLAG=str(flag))
    runner = batch_runner(ClusterOptions(scheduler=cluster.address), 1)
    thread, actual = in_background(
        lambda: batch(country.areas, country.sources(), tmp_path / "two", options=SLOW, runner=runner)
    )
    wait_for(flag.exists)
    victim.send_signal(signal.SIGKILL)
    cluster.start_worker()
    cluster.start_worker()
    thread.join(PATIENCE)
    assert actual[0].done == 5
    assert bytes_of(tmp_path / "two") == expected
    scene = country.scenes / "west_20210503.tif"
    options: dict[str, Any] = {"scale": 4, "block_size": 32, "device": "cpu", "products": "source"}
    upscale(scene, model=tiny_compact, out=tmp_path / "a.tif", **options)
    from geo_refdiff.batch.work import open_batch_model

    settings = Settings(
        {"model": str(tiny_compact)}, {}, open_batch_model({"model": tiny_compact}).sha256, 1, same_software()
    )
    with Workers(ClusterOptions(scheduler=cluster.address), print) as pool:
        blocks = ClusterBlocks(pool, settings)
        result = upscale(scene, model=tiny_compact, out=tmp_path / "b.tif", runner=blocks, **options)
    assert result.counts["windows"] > 0
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert (tmp_path / "a.source.tif").read_bytes() == (tmp_path / "b.source.tif").read_bytes()


def test_tampered_plan_is_refused_by_workers(country: Country, tmp_path: Path) -> None:
    scene = country.scenes / "west_20210503.tif"
    out = tmp_path / "x.tif"
    plan = upscale(scene, out=out, plan_only=True, **SLOW).plan_path
    assert plan is not None
    settings = Settings(SLOW, {}, "", 1, same_software())
    good = plan.read_bytes()
    meant = settings, str(plan.parent), read_plan(plan)
    (tmp_path / "secret.tif").write_bytes(scene.read_bytes())
    plan.write_bytes(good.replace(str(scene).encode(), str(tmp_path / "secret.tif").encode()))
    assert "is not the plan that the blocks belong to" in work_blocks(*meant, (0,), 1).error
    assert not list(plan.parent.glob("blocks/*.tif"))
    plan.write_bytes(good)
    assert work_blocks(*meant, (0,), 1).kind == "done"
    os.utime(scene, ns=(1, 1))
    outcome = work_blocks(*meant, (1,), 1)
    assert (outcome.kind, "is another file here" in outcome.error) == ("worker", True)


def test_embedded_workers_and_their_command(
    country: Country, tmp_path: Path, capsys: pytest.CaptureFixture[str], expected: dict[str, bytes]
) -> None:
    command = [
        sys.executable, "-m", "geo_refdiff.cli.main", "batch", str(country.areas), "--scene", str(country.scenes),
        "--model", "bicubic-ibp", "--window", "160", "--block-size", "32", "--scale", "4", "--device", "cpu",
        "--products", "none", "--out", str(tmp_path / "two"), "--workers", "2",
    ]  # fmt: skip
    actual = subprocess.run(command, capture_output=True, text=True, env=_ENVIRONMENT, timeout=PATIENCE, check=False)
    assert actual.returncode == 1, actual.stderr
    assert "5 of 6 areas done, 1 failed" in actual.stdout
    lines = [line for line in actual.stderr.splitlines() if " of 6 areas" not in line]  # one a minute on a busy machine
    assert len(lines) == 6, actual.stderr
    assert all(line.startswith("[") for line in lines)
    assert bytes_of(tmp_path / "two") == expected
    workers = geopandas.read_file(tmp_path / "two" / "manifest.gpkg")["worker"].dropna()
    assert workers.nunique() <= 2
    assert str(os.getpid()) not in "".join(workers)


def test_second_client_is_shown_who_holds_the_folder(country: Country, tmp_path: Path) -> None:
    import socket

    code = (
        "import sys, time; from pathlib import Path; from geo_refdiff.batch.folder import held_folder\n"
        "with held_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    first = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "two")], stdout=subprocess.PIPE)
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == b"held\n"
        from geo_refdiff.errors import BusyError

        with pytest.raises(BusyError, match=rf"\(process {first.pid} on {socket.gethostname()}\)"):
            batch(country.areas, country.sources(), tmp_path / "two", options=OPTIONS)
    finally:
        first.kill()
        first.communicate()
    assert batch(country.areas, country.sources(), tmp_path / "two", options=OPTIONS).done == 5


def test_no_scheduler_is_one_line(country: Country, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("geo_refdiff.batch.cluster._CONNECT_TIMEOUT", 0.0)
    command = ["batch", str(country.areas), "--scene", str(country.scenes), "--model", "bicubic", "--out"]
    assert cli([*command, str(tmp_path / "two"), "--scheduler", "tcp://127.0.0.1:9"]) == 1
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert "the scheduler tcp://127.0.0.1:9 does not answer" in output
    assert np.all([p.name == "batch" or p.suffix in (".gpkg", ".qml") for p in (tmp_path / "two").iterdir()])
