"""Regions of made-up change: what is pasted into references, in training and in evaluation."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def region(area: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """A blob or a rotated rectangle, some 2 to 40 % of the area; (area, area) bool."""
    if rng.random() < 0.5:
        knots = int(rng.integers(4, 14))
        coarse = torch.from_numpy(rng.standard_normal((1, 1, knots, knots), dtype=np.float32)).to(device)
        field = F.interpolate(coarse, size=(area, area), mode="bicubic", align_corners=False)[0, 0]
        return field > torch.quantile(field[::4, ::4].flatten(), float(rng.uniform(0.65, 0.97)))
    steps = torch.arange(area, dtype=torch.float32, device=device)
    y, x = steps[:, None] - float(rng.uniform(0, area)), steps[None] - float(rng.uniform(0, area))
    angle = float(rng.uniform(0, math.pi))
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return (u.abs() < float(rng.uniform(6, area / 3))) & (v.abs() < float(rng.uniform(6, area / 3)))
