"""The benchmark of a training run's data prints what it measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from benchmarks import training


def test_loop_and_network_alone_stand_side_by_side(landscapes: Callable[..., Path]) -> None:
    small = (
        "model.widths=[8, 8]", "model.hidden=8", "model.full_width=4", "model.embedding=8", "samples.crop=32",
        "training.batch=2",
    )  # fmt: skip
    settings = [part for setting in small for part in ("--set", setting)]
    asked = ["cpu-minutes", *settings, "--data", str(landscapes("10000-10000")), "--device", "cpu"]
    done = CliRunner().invoke(training.main, [*asked, "--steps", "1", "--rounds", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    rows = [re.split(r" *\| *", line)[1:-1] for line in done.output.splitlines() if line.startswith("|")]
    assert rows[0] == ["", "images/s", "waiting for data", "of the network alone"]
    (alone, speed, waited, share), (loop, slower, waits, part) = rows[2:]
    assert (alone, loop) == ("network alone, ready batches", "training loop")
    assert (waited, share) == ("0.0%", "100.0%")
    assert abs(float(slower) / float(speed) - float(part.rstrip("%")) / 100) < 0.01
    verdict = "yes" if float(waits.rstrip("%")) <= 5 else "no"
    assert f"waiting for data at most 5% of the time: {verdict}" in done.output
