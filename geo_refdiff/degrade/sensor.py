"""The declared sensor operator: a Gaussian point spread function, then the mean over each LR pixel's area."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.errors import OptionError

DEFAULT_PSF_SIGMA = 0.35
"""LR pixels; the modulation at Nyquist is then exp(-2 (pi 0.35 / 2)^2) = 0.55, and 0.35 with the area mean."""

_TRUNCATE = 4.0


@lru_cache(maxsize=64)
def _kernel(scale: int, psf_sigma: float) -> tuple[float, ...]:
    """Weights over HR pixels `-reach .. scale - 1 + reach` of the LR pixel that covers HR pixels `0 .. scale - 1`."""
    sigma = psf_sigma * scale
    reach = math.ceil(_TRUNCATE * sigma)
    if reach == 0:
        return (1.0 / scale,) * scale
    gauss = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    weights = [0.0] * (scale + 2 * reach)
    for p in range(scale):
        for k, g in enumerate(gauss):
            weights[p + k] += g
    total = sum(weights)
    return tuple(w / total for w in weights)


@dataclass(frozen=True, slots=True)
class SensorModel:
    """How the LR sensor sees an HR image: separable, linear, no shift.

    Attributes:
        scale: HR pixels along an LR pixel.
        psf_sigma: standard deviation of the Gaussian PSF in LR pixels; 0 = area mean alone.
    """

    scale: int
    psf_sigma: float = DEFAULT_PSF_SIGMA

    def __post_init__(self) -> None:
        if self.scale < 1 or not 0.0 <= self.psf_sigma <= 4.0:
            raise OptionError(
                f"sensor scale {self.scale} and PSF sigma {self.psf_sigma} LR px: need scale >= 1 and sigma in 0..4"
            )

    @property
    def reach(self) -> int:
        """HR pixels beyond an LR pixel's own area that it sees, on each side."""
        return (len(_kernel(self.scale, self.psf_sigma)) - self.scale) // 2

    def observe(self, hr: Tensor) -> Tensor:
        """Image as the LR sensor sees it.

        Args:
            hr: (N, C, H, W) float; H and W multiples of `scale`. The border is replicated.

        Returns:
            (N, C, H / scale, W / scale), same dtype.
        """
        n, c, height, width = hr.shape
        if height % self.scale or width % self.scale:
            raise OptionError(f"an image of {height} x {width} px is no multiple of the scale {self.scale}")
        taps = torch.tensor(_kernel(self.scale, self.psf_sigma), dtype=hr.dtype, device=hr.device)
        r = self.reach
        x = F.pad(hr.reshape(n * c, 1, height, width), (r, r, r, r), mode="replicate")
        x = F.conv2d(x, taps.view(1, 1, -1, 1), stride=(self.scale, 1))
        x = F.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, self.scale))
        return x.reshape(n, c, height // self.scale, width // self.scale)
