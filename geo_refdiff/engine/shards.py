"""Finished blocks become many files: cloud-optimised GeoTIFFs side by side, and a VRT that names them."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

from geo_refdiff.engine.publish import image_mosaic, published_digest
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.engine.writer import blocks_env, remove_sidecars
from geo_refdiff.errors import OptionError, OutputError
from geo_refdiff.plan.layout import BlockLayout
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.cog import add_overviews, explained, overview_count, publish_cog
from geo_refdiff.raster.files import check_free, is_filled, output_error, sync
from geo_refdiff.raster.gdal import GDAL_ERRORS
from geo_refdiff.raster.vrt import write_vrt
from geo_refdiff.raster.window import Window

SIZE_TAG = "GEO_REFDIFF_SHARD_SIZE"
"""Metadata item of the VRT: side of a shard, pixels."""

_OURS = re.compile(r"(r\d+_c\d+|overview_\d+)\.tif(\.aux\.xml)?")


def shards_of(out: Path) -> Path:
    """Folder of the shards that the VRT `out` names, beside it."""
    return out.with_suffix(".shards")


def check_size(size: int, block: int) -> None:
    """Whether shards of `size` pixels a side are made of whole blocks of `block` pixels.

    Raises:
        OptionError: they are not.
    """
    if size < 1 or size % block:
        raise OptionError(f"shard size {size}: give a multiple of {block}, the block size, or another --block-size")


def check_shards(out: Path, size: int, plan: Plan, *, replace: bool) -> None:
    """Whether an output can be written as shards of so many pixels a side.

    Raises:
        OptionError: `size` is no multiple of the plan's blocks.
        OutputError: the shards' folder holds something else, or shards and `replace` was not said.
    """
    check_size(size, plan.blocks.size)
    folder = shards_of(out)
    if folder.exists() and not replace:
        raise OutputError(f"{folder}: exists already; choose another output or say --overwrite")
    _check_own(folder)


def remove_output(out: Path) -> None:
    """Remove an output, a file or a VRT with its shards, if it is one of ours.

    Raises:
        OutputError: it cannot be removed, or the shards' folder holds something else; then nothing is.
    """
    if published_digest(out) is None:
        return
    shards = shards_of(out) if out.suffix == ".vrt" and not shards_of(out).is_symlink() else None
    if shards:
        _check_own(shards)
    try:
        out.unlink()
        remove_sidecars(out)
        if shards:
            _remove(shards)
    except OSError as error:
        raise output_error(out, error) from error


def publish_shards(plan: Plan, workdir: Workdir, out: Path, size: int, *, overwrite: bool = False) -> int:
    """Write finished blocks as shards, counted from the output's corner, and then the VRT `out` that names them.

    A shard is a valid COG with its own overviews and statistics; overviews beyond those of a shard are files of their
    own, which the VRT names, too. Names are relative, so that VRT and folder may be moved together. A shard without any
    valid pixel is left out. Shards that an interrupted run has finished are kept.

    Args:
        plan: whose blocks are all finished.
        workdir: where they are.
        out: the VRT, beside the folder, on the same disk; it appears last.
        size: side of a shard, pixels, a multiple of the blocks'; those at the right and lower edge are smaller.
        overwrite: whether a VRT that is there, with its shards, may be replaced.

    Returns:
        number of shards.

    Raises:
        OutputError: `out` exists, or something cannot be written.
        InputError: a block file cannot be read.
    """
    check_free(out, overwrite)
    ready, target = workdir.shards(size), shards_of(out)
    for folder in (ready, target):
        if folder.is_symlink():
            raise OutputError(f"{folder}: is a link, which is not followed; remove it")
    try:
        ready.mkdir(exist_ok=True)
    except OSError as error:
        raise output_error(ready, error) from error
    with blocks_env():
        files = workdir.blocks(plan.blocks)
        filled = files.filled()
        shards = _write_shards(plan, workdir, filled, size)
        whole = image_mosaic(plan, workdir, filled=filled)
        write_vrt(files.vrt(), whole)
        overviews = _write_overviews(files.vrt(), ready, size, plan.shape)
    try:
        out.unlink(missing_ok=True)  # first: a VRT never names shards that are not its own
        _remove(target)
        os.replace(ready, target)
        remove_sidecars(out)
        sync(out.parent)
    except OSError as error:
        raise output_error(target, error) from error
    named = dataclasses.replace(
        whole,
        sources=tuple((f"{target.name}/{name}", window) for name, window in shards),
        overviews=tuple((factor, f"{target.name}/{name}") for factor, name in overviews),
        tags={**whole.tags, SIZE_TAG: str(size)},
    )
    write_vrt(out, named)
    return len(shards)


def published_size(out: Path) -> int | None:
    """Side of the shards that a VRT names; None if it is none of ours, or a file that it names is missing or empty."""
    size = ""
    names: set[str] = set()
    within: list[ET.Element] = []
    try:
        for event, element in ET.iterparse(out, events=("start", "end")):
            if event == "start":
                within.append(element)
                continue
            within.pop()
            if element.tag == "MDI" and element.get("key") == SIZE_TAG:
                size = element.text or ""
            elif element.tag == "SourceFilename":
                names.add(element.text or "")
            elif element.tag == "SimpleSource":
                within[-1].remove(element)  # there may be very many
    except (ET.ParseError, OSError):
        return None
    return int(size) if size.isdecimal() and all(is_filled(out.parent / name) for name in names) else None


def _write_shards(plan: Plan, workdir: Workdir, filled: set[int], size: int) -> list[tuple[str, Window]]:
    height, width = plan.shape
    layout = BlockLayout(size, -(-height // size), -(-width // size))
    digest, shards = plan.digest, []
    overviews = _overviews_of_a_shard(size, plan.shape)  # smaller ones at the edge have as many, for the VRT's sake
    for index in range(layout.count):
        window = layout.window(index, plan.shape)
        mosaic = image_mosaic(plan, workdir, window, filled)
        if not mosaic.sources:
            continue
        row, col = divmod(index, layout.cols)
        shard = workdir.shards(size) / f"r{row:05d}_c{col:05d}.tif"
        if published_digest(shard) != digest:
            vrt = workdir.blocks(plan.blocks).vrt()
            write_vrt(vrt, mosaic)
            publish_cog(vrt, shard, overwrite=True, overviews=overviews)
        shards.append((shard.name, window))
    return shards


def _write_overviews(vrt: Path, folder: Path, size: int, shape: tuple[int, int]) -> list[tuple[int, str]]:
    """Overviews of the whole that are coarser than those of a shard: with them a map zooms out in one file.

    Returns:
        (factor, file name in `folder`).
    """
    own = _overviews_of_a_shard(size, shape)
    if overview_count(shape) <= own:
        return []
    scratch = folder.with_name(f"{folder.name}.overviews")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        add_overviews(vrt, scratch)
        overviews = []
        for file in scratch.glob("overview_*.tif"):
            factor = int(file.stem.removeprefix("overview_"))
            if factor > 2**own:
                sync(file)
                os.replace(file, folder / file.name)
                overviews.append((factor, file.name))
    except GDAL_ERRORS as error:
        raise explained(folder / "overview.tif", error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return sorted(overviews)


def _overviews_of_a_shard(size: int, shape: tuple[int, int]) -> int:
    return overview_count((min(size, max(shape)),))


def _check_own(folder: Path) -> None:
    strangers = [folder] if folder.exists() and not folder.is_dir() else _strangers(folder)
    if strangers:
        raise OutputError(
            f"{folder}: is needed for the shards, but {strangers[0].name} is there; move it away or choose another "
            f"output"
        )


def _strangers(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if not _OURS.fullmatch(p.name)] if folder.exists() else []


def _remove(folder: Path) -> None:
    """Remove a folder of shards, and nothing that could be somebody else's."""
    if folder.exists():
        for file in folder.iterdir():
            if _OURS.fullmatch(file.name):
                file.unlink()
        folder.rmdir()
