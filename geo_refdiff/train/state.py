"""Checkpoints of a training run: everything that an exact continuation needs, as safetensors and JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from geo_refdiff.errors import OutputError, ResumeError
from geo_refdiff.raster.files import output_error, sync, write_bytes_atomic, write_json_atomic

_CURRENT, _NEXT, _LAST = "state", "state.next", "state.last"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        seconds: time spent on them, over all sessions.
        sums: of the loss terms since the last line of the log.
        config: the run's configuration.
        fingerprint: of the data.
        world: number of processes.
        threads: of torch in each; 0 = not known.
    """

    step: int
    seconds: float
    sums: dict[str, float]
    config: dict[str, Any]
    fingerprint: str
    world: int
    threads: int = 0


def save_state(
    out: Path, progress: Progress, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Write a checkpoint beside the last one, then let it take its place; the last one stays until then.

    Raises:
        OutputError: it cannot be written, the last one is as it was.
    """
    fresh = out / _NEXT
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        parts = {name: network.state_dict() for name, network in networks.items()}
        parts |= {name: _flat(optimizer.state_dict()["state"]) for name, optimizer in optimizers.items()}
        for name, tensors in parts.items():
            held = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
            write_bytes_atomic(fresh / f"{name}.safetensors", save(held))
        write_json_atomic(fresh / "progress.json", {k: getattr(progress, k) for k in Progress.__slots__})
        sync(fresh)
        current, last = out / _CURRENT, out / _LAST
        if current.exists():  # else a kill between the two renames has left `last` alone: keep it until the end
            shutil.rmtree(last, ignore_errors=True)
            current.rename(last)
        fresh.rename(current)
        sync(out)
        shutil.rmtree(last, ignore_errors=True)
    except (OSError, SafetensorError, OutputError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise OutputError(
            f"{fresh}: the checkpoint cannot be written ({' '.join(str(error).split())}); the last one is kept"
        ) from error


def find_state(out: Path) -> Path | None:
    """The folder of the newest complete checkpoint of a run, None where there is none."""
    for name in (_CURRENT, _LAST):
        if (out / name / "progress.json").is_file():
            return out / name
    return None


def remove_state(out: Path) -> None:
    """Remove all checkpoints of a run; none that is half removed looks like one.

    Raises:
        OutputError: they cannot be removed.
    """
    try:
        for name in (_CURRENT, _LAST, _NEXT):
            (out / name / "progress.json").unlink(missing_ok=True)
            if (out / name).exists():
                shutil.rmtree(out / name)
    except OSError as error:
        raise output_error(out, error) from error


def read_progress(state: Path) -> Progress:
    """Where the run of a checkpoint stands (ResumeError where it is damaged)."""
    try:
        return Progress(**json.loads((state / "progress.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ResumeError(f"{state}: the checkpoint is damaged ({' '.join(str(error).split())})") from error


def load_state(state: Path, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Put a checkpoint back (ResumeError where it does not fit)."""
    try:
        for name, network in networks.items():
            network.load_state_dict(load_file(state / f"{name}.safetensors"))
        for name, optimizer in optimizers.items():
            groups, held = optimizer.state_dict()["param_groups"], load_file(state / f"{name}.safetensors")
            optimizer.load_state_dict({"state": _nested(held), "param_groups": groups})
            _lay_out(optimizer)
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise ResumeError(f"{state}: the checkpoint does not fit ({' '.join(str(error).split())})") from error


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Moments in the memory layout of their parameters, as the optimizer makes them: other strides, other last bits."""
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _flat(state: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{number}.{key}": value for number, values in state.items() for key, value in values.items()}


def _nested(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    return state
