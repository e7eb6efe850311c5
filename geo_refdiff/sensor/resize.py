"""Up-sampling by Keys' cubic convolution: the one kernel used in training, inference and baselines.

Source: R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29 (1981), equation 15
(a = -1/2, the Catmull-Rom spline; also GDAL's `cubic` where it enlarges).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

CONTEXT = 2
"""LR pixels of context on each side that an up-sampled pixel depends on."""


def keys(distance: float) -> float:
    """Keys' kernel, a = -1/2; `distance` in samples of what is interpolated, 0 from 2 on."""
    d = abs(distance)
    if d <= 1.0:
        return 1.5 * d**3 - 2.5 * d**2 + 1.0
    if d < 2.0:
        return -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
    return 0.0


@lru_cache(maxsize=64)
def cubic_phases(scale: int) -> tuple[tuple[int, tuple[float, float, float, float]], ...]:
    """For each of the `scale` HR pixels inside an LR pixel: (LR offset of the first of four taps, the weights)."""
    phases = []
    for p in range(scale):
        position = (p + 0.5) / scale - 0.5
        first = -2 if position < 0 else -1
        weights = [keys(position - (first + k)) for k in range(4)]
        total = sum(weights)
        w0, w1, w2, w3 = (w / total for w in weights)
        phases.append((first, (w0, w1, w2, w3)))
    return tuple(phases)


def _along(x: Tensor, scale: int, dim: int) -> Tensor:
    """One axis enlarged; `x` carries CONTEXT pixels on both sides, which are used up."""
    n = x.shape[dim] - 2 * CONTEXT
    parts = []
    for first, weights in cubic_phases(scale):
        # separate multiplications and additions: every value is rounded alike wherever its pixel lies in the window
        acc = x.narrow(dim, CONTEXT + first, n) * weights[0]
        for k in (1, 2, 3):
            acc += x.narrow(dim, CONTEXT + first + k, n) * weights[k]
        parts.append(acc)
    stacked = torch.stack(parts, dim=dim + 1 if dim >= 0 else dim)
    shape = list(x.shape)
    shape[dim] = n * scale
    return stacked.reshape(shape)


def upsample(lr: Tensor, scale: int, margin: int = 0) -> Tensor:
    """Enlarge an image `scale` times by cubic convolution, pixel areas aligned (no half-pixel shift).

    Args:
        lr: (N, C, h, w), float.
        scale: whole factor, at least 1.
        margin: LR pixels on each side of `lr` that are context only; with at least CONTEXT (2) of them the result does
            not depend on where the image was cut, with fewer the border is replicated.

    Returns:
        (N, C, (h - 2 margin) scale, (w - 2 margin) scale), same dtype.
    """
    if scale == 1:
        return lr[..., margin : lr.shape[-2] - margin, margin : lr.shape[-1] - margin]
    if margin < CONTEXT:
        pad = CONTEXT - margin
        x = F.pad(lr, (pad, pad, pad, pad), mode="replicate")
    else:
        cut = margin - CONTEXT
        x = lr[..., cut : lr.shape[-2] - cut, cut : lr.shape[-1] - cut]
    return _along(_along(x, scale, 3), scale, 2)  # the larger pass along whole rows, which is faster
