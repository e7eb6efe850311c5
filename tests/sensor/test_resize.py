"""Up-sampling: no shift, no dependence on where the image was cut, exact for what the kernel can express."""

from __future__ import annotations

import pytest
import torch

from geo_refdiff.sensor.resize import CONTEXT, cubic_phases, upsample


@pytest.mark.parametrize("scale", [1, 2, 3, 5, 8, 16])
def test_reproduces_a_plane_exactly_where_it_has_context(scale: int) -> None:
    rows, cols = torch.meshgrid(torch.arange(12.0), torch.arange(9.0), indexing="ij")
    plane = (2.0 * rows - 3.0 * cols)[None, None]
    fine = upsample(plane, scale, margin=CONTEXT)
    at = (torch.arange(8 * scale) + 0.5) / scale - 0.5 + CONTEXT
    at_cols = (torch.arange(5 * scale) + 0.5) / scale - 0.5 + CONTEXT
    expected = 2.0 * at[:, None] - 3.0 * at_cols[None]
    torch.testing.assert_close(fine[0, 0], expected, atol=2e-5, rtol=0)


def test_weights_sum_to_one_and_mirror() -> None:
    for scale in (2, 6, 8):
        phases = cubic_phases(scale)
        for (first, weights), (mirrored_first, mirrored) in zip(phases, reversed(phases), strict=True):
            assert sum(weights) == pytest.approx(1.0, abs=1e-12)
            assert weights == pytest.approx(mirrored[::-1], abs=1e-12)
            assert first == -3 - mirrored_first


def test_same_bits_wherever_the_window_is_cut() -> None:
    image = torch.randn(1, 3, 40, 37, generator=torch.Generator().manual_seed(0))
    whole = upsample(image, 8, margin=CONTEXT)
    for top, left, height, width in ((0, 0, 9, 11), (5, 3, 20, 7), (17, 20, 19, 13)):
        part = upsample(image[..., top : top + height + 4, left : left + width + 4], 8, margin=CONTEXT)
        same = whole[..., 8 * top : 8 * (top + height), 8 * left : 8 * (left + width)]
        assert torch.equal(part, same)


def keys(distance: torch.Tensor) -> torch.Tensor:
    """Keys 1981, equation 15, written out a second time."""
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


@pytest.mark.parametrize("scale", [2, 3, 8])
def test_the_answer_to_an_impulse_is_the_kernel(scale: int) -> None:
    image = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    image[..., 4, 4] = 1.0
    at = keys((torch.arange(9 * scale, dtype=torch.float64) + 0.5) / scale - 0.5 - 4)
    torch.testing.assert_close(upsample(image, scale)[0, 0], at[:, None] * at[None], atol=1e-12, rtol=0)
