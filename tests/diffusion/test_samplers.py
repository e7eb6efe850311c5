"""Samplers against a data distribution whose denoiser and whose ODE are known in closed form.

For data N(mu, s^2), D(x; t) = (s^2 x + t^2 mu) / (s^2 + t^2), and the probability flow ODE (EDM equation 1 with
sigma = t) moves x(t) - mu in proportion to sqrt(s^2 + t^2).
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from geo_refdiff.diffusion.samplers import (
    SAMPLERS,
    dpmpp_2m,
    euler,
    evaluations,
    heun,
    noisy_start,
    published_start,
    sampler_named,
)
from geo_refdiff.diffusion.schedule import karras_sigmas
from geo_refdiff.errors import OptionError

MU, S = 0.3, 0.5


class Gaussian:
    """The ideal denoiser of N(MU, S^2); counts its evaluations."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        assert sigma.shape == (x.shape[0],)
        t2 = sigma.view(-1, 1, 1, 1) ** 2
        return (S**2 * x + t2 * MU) / (S**2 + t2)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(x: Tensor, start: float, end: float) -> Tensor:
    return MU + (x - MU) * math.sqrt((S**2 + end**2) / (S**2 + start**2))


def worst(sampler, n: int) -> float:
    x = MU + 80 * unit(1, 1, 8, 8)
    sigmas = karras_sigmas(n)[:-1]
    found = sampler(Gaussian(), x, sigmas)
    return float((found - exact(x, 80.0, float(sigmas[-1]))).abs().max())


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (dpmpp_2m, 2)])
def test_order_of_convergence(sampler, order):
    errors = [worst(sampler, n) for n in (40, 80, 160)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_ends_in_the_data_distribution(name):
    x = noisy_start(torch.zeros(1), 80.0, unit(4, 3, 32, 32))
    found = sampler_named(name)(Gaussian(), x, karras_sigmas(40))
    assert float(found.mean()) == pytest.approx(MU, abs=0.02)
    assert float(found.std()) == pytest.approx(S, rel=0.08)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_known_image_is_found_in_one_step(name):
    """A denoiser that knows the answer leads there from any schedule."""
    answer = unit(1, 3, 4, 4)
    found = sampler_named(name)(lambda x, sigma: answer, 7 * unit(1, 3, 4, 4, seed=1), karras_sigmas(3, 0.1, 1.0))
    torch.testing.assert_close(found, answer)


def test_churn_keeps_the_distribution():
    x = 80 * unit(4, 3, 32, 32)
    noise = [unit(4, 3, 32, 32, seed=100 + step) for step in range(40)]
    found = heun(Gaussian(), x, karras_sigmas(40), noise=noise.__getitem__, s_churn=20, s_min=0.05, s_max=50)
    assert float(found.mean()) == pytest.approx(MU, abs=0.03)
    assert float(found.std()) == pytest.approx(S, rel=0.05)
    plain = heun(Gaussian(), x, karras_sigmas(40))
    assert float((found - plain).std()) > 0.3


def test_churn_step_by_hand():
    """EDM algorithm 2 with two steps, written out."""
    x, e = unit(1, 1, 2, 2), [unit(1, 1, 2, 2, seed=1), unit(1, 1, 2, 2, seed=2)]
    d = Gaussian()
    one = torch.ones(1)
    gamma = min(0.6 / 2, math.sqrt(2) - 1)
    hat = 2.0 * (1 + gamma)
    xh = x + math.sqrt(hat**2 - 4.0) * 1.1 * e[0]
    slope = (xh - d(xh, one * hat)) / hat
    nx = xh + (0.5 - hat) * slope
    nx = xh + (0.5 - hat) * (slope + (nx - d(nx, one * 0.5)) / 0.5) / 2
    hat = 0.5 * (1 + gamma)
    xh = nx + math.sqrt(hat**2 - 0.25) * 1.1 * e[1]
    wanted = xh - hat * (xh - d(xh, one * hat)) / hat
    found = heun(d, x, torch.tensor([2.0, 0.5, 0.0]), noise=e.__getitem__, s_churn=0.6, s_noise=1.1)
    torch.testing.assert_close(found, wanted)


def test_churn_stays_inside_its_range():
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(1, 1, 2, 2)

    sigmas = torch.tensor([10.0, 5.0, 1.0, 0.1, 0.0])
    heun(Gaussian(), unit(1, 1, 2, 2), sigmas, noise=noise, s_churn=1, s_min=0.5, s_max=5)
    assert asked == [1, 2]


def test_better_start_from_a_mean_estimate():
    """From the true mean plus moderate noise, 3 steps give the right spread."""
    sigma = 0.6
    x = noisy_start(torch.tensor(MU), sigma, unit(1, 3, 64, 64) * math.sqrt(1 + (S / sigma) ** 2))
    found = heun(Gaussian(), x, karras_sigmas(3, 0.1, sigma))
    assert float(found.mean()) == pytest.approx(MU, abs=0.02)
    assert float(found.std()) == pytest.approx(S, rel=0.05)


def test_published_start_has_no_noise():
    assert torch.equal(published_start(torch.full((1, 1, 2, 2), 0.5), 80.0), torch.full((1, 1, 2, 2), 40.0))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_evaluations(name):
    for steps in (1, 2, 7):
        denoise = Gaussian()
        sampler_named(name)(denoise, unit(1, 1, 2, 2), karras_sigmas(steps))
        assert denoise.calls == evaluations(name, steps)
    assert evaluations("heun", 256) == 511


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_deterministic_and_keeps_dtype(name):
    x = unit(2, 3, 4, 4).float()
    first, second = (sampler_named(name)(Gaussian(), x, karras_sigmas(4)) for _ in range(2))
    assert first.dtype == torch.float32
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_has_the_dtype_of_the_image(dtype: torch.dtype):
    seen: list[torch.dtype] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.extend((x.dtype, sigma.dtype))
        return x.float() * 0

    assert heun(denoise, torch.ones(1, 1, 2, 2, dtype=dtype), karras_sigmas(2)).dtype == dtype
    assert set(seen) == {dtype}


@pytest.mark.parametrize("sigmas", [[1.0], [0.0, 1.0], [1.0, 1.0, 0.0], [1.0, -1.0], [math.inf, 0.0], [math.nan, 0.0]])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_schedules_that_do_not_fall(name, sigmas):
    with pytest.raises(OptionError, match="sigmas must fall"):
        sampler_named(name)(Gaussian(), torch.ones(1, 1, 2, 2), torch.tensor(sigmas))


def test_options_that_make_no_sense():
    with pytest.raises(OptionError, match="unknown sampler 'ddim'"):
        sampler_named("ddim")
    with pytest.raises(OptionError, match="needs noise"):
        heun(Gaussian(), torch.ones(1, 1, 2, 2), karras_sigmas(2), s_churn=1)
