"""Workers of this machine that die: whose fault it was, and who starts them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from geo_refdiff import upscale
from geo_refdiff.batch import cluster as module
from geo_refdiff.batch import workers as runners
from geo_refdiff.batch.cluster import Cluster, Task, local_cluster
from geo_refdiff.batch.jobs import Job, Settings
from geo_refdiff.batch.run import Silent
from geo_refdiff.errors import WorkerError
from geo_refdiff.options import ClusterOptions

pytest.importorskip("distributed", reason="needs dask: pip install 'geo-refdiff[dask]'")


def quiet(*output: Any) -> None:
    """Hears nothing."""


def tasks(good: int, *, killer: bool) -> list[Task]:
    """Maybe a task that kills its worker, and others after it; local functions go to the workers by value."""

    def kill(progress: Any = None) -> Any:
        import os
        import signal
        import time

        time.sleep(0.5)  # until the next one is queued with it
        os.kill(os.getpid(), signal.SIGKILL)

    def do(progress: Any = None) -> Any:
        from geo_refdiff.batch.jobs import Outcome

        return Outcome("", "done")

    bad = [Task("bad", kill, ())] if killer else []
    return [*bad, *(Task(f"good{i}", do, ()) for i in range(good))]


@pytest.mark.parametrize("workers", [1, 2])
def test_who_kills_a_worker_takes_no_other_task_along(workers: int) -> None:
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        Cluster(ClusterOptions(workers=workers), quiet) as cluster,
    ):
        result = {
            task.name: outcome
            for task, outcome in filter(None, cluster.run(tasks(2 * workers + 1, killer=True), quiet, quiet))
        }
    assert len(result) == 2 * workers + 2
    assert [name for name, outcome in result.items() if outcome.kind != "done"] == ["bad"]
    assert "its workers died, again and again" in result["bad"].error


def test_workers_that_dask_has_given_up_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    monkeypatch.setattr(module, "_NOTICE_AFTER", 0.1)
    monkeypatch.setattr(module, "_RESTART_AFTER", 0.5)
    said: list[str] = []
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}),
        Cluster(ClusterOptions(workers=1), said.append) as cluster,
    ):
        local = cluster._local
        local.sync(local.workers[0].close)
        result = [event for event in cluster.run(tasks(2, killer=False), quiet, quiet) if event is not None]
    assert [outcome.kind for _, outcome in result] == ["done", "done"]
    assert said == ["no worker of this machine is there, they are started again; waiting for one, up to 60 min"]


def looks(count: int) -> list[Task]:
    """Tasks that tell which GPUs their worker sees; each holds its worker for a while, so that all get one."""

    def look(progress: Any = None) -> Any:
        import os
        import time

        from geo_refdiff.batch.jobs import Outcome
        from geo_refdiff.batch.work import this_process

        time.sleep(0.5)
        return Outcome(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), "done", worker=this_process())

    return [Task(f"task{i}", look, ()) for i in range(count)]


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [((), ["all"] * 3), (("4", "GPU-5e"), ["4", "4", "GPU-5e"])],
)
def test_each_worker_sees_one_gpu(gpus: tuple[str, ...], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with Cluster(ClusterOptions(workers=3), quiet, gpus) as cluster:
        outcomes = [outcome for _, outcome in filter(None, cluster.run(looks(9), quiet, quiet))]
    assert sorted({outcome.worker: outcome.name for outcome in outcomes}.values()) == expected


def test_a_worker_in_place_of_a_lost_one_takes_its_gpu() -> None:
    cluster = local_cluster(2, {}, ("0", "1"))
    try:
        spec = cluster.worker_spec
        first = next(iter(spec))
        lost = spec.pop(first)["options"]["env"]["CUDA_VISIBLE_DEVICES"]
        ((_, new),) = cluster.new_worker_spec().items()
        assert new["options"]["env"]["CUDA_VISIBLE_DEVICES"] == lost
    finally:
        cluster.close()


@pytest.mark.parametrize(("device", "gpus"), [("auto", ("0", "1")), ("cuda", ("0", "1")), ("cuda:1", ()), ("cpu", ())])
def test_workers_of_this_machine_share_its_gpus(
    device: str, gpus: tuple[str, ...], make_pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = []

    class Stop(Cluster):
        def __enter__(self) -> Any:
            configs.append((self.options.workers, self.gpus))
            raise WorkerError("stopped")

    monkeypatch.setattr(runners, "Cluster", Stop)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    options: dict[str, Any] = {"model": "bicubic-ibp", "device": device}
    scene, _ = make_pair(24, 24)
    runner = runners.block_runner(ClusterOptions(workers=2), options, quiet)
    with pytest.raises(WorkerError, match="stopped"):
        upscale(scene, out=tmp_path / "o.tif", scale=4, block_size=32, runner=runner, **options)
    job = Job(str(tmp_path), Settings(options, {}, "", 1), "a", "", str(scene), None, None, ())
    of_batch = runners.batch_runner(ClusterOptions(workers=2))
    assert of_batch is not None
    with pytest.raises(WorkerError, match="stopped"):
        list(of_batch([job], Silent()))
    assert configs == [(2, gpus)] * 2
