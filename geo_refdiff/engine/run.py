"""Runs a plan: every block that is not finished yet, written while the next one is computed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from time import perf_counter
from typing import Protocol

from geo_refdiff.engine.block import Block, BlockComputer
from geo_refdiff.engine.rasters import class_counts_tag, residual_tag, run_rasters
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.engine.writer import BlockPixels, FinishedBlock
from geo_refdiff.nn.device import torch_settings
from geo_refdiff.plan.records import THREADS, Plan
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.restore.restorers import Restorer

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: "plan" once everything is decided, then "blocks" and "publish".
        done, total: blocks; in between windows count as parts of a block.
        notes: with "plan": what was decided without being asked, and what deserves a look.
        estimate: with "plan": what the run will take, one line.
    """

    stage: str
    done: float
    total: int
    notes: tuple[str, ...] = ()
    estimate: str = ""


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class RunCounts:
    """What a run did.

    Attributes:
        blocks: of the plan.
        resumed: of those asked for, finished before this run.
        windows: restored in this run.
        batch_size: at the end; smaller than asked for where memory did not suffice.
        restore_seconds: spent in the restorer.
        seconds: all in all.
    """

    blocks: int
    resumed: int
    windows: int
    batch_size: int
    restore_seconds: float
    seconds: float


class BlockRunner(Protocol):
    """Finishes all blocks of a plan: `run_blocks` in this process, or others that have workers do it."""

    def __call__(
        self,
        plan: Plan,
        workdir: Workdir,
        restorer: Restorer,
        *,
        batch_size: int = 1,
        progress: ProgressCallback | None = None,
    ) -> RunCounts: ...


def run_blocks(
    plan: Plan,
    workdir: Workdir,
    restorer: Restorer,
    *,
    batch_size: int = 1,
    order: Iterable[int] | None = None,
    progress: ProgressCallback | None = None,
) -> RunCounts:
    """Compute and write every block that the folder does not hold yet.

    Args:
        plan: the run; `workdir` was prepared for it.
        workdir: where the blocks go; locked by the caller.
        restorer: made for the plan.
        batch_size: windows restored together.
        order: block indices; by default all, each next to the one before.
        progress: called now and then, in this thread.

    Raises:
        InputError: an input cannot be read.
        OutputError: a block cannot be written.
        KeyboardInterrupt: passed on; finished blocks stay.
    """
    started = perf_counter()
    wanted = list(plan.blocks.serpentine() if order is None else order)
    done = workdir.done(plan.blocks, None if order is None else wanted)
    todo = [i for i in wanted if i not in done]
    finished = len(done)

    def report(part: float) -> None:
        if progress:
            progress(Progress("blocks", finished + part, plan.blocks.count))

    with (
        gdal_env(),
        torch_settings(int(plan.software.get(THREADS, 0))),
        BlockComputer(plan, restorer, batch_size, lambda windows, total: report(windows / total)) as computer,
    ):

        def blocks() -> Iterator[FinishedBlock]:
            nonlocal finished
            for index, following in zip_longest(todo, todo[1:]):
                report(0.0)
                before = perf_counter()
                block = computer.compute(index, following)
                finished += 1
                _LOG.debug(
                    "block %d (%d of %d) took %.1f s", index, finished, plan.blocks.count, perf_counter() - before
                )
                yield index, _pixels(block)

        workdir.blocks(plan.blocks).write(run_rasters(plan), blocks())
        report(0.0)
        return RunCounts(
            plan.blocks.count,
            len(done),
            computer.windows_restored,
            computer.batch_size,
            computer.restore_seconds,
            perf_counter() - started,
        )


def _pixels(block: Block) -> tuple[BlockPixels, ...]:
    """A block's pixels in each of `run_rasters`."""
    pixels = [BlockPixels(block.pixels, block.valid, residual_tag(block.residual))]
    if block.sources is not None:
        pixels.append(BlockPixels(block.sources[None], None, class_counts_tag(block.sources)))
    if block.widths is not None:
        pixels.append(BlockPixels(block.widths))
    return tuple(pixels)
