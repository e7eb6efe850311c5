"""Blocks as sources of a mosaic: few are named directly, many by way of VRTs, and VRTs over those.

One VRT over all took 16 KB of memory a block, in GDAL and here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.geobox import crop
from geo_refdiff.raster.vrt import Mosaic, write_vrt
from geo_refdiff.raster.window import Window, around

MOST = 1024
"""Sources of one VRT."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A source: its place (row, column) among those of its level, its file in the folder of the blocks, its window."""

    row: int
    col: int
    name: str
    window: Window


def with_blocks(
    mosaic: Mosaic,
    plan: Plan,
    workdir: Workdir,
    filled: Collection[int],
    region: Window,
    name: Callable[[int], str],
    met: Callable[[int], None] = lambda index: None,
) -> Mosaic:
    """A mosaic with finished blocks as its sources; whatever their number, it names at most `MOST` files.

    VRTs in between are written into the folder of the blocks, one at a time; they go with it.

    Args:
        mosaic: of the region, without sources.
        plan: whose blocks are all finished.
        workdir: where they are; file names are relative to it.
        filled: blocks that have a file.
        region: whole blocks, in pixels of the output.
        name: of a block's file, relative to `workdir`.
        met: called for each filled block of the region, row by row.

    Raises:
        OutputError: a VRT cannot be written.
    """
    layout = plan.blocks
    first_row, first_col = region.row // layout.size, region.col // layout.size
    folder = workdir.block(0, layout).parent

    def blocks() -> Iterator[_Part]:
        for index in layout.within(region):
            if index in filled:
                met(index)
                row, col = divmod(index, layout.cols)
                window = plan.block(index).shift(-region.row, -region.col)
                yield _Part(row - first_row, col - first_col, name(index).removeprefix(f"{folder.name}/"), window)

    def grouped(parts: Iterator[_Part], step: tuple[int, int], level: int) -> Iterator[_Part]:
        for (row, col), members in groupby(parts, lambda part: (part.row // step[0], part.col // step[1])):
            found = list(members)
            window = around([part.window for part in found])
            vrt = folder / f"mosaic_{level}_r{row:05d}_c{col:05d}.vrt"
            sources = tuple((part.name, part.window.shift(-window.row, -window.col)) for part in found)
            geobox = crop(mosaic.geobox, window)
            within = Mosaic(geobox, mosaic.dtype, mosaic.count, sources, mosaic.nodata, mosaic.with_mask)
            write_vrt(vrt, within)
            yield _Part(row, col, vrt.name, window)

    parts, level = blocks(), 0
    rows, cols = -(-region.height // layout.size), -(-region.width // layout.size)
    while rows * cols > MOST:
        step = _step(cols)
        level += 1
        parts = grouped(parts, step, level)
        rows, cols = -(-rows // step[0]), -(-cols // step[1])
    sources = tuple((f"{folder.name}/{part.name}", part.window) for part in parts)
    return replace(mosaic, sources=sources)


def _step(cols: int) -> tuple[int, int]:
    """Rows and columns that are taken together: whole rows, or parts of one, so that they follow each other."""
    if cols <= MOST:
        return MOST // cols, cols
    pieces = -(-cols // MOST)
    return 1, -(-cols // pieces)
