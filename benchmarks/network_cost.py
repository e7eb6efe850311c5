"""What one 256 x 256 tile costs: the published network and ours, side by side: `python -m benchmarks.network_cost`.

GFLOP are 2 x multiply-adds, counted by torch. The published sampler needs 511 evaluations a tile (256 Heun steps);
its tile time is one measured evaluation times that number.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from geo_refdiff.diffusion.checkpoint import build_denoiser, load_denoiser
from geo_refdiff.diffusion.denoiser import Denoiser, GuidedDenoiser
from geo_refdiff.diffusion.samplers import evaluations

PUBLISHED = {
    "img_resolution": 256,
    "img_channels": 3,
    "model_channels": 128,
    "channel_mult": [2, 2, 2],
    "num_blocks": 4,
    "attn_resolutions": [16],
    "dropout": 0.2,
    "sigma_data": 0.5,
}
PUBLISHED_EVALUATIONS = 511
TILE = 256


def measured(call: Callable[[], object], runs: int) -> tuple[float, float]:
    """(GFLOP, median seconds) of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return counter.get_total_flops() / 1e9, statistics.median(times)


def tensors(denoiser: Denoiser) -> tuple[torch.Tensor, ...]:
    image = torch.zeros(1, len(denoiser.bands), TILE, TILE)
    return image, torch.tensor([0.5]), image, image, torch.zeros(1, 1, TILE, TILE)


@click.command()
@click.argument("model", default="default")
@click.option(
    "--published/--ours-alone", default=True, help="One evaluation of the published network takes half a minute."
)
def main(model: str, published: bool) -> None:
    """Print evaluations, GFLOP and seconds a tile."""
    rows: list[tuple[str, float, float, int, float, float]] = []
    with torch.inference_mode():
        if published:
            denoiser = build_denoiser(PUBLISHED).eval()
            x, sigma, lr, ref, mask = tensors(denoiser)
            flop, seconds = measured(lambda: denoiser(x, sigma, lr, ref, mask), 1)
            size = sum(p.numel() for p in denoiser.parameters()) / 1e6
            n = PUBLISHED_EVALUATIONS
            rows.append(("published network, 256 Heun steps", size, flop, n, n * flop, n * seconds))
        ours = load_denoiser(model)
        if isinstance(ours, GuidedDenoiser):
            x, sigma, lr, ref, mask = tensors(ours)
            guide_flop, guide_seconds = measured(lambda: ours.guidance(lr, ref, mask), 5)
            guidance = ours.guidance(lr, ref, mask)
            flop, seconds = measured(lambda: ours(x, sigma, lr, ref, mask, guidance=guidance), 5)
            n = evaluations("heun", int(ours.sampler["steps"]))
            size = sum(p.numel() for p in ours.parameters()) / 1e6
            rows.append(
                (f"ours, {model} (and guidance)", size, flop, n, guide_flop + n * flop, guide_seconds + n * seconds)
            )
    click.echo(f"{'a 256 x 256 tile':36}{'M params':>10}{'GFLOP/ev.':>11}{'ev.':>6}{'GFLOP':>12}{'seconds':>12}")
    for name, size, flop, n, total, seconds in rows:
        click.echo(f"{name:36}{size:10.2f}{flop:11.2f}{n:6d}{total:12.1f}{seconds:12.2f}")
    if len(rows) == 2:
        click.echo(f"ratio of seconds, published over ours: {rows[0][5] / rows[1][5]:.0f}")


if __name__ == "__main__":
    main()
