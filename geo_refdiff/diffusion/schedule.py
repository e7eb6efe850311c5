"""Noise levels of a sampling run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geo_refdiff.errors import ModelError, OptionError


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


@dataclass(frozen=True, slots=True)
class ChurnSettings:
    """A published config's sampler block: the schedule's ends (EDM equation 5) and the churn (EDM algorithm 2)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    s_churn: float = 40.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.003

    def sigmas(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The schedule of n steps, (n + 1,) float64."""
        return karras_sigmas(n, self.sigma_min, self.sigma_max, self.rho, device)

    def adds_noise(self, n: int) -> bool:
        """Whether any of n steps raises the noise level."""
        inside = any(self.s_min <= float(sigma) <= self.s_max for sigma in self.sigmas(n)[:-1])
        return inside and self.s_churn > 0 and self.s_noise > 0


def published_settings(config: Mapping[str, Any]) -> ChurnSettings:
    """The settings in ``config["sampler"]``, the published values where a key is absent.

    Keys: sigma_min, sigma_max, rho, S_churn, S_min, S_max, S_noise.
    """
    block = config.get("sampler") or {}
    values: dict[str, float] = {}
    for key in ("sigma_min", "sigma_max", "rho", "S_churn", "S_min", "S_max", "S_noise"):
        if key in block:
            value = block[key]
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ModelError(f"the model's config has sampler.{key} = {value!r}; it must be a number")
            values[key.lower()] = float(value)
    return ChurnSettings(**values)
