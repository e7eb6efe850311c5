"""Planning takes the same memory for four blocks as for two million."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from benchmarks.planning import BLOCK, SCALE, make_source, make_virtual
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.plan.planning import Request, make_plan
from geo_refdiff.raster.gdal import gdal_env


def peak(folder: Path, side: int, source: Path) -> tuple[int, int]:
    """(blocks, most bytes that Python held) of planning a scene of `side` x `side` pixels, up to the first block."""
    scene = make_virtual(folder / f"scene-{side}.vrt", side, source)
    tracemalloc.start()
    with gdal_env():
        plan = make_plan(Request(scene, scale=SCALE, model="bicubic", block_size=BLOCK, device="cpu")).plan
    workdir = Workdir(folder / f"out-{side}.tif.parts")
    with workdir.locked():
        workdir.prepare(plan, resume=False, overwrite=False)
        assert workdir.done(plan.blocks) == set()
        assert next(plan.blocks.serpentine()) == 0
        last = plan.block(plan.blocks.count - 1)
    assert (last.stop_row, last.stop_col) == plan.shape
    assert workdir.plan.stat().st_size < 10_000
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return plan.blocks.count, held


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source.tif")


def test_memory_does_not_grow_with_the_number_of_blocks(tmp_path: Path, source: Path) -> None:
    peak(tmp_path, 500, source)  # imports and caches
    few, small = peak(tmp_path, 512, source)
    many, large = peak(tmp_path, 1415 * BLOCK // SCALE, source)
    assert (few, many) == (4, 1415**2)
    assert large < small + 2**20
