"""Checkpoints: all of a run's state comes back, layouts included; no kill and no full disk loses the last one.

A run that was killed and continued ends as if nothing had happened, to the last bit.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from geo_refdiff.cli.main import run
from geo_refdiff.errors import OutputError, ResumeError
from geo_refdiff.train import run_folder as states
from geo_refdiff.train.run_folder import RunProgress, find_state, load_state, read_progress, remove_state, save_state

NOTE = RunProgress(7, 1.5, {"mean": 0.1 + 0.2}, {"training": {"steps": 9}}, "print", 2, 1)


Parts = tuple[dict[str, nn.Module], dict[str, torch.optim.Optimizer]]


def trained(seed: int, steps: int = 2) -> Parts:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    optimizer = torch.optim.Adam(network.parameters(), foreach=True)
    for _ in range(steps):
        optimizer.zero_grad()
        network(torch.randn(1, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    return {"network": network, "average": average}, {"optimizer": optimizer}


def contents(networks: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]) -> list[torch.Tensor]:
    states = [entry for optimizer in optimizers.values() for entry in optimizer.state.values()]
    moments = [value for entry in states for _, value in sorted(entry.items())]
    return [value for network in networks.values() for value in network.state_dict().values()] + moments


def test_everything_comes_back_with_its_layout(tmp_path: Path) -> None:
    one, other = trained(1), trained(2, steps=0)
    save_state(tmp_path, NOTE, *one)
    result = find_state(tmp_path)
    assert result == tmp_path / "state"
    assert read_progress(result) == NOTE
    assert {path.suffix for path in result.iterdir()} == {".safetensors", ".json"}
    load_state(result, *other)
    for a, b in zip(contents(*one), contents(*other), strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()
    assert list(tmp_path.iterdir()) == [result]


def test_a_new_checkpoint_takes_the_place_of_the_last(tmp_path: Path) -> None:
    parts = trained(1)
    for step in (3, 4):
        save_state(tmp_path, RunProgress(step, 0.0, {}, {}, "", 1), *parts)
    assert read_progress(tmp_path / "state").step == 4
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("moment", ["while writing", "before the first rename", "between the renames", "at the end"])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = trained(1)
    save_state(tmp_path, RunProgress(1, 0.0, {}, {}, "", 1), *parts)

    class Killed(BaseException):
        pass

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "while writing":
            patch.setattr(states, "write_json_atomic", killed)
        elif moment == "before the first rename":
            patch.setattr(Path, "rename", killed)
        elif moment == "between the renames":
            rename = Path.rename
            patch.setattr(Path, "rename", lambda a, b: killed() if a.name == "state.next" else rename(a, b))
        else:
            kept = shutil.rmtree
            patch.setattr(
                states.shutil,
                "rmtree",
                lambda p, **k: killed() if p.name == "state.last" and p.exists() else kept(p, **k),
            )
        with pytest.raises(Killed):
            save_state(tmp_path, RunProgress(2, 0.0, {}, {}, "", 1), *parts)
    result = find_state(tmp_path)
    assert result is not None
    assert read_progress(result).step == (2 if moment == "at the end" else 1)
    load_state(result, *trained(2, steps=0))
    # and the next one is killed again while it is written: the one that is there must not have been touched
    with monkeypatch.context() as patch:
        patch.setattr(states, "write_json_atomic", killed)
        with pytest.raises(Killed):
            save_state(tmp_path, RunProgress(3, 0.0, {}, {}, "", 1), *parts)
    again = find_state(tmp_path)
    assert again is not None
    load_state(again, *trained(2, steps=0))
    save_state(tmp_path, RunProgress(4, 0.0, {}, {}, "", 1), *parts)
    assert read_progress(tmp_path / "state").step == 4


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = trained(1)
    save_state(tmp_path, RunProgress(1, 0.0, {}, {}, "", 1), *parts)
    written = Path.write_bytes

    def full(path: Path, data: Any) -> int:
        if "optimizer" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"the disk is full.*; the last one is kept"):
        save_state(tmp_path, RunProgress(2, 0.0, {}, {}, "", 1), *parts)
    assert read_progress(tmp_path / "state").step == 1
    load_state(tmp_path / "state", *trained(2, steps=0))
    assert [path.name for path in tmp_path.iterdir()] == ["state"]  # what was begun is not left in the way


def test_a_really_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = mounted and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk]).returncode == 0
    if not mounted:
        pytest.skip("a small disk of its own needs the right to mount one")
    try:
        parts = trained(1)
        save_state(disk, RunProgress(1, 0.0, {}, {}, "", 1), *parts)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 4096))
        with pytest.raises(OutputError, match="the disk is full"):
            save_state(disk, RunProgress(2, 0.0, {}, {}, "", 1), *parts)
        assert read_progress(disk / "state").step == 1
        load_state(disk / "state", *trained(2, steps=0))
        (disk / "filler").unlink()
        save_state(disk, RunProgress(3, 0.0, {}, {}, "", 1), *parts)
        assert read_progress(disk / "state").step == 3
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_damaged_checkpoint_is_reported(tmp_path: Path) -> None:
    parts = trained(1)
    save_state(tmp_path, NOTE, *parts)
    state = tmp_path / "state"
    (state / "average.safetensors").write_bytes(b"none")
    with pytest.raises(ResumeError, match="does not fit"):
        load_state(state, *parts)
    (state / "progress.json").write_text('{"step": 3}')
    with pytest.raises(ResumeError, match="is damaged"):
        read_progress(state)
    wrong = nn.Linear(2, 2)
    save_state(tmp_path, NOTE, *parts)
    with pytest.raises(ResumeError, match="does not fit"):
        load_state(state, {"network": wrong}, {"optimizer": torch.optim.Adam(wrong.parameters())})


def test_checkpoints_are_removed_whole(tmp_path: Path) -> None:
    save_state(tmp_path, NOTE, *trained(1))
    shutil.copytree(tmp_path / "state", tmp_path / "state.last")
    remove_state(tmp_path)
    assert find_state(tmp_path) is None
    assert not list(tmp_path.iterdir())


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


def test_a_killed_run_is_resumed_to_the_same_end(
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
    assert f"continuing after step {kept}\n" in capsys.readouterr().err
    assert losses(killed) == losses(whole)
    assert [line["step"] for line in losses(whole)] == [*range(3, steps, 3), steps]
    for name in WEIGHTS:
        assert (killed / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()
