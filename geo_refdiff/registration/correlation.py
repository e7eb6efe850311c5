"""Two independent estimators of the shift between two images: normalised phase correlation, and the enhanced
correlation coefficient.

Sources: C. D. Kuglin and D. C. Hines, "The phase correlation image alignment method", Proc. IEEE Conf. Cybernetics and
Society (1975), with the peak found between pixels by an up-sampled discrete Fourier transform (M. Guizar-Sicairos,
S. T. Thurman and J. R. Fienup, Optics Letters 33 (2008)); G. D. Evangelidis and E. Z. Psarakis, "Parametric image
alignment using enhanced correlation coefficient maximization", IEEE TPAMI 30 (2008), in the implementation of OpenCV,
started at the best of all whole shifts (D. Padfield, "Masked object registration in the Fourier domain", IEEE TIP 21
(2012)).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy import fft  # scipy's takes 0.1 s to import
from numpy.typing import NDArray

from geo_refdiff.registration.features import Complex, Image, Mask, Shift


def vertex(values: NDArray[np.floating[Any]], at: int) -> float:
    """Offset, in samples, of the vertex of the parabola through sample `at` and its neighbours; 0 at the ends."""
    if not 0 < at < len(values) - 1:
        return 0.0
    below, here, above = (float(v) for v in values[at - 1 : at + 2])
    bend = below - 2 * here + above
    return float(np.clip(0.5 * (below - above) / bend, -0.5, 0.5)) if bend < 0 else 0.0


_PASS = 0.35
"""Standard deviation of the Gaussian low-pass over frequencies, cycles a scene pixel."""

_STEPS = ((0.25, 4), (0.05, 5))
"""Rounds of up-sampling: (step in scene pixels, steps to each side)."""

_SHARE = 0.02
"""Frequencies are whitened to unit amplitude, but for those below this part of the mean amplitude."""

_ROUNDS = 30
_PRECISION = 1e-5
_HALVED = 192
"""Images of this size or more are searched at half size first, pixels."""

_CAPTURE = 2.0
"""How far the iteration may move from its start along an axis, pixels."""

_SMOOTHINGS = (1, 3)
"""Taps of OpenCV's smoothing, tried in turn: without is more accurate, but does not converge on the finest edges."""

_FULL = 0.9
_MIN_OVERLAP = 0.3

Spectrum = NDArray[np.complex64]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Peak:
    """The best correlation of two images.

    Attributes:
        shift: (rows, columns) from the first image to the same content in the second, pixels.
        score: height of the peak over the mean of the surface, in standard deviations of the surface.
    """

    shift: tuple[float, float]
    score: float


def weighted_peak(first: Complex, second: Complex, weight: Image, radius: int | None) -> Peak:
    """Phase correlation of two orientation images (h, w) under a weight; their weighted means are subtracted."""
    return weighted_peaks(first[None], second[None], weight[None], radius)[0]


def weighted_peaks(first: Complex, second: Complex, weight: Image, radius: int | None) -> list[Peak]:
    """The same for many windows of one shape at once, (n, h, w) each."""
    total = np.maximum(weight.sum(axis=(1, 2)), np.float32(1e-6))
    a, b = ((o - ((o * weight).sum(axis=(1, 2)) / total)[:, None, None]) * weight for o in (first, second))
    return correlate(a, b, radius)


def correlate(first: Complex, second: Complex, radius: int | None) -> list[Peak]:
    """The shift between two images, for many windows of one shape at once.

    Args:
        first, second: (n, h, w) complex64, zero mean, tapered to zero.
        radius: search radius along each axis, pixels; None: the shift is below a pixel.
    """
    spectra = _whitened(first, second)
    size = spectra[0].size
    shifts, heights = _refined(spectra, _nearest(spectra, radius))
    means = spectra[:, 0, 0].real.astype(np.float64) / size
    power = (spectra.real**2 + spectra.imag**2).sum(axis=(1, 2)).astype(np.float64)
    spread = np.sqrt(np.maximum(power / size**2 / 2 - means**2, 1e-30))
    scores = (heights - means) / spread
    return [Peak((float(row), float(col)), float(score)) for (row, col), score in zip(shifts, scores, strict=True)]


def _nearest(spectra: Spectrum, radius: int | None) -> Array:
    """The whole shifts (n, 2) within the radius with the highest correlation."""
    count, height, width = spectra.shape
    if radius is None:
        return np.zeros((count, 2))
    rows, cols = (np.arange(-r, r + 1) for r in (min(radius, (n - 1) // 2) for n in (height, width)))
    surfaces = fft.ifft2(spectra).real
    near = surfaces[:, rows[:, None] % height, cols[None] % width]
    row, col = np.unravel_index(near.reshape(count, -1).argmax(axis=1), near.shape[1:])
    return np.stack([rows[row], cols[col]], axis=1).astype(np.float64)


def _whitened(first: Complex, second: Complex) -> Spectrum:
    height, width = (_fast_length(n) for n in first.shape[1:])
    cross = np.conj(fft.fft2(first, (height, width))) * fft.fft2(second, (height, width))
    amplitude = np.sqrt(cross.real**2 + cross.imag**2)
    floor = np.maximum(np.float32(_SHARE) * amplitude.mean(axis=(1, 2)), np.float32(1e-30))
    return np.asarray(cross * (_low_pass(height, width) / np.maximum(amplitude, floor[:, None, None])))


def _fast_length(least: int) -> int:
    """The next length whose Fourier transform is quick: its prime factors are at most 5."""
    length = least
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1


@lru_cache(maxsize=8)
def _low_pass(height: int, width: int) -> Image:
    rows, cols = fft.fftfreq(height)[:, None], fft.fftfreq(width)[None]
    return np.asarray(np.exp(-0.5 * (rows**2 + cols**2) / _PASS**2), np.float32)


def _refined(spectra: Spectrum, starts: Array) -> tuple[Array, Array]:
    """Peaks (n, 2) of the correlation surfaces near `starts`, and their heights (n,)."""
    count, height, width = spectra.shape
    shifts, tops = starts.copy(), np.zeros(count)
    for step, steps in _STEPS:
        rows = _waves(height, step, steps) * _wave(shifts[:, :1] * fft.fftfreq(height))[:, None]
        cols = _waves(width, step, steps) * _wave(shifts[:, 1:] * fft.fftfreq(width))[:, None]
        left, right = rows.astype(np.complex64), cols.astype(np.complex64).transpose(0, 2, 1)
        patches = (left @ spectra @ right).real / spectra[0].size
        for k, patch in enumerate(patches):
            i, j = (int(v) for v in np.unravel_index(int(patch.argmax()), patch.shape))
            tops[k] = patch[i, j]
            away = (i - steps) * step, (j - steps) * step
            shifts[k] += away[0] + step * vertex(patch[:, j], i), away[1] + step * vertex(patch[i], j)
    return shifts, tops


@lru_cache(maxsize=16)
def _waves(size: int, step: float, steps: int) -> NDArray[np.complex128]:
    """Fourier shift factors of -steps..steps steps, (2 steps + 1, size) over the frequencies."""
    return _wave(np.outer(np.arange(-steps, steps + 1) * step, fft.fftfreq(size)))


def _wave(cycles: Array) -> NDArray[np.complex128]:
    return np.asarray(np.exp(2j * np.pi * cycles))


def search_shift(first: Image, second: Image, mask: Mask, radius: int) -> Shift:
    """The shift of highest correlation coefficient within `radius`; accurate to half a pixel for large images.

    Args:
        first, second: (h, w) float32, 0 where masked out.
        mask: (h, w), True = both are valid.
        radius: search radius along each axis, pixels.
    """
    counted = mask.astype(np.float32)
    if min(first.shape) >= _HALVED:
        small, other, coverage = (_halved(x) for x in (first, second, counted))
        refined = refine_shift(small, other, coverage > _FULL, _highest(small, other, coverage, -(-radius // 2)))
        if refined is not None:
            return refined[0][0] * 2, refined[0][1] * 2
    return _highest(first, second, counted, radius)


def search_shifts(first: Image, second: Image, mask: Mask, radius: int) -> list[Shift]:
    """`search_shift` for many small windows of one shape at once, (n, h, w) each."""
    surfaces = _masked_correlation(first, second, mask.astype(np.float32), radius)
    return [_summit(surface, radius) for surface in surfaces]


def _highest(first: Image, second: Image, coverage: Image, reach: int) -> Shift:
    """The best whole shift, refined by a parabola."""
    return _summit(_masked_correlation(first[None], second[None], coverage[None], reach)[0], reach)


def _summit(surface: NDArray[np.floating], reach: int) -> Shift:
    row, col = (int(k) for k in np.unravel_index(int(surface.argmax()), surface.shape))
    return row - reach + vertex(surface[:, col], row), col - reach + vertex(surface[row], col)


def refine_shift(first: Image, second: Image, mask: Mask, start: Shift = (0.0, 0.0)) -> tuple[Shift, float] | None:
    """The shift of highest correlation coefficient near `start`, by OpenCV.

    Args:
        first, second: (h, w) float32.
        mask: (h, w), True = both are valid.
        start: (rows, columns) from the first image to the same content in the second, pixels.

    Returns:
        The shift and the correlation coefficient, -1..1; None if the iteration does not converge or moves too far from
        `start`.
    """
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ROUNDS, _PRECISION)
    for smoothing in _SMOOTHINGS:
        matrix = np.array([[1, 0, start[1]], [0, 1, start[0]]], dtype=np.float32)
        try:
            value, warp = cv2.findTransformECC(
                first, second, matrix, cv2.MOTION_TRANSLATION, criteria, mask.astype(np.uint8) * 255, smoothing
            )
        except cv2.error:  # it does not converge
            continue
        (_, _, col), (_, _, row) = np.asarray(warp, np.float64).tolist()
        if max(abs(row - start[0]), abs(col - start[1])) <= _CAPTURE:  # False for NaN
            return (row, col), float(value)
    return None


def _halved(image: Image) -> Image:
    return np.asarray(cv2.resize(image, None, None, 0.5, 0.5, cv2.INTER_AREA), np.float32)


def _masked_correlation(a: Image, b: Image, coverage: Image, reach: int) -> NDArray[np.floating]:
    """Pearson's r of the overlap for shifts -reach..reach along both axes: (n, h, w) -> (n, 2 reach + 1, the same)."""
    height, width = (_fast_length(n + reach) for n in a.shape[1:])
    spectra = fft.rfft2(np.stack([coverage, a, a * a, b, b * b]), (height, width))
    rows, cols = _inverse(height, width, reach)

    def correlate_lags(i: int, j: int) -> NDArray[np.floating]:
        some = (rows @ (np.conj(spectra[i]) * spectra[j])) @ cols  # only these lags of the inverse transform
        return np.asarray(some.real, dtype=np.float64)

    count = np.maximum(correlate_lags(0, 0), 1.0)
    sum_a, sum_b = correlate_lags(1, 0), correlate_lags(0, 3)
    spread_a = np.maximum(correlate_lags(2, 0) - sum_a**2 / count, 0.0)
    spread_b = np.maximum(correlate_lags(0, 4) - sum_b**2 / count, 0.0)
    spread = np.sqrt(spread_a * spread_b)
    most, widest = (x.max(axis=(1, 2), keepdims=True) for x in (count, spread))
    enough = (count > _MIN_OVERLAP * most) & (spread > 1e-6 * np.maximum(widest, 1e-12))
    return np.where(enough, (correlate_lags(1, 3) - sum_a * sum_b / count) / np.where(enough, spread, 1.0), -1.0)


@lru_cache(maxsize=8)
def _inverse(height: int, width: int, reach: int) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Left and right matrices of the inverse transform of a real image's half spectrum at lags -reach..reach."""
    at = np.arange(-reach, reach + 1)
    rows = np.exp(2j * np.pi * np.outer(at, fft.fftfreq(height))) / height
    both = np.where(np.isin(np.arange(width // 2 + 1), (0, width / 2)), 1, 2)  # stand for the conjugate half too
    cols = np.exp(2j * np.pi * np.outer(fft.rfftfreq(width), at)) * both[:, None] / width
    return rows.astype(np.complex64), cols.astype(np.complex64)
