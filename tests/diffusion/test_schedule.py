"""Noise levels."""

from __future__ import annotations

import math

import pytest
import torch

from geo_refdiff.diffusion.config import SamplerConfig
from geo_refdiff.diffusion.schedule import karras_sigmas
from geo_refdiff.errors import OptionError


def test_karras_sigmas_are_equation_5():
    sigmas = karras_sigmas(5, 0.002, 80.0, 7.0)
    assert sigmas.dtype == torch.float64
    assert sigmas.shape == (6,)
    for i in range(5):
        wanted = (80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert float(sigmas[i]) == pytest.approx(wanted, rel=1e-12)
    assert float(sigmas[-1]) == 0.0
    assert bool((sigmas.diff() < 0).all())


def test_one_step():
    assert karras_sigmas(1, 0.1, 0.6).tolist() == pytest.approx([0.6, 0.0])
    assert karras_sigmas(1, 0.6, 0.6).tolist() == pytest.approx([0.6, 0.0])


def test_rho_one_is_linear():
    assert karras_sigmas(3, 1.0, 3.0, 1.0).tolist() == pytest.approx([3, 2, 1, 0])


@pytest.mark.parametrize(
    ("n", "low", "high", "rho"),
    [
        (0, 0.002, 80, 7),
        (3, 0, 80, 7),
        (3, 2, 1, 7),
        (3, 1, 1, 7),
        (3, 0.1, math.inf, 7),
        (3, 0.1, 1, 0),
        (3, math.nan, 1, 7),
    ],
)
def test_schedules_that_make_no_sense(n, low, high, rho):
    with pytest.raises(OptionError):
        karras_sigmas(n, low, high, rho)


def test_whether_churn_adds_noise():
    assert SamplerConfig().churns(4)
    assert not SamplerConfig(S_churn=0.0).churns(4)
    assert not SamplerConfig(S_noise=0.0).churns(4)
    assert not SamplerConfig().churns(1)  # its only level, 80, is above S_max
    assert not SamplerConfig(sigma_max=0.04).churns(4)  # below S_min
