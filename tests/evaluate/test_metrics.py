"""Figures of merit: against other programs (scikit-image 0.26, piq 0.8), and on images whose answer is known."""

from __future__ import annotations

import pytest
import torch
from formula import image_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geo_refdiff.evaluate import metrics

OTHER_PROGRAMS = {
    3: {"ssim": 0.6799505294489793, "gmsd": 0.08007893281852342, "haarpsi": 0.6813798638209322},
    1: {"ssim": 0.7372662240168518, "gmsd": 0.08386590798056374, "haarpsi": 0.6202082326828053},
}
"""Bands -> values for `image_pair`: piq.gmsd, piq.haarpsi, and scikit-image's structural_similarity with
gaussian_weights=True, sigma=1.5, use_sample_covariance=False; data range 255."""


def gmsd(image: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    return metrics.gms_deviation(metrics.gms_map(image, truth), where)


FIGURES = {"ssim": metrics.ssim, "gmsd": gmsd, "haarpsi": metrics.haarpsi}


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("name", sorted(FIGURES))
def test_other_programs_find_the_same(name: str, bands: int) -> None:
    image, truth = image_pair(bands)
    assert FIGURES[name](image, truth).item() == pytest.approx(OTHER_PROGRAMS[bands][name], abs=1e-7)


def test_ssim_of_a_constant_shift_is_known() -> None:
    flat = torch.full((1, 1, 32, 32), 100.0, dtype=torch.float64)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert metrics.ssim(flat + 20, flat).item() == pytest.approx(expected, abs=1e-12)


def test_gmsd_does_not_see_a_constant_shift_inside() -> None:
    image, truth = image_pair()
    inside = torch.zeros_like(truth[:, :1], dtype=torch.bool)
    inside[..., 8:-8, 8:-8] = True
    assert gmsd(truth + 9, truth, inside).item() == pytest.approx(0, abs=1e-7)
    assert gmsd(image, truth, inside).item() > 0.05


@given(st.floats(0.1, 0.9), st.integers(0, 50))
@settings(max_examples=12)
def test_one_truth_for_all_and_one_for_each_are_the_same(share: float, seed: int) -> None:
    image, truth = image_pair()
    images = torch.cat([image, image.flip(-1), truth + 3])
    where = torch.rand(truth[:, :1].shape, generator=torch.Generator().manual_seed(seed)) < share
    for figure in (*FIGURES.values(), metrics.psnr, metrics.gradient_energy_ratio):
        single = torch.cat([figure(images[n : n + 1], truth, where) for n in range(3)])
        assert torch.allclose(figure(images, truth, where), single, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("name", ["ssim", "gmsd", "haarpsi", "psnr", "energy"])
def test_only_pixels_that_count_do(name: str) -> None:
    figures = {**FIGURES, "psnr": metrics.psnr, "energy": metrics.gradient_energy_ratio}
    image, truth = image_pair(3, 64, 128)
    left = torch.zeros_like(truth[:, :1], dtype=torch.bool)
    left[..., :40] = True
    spoilt = image.clone()
    spoilt[..., 72:] = 0
    figure = figures[name]
    assert figure(spoilt, truth, left).item() == pytest.approx(figure(image, truth, left).item(), abs=1e-9)
    assert abs(figure(spoilt, truth, ~left).item() - figure(image, truth, ~left).item()) > 0.02
    assert figure(image, truth, torch.zeros_like(left)).isnan().all()


@pytest.mark.parametrize("name", ["ssim", "psnr"])
def test_everywhere_is_the_same_as_no_choice(name: str) -> None:
    figure = {**FIGURES, "psnr": metrics.psnr}[name]
    image, truth = image_pair()
    everywhere = torch.ones_like(truth[:, :1], dtype=torch.bool)
    assert figure(image, truth, everywhere).item() == pytest.approx(figure(image, truth).item(), abs=1e-9)


def land(seed: int = 0, bands: int = 4) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, bands, 128, 128, generator=draw)
    return 120 + 300 * torch.nn.functional.avg_pool2d(noise, 7, stride=1, padding=3) + 4 * noise


def test_an_image_equals_itself() -> None:
    x = land()
    assert metrics.haarpsi(x, x).tolist() == pytest.approx([1, 1], abs=1e-4)
    for figure in (metrics.gradient_energy_ratio, metrics.flat_noise_ratio, metrics.lattice_peak_ratio):
        assert figure(x, x).tolist() == pytest.approx([1, 1], abs=1e-5)
    _, truth = image_pair()
    assert metrics.ssim(truth, truth).item() == pytest.approx(1, abs=1e-12)
    assert gmsd(truth, truth).item() == pytest.approx(0, abs=1e-12)


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
