"""Finished blocks become one file: mosaic, statistics, provenance, cloud-optimised GeoTIFF."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection
from dataclasses import replace
from math import sqrt
from pathlib import Path

import rasterio

from geo_refdiff.engine.consistency import Residual
from geo_refdiff.engine.finish import EMPTY, BandSums, load_sums
from geo_refdiff.engine.mosaic import with_blocks
from geo_refdiff.engine.run import LEFT_TAG, SHARES_TAG, SOURCE, SUMS_TAG, UNCERTAINTY
from geo_refdiff.engine.tags import PLAN_TAG, band_tags, consistency_tags, extent_tags, provenance
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.errors import GeoRefDiffError
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.atomic import check_free, output_error, sync
from geo_refdiff.raster.block_file import read_block_tags
from geo_refdiff.raster.cog import publish_cog
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.geobox import crop
from geo_refdiff.raster.styles import write_category_names, write_class_style
from geo_refdiff.raster.vrt import BandStatistics, Mosaic, with_bands_of, write_vrt
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.sources import CLASSES, COLOURS, NOTHING

_SIDECARS = (".aux.xml", ".msk", ".ovr")


def publish(plan: Plan, workdir: Workdir, out: Path, *, overwrite: bool = False) -> None:
    """Write `out` from the finished blocks; it appears complete or not at all.

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
        write_vrt(workdir.mosaic, image_mosaic(plan, workdir, workdir.filled(plan.blocks)))
        publish_cog(workdir.mosaic, workdir.published, overwrite=True)
    check_free(out, overwrite)
    try:
        os.replace(workdir.published, out)
        remove_sidecars(out)
        sync(out.parent)
    except OSError as error:
        raise output_error(out, error) from error


def blocks_env() -> rasterio.Env:
    """GDAL's settings to read blocks with: nothing belongs to a block but its file, so nothing is looked for beside."""
    return gdal_env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")


def remove_sidecars(out: Path) -> None:
    """Remove what lies beside a file that was replaced: GDAL would believe it."""
    for suffix in _SIDECARS:
        out.with_name(out.name + suffix).unlink(missing_ok=True)


def publish_sources(plan: Plan, workdir: Workdir, out: Path) -> dict[str, int]:
    """Write the map of where detail comes from (classes of `engine.sources`) from the finished blocks, replacing `out`.

    Returns:
        pixels of each class.

    Raises:
        OutputError: it cannot be written.
        InputError: a block file cannot be read.
    """
    counts = [0] * len(CLASSES)

    def add(index: int) -> None:
        found = json.loads(read_block_tags(workdir.side_block(index, plan.blocks, SOURCE))[SHARES_TAG])
        counts[:] = [a + b for a, b in zip(counts, found, strict=True)]

    mosaic = Mosaic(
        geobox=plan.geobox,
        dtype="uint8",
        count=1,
        sources=(),
        nodata=NOTHING,
        descriptions=("source of detail",),
        colorinterp=("palette",),
        colours=COLOURS,
    )
    with blocks_env():
        mosaic = _with_product(mosaic, plan, workdir, SOURCE, add)
        shares = dict(zip(CLASSES, counts, strict=True))
        height, width = plan.shape
        shares[CLASSES[NOTHING]] = height * width - sum(counts[1:])
        tags = {
            "AREA_OR_POINT": "Area",
            PLAN_TAG: plan.digest(),
            **{f"GEO_REFDIFF_CLASS_{v}": name for v, name in enumerate(CLASSES)},
            **{f"GEO_REFDIFF_PIXELS_{name.upper()}": str(n) for name, n in shares.items()},
        }
        write_vrt(workdir.mosaic, replace(mosaic, tags=tags))
        publish_cog(workdir.mosaic, out, overview_resampling="mode", overwrite=True)
    write_category_names(out, CLASSES)
    write_class_style(out.with_suffix(".qml"), CLASSES, COLOURS)
    return shares


def publish_uncertainty(plan: Plan, workdir: Workdir, out: Path) -> None:
    """Write the map of half-widths (`engine.uncertainty`) from the finished blocks, replacing `out`.

    float32, NaN = missing; a band for each of the model's bands, in the output's digital numbers (its scale applies, an
    offset does not: these are differences).

    Raises:
        OutputError: it cannot be written.
    """
    record, at = plan.uncertainty, [b - 1 for b in plan.bands.scene]
    if record is None:
        raise GeoRefDiffError("the plan asks for no map of uncertainty")
    mosaic = Mosaic(
        geobox=plan.geobox,
        dtype="float32",
        count=len(at),
        sources=(),
        nodata=float("nan"),
        descriptions=plan.bands.names,
        scales=tuple(plan.scene.scales[i] for i in at),
        units=tuple(plan.scene.units[i] for i in at),
        tags={
            "AREA_OR_POINT": "Area",
            PLAN_TAG: plan.digest(),
            "TIFFTAG_IMAGEDESCRIPTION": record.meaning,
            "GEO_REFDIFF_UNCERTAINTY_COVERAGE": f"{record.coverage:g}",
            "GEO_REFDIFF_UNCERTAINTY_RUNS": str(record.runs),
            "GEO_REFDIFF_UNCERTAINTY_CALIBRATED": "yes" if record.calibrated else "no",
        },
    )
    with blocks_env():
        write_vrt(workdir.mosaic, _with_product(mosaic, plan, workdir, UNCERTAINTY))
        publish_cog(workdir.mosaic, out, overwrite=True)


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


def image_mosaic(plan: Plan, workdir: Workdir, filled: Collection[int], region: Window | None = None) -> Mosaic:
    """The output, or a part of it, as a mosaic of finished blocks, with statistics and provenance; see `with_blocks`.

    Args:
        plan: whose blocks are all finished.
        workdir: where they are; file names are relative to it.
        filled: blocks that have a file.
        region: whole blocks, in pixels of the output; None: all.

    Raises:
        InputError: a block file cannot be read.
        OutputError: a VRT cannot be written.
    """
    bands = plan.bands.output
    whole = Window(0, 0, *plan.shape)
    region = region or whole
    count = len(bands)
    left = Residual()
    sums: list[BandSums] = [EMPTY] * count

    def add(index: int) -> None:  # always in the same order: sums of floating numbers depend on it
        nonlocal sums, left
        block_tags = read_block_tags(workdir.block(index, plan.blocks))
        sums = [a.plus(b) for a, b in zip(sums, load_sums(block_tags[SUMS_TAG]), strict=True)]
        left = left.plus(Residual(**json.loads(block_tags[LEFT_TAG])))

    mosaic = Mosaic(
        geobox=plan.geobox if region == whole else crop(plan.geobox, region),
        dtype=plan.output.dtype,
        count=count,
        sources=(),
        nodata=plan.output.nodata,
        with_mask=plan.output.mask,
        band_tags=band_tags(plan),
    )
    mosaic = with_bands_of(mosaic, plan.scene, bands)
    mosaic = with_blocks(mosaic, plan, workdir, filled, region, lambda i: workdir.block_name(i, plan.blocks), add)
    return replace(
        mosaic,
        statistics=tuple(statistics(s, region.area) for s in sums) if all(s.count for s in sums) else (),
        tags=provenance(plan) | extent_tags(plan, region, sums) | consistency_tags(left, plan.output.dtype),
    )


def _with_product(
    mosaic: Mosaic, plan: Plan, workdir: Workdir, product: str, met: Callable[[int], None] = lambda index: None
) -> Mosaic:
    """A mosaic of another product with its blocks; see `with_blocks`."""
    whole, filled = Window(0, 0, *plan.shape), workdir.filled(plan.blocks)
    return with_blocks(
        mosaic, plan, workdir, filled, whole, lambda i: workdir.side_block_name(i, plan.blocks, product), met
    )


def statistics(sums: BandSums, pixels: int) -> BandStatistics:
    """A band's statistics from its sums, which count at least one valid pixel of `pixels`."""
    mean = sums.total / sums.count
    variance = max(0.0, sums.squares / sums.count - mean * mean)
    return BandStatistics(sums.minimum, sums.maximum, mean, sqrt(variance), 100.0 * sums.count / pixels)
