"""The pool on workers of this machine that die: whose fault it was, and who starts them again."""

from __future__ import annotations

from typing import Any

import pytest

from geo_refdiff.batch import embedded, roster
from geo_refdiff.batch.place import Place
from geo_refdiff.batch.pool import Item, Pool

pytest.importorskip("distributed", reason="needs dask: pip install 'geo-refdiff[dask]'")


def quiet(*told: Any) -> None:
    """Hears nothing."""


def items(good: int, *, killer: bool) -> list[Item]:
    """Maybe an item that kills its worker, and others after it; local functions go to the workers by value."""

    def kill(tell: Any = None) -> Any:
        import os
        import signal
        import time

        time.sleep(0.5)  # until the next one is queued with it
        os.kill(os.getpid(), signal.SIGKILL)

    def do(tell: Any = None) -> Any:
        from geo_refdiff.batch.work import Outcome

        return Outcome("", "done")

    bad = [Item("bad", kill, ())] if killer else []
    return [*bad, *(Item(f"good{i}", do, ()) for i in range(good))]


@pytest.mark.parametrize("workers", [1, 2])
def test_who_kills_a_worker_takes_no_other_item_along(workers: int) -> None:
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        Pool(Place(workers=workers), quiet) as pool,
    ):
        found = {
            item.name: outcome
            for item, outcome in filter(None, pool.run(items(2 * workers + 1, killer=True), quiet, quiet))
        }
    assert len(found) == 2 * workers + 2
    assert [name for name, outcome in found.items() if outcome.kind != "done"] == ["bad"]
    assert "its workers died, again and again" in found["bad"].error


def test_workers_that_dask_has_given_up_are_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    monkeypatch.setattr(embedded, "_AGAIN", 0.5)
    monkeypatch.setattr(roster, "_LONELY", 0.1)
    said: list[str] = []
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}),
        Pool(Place(workers=1), said.append) as pool,
    ):
        cluster = pool._embedded.cluster if pool._embedded else None
        cluster.sync(cluster.workers[0].close)
        found = [event for event in pool.run(items(2, killer=False), quiet, quiet) if event is not None]
    assert [outcome.kind for _, outcome in found] == ["done", "done"]
    assert said == ["no worker of this machine is there, they are started again; waiting for one, up to 60 min"]
