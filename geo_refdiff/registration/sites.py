"""Shifts measured in many places of one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.registration import ecc
from geo_refdiff.registration.estimate import LEAST_CORRELATION, standard_error, tolerance
from geo_refdiff.registration.features import Image
from geo_refdiff.registration.pair import Pair, Shift
from geo_refdiff.registration.phase import Peak, weighted_peaks
from geo_refdiff.registration.view import Placement

SIDE = 64
"""Of the window in which a shift is measured, LR pixels."""

LEAST_SCENE = 96
"""Side from which on a scene has room for several windows, LR pixels."""

_DISTANCE = 32
_MOST = 12
_LEAST_PART = 0.3
_HARDER = 1.6
"""How much larger than its score says a window's error is across years: what has changed there is all it sees."""

_LEAST_SCORE = 7.0
"""Lower than for a whole scene: a window looks for shifts of a few pixels only."""

Corner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Site:
    """A shift measured in one place.

    Attributes:
        row, col: centre of what was compared, LR pixels from the scene's corner.
        shift: (rows, columns) of the reference against the scene as it came, LR pixels.
        residual: what is left of it at the placement it was measured at, LR pixels.
        sigma: standard error, length of the vector, LR pixels.
        score, correlation, disagreement: as in `Estimate`.
        accepted: whether both witnesses agree.
    """

    row: float
    col: float
    shift: Shift
    residual: Shift
    sigma: float
    score: float
    correlation: float
    disagreement: float
    accepted: bool


def measure_sites(pair: Pair, radius: int | None) -> list[Site]:
    """Measure what is left of the shift in windows all over a view; windows with too few known pixels are left out.

    Args:
        pair: scene and reference, placed to within `radius`.
        radius: LR pixels; None: within a pixel.
    """
    height, width = pair.view.shape
    shape = _window(min(height, SIDE), min(width, SIDE))
    found: list[Site] = []
    for row in _starts(height):  # a row of windows at a time: fast, and small enough for a processor's cache
        corners = [(row, col) for col in _starts(width)]
        weights = [shape * _cut(pair.frame.taper, at) for at in corners]
        chosen = [k for k, weight in enumerate(weights) if (weight > 0).mean() >= _LEAST_PART]
        if chosen:
            found += _measured(pair, [corners[k] for k in chosen], np.stack([weights[k] for k in chosen]), radius)
    return found


def _measured(pair: Pair, corners: Sequence[Corner], weights: Image, radius: int | None) -> list[Site]:
    """A site for each window."""
    scenes, references = (_cuts(o, corners) for o in pair.orientations)
    masses = weights * _cuts(pair.agreement, corners)
    peaks = weighted_peaks(scenes, references, weights, radius)
    residuals = [p.shift for p in (peaks if radius is not None else weighted_peaks(scenes, references, masses, None))]
    first, second = (_cuts(e, corners) for e in pair.edges)
    solid = _cuts(pair.frame.solid, corners)
    starts = [(0.0, 0.0)] * len(corners) if radius is None else ecc.search_windows(first, second, solid, radius)
    others = [ecc.refine(*window) for window in zip(first, second, solid, starts, strict=True)]
    return [_site(pair, *window) for window in zip(corners, weights, masses, peaks, residuals, others, strict=True)]


def _site(
    pair: Pair,
    corner: Corner,
    weight: Image,
    mass: Image,
    peak: Peak,
    residual: Shift,
    other: tuple[Shift, float] | None,
) -> Site:
    centre = _centroid(mass if mass.any() else weight)
    base = _base(pair.placement, corner[0] + int(centre[0]), corner[1] + int(centre[1]))
    apart = hypot(residual[0] - other[0][0], residual[1] - other[0][1]) if other else float("inf")
    correlation = other[1] if other else 0.0
    agreed = correlation >= LEAST_CORRELATION and apart <= tolerance(int((weight > 0).sum()))
    return Site(
        row=pair.view.origin[0] + corner[0] + centre[0],
        col=pair.view.origin[1] + corner[1] + centre[1],
        shift=(base[0] + residual[0], base[1] + residual[1]),
        residual=residual,
        sigma=_HARDER * standard_error(peak.score),
        score=peak.score,
        correlation=correlation,
        disagreement=apart,
        accepted=peak.score >= _LEAST_SCORE and agreed,
    )


def _base(placement: Placement, row: int, col: int) -> Shift:
    """The placement at a pixel."""
    if isinstance(placement, tuple):
        return float(placement[0]), float(placement[1])
    return float(placement[0][row, col]), float(placement[1][row, col])


def _cut(image: NDArray[Any], corner: Corner) -> NDArray[Any]:
    row, col = corner
    return image[row : row + SIDE, col : col + SIDE]


def _cuts(image: NDArray[Any], corners: Sequence[Corner]) -> NDArray[Any]:
    """Windows of an image (h, w), (n, SIDE, SIDE)."""
    return np.stack([_cut(image, corner) for corner in corners])


def _starts(length: int) -> list[int]:
    """Corners of windows along an axis, evenly from end to end."""
    room = max(length - SIDE, 0)
    count = min(_MOST, room // _DISTANCE + 1)
    return [round(k * room / max(count - 1, 1)) for k in range(count)] if count > 1 else [room // 2]


@lru_cache(maxsize=4)
def _window(height: int, width: int) -> Image:
    """Flat in the middle half, a cosine towards the borders."""
    sides = []
    for n in (height, width):
        away = np.abs((np.arange(n) + 0.5) / n - 0.5) * 2
        sides.append(0.5 + 0.5 * np.cos(np.pi * np.clip((away - 0.5) / 0.5, 0, 1)))
    return np.outer(*sides).astype(np.float32)


def _centroid(weight: Image) -> Shift:
    rows, cols = (np.arange(n) + 0.5 for n in weight.shape)
    total = float(weight.sum())
    return float(weight.sum(axis=1) @ rows) / total, float(weight.sum(axis=0) @ cols) / total
