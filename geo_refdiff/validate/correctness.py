"""What an output adds to its scene: truth, invention, or nothing.

The correctness scores of opensr-test (Aybar, Montero, Donike, Kalaitzis and Gomez-Chova 2024, "A comprehensive
benchmark for optical remote sensing image super-resolution"), written from their definitions. Distances are local mean
absolute differences over all bands, divided by that of the up-sampled scene and the truth: d_im between output and
truth, d_om between output and up-sampled scene. With H = d_im + d_om - 1, never negative by the triangle inequality:

    improvement    d_im + d_om (1 - exp(-gamma H))      small where the output is the truth
    omission       d_om + d_im (1 - exp(-gamma H))      small where it is still the scene
    hallucination  exp(-gamma d_im d_om)                small where it is neither

The smallest of the three names the place. Output and truth are compared as they are, without their harmonisation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

CLASSES = ("improvement", "omission", "hallucination")
GAMMA = 0.8
_LEAST = 1e-3


def correctness(image: Tensor, scene: Tensor, truth: Tensor, side: int, least: float) -> Tensor:
    """Places of each class, (3,) int64 counts in the order of `CLASSES`.

    Args:
        image, scene, truth: (N, C, H, W) output, scene up-sampled to its grid, truth; one unit.
        side: of a place, pixels; H and W are multiples of it.
        least: places where scene and truth differ by less, in that unit, do not count: there is nothing to add.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return F.avg_pool2d((a - b).abs().mean(dim=1, keepdim=True), side)

    apart = distance(scene, truth)
    counted = apart > max(least, _LEAST)
    apart = apart.clamp(min=_LEAST)
    d_im, d_om = distance(image, truth) / apart, distance(image, scene) / apart
    wrong = 1.0 - torch.exp(-GAMMA * (d_im + d_om - 1.0).clamp(min=0.0))
    scores = torch.cat([d_im + d_om * wrong, d_om + d_im * wrong, torch.exp(-GAMMA * d_im * d_om)], dim=1)
    chosen = scores.argmin(dim=1, keepdim=True)[counted]
    return torch.bincount(chosen, minlength=len(CLASSES))
