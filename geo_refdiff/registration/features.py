"""Descriptions of two images of one place that survive gains, seasons and spectral bands: where their edges are.

Both descriptions are made of the gradient and ignore the sign of a contrast. The *orientation* is the gradient as a
complex number with its angle doubled (G. H. Granlund, "In search of a general picture processing operator", 1978). The
*edge strength* is the logarithm of the magnitude of the gradient. Both are sums over bands, so that red can be compared
with near infrared. A `Pair` describes scene and reference over the same pixels, so that the rim of a hole affects both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from geo_refdiff.registration.view import Placement, View

_SMOOTH = 0.5
"""Standard deviation of the smoothing within the gradient, scene pixels; more smoothing costs accuracy."""

FILL = 1.0
"""Standard deviation of the neighbourhood from which holes are filled, scene pixels."""

_CLIP = 4.0
"""Orientation is limited to this multiple of its mean, so that single shores and roofs do not dominate."""

LOCAL = 4.0
"""Standard deviation, scene px, of the neighbourhood whose mean edge strength is subtracted, and of the one over which
agreement is averaged."""

_TAPER = 3.0
"""scene pixels over which weights fade to zero towards missing pixels and borders."""

_AGREEMENT = (0.1, 0.4)
"""Agreement at which the weight of a pixel begins to rise from 0, and at which it reaches 1."""

_MIN_VALID = 0.5
"""Part of the 3 x 3 neighbourhood that must be valid: stray missing pixels are bridged, holes are not."""

_MIN_STRUCTURE = 0.1

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Complex = NDArray[np.complex64]
Shift = tuple[float, float]
"""(rows, columns), scene pixels."""


class Gradient(NamedTuple):
    """Gradient of one band: x, y and length (h, w), and the mean length over the used pixels."""

    x: Image
    y: Image
    length: Image
    mean: float


def usable(valid: Mask) -> Mask:
    """Pixels with a defined gradient: most of their 3 x 3 neighbourhood is valid; never at the border."""
    share = cv2.boxFilter(valid.astype(np.float32), cv2.CV_32F, (3, 3), None, (-1, -1), True, cv2.BORDER_CONSTANT)
    enough = np.asarray(share > _MIN_VALID)
    enough[[0, -1]] = enough[:, [0, -1]] = False
    return enough


def shares(valid: Mask, sigma: float) -> Image | None:
    """Valid part of each pixel's Gaussian neighbourhood, (h, w), to normalise sums over it; None if all is valid."""
    return None if valid.all() else np.maximum(_blur(valid.astype(np.float32), sigma), np.float32(1e-3))


def gradients(image: Image, valid: Mask, used: Mask, spread: Image | None = None) -> list[Gradient]:
    """Gaussian derivatives of each band; bands without contrast are left out.

    Args:
        image: (C, h, w) float32, any units.
        valid: (h, w), True = valid; other pixels are filled from their neighbours.
        used: (h, w), pixels over which the mean is taken.
        spread: `shares(valid, FILL)`, if computed already.
    """
    along, across = _kernels()
    counted = None if valid.all() else valid.astype(np.float32)
    if counted is not None and spread is None:
        spread = shares(valid, FILL)
    chosen = used.view(np.uint8)
    described = []
    for band in image:
        if counted is not None and spread is not None:
            band = np.where(valid, band, cv2.divide(_blur(band * counted, FILL), spread))
        x = cv2.sepFilter2D(band, cv2.CV_32F, along, across)
        y = cv2.sepFilter2D(band, cv2.CV_32F, across, along)
        length = np.asarray(cv2.magnitude(x, y), np.float32)
        mean = float(cv2.mean(length, chosen)[0])
        if mean > 1e-6 * max(float(np.abs(cv2.minMaxLoc(band)[:2]).max()), 1e-12):
            described.append(Gradient(np.asarray(x, np.float32), np.asarray(y, np.float32), length, mean))
    return described


def orientation(bands: Sequence[Gradient], used: Mask) -> Complex:
    """Orientation, (h, w) complex64 of mean magnitude about 1, zero where not used."""
    real, imag = np.zeros(used.shape, np.float32), np.zeros(used.shape, np.float32)
    for x, y, length, mean in bands:
        per = cv2.divide(1 / mean, length + np.float32(1e-6 * mean))
        real += cv2.multiply(x - y, cv2.multiply(x + y, per))
        imag += cv2.multiply(x, cv2.multiply(y, per), None, 2.0)
    size = cv2.magnitude(real, imag)
    mean = max(float(cv2.mean(size, used.view(np.uint8))[0]), 1e-12)
    most = cv2.divide(_CLIP, size + np.float32(1e-6 * mean))
    factor = np.minimum(most, np.float32(1 / mean)) * used.astype(np.float32)
    parts = cv2.merge([cv2.multiply(real, factor), cv2.multiply(imag, factor)])
    return np.asarray(np.asarray(parts, np.float32).view(np.complex64)[..., 0])


def edges(bands: Sequence[Gradient], used: Mask, spread: Image | None = None) -> Image:
    """Edge strength less its local mean, (h, w) float32, zero where not used; `spread`: `shares(used, LOCAL)`."""
    total = np.zeros(used.shape, np.float32)
    for _, _, length, mean in bands:
        total += cv2.log(length * np.float32(1 / mean) + np.float32(1))
    counted = used.astype(np.float32)
    spread = shares(used, LOCAL) if spread is None else spread
    local = _blur(total * counted, LOCAL)
    return np.asarray((total - (local if spread is None else cv2.divide(local, spread))) * counted)


def taper(used: Mask) -> Image:
    """Weights (h, w) that rise from 0 at missing pixels and borders to 1 within three scene pixels."""
    framed = cv2.copyMakeBorder(used.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, None, (0.0,))
    distance = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.asarray(0.5 - 0.5 * np.cos(np.minimum(distance, _TAPER) * np.float32(np.pi / _TAPER)))


def agreement(first: Complex, second: Complex, power: Image | None = None) -> Image:
    """Weights (h, w), 0..1, by the local agreement of two orientation images: low where the land has changed.

    Args:
        first, second: (h, w) complex64.
        power: `local_power(first)`, if computed already.
    """
    common = _blur(first.real * second.real + first.imag * second.imag, LOCAL)
    size = (local_power(first) if power is None else power) * local_power(second)
    low, high = _AGREEMENT
    return np.asarray(np.clip((common / np.sqrt(size + np.float32(1e-6)) - low) / (high - low), 0, 1), np.float32)


def local_power(orientations: Complex) -> Image:
    """Mean squared magnitude around each pixel, (h, w)."""
    return _blur(orientations.real**2 + orientations.imag**2, LOCAL)


def structure(image: Image, valid: Mask) -> float:
    """Autocorrelation at a distance of two pixels after subtraction of the local mean, -1..1, of the highest band;
    about 0 for white noise.

    Args:
        image: (C, h, w).
        valid: (h, w), True = valid.
    """
    counted = valid.astype(np.float32)
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


def likeness(first: Image, second: Image, valid: Mask) -> float:
    """Correlation of two images after subtraction of the local mean, -1..1, highest of all bands.

    Args:
        first, second: (C, h, w), bands pair by pair, any units.
        valid: (h, w), True = both are valid.
    """
    counted = valid.astype(np.float32)
    spread = np.maximum(_blur(counted, LOCAL), np.float32(1e-3))
    highest = -1.0
    for bands in zip(first, second, strict=True):
        a, b = ((x - _blur(x * counted, LOCAL) / spread) * counted for x in bands)
        power = float((a**2).sum()) * float((b**2).sum())
        highest = max(highest, float((a * b).sum()) / max(power, 1e-30) ** 0.5)
    return highest


def _kernels() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Taps of the Gaussian derivative and of the smoothing across it, 7 each."""
    at = np.arange(-3.0, 4.0)
    smooth = np.exp(-0.5 * (at / _SMOOTH) ** 2)
    smooth = np.convolve(smooth, [1.0, 2.0, 1.0], "same")
    slope = np.convolve(np.exp(-0.5 * (at / _SMOOTH) ** 2), [1.0, 0.0, -1.0], "same")
    return (slope / np.abs(slope).sum()).astype(np.float32), (smooth / smooth.sum()).astype(np.float32)


def _blur(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, None, sigma, cv2.BORDER_REFLECT_101))


class Frame:
    """The scene's side of a pair, which placements share as long as the same pixels are valid.

    Attributes:
        image: (C, h, w), the scene.
        both: (h, w), pixels that are valid in both images.
        used: (h, w), pixels that are compared.
        pixels: number of pixels that are valid in both images.
        gradients: of each band of the scene.
    """

    def __init__(self, image: Image, both: Mask) -> None:
        self.image, self.both = image, both
        self.used = usable(both)
        self.pixels = int(both.sum())
        self._spread = shares(both, FILL)
        self.gradients = self.described(image)

    def described(self, image: Image) -> list[Gradient]:
        """Gradients of either image (C, h, w) over the frame's pixels."""
        return gradients(image, self.both, self.used, self._spread)

    def edges_of(self, bands: list[Gradient]) -> Image:
        """Edge strengths of either image."""
        return edges(bands, self.used, self._local)

    @cached_property
    def _local(self) -> Image | None:
        return shares(self.used, LOCAL)

    @cached_property
    def orientation(self) -> Complex:
        """Of the scene."""
        return orientation(self.gradients, self.used)

    @cached_property
    def edges(self) -> Image:
        """Of the scene."""
        return self.edges_of(self.gradients)

    @cached_property
    def power(self) -> Image:
        """Local power of the scene's orientation."""
        return local_power(self.orientation)

    @cached_property
    def taper(self) -> Image:
        """Weights of the pixels, (h, w)."""
        return taper(self.used)

    @cached_property
    def solid(self) -> Mask:
        """Used pixels whose neighbourhood is used too."""
        return usable(self.used)


class Pair:
    """Scene and reference at one placement.

    Attributes:
        view, placement: as given.
        frame: the scene's side.
        reference: gradients of each band of the reference.
    """

    def __init__(self, view: View, placement: Placement, like: Pair | None = None) -> None:
        """Resample the reference at its placement; `like`: a pair of the same view, to reuse its frame."""
        self.view, self.placement = view, placement
        self._image, reference_valid = view.render(placement)
        both = view.valid & reference_valid
        same = like is not None and like.view is view and np.array_equal(like.frame.both, both)
        self.frame: Frame = like.frame if like is not None and same else Frame(view.scene, both)
        self.reference = self.frame.described(self._image)

    @property
    def pixels(self) -> int:
        """Number of pixels that are valid in both images."""
        return self.frame.pixels

    @property
    def featureless(self) -> bool:
        """Whether either image is without contrast."""
        return not (self.frame.gradients and self.reference)

    @cached_property
    def orientations(self) -> tuple[Complex, Complex]:
        """Of scene and reference."""
        return self.frame.orientation, orientation(self.reference, self.frame.used)

    @cached_property
    def edges(self) -> tuple[Image, Image]:
        """Of scene and reference."""
        return self.frame.edges, self.frame.edges_of(self.reference)

    @cached_property
    def agreement(self) -> Image:
        """Weights (h, w) by the local agreement of the orientations."""
        return agreement(*self.orientations, self.frame.power)

    @property
    def likeness(self) -> float:
        """Correlation of the contrasts of both images, -1..1."""
        return likeness(self.frame.image, self._image, self.frame.both)

    @property
    def structured(self) -> bool:
        """Whether both images show more than noise."""
        return all(structure(x, self.frame.both) > _MIN_STRUCTURE for x in (self.frame.image, self._image))

    @property
    def shift(self) -> Shift:
        """The placement of a pair that is placed by one shift."""
        row, col = self.placement
        return float(row), float(col)

    def moved(self, step: Shift) -> Pair:
        """The pair with the reference shifted by a further step."""
        return self.placed((self.shift[0] + step[0], self.shift[1] + step[1]))

    def placed(self, placement: Placement) -> Pair:
        """The pair with the reference at another placement."""
        return Pair(self.view, placement, self)
