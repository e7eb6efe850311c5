"""The EDM training loss."""

from __future__ import annotations

import torch
from torch import Tensor

from geo_refdiff.diffusion.samplers import Denoise

P_MEAN = -1.2
"""Mean of ln sigma in training, EDM table 1."""
P_STD = 1.2
"""Standard deviation of ln sigma in training, EDM table 1."""


def draw_sigmas(
    n: int, *, p_mean: float = P_MEAN, p_std: float = P_STD, generator: torch.Generator | None = None
) -> Tensor:
    """n noise levels, ln sigma ~ N(p_mean, p_std^2) (EDM table 1, training); (n,) float32, model units."""
    return (torch.randn(n, generator=generator) * p_std + p_mean).exp()


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """The weight of a noise level, EDM table 1: (s^2 + sd^2) / (s sd)^2.

    With it the network's own target has unit weight at every level (EDM equation 8).
    """
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def edm_loss(
    denoise: Denoise,
    clean: Tensor,
    noise: Tensor,
    sigma: Tensor,
    sigma_data: float,
    *,
    valid: Tensor | None = None,
) -> Tensor:
    """E[weight(sigma) ||D(clean + sigma n; sigma) - clean||^2] as a mean over pixels (EDM equations 2 and 8).

    Args:
        denoise: as for the samplers, usually a `Denoiser` with its conditions bound.
        clean: (N, C, H, W), the true image, model units.
        noise: (N, C, H, W), unit normal.
        sigma: (N,), noise levels (`draw_sigmas`).
        sigma_data: standard deviation of the data, model units.
        valid: (N, 1, H, W) or (N, C, H, W), weights of the pixels, 0 = outside the data; default all 1.

    Returns:
        A scalar, float32.
    """
    level = sigma.to(clean.dtype).reshape(-1, 1, 1, 1)
    error = (denoise(clean + level * noise, sigma) - clean) ** 2
    weighted = loss_weight(level, sigma_data) * error
    if valid is None:
        return weighted.mean()
    share = valid.to(weighted.dtype).expand_as(weighted)
    return (weighted * share).sum() / share.sum().clamp_min(1.0)
