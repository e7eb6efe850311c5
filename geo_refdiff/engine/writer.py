"""The one writer of rasters: blocks become files in a folder, a mosaic over them, a cloud-optimised GeoTIFF.

Block files appear complete or not at all, so what a crash leaves behind can be resumed. A mosaic of many blocks goes by
way of VRTs over parts of it: one VRT over all took 16 KB of memory a block, in GDAL and here.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geo_refdiff.errors import OutputError
from geo_refdiff.plan.layout import BlockLayout
from geo_refdiff.raster.cog import OverviewResampling, publish_cog
from geo_refdiff.raster.files import check_free, output_error, sync
from geo_refdiff.raster.gdal import gdal_env, gdal_threads
from geo_refdiff.raster.geobox import crop, crs_wkt
from geo_refdiff.raster.statistics import EMPTY, BandSums, dump_sums, load_sums
from geo_refdiff.raster.vrt import VirtualRaster, read_block_tags, write_block, write_vrt
from geo_refdiff.raster.window import Window, around

BLOCKS = "blocks"
"""Name of the folder of the block files."""

MAX_SOURCES = 1024
"""Sources of one VRT."""

_SUMS_TAG = "GEO_REFDIFF_SUMS"
_EMPTY = ".empty"
_NAME = re.compile(r"r([0-9]{5,9})_c([0-9]{5,9})(\.tif|\.empty)")
_SIDECARS = (".aux.xml", ".msk", ".ovr")
_WRITES_AHEAD = 2


@dataclass(frozen=True)
class BlockRaster:
    """A raster that is written block by block.

    Attributes:
        profile: grid, data type, nodata, mask, bands and tags; its sources are the blocks to come.
        name: "" for the main one; of another one with the same blocks, which names its block files.
        overview_resampling: "average" for imagery, which gets statistics, too; "mode" for classes.
    """

    profile: VirtualRaster
    name: str = ""
    overview_resampling: OverviewResampling = "average"


@dataclass(frozen=True, slots=True)
class BlockPixels:
    """A finished block of one raster.

    Attributes:
        values: (C, height, width) in the raster's data type, the nodata value where pixels are missing.
        valid: the same shape, True = valid; None: all are, but for NaN.
        tags: metadata of the block file.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


FinishedBlock = tuple[int, Sequence[BlockPixels]]
"""Index of a block, and its pixels in each of the rasters."""


class BlockFiles:
    """The block files of one or several rasters in a folder.

    Args:
        folder: holds `blocks/`, and the mosaic over them.
        layout: of the blocks.
    """

    def __init__(self, folder: Path, layout: BlockLayout) -> None:
        self.folder, self.layout = folder, layout

    def vrt(self, raster: str = "") -> Path:
        """The mosaic of a raster that is published."""
        return self.folder / f"mosaic{raster and f'.{raster}'}.vrt"

    def file_name(self, index: int, raster: str = "") -> str:
        """File of block `index`, relative to the folder."""
        row, col = divmod(index, self.layout.cols)
        return f"{BLOCKS}/r{row:05d}_c{col:05d}{raster and f'.{raster}'}.tif"

    def file(self, index: int, raster: str = "") -> Path:
        """File of block `index`."""
        return self.folder / self.file_name(index, raster)

    def done(self, among: Sequence[int] | None = None) -> set[int]:
        """Blocks that are finished, of all or of some.

        Raises:
            OutputError: a link stands where the folder or a file should be.
        """
        if among is None:
            return self._listed((".tif", _EMPTY))
        own_blocks(self.folder)
        files = {i: self.file(i) for i in among}
        return {i for i, file in files.items() if _is_plain(file) or _is_plain(file.with_suffix(_EMPTY))}

    def filled(self) -> set[int]:
        """Finished blocks that have a file; in the others nothing is valid."""
        return self._listed((".tif",))

    def mark_empty(self, index: int) -> None:
        """Notes that nothing is valid in block `index`.

        Raises:
            OutputError: the folder cannot be written.
        """
        file = self.file(index).with_suffix(_EMPTY)
        try:
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        except OSError as error:
            raise output_error(file, error) from error

    def write(self, rasters: Sequence[BlockRaster], blocks: Iterable[FinishedBlock]) -> None:
        """Write blocks, each while the next ones are computed; after an error, too, what was computed is written.

        Args:
            rasters: the main one first; where nothing of it is valid, no block is written.
            blocks: in any order.

        Raises:
            OutputError: a block cannot be written.
        """
        with gdal_threads(_WRITES_AHEAD, "blocks") as writer:
            writing: deque[Future[None]] = deque()
            for block in blocks:
                if len(writing) >= _WRITES_AHEAD:
                    writing.popleft().result()
                writing.append(writer.submit(self._write, rasters, *block))
            for future in writing:
                future.result()

    def mosaic(
        self,
        raster: BlockRaster,
        region: Window | None = None,
        filled: Collection[int] | None = None,
        on_block: Callable[[Mapping[str, str]], None] = lambda tags: None,
    ) -> tuple[VirtualRaster, list[BandSums]]:
        """A raster, or a part of it, with its finished blocks as sources, at most `MAX_SOURCES`, and with statistics.

        VRTs over parts of it are written beside the blocks, one at a time.

        Args:
            raster: whose blocks are all finished.
            region: whole blocks, in pixels of the raster; None: all.
            filled: `filled()`, if it was listed before.
            on_block: called with the metadata of each block file of the region, row by row.

        Returns:
            The mosaic, whose file names are relative to the folder, and sums over each band's valid pixels (for
            imagery).

        Raises:
            InputError: a block file cannot be read.
            OutputError: a VRT cannot be written.
        """
        profile = raster.profile
        whole = Window(0, 0, *profile.geobox.shape)
        part = region or whole
        blocks_with_data = self.filled() if filled is None else filled
        sums: list[BandSums] = [EMPTY] * profile.count

        def blocks() -> Iterator[_Part]:
            nonlocal sums
            for index in self.layout.within(part):
                if index not in blocks_with_data:
                    continue
                tags = read_block_tags(self.file(index, raster.name))
                on_block(tags)
                if _SUMS_TAG in tags:  # always in the same order: sums of floating numbers depend on it
                    sums = [a.plus(b) for a, b in zip(sums, load_sums(tags[_SUMS_TAG]), strict=True)]
                row, col = divmod(index, self.layout.cols)
                at = self.layout.window(index, whole.shape).shift(-part.row, -part.col)
                name = self.file_name(index, raster.name).removeprefix(f"{BLOCKS}/")
                yield _Part(row - part.row // self.layout.size, col - part.col // self.layout.size, name, at)

        geobox = profile.geobox if part == whole else crop(profile.geobox, part)
        sources = self._nested(replace(raster, profile=replace(profile, geobox=geobox)), part, blocks())
        statistics = tuple(s.statistics(part.area) for s in sums) if all(s.count for s in sums) else ()
        return replace(profile, geobox=geobox, sources=sources, statistics=statistics), sums

    def publish(self, raster: BlockRaster, mosaic: VirtualRaster, out: Path, *, overwrite: bool = False) -> None:
        """Write a mosaic of the blocks as a COG; it appears complete or not at all.

        Args:
            raster: that is published.
            mosaic: as `mosaic` gave it.
            out: on the disk of the folder.
            overwrite: whether a file that is there may be replaced; what is beside it for GDAL goes with it.

        Raises:
            OutputError: `out` exists, or it cannot be written.
        """
        finished, vrt = self.folder / "published.tif", self.vrt(raster.name)
        with blocks_env():
            write_vrt(vrt, mosaic)
            publish_cog(vrt, finished, overview_resampling=raster.overview_resampling, overwrite=True)
        check_free(out, overwrite)
        try:
            os.replace(finished, out)
            remove_sidecars(out)
            sync(out.parent)
        except OSError as error:
            raise output_error(out, error) from error

    def _write(self, rasters: Sequence[BlockRaster], index: int, blocks: Sequence[BlockPixels]) -> None:
        valid = blocks[0].valid
        if valid is not None and not valid.any():
            self.mark_empty(index)
            return
        for raster, block in reversed(list(zip(rasters, blocks, strict=True))):  # the main one says that all are there
            self._write_one(raster, index, block)

    def _write_one(self, raster: BlockRaster, index: int, block: BlockPixels) -> None:
        profile, valid, tags = raster.profile, block.valid, dict(block.tags)
        if raster.overview_resampling == "average":
            bands = enumerate(block.values)
            tags[_SUMS_TAG] = dump_sums([BandSums.of(b, None if valid is None else valid[i]) for i, b in bands])
        mask = None
        if profile.with_mask:
            mask = np.full(block.values.shape[1:], 255, dtype=np.uint8)
            if valid is not None:
                mask[~valid.any(axis=0)] = 0
        height, width = profile.geobox.shape
        affine = crop(profile.geobox, self.layout.window(index, (height, width))).affine
        crs = profile.crs_wkt or crs_wkt(profile.geobox)
        write_block(self.file(index, raster.name), block.values, mask, affine, crs, profile.nodata, tags)

    def _nested(self, raster: BlockRaster, region: Window, parts: Iterator[_Part]) -> tuple[tuple[str, Window], ...]:
        """Sources of the region: the blocks themselves, or VRTs over them, and over those."""
        folder, profile = self.folder / BLOCKS, raster.profile

        def grouped(parts: Iterator[_Part], step: tuple[int, int], level: int) -> Iterator[_Part]:
            for (row, col), group in groupby(parts, lambda part: (part.row // step[0], part.col // step[1])):
                members = list(group)
                window = around([part.window for part in members])
                vrt = folder / f"mosaic_{level}_r{row:05d}_c{col:05d}{raster.name and f'.{raster.name}'}.vrt"
                sources = tuple((part.name, part.window.shift(-window.row, -window.col)) for part in members)
                geobox = crop(profile.geobox, window)
                write_vrt(
                    vrt, VirtualRaster(geobox, profile.dtype, profile.count, sources, profile.nodata, profile.with_mask)
                )
                yield _Part(row, col, vrt.name, window)

        rows, cols = -(-region.height // self.layout.size), -(-region.width // self.layout.size)
        level = 0
        while rows * cols > MAX_SOURCES:
            step = _step(cols)
            level += 1
            parts = grouped(parts, step, level)
            rows, cols = -(-rows // step[0]), -(-cols // step[1])
        return tuple((f"{BLOCKS}/{part.name}", part.window) for part in parts)

    def _listed(self, suffixes: tuple[str, ...]) -> set[int]:
        listed = set()
        try:
            with os.scandir(own_blocks(self.folder)) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        raise _not_followed(Path(entry.path))
                    name = _NAME.fullmatch(entry.name)
                    if name is None or name[3] not in suffixes:
                        continue
                    row, col = int(name[1]), int(name[2])
                    if row < self.layout.rows and col < self.layout.cols:
                        listed.add(row * self.layout.cols + col)
        except FileNotFoundError:
            return set()
        return listed


def write_rasters(
    rasters: Sequence[BlockRaster],
    outs: Sequence[Path],
    layout: BlockLayout,
    blocks: Iterable[FinishedBlock],
    *,
    overwrite: bool = False,
) -> None:
    """Write rasters as COGs from all their blocks, by way of a folder beside the first, which is gone afterwards.

    Args:
        rasters: the main one first.
        outs: the file of each.
        layout: of the blocks, in pixels of the rasters.
        blocks: all of them, in any order, one in memory at a time.
        overwrite: whether files that are there may be replaced.

    Raises:
        OutputError: a file exists, or cannot be written.
    """
    with _scratch(outs[0]) as folder:
        files = BlockFiles(folder, layout)
        files.write(rasters, blocks)
        for raster, out in zip(rasters, outs, strict=True):
            with blocks_env():
                mosaic = files.mosaic(raster)[0]
            files.publish(raster, mosaic, out, overwrite=overwrite)


def blocks_env() -> rasterio.Env:
    """GDAL's settings to read blocks with: nothing belongs to a block but its file, so nothing is looked for beside."""
    return gdal_env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")


def remove_sidecars(out: Path) -> None:
    """Remove what is beside a file that was replaced: GDAL would believe it."""
    for suffix in _SIDECARS:
        out.with_name(out.name + suffix).unlink(missing_ok=True)


def own_blocks(folder: Path) -> Path:
    """The folder of the blocks within that of a run.

    Raises:
        OutputError: a link leads elsewhere.
    """
    blocks = folder / BLOCKS
    for part in (folder, blocks):
        if part.is_symlink():
            raise _not_followed(part)
    return blocks


@dataclass(frozen=True, slots=True)
class _Part:
    """A source: its place (row, column) among those of its level, its file in the folder of the blocks, its window."""

    row: int
    col: int
    name: str
    window: Window


def _step(cols: int) -> tuple[int, int]:
    """Rows and columns that are taken together: whole rows, or parts of one, so that they follow each other."""
    if cols <= MAX_SOURCES:
        return MAX_SOURCES // cols, cols
    pieces = -(-cols // MAX_SOURCES)
    return 1, -(-cols // pieces)


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    try:
        folder = Path(mkdtemp(prefix=f".{out.name}.parts-", dir=out.parent))
    except OSError as error:
        raise output_error(out, error) from error
    try:
        (folder / BLOCKS).mkdir()
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def _is_plain(file: Path) -> bool:
    """Whether a file is there, and no link."""
    return file.exists() and not file.is_symlink()


def _not_followed(path: Path) -> OutputError:
    return OutputError(f"{path}: is a link, which is not followed; remove it, and start over with --overwrite")
