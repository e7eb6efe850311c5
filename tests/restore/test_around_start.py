"""Models whose noise is preconditioned around the start: amounts of detail blend what was sampled with the mean."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from geo_refdiff.diffusion.checkpoint import build_denoiser, decode_config
from geo_refdiff.diffusion.denoiser import GuidedDenoiser
from geo_refdiff.diffusion.noise import lattice_noise
from geo_refdiff.options import SamplingOptions
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.diffusion import DiffusionRestorer, sampler_settings
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel

CONFIG: dict[str, Any] = {
    "architecture": "compact",
    "bands": ["red", "green", "blue"],
    "classes": ["no change", "water"],
    "network": {
        "widths": [8, 8], "full_width": 4, "half_width": 4, "hidden": 8, "embedding": 8, "texture": True,
        "around_start": True,
    },
    "sampler": {"name": "better-start", "steps": 1, "sigma_start": 0.5},
    "sigma_data": 0.14,
}  # fmt: skip


@pytest.fixture
def denoiser() -> GuidedDenoiser:
    torch.manual_seed(0)
    made = build_denoiser(decode_config(CONFIG)).eval()
    for parameter in made.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    assert isinstance(made, GuidedDenoiser)
    return made.requires_grad_(False)


WINDOW = Window(0, 0, 64, 64)


def conditions(seed: int = 1) -> Conditions:
    draw = torch.Generator().manual_seed(2)
    side = 64 // 4 + 2 * LR_MARGIN
    lr, ref = (torch.randn(1, 3, n, n, generator=draw) * 0.3 for n in (side, 64))
    return Conditions((WINDOW,), lr, ref, seed=seed)


def restored(denoiser: GuidedDenoiser, detail: float | None, steps: int | None = None, seed: int = 1) -> torch.Tensor:
    settings = sampler_settings(denoiser, SamplingOptions(steps=steps, detail=detail))
    return DiffusionRestorer(denoiser, settings, SensorModel(4), (0, 1, 2), "tiny").restore(conditions(seed))


def test_one_evaluation_around_the_start(denoiser: GuidedDenoiser) -> None:
    settings = sampler_settings(denoiser, SamplingOptions())
    assert (settings.steps, settings.sigma_start, settings.blend) == (1, 0.5, 1.0)
    given = conditions()
    restorer = DiffusionRestorer(denoiser, settings, SensorModel(4), (0, 1, 2), "tiny")
    sample = restorer.restore(given)
    assert not torch.equal(sample, restored(denoiser, None, seed=3))
    assert given.ref is not None
    noise = lattice_noise(WINDOW, 3, given.seed, 0)[None]
    mask = torch.full_like(noise[:, :1], 255, dtype=torch.uint8)
    up = upsample(given.lr, 4, LR_MARGIN)
    guidance = denoiser.guidance(up, given.ref, mask)
    start = denoiser.start(guidance)
    torch.testing.assert_close(restored(denoiser, None, steps=0), start)
    expected = denoiser(start + 0.5 * noise, torch.tensor([0.5]), up, given.ref, mask, guidance=guidance)
    torch.testing.assert_close(sample, expected)


def test_detail_blends_the_sample_with_the_mean(denoiser: GuidedDenoiser) -> None:
    mean, half, full = (restored(denoiser, detail) for detail in (0.0, 0.25, 0.5))
    torch.testing.assert_close(half, 0.5 * (mean + full), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(full, restored(denoiser, None))
    start, without = restored(denoiser, 0.5, steps=0), restored(denoiser, 0.25, steps=0)
    torch.testing.assert_close(without, 0.5 * (mean + start), atol=1e-5, rtol=1e-5)
    assert float((full - mean).abs().mean()) > 1e-3
