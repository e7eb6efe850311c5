"""Finished blocks become one file: mosaic, statistics, provenance, cloud-optimised GeoTIFF."""

from __future__ import annotations

import os
from math import sqrt
from pathlib import Path

from geo_refdiff import __version__
from geo_refdiff.engine.finish import EMPTY, BandSums, load_sums
from geo_refdiff.engine.plan import Plan
from geo_refdiff.engine.run import SUMS_TAG
from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.errors import OutputError
from geo_refdiff.io.atomic import output_error, sync
from geo_refdiff.io.block_file import read_block_tags
from geo_refdiff.io.cog import publish_cog
from geo_refdiff.io.gdal import gdal_env
from geo_refdiff.io.vrt import BandStatistics, Mosaic, write_vrt

_SIDECARS = (".aux.xml", ".msk", ".ovr")

PLAN_TAG = "GEO_REFDIFF_PLAN_SHA256"
"""Metadata item of the output with the plan's digest."""


def provenance(plan: Plan) -> dict[str, str]:
    """Metadata of the output: how it was made. No times and no paths, so that the same run gives the same bytes."""
    sampler = ",".join(f"{k}={v}" for k, v in plan.model.sampler.items()) or "none"
    return {
        "AREA_OR_POINT": "Area",
        PLAN_TAG: plan.digest(),
        "GEO_REFDIFF_VERSION": __version__,
        "GEO_REFDIFF_MODEL": plan.model.name,
        "GEO_REFDIFF_MODEL_SHA256": plan.model.sha256 or "none",
        "GEO_REFDIFF_SAMPLER": sampler,
        "GEO_REFDIFF_SEED": str(plan.seed),
        "GEO_REFDIFF_SCALE": str(plan.grid.scale),
        "GEO_REFDIFF_REFERENCE": "yes" if plan.radiometry.gain else "no",
        "GEO_REFDIFF_MASK": "yes" if plan.mask and plan.model.sha256 else "no",
    }


def publish(plan: Plan, workdir: Workdir, out: Path, *, overwrite: bool = False, threads: int = 2) -> None:
    """Write `out` from the finished blocks; it appears complete or not at all.

    Args:
        plan: whose blocks are all finished.
        workdir: where they are.
        out: beside the folder, on the same disk.
        overwrite: whether a file that is there may be replaced.
        threads: compression threads.

    Raises:
        OutputError: `out` exists, or it cannot be written.
        InputError: a block file cannot be read.
    """
    with gdal_env():
        write_vrt(workdir.mosaic, _mosaic(plan, workdir))
        publish_cog(workdir.mosaic, workdir.published, threads=threads, overwrite=True)
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; choose another name or say --overwrite")
    try:
        os.replace(workdir.published, out)
        for suffix in _SIDECARS:  # of the file that was replaced: GDAL would believe them
            out.with_name(out.name + suffix).unlink(missing_ok=True)
        sync(out.parent)
    except OSError as error:
        raise output_error(out, error) from error


def published_digest(out: Path) -> str | None:
    """The plan's digest that a file carries, None if it carries none or is no raster."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(out) as dataset:
            found = dataset.tags().get(PLAN_TAG)
    except (RasterioError, OSError):
        return None
    return None if found is None else str(found)


def _mosaic(plan: Plan, workdir: Workdir) -> Mosaic:
    scene, bands = plan.scene, plan.bands.scene
    count = len(bands)
    sums: list[BandSums] = [EMPTY] * count
    filled = sorted(workdir.filled(plan.blocks))
    for index in filled:  # always in this order: sums of floating numbers depend on it
        found = load_sums(read_block_tags(workdir.block(index, plan.blocks))[SUMS_TAG])
        sums = [a.plus(b) for a, b in zip(sums, found, strict=True)]
    height, width = plan.shape
    at = [b - 1 for b in bands]
    return Mosaic(
        geobox=plan.geobox,
        dtype=plan.output.dtype,
        count=count,
        sources=tuple((workdir.block_name(i, plan.blocks), plan.block(i)) for i in filled),
        nodata=plan.output.nodata,
        with_mask=plan.output.mask,
        descriptions=tuple(scene.descriptions[i] for i in at),
        scales=tuple(scene.scales[i] for i in at),
        offsets=tuple(scene.offsets[i] for i in at),
        units=tuple(scene.units[i] for i in at),
        colorinterp=tuple("undefined" if scene.colorinterp[i] == "alpha" else scene.colorinterp[i] for i in at),
        statistics=tuple(_statistics(s, height * width) for s in sums) if all(s.count for s in sums) else (),
        tags=provenance(plan),
    )


def _statistics(sums: BandSums, pixels: int) -> BandStatistics:
    mean = sums.total / sums.count
    variance = max(0.0, sums.squares / sums.count - mean * mean)
    return BandStatistics(sums.minimum, sums.maximum, mean, sqrt(variance), 100.0 * sums.count / pixels)
