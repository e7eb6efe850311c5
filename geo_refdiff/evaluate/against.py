"""An output against a truth, and against the reference that it was made with, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from geo_refdiff.align.reading import register_rasters
from geo_refdiff.degrade.resize import CONTEXT, upsample
from geo_refdiff.degrade.sensor import SensorModel
from geo_refdiff.errors import GridError, InputError
from geo_refdiff.evaluate.correctness import CLASSES, correctness
from geo_refdiff.evaluate.metrics import haarpsi, psnr
from geo_refdiff.evaluate.structure import ssim
from geo_refdiff.grid.geobox import scene_geobox
from geo_refdiff.grid.window import Window
from geo_refdiff.io.raster import RasterReader
from geo_refdiff.io.raster_info import RasterInfo
from geo_refdiff.io.warp import WarpedReader

_TILE = 256
_LEAST = 1.0
"""Digital numbers of 256 by which scene and truth must differ for a place to say something."""


def against_truth(
    info: RasterInfo, truth: RasterInfo, source: RasterInfo, bands: list[int], corner: tuple[int, int], scale: int
) -> tuple[dict[str, float], dict[str, int]]:
    """Figures as means over tiles without missing pixels, values in units of 255 for the truth's range of a tile.

    Args:
        info: the output.
        truth: with the output's bands in its order, any grid.
        source: the scene; `bands` of it are the output's, `corner` (row, col) is its pixel in the output's corner.
        scale: HR pixels along an LR pixel.

    Returns:
        PSNR (dB), SSIM, HaarPSI; and places (of an LR pixel each) of each class of `correctness`.

    Raises:
        InputError: the truth has less bands than the output.
    """
    if len(truth.data_bands) < len(info.data_bands):
        raise InputError(
            f"{truth.path}: {len(truth.data_bands)} bands, but the output has {len(info.data_bands)}; give a truth "
            f"with the output's bands in its order"
        )
    found: dict[str, list[float]] = {"PSNR": [], "SSIM": [], "HaarPSI": []}
    counts = np.zeros(len(CLASSES), dtype=np.int64)
    chosen = truth.data_bands[: len(info.data_bands)]
    side = max(_TILE // scale, 1)
    with (
        RasterReader(info, info.data_bands) as fine,
        WarpedReader(truth, chosen, scene_geobox(info), "cubic") as true,
        RasterReader(source, bands) as coarse,
    ):
        for tile in tiles(info, scale, side):
            window = tile.multiply(scale)
            (pixels, valid), (wanted, known) = fine.read(window), true.read(window)
            lr, lr_valid = coarse.read(tile.pad(CONTEXT).shift(*corner))
            inner = (slice(None), slice(CONTEXT, CONTEXT + tile.height), slice(CONTEXT, CONTEXT + tile.width))
            if not (valid.all() and known.all() and lr_valid[inner].all()):
                continue
            unit = 1.0 if info.dtype == "uint8" else 255.0 / max(float(np.ptp(wanted)), 1e-12)
            edged = _edged(np.where(lr_valid, lr, 0).astype(np.float32), lr_valid)
            smooth = upsample(torch.from_numpy(edged)[None], scale, CONTEXT) * unit
            a, b = (torch.from_numpy(x.astype(np.float32) * np.float32(unit))[None] for x in (pixels, wanted))
            counts += correctness(a, smooth, b, scale, _LEAST).numpy()
            if tile.shape == (side, side) and min(window.shape) >= _TILE // 2:
                for key, figure in zip(found, (psnr, ssim, haarpsi), strict=True):
                    found[key].append(float(figure(a, b)))
    figures = {key: float(np.mean(values)) for key, values in found.items() if values}
    return figures, dict(zip(CLASSES, counts.tolist(), strict=True)) if counts.sum() else {}


def against_reference(
    info: RasterInfo, reference: RasterInfo, source: RasterInfo, bands: list[int], sensor: SensorModel
) -> dict[str, Any]:
    """How the reference lies on the scene, and how much of the output's detail is the reference's.

    Returns:
        "covered": share of the output's valid pixels where the reference is known. "registration": verdict, reason, and
        the shift that is measured, LR pixels (rows, columns), with its standard error; None where it is not known.
        "detail_shared": correlation of the detail (less than some 9 px) of both, -1..1, where both are valid.
    """
    count = min(len(bands), len(reference.data_bands))
    chosen = reference.data_bands[:count]
    told: dict[str, Any] = {"registration": _registration(source, bands[:count], reference, chosen, sensor)}
    sums, pixels, covered = np.zeros(3), 0, 0
    with (
        RasterReader(info, info.data_bands[:count]) as fine,
        WarpedReader(reference, chosen, scene_geobox(info), "cubic") as old,
    ):
        for window in tiles(info, 1, 2 * _TILE):
            (image, valid), (values, known) = fine.read(window), old.read(window)
            whole = valid.all(axis=0)
            pixels, covered = pixels + int(whole.sum()), covered + int((whole & known).sum())
            both = whole & known
            if both.any():
                a, b = (_detail(x.astype(np.float64), both) for x in (image, values))
                sums += ((a * b).sum(), (a * a).sum(), (b * b).sum())
    told["covered"] = covered / pixels if pixels else 0.0
    told["detail_shared"] = float(sums[0] / np.sqrt(sums[1] * sums[2])) if sums[1] and sums[2] else None
    return told


def tiles(info: RasterInfo, scale: int, side: int) -> Iterator[Window]:
    """A raster in tiles from its corner, in pixels of `scale` of its own."""
    whole = Window(0, 0, info.height // scale, info.width // scale)
    for row in range(0, whole.height, side):
        for col in range(0, whole.width, side):
            tile = Window(row, col, side, side).intersect(whole)
            if tile is not None:
                yield tile


def _registration(
    source: RasterInfo, bands: list[int], reference: RasterInfo, chosen: tuple[int, ...], sensor: SensorModel
) -> dict[str, Any]:
    try:
        found = register_rasters(source, bands, reference, chosen, sensor)
    except GridError as error:
        return {"verdict": "no overlap", "reason": str(error), "shift": None, "sigma": None, "after": None}
    if not found.registered:
        return {"verdict": found.verdict, "reason": found.reason, "shift": None, "sigma": None, "after": None}
    return {
        "verdict": found.verdict,
        "reason": found.reason,
        "shift": [round(v, 4) for v in found.shift],
        "sigma": round(found.sigma, 4),
        "after": round(found.after, 4),
    }


def _detail(image: NDArray[np.float64], both: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What is finer than some 9 pixels, 0 where not both are valid."""
    weight = np.maximum(uniform_filter(both.astype(np.float64), 9, mode="constant"), 1e-9)
    mean = np.stack([uniform_filter(np.where(both, band, 0.0), 9, mode="constant") for band in image]) / weight
    return np.where(both, np.where(both, image, 0.0) - mean, 0.0)


def _edged(values: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Missing pixels beyond the scene's border take the value of the nearest inside."""
    if valid.all():
        return values
    rows, cols = (np.flatnonzero(valid.any(axis=(0, 2 - a))) for a in (0, 1))
    whole = values[:, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    width = ((0, 0), (rows[0], values.shape[1] - rows[-1] - 1), (cols[0], values.shape[2] - cols[-1] - 1))
    return np.pad(whole, width, mode="edge")
