"""The declared sensor operator: a Gaussian point spread function and the mean over each LR pixel's area, or a bicubic
reduction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.kernels import Resize, separable

DEFAULT_PSF_SIGMA = 0.35
"""LR pixels; the modulation at Nyquist is then exp(-2 (pi 0.35 / 2)^2) = 0.55, and 0.35 with the area mean."""

Kernel = Literal["psf", "bicubic"]

_RESIZE: dict[Kernel, Resize] = {"psf": "area", "bicubic": "bicubic"}


@lru_cache(maxsize=64)
def _kernel(scale: int, psf_sigma: float, kernel: Kernel) -> tuple[float, ...]:
    return tuple(separable(scale, psf_sigma if kernel == "psf" else 0.0, _RESIZE[kernel]).tolist())


@dataclass(frozen=True, slots=True)
class SensorModel:
    """How the LR sensor sees an HR image: separable, linear, no shift.

    Attributes:
        scale: HR pixels along an LR pixel.
        psf_sigma: standard deviation of the Gaussian PSF in LR pixels; 0 = area mean alone. "bicubic" has none.
        kernel: "psf": Gaussian, then the mean over each LR pixel's area. "bicubic": Keys' kernel (a = -1/2) stretched
            by the scale, the antialiased reduction of MATLAB and Pillow, pixel areas aligned; the test protocol of the
            Ref-Diff paper.
    """

    scale: int
    psf_sigma: float = DEFAULT_PSF_SIGMA
    kernel: Kernel = "psf"

    def __post_init__(self) -> None:
        if self.scale < 1 or not 0.0 <= self.psf_sigma <= 4.0:
            raise OptionError(
                f"sensor scale {self.scale} and PSF sigma {self.psf_sigma} LR px: need scale >= 1 and sigma in 0..4"
            )
        if self.kernel not in get_args(Kernel):
            raise OptionError(f"unknown sensor kernel {self.kernel!r}; choose from {', '.join(get_args(Kernel))}")

    @property
    def reach(self) -> int:
        """HR pixels beyond an LR pixel's own area that it sees, on each side."""
        return (len(self.taps) - self.scale) // 2

    @property
    def taps(self) -> tuple[float, ...]:
        """Weights along one axis over HR pixels `-reach .. scale - 1 + reach` of an LR pixel over `0 .. scale - 1`."""
        return _kernel(self.scale, self.psf_sigma, self.kernel)

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
        taps = torch.tensor(self.taps, dtype=hr.dtype, device=hr.device)
        r = self.reach
        x = F.pad(hr.reshape(n * c, 1, height, width), (r, r, r, r), mode="replicate")
        x = F.conv2d(x, taps.view(1, 1, -1, 1), stride=(self.scale, 1))
        x = F.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, self.scale))
        return x.reshape(n, c, height // self.scale, width // self.scale)
