"""The declared sensor operator: a Gaussian point spread function and the mean over each scene px's area, or a bicubic
reduction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.convolution import convolve, convolve_along
from geo_refdiff.sensor.kernels import Factors, Resize, separable

DEFAULT_PSF_SIGMA = 0.35
"""scene pixels; the modulation at Nyquist is then exp(-2 (pi 0.35 / 2)^2) = 0.55, and 0.35 with the area mean."""

Kernel = Literal["psf", "bicubic"]

_LEAST_WEIGHT = 1e-3

_RESIZE: dict[Kernel, Resize] = {"psf": "area", "bicubic": "bicubic"}


@lru_cache(maxsize=64)
def _kernel(scale: int, psf_sigma: float, kernel: Kernel) -> tuple[float, ...]:
    return tuple(separable(scale, psf_sigma if kernel == "psf" else 0.0, _RESIZE[kernel]).tolist())


@dataclass(frozen=True, slots=True)
class SensorModel:
    """How the scene's sensor sees an output image: separable, linear, no shift.

    Attributes:
        scale: output pixels along a scene pixel.
        psf_sigma: standard deviation of the Gaussian PSF in scene pixels; 0 = area mean alone. "bicubic" has none.
        kernel: "psf": Gaussian, then the mean over each scene px's area. "bicubic": Keys' kernel (a = -1/2) stretched
            by the scale, the antialiased reduction of MATLAB and Pillow, pixel areas aligned; the test protocol of the
            Ref-Diff paper.
    """

    scale: int
    psf_sigma: float = DEFAULT_PSF_SIGMA
    kernel: Kernel = "psf"

    def __post_init__(self) -> None:
        if self.scale < 1 or not 0.0 <= self.psf_sigma <= 4.0:
            raise OptionError(
                f"sensor scale {self.scale} and PSF sigma {self.psf_sigma}: give a scale of 1 or more, and a sigma of "
                f"0 to 4 scene pixels"
            )
        if self.kernel not in get_args(Kernel):
            raise OptionError(f"unknown sensor kernel {self.kernel!r}; choose from {', '.join(get_args(Kernel))}")

    @property
    def reach(self) -> int:
        """output pixels beyond a scene pixel's own area that it sees, on each side."""
        return (len(self.taps) - self.scale) // 2

    @property
    def taps(self) -> tuple[float, ...]:
        """Weights along one axis over output px `-reach .. scale - 1 + reach` of a scene px over `0 .. scale - 1`."""
        return _kernel(self.scale, self.psf_sigma, self.kernel)

    @property
    def factors(self) -> Factors:
        """The kernel, as `convolution.convolve` takes it."""
        taps = np.array([self.taps])
        return taps, taps

    def observe(self, hr: Tensor, margin: int = 0) -> Tensor:
        """Image as the scene's sensor sees it.

        Args:
            hr: (N, C, H, W) float; H and W less the margin are multiples of `scale`.
            margin: output pixels on each side that are context only; beyond them the border is replicated.

        Returns:
            (N, C, H / scale, W / scale), margin left out, same dtype.

        Raises:
            OptionError: a size that is no multiple of the scale.
        """
        return observe(hr, [self.factors], self.scale, margin)

    def observe_valid(self, hr: Tensor, valid: Tensor | None, margin: int = 0) -> tuple[Tensor, Tensor]:
        """Image as the scene's sensor sees its valid pixels alone: normalised convolution (Knutsson and Westin 1993).

        Args:
            hr, margin: as for `observe`; what missing pixels hold does not matter, and what is beyond the margin is
                missing.
            valid: bool, shape of `hr` or one that broadcasts to it; None: all are.

        Returns:
            the weighted mean of the valid pixels that each scene pixel sees (0 where it sees none), and the part of its
            weight that they have, 0..1; both as of `observe`.
        """
        return observe_valid(hr, valid, [self.factors], self.scale, margin)


def observe(hr: Tensor, kernels: Sequence[Factors], scale: int, margin: int = 0) -> Tensor:
    """As `SensorModel.observe`, by any kernels: one for all images, or one for each.

    Raises:
        OptionError: a size that is no multiple of the scale, or another number of kernels than of images.
    """
    if len(kernels) not in (1, len(hr)):
        raise OptionError(f"{len(hr)} images need {len(hr)} kernels, got {len(kernels)}")
    return convolve(_with_reach(hr, kernels, scale, margin, "replicate"), kernels, scale)


def observe_valid(
    hr: Tensor, valid: Tensor | None, kernels: Sequence[Factors], scale: int, margin: int = 0
) -> tuple[Tensor, Tensor]:
    """As `SensorModel.observe_valid`, by any kernels: one for all images, or one for each."""
    x = _with_reach(hr if valid is None else torch.where(valid, hr, 0), kernels, scale, margin, "constant")
    if valid is None and len(kernels) == 1 and len(kernels[0][0]) == 1:  # of a rectangle: a product of both axes
        spare = reach_of(kernels[0], scale) - margin
        rows, cols = (torch.from_numpy(taps).to(hr) for taps in kernels[0])
        down = convolve_along(F.pad(hr.new_ones(1, 1, hr.shape[-2], 1), (0, 0, spare, spare)), rows, scale, -2)
        across = convolve_along(F.pad(hr.new_ones(1, 1, 1, hr.shape[-1]), (spare, spare)), cols, scale, -1)
        weight = down * across
    else:
        share = torch.ones_like(hr[:, :1], dtype=torch.bool) if valid is None else valid
        weight = convolve(_with_reach(share.to(hr.dtype), kernels, scale, margin, "constant"), kernels, scale)
    observed = convolve(x, kernels, scale) / weight.clamp(min=_LEAST_WEIGHT)
    return torch.where(weight > _LEAST_WEIGHT, observed, 0), weight


def reach_of(kernel: Factors, scale: int) -> int:
    """output pixels beyond a scene pixel's own area that a kernel sees, on each side."""
    return int(kernel[0].shape[1] - scale) // 2


def _with_reach(x: Tensor, kernels: Sequence[Factors], scale: int, margin: int, beyond: str) -> Tensor:
    height, width = (n - 2 * margin for n in x.shape[-2:])
    if height % scale or width % scale:
        raise OptionError(f"an image of {height} x {width} px is no multiple of the scale {scale}")
    spare = max(reach_of(kernel, scale) for kernel in kernels) - margin
    return F.pad(x, (spare,) * 4, mode=beyond if spare > 0 else "constant")
