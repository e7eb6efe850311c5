"""Block files: small GeoTIFFs, each one finished block of the output, with what publishing needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.io import MemoryFile

from geo_refdiff.errors import InputError
from geo_refdiff.raster.atomic import write_bytes_atomic
from geo_refdiff.raster.gdal import GDAL_ERRORS, one_line

TILE = 512


def write_block(
    path: str | Path,
    array: NDArray[Any],
    mask: NDArray[np.uint8] | None,
    transform: Affine,
    crs: Any,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Writes one block as a GeoTIFF (ZSTD level 1, predictor, tiles of 512), whole or not at all.

    The file is encoded in memory and then written, so that a full disk is noticed.

    Args:
        path: the final name.
        array: (C, height, width) in the output's dtype.
        mask: (height, width), 255 = valid, 0 = missing, kept as an internal mask; None: the block has none.
        transform: the block's own affine, pixel (col, row) to CRS units.
        crs: anything rasterio takes for a CRS.
        nodata: nodata value, or None.
        tags: dataset metadata, text by name.

    Raises:
        OutputError: disk full, no permission, no such folder.
    """
    count, height, width = array.shape
    profile = {
        "driver": "GTiff",
        "count": count,
        "height": height,
        "width": width,
        "dtype": array.dtype.name,
        "crs": crs,
        "transform": transform,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": min(TILE, -(-width // 16) * 16),
        "blockysize": min(TILE, -(-height // 16) * 16),
        "compress": "zstd",
        "zstd_level": 1,
        "predictor": 3 if array.dtype.kind == "f" else 2,
        "interleave": "pixel",
        "photometric": "minisblack",
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(array)
            if mask is not None:
                dataset.write_mask(mask)
            if tags:
                dataset.update_tags(**tags)
        write_bytes_atomic(path, memory.getbuffer())


def read_block_tags(path: str | Path) -> dict[str, str]:
    """The dataset metadata of a block file.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with rasterio.open(path, driver="GTiff") as dataset:  # a VRT in its place would lead elsewhere
            return {str(k): str(v) for k, v in dataset.tags().items()}
    except GDAL_ERRORS as error:
        text = one_line(error, 160)
        raise InputError(f"{path}: is not a finished block ({text}); delete it and resume") from error
