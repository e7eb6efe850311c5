"""Work on a dask cluster: areas of a batch as tasks; large areas, and single scenes, block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from geo_refdiff.batch.jobs import Settings, Ticket, UnfitError, changed_inputs, plain_options, read_job
from geo_refdiff.batch.place import PATIENCE, Place, place_of
from geo_refdiff.batch.pool import Item, Pool
from geo_refdiff.batch.run import Runner, Task, Watch
from geo_refdiff.batch.work import (
    IN_THE_MODEL,
    Outcome,
    guarded,
    model_for,
    open_batch_model,
    place,
    same_software,
    work,
)
from geo_refdiff.engine.run import BlockRunner, Progress, ProgressCallback, RunCounts, run_blocks
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.errors import InputError, OutputError, ResumeError, WorkerError
from geo_refdiff.nn.device import chosen_device, visible_gpus
from geo_refdiff.plan.file import parsed
from geo_refdiff.plan.records import THREADS, Plan
from geo_refdiff.plan.same_inputs import check_inputs
from geo_refdiff.raster.cores import cores
from geo_refdiff.raster.lock import held
from geo_refdiff.restore.restorers import Restorer

_TASKS_A_THREAD = 4
_MOST_BLOCKS = 8


def runner_for(
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    resources: Sequence[str] = (),
    split: int = 16,
    worker_wait: float = PATIENCE,
) -> Callable[[Settings], Runner] | None:
    """Who does the work of a batch; None: the process itself.

    Args:
        workers: processes of this machine to start.
        scheduler, scheduler_file: of a cluster that is there.
        resources: that a worker needs for a task, "GPU=1".
        split: areas of more blocks are shared by all workers; 0 = never.
        worker_wait: minutes to wait where no worker can do a task.

    Raises:
        OptionError: options that do not go together.
    """
    where = place_of(workers, scheduler, scheduler_file, resources, worker_wait)
    return None if where is None else lambda settings: ClusterRunner(where, settings, split)


def block_runner(
    workers: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    resources: Sequence[str] = (),
    *,
    worker_wait: float = PATIENCE,
    options: Mapping[str, Any],
    say: Callable[[str], None],
) -> BlockRunner:
    """Who computes the blocks of a single scene: the process itself, or workers, which give the same bytes.

    Args:
        workers, scheduler, scheduler_file, resources, worker_wait: as of `runner_for`.
        options: of `upscale`: what names the model and how it runs.
        say: told of what people should know, one line.

    Raises:
        OptionError: options that do not go together.
    """
    where = place_of(workers, scheduler, scheduler_file, resources, worker_wait)
    return run_blocks if where is None else SceneOnWorkers(where, plain_options(options), say)


class SceneOnWorkers:
    """Starts or joins a cluster once the plan is made, and has it compute the blocks; see `BlockRunner`."""

    def __init__(self, where: Place, options: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.where, self.options, self.say = where, options, say

    def __call__(
        self,
        plan: Plan,
        workdir: Workdir,
        restorer: Restorer,
        *,
        batch_size: int = 1,
        progress: ProgressCallback | None = None,
    ) -> RunCounts:
        left = plan.blocks.count - len(workdir.done(plan.blocks))
        if not left:
            return run_blocks(plan, workdir, restorer, batch_size=batch_size, progress=progress)
        where, threads = self.where, 1 if restorer.local else int(plan.software[THREADS])
        if where.workers is not None:
            where = _one_gpu_each(replace(where, workers=min(where.workers, left)), plan.device)
            self._warn(where.workers or 1, threads, plan.device)
        settings = Settings({**self.options, "device": plan.device}, threads, plan.model.sha256, same_software())
        with Pool(where, self.say) as pool:
            blocks = ClusterBlocks(pool, settings)
            return blocks(plan, workdir, restorer, batch_size=batch_size, progress=progress)

    def _warn(self, workers: int, threads: int, device: str) -> None:
        count = cores()
        if device == "cpu" and threads > 1 and workers * threads > count:
            self.say(
                f"{workers} workers with {threads} threads each share {count} cores, for the bytes of one process; "
                f"--threads {max(count // workers, 1)} is faster and moves last bits"
            )


class ClusterRunner:
    """Does the tasks of a batch on a cluster; see `Runner`."""

    def __init__(self, where: Place, settings: Settings, split: int) -> None:
        self.where, self.settings, self.split = where, settings, split

    def __call__(self, tasks: Iterable[Task], watch: Watch) -> Iterator[Outcome | None]:
        large: list[Task] = []
        device: str | None = None

        def small() -> Iterator[Item]:
            for task in tasks:
                if self.split and task.blocks > self.split:
                    large.append(task)
                else:
                    yield Item(task.name, work, (task.ticket,), partial(_changed, task.ticket))

        where = self.where
        if not where.elsewhere:
            where = _one_gpu_each(where, chosen_device(self.settings.options.get("device", "auto")))
        with Pool(where, watch.say) as pool:
            for found in pool.run(small(), watch.started, watch.told):
                yield None if found is None else found[1]
            for task in large:
                watch.started(task.name, f"{pool.threads} workers")

                def tell(progress: Progress, name: str = task.name) -> None:
                    watch.told(name, progress)

                device = device or self._device(pool)
                options = {**self.settings.options, **({"device": device} if device else {})}
                blocks = ClusterBlocks(pool, replace(self.settings, options=options))
                yield work(task.ticket, tell, blocks, device)

    def _device(self, pool: Pool) -> str | None:
        """That of the workers, of which "auto" is what the first one to answer has; None: they are on this machine."""
        said = str(self.settings.options.get("device", "auto"))
        if not self.where.elsewhere or said != "auto":
            return said if self.where.elsewhere else None
        asked = Item("device", work_device, ())
        for found in pool.run(iter([asked]), lambda name, worker: None, lambda name, progress: None):
            if found is not None:
                outcome = found[1]
                if outcome.kind != "done":
                    raise WorkerError(f"no worker could tell its device: {outcome.error}")
                return str(outcome.figures["device"])
        raise WorkerError("no worker could tell its device; give --device cpu or cuda")


def _one_gpu_each(where: Place, device: str) -> Place:
    """Workers of this machine that compute on any of its GPUs share them; one that is named is for all of them."""
    return replace(where, gpus=visible_gpus()) if device == "cuda" else where


def work_device(tell: Callable[[Progress], None] | None = None) -> Outcome:
    """The device that "auto" is on this worker."""
    return Outcome("", "done", figures={"device": chosen_device("auto")}, worker=place())


def options_here(
    options: Mapping[str, Any], workers: int | None, scheduler: str | None, scheduler_file: str | None, **more: Any
) -> dict[str, Any]:
    """Options of `upscale` to plan with on this machine, which need not have the device of workers elsewhere.

    Args:
        options: of `upscale`.
        workers, scheduler, scheduler_file, more: as of `block_runner`.

    Raises:
        ModelError, OptionError: as of `open_batch_model`.
    """
    device = options.get("device", "auto")
    if device == "auto" or (scheduler is None and scheduler_file is None):
        return dict(options)
    model = open_batch_model(options, device)
    return {k: v for k, v in options.items() if k not in IN_THE_MODEL} | {"model": model}


def _changed(ticket: Ticket) -> bool:
    """Whether the inputs of a job are wrong as this process sees them, too."""
    return any(changed_inputs(read_job(ticket)[1]))


@dataclass(frozen=True, slots=True)
class BlockTicket:
    """Blocks to be computed: indices against a plan, all that a worker is sent.

    Attributes:
        folder: of the run, with plan.json.
        sha256: of plan.json.
        blocks: indices.
        batch_size: windows restored together.
        settings: which model, and what the software must be.
    """

    folder: str
    sha256: str
    blocks: tuple[int, ...]
    batch_size: int
    settings: Settings


class ClusterBlocks:
    """Has workers compute the blocks of a run; see `BlockRunner`. The same pixels as `run_blocks` in one process.

    Args:
        pool: of workers.
        settings: which model, and what the software must be.
    """

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self.pool, self.settings = pool, settings

    def __call__(
        self,
        plan: Plan,
        workdir: Workdir,
        restorer: Restorer,
        *,
        batch_size: int = 1,
        progress: ProgressCallback | None = None,
    ) -> RunCounts:
        started = perf_counter()
        found = workdir.done(plan.blocks)
        todo = [i for i in plan.blocks.serpentine() if i not in found]
        length = min(_MOST_BLOCKS, max(1, len(todo) // (_TASKS_A_THREAD * max(self.pool.threads, 1))))
        digest = hashlib.sha256(workdir.plan.read_bytes()).hexdigest()
        parts = [tuple(todo[i : i + length]) for i in range(0, len(todo), length)]
        done, windows, seconds = len(found), 0, 0.0
        within: dict[str, float] = {}

        def tell(name: str = "", at: Progress | None = None) -> None:
            if at is not None:
                within[name] = at.done
            if progress:
                progress(Progress("blocks", min(done + sum(within.values()), plan.blocks.count), plan.blocks.count))

        items = (
            Item(
                f"blocks {part[0]}",
                work_blocks,
                (BlockTicket(str(workdir.path), digest, part, batch_size, self.settings),),
            )
            for part in parts
        )
        tell()
        for finished in self.pool.run(items, lambda name, worker: None, tell):
            if finished is not None:
                item, outcome = finished
                if outcome.kind != "done":
                    kind = InputError if outcome.kind == "area" else WorkerError
                    raise kind(f"{item.name}: {outcome.error}")
                within.pop(item.name, None)
                done += int(outcome.figures["blocks"])
                windows += int(outcome.figures["windows"])
                seconds += float(outcome.figures["restore_seconds"])
            tell()
        missing = plan.blocks.count - len(workdir.done(plan.blocks))
        if missing:
            raise OutputError(
                f"{workdir.path}: {missing} finished blocks are not to be seen here; all workers need "
                f"the same output folder"
            )
        return RunCounts(plan.blocks.count, len(found), windows, batch_size, seconds, perf_counter() - started)


def work_blocks(ticket: BlockTicket, tell: Callable[[Progress], None] | None = None) -> Outcome:
    """Compute the blocks of a ticket that are not there yet, into the folder of their run."""
    started = perf_counter()

    def done() -> Outcome:
        workdir = Workdir(Path(ticket.folder))
        if not workdir.plan.exists():
            raise UnfitError(f"{workdir.plan}: cannot be seen here; all workers need the same output folder")
        with held(workdir.workers, str(workdir.path), "wait for it", shared=True):
            plan = _plan(workdir, ticket.sha256)
            restorer = plan.restorer(model_for(ticket.settings))
            counts = run_blocks(
                plan, workdir, restorer, batch_size=ticket.batch_size, order=ticket.blocks, progress=tell
            )
        figures = {
            "blocks": len(ticket.blocks),
            "windows": counts.windows,
            "restore_seconds": counts.restore_seconds,
        }
        return Outcome("", "done", "", perf_counter() - started, figures, (), place())

    return guarded(done)


def _plan(workdir: Workdir, sha256: str) -> Plan:
    """The plan of a run, after checking that it is the one that is meant, and that its inputs are to be seen here."""
    try:
        text = workdir.plan.read_bytes()
    except OSError as error:
        raise UnfitError(f"{workdir.plan}: cannot be read here ({error.strerror})") from error
    if hashlib.sha256(text).hexdigest() != sha256:
        raise ResumeError(f"{workdir.plan}: is not the plan that the blocks belong to; begin the run again")
    plan = parsed(text)
    try:
        check_inputs(plan)
    except InputError as error:
        raise UnfitError(f"{error}; all workers need the same inputs under the same paths") from error
    return plan
