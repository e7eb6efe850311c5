"""Runs a batch: plans some areas at a time, has them done, and keeps the manifest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from geo_refdiff.batch.areas import Area
from geo_refdiff.batch.inputs import Plan, Planner, plan_or_reason
from geo_refdiff.batch.jobs import Settings, Ticket, output_of, write_jobs
from geo_refdiff.batch.manifest import Manifest, as_json, text_of_notes
from geo_refdiff.batch.work import Outcome, work
from geo_refdiff.engine.run import Progress
from geo_refdiff.raster.stac import rfc3339

CHUNK, PLANNING = 256, 0.5
"""Areas that are planned together at most, and seconds: workers have work for about so long meanwhile."""


@dataclass(frozen=True, slots=True)
class Task:
    """A job to be done.

    Attributes:
        name: of the area.
        ticket: for whoever does it.
        blocks: of its output.
    """

    name: str
    ticket: Ticket
    blocks: int


class Watch(Protocol):
    """Is told how a batch goes."""

    def total(self, done: int, failed: int, count: int) -> None:
        """How many areas are done, failed, and there at all."""

    def started(self, name: str, worker: str) -> None:
        """An area has been begun."""

    def told(self, name: str, progress: Progress) -> None:
        """How far an area is."""

    def finished(self, outcome: Outcome) -> None:
        """An area is done or has failed."""

    def say(self, text: str) -> None:
        """Something that people should know, one line."""


Runner = Callable[[Iterable[Task], Watch], Iterator[Outcome | None]]
"""Does tasks and gives the outcome of each, in any order; None now and then while nothing is finished."""


def run_here(tasks: Iterable[Task], watch: Watch) -> Iterator[Outcome | None]:
    """Do tasks one after the other in this process."""
    for task in tasks:
        watch.started(task.name, "")

        def tell(progress: Progress, name: str = task.name) -> None:
            watch.told(name, progress)

        yield work(task.ticket, tell)


@dataclass
class Counts:
    """How many areas are done, failed and there at all, and the megapixels made by this run."""

    done: int
    failed: int
    count: int
    megapixels: float = 0.0
    errors: list[tuple[str, str]] = field(default_factory=list)


class Run:
    """One run over the areas that are to be done.

    Args:
        folder: of the outputs, held.
        planner: makes their jobs.
        settings: of the batch.
        manifest: of the batch.
        watch: is told.
        attempts: that were made at each area before.
    """

    def __init__(
        self,
        folder: Path,
        planner: Planner,
        settings: Settings,
        manifest: Manifest,
        watch: Watch,
        attempts: Mapping[str, int],
    ) -> None:
        self.folder, self.planner, self.settings = folder, planner, settings
        self.manifest, self.watch = manifest, _Noting(watch, manifest, attempts)
        self._notes: dict[str, tuple[str, ...]] = {}

    def __call__(self, areas: Sequence[Area], runner: Runner, counts: Counts) -> None:
        """Do the areas; returns when each is done or has failed.

        Raises:
            OutputError: the manifest or the jobs cannot be written.
            KeyboardInterrupt: passed on; what is done is noted.
        """
        self.watch.total(counts.done, counts.failed, counts.count)
        try:
            for outcome in runner(self._tasks(areas, counts), self.watch):
                if outcome is not None:
                    self._note(outcome, counts)
                self.manifest.write_soon()
        finally:
            self.watch.stop()
            self.manifest.write()

    def _tasks(self, areas: Sequence[Area], counts: Counts) -> Iterator[Task]:
        left, part = deque(areas), 0
        while left:
            plans: list[Plan] = []
            until = monotonic() + PLANNING
            while left and len(plans) < CHUNK and (not plans or monotonic() < until):
                area = left.popleft()
                plan = self._planned(area, counts)
                if plan is not None:
                    plans.append(plan)
                    self._notes[area.name] = plan.notes
                    stamps = as_json(plan.job.stamps)
                    self.manifest.set(area.name, **plan.values, output=self._output(area), inputs=stamps)
                self.manifest.write_soon()
            tickets = write_jobs(self.folder, part, self.settings, [plan.job for plan in plans]) if plans else []
            part += 1
            for plan, ticket in zip(plans, tickets, strict=True):
                yield Task(plan.job.name, ticket, plan.blocks)

    def _output(self, area: Area) -> str:
        return output_of(self.folder, area.name, self.settings.options).name

    def _planned(self, area: Area, counts: Counts) -> Plan | None:
        plan = plan_or_reason(self.planner, area)
        if isinstance(plan, Plan):
            return plan
        self._note(Outcome(area.name, "area", plan), counts)
        return None

    def _note(self, outcome: Outcome, counts: Counts) -> None:
        values: dict[str, Any] = {
            "finished": _now(),
            "seconds": round(outcome.seconds, 3),
            "worker": outcome.worker or None,
        }
        planned = self._notes.pop(outcome.name, ())
        if outcome.kind == "done":
            counts.done += 1
            counts.megapixels += float(outcome.figures.get("megapixels", 0.0))
            notes = text_of_notes((*planned, *outcome.notes))
            values |= {"status": "done", "error": None, "notes": notes, **outcome.figures}
        else:
            counts.failed += 1
            counts.errors.append((outcome.name, outcome.error))
            values |= {"status": "failed", "error": outcome.error}
        self.manifest.set(outcome.name, **values)
        self.watch.finished(outcome)
        self.watch.total(counts.done, counts.failed, counts.count)


class _Noting:
    """Passes on what a watch is told, and notes beginnings in the manifest."""

    def __init__(self, watch: Watch, manifest: Manifest, attempts: Mapping[str, int]) -> None:
        self._watch, self._manifest, self._attempts = watch, manifest, dict(attempts)
        self._running: set[str] = set()
        self.total, self.say = watch.total, watch.say

    def started(self, name: str, worker: str) -> None:
        self._attempts[name] = self._attempts.get(name, 0) + 1
        self._running.add(name)
        self._manifest.set(name, status="running", started=_now(), attempts=self._attempts[name], worker=worker or None)
        self._manifest.write_soon()
        self._watch.started(name, worker)

    def told(self, name: str, progress: Progress) -> None:
        self._manifest.write_soon()
        self._watch.told(name, progress)

    def finished(self, outcome: Outcome) -> None:
        self._running.discard(outcome.name)
        self._watch.finished(outcome)

    def stop(self) -> None:
        """What was begun and not finished is to be done again."""
        for name in self._running:
            self._manifest.set(name, status="pending")


def _now() -> str:
    return rfc3339(datetime.now(UTC))
