"""Work on a dask cluster: a bounded number of futures, tried again where a worker or the scheduler is lost."""

from __future__ import annotations

import logging
import queue
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from geo_refdiff.batch.embedded import Embedded
from geo_refdiff.batch.on_worker import Function, on_worker
from geo_refdiff.batch.place import Place
from geo_refdiff.batch.roster import Roster
from geo_refdiff.batch.work import Outcome
from geo_refdiff.engine.run import Progress
from geo_refdiff.errors import WorkerError
from geo_refdiff.raster.gdal import one_line

_PREFIX = "geo-refdiff"
"""Of all keys, up to the first digit: a scheduler keeps what it learns of a prefix for ever, so areas share one."""

_AHEAD = 2
"""Tasks in flight for each thread of the cluster."""

_TICK, _FILLING = 0.5, 2.0
_BUSY_PAUSE, _BUSY_TRIES = 3.0, 400
_FIRST_PATIENCE, _PATIENCE = 10.0, 300.0
_STRIKES = 2


@dataclass
class Item:
    """A task and what has become of it so far.

    Attributes:
        name: for people.
        function, args: what a worker is to do.
        whose_fault: called where a worker failed that could not see its inputs: whether this process sees them neither.
    """

    name: str
    function: Function
    args: tuple[Any, ...]
    whose_fault: Callable[[], bool] = lambda: False
    _tries: int = 0
    _not_on: set[str] = field(default_factory=set)
    _not_before: float = 0.0
    _suspect: bool = False


@dataclass(frozen=True)
class _Flight:
    """An item that dask has.

    Attributes:
        item: it.
        future: of dask.
        only: addresses of the workers that may do it; None: any.
    """

    item: Item
    future: Any
    only: frozenset[str] | None


class Pool:
    """A cluster, started or joined, for as long as the block lasts.

    Args:
        place: where.
        say: told of what people should know, one line.

    Raises:
        WorkerError: dask is missing, or the scheduler does not answer.
    """

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        self.place, self.say = place, say
        self._topic = f"geo-refdiff-{secrets.token_hex(8)}"
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._embedded: Embedded | None = None
        self._client: Any = None
        self._left_out: dict[str, int] = {}
        self._lone: str | None = None
        self._roster = Roster(place, say)

    def __enter__(self) -> Self:
        try:
            import distributed  # noqa: F401  # told by its ImportError
        except ImportError as error:
            raise WorkerError("workers need dask: pip install 'geo-refdiff[dask]'") from error
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here, in one line each
        try:
            if self.place.workers is not None:
                self._embedded = Embedded(self.place)
            self._connect(_FIRST_PATIENCE)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._disconnect()
        if self._embedded is not None:
            self._embedded.close()

    @property
    def threads(self) -> int:
        """Threads of all workers that are there now and can do a task."""
        return sum(n for worker, n in self._workers().items() if not self._is_out(worker) and worker != self._lone)

    def run(
        self, items: Iterable[Item], started: Callable[[str, str], None], told: Callable[[str, Progress], None]
    ) -> Iterator[tuple[Item, Outcome] | None]:
        """Do items, in any order.

        Args:
            items: taken as workers get free.
            started: called with name and worker when one is begun.
            told: called with name and progress now and then.

        Yields:
            An item with its outcome; None now and then.

        Raises:
            WorkerError: no worker that could do a task came in time, or the scheduler did not come back.
        """
        source = iter(items)
        waiting: deque[Item] = deque()
        flying: dict[str, _Flight] = {}
        exhausted = False
        self._roster.begin()
        try:
            while True:
                if self._embedded is not None:
                    self._embedded.revive()
                self._roster.wait(self._client)
                self._try_alone(waiting, flying)
                most = _AHEAD * (self.threads if self._lone else max(self.threads, 1))
                for item in [w for w in waiting if self._may_fly(w)][: max(most - len(flying), 0)]:
                    waiting.remove(item)
                    self._submit(item, flying)
                until = monotonic() + _FILLING
                while len(flying) + len(waiting) < most and not exhausted and monotonic() < until:
                    new = next(source, None)
                    exhausted = new is None
                    if new is not None:
                        self._submit(new, flying)
                if exhausted and not waiting and not flying:
                    return
                for name, event in self._next_events():
                    told(name, event) if isinstance(event, Progress) else started(name, event)
                for item, outcome in self._landed(flying):
                    if outcome is None:
                        waiting.append(item)
                    else:
                        yield item, outcome
                if self._lost():
                    waiting.extend(flight.item for flight in flying.values())
                    flying.clear()
                    self._join_again()
                yield None
        finally:
            self._lone = None
            for flight in flying.values():
                flight.future.release()

    def _try_alone(self, waiting: deque[Item], flying: dict[str, _Flight]) -> None:
        """Give an item whose workers died a worker of its own: dask blames all that was queued with it, too."""
        suspects = [item for item in waiting if item._suspect and item._not_before <= monotonic()]
        alone = any(flight.item._suspect for flight in flying.values())
        if not suspects or alone:
            self._lone = self._lone if alone else None
            return
        fit = self._fit(suspects[0]) or list(self._workers())
        if self._lone not in fit:
            self._lone = fit[-1] if fit else None
        if self._lone and not any(flight.only is None or self._lone in flight.only for flight in flying.values()):
            waiting.remove(suspects[0])
            self._submit(suspects[0], flying)

    def _may_fly(self, item: Item) -> bool:
        return not item._suspect and item._not_before <= monotonic() and bool(self._lone is None or self._fit(item))

    def _fit(self, item: Item) -> list[str]:
        """Workers that may do an item; the lone one is for a suspect."""
        there = [w for w in self._workers() if w not in item._not_on and not self._is_out(w)]
        return [w for w in there if item._suspect or w != self._lone]

    def _submit(self, item: Item, flying: dict[str, _Flight]) -> None:
        only: frozenset[str] | None = None
        if item._suspect and self._lone:
            only = frozenset({self._lone})
        elif item._not_on or self._left_out or self._lone:
            only = frozenset(self._fit(item)) or None
        key = f"{_PREFIX}-0{secrets.token_hex(8)}-{item.name}"
        future = self._client.submit(
            on_worker,
            self._topic,
            item.name,
            item.function,
            *item.args,
            key=key,
            pure=False,
            workers=None if only is None else sorted(only),
            resources=dict(self.place.resources) or None,
        )
        future.add_done_callback(lambda _: self._events.put(("", None)))
        flying[key] = _Flight(item, future, only)

    def _landed(self, flying: dict[str, _Flight]) -> Iterator[tuple[Item, Outcome | None]]:
        """Items that dask is done with, each with its outcome; None: it is to be done again."""
        workers = self._workers() if any(flight.only for flight in flying.values()) else {}
        for key, flight in list(flying.items()):
            if flight.future.status != "pending":
                del flying[key]
                yield flight.item, self._outcome(flight.item, flight.future)
            elif workers and flight.only is not None and not flight.only & workers.keys():
                del flying[key]  # dask would wait for ever for a worker of this address
                flight.future.cancel()
                yield flight.item, _dead(flight.item) if flight.item._suspect else None

    def _outcome(self, item: Item, future: Any) -> Outcome | None:
        """What became of an item; None: it is to be done again."""
        import distributed
        from distributed.comm.core import CommClosedError

        if future.status in ("cancelled", "lost"):
            return None
        try:
            result: tuple[str, Outcome] = future.result(timeout=30)
            address, outcome = result
        except distributed.scheduler.KilledWorker:
            if item._suspect:
                return _dead(item)
            item._suspect = True
            return None
        except (distributed.CancelledError, CommClosedError, TimeoutError, OSError):
            return None
        except Exception as error:  # the function itself does not raise: dask could not have it run
            return Outcome(
                item.name, "worker", f"could not be run by a worker: {type(error).__name__}: {one_line(error)}"
            )
        finally:
            future.release()
        if outcome.kind == "busy" and item._tries < _BUSY_TRIES:
            item._tries += 1
            item._not_before = monotonic() + _BUSY_PAUSE
            return None
        if outcome.kind == "worker" and not item.whose_fault() and self._may_go_elsewhere(item, address, outcome):
            return None
        return outcome

    def _may_go_elsewhere(self, item: Item, address: str, outcome: Outcome) -> bool:
        item._not_on.add(address)
        self._left_out[address] = self._left_out.get(address, 0) + 1
        others = self._fit(item)
        if others:
            self.say(f"{item.name}: worker {outcome.worker} cannot do it ({outcome.error}); another one tries")
            if self._left_out[address] == _STRIKES:
                self.say(f"worker {outcome.worker} is left out from now on")
        return bool(others)

    def _is_out(self, worker: str) -> bool:
        return self._left_out.get(worker, 0) >= _STRIKES

    def _workers(self) -> dict[str, int]:
        return self._roster.threads(self._client)

    def _next_events(self) -> list[tuple[str, Any]]:
        found = []
        try:
            found.append(self._events.get(timeout=_TICK))
            while len(found) < 1000:
                found.append(self._events.get_nowait())
        except queue.Empty:
            pass
        return [event for event in found if event[0]]

    def _lost(self) -> bool:
        return bool(self._client.status != "running")

    def _join_again(self) -> None:
        self.say("the scheduler is gone; waiting for it to come back")
        self._disconnect()
        self._connect(_PATIENCE)
        self._roster.begin()
        self.say("the scheduler is back")

    def _connect(self, patience: float) -> None:
        import distributed

        deadline = monotonic() + patience
        where: dict[str, Any] = {"scheduler_file": self.place.scheduler_file} if self.place.scheduler_file else {}
        address = self._embedded.cluster if self._embedded else self.place.scheduler
        while True:
            try:
                self._client = distributed.Client(address, timeout=5, set_as_default=False, **where)
                break
            except (OSError, TimeoutError, ValueError) as error:
                if monotonic() > deadline:
                    name = self.place.scheduler or self.place.scheduler_file
                    raise WorkerError(
                        f"the scheduler {name} does not answer ({one_line(error, 80)}); start it (dask scheduler) and "
                        f"its workers, then give the same command again"
                    ) from error
                sleep(1.0)
        self._client.subscribe_topic(self._topic, self._heard)

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        name, what = event[1]["name"], event[1].get("progress")
        self._events.put((name, Progress(*what) if what else event[1]["worker"]))

    def _disconnect(self) -> None:
        if self._client is not None:
            try:
                self._client.close(timeout=2)
            except Exception as error:  # it was lost anyway
                logging.getLogger(__name__).debug("closing the client: %s", error)
            self._client = None


def _dead(item: Item) -> Outcome:
    return Outcome(item.name, "worker", "its workers died, again and again: out of memory? See the workers' logs")
