"""Pictures of rasters for people: panels side by side, quicklooks from overviews."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window as RioWindow

from geo_refdiff.raster.band_names import band_keys
from geo_refdiff.raster.files import atomic_path
from geo_refdiff.raster.gdal import reducing_env
from geo_refdiff.raster.info import RasterInfo, inspect
from geo_refdiff.raster.window import Window

if TYPE_CHECKING:
    from PIL import Image

_GAP = 8
_TITLE = 30
_PAPER, _INK = (255, 255, 255), (20, 20, 20)

SIDE = 768
_CUT = (2.0, 98.0)

_COMPRESSION = 4
"""Of a quicklook's PNG, 0..9: the most takes ten times as long for a file that is 3 % smaller."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a row.

    Attributes:
        title: written above it.
        pixels: (3, height, width) uint8 red, green, blue.
    """

    title: str
    pixels: NDArray[np.uint8]


def write_panels(path: Path, rows: Sequence[Sequence[Panel]], side: int) -> None:
    """Write rows of panels as a PNG, each panel `side` x `side` screen pixels.

    A coarser panel is enlarged by repeating its pixels, a finer one is reduced by area means.

    Raises:
        OutputError: the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    columns = max(len(row) for row in rows)
    width = columns * side + (columns + 1) * _GAP
    height = len(rows) * (side + _TITLE) + (len(rows) + 1) * _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            left, top = _GAP + c * (side + _GAP), _GAP + r * (side + _TITLE + _GAP)
            draw.text((left, top + 4), fitted(panel.title, side, font.getlength), fill=_INK, font=font)
            image = Image.fromarray(np.ascontiguousarray(panel.pixels.transpose(1, 2, 0)))
            method = Image.Resampling.NEAREST if image.width < side else Image.Resampling.BOX
            sheet.paste(image.resize((side, side), method), (left, top + _TITLE))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def fitted(title: str, width: float, length: Callable[[str], float]) -> str:
    """A title, its middle left out ("long_b...0123") where it is longer than a width.

    Args:
        length: of a text, in the width's unit.
    """
    if length(title) <= width:
        return title
    for kept in range(len(title) - 1, 0, -1):
        short = title[: (kept + 1) // 2] + "..." + title[len(title) - kept // 2 :]
        if length(short) <= width:
            return short
    return "..."


def stretch(image: NDArray[np.generic], low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Bands (3, height, width) of any dtype to uint8: `low` (3,) becomes black, `high` (3,) white."""
    span = np.maximum(high - low, 1e-9)[:, None, None]
    scaled = (image.astype(np.float32) - low[:, None, None]) / span
    shown: NDArray[np.uint8] = np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
    return shown


@dataclass(frozen=True)
class Look:
    """A raster as people look at it.

    Attributes:
        bands: three for red, green and blue, by name (or Sentinel-2's numbers) or colour, else the first three; one
            where there are fewer.
        values: (1 or 3, height, width) float32, reduced.
        valid: (height, width), True = valid.
        counted: (height, width), True = counts for the range.
    """

    bands: tuple[int, ...]
    values: NDArray[np.float32]
    valid: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    @cached_property
    def range(self) -> tuple[float, float]:
        """What becomes black and white: the 2 to 98 percentile range over all bands shown."""
        valid = self.values[:, self.counted if self.counted.any() else self.valid]
        low, high = (float(v) for v in np.percentile(valid, _CUT)) if valid.size else (0.0, 1.0)
        return low, high


def look(raster: Path, side: int = SIDE, clear: Callable[[tuple[int, int]], NDArray[np.bool_]] | None = None) -> Look:
    """A raster reduced to at most `side` pixels, which its overviews serve: memory does not depend on its size.

    Args:
        raster: to look at.
        side: pixels.
        clear: from a shape to which of the raster's pixels, reduced to it, are free of clouds, which do not count for
            the range; None: all are.

    Raises:
        InputError: it cannot be read.
    """
    bands = shown_bands(inspect(raster, "scene"))
    values, valid = reduced(str(raster), bands, side)
    return Look(bands, values, valid, valid if clear is None else valid & clear(valid.shape))


def shown_bands(info: RasterInfo) -> tuple[int, ...]:
    """Red, green and blue, by name or colour, else the first three; one where there are fewer. 1-based."""
    keys = band_keys(info).keys
    bands = [info.data_bands[keys.index(c)] for c in ("red", "green", "blue") if c in keys]
    return tuple(bands) if len(bands) == 3 else info.data_bands[: 3 if len(keys) >= 3 else 1]


def reduced(
    source: str,
    bands: Sequence[int],
    side: int,
    window: Window | None = None,
    resampling: Resampling = Resampling.nearest,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A raster, or a window of it, in at most `side` pixels along its longer side, from its overviews where it has any.

    Args:
        source: what GDAL opens.
        bands: 1-based.

    Returns:
        Values (C, height, width) and where they are valid, (height, width).
    """
    with reducing_env(), rasterio.open(source) as dataset:
        place = window or Window(0, 0, dataset.height, dataset.width)
        shrink = max(*place.shape, side) / side
        shape = max(1, round(place.height / shrink)), max(1, round(place.width / shrink))
        part = RioWindow(place.col, place.row, place.width, place.height)
        values = dataset.read(list(bands), window=part, out_shape=(len(bands), *shape), resampling=resampling)
        valid = dataset.dataset_mask(window=part, out_shape=shape) > 0
    values = values.astype(np.float32)
    return values, valid & np.isfinite(values).all(axis=0)


def picture_of(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> Image.Image:
    """Pixels (1 or 3, height, width), those that are missing transparent, and white where transparency is not shown."""
    from PIL import Image

    rgb = np.where(valid, np.broadcast_to(pixels, (3, *valid.shape)), 255)
    alpha = np.where(valid, 255, 0)
    return Image.fromarray(np.concatenate([rgb, alpha[None]]).astype(np.uint8).transpose(1, 2, 0).copy())


def write_quicklook(preview: Look, png: Path) -> None:
    """A PNG of what `look` gives; missing pixels are transparent.

    Raises:
        OutputError: the PNG cannot be written.
    """
    low, high = preview.range
    scaled = (np.nan_to_num(preview.values) - low) / max(high - low, 1e-9)
    shown = np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
    with atomic_path(png) as temporary:
        picture_of(shown, preview.valid).save(temporary, format="PNG", compress_level=_COMPRESSION)
