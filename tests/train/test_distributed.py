"""Two processes by torchrun over gloo learn what one does with the same batch; only the first writes; they resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geo_refdiff.errors import OptionError
from geo_refdiff.train.config import TrainConfig
from geo_refdiff.train.distributed import distributed_context
from geo_refdiff.train.run import train

SETTINGS = ("training.bf16=false", "training.decay=0", "report.log_steps=1", "training.workers=2")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def two(toml: Path, out: Path, *settings: str, more: tuple[str, ...] = ()) -> str:
    """What two processes messages on their way to the end."""
    parts = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    train = ["-m", "geo_refdiff.cli.main", "train", str(toml), "-o", str(out), "--device", "cpu", *parts, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run([*TORCHRUN, *train], capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def losses(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def check_alike(one: Path, other: Path) -> None:
    names = ("mean", "gradient", "gate", "wavelet", "start", "edm", "loss")
    lines = ([line for line in losses(out) if "loss" in line] for out in (one, other))
    for a, b in zip(*lines, strict=True):
        assert [a[name] for name in names] == pytest.approx([b[name] for name in names], rel=1e-4)
    for file in ("network", "average"):
        first, second = (load_file(out / "state" / f"{file}.safetensors") for out in (one, other))
        for key, value in first.items():
            torch.testing.assert_close(value, second[key], atol=1e-4, rtol=1e-3)


def test_two_processes_learn_what_one_does(
    tiny_config: Callable[..., TrainConfig], tiny_toml: Path, landscapes: Callable[..., Path], tmp_path: Path
) -> None:
    pair, alone, half = tmp_path / "pair", tmp_path / "alone", tmp_path / "half"
    config = tiny_config(*SETTINGS, "training.steps=4", "training.accumulate=2")
    train(config, alone, device="cpu", log=lambda text: None)
    train(replace(config, training=replace(config.training, steps=2)), half, device="cpu", log=lambda text: None)
    assert [line["step"] for line in losses(half)] == [1, 2]

    messages = two(tiny_toml, pair, "training.steps=4", f'data.validation=["{landscapes("1-1")}"]')
    assert messages.count("2 process(es) on cpu") == messages.count("step 4/4 mean") == 1  # one of two tells
    lines = losses(pair)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "validation" in line] == [4]
    assert "torchrun --nproc-per-node 2 -m geo_refdiff.cli.main train" in (pair / "model" / "README.md").read_text()
    check_alike(pair, alone)

    # what one began, two continue
    assert "continuing after step 2" in two(tiny_toml, half, "training.steps=4", more=("--resume",))
    check_alike(half, alone)


def test_a_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed_context("cpu") as context:
        assert (context.rank, context.world_size, context.device) == (0, 1, "cpu")
        assert context.is_main
        assert context.all_gather("a") == ["a"]
        context.barrier()
        assert context.all_reduce_mean(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]


def test_a_gpu_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with (
        pytest.raises(OptionError, match="device 'cuda': this machine has 0 CUDA devices"),
        distributed_context("cuda"),
    ):
        pass
    with distributed_context("auto") as context:
        assert context.device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with (
        pytest.raises(OptionError, match="process 2 has no GPU of its own: start 2 processes"),
        distributed_context("cuda"),
    ):
        pass
