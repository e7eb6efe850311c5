"""Workers of this machine, started for one run: each a process with a nanny that starts it again."""

from __future__ import annotations

import logging
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from geo_refdiff.batch.place import Place

_AGAIN = 5.0
_GPUS = "CUDA_VISIBLE_DEVICES"


class Embedded:
    """A scheduler in this process and workers beside it.

    Args:
        place: how many workers, and what they offer.
    """

    def __init__(self, place: Place) -> None:
        import distributed

        class Cluster(distributed.LocalCluster):
            """Gives each new worker the GPU that the fewest of the others have."""

            def new_worker_spec(self) -> dict[Any, Any]:
                ((name, spec),) = super().new_worker_spec().items()  # type: ignore[no-untyped-call]
                if place.gpus:
                    taken = Counter(other["options"]["env"][_GPUS] for other in self.worker_spec.values())
                    env = spec["options"]["env"] | {_GPUS: min(place.gpus, key=taken.__getitem__)}
                    spec = spec | {"options": spec["options"] | {"env": env}}
                return {name: spec}

        self._count, self._asked = place.workers or 1, monotonic()
        with _deaf_to_ctrl_c():
            self.cluster: Any = Cluster(  # type: ignore[no-untyped-call]
                n_workers=0,  # started below, each with its own specification
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # else its port 8787 may be taken
                silence_logs=logging.CRITICAL,
                resources=dict(place.resources) or None,
                env={"OMP_WAIT_POLICY": "passive"},  # with more threads than cores, waiting takes none
            )
            self.cluster.scale(self._count)  # type: ignore[no-untyped-call]
            self.cluster.wait_for_workers(self._count)

    def revive(self) -> None:
        """Start what is missing, to be called again and again: dask gives up nannies whose worker is slow to return."""
        if len(self.cluster.scheduler.workers) >= self._count:
            self._asked = monotonic()
        elif monotonic() - self._asked > _AGAIN:
            self._asked = monotonic()
            self.cluster.scale(self._count)

    def close(self) -> None:
        """Stop all."""
        self.cluster.close(timeout=10)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes started within leave Ctrl-C, which a terminal sends to all, to this one, which hears it afterwards."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # or else it is started later, and lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which threads and processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
