"""Normalised phase correlation.

Source: C. D. Kuglin and D. C. Hines, "The phase correlation image alignment method", Proc. IEEE Conf. Cybernetics and
Society (1975); the peak is found between pixels by an up-sampled discrete Fourier transform (M. Guizar-Sicairos,
S. T. Thurman and J. R. Fienup, Optics Letters 33 (2008)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from geo_refdiff.align.peak import vertex

_PASS = 0.35
"""Standard deviation of the Gaussian low-pass over frequencies, cycles an LR pixel."""

_STEPS = ((0.25, 4), (0.05, 5))
"""(step in LR pixels, steps to each side) of the rounds of up-sampling."""

_SHARE = 0.02
"""Frequencies with less than this part of the mean amplitude count by what they have, not in full."""

Spectrum = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Peak:
    """Where two images correlate best.

    Attributes:
        shift: (rows, columns) by which the second image's content lies further down and right, pixels.
        score: height of the peak over the surface's mean, in its standard deviations.
    """

    shift: tuple[float, float]
    score: float


def correlate(first: NDArray[Any], second: NDArray[Any], radius: int | None) -> Peak:
    """The shift between two images of one shape.

    Args:
        first, second: (h, w) complex or real, zero mean, tapered to zero.
        radius: greatest shift along an axis that is looked for, pixels; None: the images lie on each other to
            within a pixel.
    """
    spectrum = _whitened(first, second)
    height, width = spectrum.shape
    start = (0.0, 0.0)
    if radius is not None:
        surface = fft.ifft2(spectrum).real
        reach = [min(radius, (n - 1) // 2) for n in (height, width)]
        rows, cols = (np.arange(-r, r + 1) for r in reach)
        near = surface[rows[:, None] % height, cols[None] % width]
        row, col = np.unravel_index(int(near.argmax()), near.shape)
        start = float(rows[row]), float(cols[col])
    shift, height_found = _refined(spectrum, start)
    mean = float(spectrum[0, 0].real) / spectrum.size
    spread = np.sqrt(max(float((np.abs(spectrum) ** 2).sum()) / spectrum.size**2 / 2 - mean**2, 1e-30))
    return Peak(shift, (height_found - mean) / float(spread))


def _whitened(first: NDArray[Any], second: NDArray[Any]) -> Spectrum:
    height, width = (fft.next_fast_len(n) for n in first.shape)
    cross = np.conj(fft.fft2(first, (height, width))) * fft.fft2(second, (height, width))
    amplitude = np.abs(cross)
    rows, cols = fft.fftfreq(height)[:, None], fft.fftfreq(width)[None]
    low_pass = np.exp(-0.5 * (rows**2 + cols**2) / _PASS**2).astype(np.float32)
    floor = max(_SHARE * float(amplitude.mean()), 1e-30)
    return np.asarray(cross * (low_pass / np.maximum(amplitude, np.float32(floor))))


def _refined(spectrum: Spectrum, start: tuple[float, float]) -> tuple[tuple[float, float], float]:
    """The highest point of the correlation surface around `start`, and its height."""
    height, width = spectrum.shape
    row_freq, col_freq = fft.fftfreq(height), fft.fftfreq(width)
    row, col, top = start[0], start[1], 0.0
    for step, count in _STEPS:
        away = np.arange(-count, count + 1) * step
        left = np.exp(2j * np.pi * np.outer(row + away, row_freq)).astype(np.complex64)
        right = np.exp(2j * np.pi * np.outer(col_freq, col + away)).astype(np.complex64)
        patch = (left @ spectrum @ right).real / spectrum.size
        i, j = (int(k) for k in np.unravel_index(int(patch.argmax()), patch.shape))
        top = float(patch[i, j])
        row += float(away[i]) + step * vertex(patch[:, j], i)
        col += float(away[j]) + step * vertex(patch[i], j)
    return (row, col), top
