"""Wrong masks are as wrong as they say."""

from __future__ import annotations

import pytest
import torch

from geo_refdiff.evaluate.masks import corrupted_mask


@pytest.mark.parametrize("seed", range(4))
def test_thirty_per_cent_are_missed_and_as_many_invented(seed: int) -> None:
    mask = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    mask[..., 30:80, 40:90] = 2
    mask[..., :8, :] = 255
    wrong = corrupted_mask(mask, 4, seed)
    area = int((mask == 2).sum())
    missed, invented = (mask == 2) & (wrong == 0), (mask == 0) & (wrong > 0)
    assert int(missed.sum()) == pytest.approx(0.3 * area, rel=0.02)
    assert int(invented.sum()) == pytest.approx(0.3 * area, rel=0.02)
    assert (wrong[mask == 255] == 255).all()
    assert (wrong[(mask == 2) & ~missed] == 2).all()
    assert 1 <= int(wrong[invented].max()) <= 3


def test_errors_come_in_patches_and_the_mask_given_stays() -> None:
    mask = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    mask[..., 20:110, 20:110] = 1
    before = mask.clone()
    missed = ((mask == 1) & (corrupted_mask(mask, 2, 0) == 0)).float()
    assert torch.equal(mask, before)
    neighbours = torch.nn.functional.avg_pool2d(missed, 3, stride=1, padding=1)
    assert float(neighbours[missed > 0].mean()) > 0.8


@pytest.mark.parametrize("value", [0, 255])
def test_without_change_nothing_is_wrong(value: int) -> None:
    mask = torch.full((1, 1, 32, 32), value, dtype=torch.uint8)
    assert torch.equal(corrupted_mask(mask, 3, 1), mask)
