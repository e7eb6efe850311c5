"""Shifts measured in many places of one view."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.align import ecc
from geo_refdiff.align.estimate import LEAST_CORRELATION, Pair, Shift, standard_error, tolerance, weighted_peak
from geo_refdiff.align.features import Image, agreement, taper, usable

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
    weight = taper(pair.used)
    agreed = agreement(*pair.orientations)
    solid = usable(pair.used)
    placement = pair.placement
    found = []
    for row in _starts(pair.view.shape[0]):
        for col in _starts(pair.view.shape[1]):
            at = slice(row, row + SIDE), slice(col, col + SIDE)
            window = _window(*weight[at].shape) * weight[at]
            if (window > 0).mean() < _LEAST_PART:
                continue
            mass = window * agreed[at]
            centre = _centroid(mass if mass.any() else window)
            there = row + int(centre[0]), col + int(centre[1])
            base = (
                (float(placement[0]), float(placement[1]))
                if isinstance(placement, tuple)
                else (float(placement[0][there]), float(placement[1][there]))
            )
            found.append(_measured(pair, at, window, agreed[at], solid[at], radius, base, centre))
    return found


def _measured(
    pair: Pair,
    at: tuple[slice, slice],
    window: Image,
    agreed: Image,
    solid: NDArray[np.bool_],
    radius: int | None,
    base: Shift,
    centre: Shift,
) -> Site:
    scene, reference = (o[at] for o in pair.orientations)
    peak = weighted_peak(scene, reference, window, radius)
    residual = peak.shift
    if radius is None:
        residual = weighted_peak(scene, reference, window * agreed, None).shift
    first, second = (e[at] for e in pair.edges)
    start = (0.0, 0.0) if radius is None else ecc.search(first, second, solid, radius)
    other = ecc.refine(first, second, solid, start)
    apart = hypot(residual[0] - other[0][0], residual[1] - other[0][1]) if other else float("inf")
    pixels = int((window > 0).sum())
    correlation = other[1] if other else 0.0
    return Site(
        row=pair.view.origin[0] + at[0].start + centre[0],
        col=pair.view.origin[1] + at[1].start + centre[1],
        shift=(base[0] + residual[0], base[1] + residual[1]),
        residual=residual,
        sigma=_HARDER * standard_error(peak.score),
        score=peak.score,
        correlation=correlation,
        disagreement=apart,
        accepted=peak.score >= _LEAST_SCORE and correlation >= LEAST_CORRELATION and apart <= tolerance(pixels),
    )


def _starts(length: int) -> list[int]:
    """Corners of windows along an axis, evenly from end to end."""
    room = max(length - SIDE, 0)
    count = min(_MOST, room // _DISTANCE + 1)
    return [round(k * room / max(count - 1, 1)) for k in range(count)] if count > 1 else [room // 2]


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
