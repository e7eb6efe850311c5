"""A picture of a registration: shifts before and after, and the two images in a chequerboard."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rasterio.enums import Resampling

from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.picture import Panel, stretch, write_panels
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.register import Registration

_SIDE = 512
_CLOSE = 64
"""Side of the close-up, scene pixels."""

_FIELDS = 8
"""Fields of the chequerboard along an axis."""

_GOOD, _BAD, _LEFT_OUT = (40, 200, 90), (235, 60, 40), (150, 150, 150)

Bytes = NDArray[np.uint8]


def draw_registration(
    path: Path,
    scene: RasterInfo,
    scene_bands: Sequence[int],
    reference: RasterInfo,
    reference_bands: Sequence[int],
    registration: Registration,
    scale: int,
) -> None:
    """Write a PNG: shifts on the scene before and after, and a close-up of scene and reference in a chequerboard.

    Args:
        path: PNG.
        scene, scene_bands, reference, reference_bands: as compared.
        registration: how the reference is aligned with the scene.
        scale: output pixels along a scene pixel.

    Raises:
        OutputError: the file cannot be written.
    """
    overview = _overview(scene, scene_bands)
    longest = max((hypot(*s.shift) for s in registration.accepted), default=hypot(*registration.shift))
    factor = scene.width / 12 / max(longest, 1e-6)
    caption = f"{factor:.0f} times" if factor < 1e4 else "none"
    before, after = f"before: {registration.before:.2f} scene px rms", f"after: {registration.after:.2f} scene px rms"
    shifts = [
        Panel(f"{before} (drawn {caption})", _arrows(overview, scene, registration, factor, residual=False)),
        Panel(after, _arrows(overview, scene, registration, factor, residual=True)),
    ]
    close = _close_up(scene, registration)
    boards = [
        Panel(title, _board(scene, scene_bands, reference, reference_bands, close, scale, displacement))
        for title, displacement in (("before: chequerboard", None), ("after", registration.displacement.scaled(scale)))
    ]
    write_panels(path, [shifts, boards], _SIDE)


def _overview(scene: RasterInfo, bands: Sequence[int]) -> Bytes:
    """The scene, or its overview, at most 512 pixels along a side; (3, height, width)."""
    step = max(1.0, max(scene.height, scene.width) / _SIDE)
    shape = (len(_three(bands)), max(1, round(scene.height / step)), max(1, round(scene.width / step)))
    with rasterio.open(scene.source) as source:
        image = source.read(_three(bands), out_shape=shape, resampling=Resampling.average).astype(np.float32)
        valid = source.dataset_mask(out_shape=shape[1:]) > 0
    return _shown(image, valid & np.isfinite(image).all(axis=0))


def _arrows(overview: Bytes, scene: RasterInfo, registration: Registration, factor: float, *, residual: bool) -> Bytes:
    """The overview, square, with an arrow for each place: from where the scene shows it to where the reference does."""
    picture = Image.fromarray(np.ascontiguousarray(overview.transpose(1, 2, 0))).resize((_SIDE, _SIDE))
    draw = ImageDraw.Draw(picture)
    across, down = _SIDE / scene.width, _SIDE / scene.height
    places = [(s.row, s.col, s.residual if residual else s.shift, s.accepted) for s in registration.sites]
    if not places and registration.registered:
        shift = (0.0, 0.0) if residual else registration.shift
        places = [(scene.height / 2, scene.width / 2, shift, True)]
    for row, col, (drow, dcol), accepted in places:
        colour = _LEFT_OUT if not accepted else _GOOD if residual else _BAD
        start = (col * across, row * down)
        end = (start[0] + dcol * factor * across, start[1] + drow * factor * down)
        if accepted:
            draw.line([start, end], fill=colour, width=2)
        draw.ellipse([start[0] - 3, start[1] - 3, start[0] + 3, start[1] + 3], outline=colour, width=2)
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _close_up(scene: RasterInfo, registration: Registration) -> Window:
    """Around the accepted place of the highest score, else the middle; scene pixels."""
    best = max(registration.accepted, key=lambda s: s.score, default=None)
    row, col = (scene.height / 2, scene.width / 2) if best is None else (best.row, best.col)
    height, width = min(_CLOSE, scene.height), min(_CLOSE, scene.width)
    top = int(np.clip(row - height / 2, 0, scene.height - height))
    return Window(top, int(np.clip(col - width / 2, 0, scene.width - width)), height, width)


def _board(
    scene: RasterInfo,
    scene_bands: Sequence[int],
    reference: RasterInfo,
    reference_bands: Sequence[int],
    window: Window,
    scale: int,
    displacement: Displacement | None,
) -> Bytes:
    target = output_geobox(scene_geobox(scene), scale)
    with (
        RasterReader(scene, _three(scene_bands)) as lr,
        WarpedReader(reference, _three(reference_bands), target, "cubic", displacement) as hr,
    ):
        coarse, valid = lr.read(window)
        fine, fine_valid = hr.read(window.multiply(scale))
    enlarged = np.repeat(
        np.repeat(_shown(coarse.astype(np.float32), np.asarray(valid.all(axis=0))), scale, 1), scale, 2
    )
    rows, cols = np.indices(fine_valid.shape)
    side = max(1, max(fine_valid.shape) // _FIELDS)
    field = ((rows // side + cols // side) % 2).astype(bool)
    return np.where(field, enlarged, _shown(fine, fine_valid)).astype(np.uint8)


def _three(bands: Sequence[int]) -> list[int]:
    return list(bands[:3]) if len(bands) >= 3 else [bands[0]] * 3


def _shown(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> Bytes:
    if not valid.any():
        return np.zeros(image.shape, dtype=np.uint8)
    low, high = (np.percentile(image[:, valid], q, axis=1) for q in (1, 99))
    return np.where(valid, stretch(image, low, high), 0).astype(np.uint8)
