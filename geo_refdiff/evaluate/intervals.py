"""Shares and factors that turn predictors of a run into intervals; how well intervals do.

The variance of the error is fitted as a sum of non-negative shares of its predictors by iteratively reweighted
non-negative least squares (the quasi-likelihood of a Gaussian whose variance is linear; Lawson and Hanson 1974 for the
inner problem); factors are conformal quantiles (Lei et al. 2018, see `engine.uncertainty`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 8
_LEAST = 1e-6

Array = NDArray[np.float64]


def fit_shares(predictors: Array, errors: Array) -> Array:
    """Shares (P,) of the variance of errors, none negative.

    Args:
        predictors: (N, P), none negative, energies.
        errors: (N,), of the same unit, not squared.
    """
    from scipy.optimize import nnls

    size = np.maximum(predictors.mean(axis=0), 1e-12)
    scaled, squares = predictors / size, np.square(errors)
    shares = np.full(predictors.shape[1], squares.mean() / predictors.shape[1])
    for _ in range(_ROUNDS):
        weight = 1.0 / np.maximum(scaled @ shares, _LEAST)
        shares = nnls(scaled * weight[:, None], squares * weight)[0]
        if not shares.any():
            shares[0] = squares.mean()
    return np.asarray(shares / size)


def conformal_factor(errors: Array, spreads: Array, coverage: float) -> float:
    """What the spreads are to be multiplied by so that `coverage` of the errors are within, n + 1 rule included."""
    scores = np.sort(np.abs(errors) / np.maximum(spreads, 1e-12))
    return float(scores[min(len(scores), ceil((len(scores) + 1) * coverage)) - 1])


@dataclass(frozen=True, slots=True)
class IntervalScore:
    """How well half-widths predict errors.

    Attributes:
        pixels: how many.
        spearman: rank correlation of half-widths and absolute errors, pixel by pixel.
        spearman_local: the same of root mean squares over 8 x 8 pixels.
        coverage: share of errors within the half-widths.
        mean_width: mean half-width.
    """

    pixels: int
    spearman: float
    spearman_local: float
    coverage: float
    mean_width: float


def judge_intervals(errors: NDArray[np.floating], widths: NDArray[np.floating]) -> IntervalScore:
    """Compare half-widths with errors.

    Args:
        errors: (N, C, H, W), truth - output; H and W multiples of 8.
        widths: the same shape and unit.
    """
    from scipy.stats import spearmanr

    local = [_local_rms(a) for a in (errors, widths)]
    far = np.abs(errors)
    return IntervalScore(
        far.size,
        float(spearmanr(far.ravel(), widths.ravel()).statistic),
        float(spearmanr(local[0].ravel(), local[1].ravel()).statistic),
        float((far <= widths).mean()),
        float(widths.mean()),
    )


def _local_rms(values: NDArray[np.floating]) -> NDArray[np.floating]:
    n, c, h, w = values.shape
    return np.asarray(np.sqrt(np.square(values).reshape(n, c, h // 8, 8, w // 8, 8).mean(axis=(3, 5))))
