"""How noisy a scene is, estimated from the scene itself, and from a reference where there is one.

Squares of 7 x 7 pixels are transformed by orthonormal polynomials. The highest orders leave the corner of the
spectrum, where a sensor's PSF lets little of the ground through and noise is as strong as anywhere. What of the ground
is left there has three marks that noise has not: it is strong in some places and weak in others, bands share it, and
so does the reference as the sensor would have seen it. One model has all three: the coefficients of a place are normal
with the covariance D + s G. D, the noise, is the same everywhere and, of bands that have noise of their own, diagonal.
G, the ground, is one of two matrices: with the reference and without, or with other bands and without. s is how strong
the ground is in that place. D, G and how often each s occurs follow by maximum likelihood (expectation-maximisation).
It is a Gaussian scale mixture (Portilla et al., "Image denoising using scale mixtures of Gaussians in the wavelet
domain", IEEE TIP 12, 2003) with a factor model of the bands. That bands predict each other and noise does not is due
to Roger and Arnold ("Reliably estimating the noise in AVIRIS hyperspectral images", IJRS 17, 1996).

Bands may share noise, too, as of colour cameras and pansharpened images. D is full then; it is believed where it is
about as strong in lower orders, as white noise is and the ground is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SIDE = 7
"""Of the squares, scene pixels."""

_HIGH, _LOWER = (5, 6), (4, 5)
"""Orders along each axis: that noise is measured in, and where noise is as strong and the ground stronger."""

_PLACES, _FEWEST = 2500, 1600
"""Squares that are looked at, about; and that there must be, those between them counted, else nothing is said."""

_NOTHING = 1e-9
"""Beside the largest value: an error of arithmetic where all is flat or a ramp."""

_STRENGTHS = 2.5 ** np.arange(-8.0, 6.0)
"""s, over the energy that is usual in the scene."""

_SPREAD = np.maximum(2.0 - np.abs(np.subtract.outer(np.arange(14), np.arange(14))), 0.0)
_SPREAD /= _SPREAD.sum(axis=1, keepdims=True)
"""Smooths how often each s occurs, after every round (Silverman et al., "A smoothed EM approach to indirect estimation
problems", JRSS B 52, 1990): the strength of the ground varies, else what is the same everywhere could be ground."""

_ROUNDS, _STEPS, _SETTLED = 40, 5, 1e-3
"""Of expectation, at most, and of maximisation in each; and the change of variances in a round that is the last one."""

_LEAST = 1e-9
"""Variance beside the usual one, so that matrices have inverses."""

_ALONE = 0.6
"""Part of the variance that is the same everywhere which bands do not share, from which on it is all that is noise."""

_FALL, _WHITE = 6.0, 2.0
"""What is the same everywhere, in lower orders over that in the highest: of the ground, usually; and up to which so
much of it is noise that what bands share counts."""

_ALIKE = 0.05
"""Part of the scene that a reference of the same place explains at least; of another one it is .01."""

_CALMEST, _HIDDEN = 10.0, 0.5
"""Percentile of the places by energy, and what of it must be noise, or the estimate is uncertain."""

_COPIED = 1e-3
"""Part of a band that others do not explain, up to which it is made of them."""

_CLEAR = 2.0
"""Times the variance of rounding; what is less is rounding."""


@dataclass(frozen=True, slots=True)
class NoiseEstimate:
    """What was estimated, a value a band.

    Attributes:
        sigmas: standard deviations, to four digits; 0 where noise does not rise above rounding, NaN where there is too
            little to tell from.
        uncertain: whether the ground hides it even in the calmest places: it may be off by a factor of two.
    """

    sigmas: tuple[float, ...]
    uncertain: tuple[bool, ...]


def estimate_noise(tiles: Sequence[Array], references: Sequence[Array] = ()) -> NoiseEstimate:
    """The noise of each band, in the tiles' units, taken for white; if it grows with the signal, calm places count.

    Args:
        tiles: (C, h, w) pieces of a scene, at least 7 pixels a side to count, NaN = missing.
        references: (R, h, w) the same pieces of a reference as the sensor sees it, in any units; not used where it does
            not show the same.
    """
    bands = len(tiles[0]) if tiles else 0
    sigmas, uncertain = np.full(bands, math.nan), np.zeros(bands, dtype=bool)
    both = [np.concatenate(pair) for pair in zip(tiles, references, strict=True)] if references else list(tiles)
    both = [tile for tile in both if min(tile.shape[1:]) >= _SIDE]
    stride = max(1, math.isqrt(sum(tile[0].size for tile in both) // _PLACES))
    high, lower = (
        np.concatenate([_squares(tile, orders, stride) for tile in both] or [np.empty((1, 0, bands))], axis=1)
        for orders in (_HIGH, _LOWER)
    )
    valid = np.isfinite(high).all(axis=(0, 2))
    high, lower = high[:, valid], lower[:, valid]
    if high.shape[1] * stride**2 < _FEWEST:
        return NoiseEstimate(tuple(sigmas.tolist()), tuple(uncertain.tolist()))
    sigmas[:] = 0
    largest = np.max([np.max(np.abs(tile), axis=(1, 2), initial=0.0, where=np.isfinite(tile)) for tile in both], axis=0)
    moving = np.abs(high).max(axis=0) > _NOTHING * largest
    live = moving.mean(axis=0) >= 0.5
    cut = np.concatenate([_cut(tile, stride) for tile in both])[valid]
    used = (moving & ~cut)[:, live].all(axis=1)
    own = np.flatnonzero(live[:bands])
    if used.sum() * stride**2 < _FEWEST or not own.size:
        return NoiseEstimate(tuple(sigmas.tolist()), tuple(uncertain.tolist()))
    high, lower = high[:, used][..., live], lower[:, used][..., live]
    if _explained(lower, own.size) < _ALIKE:
        high, lower = high[..., : own.size], lower[..., : own.size]
    kept = _independent(high)
    scene = [k for k in kept if k < own.size]
    predictors, predicted = high[..., scene].reshape(-1, len(scene)), high[..., : own.size].reshape(-1, own.size)
    weights = np.linalg.lstsq(predictors, predicted, rcond=None)[0]
    weights[:, scene] = np.eye(len(scene))
    variance = (weights**2).T @ _variance(high[..., kept], lower[..., kept], len(scene))
    rounding = np.array([_step(tiles, band) ** 2 / 12 for band in own.tolist()])
    sigmas[own] = np.sqrt(np.where(variance > _CLEAR * rounding, variance - rounding, 0.0))
    calmest = np.percentile(np.square(high[..., : own.size]).mean(axis=0), _CALMEST, axis=0)
    uncertain[own] = (sigmas[own] > 0) & (variance < _HIDDEN * calmest)
    return NoiseEstimate(tuple(float(f"{sigma:.4g}") for sigma in sigmas), tuple(uncertain.tolist()))


def _independent(high: Array) -> list[int]:
    """The bands of squares (F, n, B) that those before do not explain: a copy, or a mean, has no noise of its own."""
    flat = high.reshape(-1, high.shape[2])
    kept: list[int] = []
    for band in range(flat.shape[1]):
        before, values = flat[:, kept], flat[:, band]
        rest = values - before @ np.linalg.lstsq(before, values, rcond=None)[0]
        if np.square(rest).sum() > _COPIED * np.square(values).sum():
            kept.append(band)
    return kept


def _views(tile: Array, stride: int) -> Array:
    """(C, i, j, 7, 7) squares of a tile (C, h, w)."""
    return sliding_window_view(tile, (_SIDE, _SIDE), axis=(1, 2))[:, ::stride, ::stride]


def _cut(tile: Array, stride: int) -> NDArray[np.bool_]:
    """(n, C) whether a square reaches into what is all the same: saturated, filled."""
    near = _SIDE // 2
    views = _views(tile, stride)
    sides = (views[..., :near, :], views[..., -near:, :], views[..., :near], views[..., -near:])
    same = np.any([(side == side[..., :1, :1]).all(axis=(-2, -1)) for side in sides], axis=0)
    return np.asarray(same.reshape(len(tile), -1).T)


def _squares(tile: Array, orders: tuple[int, ...], stride: int) -> Array:
    """(F, n, C) coefficients of the squares of a tile (C, h, w), orders in pairs; of unit gain for white noise."""
    at = np.arange(_SIDE) - _SIDE // 2
    taps = np.linalg.qr(np.vander(at, increasing=True).astype(np.float64))[0].T[list(orders)]
    values = np.einsum("cijab,fa,gb->fgijc", _views(tile, stride), taps, taps, optimize=True)
    return np.asarray(values.reshape(len(orders) ** 2, -1, len(tile)))


def _explained(lower: Array, bands: int) -> float:
    """Part of the bands of squares (F, n, B) that the reference, the rest of them, explains; squares count alike."""
    flat = (lower / (lower.std(axis=(0, 1)) + 1e-300)).reshape(-1, lower.shape[2])
    flat = flat / (np.sqrt(np.mean(flat**2, axis=1, keepdims=True)) + 1e-300)
    scene, reference = flat[:, :bands], flat[:, bands:]
    residual = scene - reference @ np.linalg.lstsq(reference, scene, rcond=None)[0]
    return 1 - float(np.square(residual).sum() / np.square(scene).sum())


def _variance(high: Array, lower: Array, bands: int) -> Array:
    """(bands,) variance of the noise, rounding included, in squares (F, n, B); the first bands are the scene's."""
    alone = np.eye(high.shape[2], dtype=bool)
    own = _noise(high, alone, bands)
    if bands == 1:
        return own
    shared = alone.copy()
    shared[:bands, :bands] = True
    every = _noise(high, shared, bands)
    if own.sum() >= _ALONE * every.sum():
        return own
    fall = float(np.mean(_noise(lower, shared, bands) / every))
    return np.maximum(own, every * min(1.0, (_FALL - fall) / (_FALL - 1))) if fall <= _WHITE else own


def _noise(high: Array, noisy: NDArray[np.bool_], bands: int) -> Array:
    """(bands,) variance of the noise in squares (F, n, B), whose covariance is 0 where not noisy (B, B)."""
    orders, places, count = high.shape
    scale = np.sqrt(np.median(high**2, axis=(0, 1))) + 1e-300
    high = np.ascontiguousarray((high / scale).swapaxes(1, 2))  # (F, B, n)
    row, col = np.triu_indices(count)
    products = (high[:, row] * high[:, col]).reshape(-1, places).T
    energy = np.mean(high**2, axis=(0, 1))
    noise = np.eye(count) * np.percentile(energy, 5)
    shape = high / np.sqrt(energy)
    whole = shape @ shape.swapaxes(1, 2) / places + 1e-6 * np.eye(count)
    groups = np.arange(count) < bands
    apart = np.equal.outer(groups, groups) if bands < count else np.eye(count)
    ground = np.stack([whole, whole * apart])  # (2, F, B, B)
    kinds, levels = len(ground), len(_STRENGTHS)
    share = np.full((kinds, levels), 1 / (kinds * levels))
    power, forth, back = _axes(noise, ground)
    for _ in range(_ROUNDS):
        variance = 1 + _STRENGTHS[:, None, None] * power[:, None]  # (2, S, F, B)
        along = np.square(_transposed(forth) @ high).reshape(kinds, -1, places)
        fit = (1 / variance).reshape(kinds, levels, -1) @ along + np.log(variance).sum(axis=(2, 3))[..., None]
        likely = (np.log(share)[..., None] - fit / 2).reshape(-1, places)
        likely = np.exp(likely - likely.max(axis=0))
        likely /= likely.sum(axis=0)
        total = likely.sum(axis=1)
        share = (total.reshape(kinds, levels) + 0.5) @ _SPREAD
        share /= share.sum()
        mean = (likely @ products / np.maximum(total, 1e-9)[:, None]).reshape(kinds, levels, orders, -1).swapaxes(1, 2)
        seen = np.empty((kinds, orders, levels, count, count))
        seen[..., row, col] = seen[..., col, row] = mean
        weight = total.reshape(kinds, 1, 1, levels)
        before = np.diag(noise)[:bands]
        sums = np.concatenate([weight, weight * _STRENGTHS], axis=2)
        for _ in range(_STEPS):
            inverse = 1 / (1 + _STRENGTHS[:, None] * power[:, :, None])[..., None]  # (2, F, S, B, 1)
            turned = _transposed(forth)[:, :, None] @ seen @ forth[:, :, None]
            more = inverse * (turned * _transposed(inverse) - np.eye(count))
            both = (sums @ more.reshape(kinds, orders, levels, -1)).reshape(kinds, orders, 2, count, count)
            noise = noise + (back @ both[:, :, 0] @ _transposed(back)).sum(axis=(0, 1)) / (orders * places)
            noise = np.where(noisy, noise + noise.T, 0.0) / 2 + _LEAST * np.eye(count)
            strength = power[..., None] * both[:, :, 1] / np.maximum(weight.sum(axis=3)[..., None], 1e-9)
            ground = back @ ((strength + np.eye(count)) * power[..., None, :]) @ _transposed(back)
            power, forth, back = _axes(noise, ground)
        if np.all(np.abs(np.diag(noise)[:bands] - before) < _SETTLED * np.maximum(before, 0.01 * before.max())):
            break
    return np.asarray(np.diag(noise) * scale**2)[:bands]


def _axes(noise: Array, ground: Array) -> tuple[Array, Array, Array]:
    """Where noise (B, B) and ground (..., B, B) are both diagonal.

    Returns:
        (..., B) the ground's variance along each axis, where the noise's is 1; (..., B, B) T, whose columns are
        these axes, T' noise T = 1 and T' ground T diagonal; its inverse, transposed.
    """
    root = np.linalg.cholesky(noise)
    white = np.linalg.inv(root)
    power, turn = np.linalg.eigh(white @ ground @ white.T)
    return np.maximum(power, 0), white.T @ turn, root @ turn


def _transposed(matrices: Array) -> Array:
    return matrices.swapaxes(-1, -2)


def _step(tiles: Sequence[Array], band: int) -> float:
    """The distance of neighbouring numbers that a band's values are rounded to; 0: none to be seen."""
    values = np.unique(np.concatenate([tile[band].ravel() for tile in tiles]))
    values = values[np.isfinite(values)]
    if values.size < 2:
        return 0.0
    steps = np.diff(values)
    step = float(steps.min())
    multiples = steps / step
    return step if np.abs(multiples - np.round(multiples)).max() < 0.05 else 0.0
