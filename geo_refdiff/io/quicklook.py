"""A small picture of a raster, read from its overviews."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image

from geo_refdiff.io.atomic import atomic_path

SIDE = 768
_CUT = (2.0, 98.0)


def write_quicklook(raster: Path, png: Path, side: int = SIDE) -> None:
    """A PNG of at most `side` pixels along its longer side: red, green, blue by name, else the first three bands.

    The 2 to 98 percentile range over all three becomes black to white; missing pixels are transparent. The raster is
    read at that size, which its overviews serve: memory does not depend on the raster's.

    Raises:
        OutputError: the PNG cannot be written.
    """
    with rasterio.open(raster) as dataset:
        shrink = max(dataset.height, dataset.width, side) / side
        shape = max(1, round(dataset.height / shrink)), max(1, round(dataset.width / shrink))
        names = [(name or "").lower() for name in dataset.descriptions]
        bands = [names.index(c) + 1 for c in ("red", "green", "blue") if c in names]
        if len(bands) < 3:
            bands = list(range(1, min(dataset.count, 3) + 1))
        image = dataset.read(
            bands[:3] if len(bands) >= 3 else bands[:1], out_shape=(3 if len(bands) >= 3 else 1, *shape)
        )
        valid = dataset.dataset_mask(out_shape=shape) > 0
    values = image.astype(np.float32)
    valid &= np.isfinite(values).all(axis=0)
    shown = _stretched(values, valid)
    rgb = np.repeat(shown, 3, axis=0) if len(shown) == 1 else shown
    alpha = np.where(valid, 255, 0).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(np.concatenate([rgb, alpha[None]]).transpose(1, 2, 0)))
    with atomic_path(png) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def _stretched(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    known = values[:, valid]
    low, high = (float(v) for v in np.percentile(known, _CUT)) if known.size else (0.0, 1.0)
    scaled = (np.nan_to_num(values) - low) / max(high - low, 1e-9)
    return np.asarray(np.rint(np.clip(scaled, 0.0, 1.0) * 255.0), dtype=np.uint8)
