"""Noise levels of a sampling run."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geo_refdiff.errors import OptionError


def karras_sigmas(
    n: int,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """n noise levels from sigma_max down to sigma_min, then 0 (EDM equation 5, with t = sigma).

    A truncated start is the same schedule with a lower sigma_max.

    Returns:
        (n + 1,) float64, strictly falling, in model units.

    Raises:
        OptionError: unless n >= 1, 0 < sigma_min <= sigma_max (sigma_min < sigma_max for n > 1) and rho > 0.
    """
    if n < 1:
        raise OptionError(f"a schedule of {n} steps is empty: give at least 1")
    if not (0 < sigma_min <= sigma_max < math.inf) or (n > 1 and sigma_min == sigma_max) or not rho > 0:
        raise OptionError(
            f"no schedule from sigma {sigma_max} to {sigma_min} with rho {rho}: 0 < sigma_min < sigma_max and rho > 0"
        )
    ramp = torch.arange(n, dtype=torch.float64, device=device) / max(n - 1, 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])
