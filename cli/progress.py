"""Progress of a run or a batch on stderr: bars in a terminal, lines where a program reads them, else one a minute."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from geo_refdiff.cli.console import Console, say

if TYPE_CHECKING:
    from geo_refdiff.batch.jobs import Outcome
    from geo_refdiff.engine.run import Progress

VARIABLE = "GEO_REFDIFF_PROGRESS"
"""Environment variable: "lines" asks for plain lines on stderr, as the QGIS plugin does."""

_EVERY, _LINES_EVERY = 60.0, 0.2
"""Seconds between lines where there is no terminal, and where a program reads them."""

_MOST = 12
"""Bars at once."""


class Display:
    """Shows how far something is; what is shown in a terminal is gone after the block.

    With -q nothing is shown; a log file gets a line a minute in any case.

    Attributes:
        live: whether there is a terminal that shows bars.
    """

    def __init__(self) -> None:
        console = Console.current()
        quiet = console is not None and console.quiet
        self._lines = os.environ.get(VARIABLE) == "lines" and not quiet
        self.live = sys.stderr.isatty() and not self._lines and not quiet
        self._last = monotonic()
        self._bars: Any = None
        self._ids: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(
        self, text: str, done: float = 0.0, total: float | None = None, *, remaining: str = "", part: str | None = None
    ) -> None:
        """Show how far something is.

        Args:
            text: what it is at.
            done: of the total.
            total: None: nobody knows.
            remaining: how long it will still take, "3 min 20 s".
            part: name of one of several things under way, which only a terminal has room for; None: the whole.
        """
        remaining = f"{remaining} left" if remaining else ""
        if self.live:
            self._draw(text, done, total, remaining, part)
        if part is None and self._is_due(done, total):
            self._last = monotonic()
            share = f" ({done / total:.0%})" if total else ""
            say(f"{text}{share}{f', {remaining}' if remaining else ''}", drawn=self.live)

    def _is_due(self, done: float, total: float | None) -> bool:
        passed = monotonic() - self._last
        return passed >= (_LINES_EVERY if self._lines else _EVERY) or (self._lines and (total is None or done >= total))

    def remove(self, part: str) -> None:
        """A part is not under way any more."""
        if part in self._ids:
            self._bars.remove_task(self._ids.pop(part))
            for number, shown in enumerate(self._ids.values()):
                self._bars.update(shown, visible=number <= _MOST)

    def message(self, text: str, level: int = logging.INFO) -> None:
        """A line that stays; -q leaves those of level ERROR alone."""
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        say(text, level, drawn=self._bars is not None)

    def close(self) -> None:
        """Remove the bars."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._ids = None, {}

    def _draw(self, text: str, done: float, total: float | None, remaining: str, part: str | None) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        key = part or ""
        if key not in self._ids:
            self._ids[key] = self._bars.add_task("", remaining="", visible=len(self._ids) <= _MOST)
        self._bars.update(self._ids[key], description=text, completed=done, total=total, remaining=remaining)


def _bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    text, rest = Column(no_wrap=True, overflow="ellipsis"), Column(no_wrap=True)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=text),
        BarColumn(20),
        TaskProgressColumn(),
        TextColumn("{task.fields[remaining]}", markup=False, table_column=rest),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, refresh_per_second=5)


class Pace:
    """How long the rest takes, by the speed since the first look."""

    def __init__(self) -> None:
        self._begun: tuple[float, float] | None = None

    def remaining(self, done: float, total: float) -> str:
        """In words; "" where nothing is done since, or all."""
        now = monotonic()
        self._begun = self._begun or (now, done)
        started, first = self._begun
        from geo_refdiff.engine.estimate import duration

        return duration((now - started) / (done - first) * (total - done)) if first < done < total else ""


class RunMeter(Display):
    """Shows how far a run of `upscale` is; see `ProgressCallback`.

    Attributes:
        said: notes that it has passed on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pace = Pace()
        self.said: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self.show("planning ...")
        return self

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "plan":
            if progress.estimate:
                self.message(progress.estimate)
            self.said = progress.notes
            for note in progress.notes:
                self.message(f"note: {note}")
        elif progress.stage == "publish":
            self.show("writing the GeoTIFF ...")
        else:
            remaining = self._pace.remaining(progress.done, progress.total)
            self.show(block_of(progress), progress.done, progress.total, remaining=remaining)


def block_of(progress: Progress) -> str:
    """The block that a run is at: "block 3 of 12"."""
    return f"block {min(int(progress.done) + 1, progress.total)} of {progress.total}"


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Shows how many of something are done, called with that and their number."""
    with Display() as display:
        pace = Pace()

        def show(done: int, total: int) -> None:
            display.show(f"{what} {done} of {total}", done, total, remaining=pace.remaining(done, total))

        yield show


class BatchMeter(Display):
    """Shows how a batch is going; see `ProgressListener`."""

    def __init__(self) -> None:
        super().__init__()
        self._pace = Pace()
        self._over = self._count = -1

    def total(self, done: int, failed: int, count: int) -> None:
        """How many areas are done, failed, and there at all."""
        over = done + failed
        if self._count < 0 and over and not self.live:
            self.message(f"{done} of {count} areas are done already, {failed} failed")
        self._over, self._count = over, count
        text = f"{over} of {count} areas" + (f", {failed} failed" if failed else "")
        self.show(text, over, count, remaining=self._pace.remaining(over, count))

    def started(self, name: str, worker: str) -> None:
        """An area has been begun."""
        self.show(f"  {name}: on {worker}" if worker else f"  {name}", part=name)

    def progress(self, name: str, progress: Progress) -> None:
        """How far an area is."""
        if progress.stage == "plan":  # its notes are in the manifest
            return
        text = "writing" if progress.stage == "publish" else block_of(progress)
        self.show(f"  {name}: {text}", progress.done, progress.total, part=name)

    def finished(self, outcome: Outcome) -> None:
        """An area is done or has failed: a line that stays, for failures in a terminal, for all elsewhere."""
        self.remove(outcome.name)
        place = f"[{self._over + 1}/{self._count}]"
        if outcome.kind != "done":
            self.message(f"{place} {outcome.name} failed: {outcome.error}", logging.ERROR)
        elif not self.live:
            self.message(f"{place} {outcome.name} done in {outcome.seconds:.1f} s")
