"""Synthetic change with exact labels: other content pasted into references, in training and in evaluation."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def random_region(side: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """A blob or a rotated rectangle that covers some 2 to 40 % of a square, (side, side) bool."""
    if rng.random() < 0.5:
        knots = int(rng.integers(4, 14))
        coarse = torch.from_numpy(rng.standard_normal((1, 1, knots, knots), dtype=np.float32)).to(device)
        field = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)[0, 0]
        return field > torch.quantile(field[::4, ::4].flatten(), float(rng.uniform(0.65, 0.97)))
    steps = torch.arange(side, dtype=torch.float32, device=device)
    y, x = steps[:, None] - float(rng.uniform(0, side)), steps[None] - float(rng.uniform(0, side))
    angle = float(rng.uniform(0, math.pi))
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return (u.abs() < float(rng.uniform(6, side / 3))) & (v.abs() < float(rng.uniform(6, side / 3)))


def paste_change(
    ref: Tensor, mask: Tensor, cover: Tensor, content: Tensor, where: Tensor, content_cover: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Paste other content into a reference, so that the change to the truth is exact.

    Nothing is pasted where the land cover of the truth is unknown.

    Args:
        ref: (..., C, H, W) the reference.
        mask: (..., H, W) uint8 change classes.
        cover: the same shape, land cover of the truth, 0 = unknown.
        content: (..., C, H, W) what is pasted, in the dtype of `ref`.
        where: (..., H, W) bool, where it is pasted.
        content_cover: land cover of the content: where it is that of the truth, the class is "no change"; where it is
            unknown, nothing is pasted. None: all that is pasted counts as changed.

    Returns:
        The reference and the mask, which holds the truth's land cover where the content was pasted.
    """
    where = where & (cover > 0)
    label = cover
    if content_cover is not None:
        where = where & (content_cover > 0)
        label = torch.where(content_cover == cover, 0, cover)
    return torch.where(where, content, ref), torch.where(where, label, mask)
