"""The folder of a training run: its lock, its config, and checkpoints with all that an exact continuation needs.

One run at a time uses a folder; a run in it is replaced or continued only as asked. Checkpoints: safetensors and JSON.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from geo_refdiff.errors import OptionError, OutputError, ResumeError
from geo_refdiff.raster.files import held, output_error, sync, write_bytes_atomic, write_json_atomic
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.records import decode
from geo_refdiff.train.config import TrainConfig
from geo_refdiff.train.monitor import LOG

CONFIG = "config.toml"

_CURRENT, _NEXT, _LAST = "state", "state.next", "state.last"


@dataclass(frozen=True, slots=True)
class RunProgress:
    """Where a run stands.

    Attributes:
        step: optimizer steps done.
        seconds: time spent on them, over all sessions.
        sums: of the loss terms since the last line of the log.
        config: the run's configuration.
        fingerprint: of the data.
        world: number of processes.
        threads: of torch in each; 0 = unknown.
    """

    step: int
    seconds: float
    sums: dict[str, float]
    config: dict[str, Any]
    fingerprint: str
    world: int
    threads: int = 0


def save_state(
    out: Path, progress: RunProgress, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
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
        write_json_atomic(fresh / "progress.json", {k: getattr(progress, k) for k in RunProgress.__slots__})
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
            f"{fresh}: the checkpoint cannot be written ({one_line(error, 400)}); the last one is kept"
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


def read_progress(state: Path) -> RunProgress:
    """Where the run of a checkpoint stands (ResumeError where it is damaged)."""
    try:
        return RunProgress(**json.loads((state / "progress.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ResumeError(f"{state}: the checkpoint is damaged ({one_line(error)})") from error


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
        raise ResumeError(f"{state}: the checkpoint does not fit ({one_line(error)})") from error


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


_MADE = (LOG, "pictures", "tensorboard", "model", "model.json", CONFIG)
_FREE = {
    "data": ("train", "validation", "root", "resident_gib", "device_gib", "on_error", "attribution"),
    "training": ("steps", "accumulate", "workers"),
}
"""Settings that may differ when a run is resumed: what they change is checked otherwise, or is not learned."""


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Make the folder and lock it for this process; a new folder in which nothing was made is removed again.

    Raises:
        BusyError: another run holds it.
        OutputError: it cannot be made.
    """
    new, file = not out.exists(), out / "lock"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    with held(file, str(out), "wait for it or choose another --out"):
        try:
            yield
        finally:
            if new and list(out.iterdir()) == [file]:
                with suppress(OSError):  # then somebody else has just come in
                    file.unlink()
                    out.rmdir()


def check_run_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Whether a run may be started or resumed in a folder, as far as can be seen without its data.

    Raises:
        ResumeError: there is a run that was asked neither to be resumed nor to be replaced.
    """
    state = find_state(out)
    if state is not None and not resume and not overwrite:
        raise ResumeError(f"{out} holds a run at step {read_progress(state).step}: give --resume or --overwrite")


def prepare(config: TrainConfig, fingerprint: str, out: Path, world_size: int, *, resume: bool) -> list[str]:
    """Make the folder ready for a run, and write the run's config there. Call it while it is locked.

    Args:
        config: of the run.
        fingerprint: of the data.
        out: the folder.
        world_size: number of processes.
        resume: the run that is there, if there is one; otherwise all that it made is removed.

    Returns:
        Warnings.

    Raises:
        ResumeError: the run that is there is another one.
        OutputError: the folder cannot be written.
    """
    state = find_state(out)
    warnings: list[str] = []
    if state is not None and resume:
        warnings = _check(read_progress(state), config, fingerprint, out, world_size)
    else:
        _clean(out)
    write_bytes_atomic(out / CONFIG, config.to_toml().encode())
    return warnings


def _clean(out: Path) -> None:
    remove_state(out)
    try:
        for name in _MADE:
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(out, error) from error


def _check(before: RunProgress, config: TrainConfig, fingerprint: str, out: Path, world_size: int) -> list[str]:
    """Whether a resumed run gives what an uninterrupted one would have; warnings where it does but for rounding."""
    try:
        old = decode(TrainConfig, before.config, f"{out}: the run there")
    except OptionError as error:
        raise ResumeError(f"{error}; it was made by another version: start over with --overwrite") from error
    changed = _differences(old, config)
    shares = before.world * old.training.accumulate
    if shares != world_size * config.training.accumulate:
        changed.append(f"processes x training.accumulate was {shares}, is {world_size * config.training.accumulate}")
    if changed:
        raise ResumeError(f"{out}: the run there was made with other settings: {', '.join(changed)}")
    if before.fingerprint != fingerprint:
        raise ResumeError(f"{out}: the run there learned from other data; give --overwrite to start over")
    training = config.training
    if before.step > training.steps:
        raise ResumeError(f"{out}: the run there is at step {before.step}, past training.steps = {training.steps}")
    if training.learning_rate(before.step) != old.training.learning_rate(before.step):
        raise ResumeError(
            f"{out}: with training.steps = {training.steps} instead of {old.training.steps} the rate at step "
            f"{before.step} would have been another; give {old.training.steps} again, or train on by --init"
        )
    threads = torch.get_num_threads()
    if before.threads not in (0, threads):
        return [f"warning: {before.threads} torch threads before, {threads} now: the last bits will differ"]
    return []


def _differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Settings that change what is learned and are not the same."""
    before, now = (dict(_learned(config)) for config in (old, new))
    keys = sorted(set(before) | set(now))
    return [f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in keys if before.get(k) != now.get(k)]


def _learned(config: TrainConfig) -> Iterator[tuple[str, Any]]:
    """Settings that change what is learned, by dotted name."""
    tables = config.to_dict()
    for section in ("model", "data", "samples", "training", "perception"):
        yield from _dotted({k: v for k, v in tables[section].items() if k not in _FREE.get(section, ())}, section)


def _dotted(table: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", value
