"""One robust linear fit a band between the reference and the scene, made once for the whole plan, never per window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 5
_KEEP = 0.7
_GAIN_LIMITS = (0.2, 5.0)
"""In terms of the ratio of the bands' spreads over all pixels, changed ones and clouds among them."""

_SPREAD = (0.1, 0.9)
"""Quantiles between which a band's spread is taken."""

_MIN_PIXELS = 16


@dataclass(frozen=True, slots=True)
class RadiometricFit:
    """scene ~ gain * reference + offset, a band each.

    Attributes:
        gain: (C,) dimensionless.
        offset: (C,) in the scene's units.
        correlation: (C,) Pearson's r over the pixels kept as unchanged, -1..1.
        pixels: LR pixels that the fit rests on; 0 = too few, the fit is the identity.
    """

    gain: tuple[float, ...]
    offset: tuple[float, ...]
    correlation: tuple[float, ...]
    pixels: int


def fit_radiometry(
    reference: NDArray[np.floating], scene: NDArray[np.floating], valid: NDArray[np.bool_]
) -> RadiometricFit:
    """Fit the reference, as the LR sensor would see it, to the scene.

    The gain is the ratio of standard deviations (reduced major axis), which, unlike least squares, does not shrink
    where the two dates agree badly; it is taken over the 70 % of pixels that agree best in all bands, found in
    rounds. Each band has its own units.

    Args:
        reference: (C, n) values of the reference on LR pixels, any units.
        scene: (C, n) values of the scene at the same pixels.
        valid: (n,) True = both are valid.

    Returns:
        the fit; the identity where fewer than 16 pixels are valid or a band has no contrast.
    """
    bands = scene.shape[0]
    a = np.asarray(reference[:, valid], dtype=np.float64)
    b = np.asarray(scene[:, valid], dtype=np.float64)
    if a.shape[1] < _MIN_PIXELS:
        return RadiometricFit((1.0,) * bands, (0.0,) * bands, (0.0,) * bands, 0)
    kept = np.ones(a.shape[1], dtype=bool)
    limits = np.outer(_GAIN_LIMITS, _ratio(a, b))
    gain, offset = np.ones(bands), np.zeros(bands)
    for _ in range(_ROUNDS):
        x, y = a[:, kept], b[:, kept]
        spread, flat = x.std(axis=1), _is_flat(x)
        gain = np.where(flat, 1.0, np.clip(y.std(axis=1) / np.where(flat, 1.0, spread), *limits))
        offset = np.median(y, axis=1) - gain * np.median(x, axis=1)
        scatter = np.maximum(b.std(axis=1), 1e-9)[:, None]
        misfit = (np.abs(gain[:, None] * a + offset[:, None] - b) / scatter).mean(axis=0)
        kept = misfit <= np.quantile(misfit, _KEEP)
    x, y = a[:, kept], b[:, kept]
    dx, dy = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    norm = np.sqrt((dx**2).sum(axis=1) * (dy**2).sum(axis=1))
    correlation = np.where(norm > 0, (dx * dy).sum(axis=1) / np.where(norm > 0, norm, 1.0), 0.0)
    return RadiometricFit(
        tuple(float(g) for g in gain),
        tuple(float(o) for o in offset),
        tuple(float(r) for r in correlation),
        int(kept.sum()),
    )


def _is_flat(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(C,) whether a band has no contrast but for rounding."""
    return np.asarray(values.std(axis=1) <= 1e-9 * np.maximum(np.abs(values).max(axis=1), 1e-30))


def _ratio(reference: NDArray[np.float64], scene: NDArray[np.float64]) -> NDArray[np.float64]:
    """(C,) how much wider the scene's values spread than the reference's, whatever their units."""
    low, high = np.quantile(reference, _SPREAD, axis=1)
    scene_low, scene_high = np.quantile(scene, _SPREAD, axis=1)
    robust = (high > low) & (scene_high > scene_low)
    ours = np.where(robust, scene_high - scene_low, scene.std(axis=1))
    theirs = np.where(robust, high - low, reference.std(axis=1))
    return np.asarray(ours / np.where(theirs > 0, theirs, 1.0))
