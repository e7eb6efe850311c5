"""What data cost a training run: the loop against the network alone on ready batches: `python -m benchmarks.training`.

Both are measured in turns in one run, so that a shared machine slows both alike. On a CPU samples are made by the cores
that the network needs, so waiting alone would hide their cost: look at the last column.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import click
import torch

from benchmarks.private import markdown, need_index
from geo_refdiff.train.config import load_config
from geo_refdiff.train.distributed import distributed_context
from geo_refdiff.train.loop import StopRequest, Trainer, denormals_flushed
from geo_refdiff.train.run import open_run
from geo_refdiff.train.samples import Batch, DeviceStream, prefetch

MOST_WAITING = 0.05
"""The goal: the largest share of the time that a device may wait for data."""

LANDSCAPES = "build/landscapes-10000-10019.csv"

READY = 4
"""Batches that are made beforehand for the network alone."""


class Clock:
    """Seconds of steps, and of waiting in them."""

    def __init__(self) -> None:
        self.steps, self.seconds, self.waited = 0, 0.0, 0.0

    def run(self, trainer: Trainer, coming: Generator[tuple[Batch, float], None, None], steps: int) -> None:
        """Take some steps."""
        begun = time.perf_counter()
        for _ in range(steps):
            trainer.step += 1
            _, waited, _ = trainer.update(trainer.step, coming, StopRequest())
            self.waited += waited
        self.seconds += time.perf_counter() - begun
        self.steps += steps

    @property
    def waiting(self) -> float:
        """Share of the time that was spent waiting for data."""
        return self.waited / self.seconds

    def row(self, name: str, batch: int, alone: Clock) -> list[str]:
        """A row of the table."""
        share = self.steps * alone.seconds / (self.seconds * alone.steps)
        return [name, f"{batch * self.steps / self.seconds:.2f}", f"{self.waiting:.1%}", f"{share:.1%}"]


def ready(batches: list[Batch]) -> Generator[tuple[Batch, float], None, None]:
    """The same batches for ever, without waiting."""
    for batch in itertools.cycle(batches):
        yield batch, 0.0


@click.command()
@click.argument("config", default="cpu-hours")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting.")
@click.option(
    "--data",
    default=LANDSCAPES,
    show_default=True,
    help="Index to train on, in place of the config's.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--steps", default=5, show_default=True, help="Steps of either kind in a round.")
@click.option("--rounds", default=4, show_default=True)
def main(config: str, overrides: tuple[str, ...], data: str, device: str, steps: int, rounds: int) -> None:
    """Print images/s, waiting and the share of the speed of the network alone."""
    need_index(data, LANDSCAPES)
    sources = (f'data.train=["{data}"]', "data.weights=[]", "data.validation=[]")
    settings = load_config(config, (*sources, *overrides, f"training.steps={10 * steps * rounds + 100}"))
    with distributed_context(device) as context, tempfile.TemporaryDirectory() as folder, denormals_flushed():
        opened, denoiser, maker = open_run(settings, context, lambda text: click.echo(text, err=True))
        trainer = Trainer(denoiser, settings, maker, opened.fingerprint, Path(folder), context)
        share = trainer.shares[0]
        batches = [trainer.maker.batch(step, share) for step in range(1, READY + 1)]
        begun = time.perf_counter()
        for step in range(READY + 1, 2 * READY + 1):
            trainer.maker.batch(step, share)
        made = READY * len(share) / (time.perf_counter() - begun)
        jobs = ((step, share) for step in itertools.count(2 * READY + 1))
        coming = prefetch(trainer.maker, jobs, settings.training.workers, DeviceStream(context.device))
        alone, loop, prepared = Clock(), Clock(), ready(batches)
        for warm in (prepared, coming):
            Clock().run(trainer, warm, 2)
        for _ in range(rounds):
            alone.run(trainer, prepared, steps)
            loop.run(trainer, coming, steps)
        coming.close()
        images = settings.training.batch // context.world_size
        name = torch.cuda.get_device_name(context.device) if context.device.startswith("cuda") else "CPU"
        click.echo(f"{config} on {name}, {torch.get_num_threads()} thread(s), {settings.training.workers} worker(s):\n")
        rows = [alone.row("network alone, ready batches", images, alone), loop.row("training loop", images, alone)]
        click.echo(markdown(["", "images/s", "waiting for data", "of the network alone"], rows))
        click.echo(f"\nsamples alone, one thread: {made:.1f} images/s")
        kept = "yes" if round(loop.waiting, 3) <= MOST_WAITING else "no"  # as it is printed
        click.echo(f"waiting for data at most {MOST_WAITING:.0%} of the time: {kept}")


if __name__ == "__main__":
    main()
