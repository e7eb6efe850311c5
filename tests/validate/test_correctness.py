"""The correctness scores tell truth, invention and nothing apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from geo_refdiff.validate.against import correctness


def test_truth_scene_and_invention(make_texture: Any) -> None:
    truth = torch.from_numpy(255 * make_texture((1, 3, 64, 64), 1)).float()
    scene = torch.nn.functional.avg_pool2d(truth, 9, stride=1, padding=4, count_include_pad=False)
    generator = torch.Generator().manual_seed(0)
    invented = scene + 60 * torch.randn(truth.shape, generator=generator)
    for image, index in ((truth, 0), (scene, 1), (invented, 2)):
        counts = correctness(image, scene, truth, 8, 0.0)
        assert counts.sum() == 64
        assert counts[index] >= 60
    part = truth.clone()
    part[..., 32:] = scene[..., 32:]
    np.testing.assert_array_equal(correctness(part, scene, truth, 8, 0.0), [32, 32, 0])


def test_places_with_nothing_to_add_do_not_count() -> None:
    flat = torch.full((1, 3, 16, 16), 7.0)
    assert correctness(flat, flat, flat, 8, 1.0).sum() == 0
