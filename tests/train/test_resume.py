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

SETTINGS = ["training.steps=40", "report.save_minutes=0", "report.log_steps=3"]
COMMAND = [sys.executable, "-m", "geo_refdiff.cli.main", "train"]


def start(toml: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    command = [*COMMAND, str(toml), "-o", str(out), *settings, "--device", "cpu", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = process.communicate(timeout=300)
    return process.returncode, told


def step_of(out: Path) -> int:
    try:
        return int(json.loads((out / "state" / "progress.json").read_text())["step"])
    except (OSError, ValueError):  # none yet, or one is just taking the place of another
        return 0


def losses(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_s", "waiting")} for line in lines]


def test_a_killed_run_goes_on_to_the_same_end(tiny_toml: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, told = ended(start(tiny_toml, whole))
    assert code == 0, told

    process = start(tiny_toml, killed)
    while step_of(killed) < 4 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert ended(process)[0] == -signal.SIGKILL
    assert 4 <= step_of(killed) < 40
    with (killed / "log.jsonl").open("a") as log:
        log.write('{"step": 41, "lo')  # as a kill while writing leaves it

    code, told = ended(start(tiny_toml, killed, "--resume"))
    assert code == 0, told
    assert "going on after step" in told
    assert losses(killed) == losses(whole)
    assert [line["step"] for line in losses(whole)] == [*range(3, 40, 3), 40]
    for name in ("network", "average", "optimizer"):
        file = Path("state") / f"{name}.safetensors"
        assert (killed / file).read_bytes() == (whole / file).read_bytes()
    assert (killed / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
