"""Quality on places never trained on, beside the classical baselines: `python -m benchmarks.quality [MODEL]`.

Each place of the city gives two tiles of 256 px, one for each order of its two dates. LR = the declared sensor (PSF
sigma 0.35 LR px + area mean). No change mask is given. "registered": the reference shifted by a global estimate from
the truth, as a good co-registration would; otherwise as it comes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from geo_refdiff.degrade.backproject import project
from geo_refdiff.degrade.resize import upsample
from geo_refdiff.degrade.sensor import SensorModel
from geo_refdiff.diffusion.checkpoint import load_denoiser
from geo_refdiff.diffusion.denoiser import GuidedDenoiser
from geo_refdiff.diffusion.samplers import heun, noisy_start
from geo_refdiff.diffusion.schedule import karras_sigmas
from geo_refdiff.evaluate import metrics
from geo_refdiff.train.pairs import Pair, aerial_pairs

DATA = Path(os.environ.get("GEO_REFDIFF_DATA", Path(__file__).parents[2] / "shared" / "data"))
COLUMNS = ("PSNR", "HaarPSI", "changed", "unchanged", "energy", "flat", "lattice", "LR RMSE")


def changed_pixels(truth: Tensor, ref: Tensor) -> Tensor:
    """Pseudo-label, (1, 1, H, W): local means of both dates differ by more than 25 DN in some band."""
    far = torch.nn.functional.avg_pool2d((truth - ref).abs(), 9, stride=1, padding=4)
    return far.amax(dim=1, keepdim=True) > 40.0


def figures(image: Tensor, truth: Tensor, ref: Tensor, lr: Tensor, sensor: SensorModel) -> list[float]:
    """One row of the table; images (1, C, H, W) in DN."""
    changed = changed_pixels(truth, ref)
    return [
        float(value)
        for value in (
            metrics.psnr(image, truth),
            metrics.haarpsi(image, truth),
            metrics.haarpsi(image, truth, changed),
            metrics.haarpsi(image, truth, ~changed),
            metrics.gradient_energy_ratio(image, truth),
            metrics.flat_noise_ratio(image, truth),
            metrics.lattice_peak_ratio(image, truth),
            (sensor.observe(image) - lr).square().mean().sqrt(),
        )
    ]


def to_model(dn: Tensor) -> Tensor:
    return dn / 127.5 - 1.0


def sampled(denoiser: GuidedDenoiser, lr_up: Tensor, ref: Tensor, steps: int, sigma: float, gain: float) -> Tensor:
    """The model's result in DN; sigma 0 = its start without diffusion."""
    mask = torch.full_like(lr_up[:, :1], 255, dtype=torch.uint8)
    conditions = (to_model(lr_up), to_model(ref), mask)
    guidance = denoiser.guidance(*conditions)
    denoiser.network.gate_gain = gain  # type: ignore[assignment]
    x = denoiser.start(guidance)
    if sigma > 0:
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        low = float(denoiser.config["sampler"]["sigma_min"])
        x = heun(
            lambda z, s: denoiser(z, s, *conditions, guidance=guidance),
            noisy_start(x, sigma, noise),
            karras_sigmas(steps, low, sigma, 7.0),
        )
    return (x + 1.0) * 127.5


def methods(
    denoiser: GuidedDenoiser | None, settings: list[tuple[int, float, float]]
) -> dict[str, Callable[..., Tensor]]:
    """name -> function of (lr, lr_up, ref, sensor) -> image in DN."""
    table: dict[str, Callable[..., Tensor]] = {
        "bicubic": lambda lr, up, ref, sensor: up,
        "bicubic-ibp": lambda lr, up, ref, sensor: project(up, lr, sensor),
        "reference as it is": lambda lr, up, ref, sensor: ref,
        "matched-ref": lambda lr, up, ref, sensor: project(ref, lr, sensor),
    }
    if denoiser is not None:
        model = denoiser
        for steps, sigma, gain in settings:
            table[f"ours steps {steps} sigma {sigma} gate {gain}"] = (
                lambda lr, up, ref, sensor, s=steps, n=sigma, g=gain: project(
                    sampled(model, up, ref, s, n, g), lr, sensor
                )
            )
    return table


def tiles(pairs: list[Pair]) -> Iterator[tuple[Tensor, Tensor]]:
    for pair in pairs:
        yield torch.from_numpy(pair.new.astype(np.float32))[None], torch.from_numpy(pair.ref.astype(np.float32))[None]


@click.command()
@click.argument("model", default="default")
@click.option("--city", default="santa_monica", show_default=True)
@click.option("--places", default=24, show_default=True, help="Places, two tiles each.")
@click.option("--scale", default=(8,), multiple=True, show_default=True)
@click.option("--registered/--as-it-comes", default=True, show_default=True)
@click.option("--setting", multiple=True, help="steps,sigma,gate of our sampler; default the model's own.")
def main(
    model: str, city: str, places: int, scale: tuple[int, ...], registered: bool, setting: tuple[str, ...]
) -> None:
    """Print a table of means; standard errors of HaarPSI last."""
    loaded = None if model == "none" else load_denoiser(model)
    denoiser = loaded if isinstance(loaded, GuidedDenoiser) else None
    settings = [(int(s), float(n), float(g)) for s, n, g in (text.split(",") for text in setting)]
    if denoiser is not None and not settings:
        own = denoiser.config["sampler"]
        settings = [(own["steps"], own["sigma_start"], denoiser.config["gate_gain"])]
    pairs = list(aerial_pairs(DATA / "naip-ca", only=(city,), register=registered))[: 2 * places]
    for factor in scale:
        sensor = SensorModel(factor)
        rows: dict[str, list[list[float]]] = {}
        for truth, ref in tiles(pairs):
            lr = sensor.observe(truth)
            up = upsample(lr, factor)
            for name, method in methods(denoiser, settings).items():
                with torch.inference_mode():
                    image = method(lr, up, ref, sensor)
                rows.setdefault(name, []).append(figures(image, truth, ref, lr, sensor))
        click.echo(
            f"\n{city}, {len(pairs)} tiles, {factor}x, reference {'registered' if registered else 'as it comes'}"
        )
        click.echo(f"{'':32}" + "".join(f"{column:>10}" for column in COLUMNS) + "   se(HaarPSI)")
        for name, values in rows.items():
            table = torch.tensor(values)
            means = table.nanmean(dim=0)
            click.echo(
                f"{name:32}"
                + "".join(f"{float(v):10.3f}" for v in means)
                + f"   {metrics.standard_error(table[:, 1]):.4f}"
            )


if __name__ == "__main__":
    main()
