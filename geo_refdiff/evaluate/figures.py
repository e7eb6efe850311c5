"""Which figures are measured, and their values for one tile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from geo_refdiff.evaluate import metrics, structure
from geo_refdiff.evaluate.lpips import Lpips, lpips, lpips_map
from geo_refdiff.evaluate.tiles import Tile
from geo_refdiff.sensor.sensor import SensorModel

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


def measure(
    images: Tensor, tile: Tile, lr: Tensor, sensor: SensorModel, perceptual: Lpips | None, judged: list[Tensor] | None
) -> dict[str, list[float]]:
    """The figures of several images of one tile.

    Args:
        images: (M, C, H, W) float32, DN.
        tile: with the truth and where it changed.
        lr: (1, C, h, w), what the sensor saw.
        sensor: the true operator.
        perceptual: with its weights; None: LPIPS is left out.
        judged: `efficientnet.distances` of the images; None: effLP is left out.

    Returns:
        key -> M values, NaN where no pixel counts.
    """
    truth = tile.truth
    maps = [*metrics.haarpsi_map(images, truth), structure.ssim_map(images, truth), structure.gms_map(images, truth)]
    layers = None if perceptual is None else perceptual.layers(images, truth)
    distance = None if layers is None else lpips_map(layers, (images.shape[-2], images.shape[-1])).cpu()
    seen = None if judged is None else lpips_map(judged, (images.shape[-2], images.shape[-1])).cpu() / len(judged)
    found: dict[str, Tensor] = {}
    for region in ("", *REGIONS):
        where = None if not region else getattr(tile, region)
        values = {
            "psnr": metrics.psnr(images, truth, where),
            "ssim": structure.ssim_mean(maps[2], where),
            "haarpsi": metrics.haarpsi_mean(maps[0], maps[1], where),
            "gmsd": structure.gms_deviation(maps[3], where),
            "energy": metrics.gradient_energy_ratio(images, truth, where),
            "chroma": metrics.chroma_ratio(images, truth, where),
        }
        if judged is not None and seen is not None:
            whole = lpips(judged).cpu() / len(judged)
            values["efflp"] = whole if where is None else metrics.mean_where(seen, where)
        if layers is not None and distance is not None:
            values["lpips"] = lpips(layers).cpu() if where is None else metrics.mean_where(distance, where)
        found |= {f"{key}_{region}" if region else key: value for key, value in values.items()}
    found["flat_noise"] = metrics.flat_noise_ratio(images, truth)
    found["lattice"] = metrics.lattice_peak_ratio(images, truth)
    found["lr_rmse"] = (sensor.observe(images) - lr).square().mean(dim=(1, 2, 3)).sqrt()
    return {key: [float(v) for v in value] for key, value in found.items()}


def columns(present: Sequence[str], regions: bool = False) -> list[tuple[Figure, str]]:
    """(figure, key) of what was measured: over all pixels, or over changed and unchanged ones."""
    named = [(f, f"{f.key}_{r}" if r else f.key) for f in FIGURES for r in (REGIONS if regions else ("",))]
    return [(figure, key) for figure, key in named if key in present]


def mean_and_error(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, standard error of the mean, and number, of the finite values; NaN for none."""
    kept = torch.tensor([v for v in values if math.isfinite(v)], dtype=torch.float64)
    if len(kept) == 0:
        return float("nan"), float("nan"), 0
    error = metrics.standard_error(kept) if len(kept) > 1 else float("nan")
    return float(kept.mean()), error, len(kept)
