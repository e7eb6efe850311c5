"""Pictures for people: georeferenced arrays side by side in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geo_refdiff.raster.atomic import atomic_path

_GAP = 8
_TITLE = 30
_PAPER, _INK = (255, 255, 255), (20, 20, 20)


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
    columns = max(len(row) for row in rows)
    width = columns * side + (columns + 1) * _GAP
    height = len(rows) * (side + _TITLE) + (len(rows) + 1) * _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for r, row in enumerate(rows):
        for c, panel in enumerate(row):
            left, top = _GAP + c * (side + _GAP), _GAP + r * (side + _TITLE + _GAP)
            draw.text((left, top + 4), panel.title, fill=_INK, font=font)
            image = Image.fromarray(np.ascontiguousarray(panel.pixels.transpose(1, 2, 0)))
            method = Image.Resampling.NEAREST if image.width < side else Image.Resampling.BOX
            sheet.paste(image.resize((side, side), method), (left, top + _TITLE))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def stretch(image: NDArray[np.generic], low: NDArray[np.floating], high: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Bands (3, height, width) of any dtype to uint8: `low` (3,) becomes black, `high` (3,) white."""
    span = np.maximum(high - low, 1e-9)[:, None, None]
    scaled = (image.astype(np.float32) - low[:, None, None]) / span
    shown: NDArray[np.uint8] = np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)
    return shown
