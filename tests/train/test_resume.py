"""Killed by SIGKILL in mid-run and gone on with, a run ends as if nothing had happened, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from geo_refdiff.cli.main import run
from geo_refdiff.errors import ResumeError
from geo_refdiff.train.run_folder import find_state, read_progress

SETTINGS = ("training.decay=0", "training.batch=2", "report.save_minutes=0", "report.log_steps=3")
WEIGHTS = ("state/network", "state/average", "state/optimizer", "model/model")


def arguments(toml: Path, out: Path, steps: int) -> list[str]:
    settings = [part for setting in (*SETTINGS, f"training.steps={steps}") for part in ("--set", setting)]
    return ["train", str(toml), "-o", str(out), *settings, "--device", "cpu"]


def step_of(out: Path) -> int:
    try:
        state = find_state(out)
        return read_progress(state).step if state else 0
    except ResumeError:  # it is just making place for the next one
        return 0


def losses(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_s", "waiting")} for line in lines]


def test_a_killed_run_goes_on_to_the_same_end(
    tiny_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    endless = [sys.executable, "-m", "geo_refdiff.cli.main", *arguments(tiny_toml, killed, 1_000_000)]
    with subprocess.Popen(endless, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        while step_of(killed) < 4 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = step_of(killed)
    assert kept >= 4
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 1000, "lo')  # as a kill while writing leaves it

    steps = kept + 7
    assert run(arguments(tiny_toml, whole, steps)) == 0
    capsys.readouterr()
    assert run([*arguments(tiny_toml, killed, steps), "--resume"]) == 0
    assert f"going on after step {kept}\n" in capsys.readouterr().err
    assert losses(killed) == losses(whole)
    assert [line["step"] for line in losses(whole)] == [*range(3, steps, 3), steps]
    for name in WEIGHTS:
        assert (killed / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()
