"""Which workers of a cluster can do a task, and how long to wait while none can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from geo_refdiff.batch.place import Place, in_words
from geo_refdiff.errors import WorkerError

_LONELY = 10.0
_OFFERS_SHOWN = 4


class Roster:
    """The workers that have the resources for a task.

    Args:
        place: which cluster, what a task needs, and how long to wait.
        say: told once, in one line, that there are none.
    """

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self.place, self.say = place, say
        self._offers: dict[str, Mapping[str, float]] = {}
        self.begin()

    def begin(self) -> None:
        """Waiting for workers begins now."""
        self._seen, self._told = monotonic(), False

    def threads(self, client: Any) -> dict[str, int]:
        """Threads of each worker that has the resources for a task, by address; none where the scheduler is gone."""
        try:
            threads = dict(client.nthreads())
            if self.place.resources and threads.keys() != self._offers.keys():
                known = client.scheduler_info(n_workers=-1)["workers"]
                self._offers = {address: dict(worker["resources"]) for address, worker in known.items()}
        except Exception:  # whatever dask raises; who asks finds out why
            self._offers = {}
            return {}
        return {address: n for address, n in threads.items() if self.place.fits(self._offers.get(address, {}))}

    def wait(self, client: Any) -> None:
        """Tell that no worker can do a task, once it has been so for a while; to be called again and again.

        Raises:
            WorkerError: it has been so for too long.
        """
        if self.threads(client):
            self.begin()
            return
        lonely, patience = monotonic() - self._seen, 60.0 * self.place.patience
        if lonely < min(_LONELY, patience):
            return
        missing, limit = self._missing(client.scheduler.address), f"{self.place.patience:g} min"
        if lonely >= patience:
            start = "start one, then give" if self.place.workers is None else "give"
            raise WorkerError(f"{missing}, after {limit} (--worker-wait); {start} the same command again")
        if not self._told:
            self.say(f"{missing}; waiting for one, up to {limit}")
            self._told = True

    def _missing(self, address: str) -> str:
        """What the cluster lacks, and how to start it."""
        if self.place.workers is not None:
            return "no worker of this machine is there, they are started again"
        start = f"dask worker {address} --nthreads 1"
        if not self._offers:
            return f"the cluster has no workers ({start})"
        needed = in_words(self.place.resources)
        offers = Counter(map(in_words, self._offers.values())).most_common()
        told = ", ".join(f"{count} x {what}" for what, count in offers[:_OFFERS_SHOWN])
        told += ", ..." if len(offers) > _OFFERS_SHOWN else ""
        return f'no worker offers {needed}, they offer {told} ({start} --resources "{needed}")'
