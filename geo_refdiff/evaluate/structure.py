"""Structural similarities: SSIM and GMSD; (N, C, H, W) float tensors in DN (0..255) in, (N,) out.

The truth may also be one for all images, (1, C, H, W).
`where`, (N, 1, H, W) bool, says which pixels count; None = all. A figure is NaN where none count.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.evaluate.metrics import convolved, halved, luma, mean_where

_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
_GMS_C = 170.0


def ssim_map(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity at each pixel whose 11 x 11 window lies inside, (N, C, H - 10, W - 10).

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", equation 13:
    Gaussian weights of sigma 1.5, K1 = 0.01, K2 = 0.03, L = 255; no reduction beforehand.
    """
    at = torch.arange(-_RADIUS, _RADIUS + 1, dtype=image.dtype, device=image.device)
    taps = torch.exp(-0.5 * (at / _SIGMA) ** 2)
    taps = taps / taps.sum()
    a, aa, ab = _smooth(torch.cat([image, image**2, image * truth]), taps).chunk(3)
    b, bb = _smooth(torch.cat([truth, truth**2]), taps).chunk(2)
    numerator = (2.0 * a * b + _C1) * (2.0 * (ab - a * b) + _C2)
    return numerator / ((a**2 + b**2 + _C1) * (aa - a**2 + bb - b**2 + _C2))


def _smooth(x: Tensor, taps: Tensor) -> Tensor:
    return convolved(convolved(x, taps[:, None]), taps[None])


def ssim(image: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean structural similarity over the bands, -1..1, higher is better."""
    return ssim_mean(ssim_map(image, truth), where)


def ssim_mean(local: Tensor, where: Tensor | None = None) -> Tensor:
    """The mean of what `ssim_map` gives over the pixels that count."""
    if where is None:
        return local.mean(dim=(1, 2, 3))
    return mean_where(local, where[..., _RADIUS:-_RADIUS, _RADIUS:-_RADIUS])


def gms_map(image: Tensor, truth: Tensor) -> Tensor:
    """Gradient magnitude similarity of luma at half the resolution, (N, 1, H / 2, W / 2).

    Xue et al. 2014, "Gradient magnitude similarity deviation", equations 1 to 4 with c = 170: 2 x 2 means, Prewitt
    filters, zeros beyond the border, as the authors' code does.
    """
    ramp = torch.tensor([1.0, 0.0, -1.0], dtype=image.dtype, device=image.device) / 3.0
    prewitt = ramp.expand(3, 3)
    small = (F.pad(F.avg_pool2d(luma(x), 2), (1, 1, 1, 1)) for x in (image, truth))
    a, b = (convolved(x, prewitt).square() + convolved(x, prewitt.t()).square() for x in small)
    return (2.0 * (a * b).sqrt() + _GMS_C) / (a + b + _GMS_C)


def gms_deviation(local: Tensor, where: Tensor | None = None) -> Tensor:
    """GMSD, equation 6: the standard deviation of what `gms_map` gives over the pixels that count; 0 is best."""
    counted = None if where is None else halved(where)
    mean = mean_where(local, counted)
    return mean_where((local - mean[:, None, None, None]).square(), counted).sqrt()
