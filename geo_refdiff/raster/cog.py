"""Publishing: a mosaic becomes one cloud-optimised GeoTIFF, streamed, whole or not at all.

Source: https://gdal.org/en/stable/drivers/raster/cog.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Literal

import rasterio
import rasterio.shutil
from rasterio.windows import Window as RioWindow

from geo_refdiff.errors import OutputError
from geo_refdiff.raster.atomic import atomic_path, check_free
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env, one_line
from geo_refdiff.raster.pyramid import add_overviews

OverviewResampling = Literal["average", "nearest", "mode"]


def publish_cog(
    vrt: str | Path,
    out: str | Path,
    *,
    overview_resampling: OverviewResampling = "average",
    threads: int = 2,
    overwrite: bool = False,
    overviews: int = 0,
) -> None:
    """Copies a VRT to a COG: ZSTD, predictor, tiles of 512, overviews; band names, statistics and tags as in the VRT.

    Memory does not depend on the size. The same input gives the same bytes.

    Args:
        vrt: the mosaic.
        out: the file to write.
        overview_resampling: "average" for imagery, "nearest" or "mode" for classes.
        threads: compression threads.
        overwrite: whether a file that is there may be replaced.
        overviews: how many there shall be, however small the image.

    Raises:
        OutputError: `out` exists, its folder is missing or read-only, the disk is full, a block file cannot be read.
    """
    out = Path(out)
    check_free(out, overwrite)
    with atomic_path(out) as temporary, _without_leftovers(temporary):
        try:
            with gdal_env(GDAL_PAM_ENABLED=False):
                folder = temporary.with_name(f"{temporary.name}.overviews")
                folder.mkdir()
                _copy(add_overviews(Path(vrt), folder, overview_resampling, threads, overviews), temporary, threads)
        except GDAL_ERRORS as error:
            raise explained(out, error) from error


def _copy(vrt: Path, temporary: Path, threads: int) -> None:
    rasterio.shutil.copy(
        str(vrt),
        str(temporary),
        driver="COG",
        BIGTIFF="IF_SAFER",
        BLOCKSIZE=512,
        COMPRESS="ZSTD",
        LEVEL=1,
        NUM_THREADS=threads,
        OVERVIEWS="FORCE_USE_EXISTING",
        PREDICTOR="YES",
        STATISTICS="AUTO",
    )
    with rasterio.open(temporary) as dataset:  # the last tile: GDAL may overlook that the disk filled up
        dataset.read(window=RioWindow(dataset.width - 1, dataset.height - 1, 1, 1))


@contextmanager
def _without_leftovers(temporary: Path) -> Iterator[None]:
    """Removes the overviews, and what the COG driver may have put beside its output."""
    try:
        yield
    finally:
        for leftover in temporary.parent.glob(f"{temporary.name}.*"):
            if leftover.is_dir():
                rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def explained(out: Path, error: Exception) -> Exception:
    """What to raise where GDAL could not make `out`: the system's error, or one that names the file and the way out."""
    if isinstance(error, OSError) and error.errno:
        return error
    text = one_line(error)
    free = os.statvfs(out.parent)
    if free.f_bavail * free.f_frsize < 2**20 or "space left" in text.lower():
        return OutputError(f"{out}: cannot be written: the disk is full; free some space or write elsewhere")
    return OutputError(f"{out}: cannot be written ({text}); check the block files and the disk")
