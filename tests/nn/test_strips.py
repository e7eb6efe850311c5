"""Images computed in strips: the same as computed whole, whatever the strips."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from geo_refdiff.nn import strips
from geo_refdiff.nn.blur import box_mean
from geo_refdiff.nn.strips import in_strips

DRAW = torch.Generator().manual_seed(0)
FINE, COARSE = torch.randn(1, 3, 96, 40, generator=DRAW), torch.randn(1, 2, 24, 10, generator=DRAW)
HEIGHTS: list[int] = []


def local(coarse: torch.Tensor, fine: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A result of each resolution, that depends on two coarse rows above and below."""
    HEIGHTS.append(coarse.shape[-2])
    around = F.avg_pool2d(F.pad(coarse, (2, 2, 2, 2)), 5, stride=1)
    enlarged = F.interpolate(around, scale_factor=4, mode="nearest")
    return enlarged[:, :1] * fine, around.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("numbers", [1000, 3000, 9000])
def test_strips_are_what_the_whole_is(monkeypatch: pytest.MonkeyPatch, numbers: int) -> None:
    whole = local(COARSE, FINE)
    monkeypatch.setattr(strips, "_NUMBERS", numbers)
    HEIGHTS.clear()
    with torch.no_grad():
        cut = in_strips(local, COARSE, FINE, rows=24, reach=2)
    assert len(HEIGHTS) > 1
    assert max(HEIGHTS) < 24
    for expected, result in zip(whole, cut, strict=True):
        assert torch.equal(result, expected)
        assert result.stride() == expected.stride()
    with torch.no_grad():  # a reach that is too short shows at the borders of strips
        assert not torch.equal(in_strips(local, COARSE, FINE, rows=24, reach=1)[0], whole[0])


def test_gradients_and_several_images_are_computed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strips, "_NUMBERS", 1000)
    for images in ((COARSE, FINE), (COARSE.repeat(2, 1, 1, 1), FINE.repeat(2, 1, 1, 1))):
        HEIGHTS.clear()
        with torch.set_grad_enabled(len(images[0]) == 1):
            in_strips(local, *images, rows=24, reach=2)
        assert HEIGHTS == [24]


def test_means_over_squares_leave_out_what_lies_beyond_the_border() -> None:
    image = FINE.double()
    expected = F.avg_pool2d(image, 7, stride=1, padding=3, count_include_pad=False)
    torch.testing.assert_close(box_mean(image, 7), expected)
