"""A discriminator of small heads on the frozen features of `perceptual.Trunk` (projected, as Sauer et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

_WIDTH = 64
_SLOPE = 0.2


class Heads(nn.Module):
    """One head a level: 1 x 1 to 64 channels, 3 x 3, 1 x 1 to one score a pixel, all with spectral norm.

    Args:
        channels: of the levels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(c, _WIDTH, 1)),
                nn.LeakyReLU(_SLOPE),
                spectral_norm(nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)),
                nn.LeakyReLU(_SLOPE),
                spectral_norm(nn.Conv2d(_WIDTH, 1, 1)),
            )
            for c in channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Normalised features of each level -> scores (N, 1, h, w), high for what looks real."""
        return [head(f * f.shape[1] ** 0.5) for head, f in zip(self.heads, features, strict=True)]


def deceit(scores: Sequence[Tensor]) -> Tensor:
    """What the generator minimises: minus the mean score; a scalar."""
    return -torch.stack([s.float().mean() for s in scores]).mean()


def hinge(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """What the heads minimise; a scalar, 2 where they cannot tell."""
    pairs = zip(real, made, strict=True)
    return torch.stack([F.relu(1.0 - r.float()).mean() + F.relu(1.0 + m.float()).mean() for r, m in pairs]).mean()
