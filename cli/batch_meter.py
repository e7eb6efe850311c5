"""How a batch is going: a bar for all areas and one for each that is under way, lines for what is finished."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from geo_refdiff.cli.progress import Display, Pace, block_of

if TYPE_CHECKING:
    from geo_refdiff.batch.jobs import Outcome
    from geo_refdiff.engine.run import Progress


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
