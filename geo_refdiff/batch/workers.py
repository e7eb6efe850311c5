"""What the workers of a cluster do: areas of a batch; blocks of large areas and of single scenes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any

from msgspec.structs import replace

from geo_refdiff.batch.cluster import Cluster, Task
from geo_refdiff.batch.jobs import Job, Outcome, Settings, UnfitError, changed_inputs, plain_options
from geo_refdiff.batch.run import ProgressListener, Runner
from geo_refdiff.batch.work import IN_THE_MODEL, guarded, model_for, open_batch_model, same_software, this_process, work
from geo_refdiff.engine.run import BlockRunner, Progress, ProgressCallback, RunCounts, run_blocks
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.errors import InputError, OutputError, ResumeError, WorkerError
from geo_refdiff.nn.device import chosen_device, visible_gpus
from geo_refdiff.options import ClusterOptions
from geo_refdiff.plan.records import THREADS, Plan
from geo_refdiff.plan.same_inputs import check_inputs
from geo_refdiff.raster.files import held
from geo_refdiff.raster.process import cores
from geo_refdiff.restore.restorers import Restorer

_TASKS_A_THREAD = 4
_MOST_BLOCKS = 8


def batch_runner(cluster: ClusterOptions, split: int = 16) -> Runner | None:
    """Who does the work of a batch; None: the process itself.

    Args:
        cluster: its workers.
        split: areas of more blocks are shared by all workers; 0 = never.
    """
    return partial(_run_on_cluster, cluster, split) if cluster.used else None


def block_runner(cluster: ClusterOptions, options: Mapping[str, Any], say: Callable[[str], None]) -> BlockRunner:
    """Who computes the blocks of a single scene: the process itself, or workers, which give the same bytes.

    Args:
        cluster: its workers.
        options: of `upscale`: what names the model and how it runs.
        say: called with what people should know, one line.
    """
    return SceneOnWorkers(cluster, plain_options(options), say) if cluster.used else run_blocks


def options_here(options: Mapping[str, Any], cluster: ClusterOptions) -> dict[str, Any]:
    """Options of `upscale` to plan with on this machine, which need not have the device of workers elsewhere.

    Raises:
        ModelError, OptionError: as of `open_batch_model`.
    """
    device = options.get("device", "auto")
    if device == "auto" or not cluster.elsewhere:
        return dict(options)
    model = open_batch_model(options, device)
    return {k: v for k, v in options.items() if k not in IN_THE_MODEL} | {"model": model}


def _run_on_cluster(
    options: ClusterOptions, split: int, jobs: Iterable[Job], listener: ProgressListener
) -> Iterator[Outcome | None]:
    """Do the jobs of a batch on a cluster, large ones at the end, block by block; see `Runner`."""
    large: list[Job] = []
    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    settings = first.settings
    gpus = () if options.elsewhere else _gpus(chosen_device(settings.options.get("device", "auto")))

    def small() -> Iterator[Task]:
        for job in chain([first], jobs):
            if split and job.blocks > split:
                large.append(job)
            else:
                yield Task(job.name, work, (job,), partial(_has_changed, job))

    with Cluster(options, listener.message, gpus) as cluster:
        for event in cluster.run(small(), listener.started, listener.progress):
            yield None if event is None else event[1]
        if not large:
            return
        device = _device_elsewhere(cluster, settings) if options.elsewhere else None
        if device is not None:
            settings = replace(settings, options={**settings.options, "device": device})
        for job in large:
            listener.started(job.name, f"{cluster.threads} workers")
            yield work(job, partial(listener.progress, job.name), ClusterBlocks(cluster, settings), device)


def _gpus(device: str) -> tuple[str, ...]:
    """Those that workers of this machine share, where any of its GPUs will do; one that is named is for all of them."""
    return visible_gpus() if device == "cuda" else ()


def _has_changed(job: Job) -> bool:
    """Whether the inputs of a job are wrong as this process sees them, too."""
    return any(changed_inputs(job))


def _device_elsewhere(cluster: Cluster, settings: Settings) -> str:
    """The device of workers on other machines, of which "auto" is what the first one to answer has."""
    device = str(settings.options.get("device", "auto"))
    if device != "auto":
        return device
    for event in cluster.run([Task("device", work_device, ())], _ignore, _ignore):
        if event is not None:
            outcome = event[1]
            if outcome.kind != "done":
                raise WorkerError(f"no worker could tell its device: {outcome.error}")
            return str(outcome.result)
    raise WorkerError("no worker could tell its device; give --device cpu or cuda")


def work_device(progress: ProgressCallback | None = None) -> Outcome:
    """The device that "auto" is on this worker."""
    return Outcome("", "done", result=chosen_device("auto"), worker=this_process())


def _ignore(name: str, event: object) -> None:
    """Nothing is shown."""


class SceneOnWorkers:
    """Starts or joins a cluster once the plan is made, and has it compute the blocks; see `BlockRunner`."""

    def __init__(self, cluster: ClusterOptions, options: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.cluster, self.options, self.say = cluster, dict(options), say

    def __call__(self, plan: Plan, workdir: Workdir, restorer: Restorer, **how: Any) -> RunCounts:
        remaining = plan.blocks.count - len(workdir.done(plan.blocks))
        if not remaining:
            return run_blocks(plan, workdir, restorer, **how)
        asked, threads, gpus = self.cluster, int(plan.software[THREADS]), tuple[str, ...]()
        if asked.workers is not None:
            workers, gpus = min(asked.workers, remaining), _gpus(plan.device)
            asked = replace(asked, workers=workers)
            self._warn(workers, threads, plan.device)
        options = {**self.options, "device": plan.device}
        if plan.model.source:  # pinned, so that every worker takes the same
            options["model"] = plan.model.source
        settings = Settings(options, {}, plan.model.sha256, threads, same_software())
        with Cluster(asked, self.say, gpus) as cluster:
            return ClusterBlocks(cluster, settings)(plan, workdir, restorer, **how)

    def _warn(self, workers: int, threads: int, device: str) -> None:
        count = cores()
        if device == "cpu" and threads > 1 and workers * threads > count:
            self.say(
                f"{workers} workers with {threads} threads each share {count} cores, for the bytes of one process; "
                f"--threads {max(count // workers, 1)} is faster and moves last bits"
            )


class ClusterBlocks:
    """Has workers compute the blocks of a run; see `BlockRunner`. The same pixels as `run_blocks` in one process.

    Args:
        cluster: of workers.
        settings: which model, and what the software must be.
    """

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster, self.settings = cluster, settings

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
        done_before = workdir.done(plan.blocks)
        todo = [i for i in plan.blocks.serpentine() if i not in done_before]
        length = min(_MOST_BLOCKS, max(1, len(todo) // (_TASKS_A_THREAD * max(self.cluster.threads, 1))))
        parts = [tuple(todo[i : i + length]) for i in range(0, len(todo), length)]
        done, windows, seconds = len(done_before), 0, 0.0
        within: dict[str, float] = {}

        def tell(name: str = "", at: Progress | None = None) -> None:
            if at is not None:
                within[name] = at.done
            if progress:
                progress(Progress("blocks", min(done + sum(within.values()), plan.blocks.count), plan.blocks.count))

        tasks = (
            Task(f"blocks {part[0]}", work_blocks, (self.settings, str(workdir.path), plan, part, batch_size))
            for part in parts
        )
        tell()
        for event in self.cluster.run(tasks, _ignore, tell):
            if event is not None:
                task, outcome = event
                if outcome.kind != "done":
                    kind = InputError if outcome.kind == "area" else WorkerError
                    raise kind(f"{task.name}: {outcome.error}")
                counts: RunCounts = outcome.result
                within.pop(task.name, None)
                done += len(task.args[3])
                windows += counts.windows
                seconds += counts.restore_seconds
            tell()
        missing = plan.blocks.count - len(workdir.done(plan.blocks))
        if missing:
            raise OutputError(
                f"{workdir.path}: {missing} finished blocks are not to be seen here; all workers need "
                f"the same output folder"
            )
        return RunCounts(plan.blocks.count, len(done_before), windows, batch_size, seconds, perf_counter() - started)


def work_blocks(
    settings: Settings,
    folder: str,
    plan: Plan,
    blocks: Sequence[int],
    batch_size: int,
    progress: ProgressCallback | None = None,
) -> Outcome:
    """Compute blocks of a run that are not there yet, into its folder.

    Args:
        settings: which model, and what the software must be.
        folder: of the run; its plan.json must still be this plan.
        plan: of the run; beside the file it has the signatures of URLs.
        blocks: indices against the plan.
        batch_size: windows restored together.
        progress: called now and then.
    """
    started = perf_counter()

    def done() -> Outcome:
        workdir = Workdir(Path(folder))
        if not workdir.plan.exists():
            raise UnfitError(f"{workdir.plan}: cannot be seen here; all workers need the same output folder")
        with held(workdir.workers, str(workdir.path), "wait for it", shared=True):
            _check_plan(workdir, plan)
            restorer = plan.restorer(model_for(settings))
            counts = run_blocks(plan, workdir, restorer, batch_size=batch_size, order=blocks, progress=progress)
        return Outcome("", "done", seconds=perf_counter() - started, result=counts, worker=this_process())

    return guarded(done)


def _check_plan(workdir: Workdir, plan: Plan) -> None:
    """Whether the folder is still that of the plan, whose inputs are to be seen here."""
    try:
        same = json.loads(workdir.plan.read_bytes()) == plan.to_dict()
    except OSError as error:
        raise UnfitError(f"{workdir.plan}: cannot be read here ({error.strerror})") from error
    except ValueError:
        same = False
    if not same:
        raise ResumeError(f"{workdir.plan}: is not the plan that the blocks belong to; begin the run again")
    try:
        check_inputs(plan)
    except InputError as error:
        raise UnfitError(f"{error}; all workers need the same inputs under the same paths") from error
