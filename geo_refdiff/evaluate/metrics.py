"""Figures of merit of images against their truth; all take (N, C, H, W) float tensors in DN (0..255), give (N,).

The truth may also be one for all images, (1, C, H, W).
`where`, (N, 1, H, W) bool, says which pixels count; None = all. A figure is NaN where none count. Figures by deep
networks are in `perceptual`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_PEAK = 255.0
_C, _ALPHA = 30.0, 4.2
_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def psnr(image: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio over all bands, dB, peak 255."""
    mse = mean_where((image - truth).square(), where).clamp(min=1e-12)
    return 10.0 * torch.log10(_PEAK**2 / mse)


def haarpsi_map(image: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Local Haar similarities and their weights, (N, 2 or 3, H / 2, W / 2): horizontal, vertical, with colour chroma.

    Reisenhofer et al. 2018, "A Haar wavelet-based perceptual similarity index for image quality assessment",
    equations 7 to 11 and section 2.3 (colour), C = 30, alpha = 4.2, after the authors' 2 x 2 mean. The first three
    bands are red, green, blue; with fewer bands the first one alone is luma.
    """
    a, b = (F.avg_pool2d(_yiq(x), 2) for x in (image, truth))
    similarities, weights = [], []
    for turned in (False, True):
        responses = [[_haar(x[:, :1], scale, turned).abs() for scale in (1, 2, 3)] for x in (a, b)]
        parts = [_similarity(p, q) for p, q in zip(responses[0][:2], responses[1][:2], strict=True)]
        similarities.append((parts[0] + parts[1]) / 2.0)
        weights.append(torch.maximum(responses[0][2], responses[1][2]))
    if a.shape[1] == 3:
        p, q = (F.avg_pool2d(F.pad(x[:, 1:], (0, 1, 0, 1)), 2, stride=1).abs() for x in (a, b))
        similarities.append(_similarity(p, q).mean(dim=1, keepdim=True))
        weights.append((weights[0] + weights[1]) / 2.0)
    return torch.sigmoid(_ALPHA * torch.cat(similarities, dim=1)), torch.cat(weights, dim=1)


def _similarity(p: Tensor, q: Tensor) -> Tensor:
    return (2.0 * p * q + _C) / (p.square() + q.square() + _C)


def haarpsi(image: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Haar wavelet-based perceptual similarity index, 0..1, higher is better."""
    return haarpsi_mean(*haarpsi_map(image, truth), where)


def haarpsi_mean(similarity: Tensor, weight: Tensor, where: Tensor | None = None) -> Tensor:
    """The index from what `haarpsi_map` gives, equation 10, over the pixels that count."""
    if where is not None:
        weight = weight * halved(where)
    mean = (similarity * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3))
    return (torch.log(mean / (1.0 - mean)) / _ALPHA).square()


def gradient_energy_ratio(image: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean squared gradient of the image over that of the truth; 1 = as sharp, or as noisy."""
    return mean_where(_gradient_energy(image), where) / mean_where(_gradient_energy(truth), where)


def chroma_ratio(image: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Deviation of red - green and blue - green from their means over 7 x 7 px, over the truth's; NaN without three
    bands. Blotches and speckle in colour show in it."""
    if image.shape[1] < 3:
        return image.new_full(image.shape[:1], math.nan)
    spreads = []
    for x in (image, truth):
        colour = torch.stack([x[:, 0] - x[:, 1], x[:, 2] - x[:, 1]], dim=1)
        around = F.avg_pool2d(F.pad(colour, (3, 3, 3, 3), mode="replicate"), 7, stride=1)
        spreads.append(mean_where((colour - around).square(), where).sqrt())
    return spreads[0] / spreads[1].clamp(min=1e-6)


def flat_noise_ratio(image: Tensor, truth: Tensor) -> Tensor:
    """High-pass deviation where the truth is flattest (lowest 20 % of local contrast), over the truth's."""
    energy = F.avg_pool2d(_gradient_energy(truth).mean(dim=1, keepdim=True), 9, stride=1, padding=4)
    flat = energy <= energy.flatten(1).quantile(0.2, dim=1).view(-1, 1, 1, 1)
    spreads = []
    for x in (image, truth):
        high = x - F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        spreads.append((high.square() * flat).sum(dim=(1, 2, 3)).sqrt())
    return spreads[0] / spreads[1].clamp(min=1e-6)


def lattice_peak_ratio(image: Tensor, truth: Tensor, period: int = 4) -> Tensor:
    """Power at the frequencies of a lattice of `period` px over that beside them, against the truth; 1 = none."""
    ratios = []
    for x in (image, truth):
        power = torch.fft.rfft2(_yiq(x)[:, 0]).abs().square()
        height = power.shape[1]
        at = height // period
        lines = torch.stack([power[:, at, 0:9].mean(dim=1), power[:, 0:9, at].mean(dim=1)]).mean(dim=0)
        beside = torch.stack(
            [power[:, at + k, 0:9].mean(dim=1) for k in (-6, -4, 4, 6)]
            + [power[:, 0:9, at + k].mean(dim=1) for k in (-6, -4, 4, 6)]
        ).mean(dim=0)
        ratios.append(lines / beside.clamp(min=1e-9))
    return ratios[0] / ratios[1]


def convolved(x: Tensor, kernel: Tensor) -> Tensor:
    """Every image and band of (N, C, H, W) with one kernel (h, w), without a border; depthwise, which is quicker."""
    n, c, h, w = x.shape
    taps = kernel.expand(n * c, 1, *kernel.shape)
    result = F.conv2d(x.reshape(1, n * c, h, w), taps, groups=n * c)
    return result.reshape(n, c, *result.shape[-2:])


def luma(x: Tensor) -> Tensor:
    """(N, 1, H, W), 0.299 red + 0.587 green + 0.114 blue; the first band where there are fewer than three."""
    return _yiq(x)[:, :1]


def halved(where: Tensor) -> Tensor:
    """Which pixels of half the resolution count, (N, 1, H / 2, W / 2): those of which more than half does."""
    return F.avg_pool2d(where.to(torch.float32), 2) > 0.5


def mean_where(values: Tensor, where: Tensor | None) -> Tensor:
    """Mean of (N, C, H, W) over bands and the pixels that count, (N,)."""
    if where is None:
        return values.mean(dim=(1, 2, 3))
    counted = torch.where(where, values, 0.0).sum(dim=(1, 2, 3))
    return counted / (where.sum(dim=(1, 2, 3)) * values.shape[1])


def _yiq(x: Tensor) -> Tensor:
    """(N, 3, H, W) luma, I and Q of the first three bands; the first band alone where there are fewer."""
    if x.shape[1] < 3:
        return x[:, :1]
    matrix = torch.tensor(_YIQ, dtype=x.dtype, device=x.device)
    return torch.einsum("kc,nchw->nkhw", matrix, x[:, :3])


def _haar(x: Tensor, scale: int, turned: bool) -> Tensor:
    size = 2**scale
    kernel = torch.full((size, size), 1.0 / size, dtype=x.dtype, device=x.device)
    kernel[size // 2 :] *= -1.0
    kernel = kernel.t() if turned else kernel
    left = size // 2 - 1
    return convolved(F.pad(x, (left, size - 1 - left, left, size - 1 - left)), kernel)


def _gradient_energy(x: Tensor) -> Tensor:
    rows = F.pad(x.diff(dim=2), (0, 0, 0, 1))
    cols = F.pad(x.diff(dim=3), (0, 1, 0, 0))
    return rows.square() + cols.square()


_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
_GMS_C = 170.0


def ssim_map(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity at each pixel whose 11 x 11 window is inside, (N, C, H - 10, W - 10).

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
