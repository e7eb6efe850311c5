"""Work on a dask cluster: a bounded number of futures, tried again where a worker or the scheduler is lost."""

from __future__ import annotations

import logging
import queue
import secrets
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from geo_refdiff.engine.run import Progress
from geo_refdiff.errors import WorkerError
from geo_refdiff.io.gdal import one_line
from geo_refdiff.pipeline.batch.place import Place
from geo_refdiff.pipeline.batch.roster import Roster
from geo_refdiff.pipeline.batch.work import Outcome

_PREFIX = "geo-refdiff"
"""Of all keys, up to the first digit: a scheduler keeps what it learns of a prefix for ever, so areas share one."""

_AHEAD = 2
"""Tasks in flight for each thread of the cluster."""

_TICK = 0.5
_BUSY_PAUSE, _BUSY_TRIES = 3.0, 400
_FIRST_PATIENCE, _PATIENCE = 10.0, 300.0
_STRIKES = 2

Function = Callable[..., Outcome]
"""Called on a worker as function(*args, tell=...)."""


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
        self._cluster: Any = None
        self._client: Any = None
        self._left_out: dict[str, int] = {}
        self._roster = Roster(place, say)

    def __enter__(self) -> Self:
        try:
            import distributed
        except ImportError as error:
            raise WorkerError("workers need dask: pip install 'geo-refdiff[dask]'") from error
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here, in one line each
        try:
            if self.place.workers is not None:
                with _deaf_to_ctrl_c():
                    self._cluster = distributed.LocalCluster(
                        n_workers=self.place.workers,
                        threads_per_worker=1,
                        memory_limit=0,
                        dashboard_address=None,
                        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # else its port 8787 may be taken
                        silence_logs=logging.CRITICAL,
                        resources=dict(self.place.resources) or None,
                        env={"OMP_WAIT_POLICY": "passive"},  # with more threads than cores, waiting takes none
                    )
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
        if self._cluster is not None:
            self._cluster.close(timeout=10)

    @property
    def threads(self) -> int:
        """Threads of all workers that are there now and can do a task."""
        return sum(n for worker, n in self._workers().items() if not self._is_out(worker))

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
        flying: dict[str, tuple[Item, Any]] = {}
        exhausted = False
        self._roster.begin()
        try:
            while True:
                self._roster.wait(self._client)
                room = _AHEAD * max(self.threads, 1) - len(flying)
                while room > 0 and not exhausted and not waiting:
                    item = next(source, None)
                    if item is None:
                        exhausted = True
                    else:
                        self._submit(item, flying)
                        room -= 1
                for item in [w for w in waiting if w._not_before <= monotonic()][: max(room, 0)]:
                    waiting.remove(item)
                    self._submit(item, flying)
                if exhausted and not waiting and not flying:
                    return
                for name, event in self._next_events():
                    told(name, event) if isinstance(event, Progress) else started(name, event)
                finished = [key for key, (_, future) in flying.items() if future.status != "pending"]
                for key in finished:
                    item, future = flying.pop(key)
                    outcome = self._outcome(item, future)
                    if outcome is None:
                        waiting.append(item)
                    else:
                        yield item, outcome
                if self._lost():
                    waiting.extend(item for item, _ in flying.values())
                    flying.clear()
                    self._join_again()
                yield None
        finally:
            for _, future in flying.values():
                future.release()

    def _submit(self, item: Item, flying: dict[str, tuple[Item, Any]]) -> None:
        others = [w for w in self._workers() if w not in item._not_on and not self._is_out(w)]
        restricted = bool(item._not_on or self._left_out) and bool(others)
        key = f"{_PREFIX}-0{secrets.token_hex(8)}-{item.name}"
        future = self._client.submit(
            on_worker,
            self._topic,
            item.name,
            item.function,
            *item.args,
            key=key,
            pure=False,
            workers=others if restricted else None,
            resources=dict(self.place.resources) or None,
        )
        future.add_done_callback(lambda _: self._events.put(("", None)))
        flying[key] = item, future

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
            text = "its workers died, again and again: out of memory? See the workers' logs"
            return Outcome(item.name, "worker", text)
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
        others = [w for w in self._workers() if w not in item._not_on and not self._is_out(w)]
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
        address = self._cluster or self.place.scheduler
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


def on_worker(topic: str, name: str, function: Function, *args: Any) -> tuple[str, Outcome]:
    """Runs on a worker: does an item and tells how it goes.

    Returns:
        The worker's address, and what became of it.
    """
    from distributed import get_worker

    from geo_refdiff.io.memory import steady_heap
    from geo_refdiff.pipeline.batch.work import place

    steady_heap()
    worker, last = get_worker(), 0.0
    worker.log_event(topic, {"name": name, "worker": place()})

    def tell(progress: Progress) -> None:
        nonlocal last
        if monotonic() - last > _TICK:
            last = monotonic()
            worker.log_event(topic, {"name": name, "progress": (progress.stage, progress.done, progress.total)})

    return str(worker.address), function(*args, tell=tell)
