"""A dask cluster, started or joined: tasks in bounded number, tried again where a worker or the scheduler is lost."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from geo_refdiff.batch.jobs import Outcome
from geo_refdiff.batch.work import this_process
from geo_refdiff.engine.run import Progress
from geo_refdiff.errors import WorkerError
from geo_refdiff.options import ClusterOptions, resource_amounts
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.process import steady_heap

_PREFIX = "geo-refdiff"
"""Of all keys, up to the first digit: a scheduler keeps what it learns of a prefix for ever, so areas share one."""

_TASKS_PER_THREAD = 2
"""Tasks in flight for each thread of the cluster."""

_POLL_SECONDS, _SUBMIT_SECONDS = 0.5, 2.0
_BUSY_PAUSE, _BUSY_TRIES = 3.0, 400
_CONNECT_TIMEOUT, _RECONNECT_TIMEOUT = 10.0, 300.0
_NOTICE_AFTER, _RESTART_AFTER = 10.0, 5.0
_MAX_FAILURES, _RETRIES = 2, 2
_OFFERS_SHOWN = 4
_GPUS = "CUDA_VISIBLE_DEVICES"

StartedCallback = Callable[[str, str], None]
"""Called with a task's name and "host:pid" of its worker."""

TaskProgressCallback = Callable[[str, Progress], None]


@dataclass(eq=False)
class Task:
    """Something for a worker to do, and its state.

    Attributes:
        name: for people.
        function, args: called on a worker as function(*args, progress=...); returns an `Outcome` and raises nothing.
        fails_here: called where a worker could not do it: whether this process could not do it either, so that no other
            worker need try.
    """

    name: str
    function: Callable[..., Outcome]
    args: tuple[Any, ...]
    fails_here: Callable[[], bool] = lambda: False
    _future: Any = None
    _only: frozenset[str] = frozenset()
    """Addresses of the workers that may do it; empty: any."""

    _excluded: set[str] = field(default_factory=set)
    _killed_worker: bool = False


class Cluster:
    """A cluster for as long as the block lasts.

    Args:
        options: where its workers are.
        say: called with what people should know, one line.
        gpus: of this machine, as CUDA_VISIBLE_DEVICES names them: each worker started here sees one, the next one in
            turn; empty: all see what this process sees.

    Raises:
        WorkerError: dask is missing, or the scheduler does not answer.
    """

    def __init__(self, options: ClusterOptions, say: Callable[[str], None], gpus: Sequence[str] = ()) -> None:
        self.options, self.say, self.gpus = options, say, tuple(gpus)
        self._required = resource_amounts(options.resources)
        self._topic = f"{_PREFIX}-{secrets.token_hex(8)}"
        self._events: deque[tuple[str, Any]] = deque()
        self._wakeup = threading.Event()
        self._local: Any = None
        self._client: Any = None
        self._failures: Counter[str] = Counter()
        self._offers: dict[str, Mapping[str, float]] = {}

    def __enter__(self) -> Self:
        try:
            import distributed  # noqa: F401  # its ImportError is caught below
        except ImportError as error:
            raise WorkerError("workers need dask: pip install 'geo-refdiff[dask]'") from error
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here, in one line each
        try:
            if self.options.workers is not None:
                self._local = local_cluster(self.options.workers, self._required, self.gpus)
            self._connect(_CONNECT_TIMEOUT)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def threads(self) -> int:
        """Threads of all workers that are there now and can do a task."""
        return self._usable(self._workers())

    def run(
        self, tasks: Iterable[Task], started: StartedCallback, progress: TaskProgressCallback
    ) -> Iterator[tuple[Task, Outcome] | None]:
        """Do tasks, in any order.

        A task whose workers die is done once more at the end with nothing else in flight: dask blames all that was
        queued on the worker, too.

        Args:
            tasks: taken as workers get free.
            started: called when one is begun.
            progress: called now and then.

        Yields:
            A task with its outcome; None now and then.

        Raises:
            WorkerError: no worker that could do a task came in time, or the scheduler did not come back.
        """
        source, retries, isolated = iter(tasks), deque[Task](), deque[Task]()
        in_flight: list[Task] = []
        self._wait_begins()
        try:
            while True:
                workers = self._workers()
                self._wait_for(workers)
                until = monotonic() + _SUBMIT_SECONDS
                while len(in_flight) < _TASKS_PER_THREAD * max(self._usable(workers), 1) and monotonic() < until:
                    task = retries.popleft() if retries else next(source, None)
                    if task is None:
                        break
                    in_flight.append(self._submit(task, workers))
                if not in_flight:
                    if not isolated:
                        return
                    in_flight.append(self._submit(isolated.popleft(), workers))
                self._wakeup.wait(_POLL_SECONDS)
                self._wakeup.clear()
                while self._events:
                    name, event = self._events.popleft()
                    progress(name, event) if isinstance(event, Progress) else started(name, event)
                for task in list(self._completed(in_flight)):
                    in_flight.remove(task)
                    outcome = self._outcome(task)
                    if outcome is not None:
                        yield task, outcome
                    else:
                        (isolated if task._killed_worker else retries).append(task)
                if self._client.status != "running":
                    for task in in_flight:
                        (isolated if task._killed_worker else retries).append(task)
                    in_flight.clear()
                    self._rejoin()
                yield None
        finally:
            for task in in_flight:
                task._future.release()

    def _usable(self, workers: Mapping[str, int]) -> int:
        """Threads of workers that are not left out."""
        return sum(n for worker, n in workers.items() if self._failures[worker] < _MAX_FAILURES)

    def _submit(self, task: Task, workers: Collection[str]) -> Task:
        task._only = frozenset(self._fit(task, workers)) if task._excluded or self._failures else frozenset()
        task._future = self._client.submit(
            _run_on_worker,
            self._topic,
            task.name,
            task.function,
            *task.args,
            key=f"{_PREFIX}-0{secrets.token_hex(8)}-{task.name}",
            pure=False,
            retries=_RETRIES,  # of what dask itself fails at: the function raises nothing
            workers=sorted(task._only) or None,
            resources=self._required or None,
        )
        task._future.add_done_callback(lambda _: self._wakeup.set())
        return task

    def _fit(self, task: Task, workers: Iterable[str]) -> list[str]:
        """Workers that may do a task."""
        return [w for w in workers if w not in task._excluded and self._failures[w] < _MAX_FAILURES]

    def _completed(self, in_flight: Sequence[Task]) -> Iterator[Task]:
        """Tasks that dask has finished, or for which it would wait for ever: their workers are gone."""
        workers = self._workers() if any(task._only for task in in_flight) else {}
        for task in in_flight:
            if task._future.status != "pending":
                yield task
            elif workers and task._only and not task._only & workers.keys():
                task._future.cancel()
                yield task

    def _outcome(self, task: Task) -> Outcome | None:
        """The outcome of a task; None: it is to be done again."""
        import distributed

        future = task._future
        if future.status in ("cancelled", "lost"):
            return None
        try:
            address, outcome = future.result(timeout=30)
        except distributed.scheduler.KilledWorker:
            if task._killed_worker:
                text = "its workers died, again and again: out of memory? See the workers' logs"
                return Outcome(task.name, "worker", text)
            task._killed_worker = True
            return None
        except (distributed.CancelledError, TimeoutError, OSError):  # the connection is lost
            return None
        except Exception as error:
            text = f"could not be run by a worker: {type(error).__name__}: {one_line(error)}"
            return Outcome(task.name, "worker", text)
        finally:
            future.release()
        if outcome.kind == "worker" and not task.fails_here() and self._others_may(task, address, outcome):
            return None
        return outcome  # type: ignore[no-any-return]

    def _others_may(self, task: Task, address: str, outcome: Outcome) -> bool:
        """Note that a worker could not do a task; whether there are others for it."""
        task._excluded.add(address)
        self._failures[address] += 1
        others = self._fit(task, self._workers())
        if others:
            self.say(f"{task.name}: worker {outcome.worker} cannot do it ({outcome.error}); another one tries")
            if self._failures[address] == _MAX_FAILURES:
                self.say(f"worker {outcome.worker} is left out from now on")
        return bool(others)

    def _workers(self) -> dict[str, int]:
        """Threads of each worker that has the resources for a task, by address; none where the scheduler is gone."""
        needed = self._required
        try:
            threads = dict(self._client.nthreads())
            if needed and threads.keys() != self._offers.keys():
                infos = self._client.scheduler_info(n_workers=-1)["workers"]
                self._offers = {address: dict(info["resources"]) for address, info in infos.items()}
        except Exception:  # whatever dask raises; who asks finds out why
            self._offers = {}
            return {}
        return {
            address: n
            for address, n in threads.items()
            if all(self._offers.get(address, {}).get(name, 0.0) >= number for name, number in needed.items())
        }

    def _wait_begins(self) -> None:
        self._no_worker_since = self._complete_since = monotonic()
        self._announced = False

    def _wait_for(self, workers: Collection[str]) -> None:
        """Tell that no worker can do a task, once it has been so for a while; start those of this machine again.

        Raises:
            WorkerError: it has been so for too long.
        """
        if self._local is None or len(self._local.scheduler.workers) >= (self.options.workers or 1):
            self._complete_since = monotonic()
        elif monotonic() - self._complete_since > _RESTART_AFTER:
            self._complete_since = monotonic()
            self._local.scale(self.options.workers)  # dask gives up nannies whose worker is slow to return
        if workers:
            self._no_worker_since, self._announced = monotonic(), False
            return
        waited, limit_s = monotonic() - self._no_worker_since, 60.0 * self.options.worker_wait
        if waited < min(_NOTICE_AFTER, limit_s):
            return
        missing, limit = self._missing(), f"{self.options.worker_wait:g} min"
        if waited >= limit_s:
            start = "start one, then give" if self._local is None else "give"
            raise WorkerError(f"{missing}, after {limit} (--worker-wait); {start} the same command again")
        if not self._announced:
            self.say(f"{missing}; waiting for one, up to {limit}")
            self._announced = True

    def _missing(self) -> str:
        """What the cluster lacks, and how to start it."""
        if self._local is not None:
            return "no worker of this machine is there, they are started again"
        start = f"dask worker {self._client.scheduler.address} --nthreads 1"
        if not self._offers:
            return f"the cluster has no workers ({start})"
        needed = _in_words(self._required)
        offers = Counter(map(_in_words, self._offers.values())).most_common()
        offered = ", ".join(f"{count} x {what}" for what, count in offers[:_OFFERS_SHOWN])
        offered += ", ..." if len(offers) > _OFFERS_SHOWN else ""
        return f'no worker offers {needed}, they offer {offered} ({start} --resources "{needed}")'

    def _connect(self, limit_s: float) -> None:
        import distributed

        deadline = monotonic() + limit_s
        file = self.options.scheduler_file
        where: dict[str, Any] = {"scheduler_file": file} if file else {}
        while True:
            try:
                self._client = distributed.Client(
                    self._local or self.options.scheduler, timeout=5, set_as_default=False, **where
                )
                break
            except (OSError, TimeoutError, ValueError) as error:
                if monotonic() > deadline:
                    raise WorkerError(
                        f"the scheduler {self.options.scheduler or file} does not answer ({one_line(error, 80)}); "
                        f"start it (dask scheduler) and its workers, then give the same command again"
                    ) from error
                sleep(1.0)
        self._client.subscribe_topic(self._topic, self._on_event)

    def _on_event(self, event: tuple[float, dict[str, Any]]) -> None:
        name, at = event[1]["name"], event[1].get("progress")
        self._events.append((name, Progress(*at) if at else event[1]["worker"]))
        self._wakeup.set()

    def _rejoin(self) -> None:
        self.say("the scheduler is gone; waiting for it to come back")
        self._disconnect()
        self._connect(_RECONNECT_TIMEOUT)
        self._wait_begins()
        self.say("the scheduler is back")

    def _disconnect(self) -> None:
        if self._client is not None:
            try:
                self._client.close(timeout=2)
            except Exception as error:  # it was lost anyway
                logging.getLogger(__name__).debug("closing the client: %s", error)
            self._client = None

    def _close(self) -> None:
        self._disconnect()
        if self._local is not None:
            self._local.close(timeout=10)


def _run_on_worker(topic: str, name: str, function: Callable[..., Outcome], *args: Any) -> tuple[str, Outcome]:
    """Do a task on a worker and tell how it goes; waits for another process that is at it.

    Returns:
        The worker's address, and what became of the task.
    """
    from distributed import get_worker

    steady_heap()
    worker, last = get_worker(), 0.0
    worker.log_event(topic, {"name": name, "worker": this_process()})

    def progress(at: Progress) -> None:
        nonlocal last
        if monotonic() - last > _POLL_SECONDS:
            last = monotonic()
            worker.log_event(topic, {"name": name, "progress": (at.stage, at.done, at.total)})

    outcome = function(*args, progress=progress)
    for _ in range(_BUSY_TRIES):
        if outcome.kind != "busy":
            break
        sleep(_BUSY_PAUSE)
        outcome = function(*args, progress=progress)
    return str(worker.address), outcome


def local_cluster(workers: int, resources: Mapping[str, float], gpus: Sequence[str] = ()) -> Any:
    """A scheduler in this process and workers beside it, each with a nanny that starts it again.

    Args:
        workers: how many, of one thread.
        resources: that each offers.
        gpus: as of `Cluster`.
    """
    import distributed

    class OneGpuEach(distributed.LocalCluster):
        """Gives each new worker the GPU that the fewest of the others have."""

        def new_worker_spec(self) -> dict[Any, Any]:
            ((name, spec),) = super().new_worker_spec().items()  # type: ignore[no-untyped-call]
            if gpus:
                taken = Counter(other["options"]["env"][_GPUS] for other in self.worker_spec.values())
                env = spec["options"]["env"] | {_GPUS: min(gpus, key=taken.__getitem__)}
                spec = spec | {"options": spec["options"] | {"env": env}}
            return {name: spec}

    with _sigint_blocked():
        cluster: Any = OneGpuEach(  # type: ignore[no-untyped-call]
            n_workers=0,  # started below, each with its own specification
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # else its port 8787 may be taken
            silence_logs=logging.CRITICAL,
            resources=dict(resources) or None,
            env={"OMP_WAIT_POLICY": "passive"},  # with more threads than cores, waiting takes none
        )
        cluster.scale(workers)
        cluster.wait_for_workers(workers)
    return cluster


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes started within leave Ctrl-C, which a terminal sends to all, to this one, which hears it afterwards."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # or else it is started later, and lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which threads and processes inherit
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_words(resources: Mapping[str, float]) -> str:
    """Resources as dask's command line takes them: "GPU=1 MEMORY=32"."""
    return " ".join(f"{name}={number:g}" for name, number in sorted(resources.items())) or "nothing"
