"""Samplers: plain functions of (denoise, x, sigmas).

``denoise(x, sigma)`` takes x (N, C, H, W) and sigma (N,) and returns the estimate of the clean image, (N, C, H, W).
``sigmas`` is (n + 1,), falling, usually ending in 0 (`schedule.karras_sigmas`). ``noise(step)`` returns unit normal
noise (N, C, H, W) for step 0 .. n - 1. State and result have the dtype of x. With the same inputs a sampler gives the
same result: nothing here draws random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from geo_refdiff.errors import OptionError

Denoise = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[int], Tensor]


def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: Noise | None = None,
    s_churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Heun's second-order method with optional churn (EDM algorithm 2; algorithm 1 with s_churn = 0).

    2 n - 1 evaluations for a schedule that ends in 0.
    """
    state, levels = _begin(x, sigmas)
    for step, (sigma, following) in enumerate(pairwise(levels)):
        raised = _raised(sigma, s_churn / (len(levels) - 1)) if s_min <= sigma <= s_max else sigma
        if raised > sigma:
            if noise is None:
                raise OptionError(f"churn {s_churn} needs noise: give noise=, or s_churn=0")
            state = state + math.sqrt(raised**2 - sigma**2) * s_noise * noise(step).to(state)
        slope = (state - _evaluate(denoise, state, raised)) / raised
        ahead = state + (following - raised) * slope
        if following > 0:
            slope_ahead = (ahead - _evaluate(denoise, ahead, following)) / following
            ahead = state + (following - raised) * (0.5 * slope + 0.5 * slope_ahead)
        state = ahead
    return state


def euler(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """Euler's first-order method (EDM algorithm 1 without its correction). n evaluations."""
    state, levels = _begin(x, sigmas)
    for sigma, following in pairwise(levels):
        state = state + (following - sigma) * ((state - _evaluate(denoise, state, sigma)) / sigma)
    return state


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M), second-order multistep in the data prediction. n evaluations.

    Lu et al. 2022 (arXiv 2211.01095), algorithm 2, with alpha = 1 and lambda = -ln sigma.

    The first step and a last step to sigma 0, where lambda is infinite, are of first order.
    """
    state, levels = _begin(x, sigmas)
    previous: Tensor | None = None
    width_before = 0.0
    for sigma, following in pairwise(levels):
        clean = _evaluate(denoise, state, sigma)
        if following == 0:
            return clean
        width = math.log(sigma / following)
        estimate = clean
        if previous is not None:
            ratio = width_before / width
            estimate = clean + (clean - previous) / (2 * ratio)
        state = (following / sigma) * state - math.expm1(-width) * estimate
        previous, width_before = clean, width
    return state


SAMPLERS: dict[str, Callable[..., Tensor]] = {"heun": heun, "euler": euler, "dpmpp-2m": dpmpp_2m}
"""Samplers by their name on the command line."""


def sampler_named(name: str) -> Callable[..., Tensor]:
    """The sampler of that name (OptionError lists the known)."""
    try:
        return SAMPLERS[name.replace("_", "-")]
    except KeyError:
        raise OptionError(f"unknown sampler {name!r}: choose {', '.join(SAMPLERS)}") from None


def evaluations(name: str, steps: int) -> int:
    """Network evaluations of a run of that many steps to sigma 0: 2 steps - 1 for heun, else steps."""
    sampler_named(name)
    return 2 * steps - 1 if name == "heun" else steps


def published_start(lr: Tensor, sigma_max: float) -> Tensor:
    """The published sampler's start: x = lr * sigma_max, without noise; lr (N, C, H, W) on the output grid."""
    return lr * sigma_max


def noisy_start(base: Tensor, sigma: float, noise: Tensor) -> Tensor:
    """x = base + sigma * noise, all (N, C, H, W): a sample of EDM's forward process from `base`.

    A full start has base = LR and sigma = sigma_max; a truncated one a lower sigma; the better start has a mean
    estimate as base and a moderate sigma, from which 2 or 3 steps are enough.
    """
    return base + sigma * noise


def _begin(x: Tensor, sigmas: Tensor) -> tuple[Tensor, list[float]]:
    levels = [float(value) for value in sigmas]
    falling = all(a > b for a, b in pairwise(levels))
    if len(levels) < 2 or not falling or levels[-1] < 0 or not math.isfinite(levels[0]):
        raise OptionError(f"sigmas must fall and end at 0 or above, with at least 2 values: got {levels[:4]} ...")
    return x, levels


def _evaluate(denoise: Denoise, state: Tensor, sigma: float) -> Tensor:
    levels = torch.full((state.shape[0],), sigma, dtype=state.dtype, device=state.device)
    return denoise(state, levels).to(state.dtype)


def _raised(sigma: float, churn: float) -> float:
    """The noise level of a step with its churn, at most sqrt(2) times its own (EDM algorithm 2, lines 4 and 5)."""
    return sigma + max(0.0, min(churn, math.sqrt(2.0) - 1.0)) * sigma
