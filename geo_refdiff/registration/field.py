"""Robust fits of a displacement to measured shifts: one shift, an affine, or a smooth field.

The field is a Gaussian process with Matern 5/2 covariance around an unknown constant, to which it returns far from
measurements (C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning, 2006, sections 2.7, 4.2
and 5.4). Amplitude and correlation length maximise the likelihood; outliers are found by leave-one-out prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.raster.displacement import Displacement

_AMPLITUDES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Standard deviations of the field around its constant, scene pixels."""

_REACHES = (1.0, 2.0, 4.0, 8.0)
"""Correlation lengths in distances between measurements."""

_NOISES = (0.25, 0.5, 1.0, 2.0)
"""Factors by which all stated errors may be wrong."""

_FLOOR = 0.02
"""Error that is added to every stated error, scene pixels."""

_OUTLIER = 4.0
"""Deviation from the prediction of the others that makes an outlier, standard deviations."""

_ROUNDS = 4
_VAGUE = 100.0
"""Variance of the constant before any measurement, scene pixels squared."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FittedDisplacement:
    """A fitted displacement.

    Attributes:
        displacement: a constant, an affine, or a lattice.
        inlier: (n,) True = the measurement was used.
        gain: natural log likelihood gained over a constant.
        sigma: standard error of the field at the lattice's nodes (rows, cols), or one number (1, 1); scene pixels.
    """

    displacement: Displacement
    inlier: NDArray[np.bool_]
    gain: float
    sigma: Array


def fit_constant(shifts: Array, sigma: Array) -> FittedDisplacement:
    """Fit one shift: the weighted mean of the shifts near the median.

    Args:
        shifts: (n, 2) rows and columns, scene pixels.
        sigma: (n,) standard error of each.
    """
    inlier = np.ones(len(shifts), dtype=bool)
    centre = np.median(shifts, axis=0)
    for _ in range(_ROUNDS):
        off = np.linalg.norm(shifts - centre, axis=1)
        spread = 1.4826 * float(np.median(off[inlier]))
        inlier = off <= np.maximum(_OUTLIER * np.hypot(sigma, _FLOOR), 2.5 * spread)
        if not inlier.any():
            inlier = off <= np.median(off)
        weight = 1 / (sigma[inlier] ** 2 + _FLOOR**2)
        centre = (shifts[inlier] * weight[:, None]).sum(axis=0) / weight.sum()
    scatter = float(np.sqrt((weight * ((shifts[inlier] - centre) ** 2).sum(axis=1)).sum() / weight.sum()))
    error = max(float(1 / np.sqrt(weight.sum())), scatter / np.sqrt(max(len(weight) - 1, 1)))
    return FittedDisplacement(Displacement.constant(*centre), inlier, 0.0, np.array([[error]]))


def fit_affine(points: Array, shifts: Array, sigma: Array) -> FittedDisplacement | None:
    """Fit an affine by least squares without outliers; None for fewer than six measurements or collinear ones.

    Args:
        points: (n, 2) positions, scene pixels from the scene's corner.
        shifts, sigma: as for `fit_constant`.
    """
    design = np.column_stack([points, np.ones(len(points))])
    extent = np.maximum(np.abs(design).max(axis=0), 1e-9)
    inlier = np.ones(len(points), dtype=bool)
    error = np.hypot(sigma, _FLOOR)
    coefficients: Array = np.zeros((3, 2))
    for _ in range(_ROUNDS):
        if inlier.sum() < 6 or np.linalg.matrix_rank(design[inlier] / extent, tol=0.05) < 3:
            return None
        scaled = design[inlier] / error[inlier, None]
        solved = np.linalg.lstsq(scaled, shifts[inlier] / error[inlier, None], rcond=None)[0]
        coefficients = np.asarray(solved, dtype=np.float64)
        off = np.linalg.norm(shifts - design @ coefficients, axis=1)
        spread = 1.4826 * float(np.median(off[inlier]))
        inlier = off <= np.maximum(_OUTLIER * error, 2.5 * spread)
    a, b, c, d, e, f = (float(v) for v in coefficients.T.ravel())
    residuals = np.linalg.norm((shifts - design @ coefficients)[inlier], axis=1)
    scatter = float(np.sqrt((residuals**2).mean() * 3 / max(int(inlier.sum()) - 3, 1)))
    return FittedDisplacement(Displacement((a, b, c, d, e, f)), inlier, 0.0, np.array([[scatter]]))


def fit_field(points: Array, shifts: Array, sigma: Array, rows: Array, cols: Array) -> FittedDisplacement:
    """Fit a smooth field, sampled on a lattice.

    Args:
        points, shifts, sigma: as for `fit_affine`.
        rows, cols: positions of the lattice's nodes, scene pixels.
    """
    stated = (sigma**2 + _FLOOR**2) / 2  # of each component
    noise = stated
    inlier = np.ones(len(points), dtype=bool)
    unit = _spacing(points)
    amplitude, reach, gain = 0.0, unit, 0.0
    for _ in range(_ROUNDS):
        amplitude, reach, factor, gain = _likeliest(points[inlier], shifts[inlier], stated[inlier], unit)
        noise = stated * factor**2
        expected, variance = _left_out(points, shifts, noise, inlier, amplitude, reach)
        off = np.abs(shifts - expected) / np.sqrt(variance + noise)[:, None]
        kept = off.max(axis=1) <= _OUTLIER
        if (kept == inlier).all() or kept.sum() < 3:
            break
        inlier = kept
    nodes = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    values, spread = _predicted(points[inlier], shifts[inlier], noise[inlier], nodes, amplitude, reach)
    shape = (len(rows), len(cols))
    displacement = Displacement.lattice(rows, cols, values[:, 0].reshape(shape), values[:, 1].reshape(shape))
    return FittedDisplacement(displacement, inlier, gain, np.sqrt(2 * spread).reshape(shape))


def _spacing(points: Array) -> float:
    """Mean distance between neighbouring measurements."""
    extent = np.ptp(points, axis=0)
    return float(max(np.sqrt(max(extent[0], 1.0) * max(extent[1], 1.0) / max(len(points), 1)), 1.0))


def _covariance(a: Array, b: Array, amplitude: float, reach: float) -> Array:
    """Matern 5/2 plus the vague constant."""
    return amplitude**2 * _matern(a, b, reach) + _VAGUE


def _matern(a: Array, b: Array, reach: float) -> Array:
    """Correlation by distance."""
    d = np.sqrt(5.0) * np.linalg.norm(a[:, None] - b[None], axis=-1) / reach
    return np.asarray((1 + d + d**2 / 3) * np.exp(-d))


def _likeliest(points: Array, shifts: Array, noise: Array, unit: float) -> tuple[float, float, float, float]:
    """The likeliest (amplitude, reach, factor of the errors), and the log likelihood gained over a constant."""
    likelihoods = {reach: _Likelihood(points, shifts, noise, unit * reach) for reach in _REACHES}
    constant = max((likelihoods[_REACHES[0]].logarithm(0.0, f), f) for f in _NOISES)
    tried = [
        (likelihoods[reach].logarithm(amplitude, f), amplitude, unit * reach, f)
        for amplitude in _AMPLITUDES
        for reach in _REACHES
        for f in _NOISES
    ]
    best, amplitude, reach, factor = max(tried)
    if best <= constant[0]:
        return 0.0, unit, constant[1], 0.0
    return amplitude, reach, factor, best - constant[0]


class _Likelihood:
    """Likelihood of measurements under one reach, for any amplitude and errors after a single decomposition.

    Scaled by its noise N, the covariance is amplitude^2 M + factor^2 I plus the constant's N^-1/2 1 1^T N^-1/2, where
    M = N^-1/2 (Matern) N^-1/2. In the eigenvectors of M the first two are diagonal; the last is of rank one.
    """

    def __init__(self, points: Array, shifts: Array, noise: Array, reach: float) -> None:
        scale = 1 / np.sqrt(noise)
        values, vectors = np.linalg.eigh(_matern(points, points, reach) * scale * scale[:, None])
        self._values = np.maximum(values, 0.0)
        self._shifts = vectors.T @ (shifts * scale[:, None])
        self._constant = vectors.T @ scale
        self._noise = float(np.log(noise).sum())

    def logarithm(self, amplitude: float, factor: float) -> float:
        """Natural logarithm up to a constant; `factor`: by how much the errors exceed the stated ones."""
        diagonal = amplitude**2 * self._values + factor**2
        along = self._constant / diagonal
        share = 1 + _VAGUE * float(self._constant @ along)
        misfit = (
            float((self._shifts**2 / diagonal[:, None]).sum())
            - _VAGUE * float(((along @ self._shifts) ** 2).sum()) / share
        )
        return -0.5 * misfit - (float(np.log(diagonal).sum()) + self._noise + float(np.log(share)))


def _predicted(
    points: Array, shifts: Array, noise: Array, where: Array, amplitude: float, reach: float
) -> tuple[Array, Array]:
    """Mean (m, 2) and variance of a component (m,) at positions `where`."""
    inverse = np.linalg.inv(_covariance(points, points, amplitude, reach) + np.diag(noise))
    cross = _covariance(where, points, amplitude, reach)
    variance = amplitude**2 + _VAGUE - np.einsum("mi,ij,mj->m", cross, inverse, cross)
    return np.asarray(cross @ inverse @ shifts), np.maximum(variance, 0.0)


def _left_out(
    points: Array, shifts: Array, noise: Array, inlier: NDArray[np.bool_], amplitude: float, reach: float
) -> tuple[Array, Array]:
    """Leave-one-out prediction of each measurement by the inliers: mean (n, 2), variance of a component (n,)."""
    mean, variance = _predicted(points[inlier], shifts[inlier], noise[inlier], points, amplitude, reach)
    full = _covariance(points[inlier], points[inlier], amplitude, reach) + np.diag(noise[inlier])
    inverse = np.linalg.inv(full)
    alone = 1 / np.diag(inverse)
    mean[inlier] = shifts[inlier] - (inverse @ shifts[inlier]) * alone[:, None]
    variance[inlier] = np.maximum(alone - noise[inlier], 0.0)
    return mean, variance
