"""Runs a plan: every block that is not finished yet, written while the next one is computed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Protocol

import numpy as np

from geo_refdiff.engine.block import Block, BlockComputer
from geo_refdiff.engine.finish import BandSums, dump_sums
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.nn.device import torch_settings
from geo_refdiff.plan.records import THREADS, Plan
from geo_refdiff.raster.block_file import write_block
from geo_refdiff.raster.gdal import gdal_env, gdal_threads
from geo_refdiff.raster.geobox import crop
from geo_refdiff.restore.restorers import Restorer
from geo_refdiff.restore.sources import CLASSES, NOTHING

SUMS_TAG = "GEO_REFDIFF_SUMS"
"""Name of a block file's metadata item that holds its statistics."""

SOURCE = "source"
"""Name of the product that says where detail comes from."""

UNCERTAINTY = "uncertainty"
"""Name of the product that says how sure each pixel is."""

SHARES_TAG = "GEO_REFDIFF_CLASS_COUNTS"
"""Pixels of each class in a block of it, as JSON."""

LEFT_TAG = "GEO_REFDIFF_LEFT"
"""What is left between the scene and the block as the declared sensor sees it, as JSON."""

_WRITES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: "blocks" or "publish".
        done, total: blocks; in between windows count as parts of a block.
    """

    stage: str
    done: float
    total: int


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class RunCounts:
    """What a run did.

    Attributes:
        blocks: of the plan.
        found: finished before this run, of those asked for.
        windows: restored in this run.
        batch_size: at the end; smaller than asked for where memory did not suffice.
        restore_seconds: spent in the restorer.
        seconds: all in all.
    """

    blocks: int
    found: int
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
    found = workdir.done(plan.blocks, None if order is None else wanted)
    todo = [i for i in wanted if i not in found]
    finished = len(found)

    def tell(part: float) -> None:
        if progress:
            progress(Progress("blocks", finished + part, plan.blocks.count))

    with (
        gdal_env(),
        torch_settings(1 if restorer.local else int(plan.software.get(THREADS, 0))),
        BlockComputer(plan, restorer, batch_size, lambda done, total: tell(done / total)) as computer,
        gdal_threads(_WRITES_AHEAD, "blocks") as writer,
    ):
        writing: deque[Future[None]] = deque()
        for position, index in enumerate(todo):  # after an error, too, what was computed is written
            tell(0.0)
            following = todo[position + 1] if position + 1 < len(todo) else None
            block = computer.compute(index, following)
            if len(writing) >= _WRITES_AHEAD:
                writing.popleft().result()
            writing.append(writer.submit(_write, plan, workdir, index, block))
            finished += 1
        for future in writing:
            future.result()
        tell(0.0)
        return RunCounts(
            plan.blocks.count,
            len(found),
            computer.windows_restored,
            computer.batch_size,
            computer.restore_seconds,
            perf_counter() - started,
        )


def _write(plan: Plan, workdir: Workdir, index: int, block: Block) -> None:
    valid = block.valid
    if valid is not None and not valid.any():
        workdir.mark_empty(index, plan.blocks)
        return
    sums = [BandSums.of(band, None if valid is None else valid[i]) for i, band in enumerate(block.pixels)]
    mask = None
    if plan.output.mask:
        mask = np.full(block.window.shape, 255, dtype=np.uint8)
        if valid is not None:
            mask[~valid.any(axis=0)] = 0
    nodata = plan.output.nodata
    affine, crs = crop(plan.geobox, block.window).affine, plan.scene.crs_wkt
    tags = {SUMS_TAG: dump_sums(sums), LEFT_TAG: json.dumps(asdict(block.left))}
    if block.sources is not None:
        sources, name = block.sources[None], workdir.side_block(index, plan.blocks, SOURCE)
        shares = np.bincount(block.sources.ravel(), minlength=len(CLASSES)).tolist()
        write_block(name, sources, None, affine, crs, NOTHING, {SHARES_TAG: json.dumps(shares)})
    if block.widths is not None:
        name = workdir.side_block(index, plan.blocks, UNCERTAINTY)
        write_block(name, block.widths, None, affine, crs, float("nan"))
    write_block(workdir.block(index, plan.blocks), block.pixels, mask, affine, crs, nodata, tags)
