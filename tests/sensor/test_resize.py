"""Up-sampling: no shift, no dependence on where the image was cut, exact for what the kernel can express."""

from __future__ import annotations

import pytest
import torch

from geo_refdiff.sensor.resize import CONTEXT, LOBES, cell_means, repeat_pixels, upsample


@pytest.mark.parametrize("scale", [1, 2, 3, 5, 8, 16])
def test_reproduces_a_plane_exactly_where_it_has_context(scale: int) -> None:
    rows, cols = torch.meshgrid(torch.arange(12.0), torch.arange(9.0), indexing="ij")
    plane = (2.0 * rows - 3.0 * cols)[None, None]
    fine = upsample(plane, scale, margin=CONTEXT)
    at = (torch.arange(8 * scale) + 0.5) / scale - 0.5 + CONTEXT
    at_cols = (torch.arange(5 * scale) + 0.5) / scale - 0.5 + CONTEXT
    expected = 2.0 * at[:, None] - 3.0 * at_cols[None]
    torch.testing.assert_close(fine[0, 0], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kernel", ["cubic", "lanczos"])
@pytest.mark.parametrize("scale", [2, 6, 7])
def test_a_constant_stays_and_a_mirrored_image_comes_out_mirrored(kernel: str, scale: int) -> None:
    image = torch.randn(1, 2, 12, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fine = upsample(image, scale, kernel=kernel)
    assert fine.shape == (1, 2, 12 * scale, 11 * scale)
    torch.testing.assert_close(upsample(image.flip(-1, -2), scale, kernel=kernel).flip(-1, -2), fine)
    flat = upsample(torch.full((1, 1, 5, 6), 7.0), scale, kernel=kernel)
    torch.testing.assert_close(flat, torch.full_like(flat, 7.0))


@pytest.mark.parametrize(("kernel", "context"), [("cubic", CONTEXT), ("lanczos", LOBES)])
def test_a_cut_out_with_context_is_the_same(kernel: str, context: int) -> None:
    image = torch.randn(1, 3, 40, 37, generator=torch.Generator().manual_seed(0))
    whole = upsample(image, 8, margin=context, kernel=kernel)
    for top, left, height, width in ((0, 0, 9, 11), (5, 3, 20, 7), (12, 14, 19, 13)):
        cut = image[..., top : top + height + 2 * context, left : left + width + 2 * context]
        same = whole[..., 8 * top : 8 * (top + height), 8 * left : 8 * (left + width)]
        torch.testing.assert_close(upsample(cut, 8, margin=context, kernel=kernel), same, atol=1e-5, rtol=0)


def test_repeated_pixels_have_their_own_means() -> None:
    image = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(cell_means(repeat_pixels(image, 3), 3), image)
    assert repeat_pixels(image, 3)[0, 0, :3, :3].unique().numel() == 1


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
