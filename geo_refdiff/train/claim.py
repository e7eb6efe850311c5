"""The folder of a run: held by one run at a time, begun anew or gone on with only as asked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from geo_refdiff.errors import OptionError, ResumeError
from geo_refdiff.raster.files import held as held_lock
from geo_refdiff.raster.files import output_error, write_bytes_atomic
from geo_refdiff.records import decode
from geo_refdiff.train.config import TrainConfig
from geo_refdiff.train.loop import learning_rate
from geo_refdiff.train.monitor import LOG
from geo_refdiff.train.state import Progress, find_state, read_progress, remove_state

CONFIG = "config.toml"
_MADE = (LOG, "pictures", "tensorboard", "model", "model.json", CONFIG)
_FREE = {
    "data": ("train", "validation", "root", "resident_gib", "device_gib", "on_error", "attribution"),
    "training": ("steps", "accumulate", "workers"),
}
"""Settings that a run may go on without: what they change is checked otherwise, or is nothing that is learned."""


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Make the folder and hold it for this process; a new folder in which nothing was made goes again.

    Raises:
        BusyError: another run holds it.
        OutputError: it cannot be made.
    """
    new, file = not out.exists(), out / "lock"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    with held_lock(file, str(out), "wait for it or choose another --out"):
        try:
            yield
        finally:
            if new and list(out.iterdir()) == [file]:
                with suppress(OSError):  # then somebody else has just come in
                    file.unlink()
                    out.rmdir()


def check_free(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Whether a run may be made or gone on with in a folder as far as can be told without its data.

    Raises:
        ResumeError: a run lies there that was asked neither to go on nor to be replaced.
    """
    state = find_state(out)
    if state is not None and not resume and not overwrite:
        raise ResumeError(f"{out} holds a run at step {read_progress(state).step}: give --resume or --overwrite")


def claim(config: TrainConfig, fingerprint: str, out: Path, world: int, *, resume: bool) -> list[str]:
    """Make the folder ready for a run, and write the run's config there. Call it while it is held.

    Args:
        config: of the run.
        fingerprint: of the data.
        out: the folder.
        world: number of processes.
        resume: go on with the run that lies there, if one does; otherwise all that it made is removed.

    Returns:
        Warnings.

    Raises:
        ResumeError: the run that lies there is another one.
        OutputError: the folder cannot be written.
    """
    state = find_state(out)
    told: list[str] = []
    if state is not None and resume:
        told = _check(read_progress(state), config, fingerprint, out, world)
    else:
        _clean(out)
    write_bytes_atomic(out / CONFIG, config.to_toml().encode())
    return told


def _clean(out: Path) -> None:
    remove_state(out)
    try:
        for name in _MADE:
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(out, error) from error


def _check(before: Progress, config: TrainConfig, fingerprint: str, out: Path, world: int) -> list[str]:
    """Whether going on gives what an uninterrupted run would have given; warnings where it does but for rounding."""
    try:
        old = decode(TrainConfig, before.config, f"{out}: the run there")
    except OptionError as error:
        raise ResumeError(f"{error}; it was made by another version: begin anew with --overwrite") from error
    changed = _differences(old, config)
    shares = before.world * old.training.accumulate
    if shares != world * config.training.accumulate:
        changed.append(f"processes x training.accumulate was {shares}, is {world * config.training.accumulate}")
    if changed:
        raise ResumeError(f"{out}: the run there was made with other settings: {', '.join(changed)}")
    if before.fingerprint != fingerprint:
        raise ResumeError(f"{out}: the run there learned from other data; give --overwrite to begin anew")
    training = config.training
    if before.step > training.steps:
        raise ResumeError(f"{out}: the run there is at step {before.step}, past training.steps = {training.steps}")
    if learning_rate(before.step, training) != learning_rate(before.step, old.training):
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
        yield from _flat({k: v for k, v in tables[section].items() if k not in _FREE.get(section, ())}, section)


def _flat(table: dict[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", value
