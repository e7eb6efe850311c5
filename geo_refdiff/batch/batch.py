"""Upscale many areas of interest: from files and options to a folder of outputs with a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from geo_refdiff.batch.areas import Area, read_areas
from geo_refdiff.batch.inputs import Planner, Sources, check_options
from geo_refdiff.batch.jobs import Settings, output_of, plain_options
from geo_refdiff.batch.manifest import Manifest
from geo_refdiff.batch.planned import PlannedArea, PlanTable, plan_table
from geo_refdiff.batch.run import Counts, Run, Runner, Watch, run_here
from geo_refdiff.batch.state import (
    check_folder,
    held_folder,
    open_manifest,
    rules_of,
    settled,
    take_over,
    tidy,
)
from geo_refdiff.batch.work import open_batch_model, same_software
from geo_refdiff.errors import GeoRefDiffError, OptionError
from geo_refdiff.raster.cores import cores
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.restore.models import Model

__all__ = ["BatchInterrupted", "BatchResult", "PlanTable", "PlannedArea", "batch"]


class BatchInterrupted(KeyboardInterrupt):
    """Ctrl-C during a batch; what is finished is kept."""


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

    @property
    def complete(self) -> bool:
        """Whether every area is done."""
        return self.done == self.areas

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "folder": str(self.folder),
            "manifest": str(self.manifest),
            "areas": self.areas,
            "done": self.done,
            "failed": self.failed,
            "failed_before": self.failed_before,
            "seconds": round(self.seconds, 3),
            "megapixels": round(self.megapixels, 3),
            "errors": dict(self.errors),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [
            f"{self.folder}: {self.done} of {self.areas} areas done, {self.failed} failed; {self.seconds:.1f} s, "
            f"{self.megapixels:.1f} MPix",
            f"  manifest: {self.manifest}",
        ]
        if self.failed:
            before = f" ({self.failed_before} of them before)" if self.failed_before else ""
            lines.append(
                f"  {self.failed} failed{before}: see the manifest's column error; try again with --retry-failed"
            )
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(frozen=True)
class Silent:
    """A watch that says nothing."""

    said: list[str] = field(default_factory=list)

    def total(self, done: int, failed: int, count: int) -> None:
        """Nothing."""

    def started(self, name: str, worker: str) -> None:
        """Nothing."""

    def told(self, name: str, progress: object) -> None:
        """Nothing."""

    def finished(self, outcome: object) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Kept."""
        self.said.append(text)


def batch(
    areas: str | Path,
    sources: Sources,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    name_field: str | None = None,
    threads: int | None = None,
    runner: Callable[[Settings], Runner] | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    collection: bool = True,
    report: str | Path | None = None,
    watch: Watch | None = None,
    elsewhere: bool = False,
) -> BatchResult:
    """Upscale every area, each into a file of its own; goes on where an earlier run of the same batch stopped.

    Args:
        areas: vector file, `FILE|layername=NAME` for one layer of several; see `read_areas`.
        sources: scenes, references and masks to choose from.
        out: folder for the outputs; made if it is missing.
        options: of `upscale`, for all areas.
        name_field: field of the areas that names the outputs.
        threads: that torch computes with for one area; kept for the whole life of the batch. Default: all cores for one
            process, 1 for workers.
        runner: makes who does the work; None: this process, one area after the other.
        retry_failed: try failures of earlier runs again.
        overwrite: begin anew; outputs that are there are replaced.
        collection: write a STAC collection, and its items as GeoParquet, of all that is done.
        report: HTML page to write; a page of an earlier run is replaced, another file with `overwrite` only.
        watch: is told how it goes.
        elsewhere: the runner's workers may be other machines, whose device this one need not have.

    Raises:
        GeoRefDiffError: nothing can be done at all; an area's own failure is in the manifest instead.
        BatchInterrupted: Ctrl-C; the same command goes on.
    """
    started = perf_counter()
    given = dict(options or {})
    if threads is not None and threads < 1:
        raise OptionError(f"threads {threads}: give 1 or more")
    listener: Watch = watch or Silent()
    folder = Path(out).absolute()
    check_options(given)
    if report is not None:
        from geo_refdiff.batch.report import check_report

        check_report(Path(report), folder, overwrite=overwrite)
    found = read_areas(areas, name_field)
    model = open_batch_model(given, _device_of(given, elsewhere))
    planner = Planner(sources, folder, given, model)
    with held_folder(folder):
        counted = threads or (1 if runner else cores())
        asked = _asked(given, sources, model) | {"threads": counted, "replace": overwrite}
        kept = take_over(folder, asked, overwrite=overwrite)
        settings = Settings(plain_options(given), kept["threads"], model.sha256, same_software(), kept["replace"])
        manifest, todo, notes = open_manifest(
            folder, found, settings.options, retry_failed=retry_failed, overwrite=overwrite
        )
        rows = manifest.values()
        for text in planner.unusable:
            listener.say(f"left out: {text}")
        wanted = set(todo)
        before = sum(row["status"] == "failed" for name, row in rows.items() if name not in wanted)
        counts = Counts(len(found) - len(todo) - before, before, len(found))
        attempts = {name: int(row["attempts"] or 0) for name, row in rows.items()}
        run = Run(folder, planner, settings, manifest, listener, attempts)
        try:
            run([a for a in found if a.name in wanted], runner(settings) if runner else run_here, counts)
        except KeyboardInterrupt as stop:
            raise BatchInterrupted(
                f"interrupted: {counts.done} of {counts.count} areas are done in {folder}; the same command goes on"
            ) from stop
        notes += _finish(folder, manifest, found, settings, counts, collection, report)
    return BatchResult(
        folder,
        manifest.path,
        len(found),
        counts.done,
        counts.failed,
        perf_counter() - started,
        counts.megapixels,
        tuple(counts.errors),
        before,
        tuple(notes),
    )


def plan_batch(
    areas: str | Path,
    sources: Sources,
    out: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    name_field: str | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    elsewhere: bool = False,
) -> PlanTable:
    """What `batch` would do, without doing it; only VRTs of inputs that would be mosaicked are written, into a
    temporary folder.

    Args:
        areas, sources, out, options, name_field, retry_failed, overwrite, elsewhere: as of `batch`.

    Raises:
        GeoRefDiffError: as `batch`.
    """
    from tempfile import TemporaryDirectory

    given = dict(options or {})
    folder = Path(out).absolute()
    check_options(given)
    found = read_areas(areas, name_field)
    model = open_batch_model(given, _device_of(given, elsewhere))
    check_folder(folder)
    settled(folder, _asked(given, sources, model), overwrite=overwrite)
    with TemporaryDirectory(prefix="geo-refdiff-") as scratch:
        planner = Planner(sources, Path(scratch), given, model)
        return plan_table(found, planner, folder, retry_failed=retry_failed, overwrite=overwrite)


def _device_of(options: Mapping[str, Any], elsewhere: bool) -> str | None:
    """Of workers on other machines; None: of this one."""
    return str(options.get("device", "auto")) if elsewhere else None


def _asked(options: Mapping[str, Any], sources: Sources, model: Model) -> dict[str, Any]:
    """What a batch must be given again to be gone on with."""
    return {"options": plain_options(options), "rules": rules_of(sources), "model_sha256": model.sha256}


def _finish(
    folder: Path,
    manifest: Manifest,
    areas: Sequence[Area],
    settings: Settings,
    counts: Counts,
    collection: bool,
    report: str | Path | None,
) -> list[str]:
    notes = []
    outputs = {a.name: output_of(folder, a.name, settings.options) for a in areas}
    if counts.done == counts.count:
        tidy(folder)
    if collection:
        from geo_refdiff.batch.collection import write_collection

        notes += _or_note("collection", lambda: write_collection(folder, outputs))
    if report is not None:
        notes += _or_note("report", lambda: _report(Path(report), folder, manifest, areas, outputs))
    return notes


def _report(
    page: Path, folder: Path, manifest: Manifest, areas: Sequence[Area], outputs: Mapping[str, Path]
) -> list[str]:
    from geo_refdiff.batch.report import write_report

    rows = manifest.values()
    shown = [a for a in areas if a.name in rows]
    write_report(
        page,
        f"Batch {folder.name}",
        {a.name: rows[a.name] for a in shown},
        {a.name: a.lonlat for a in shown},
        outputs,
    )
    return []


def _or_note(what: str, write: Callable[[], list[str]]) -> list[str]:
    """Notes of writing something beside the outputs, which are done: what goes wrong is a note, too."""
    try:
        return write()
    except GeoRefDiffError as error:
        return [f"no {what}: {error}"]
    except Exception as error:
        return [f"no {what}: unexpected {type(error).__name__}: {one_line(error)}"]
