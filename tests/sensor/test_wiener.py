"""The noise-aware correction: near the exact one without noise, near nothing where all is noise; differentiable."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from geo_refdiff.sensor.inverse import back_project
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.wiener import wiener_project

SENSORS = (SensorModel(8, 0.45), SensorModel(8, 0.3))


def land(n: int = 2, side: int = 192) -> torch.Tensor:
    noise = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(3))
    return 0.4 * F.avg_pool2d(noise, 9, stride=1, padding=4) * 3 + 0.02 * noise


def scene(truth: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.cat([s.observe(t[None]) for s, t in zip(SENSORS, truth, strict=True)])
    return clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(4)), clean


def inner(x: torch.Tensor) -> torch.Tensor:
    return x[..., 24:-24, 24:-24]


def error(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float(inner(x - truth).square().mean())


def test_without_noise_it_is_nearly_the_exact_one() -> None:
    truth = land()
    lr, _ = scene(truth, 0.0)
    begun = upsample(lr, 8)
    done = wiener_project(begun, lr, SENSORS, torch.zeros(2))
    exact = torch.cat([back_project(begun[i : i + 1], lr[i : i + 1], SENSORS[i]) for i in range(2)])
    assert error(done, exact) < 0.1 * error(begun, exact)
    assert error(done, truth) < 1.1 * error(exact, truth) < error(begun, truth)


@pytest.mark.parametrize("amount", [0.03, 0.08])
def test_noise_is_not_written_into_the_image(amount: float) -> None:
    truth = land()
    lr, clean = scene(truth, amount)
    good = upsample(clean, 8)  # an image that is better than the scene
    done = wiener_project(good, lr, SENSORS, torch.full((2,), amount))
    exact = torch.cat([back_project(good[i : i + 1], lr[i : i + 1], SENSORS[i]) for i in range(2)])
    assert error(done, truth) < 0.8 * error(exact, truth)
    if amount < 0.05:  # what is more signal than noise is corrected
        assert error(done, truth) < 0.98 * error(good, truth)


def test_each_image_has_its_own_sensor_and_noise_and_gradients_pass() -> None:
    truth = land()
    lr, _ = scene(truth, 0.05)
    noise = torch.tensor([0.05, 0.0])
    begun = upsample(lr, 8).requires_grad_(True)
    both = wiener_project(begun, lr, SENSORS, noise)
    for i in range(2):
        alone = wiener_project(begun[i : i + 1], lr[i : i + 1], SENSORS[i : i + 1], noise[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone)
    both.square().mean().backward()
    assert begun.grad is not None
    assert torch.isfinite(begun.grad).all()
    assert begun.grad.abs().sum() > 0
