"""Copies of an output with one thing broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray


def damaged(
    out: Path,
    path: Path,
    change: Callable[[NDArray[Any]], NDArray[Any] | None] = lambda pixels: None,
    tags: Mapping[str, str] | None = None,
    names: Any = None,
    scales: Any = None,
    offsets: Any = None,
    units: Any = None,
    **profile: Any,
) -> Path:
    """A copy as a plain GeoTIFF with the same tags of file and bands, but for what is given.

    Args:
        change: gets the pixels (C, height, width) and changes them in place, or gives others.
    """
    with rasterio.open(out) as source:
        pixels, options = source.read(), source.profile
        kept = source.tags() | dict(tags or {})
        of_bands = [source.tags(b) for b in range(1, source.count + 1)]
        summary = {
            "descriptions": names or source.descriptions,
            "scales": scales or source.scales,
            "offsets": offsets or source.offsets,
            "units": units or source.units,
            "colorinterp": source.colorinterp,
        }
        mask = source.read_masks(1) if source.nodata is None else None
    changed = change(pixels)
    pixels = pixels if changed is None else changed
    options |= {"driver": "GTiff", "height": pixels.shape[1], "width": pixels.shape[2]} | profile
    options |= {"photometric": "minisblack", "alpha": "no"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **options) as target:
        target.write(pixels.astype(options["dtype"]))
        target.update_tags(**kept)
        for name, values in summary.items():
            if name != "units" or any(values):
                setattr(target, name, values)
        for band, result in enumerate(of_bands, 1):
            target.update_tags(band, **result)
        if mask is not None and (mask == 0).any():
            target.write_mask(mask)
    return path


def summary(out: Path, name: str) -> float:
    """A number in the tags of a file."""
    with rasterio.open(out) as dataset:
        return float(dataset.tags()[name])


def grainy(strength: float, seed: int = 0) -> Callable[[NDArray[Any]], None]:
    """Adds noise of so many digital numbers."""

    def change(pixels: NDArray[Any]) -> None:
        noise = np.random.default_rng(seed).normal(0, strength, pixels.shape)
        pixels[:] = np.clip(np.rint(pixels + noise), 0, 255).astype(pixels.dtype)

    return change
