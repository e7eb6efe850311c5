"""Runs on a worker: one item, whatever it is, and word of how it goes."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from geo_refdiff.batch.work import Outcome, place
from geo_refdiff.engine.run import Progress
from geo_refdiff.raster.memory import steady_heap

_TICK = 0.5

Function = Callable[..., Outcome]
"""Called on a worker as function(*args, tell=...)."""


def on_worker(topic: str, name: str, function: Function, *args: Any) -> tuple[str, Outcome]:
    """Do an item and tell how it goes.

    Returns:
        The worker's address, and what became of it.
    """
    from distributed import get_worker

    steady_heap()
    worker, last = get_worker(), 0.0
    worker.log_event(topic, {"name": name, "worker": place()})

    def tell(progress: Progress) -> None:
        nonlocal last
        if monotonic() - last > _TICK:
            last = monotonic()
            worker.log_event(topic, {"name": name, "progress": (progress.stage, progress.done, progress.total)})

    return str(worker.address), function(*args, tell=tell)
