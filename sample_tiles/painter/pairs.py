"""Landscapes as ordinary pairs of GeoTIFFs, and the index by which `geo-refdiff train` and `evaluate` read them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from geo_refdiff.classes import CLASSES, COLOURS
from geo_refdiff.data.index import IndexRow, check_suffix, write_index
from geo_refdiff.data.matching import View, fit_views
from sample_tiles.painter.landscape import render_pair

U8 = NDArray[np.uint8]

CRS_UTM: Final = "EPSG:32633"
CORNER: Final = (559_200.0, 5_361_600.0)
"""Upper left corner of everything painted, metres in EPSG:32633: farmland in Lower Austria, about 15.8 E, 48.4 N."""
BANDS: Final = ("red", "green", "blue", "nir")
_INTERPRETATION: Final = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined)


def write_raster(path: Path, image: U8, crs: str, transform: Affine, nodata: int | None) -> None:
    """An image (4, H, W) or land cover (H, W), uint8, as a tiled GeoTIFF; the latter with names and colours."""
    classes = image.ndim == 2
    bands = image[None] if classes else image
    profile: dict[str, Any] = {
        "driver": "GTiff", "dtype": "uint8", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2],
        "crs": CRS.from_string(crs), "transform": transform, "nodata": nodata, "tiled": True, "blockxsize": 256,
        "blockysize": 256, "compress": "ZSTD", "zstd_level": 19, "predictor": 1 if classes else 2,
    }  # fmt: skip
    if not classes:
        profile |= {"photometric": "RGB", "ALPHA": "NO", "interleave": "pixel"}
    with rasterio.open(path, "w", **profile) as dst:
        dst.write(bands)
        if classes:
            dst.set_band_description(1, "change class")
            dst.write_colormap(1, {k: (*colour, 255) for k, colour in enumerate(COLOURS)})
            dst.update_tags(1, **{f"CLASS_{k}": name for k, name in enumerate(CLASSES)})
        else:
            dst.descriptions = BANDS
            dst.colorinterp = _INTERPRETATION


def write_pairs(index: Path, seeds: Iterable[int], size: int = 256, gsd: float = 1.0) -> None:
    """Paint one landscape for each seed, `size` pixels of `gsd` metres square, as an ordered pair of dates.

    Odd seeds run back in time. Each pair has a folder new.tif, ref.tif, classes.tif (land cover of the new date) and
    mask.tif (change, exact), below one that is called as the index without its suffix; what is there is replaced.

    Raises:
        OptionError: a suffix that is no index's; a size or GSD that is not painted.
        OutputError: the index cannot be written.
    """
    check_suffix(index)
    write_index(index, [_write_pair(index.with_suffix("") / str(seed), seed, size, gsd) for seed in seeds])


def _write_pair(folder: Path, seed: int, size: int, gsd: float) -> IndexRow:
    pair = render_pair(seed, (size, size), gsd)
    dates = [(pair.old, pair.old_classes), (pair.new, pair.new_classes)]
    (ref, before), (new, now) = dates[::-1] if seed % 2 else dates
    folder.mkdir(parents=True, exist_ok=True)
    grid = Affine(gsd, 0, CORNER[0], 0, -gsd, CORNER[1])
    for name, image in (("new", new), ("ref", ref), ("classes", now), ("mask", np.where(before != now, now, 0))):
        write_raster(folder / f"{name}.tif", image.astype(np.uint8), CRS_UTM, grid, None)
    everywhere = np.ones(now.shape, np.bool_)
    fit = fit_views([View(new, everywhere, ref, everywhere)])
    below = f"{folder.parent.name}/{folder.name}"
    return IndexRow(
        f"landscape {seed} {'new->old' if seed % 2 else 'old->new'}",
        f"{below}/new.tif",
        f"{below}/ref.tif",
        mask=f"{below}/mask.tif",
        new_classes=f"{below}/classes.tif",
        place=f"landscape/{seed}",
        gain=fit.gain,
        offset=fit.offset,
        correlation=float(np.mean(fit.correlation)),
    )
