"""One training run from a configuration: data, network, loop, model folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geo_refdiff.data import OpenedDataset, open_dataset
from geo_refdiff.data.dataset import pair_bytes
from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.nn.device import torch_settings
from geo_refdiff.options import TrainOptions, fields_of, takes_options
from geo_refdiff.raster.files import write_json_atomic
from geo_refdiff.train.config import DataConfig, TrainConfig
from geo_refdiff.train.distributed import DistributedContext, distributed_context
from geo_refdiff.train.loop import Trainer, denormals_flushed
from geo_refdiff.train.model import Provenance, new_denoiser, write_model
from geo_refdiff.train.monitor import Monitor
from geo_refdiff.train.pixels import MemoryBudget
from geo_refdiff.train.run_folder import check_run_folder, locked, prepare
from geo_refdiff.train.samples import SampleMaker, Source
from geo_refdiff.train.validation import TileValidation, ValidationPlan

Log = Callable[[str], None]
_GIB = 2**30
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Data:
    """What a run learns from and is judged by; `fingerprint` covers the former."""

    train: list[Source]
    validation: list[OpenedDataset]
    fingerprint: str


def open_data(config: DataConfig, log: Log) -> Data:
    """Open the sources of a configuration; logs counts, and pairs that cannot be used, by name.

    Raises:
        InputError, OptionError: a source that cannot be used; with on_error "stop", a pair.
    """
    if not config.train:
        raise OptionError(
            "there is nothing to learn from: name sources under [data] train, or by --set 'data.train=[\"pairs.csv\"]'"
        )
    budget = int(config.resident_gib * _GIB)
    opened = []
    for text in (*config.train, *config.validation):
        data = _open(text, config, budget, lambda line, text=text: log(f"{text}: {line}"))  # type: ignore[misc]
        if getattr(data, "resident", False):
            budget -= sum(pair_bytes(data, index) for index in range(len(data)))
        log(f"{text}: {data.problems}" if len(data.problems) else f"{text}: {len(data)} pairs")
        opened.append(data)
    weights = config.weights or [float(len(data)) for data in opened]
    sources = [Source(data, weight) for data, weight in zip(opened, weights[: len(config.train)], strict=False)]
    prints = [source.dataset.fingerprint() for source in sources]
    fingerprint = hashlib.sha256(json.dumps(prints).encode()).hexdigest()
    return Data(sources, opened[len(sources) :], fingerprint)


def _open(text: str, config: DataConfig, budget: int, log: Log) -> OpenedDataset:
    source, _, split = text.partition("#")
    return open_dataset(
        source,
        split=split or None,
        root=config.root or None,
        pseudo_change=config.pseudo_change,
        on_error=config.on_error,
        budget=max(budget, 0),
        log=log,
    )


def open_run(config: TrainConfig, context: DistributedContext, log: Log) -> tuple[Data, Denoiser, SampleMaker]:
    """The data of a configuration, its network, and what makes samples for it.

    Raises:
        OptionError, InputError, ModelError: a configuration or data that cannot be used.
    """
    data = open_data(config.data, log)
    first = data.train[0].dataset
    denoiser = new_denoiser(config, tuple(first.bands), tuple(first.classes))
    maker = SampleMaker(
        data.train,
        config.samples,
        denoiser.multiple,
        config.training.seed,
        context.device,
        on_error=config.data.on_error,
        budget=MemoryBudget.of_device(config.data.device_gib, context.device),
    )
    return data, denoiser, maker


@takes_options(fields_of(TrainOptions))
def train(config: TrainConfig, out: Path, *, command: str = "", log: Log = print, **options: Any) -> Path | None:
    """Train what a configuration describes and write the model folder `out`/model.

    Args:
        config: see `TrainConfig`.
        out: folder of the run: config.toml, log.jsonl, state (checkpoint), pictures, model, model.json (its SHA-256).
        command: that started it, for the model card.
        log: takes lines for the terminal.
        options: as listed below.

    Returns:
        The model folder; None after a dry run.

    Raises:
        OptionError, InputError, ModelError: a configuration or data that cannot be used.
        ResumeError: a run is in `out` that was asked neither to be resumed nor replaced, or another one.
        OutputError: a folder or checkpoint cannot be written.
        Interrupted: asked to stop (Ctrl-C, SIGTERM); a checkpoint was written.
        GeoRefDiffError: the loss is not finite.
    """
    chosen = TrainOptions(**options)
    with distributed_context(chosen.device) as context, torch_settings(), ExitStack() as stack:
        stack.enter_context(denormals_flushed())
        say: Log = log if context.is_main else _nothing
        if context.is_main and not chosen.dry_run:
            stack.enter_context(locked(out))
            check_run_folder(out, resume=chosen.resume, overwrite=chosen.overwrite)
        data, denoiser, maker = open_run(config, context, say)
        small = maker.small_pairs()
        if small and config.data.on_error == "stop":
            raise InputError(f"{len(small)} pair(s) are too small, {small[0]}; leave them out or lower samples.crop")
        _say_list(say, "passed over", small)
        parameters = sum(p.numel() for p in denoiser.network.parameters())
        say(f"{parameters / 1e6:.2f} M parameters, {context.world_size} process(es) on {context.device}")
        if chosen.dry_run:
            share = context.shares(config.training.batch, config.training.accumulate)[0]
            batch = maker.batch(1, share)
            side = batch.truth.shape[-1]
            say(f"a batch of {len(batch.names)} at {batch.scale}x, {side} px: {', '.join(batch.names)}")
            return None
        if context.is_main:
            for warning in prepare(config, data.fingerprint, out, context.world_size, resume=chosen.resume):
                say(warning)
        context.barrier()
        trainer = Trainer(denoiser, config, maker, data.fingerprint, out, context)
        done = trainer.resume() if chosen.resume else 0
        if done:
            say(f"continuing after step {done}")
        figures = _run(trainer, data, say)
        folder = out / "model"
        if context.is_main:
            provenance = Provenance.of_run(command, data.fingerprint, trainer.step, trainer.seconds, context)
            described = trainer.denoiser.config
            sha256 = write_model(folder, trainer.average, described, config, data.train, provenance, figures)
            write_json_atomic(out / "model.json", {"folder": str(folder), "sha256": sha256})
            say(f"{folder}: sha256 {sha256}")
        return folder


def _run(trainer: Trainer, data: Data, say: Log) -> dict[str, float]:
    """Train to the end; the last figures."""
    config, report, out = trainer.config, trainer.config.report, trainer.out
    is_main = trainer.context.is_main
    monitor = Monitor(
        out if is_main else None, config.training.steps, trainer.step, say, report.tensorboard and is_main
    )
    try:
        validation = None
        if data.validation and is_main:
            scale = max(config.samples.factors(), key=lambda s: config.samples.scales[str(s)])
            plan = ValidationPlan(scale, report.validation_tiles, report.pictures, out / "pictures")
            validation = TileValidation(data.validation, trainer.denoiser, plan, trainer.context.device, say)
        trainer.run(monitor, validation)
        say(monitor.summary())
    finally:
        monitor.close()
        unusable = sorted(trainer.maker.unusable.items())
        _say_list(say, "passed over", [f"{name}: {reason}" for name, reason in unusable])
    return monitor.last_validation


def _say_list(say: Log, what: str, lines: list[str]) -> None:
    """The count, then some of the lines."""
    if lines:
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        say("\n  ".join([f"{len(lines)} pair(s) {what}:", *lines[:_SHOWN], *more]))


def _nothing(text: str) -> None:
    return None
