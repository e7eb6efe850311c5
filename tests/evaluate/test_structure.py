"""SSIM, GMSD and HaarPSI against other programs (scikit-image 0.26, piq 0.8), and what must hold by definition."""

from __future__ import annotations

import pytest
import torch
from formula import image_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geo_refdiff.evaluate import metrics, structure

ELSEWHERE = {
    3: {"ssim": 0.6799505294489793, "gmsd": 0.08007893281852342, "haarpsi": 0.6813798638209322},
    1: {"ssim": 0.7372662240168518, "gmsd": 0.08386590798056374, "haarpsi": 0.6202082326828053},
}
"""Bands -> values for `image_pair`: piq.gmsd, piq.haarpsi, and scikit-image's structural_similarity with
gaussian_weights=True, sigma=1.5, use_sample_covariance=False; data range 255."""


def gmsd(image: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    return structure.gms_deviation(structure.gms_map(image, truth), where)


FIGURES = {"ssim": structure.ssim, "gmsd": gmsd, "haarpsi": metrics.haarpsi}


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize("name", sorted(FIGURES))
def test_other_programs_find_the_same(name: str, bands: int) -> None:
    image, truth = image_pair(bands)
    assert FIGURES[name](image, truth).item() == pytest.approx(ELSEWHERE[bands][name], abs=1e-7)


def test_an_image_is_like_itself() -> None:
    _, truth = image_pair()
    assert structure.ssim(truth, truth).item() == pytest.approx(1, abs=1e-12)
    assert gmsd(truth, truth).item() == pytest.approx(0, abs=1e-12)


def test_ssim_of_a_constant_shift_is_known() -> None:
    flat = torch.full((1, 1, 32, 32), 100.0, dtype=torch.float64)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert structure.ssim(flat + 20, flat).item() == pytest.approx(expected, abs=1e-12)


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
