"""Normalised phase correlation.

Source: C. D. Kuglin and D. C. Hines, "The phase correlation image alignment method", Proc. IEEE Conf. Cybernetics and
Society (1975); the peak is found between pixels by an up-sampled discrete Fourier transform (M. Guizar-Sicairos,
S. T. Thurman and J. R. Fienup, Optics Letters 33 (2008)).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from geo_refdiff.registration.features import Complex, Image
from geo_refdiff.registration.peak import vertex

_PASS = 0.35
"""Standard deviation of the Gaussian low-pass over frequencies, cycles an LR pixel."""

_STEPS = ((0.25, 4), (0.05, 5))
"""(step in LR pixels, steps to each side) of the rounds of up-sampling."""

_SHARE = 0.02
"""Frequencies with less than this part of the mean amplitude count by what they have, not in full."""

Spectrum = NDArray[np.complex64]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Peak:
    """Where two images correlate best.

    Attributes:
        shift: (rows, columns) by which the second image's content lies further down and right, pixels.
        score: height of the peak over the surface's mean, in its standard deviations.
    """

    shift: tuple[float, float]
    score: float


def weighted_peak(first: Complex, second: Complex, weight: Image, radius: int | None) -> Peak:
    """Phase correlation of two orientations (h, w) under a weight, after their weighted means are taken off."""
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
        radius: greatest shift along an axis that is looked for, pixels; None: the images lie on each other to
            within a pixel.
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
    """The whole shifts (n, 2) within the radius at which the correlation surfaces are highest."""
    count, height, width = spectra.shape
    if radius is None:
        return np.zeros((count, 2))
    rows, cols = (np.arange(-r, r + 1) for r in (min(radius, (n - 1) // 2) for n in (height, width)))
    surfaces = fft.ifft2(spectra).real
    near = surfaces[:, rows[:, None] % height, cols[None] % width]
    row, col = np.unravel_index(near.reshape(count, -1).argmax(axis=1), near.shape[1:])
    return np.stack([rows[row], cols[col]], axis=1).astype(np.float64)


def _whitened(first: Complex, second: Complex) -> Spectrum:
    height, width = (fft.next_fast_len(n) for n in first.shape[1:])
    cross = np.conj(fft.fft2(first, (height, width))) * fft.fft2(second, (height, width))
    amplitude = np.sqrt(cross.real**2 + cross.imag**2)
    floor = np.maximum(np.float32(_SHARE) * amplitude.mean(axis=(1, 2)), np.float32(1e-30))
    return np.asarray(cross * (_low_pass(height, width) / np.maximum(amplitude, floor[:, None, None])))


@lru_cache(maxsize=8)
def _low_pass(height: int, width: int) -> Image:
    rows, cols = fft.fftfreq(height)[:, None], fft.fftfreq(width)[None]
    return np.asarray(np.exp(-0.5 * (rows**2 + cols**2) / _PASS**2), np.float32)


def _refined(spectra: Spectrum, starts: Array) -> tuple[Array, Array]:
    """The highest points (n, 2) of the correlation surfaces around `starts`, and their heights (n,)."""
    count, height, width = spectra.shape
    found, tops = starts.copy(), np.zeros(count)
    for step, steps in _STEPS:
        rows = _waves(height, step, steps) * _wave(found[:, :1] * fft.fftfreq(height))[:, None]
        cols = _waves(width, step, steps) * _wave(found[:, 1:] * fft.fftfreq(width))[:, None]
        left, right = rows.astype(np.complex64), cols.astype(np.complex64).transpose(0, 2, 1)
        patches = (left @ spectra @ right).real / spectra[0].size
        for k, patch in enumerate(patches):
            i, j = (int(v) for v in np.unravel_index(int(patch.argmax()), patch.shape))
            tops[k] = patch[i, j]
            away = (i - steps) * step, (j - steps) * step
            found[k] += away[0] + step * vertex(patch[:, j], i), away[1] + step * vertex(patch[i], j)
    return found, tops


@lru_cache(maxsize=16)
def _waves(size: int, step: float, steps: int) -> NDArray[np.complex128]:
    """Shifts by -steps..steps steps, (2 steps + 1, size) over the frequencies."""
    return _wave(np.outer(np.arange(-steps, steps + 1) * step, fft.fftfreq(size)))


def _wave(cycles: Array) -> NDArray[np.complex128]:
    return np.asarray(np.exp(2j * np.pi * cycles))
