"""How a batch is going: live lines in a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import shutil
import sys
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from geo_refdiff.cli.upscale import duration

if TYPE_CHECKING:
    from geo_refdiff.batch.work import Outcome
    from geo_refdiff.engine.run import Progress

_EVERY = 0.2
_MOST = 12


class BatchMeter:
    """One line for each area that is being done, and one for all."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._active: dict[str, str] = {}
        self._done = self._failed = self._count = 0
        self._begun: tuple[float, int] | None = None
        self._drawn = 0
        self._last = 0.0

    def total(self, done: int, failed: int, count: int) -> None:
        """How many areas are done, failed, and there at all."""
        self._done, self._failed, self._count = done, failed, count
        if self._begun is None:
            self._begun = monotonic(), done + failed
            if not self._live and done + failed:
                click.echo(f"{done} of {count} areas are done already, {failed} failed", err=True)
        self._draw()

    def started(self, name: str, worker: str) -> None:
        """An area has been begun."""
        self._active[name] = f"on {worker}" if worker else ""
        self._draw()

    def told(self, name: str, progress: Progress) -> None:
        """How far an area is."""
        share = progress.done / max(progress.total, 1)
        at = (
            "writing" if progress.stage == "publish" else f"block {progress.done:.0f} of {progress.total} ({share:.0%})"
        )
        self._active[name] = at
        self._draw()

    def finished(self, outcome: Outcome) -> None:
        """An area is done or has failed: a line that stays, for failures in a terminal, for all elsewhere."""
        self._active.pop(outcome.name, None)
        place = f"[{self._done + self._failed + 1}/{self._count}]"
        if outcome.kind != "done":
            self.say(f"{place} {outcome.name} failed: {outcome.error}")
        elif not self._live:
            self.say(f"{place} {outcome.name} done in {outcome.seconds:.1f} s")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        click.echo(text, err=True)
        self._draw()

    def clear(self) -> None:
        """Remove the live lines."""
        if self._drawn:
            click.echo("\r\033[K" + "\033[A\033[K" * (self._drawn - 1), nl=False, err=True)
            self._drawn = 0
            self._last = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def _draw(self) -> None:
        if not self._live or monotonic() - self._last < _EVERY:
            return
        self.clear()
        self._last = monotonic()
        width = max(20, shutil.get_terminal_size().columns - 1)
        shown = list(self._active.items())[:_MOST]
        lines = [f"  {name}: {text}" if text else f"  {name}" for name, text in shown]
        if len(self._active) > len(shown):
            lines.append(f"  and {len(self._active) - len(shown)} more")
        lines.append(self._summary())
        click.echo("\n".join(line[:width] for line in lines), nl=False, err=True)
        self._drawn = len(lines)

    def _summary(self) -> str:
        over = self._done + self._failed
        text = f"{over} of {self._count} areas" + (f", {self._failed} failed" if self._failed else "")
        if self._begun is not None and over > self._begun[1]:
            pace = (monotonic() - self._begun[0]) / (over - self._begun[1])
            text += f", {duration(pace * (self._count - over))} left"
        return text
