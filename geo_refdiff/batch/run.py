"""Upscale many areas of interest: from files and options to a folder of outputs with a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import msgspec

from geo_refdiff.batch.areas import Area, read_areas
from geo_refdiff.batch.folder import check_folder, held_folder, output_of, save_settings, settled
from geo_refdiff.batch.jobs import Job, Outcome, Settings, choice_rules, plain_options
from geo_refdiff.batch.manifest import Manifest, Opened, open_manifest
from geo_refdiff.batch.plan_table import PlanTable, plan_table
from geo_refdiff.batch.selection import AreaPlan, Planner, check_options, plan_or_reason
from geo_refdiff.batch.work import open_batch_model, same_software, work
from geo_refdiff.engine.run import Progress
from geo_refdiff.errors import GeoRefDiffError
from geo_refdiff.options import BatchOptions, Sources, fields_of, takes_options
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.process import cores
from geo_refdiff.raster.stac import rfc3339
from geo_refdiff.restore.models import Model


class BatchInterrupted(KeyboardInterrupt):
    """Ctrl-C during a batch; what is finished is kept."""


class ProgressListener(Protocol):
    """Receives the progress of a batch; subclasses need not implement every method."""

    def total(self, done: int, failed: int, count: int) -> None:
        """How many areas are done, failed, and there at all."""
        return

    def started(self, name: str, worker: str) -> None:
        """An area has been begun."""
        return

    def progress(self, name: str, progress: Progress) -> None:
        """How far an area is."""
        return

    def finished(self, outcome: Outcome) -> None:
        """An area is done or has failed."""
        return

    def message(self, text: str) -> None:
        """Something that people should know, one line."""
        return


class Silent(ProgressListener):
    """A listener that shows nothing.

    Attributes:
        messages: that it received.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        """Keep a message."""
        self.messages.append(text)


Runner = Callable[[Iterable[Job], ProgressListener], Iterator[Outcome | None]]
"""Does jobs and gives the outcome of each, in any order; None now and then while nothing is finished."""


def run_here(jobs: Iterable[Job], listener: ProgressListener) -> Iterator[Outcome | None]:
    """Do jobs one after the other in this process."""
    for job in jobs:
        listener.started(job.name, "")

        def progress(at: Progress, name: str = job.name) -> None:
            listener.progress(name, at)

        yield work(job, progress)


@dataclass(frozen=True)
class BatchResult:
    """A batch after a run.

    Attributes:
        folder: of the outputs.
        manifest: GeoPackage with a row for each area.
        areas, done, failed: how many.
        seconds: of this run.
        megapixels: made by this run.
        errors: (area, what went wrong) of this run's failures.
        failed_before: failures of earlier runs that were not tried again.
        notes: what deserves a look.
        bands: which of scene, reference and model belong together in the areas of this run; each pairing once.
    """

    folder: Path
    manifest: Path
    areas: int
    done: int
    failed: int
    seconds: float
    megapixels: float
    errors: tuple[tuple[str, str], ...] = ()
    failed_before: int = 0
    notes: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every area is done."""
        return self.done == self.areas

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {
            "folder": str(self.folder),
            "manifest": str(self.manifest),
            "seconds": round(self.seconds, 3),
            "megapixels": round(self.megapixels, 3),
            "errors": dict(self.errors),
            "notes": list(self.notes),
            "bands": list(self.bands),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {self.done} of {self.areas} areas done, {self.failed} failed; {self.seconds:.1f} s, "
            f"{self.megapixels:.1f} MPix",
            f"  manifest: {self.manifest}",
        ]
        lines += [f"  bands: {bands}" for bands in self.bands]
        if self.failed:
            before = f" ({self.failed_before} of them before)" if self.failed_before else ""
            lines.append(
                f"  {self.failed} failed{before}: see the manifest's column error; try again with --retry-failed"
            )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@takes_options(fields_of(BatchOptions))
def batch(
    areas: str | Path,
    sources: Sources,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    runner: Runner | None = None,
    elsewhere: bool = False,
    listener: ProgressListener | None = None,
    **settings: Any,
) -> BatchResult:
    """Upscale every area, each into a file of its own; continues where an earlier run of the same batch stopped.

    Args:
        areas: vector file, `FILE|layername=NAME` for one layer of several; see `read_areas`.
        sources: scenes, references and masks to choose from.
        out: folder for the outputs; made if it is missing.
        options: of `upscale`, for all areas.
        runner: does the work; None: this process, one area after the other.
        elsewhere: the runner's workers may be other machines, whose device this one need not have.
        listener: receives progress.
        settings: as listed below.

    Raises:
        GeoRefDiffError: nothing can be done at all; an area's own failure is in the manifest instead.
        BatchInterrupted: Ctrl-C; the same command continues.
    """
    begun, listener, how = perf_counter(), listener or Silent(), BatchOptions(**settings)
    given, folder, listed, model = _prepared(areas, how.name_field, out, options, elsewhere)
    if how.report is not None:
        from geo_refdiff.batch.report import check_report

        check_report(Path(how.report), folder, overwrite=how.overwrite)
    planner = Planner(sources, folder, given, model)
    with held_folder(folder):
        threads = how.threads or (1 if runner else cores())
        new = _settings(given, sources, model, threads, how.overwrite)
        kept = save_settings(folder, new, overwrite=how.overwrite)
        opened = open_manifest(folder, listed, kept.options, retry_failed=how.retry_failed, overwrite=how.overwrite)
        for text in planner.unusable:
            listener.message(f"left out: {text}")
        run = _Run(planner, kept, opened, len(listed), listener)
        try:
            run(opened.todo, runner or run_here)
        except KeyboardInterrupt as stop:
            raise BatchInterrupted(
                f"interrupted: {run.done} of {run.count} areas are done in {folder}; the same command continues"
            ) from stop
        notes = opened.notes + _written_beside(folder, opened.manifest, listed, kept, how.report)
    return BatchResult(
        folder,
        opened.manifest.path,
        run.count,
        run.done,
        run.failed,
        perf_counter() - begun,
        run.megapixels,
        tuple(run.errors),
        opened.failed_before,
        tuple(notes),
        tuple(run.bands),
    )


@takes_options(fields_of(BatchOptions))
def plan_batch(
    areas: str | Path,
    sources: Sources,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    elsewhere: bool = False,
    **settings: Any,
) -> PlanTable:
    """What `batch` would do with the same arguments, without doing it.

    Only VRTs of inputs that would be mosaicked are written, into a temporary folder.

    Raises:
        GeoRefDiffError: as `batch`.
    """
    from tempfile import TemporaryDirectory

    how = BatchOptions(**settings)
    given, folder, listed, model = _prepared(areas, how.name_field, out, options, elsewhere)
    check_folder(folder)
    kept = settled(folder, _settings(given, sources, model, 1, how.overwrite), overwrite=how.overwrite)
    with TemporaryDirectory(prefix="geo-refdiff-") as scratch:
        planner = Planner(sources, Path(scratch), given, model)
        return plan_table(listed, planner, kept, folder, retry_failed=how.retry_failed, overwrite=how.overwrite)


def _prepared(
    areas: str | Path, name_field: str | None, out: str | Path, options: Mapping[str, Any] | None, elsewhere: bool
) -> tuple[dict[str, Any], Path, list[Area], Model]:
    """Options, folder, areas and model of a batch, after the checks that need nothing but them."""
    given = dict(options or {})
    check_options(given)
    listed = read_areas(areas, name_field)
    device = str(given.get("device", "auto")) if elsewhere else None
    return given, Path(out).absolute(), listed, open_batch_model(given, device)


def _settings(options: Mapping[str, Any], sources: Sources, model: Model, threads: int, overwrite: bool) -> Settings:
    if model.source:  # pinned, so that every worker takes the same
        options = {**options, "model": model.source}
    return Settings(plain_options(options), choice_rules(sources), model.sha256, threads, same_software(), overwrite)


class _Run(ProgressListener):
    """One run over the areas that are to be done: plans each as workers get free, has it done, keeps the manifest.

    It hears how it goes, and passes that on to the listener.

    Attributes:
        done, failed, count: areas.
        megapixels: made by this run.
        errors: (area, what went wrong).
    """

    def __init__(
        self,
        planner: Planner,
        settings: Settings,
        opened: Opened,
        count: int,
        listener: ProgressListener,
    ) -> None:
        self.planner, self.settings, self.manifest, self.listener = planner, settings, opened.manifest, listener
        self.count, self.failed = count, opened.failed_before
        self.done = count - self.failed - len(opened.todo)
        self.megapixels = 0.0
        self.errors: list[tuple[str, str]] = []
        self.bands: dict[str, None] = {}
        self._attempts, self._running = dict(opened.attempts), set[str]()
        self._notes: dict[str, tuple[str, ...]] = {}

    def __call__(self, areas: Sequence[Area], runner: Runner) -> None:
        """Do the areas; returns when each is done or has failed.

        Raises:
            OutputError: the manifest cannot be written.
            KeyboardInterrupt: passed on; what is done is noted.
        """
        self.listener.total(self.done, self.failed, self.count)
        try:
            for outcome in runner(self._jobs(areas), self):
                if outcome is not None:
                    self.finished(outcome)
                self.manifest.write_soon()
        finally:
            for name in self._running:  # begun and not finished: to be done again
                self.manifest.set(name, status="pending")
            self.manifest.write()

    def _jobs(self, areas: Iterable[Area]) -> Iterator[Job]:
        for area in areas:
            plan = plan_or_reason(self.planner, area, self.settings)
            if isinstance(plan, AreaPlan):
                self._notes[area.name] = plan.notes
                if plan.bands:
                    self.bands[plan.bands] = None
                self.manifest.set(area.name, **plan.columns())
                yield plan.job
            else:
                self.finished(Outcome(area.name, "area", plan))
            self.manifest.write_soon()

    def started(self, name: str, worker: str) -> None:
        self._attempts[name] = self._attempts.get(name, 0) + 1
        self._running.add(name)
        self.manifest.set(name, status="running", started=_now(), attempts=self._attempts[name], worker=worker or None)
        self.manifest.write_soon()
        self.listener.started(name, worker)

    def progress(self, name: str, progress: Progress) -> None:
        self.manifest.write_soon()
        self.listener.progress(name, progress)

    def message(self, text: str) -> None:
        self.listener.message(text)

    def finished(self, outcome: Outcome) -> None:
        values: dict[str, Any] = {
            "finished": _now(),
            "seconds": round(outcome.seconds, 3),
            "worker": outcome.worker or None,
        }
        planned = self._notes.pop(outcome.name, ())
        if outcome.kind == "done":
            figures = outcome.result
            self.done += 1
            self.megapixels += figures.megapixels
            notes = "; ".join((*planned, *outcome.notes))
            values |= {"status": "done", "error": None, "notes": notes, **msgspec.structs.asdict(figures)}
        else:
            self.failed += 1
            self.errors.append((outcome.name, outcome.error))
            values |= {"status": "failed", "error": outcome.error}
        self._running.discard(outcome.name)
        self.manifest.set(outcome.name, **values)
        self.listener.finished(outcome)
        self.listener.total(self.done, self.failed, self.count)


def _now() -> str:
    return rfc3339(datetime.now(UTC))


def _written_beside(
    folder: Path,
    manifest: Manifest,
    areas: Sequence[Area],
    settings: Settings,
    report: str | None,
) -> list[str]:
    """Write the collection and the report; notes."""
    from geo_refdiff.batch.collection import write_collection

    outputs = {a.name: output_of(folder, a.name, settings.options) for a in areas}
    notes = _or_note("collection", lambda: write_collection(folder, outputs))
    if report is not None:
        from geo_refdiff.batch.report import write_report

        page, outlines = Path(report), {a.name: a.lonlat for a in areas}
        notes += _or_note(
            "report", lambda: write_report(page, f"Batch {folder.name}", manifest.rows(), outlines, outputs)
        )
    return notes


def _or_note(what: str, write: Callable[[], list[str] | None]) -> list[str]:
    """Notes of writing something beside the outputs, which are done: what goes wrong is a note, too."""
    try:
        return write() or []
    except GeoRefDiffError as error:
        return [f"no {what}: {error}"]
    except Exception as error:
        return [f"no {what}: unexpected {type(error).__name__}: {one_line(error)}"]
