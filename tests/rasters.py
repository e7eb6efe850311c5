"""Rasters that tests and golden outputs write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp


def write_raster(
    path: Path,
    array: np.ndarray,
    transform: Affine,
    *,
    names: Sequence[str] = (),
    mask: np.ndarray | None = None,
    colorinterp: Sequence[ColorInterp] = (),
    scaled: tuple[float, float] | None = None,
    **profile: Any,
) -> Path:
    """A GeoTIFF of (C, height, width), with band names, internal mask, scale and offset; `profile` as of rasterio."""
    count, height, width = array.shape
    options: dict[str, Any] = {
        "driver": "GTiff", "count": count, "height": height, "width": width, "dtype": array.dtype.name,
        "transform": transform, "photometric": "minisblack", "alpha": "no",
    }  # fmt: skip
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **(options | profile)) as dataset:
        dataset.write(array)
        if names:
            dataset.descriptions = tuple(names)
        if colorinterp:
            dataset.colorinterp = tuple(colorinterp)
        if mask is not None:
            dataset.write_mask(mask)
        if scaled is not None:
            dataset.scales, dataset.offsets = [scaled[0]] * count, [scaled[1]] * count
    return path
