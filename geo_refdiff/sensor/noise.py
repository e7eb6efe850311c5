"""How noisy a scene is, estimated from the scene itself.

A diagonal high pass leaves the corner of the spectrum, where a sensor's PSF lets little of the ground through and noise
is as strong as anywhere. What of the ground is left there has two marks that noise has not: it grows with the contrast
around, and bands share it. So variances are followed down to places without contrast, and of each band only what the
others do not explain counts (residual of a linear regression).

Bands may share noise, too, as of colour cameras and pansharpened images. Where there are calm places, and all that is
left there is clearly more than what bands do not share, all of it counts. A dense city in few pixels has no calm
places: there the estimate may be off by a factor of two (docs/radiometry.md has the figures).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.sensor.convolution import convolve_along

Tile = NDArray[np.float64]

_HIGH_PASS = (1.0, -6.0, 15.0, -20.0, 15.0, -6.0, 1.0)
"""Sixth difference, along both axes."""

_SMOOTHING = np.exp(-0.5 * (np.arange(-3, 4) / 0.8) ** 2)
_SMOOTHING /= _SMOOTHING.sum()
"""Of the band in which contrast is measured, which has next to nothing in common with the high pass."""

_SLOPE = np.array([1.0, 0.0, -1.0])

_NEAR = 5
"""Side of the places over which contrast is averaged, scene pixels."""

_REACH = 6
"""scene pixels that a place depends on, on each side."""

_LEVELS = 10
"""Classes of contrast, of the same number of places."""

_CALM = 0.2
"""Part of the places, those with the least contrast, that is looked at."""

_NOTHING = 1e-20
"""Contrast beside the square of the largest value: an error of arithmetic where all pixels are the same."""

_ENOUGH = 4000
"""Places; with fewer in that part, more of a small scene is looked at, up to half."""

_FEWEST = 400
"""Places in a class; with fewer than four such in all nothing is said."""

_OUTLIERS = 4.0
"""Robust standard deviations beyond which a place is an edge."""

_KEPT, _KEPT_VARIANCE = 2.0, 0.77374
"""Standard deviations beyond which a value counts for no variance, and the variance of a normal one that is within."""

_CALM_ENOUGH = 0.25
"""The ground's contrast at the calmest places over that at the least calm ones that are looked at, up to which
variances can be followed down."""

_ALONE = 0.7
"""Of all variance there, what of it is not shared, from which on bands are taken to have noise of their own alone."""

_SHARED = 0.75
"""Most of a band's variance that is taken for the ground because other bands have it, too."""

_CLEAR = 2.0
"""Times the variance of rounding; what is less is rounding."""


def estimate_noise(tiles: Sequence[Tile]) -> tuple[float, ...]:
    """Standard deviation of the noise of each band, in the tiles' units; 0 where it does not rise above rounding.

    Args:
        tiles: (C, h, w) pieces of a scene, at least 13 pixels a side to count, NaN = missing.

    Returns:
        C values; NaN where there is too little to tell from. White noise; of noise that grows with the signal, that of
        the places with the least contrast.
    """
    bands = len(tiles[0]) if tiles else 0
    sigmas = np.zeros(bands)
    parts = [_places(tile) for tile in tiles if min(tile.shape[1:]) > 2 * _REACH]
    if not parts:
        return (math.nan,) * bands
    high, contrast = (np.concatenate([part[k] for part in parts], axis=1) for k in (0, 1))
    valid = np.isfinite(high).all(axis=0) & np.isfinite(contrast).all(axis=0)
    high, contrast = high[:, valid], contrast[:, valid]
    if high.shape[1] < 4 * _FEWEST:
        return (math.nan,) * bands
    live = (contrast > 0).mean(axis=1) >= 0.5
    high, contrast = high[live], contrast[live]
    moving = (contrast > 0).all(axis=0)
    if not live.any() or moving.sum() < 4 * _FEWEST:
        return tuple(sigmas.tolist())
    variance = _variance(high[:, moving], contrast[:, moving])
    rounding = np.array([_step(tiles, band) ** 2 / 12 for band in np.flatnonzero(live).tolist()])
    sigmas[live] = np.sqrt(np.where(variance > _CLEAR * rounding, variance - rounding, 0.0))
    return tuple(sigmas.tolist())


def _places(tile: Tile) -> tuple[Tile, Tile]:
    """(C, n) high pass, of unit gain for white noise, and contrast around it; 0 near where all is the same."""
    taps = np.array(_HIGH_PASS) / np.linalg.norm(_HIGH_PASS)
    beyond = _REACH - len(taps) // 2
    high = _along_both(tile, taps)[..., beyond:-beyond, beyond:-beyond]
    contrast = _contrast(np.pad(tile, ((0, 0), (_REACH, _REACH), (_REACH, _REACH)), mode="symmetric"))
    same = contrast < _NOTHING * np.max(np.abs(tile), initial=0.0, where=np.isfinite(tile)) ** 2
    contrast = contrast[..., _REACH:-_REACH, _REACH:-_REACH]
    if same.any():
        side = 2 * _REACH + 1
        near = F.max_pool2d(F.max_pool2d(same.to(torch.float32), (side, 1), 1), (1, side), 1)
        contrast = contrast.masked_fill(near > 0, 0.0)
    return high.reshape(len(tile), -1).numpy(), contrast.reshape(len(tile), -1).numpy()


def _contrast(tile: Tile) -> Tensor:
    """(1, C, h - 2 reach, w - 2 reach): the mean square of the slopes of a smoothed tile (C, h, w)."""
    smooth = _along_both(tile, _SMOOTHING)
    rows, cols = (convolve_along(smooth, torch.from_numpy(_SLOPE)[None], 1, dim) for dim in (-2, -1))
    square = rows[..., 1:-1] ** 2 + cols[..., 1:-1, :] ** 2
    return _along_both(square[0].numpy(), np.full(_NEAR, 1 / _NEAR))


def _along_both(tile: Tile, taps: NDArray[np.float64]) -> Tensor:
    """(1, C, h - n, w - n): a tile (C, h, w) convolved along both axes with n + 1 taps."""
    kernel = torch.from_numpy(taps)[None]
    return convolve_along(convolve_along(torch.from_numpy(tile)[None], kernel, 1, -2), kernel, 1, -1)


def _noise_contrast() -> float:
    """Contrast of white noise of variance 1."""
    return 2 * float((np.convolve(_SMOOTHING, _SLOPE) ** 2).sum() * (_SMOOTHING**2).sum())


def _variance(high: Tile, contrast: Tile) -> NDArray[np.float64]:
    """(C,) variance of the noise, rounding included."""
    weight = 1 / np.median(contrast, axis=1)
    total = weight @ contrast
    calm = np.argsort(total, kind="stable")[: min(max(int(_CALM * total.size), _ENOUGH), total.size // 2)]
    levels = np.array_split(calm, min(_LEVELS, max(2, calm.size // _FEWEST)))
    at = np.array([total[level].mean() for level in levels])
    whole, unshared = np.array([_variances(high[:, level]) for level in levels]).swapaxes(0, 1)
    every, bare = _without_contrast(whole, at, weight)
    own, _ = _without_contrast(unshared, at, weight)
    calm_enough = at[0] - bare <= _CALM_ENOUGH * (at[-1] - bare)
    shares = calm_enough and own.sum() < _ALONE * every.sum()
    return every if shares else own


def _without_contrast(
    variances: NDArray[np.float64], at: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """(C,) what variances (levels, C) are where there is no contrast but the noise's own, and that contrast."""
    variance = variances[0]
    for _ in range(4):
        bare = _noise_contrast() * float(weight @ variance)
        variance = np.array([_followed_down(at, band, bare) for band in variances.T])
    return variance, bare


def _variances(high: Tile) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C,) variance, and what of it other bands do not explain, edges left aside."""
    spread = 1.4826 * np.median(np.abs(high), axis=1, keepdims=True)
    usual = high[:, (np.abs(high) <= _OUTLIERS * spread).all(axis=0)]
    covariance = usual @ usual.T / max(usual.shape[1], 1)
    variance = np.diag(covariance)
    precision = np.linalg.pinv(covariance + 1e-9 * np.diag(variance), hermitian=True)
    scale = np.diag(precision)[:, None]
    sound = scale * variance[:, None] > 0.5  # 1 or more, except where a band is too flat beside others for a float
    residual = np.where(sound, precision @ usual / np.where(sound, scale, 1.0), usual)
    own = _robust_variance(usual)
    return own, np.where(own > 0, np.maximum(_robust_variance(residual), (1 - _SHARED) * own), 0.0)


def _robust_variance(values: Tile) -> NDArray[np.float64]:
    """(C,) variance of the normal part of values (C, n), whatever their tails are; 0 of none."""
    if not values.size:
        return np.zeros(len(values))
    variance = (1.4826 * np.median(np.abs(values), axis=1, keepdims=True)) ** 2
    for _ in range(3):
        kept = values**2 <= _KEPT**2 * variance
        total = np.sum(values**2, axis=1, keepdims=True, where=kept)
        variance = total / np.maximum(kept.sum(axis=1, keepdims=True), 1) / _KEPT_VARIANCE
    return np.asarray(variance[:, 0])


def _followed_down(at: NDArray[np.float64], variance: NDArray[np.float64], bare: float) -> float:
    """What a line through the variances over contrast has at the contrast of noise alone; relative errors count."""
    weight = 1 / np.maximum(variance, 1e-3 * variance.max() + 1e-300)
    slope, level = np.polyfit(at, variance, 1, w=weight)
    if slope <= 0:
        return float(variance.mean())
    return float(np.clip(level + slope * min(bare, at[0]), 0.0, variance.mean()))


def _step(tiles: Sequence[Tile], band: int) -> float:
    """The distance of neighbouring numbers that a band's values are rounded to; 0: none to be seen."""
    values = np.unique(np.concatenate([tile[band].ravel() for tile in tiles]))
    values = values[np.isfinite(values)]
    if values.size < 2:
        return 0.0
    steps = np.diff(values)
    step = float(steps.min())
    multiples = steps / step
    return step if np.abs(multiples - np.round(multiples)).max() < 0.05 else 0.0
