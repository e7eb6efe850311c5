"""Which figures are measured, and their values for one tile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Literal

import torch
from torch import Tensor

from geo_refdiff.errors import OptionError
from geo_refdiff.evaluate import metrics, perceptual
from geo_refdiff.evaluate.methods import ModelRun, Observation
from geo_refdiff.evaluate.perceptual import Compared
from geo_refdiff.evaluate.tiles import Tile
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES

REGIONS = ("changed", "unchanged")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of merit.

    Attributes:
        key: in metrics.json; with "_changed" or "_unchanged" for these pixels.
        title: in tables.
        better: "higher", "lower", or "one" where 1 is the truth's own.
        digits: after the decimal point.
        regions: whether it is measured over changed and unchanged pixels, too.
    """

    key: str
    title: str
    better: Literal["higher", "lower", "one"]
    digits: int
    regions: bool = False


FIGURES = (
    Figure("psnr", "PSNR dB", "higher", 2, regions=True),
    Figure("ssim", "SSIM", "higher", 3, regions=True),
    Figure("haarpsi", "HaarPSI", "higher", 3, regions=True),
    Figure("gmsd", "GMSD", "lower", 3, regions=True),
    Figure("efflp", "effLP", "lower", 3, regions=True),
    Figure("lpips", "LPIPS", "lower", 4, regions=True),
    Figure("energy", "energy", "one", 3, regions=True),
    Figure("chroma", "chroma", "one", 2, regions=True),
    Figure("flat_noise", "flat noise", "one", 3),
    Figure("lattice", "lattice", "one", 3),
    Figure("lr_rmse", "LR RMSE DN", "lower", 3),
    Figure("windows", "windows p99 DN", "lower", 3),
)


def measure(images: Tensor, tile: Tile, lr: Tensor, sensor: SensorModel, compared: Compared) -> dict[str, list[float]]:
    """The figures of several images of one tile.

    Args:
        images: (M, C, H, W) float32, DN.
        tile: with the truth and where it changed.
        lr: (1, C, h, w), what the sensor saw.
        sensor: the true operator.
        compared: what networks say of them.

    Returns:
        key -> M values, NaN where no pixel counts.
    """
    figures = image_figures(
        images, tile.truth, {"": None, "changed": tile.changed, "unchanged": tile.unchanged}, compared
    )
    figures["flat_noise"] = metrics.flat_noise_ratio(images, tile.truth)
    figures["lattice"] = metrics.lattice_peak_ratio(images, tile.truth)
    figures["lr_rmse"] = (sensor.observe(images) - lr).square().mean(dim=(1, 2, 3)).sqrt()
    return {key: [float(v) for v in values] for key, values in figures.items()}


def image_figures(
    images: Tensor, truth: Tensor, regions: Mapping[str, Tensor | None], compared: Compared
) -> dict[str, Tensor]:
    """Figures of images against a truth over regions.

    Args:
        images: (M, C, H, W) float32, DN.
        truth: (1, C, H, W).
        regions: name -> pixels that count, (1, 1, H, W) bool; None: all. The name "" is left out of the key.
        compared: what networks say of the images.

    Returns:
        key -> (M,), NaN where no pixel counts.
    """
    similarity, weight = metrics.haarpsi_map(images, truth)
    ssim, gms = metrics.ssim_map(images, truth), metrics.gms_map(images, truth)
    size = (images.shape[-2], images.shape[-1])
    maps = {key: perceptual.layers_map(layers, size).cpu() for key, layers in compared.layers.items()}
    figures: dict[str, Tensor] = {}
    for region, where in regions.items():
        values = {
            "psnr": metrics.psnr(images, truth, where),
            "ssim": metrics.ssim_mean(ssim, where),
            "haarpsi": metrics.haarpsi_mean(similarity, weight, where),
            "gmsd": metrics.gms_deviation(gms, where),
            "energy": metrics.gradient_energy_ratio(images, truth, where),
            "chroma": metrics.chroma_ratio(images, truth, where),
        }
        for key, layers in compared.layers.items():
            whole = perceptual.layers_mean(layers).cpu()
            values[key] = whole if where is None else metrics.mean_where(maps[key], where)
        figures |= {f"{key}_{region}" if region else key: value for key, value in values.items()}
    return figures


def columns(present: Sequence[str], regions: bool = False) -> list[tuple[Figure, str]]:
    """(figure, key) of what was measured: over all pixels, or over changed and unchanged ones."""
    named = [(f, f"{f.key}_{r}" if r else f.key) for f in FIGURES for r in (REGIONS if regions else ("",))]
    return [(figure, key) for figure, key in named if key in present]


def mean_and_error(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, standard error of the mean, and number, of the finite values; NaN for none."""
    kept = [v for v in values if math.isfinite(v)]
    error = stdev(kept) / math.sqrt(len(kept)) if len(kept) > 1 else math.nan
    return fmean(kept) if kept else math.nan, error, len(kept)


_LEAST = 32
"""Output pixels along a side that both windows keep, at least."""


def window_disagreement(run: ModelRun, seen: Observation) -> float:
    """99th percentile of the difference in DN of two windows of a tile that see the same noise at the same place.

    Raises:
        OptionError: the tile is too small for two windows with the model's halo.
    """
    restorer, scale = run.restorer(seen.sensor), seen.sensor.scale
    size, halo = seen.tile.truth.shape[-1], restorer.halo
    step = math.lcm(scale, restorer.multiple)
    side = step * math.ceil((size + 2 * halo + _LEAST) / 2 / step)
    if side >= size:
        raise OptionError(
            f"tile {size}: too small for two windows of model '{run.name}', whose halo is {halo} px; "
            f"give --tile {step * math.ceil((2 * halo + _LEAST + 2 * step) / step)} or more"
        )
    apart = size - side
    whole = run.conditions(seen)
    parts = [restorer.restore(_part(whole, at, side, scale)) for at in (0, apart)]
    first = parts[0][..., apart + halo : side - halo, apart + halo : side - halo]
    second = parts[1][..., halo : side - apart - halo, halo : side - apart - halo]
    return float(torch.quantile((first - second).abs().flatten(), 0.99)) * BYTES.half_range


def _part(whole: Conditions, at: int, side: int, scale: int) -> Conditions:
    """A window of `side` px that starts `at` px below and right of the tile's corner."""

    def cut(image: Tensor | None) -> Tensor | None:
        return None if image is None else image[..., at : at + side, at : at + side]

    corner = whole.windows[0]
    lr = slice(at // scale, (at + side) // scale + 2 * LR_MARGIN)
    window = Window(corner.row + at, corner.col + at, side, side)
    return replace(
        whole,
        windows=(window,),
        lr=whole.lr[..., lr, lr],
        ref=cut(whole.ref),
        mask=cut(whole.mask),
    )
