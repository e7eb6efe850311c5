"""Pasted change is labelled exactly."""

from __future__ import annotations

import numpy as np
import torch

from geo_refdiff.data.synthetic_change import paste_change, random_region

REF, CONTENT = torch.zeros(3, 1, 4), torch.full((3, 1, 4), 9.0)
MASK = torch.tensor([[255, 255, 0, 0]], dtype=torch.uint8)
COVER = torch.tensor([[1, 2, 0, 4]], dtype=torch.uint8)


def test_a_pasted_pixel_has_the_class_of_the_truth() -> None:
    where = torch.tensor([[True, True, True, False]])
    ref, mask = paste_change(REF, MASK, COVER, CONTENT, where)
    assert ref.tolist() == [[[9.0, 9.0, 0.0, 0.0]]] * 3  # nothing where the cover of the truth is unknown
    assert mask.tolist() == [[1, 2, 0, 0]]
    assert mask.dtype == torch.uint8


def test_content_of_the_same_class_is_no_change() -> None:
    there = torch.tensor([[1, 3, 3, 0]], dtype=torch.uint8)
    ref, mask = paste_change(REF, MASK, COVER, CONTENT, torch.ones(1, 4, dtype=torch.bool), there)
    assert ref.tolist() == [[[9.0, 9.0, 0.0, 0.0]]] * 3  # nor where that of the content is
    assert mask.tolist() == [[0, 2, 0, 0]]


def test_regions_cover_a_part_and_follow_the_seed() -> None:
    areas = [random_region(64, np.random.default_rng(seed), torch.device("cpu")) for seed in range(20)]
    again = random_region(64, np.random.default_rng(7), torch.device("cpu"))
    assert (again == areas[7]).all()
    shares = [float(area.float().mean()) for area in areas]
    assert all(0 <= share < 0.6 for share in shares)
    assert np.median(shares) > 0.01
