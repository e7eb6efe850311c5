"""How far two windows disagree, by the halo that is dropped: `python -m benchmarks.window_agreement [MODEL]`.

The sample scene is restored in two windows of 384 px, 128 px apart, with the same noise at the same place; where both
keep a pixel they should say the same. On real images windows differ more (`geo-refdiff evaluate --windows`), by which
the halo in the bundled model's config.json was chosen; this table shows how the difference falls with the halo.
"""

from __future__ import annotations

import click
import numpy as np
import rasterio
import torch
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from torch import Tensor

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.diffusion.checkpoint import load_denoiser
from geo_refdiff.diffusion.denoiser import GuidedDenoiser
from geo_refdiff.diffusion.noise import lattice_noise
from geo_refdiff.diffusion.samplers import heun, noisy_start
from geo_refdiff.diffusion.schedule import karras_sigmas
from geo_refdiff.errors import ModelError
from geo_refdiff.raster.window import Window
from geo_refdiff.sample_tiles import sample
from geo_refdiff.sensor.backproject import project
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel

SIDE, APART = 384, 128
HALOS = (0, 16, 32, 48, 64, 80, 96)


def scene_pair() -> tuple[Tensor, Tensor]:
    """(truth, reference) of the sample, (1, C, H, W) in DN, on one grid."""
    data = sample()
    with rasterio.open(data.truth) as source:
        truth = source.read()
        grid = {"crs": source.crs, "transform": source.transform, "width": source.width, "height": source.height}
    with rasterio.open(data.reference) as source, WarpedVRT(source, resampling=Resampling.cubic, **grid) as warped:
        reference = warped.read()
    return torch.from_numpy(truth.astype(np.float32))[None], torch.from_numpy(reference.astype(np.float32))[None]


def restored(denoiser: GuidedDenoiser, truth: Tensor, ref: Tensor, row: int, col: int, scale: int) -> Tensor:
    """One window through the model's own sampler and back-projection, DN."""
    sensor, own = SensorModel(scale), denoiser.sampler
    area = (..., slice(row, row + SIDE), slice(col, col + SIDE))
    lr = (sensor.observe(truth) / 127.5 - 1.0)[
        ..., row // scale : (row + SIDE) // scale, col // scale : (col + SIDE) // scale
    ]
    up = (upsample(sensor.observe(truth), scale) / 127.5 - 1.0)[area]
    mask = torch.full_like(up[:, :1], UNKNOWN_CLASS, dtype=torch.uint8)
    conditions = (up, (ref / 127.5 - 1.0)[area], mask)
    guidance = denoiser.guidance(*conditions)
    noise = torch.from_numpy(lattice_noise(Window(row, col, SIDE, SIDE), truth.shape[1], 0, 0))[None]
    image = heun(
        lambda x, s: denoiser(x, s, *conditions, guidance=guidance),
        noisy_start(denoiser.start(guidance), float(own["sigma_start"]), noise),
        karras_sigmas(int(own["steps"]), denoiser.sigma_min, float(own["sigma_start"]), denoiser.rho),
    )
    return (project(image.float(), lr, sensor) + 1.0) * 127.5


@click.command()
@click.argument("model", default="default")
@click.option("--scale", default=8, show_default=True)
def main(model: str, scale: int) -> None:
    """Print mean, 99th percentile and maximum of the difference in DN for each halo."""
    denoiser = load_denoiser(model)
    if not isinstance(denoiser, GuidedDenoiser):
        raise ModelError(f"{model}: this measure is made for models with a mean estimate")
    truth, ref = scene_pair()
    with torch.inference_mode():
        first = restored(denoiser, truth, ref, 128, 128, scale)
        second = restored(denoiser, truth, ref, 128 + APART, 128 + APART, scale)
    click.echo(f"{model}, {scale}x: two windows of {SIDE} px, {APART} px apart; difference in DN")
    click.echo(f"{'halo':>6}{'mean':>10}{'p99':>10}{'max':>10}")
    for halo in HALOS:
        shared = SIDE - APART - 2 * halo
        if shared <= 0:
            break
        a = first[..., APART + halo : APART + halo + shared, APART + halo : APART + halo + shared]
        b = second[..., halo : halo + shared, halo : halo + shared]
        gap = (a - b).abs().flatten()
        top = float(torch.quantile(gap[:: max(1, gap.numel() // 1_000_000)], 0.99))
        click.echo(f"{halo:6d}{float(gap.mean()):10.4f}{top:10.4f}{float(gap.max()):10.4f}")


if __name__ == "__main__":
    main()
