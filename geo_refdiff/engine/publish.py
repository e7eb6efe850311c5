"""Finished blocks of a run become its files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import rasterio

from geo_refdiff.engine.consistency import Residual
from geo_refdiff.engine.rasters import (
    PLAN_TAG,
    block_class_counts,
    block_residual,
    consistency_tags,
    extent_tags,
    image_raster,
    source_raster,
    uncertainty_raster,
)
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.engine.writer import blocks_env
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.styles import write_category_names, write_class_style
from geo_refdiff.raster.vrt import VirtualRaster
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.sources import CLASSES, COLOURS, NOTHING


def publish(plan: Plan, workdir: Workdir, out: Path, *, overwrite: bool = False) -> None:
    """Write the image `out` from the finished blocks; it appears complete or not at all.

    Args:
        plan: whose blocks are all finished.
        workdir: where they are.
        out: beside the folder, on the same disk.
        overwrite: whether a file that is there may be replaced.

    Raises:
        OutputError: `out` exists, or it cannot be written.
        InputError: a block file cannot be read.
    """
    with blocks_env():
        mosaic = image_mosaic(plan, workdir)
    workdir.blocks(plan.blocks).publish(image_raster(plan), mosaic, out, overwrite=overwrite)


def publish_sources(plan: Plan, workdir: Workdir, out: Path) -> dict[str, int]:
    """Write the map of where detail comes from, with its category names and style, replacing `out`.

    Returns:
        pixels of each class.

    Raises:
        OutputError: it cannot be written.
        InputError: a block file cannot be read.
    """
    raster, files = source_raster(plan), workdir.blocks(plan.blocks)
    counts = [0] * len(CLASSES)

    def add(tags: Mapping[str, str]) -> None:
        counts[:] = [a + b for a, b in zip(counts, block_class_counts(tags), strict=True)]

    with blocks_env():
        mosaic, _ = files.mosaic(raster, on_block=add)
    shares = dict(zip(CLASSES, counts, strict=True))
    height, width = plan.shape
    shares[CLASSES[NOTHING]] = height * width - sum(counts[1:])
    pixels = {f"GEO_REFDIFF_PIXELS_{name.upper()}": str(n) for name, n in shares.items()}
    mosaic = replace(mosaic, tags={**mosaic.tags, **pixels})
    files.publish(raster, mosaic, out, overwrite=True)
    write_category_names(out, CLASSES)
    write_class_style(out.with_suffix(".qml"), CLASSES, COLOURS)
    return shares


def publish_uncertainty(plan: Plan, workdir: Workdir, out: Path) -> None:
    """Write the map of half-widths, replacing `out`.

    Raises:
        OutputError: it cannot be written.
        InputError: a block file cannot be read.
        GeoRefDiffError: the plan asks for none.
    """
    raster, files = uncertainty_raster(plan), workdir.blocks(plan.blocks)
    with blocks_env():
        mosaic, _ = files.mosaic(raster)
    files.publish(raster, mosaic, out, overwrite=True)


def published_digest(out: Path) -> str | None:
    """The plan's digest that a file carries, None if it carries none or is no raster."""
    return published_tags(out).get(PLAN_TAG)


def published_tags(out: Path) -> dict[str, str]:
    """The metadata items that a file carries; none if it is no raster."""
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(out) as dataset:
            return {str(key): str(value) for key, value in dataset.tags().items()}
    except (RasterioError, OSError):
        return {}


def image_mosaic(
    plan: Plan, workdir: Workdir, region: Window | None = None, filled: Collection[int] | None = None
) -> VirtualRaster:
    """The image, or a part of it, as a mosaic of finished blocks, with statistics and provenance.

    Args, Raises: as `BlockFiles.mosaic`.
    """
    residual = Residual()

    def add(tags: Mapping[str, str]) -> None:
        nonlocal residual
        residual = residual.plus(block_residual(tags))

    mosaic, sums = workdir.blocks(plan.blocks).mosaic(image_raster(plan), region, filled, add)
    measured = consistency_tags(residual, plan.output.dtype)
    extent = extent_tags(plan, region or Window(0, 0, *plan.shape), sums)
    return replace(mosaic, tags={**mosaic.tags, **extent, **measured})
