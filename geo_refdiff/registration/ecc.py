"""The enhanced correlation coefficient of two images over the pixels that both know.

Source: G. D. Evangelidis and E. Z. Psarakis, "Parametric image alignment using enhanced correlation coefficient
maximization", IEEE TPAMI 30 (2008), in OpenCV's implementation; where to start is found over all whole shifts at once
by D. Padfield, "Masked object registration in the Fourier domain", IEEE TIP 21 (2012).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from geo_refdiff.registration.peak import vertex

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Shift = tuple[float, float]

_ROUNDS = 30
_PRECISION = 1e-5
_HALVED = 192
"""Images from this size on are compared at half their size first."""

_CAPTURE = 2.0
"""How far, along an axis, an iteration may go from where it started, pixels."""

_SMOOTHINGS = (1, 3)
"""Taps of OpenCV's own smoothing: none is the most accurate; edges too fine for an iteration to follow get some."""

_FULL = 0.9
_LEAST_OVERLAP = 0.3


def search(first: Image, second: Image, mask: Mask, radius: int) -> Shift:
    """The shift with the highest correlation of all within `radius`; for large images good to half a pixel.

    Args:
        first, second: (h, w) float32, 0 where masked out.
        mask: (h, w), True = both are known.
        radius: pixels, along each axis.
    """
    counted = mask.astype(np.float32)
    if min(first.shape) >= _HALVED:
        small, other, known = (_halved(x) for x in (first, second, counted))
        found = refine(small, other, known > _FULL, _highest(small, other, known, -(-radius // 2)))
        if found is not None:
            return found[0][0] * 2, found[0][1] * 2
    return _highest(first, second, counted, radius)


def search_windows(first: Image, second: Image, mask: Mask, radius: int) -> list[Shift]:
    """`search` for many small windows of one shape at once, (n, h, w) each."""
    surfaces = _masked_correlation(first, second, mask.astype(np.float32), radius)
    return [_summit(surface, radius) for surface in surfaces]


def _highest(first: Image, second: Image, known: Image, reach: int) -> Shift:
    """Of the correlations at whole shifts, and of a parabola through its neighbours."""
    return _summit(_masked_correlation(first[None], second[None], known[None], reach)[0], reach)


def _summit(surface: NDArray[np.floating], reach: int) -> Shift:
    row, col = (int(k) for k in np.unravel_index(int(surface.argmax()), surface.shape))
    return row - reach + vertex(surface[:, col], row), col - reach + vertex(surface[row], col)


def refine(first: Image, second: Image, mask: Mask, start: Shift = (0.0, 0.0)) -> tuple[Shift, float] | None:
    """The shift of highest correlation near `start`, found by OpenCV.

    Args:
        first, second: (h, w) float32.
        mask: (h, w), True = both are known.
        start: (rows, columns) by which the second image's content lies further down and right, pixels.

    Returns:
        The shift and the correlation coefficient, -1..1; None if the iteration does not converge or leaves the
        neighbourhood of `start`.
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
        if max(abs(row - start[0]), abs(col - start[1])) <= _CAPTURE:  # NaN is not
            return (row, col), float(value)
    return None


def _halved(image: Image) -> Image:
    return np.asarray(cv2.resize(image, None, None, 0.5, 0.5, cv2.INTER_AREA), np.float32)


def _masked_correlation(a: Image, b: Image, known: Image, reach: int) -> NDArray[np.floating]:
    """Pearson's r of the overlap for shifts -reach..reach along both axes: (n, h, w) -> (n, 2 reach + 1, the same)."""
    height, width = (fft.next_fast_len(n + reach, real=True) for n in a.shape[1:])
    spectra = fft.rfft2(np.stack([known, a, a * a, b, b * b]), (height, width))
    rows, cols = _inverse(height, width, reach)

    def lagged(i: int, j: int) -> NDArray[np.floating]:
        some = (rows @ (np.conj(spectra[i]) * spectra[j])) @ cols  # of the inverse only the lags that are asked for
        return np.asarray(some.real, dtype=np.float64)

    count = np.maximum(lagged(0, 0), 1.0)
    sum_a, sum_b = lagged(1, 0), lagged(0, 3)
    spread_a = np.maximum(lagged(2, 0) - sum_a**2 / count, 0.0)
    spread_b = np.maximum(lagged(0, 4) - sum_b**2 / count, 0.0)
    spread = np.sqrt(spread_a * spread_b)
    most, widest = (x.max(axis=(1, 2), keepdims=True) for x in (count, spread))
    enough = (count > _LEAST_OVERLAP * most) & (spread > 1e-6 * np.maximum(widest, 1e-12))
    return np.where(enough, (lagged(1, 3) - sum_a * sum_b / count) / np.where(enough, spread, 1.0), -1.0)


@lru_cache(maxsize=8)
def _inverse(height: int, width: int, reach: int) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Matrices that take a real image's half spectrum to lags -reach..reach, from the left and from the right."""
    at = np.arange(-reach, reach + 1)
    rows = np.exp(2j * np.pi * np.outer(at, fft.fftfreq(height))) / height
    both = np.where(np.isin(np.arange(width // 2 + 1), (0, width / 2)), 1, 2)  # what the half left out has, too
    cols = np.exp(2j * np.pi * np.outer(fft.rfftfreq(width), at)) * both[:, None] / width
    return rows.astype(np.complex64), cols.astype(np.complex64)
