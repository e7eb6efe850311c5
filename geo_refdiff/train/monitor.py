"""What a run reports: lines in the terminal with an estimate of the time left, log.jsonl, TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from geo_refdiff.engine.estimate import duration
from geo_refdiff.errors import OptionError
from geo_refdiff.raster.files import output_error, write_bytes_atomic

LOG = "log.jsonl"


class Monitor:
    """Takes note of steps and losses.

    A line that cannot be written (full disk) is kept, and written with the next one that can be.

    Args:
        folder: of log.jsonl (and of the folder tensorboard); None = write nothing.
        steps: of the whole run.
        first: steps done before; lines of log.jsonl after it are dropped.
        log: takes a line for the terminal.
        tensorboard: write events, too.

    Attributes:
        last_validation: the newest figures.

    Raises:
        OptionError: TensorBoard is asked for and not installed.
        OutputError: log.jsonl cannot be written.
    """

    def __init__(
        self, folder: Path | None, steps: int, first: int, log: Callable[[str], None], tensorboard: bool
    ) -> None:
        self.folder, self.steps, self.log = folder, steps, log
        self.images = self.all_images = 0
        self.busy = self.waited = self.all_busy = self.all_waited = 0.0
        self.done = self.first = first
        self.begun = time.monotonic()
        self.last_validation: dict[str, float] = {}
        self._pending = ""
        self._writer: Any = None
        if folder is None:
            return
        self.last_validation = _truncate(folder / LOG, first)
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise OptionError("report.tensorboard needs TensorBoard: pip install 'geo-refdiff[train]'") from error
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def step(self, images: int, spent: float, waited: float) -> None:
        """One step is done: samples of all processes, seconds of work, seconds of waiting for data."""
        self.images += images
        self.busy += spent
        self.waited += waited
        self.done += 1

    def line(self, step: int, losses: dict[str, float], rate: float) -> None:
        """A line of the log; counts since the last one start over."""
        speed, share = _speed(self.images, self.busy, self.waited)
        record = {"step": step, "loss": sum(losses.values()), **losses, "rate": rate}
        self._write(record | {"images_per_s": round(speed, 2), "waiting": round(share, 4)})
        remaining = (time.monotonic() - self.begun) / max(self.done - self.first, 1) * (self.steps - step)
        terms = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self.log(
            f"step {step}/{self.steps}  {terms}  {speed:.1f} images/s, {100 * share:.0f} % waiting, "
            f"{duration(remaining)} left"
        )
        self._scalars("loss", {**losses, "rate": rate, "images_per_s": speed}, step)
        self.all_images, self.all_busy = self.all_images + self.images, self.all_busy + self.busy
        self.all_waited += self.waited
        self.images, self.busy, self.waited = 0, 0.0, 0.0

    def validation(self, step: int, figures: dict[str, float]) -> None:
        """Figures of a validation."""
        if not figures:
            return
        self.last_validation = figures
        self._write({"step": step, "validation": figures})
        self.log(f"step {step}/{self.steps}  " + "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        self._scalars("validation", figures, step)

    def summary(self) -> str:
        """One line over all steps of this session."""
        speed, share = _speed(self.all_images, self.all_busy, self.all_waited)
        seconds = time.monotonic() - self.begun
        return (
            f"{self.done - self.first} steps in {duration(seconds)}: {speed:.1f} images/s, {100 * share:.1f} % of the "
            f"time waiting for data"
        )

    def close(self) -> None:
        """Flush what is open."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.close()

    def _write(self, record: dict[str, Any]) -> None:
        if self.folder is None:
            return
        self._pending += json.dumps(record) + "\n"
        log = self.folder / LOG
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(self._pending)
            self._pending = ""
        except OSError as error:
            self.log(f"warning: {output_error(log, error)}; the line is kept for later")

    def _scalars(self, group: str, values: dict[str, float], step: int) -> None:
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
            self._writer.flush()
        except OSError as error:
            self._writer = None
            self.log(f"warning: TensorBoard events cannot be written ({error.strerror or error}); no more are")


def _truncate(log: Path, step: int) -> dict[str, float]:
    """Drop what was logged after a step, as it is going to be done again; the newest validation that remains."""
    if not log.is_file():
        return {}
    try:
        lines = [(line, _record(line)) for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError as error:
        raise output_error(log, error) from error
    kept = [(line, record) for line, record in lines if record.get("step", step + 1) <= step]
    write_bytes_atomic(log, "".join(f"{line}\n" for line, _ in kept).encode())
    figures: dict[str, float] = next((r["validation"] for _, r in reversed(kept) if "validation" in r), {})
    return figures


def _record(line: str) -> dict[str, Any]:
    """A line of the log; empty for one that a kill cut short."""
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _speed(images: int, busy: float, waited: float) -> tuple[float, float]:
    """(images a second, share of the time spent waiting)."""
    seconds = max(busy + waited, 1e-9)
    return images / seconds, waited / seconds
