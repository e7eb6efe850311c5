"""Kernels of a degradation, sampled on the output grid: what blurs, what resizes, both as one.

A kernel of length `scale + 2 reach` holds the weights over output px `-reach .. scale - 1 + reach` of the scene px that
covers output px `0 .. scale - 1`. Every kernel here is its own point reflection, so its centroid is the centre of that
scene pixel: none moves an image.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.resize import keys

Resize = Literal["area", "bilinear", "bicubic", "nearest"]
RESIZES: tuple[Resize, ...] = get_args(Resize)
"""What makes scene pixels of output pixels; "bilinear" and "bicubic" are stretched by the scale (antialiased)."""

TRUNCATE = 4.0
"""Standard deviations to which a Gaussian reaches."""

Taps = NDArray[np.float64]

Factors = tuple[Taps, Taps]
"""rows and cols, each (rank, scale + 2 reach): a kernel as a sum of separable ones, see `oriented`."""

_SEGMENT_STEPS = 8
_RANK_TOLERANCE = 1e-4


def gaussian_taps(sigma: float) -> Taps:
    """Gaussian of standard deviation `sigma` output pixels at whole pixels, (2 r + 1,), peak 1; [1] for 0."""
    reach = math.ceil(TRUNCATE * sigma)
    if reach == 0:
        return np.ones(1)
    return np.array([math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)])


def resize_taps(kind: Resize, scale: int) -> Taps:
    """Weights over output pixels of one scene pixel along one axis, (scale + 2 q,), not normalised.

    "area" is the mean over the scene px, "bilinear" the triangle and "bicubic" Keys' kernel (a = -1/2, as in MATLAB and
    Pillow), both stretched by the scale; "nearest" takes the pixel at the scene px's centre, of an even scale the mean
    of the two beside it, since either alone would be half a pixel off.

    Raises:
        OptionError: another kind, or a scale that is not a whole number of 1 or more.
    """
    if int(scale) != scale or scale < 1:
        raise OptionError(f"the scale must be a whole number of 1 or more, got {scale}")
    beyond = {"area": 0, "nearest": 0, "bilinear": scale // 2, "bicubic": 3 * scale // 2}.get(kind)
    if beyond is None:
        raise OptionError(f"unknown resize kernel {kind!r}; choose from {', '.join(RESIZES)}")
    at = (np.arange(scale + 2 * beyond) - (scale + 2 * beyond - 1) / 2) / scale
    if kind == "bilinear":
        weights = np.maximum(0.0, 1.0 - np.abs(at))
    elif kind == "bicubic":
        weights = np.array([keys(v) for v in at])
    elif kind == "nearest":
        weights = (np.abs(at) < 0.75 / scale).astype(np.float64)
    else:
        weights = np.ones(scale)
    return weights


def convolved_taps(taps: Taps, blur: Taps) -> Taps:
    """The full convolution of two kernels, not normalised."""
    out = np.zeros(len(taps) + len(blur) - 1)
    for p, weight in enumerate(taps):
        out[p : p + len(blur)] += weight * blur
    return out


def separable(scale: int, sigma: float, resize: Resize) -> Taps:
    """An isotropic Gaussian blur and a reduction along one axis, (L,), sum 1.

    Args:
        scale: output pixels along a scene pixel.
        sigma: standard deviation in scene pixels; 0 = no blur.
        resize: of `RESIZES`.
    """
    taps = convolved_taps(resize_taps(resize, scale), gaussian_taps(sigma * scale))
    return np.asarray(taps / sum(taps.tolist()))


def oriented(scale: int, sigma: tuple[float, float], motion: float, angle: float, resize: Resize) -> tuple[Taps, Taps]:
    """A blur with a direction and a reduction, as a sum of few separable kernels.

    The kernel is `sum(rows[i][:, None] * cols[i][None] for i in range(rank))`: a Gaussian with principal axes, spread
    along a straight segment and resized; its singular value decomposition is cut at 1e-4 of the largest value.

    Args:
        scale: output pixels along a scene pixel.
        sigma: standard deviations in scene pixels along `angle` and across it.
        motion: length of the segment in scene pixels.
        angle: radians from the direction of rows (to the right) towards that of columns (downwards).
        resize: of `RESIZES`.

    Returns:
        rows and cols, each (rank, L), L = scale + 2 reach; the kernel sums to 1.
    """
    blur = _gaussian(sigma[0] * scale, sigma[1] * scale, angle)
    if motion > 0:
        blur = _full(blur, _segment(motion * scale, angle))
    taps = resize_taps(resize, scale)
    spread = _convolution_matrix(taps, len(blur))
    kernel = spread @ blur @ spread.T
    u, s, vt = np.linalg.svd(kernel)
    rank = max(1, int((s > _RANK_TOLERANCE * s[0]).sum()))
    rows, cols = (u[:, :rank] * s[:rank]).T, vt[:rank]
    total = float((rows.sum(axis=1) * cols.sum(axis=1)).sum())
    return rows / total, cols


def _gaussian(along: float, across: float, angle: float) -> Taps:
    """(2 r + 1, 2 r + 1), peak 1, standard deviations in output pixels; sampled as narrow as half a pixel at least."""
    along, across = max(along, _NARROWEST), max(across, _NARROWEST)
    reach = math.ceil(TRUNCATE * max(along, across))
    at = np.arange(-reach, reach + 1.0)
    u = at[None] * math.cos(angle) + at[:, None] * math.sin(angle)
    v = at[:, None] * math.cos(angle) - at[None] * math.sin(angle)
    return np.asarray(np.exp(-0.5 * ((u / along) ** 2 + (v / across) ** 2)))


_NARROWEST = 0.3
"""output pixels: a Gaussian this narrow is one pixel; narrower ones would fall between the pixels when turned."""


def _segment(length: float, angle: float) -> Taps:
    """A straight segment through the centre, `length` output pixels, shared out bilinearly to whole pixels; sum 1."""
    reach = math.ceil(length / 2) + 1
    steps = max(1, math.ceil(_SEGMENT_STEPS * length))
    at = ((np.arange(steps) + 0.5) / steps - 0.5) * length
    row, col = at * math.sin(angle) + reach, at * math.cos(angle) + reach
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    top, left = np.floor(row).astype(int), np.floor(col).astype(int)
    down, right = row - top, col - left
    for drow, wrow in ((0, 1 - down), (1, down)):
        for dcol, wcol in ((0, 1 - right), (1, right)):
            np.add.at(out, (top + drow, left + dcol), wrow * wcol / steps)
    return np.asarray((out + out[::-1, ::-1]) / 2)  # what rounding left between the two ends


def _full(kernel: Taps, other: Taps) -> Taps:
    """The full convolution of two square kernels."""
    size = len(kernel) + len(other) - 1
    product = np.fft.rfft2(kernel, (size, size)) * np.fft.rfft2(other, (size, size))
    return np.asarray(np.fft.irfft2(product, (size, size)))


def _convolution_matrix(taps: Taps, size: int) -> Taps:
    """(size + len(taps) - 1, size): the full convolution of `size` values with `taps`."""
    offset = np.arange(size + len(taps) - 1)[:, None] - np.arange(size)[None]
    inside = (offset >= 0) & (offset < len(taps))
    return np.where(inside, taps[np.clip(offset, 0, len(taps) - 1)], 0.0)
