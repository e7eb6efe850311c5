"""From the scene to the output grid: Keys' cubic convolution, the one up-sampling of all, and
Lanczos' kernel, by which corrections to the scene are spread.

Sources: R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29 (1981), equation 15
(a = -1/2, the Catmull-Rom spline; also GDAL's `cubic` where it enlarges); C. E. Duchon, "Lanczos filtering in one and
two dimensions", J. Applied Meteorology 18 (1979).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Upsampling = Literal["cubic", "lanczos"]

CONTEXT = 2
"""scene pixels of context on each side that a pixel up-sampled by the cubic kernel depends on."""

LOBES = 4
"""Of Lanczos' kernel, which is its context in scene pixels."""

_REACH: dict[Upsampling, int] = {"cubic": CONTEXT, "lanczos": LOBES}


def keys(distance: float) -> float:
    """Keys' kernel, a = -1/2; `distance` in samples of what is interpolated, 0 from 2 on."""
    d = abs(distance)
    if d <= 1.0:
        return 1.5 * d**3 - 2.5 * d**2 + 1.0
    if d < 2.0:
        return -0.5 * d**3 + 2.5 * d**2 - 4.0 * d + 2.0
    return 0.0


def _lanczos(distance: float) -> float:
    return float(np.sinc(distance) * np.sinc(distance / LOBES)) if abs(distance) < LOBES else 0.0


@lru_cache(maxsize=128)
def _phases(kernel: Upsampling, scale: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2 reach + 1, scale): weights of the scene px `-reach .. reach` around a scene px for each output px in it."""
    reach, weight = _REACH[kernel], keys if kernel == "cubic" else _lanczos
    table = np.array(
        [[weight((p + 0.5) / scale - 0.5 - k) for p in range(scale)] for k in range(-reach, reach + 1)],
        dtype=np.float64,
    )
    with torch.inference_mode(False):
        return torch.from_numpy(table / table.sum(axis=0)).to(device=device, dtype=dtype)


def enlarge_along(x: Tensor, scale: int, dim: int, kernel: Upsampling = "cubic") -> Tensor:
    """One axis (-1 or -2) enlarged; `x` (..., n + 2 reach) carries the kernel's context, which is used up."""
    phases = _phases(kernel, scale, x.dtype, x.device)
    with torch.autocast(x.device.type, enabled=False):
        around = x.unfold(dim, len(phases), 1)  # (..., taps)
        if dim == -1:
            return (around @ phases).flatten(-2)
        return (phases.T @ around.transpose(-1, -2)).flatten(-3, -2)


def upsample(lr: Tensor, scale: int, margin: int = 0, kernel: Upsampling = "cubic") -> Tensor:
    """Enlarge an image `scale` times, pixel areas aligned (no half-pixel shift).

    Args:
        lr: (N, C, h, w), float.
        scale: whole factor, at least 1.
        margin: scene px on each side of `lr` that are context only; with at least CONTEXT (2; LOBES, 4, for Lanczos)
            of them the result does not depend on where the image was cut, with fewer the border is replicated.
        kernel: "cubic" (Keys) or "lanczos" (4 lobes), which lets less of the scene grid through.

    Returns:
        (N, C, (h - 2 margin) scale, (w - 2 margin) scale), same dtype.
    """
    if scale == 1:
        return lr[..., margin : lr.shape[-2] - margin, margin : lr.shape[-1] - margin]
    spare = margin - _REACH[kernel]
    x = F.pad(lr, (-spare,) * 4, mode="replicate") if spare < 0 else _cut(lr, spare)
    return enlarge_along(enlarge_along(x, scale, -2, kernel), scale, -1, kernel)


def repeat_pixels(lr: Tensor, scale: int) -> Tensor:
    """(..., h, w) -> (..., h scale, w scale), every pixel repeated."""
    *rest, height, width = lr.shape
    wide = lr[..., :, None, :, None].expand(*rest, height, scale, width, scale)
    return wide.reshape(*rest, height * scale, width * scale)


def cell_means(hr: Tensor, scale: int) -> Tensor:
    """(..., h scale, w scale) -> (..., h, w), the mean of each scene pixel's own area; booleans give shares."""
    x = hr.to(torch.float32) if hr.dtype == torch.bool else hr
    total = torch.unflatten(x, -2, (-1, scale)).sum(dim=-2)  # whole rows first, which are long
    return sum((total[..., k::scale] for k in range(1, scale)), total[..., ::scale]) / scale**2


def _cut(x: Tensor, n: int) -> Tensor:
    return x[..., n : x.shape[-2] - n, n : x.shape[-1] - n]
