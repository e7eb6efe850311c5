"""Figures of merit: known values on images whose answer is known."""

from __future__ import annotations

import pytest
import torch

from geo_refdiff.evaluate import metrics


def land(seed: int = 0, bands: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, bands, 128, 128, generator=draw)
    return 120 + 300 * torch.nn.functional.avg_pool2d(noise, 7, stride=1, padding=3) + 4 * noise


def test_an_image_equals_itself() -> None:
    x = land()
    assert metrics.haarpsi(x, x).tolist() == pytest.approx([1, 1], abs=1e-4)
    for figure in (metrics.gradient_energy_ratio, metrics.flat_noise_ratio, metrics.lattice_peak_ratio):
        assert figure(x, x).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_psnr_of_a_known_error() -> None:
    x = land()
    assert metrics.psnr(x + 25.5, x).tolist() == pytest.approx([20, 20], abs=1e-3)


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_haarpsi_falls_with_blur_and_with_noise(bands: int) -> None:
    x = land(bands=bands)
    blurred = [torch.nn.functional.avg_pool2d(x, k, stride=1, padding=k // 2, count_include_pad=False) for k in (3, 9)]
    noisy = [x + s * torch.randn(x.shape, generator=torch.Generator().manual_seed(5)) for s in (5, 30)]
    for mild, strong in (blurred, noisy):
        assert (metrics.haarpsi(strong, x) < metrics.haarpsi(mild, x)).all()
        assert (metrics.haarpsi(mild, x) < 0.999).all()


def test_haarpsi_counts_only_where_it_is_told_to() -> None:
    x = land()
    spoilt = x.clone()
    spoilt[..., :64] = 0
    left = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    left[..., :60] = True
    right = torch.zeros_like(left)
    right[..., 76:] = True
    assert (metrics.haarpsi(spoilt, x, right) > 0.999).all()
    assert (metrics.haarpsi(spoilt, x, left) < 0.7).all()
    assert metrics.haarpsi(x, x, torch.zeros_like(left)).isnan().all()


def test_lattice_peak_sees_a_checker_of_its_period_and_no_other() -> None:
    x = land()
    lattice = x.clone()
    lattice[..., ::4, :] += 3
    lattice[..., :, ::4] += 3
    assert (metrics.lattice_peak_ratio(lattice, x) > 3).all()
    other = x.clone()
    other[..., ::5, :] += 3
    assert (metrics.lattice_peak_ratio(other, x) < 1.5).all()


def test_flat_noise_sees_speckle_on_flat_ground() -> None:
    x = land()
    x[..., 64:, :] = 120 + 0.5 * torch.randn(2, 4, 64, 128, generator=torch.Generator().manual_seed(7))
    speckled = x + 4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(8))
    assert (metrics.flat_noise_ratio(speckled, x) > 3).all()


def test_chroma_sees_colour_alone() -> None:
    draw = torch.Generator().manual_seed(1)
    truth = 128 + 20 * torch.randn(1, 4, 64, 64, generator=draw)
    grey = truth.mean(dim=1, keepdim=True) - 128
    assert float(metrics.chroma_ratio(truth, truth)) == 1.0
    assert float(metrics.chroma_ratio(truth + 3 * grey, truth)) == pytest.approx(1.0, abs=1e-5)
    assert float(metrics.chroma_ratio(truth[:, :1].expand(1, 3, 64, 64), truth)) < 1e-6
    middle = truth[:, :3].mean(dim=1, keepdim=True)
    assert float(metrics.chroma_ratio(middle + 0.5 * (truth[:, :3] - middle), truth)) == pytest.approx(0.5, abs=1e-5)
    left = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    left[..., :24] = True
    half = torch.where(torch.arange(64) < 32, truth, 128.0)
    assert float(metrics.chroma_ratio(half, truth, left)) == pytest.approx(1.0, abs=1e-5)
    assert torch.isnan(metrics.chroma_ratio(truth[:, :1], truth[:, :1])).all()
