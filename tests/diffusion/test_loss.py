"""The training loss."""

from __future__ import annotations

import math

import pytest
import torch

from geo_refdiff.diffusion.config import PublishedConfig
from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.diffusion.loss import draw_sigmas, edm_loss, loss_weight


def test_sigmas_are_log_normal():
    sigmas = draw_sigmas(200_000, generator=torch.Generator().manual_seed(3)).log()
    assert float(sigmas.mean()) == pytest.approx(-1.2, abs=0.02)
    assert float(sigmas.std()) == pytest.approx(1.2, abs=0.02)
    again = draw_sigmas(5, p_mean=0.0, p_std=0.0)
    assert again.tolist() == [1.0] * 5


def test_weight_is_one_over_c_out_squared():
    sigma = torch.tensor([0.01, 0.5, 20.0], dtype=torch.float64)
    c_out = sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    torch.testing.assert_close(loss_weight(sigma, 0.5), 1 / c_out**2)


def test_loss_of_an_untrained_network_is_about_one():
    """EDM equation 8: with F = 0 and data of standard deviation sigma_data the loss is 1 at every noise level."""
    draw = torch.Generator().manual_seed(0)

    class Zero(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, c_noise, lr, ref, mask):
            return x * self.weight

    denoiser = Denoiser(Zero(), PublishedConfig(sigma_data=0.5))
    clean = 0.5 * torch.randn(8, 3, 64, 64, generator=draw)
    noise = torch.randn(8, 3, 64, 64, generator=draw)
    for level in (0.02, 0.5, 20.0):
        sigma = torch.full((8,), level)
        with torch.no_grad():
            loss = edm_loss(lambda x, s: denoiser(x, s, x, x, x[:, :1]), clean, noise, sigma, 0.5)
        assert loss.item() == pytest.approx(1.0, abs=0.03)


def test_perfect_denoiser_has_no_loss_and_invalid_pixels_do_not_count():
    clean = torch.zeros(2, 3, 4, 4)
    wrong = torch.zeros(2, 3, 4, 4)
    wrong[:, :, 0] = 5.0
    valid = torch.ones(2, 1, 4, 4)
    valid[:, :, 0] = 0
    noise, sigma = torch.ones_like(clean), torch.tensor([0.1, 2.0])
    assert float(edm_loss(lambda x, s: clean, clean, noise, sigma, 0.5)) == 0.0
    assert float(edm_loss(lambda x, s: wrong, clean, noise, sigma, 0.5)) > 1.0
    assert float(edm_loss(lambda x, s: wrong, clean, noise, sigma, 0.5, valid=valid)) == 0.0
    assert float(edm_loss(lambda x, s: wrong, clean, noise, sigma, 0.5, valid=valid * 0)) == 0.0


def test_loss_by_hand():
    clean, noise, sigma = torch.full((1, 1, 1, 2), 0.2), torch.tensor([[[[1.0, -2.0]]]]), torch.tensor([0.5])
    loss = edm_loss(lambda x, s: x, clean, noise, sigma, 0.5)
    weight = (0.25 + 0.25) / 0.25**2
    assert float(loss) == pytest.approx(weight * ((0.5) ** 2 + 1.0) / 2)
    assert math.isfinite(float(loss))
