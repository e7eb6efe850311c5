"""What two images of one place have in common across gains, seasons and spectral bands: where their edges are.

Two descriptions are made of the gradient, neither of which knows the sign of a contrast. The *orientation* is the
gradient as a complex number with its angle doubled (G. H. Granlund, "In search of a general picture processing
operator", 1978): it tells which way an edge runs. The *edge strength* is the logarithm of the gradient's magnitude.
Both are sums over bands, so that red can be compared with near infrared.

Both images are always described over the same pixels: what the rim of a hole does to one of them, it does to both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_SMOOTH = 0.5
"""Standard deviation of the smoothing within the gradient, LR pixels: more costs accuracy."""

FILL = 1.0
"""Standard deviation of the neighbourhood from which holes are filled, LR pixels."""

_STRONGEST = 4.0
"""Orientation is cut at so many times its mean, or single shores and roofs would decide alone."""

LOCAL = 4.0
"""Standard deviation of the neighbourhood whose mean edge strength is taken off, and of that in which two images
are said to agree, LR pixels."""

_TAPER = 3.0
"""LR pixels over which an image fades to nothing towards missing pixels and borders."""

_AGREEMENT = (0.1, 0.4)
"""Pixels whose neighbourhood agrees less do not count at all, those that agree more count in full."""

_LEAST_KNOWN = 0.5
"""Part of the 3 x 3 pixels around one that must be known: stray missing pixels are bridged, holes are not."""

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Complex = NDArray[np.complex64]


class Gradient(NamedTuple):
    """Of one band, each (h, w): along columns, along rows, length; and the mean length over the pixels used."""

    x: Image
    y: Image
    length: Image
    mean: float


def usable(known: Mask) -> Mask:
    """Pixels whose gradient can be told: most of their 3 x 3 neighbourhood is known; none at the border."""
    share = cv2.boxFilter(known.astype(np.float32), cv2.CV_32F, (3, 3), None, (-1, -1), True, cv2.BORDER_CONSTANT)
    enough = np.asarray(share > _LEAST_KNOWN)
    enough[[0, -1]] = enough[:, [0, -1]] = False
    return enough


def shares(known: Mask, sigma: float) -> Image | None:
    """Part of each pixel's neighbourhood that is known, (h, w), by which sums over it are divided; None if all are."""
    return None if known.all() else np.maximum(_blur(known.astype(np.float32), sigma), np.float32(1e-3))


def gradients(image: Image, known: Mask, used: Mask, spread: Image | None = None) -> list[Gradient]:
    """Derivatives of a Gaussian, a band each; bands without any contrast are left out.

    Args:
        image: (C, h, w) float32, any units.
        known: (h, w), True = the pixel's value counts; others are filled from their neighbours.
        used: (h, w), over which the mean is taken.
        spread: `shares(known, FILL)`, if it is there already.
    """
    along, across = _kernels()
    counted = None if known.all() else known.astype(np.float32)
    if counted is not None and spread is None:
        spread = shares(known, FILL)
    chosen = used.view(np.uint8)
    found = []
    for band in image:
        if counted is not None and spread is not None:
            band = np.where(known, band, cv2.divide(_blur(band * counted, FILL), spread))
        x = cv2.sepFilter2D(band, cv2.CV_32F, along, across)
        y = cv2.sepFilter2D(band, cv2.CV_32F, across, along)
        length = np.asarray(cv2.magnitude(x, y), np.float32)
        mean = float(cv2.mean(length, chosen)[0])
        if mean > 1e-6 * max(float(np.abs(cv2.minMaxLoc(band)[:2]).max()), 1e-12):
            found.append(Gradient(np.asarray(x, np.float32), np.asarray(y, np.float32), length, mean))
    return found


def orientation(bands: Sequence[Gradient], used: Mask) -> Complex:
    """(h, w) complex64, zero where not used; its mean magnitude is about 1."""
    real, imag = np.zeros(used.shape, np.float32), np.zeros(used.shape, np.float32)
    for x, y, length, mean in bands:
        per = cv2.divide(1 / mean, length + np.float32(1e-6 * mean))
        real += cv2.multiply(x - y, cv2.multiply(x + y, per))
        imag += cv2.multiply(x, cv2.multiply(y, per), None, 2.0)
    size = cv2.magnitude(real, imag)
    mean = max(float(cv2.mean(size, used.view(np.uint8))[0]), 1e-12)
    most = cv2.divide(_STRONGEST, size + np.float32(1e-6 * mean))
    factor = np.minimum(most, np.float32(1 / mean)) * used.astype(np.float32)
    parts = cv2.merge([cv2.multiply(real, factor), cv2.multiply(imag, factor)])
    return np.asarray(np.asarray(parts, np.float32).view(np.complex64)[..., 0])


def edges(bands: Sequence[Gradient], used: Mask, spread: Image | None = None) -> Image:
    """(h, w) float32, without its local mean; zero where not used; `spread`: `shares(used, LOCAL)`, if it is there."""
    total = np.zeros(used.shape, np.float32)
    for _, _, length, mean in bands:
        total += cv2.log(length * np.float32(1 / mean) + np.float32(1))
    counted = used.astype(np.float32)
    spread = shares(used, LOCAL) if spread is None else spread
    local = _blur(total * counted, LOCAL)
    return np.asarray((total - (local if spread is None else cv2.divide(local, spread))) * counted)


def taper(used: Mask) -> Image:
    """Weights (h, w) that rise from 0 at missing pixels and borders to 1 within three LR pixels."""
    framed = cv2.copyMakeBorder(used.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, None, (0.0,))
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.asarray(0.5 - 0.5 * np.cos(np.minimum(distance, _TAPER) * np.float32(np.pi / _TAPER)))


def agreement(first: Complex, second: Complex, power: Image | None = None) -> Image:
    """Weights (h, w), 0..1, by how far two orientations agree around each pixel: low where the land has changed.

    Args:
        first, second: (h, w) complex64.
        power: `local_power(first)`, if it is there already.
    """
    common = _blur(first.real * second.real + first.imag * second.imag, LOCAL)
    size = (local_power(first) if power is None else power) * local_power(second)
    low, high = _AGREEMENT
    return np.asarray(np.clip((common / np.sqrt(size + np.float32(1e-6)) - low) / (high - low), 0, 1), np.float32)


def local_power(orientations: Complex) -> Image:
    """Mean squared magnitude around each pixel, (h, w)."""
    return _blur(orientations.real**2 + orientations.imag**2, LOCAL)


def structure(image: Image, known: Mask) -> float:
    """How far an image is more than noise, -1..1: the correlation of pixels two apart, without the local mean, in the
    band where it is highest; about 0 for white noise.

    Args:
        image: (C, h, w).
        known: (h, w), True = the pixel's value counts.
    """
    counted = known.astype(np.float32)
    spread = np.maximum(_blur(counted, LOCAL), np.float32(1e-3))
    highest = -1.0
    for band in image:
        fine = (band - _blur(band * counted, LOCAL) / spread) * counted
        products = [
            (fine[2:] * fine[:-2], counted[2:] * counted[:-2]),
            (fine[:, 2:] * fine[:, :-2], counted[:, 2:] * counted[:, :-2]),
        ]
        variance = float((fine**2).sum()) / max(float(counted.sum()), 1.0)
        common = [float(p.sum()) / max(float(n.sum()), 1.0) for p, n in products]
        highest = max(highest, sum(common) / 2 / max(variance, 1e-30))
    return highest


def likeness(first: Image, second: Image, known: Mask) -> float:
    """How far the contrasts of two images run alike, -1..1: their correlation without the local mean, in the band where
    it is highest.

    Args:
        first, second: (C, h, w), bands pair by pair, any units.
        known: (h, w), True = both values count.
    """
    counted = known.astype(np.float32)
    spread = np.maximum(_blur(counted, LOCAL), np.float32(1e-3))
    highest = -1.0
    for bands in zip(first, second, strict=True):
        a, b = ((x - _blur(x * counted, LOCAL) / spread) * counted for x in bands)
        power = float((a**2).sum()) * float((b**2).sum())
        highest = max(highest, float((a * b).sum()) / max(power, 1e-30) ** 0.5)
    return highest


def _kernels() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Derivative and value of the Gaussian, 7 taps."""
    at = np.arange(-3.0, 4.0)
    smooth = np.exp(-0.5 * (at / _SMOOTH) ** 2)
    smooth = np.convolve(smooth, [1.0, 2.0, 1.0], "same")
    slope = np.convolve(np.exp(-0.5 * (at / _SMOOTH) ** 2), [1.0, 0.0, -1.0], "same")
    return (slope / np.abs(slope).sum()).astype(np.float32), (smooth / smooth.sum()).astype(np.float32)


def _blur(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, None, sigma, cv2.BORDER_REFLECT_101))
