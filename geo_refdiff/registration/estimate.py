"""The shift between a scene and a reference, accepted only where two independent estimators agree; of a whole view, and
at many sites of it.

The estimators are normalised phase correlation of edge orientations, and the enhanced correlation coefficient of edge
strengths. Each starts from nothing. After every step the reference is resampled by the sensor where it was found to
lie, so that at the end both images are sampled alike and the errors of sampling and windowing cancel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.raster.sampling import spread_starts
from geo_refdiff.registration.correlation import (
    Peak,
    refine_shift,
    search_shift,
    search_shifts,
    weighted_peak,
    weighted_peaks,
)
from geo_refdiff.registration.features import Image, Pair, Shift
from geo_refdiff.registration.view import Placement, View

Verdict = Literal["registered", "too small", "featureless", "mismatch"]

RADIUS = 16
"""Default search radius along each axis, scene pixels."""

MIN_SCORE = 12.0
"""Score from which on a shift is used; below it, shadows and seasons alone may shift by half a scene pixel."""

MIN_SCORE_UNLIKE = 20.0
"""The same for images whose contrasts differ, as red and near infrared: their shadows and trees have edges in different
places, so that both estimators err alike."""

MIN_SCORE_FEW = 13.0
"""The same for fewer than `_FEW` common pixels; two of the eight city tiles of 32 x 32 pixels that score between 12 and
13 were more than half a scene pixel off."""

_ALIKE = 0.6
"""Correlation of contrasts from which on two images are alike: some 0.8 in the same bands of two years of a city, up to
0.7 with red against near infrared."""

_MIN_AGREEING_SCORE = 8.0
MIN_CORRELATION = 0.05

MISMATCH_PIXELS = 8000
"""Common scene px from which on a failure means that the images do not match: of pairs of years, one in a hundred of
64 x 64 pixels fails, none of 128 x 128."""

_FEW = 2048
_MIN_PIXELS = 600
_MIN_SIDE = 24
_ROUNDS = 3
_ECC_CONVERGED = 0.1
_PHASE_CONVERGED = 0.02


SIDE = 64
"""Side of the window in which a site's shift is measured, scene pixels."""

MIN_SCENE = 96
"""Side from which on a scene is measured in several windows, scene pixels."""

_DISTANCE = 32
_MAX_SITES = 12
_MIN_PART = 0.3
_WINDOW_ERROR = 1.6
"""Error of a window across years relative to what its score says: it may see little but what has changed."""

_MIN_SITE_SCORE = 7.0
"""Lower than for a whole scene, because a window searches a few pixels only."""

Corner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ShiftEstimate:
    """What both estimators find.

    Attributes:
        verdict: "registered", or why not: "too small" (too few common pixels to tell), "featureless" (no edges to go
            by, or noise alone), "mismatch" (enough of both, but they do not show the same place, or the estimators
            disagree).
        candidate: (rows, columns), scene pixels: scene pixel p is at p + candidate in the reference. By phase
            correlation, the more accurate estimator; a guess unless registered.
        sigma: standard error of the candidate (length of the vector), scene pixels; infinite unless registered.
        score: of phase correlation, standard deviations above chance.
        correlation: of edge strengths, -1..1.
        disagreement: distance between the two estimates, scene pixels.
        pixels: number of scene pixels that are valid in both images.
    """

    verdict: Verdict
    candidate: Shift
    sigma: float
    score: float
    correlation: float
    disagreement: float
    pixels: int

    @property
    def registered(self) -> bool:
        """Whether the candidate may be used."""
        return self.verdict == "registered"

    @property
    def reason(self) -> str:
        """The verdict in words, with its figures."""
        common = f"{self.pixels} scene pixels valid in both images"
        texts = {
            "registered": f"two independent estimators agree to {self.disagreement:.2f} scene pixels",
            "too small": f"the {common} are too few for a certain shift (phase correlation {self.score:.1f} "
            f"standard deviations above chance)"
            if self.score
            else f"{common} are too few",
            "featureless": "there are no edges to compare",
            "mismatch": f"the images do not match (phase correlation {self.score:.1f} standard deviations above "
            f"chance, edge correlation {self.correlation:.2f}, estimates {self.disagreement:.1f} scene pixels apart)",
        }
        return texts[self.verdict]


def estimate_shift(view: View, radius: int = RADIUS) -> ShiftEstimate:
    """Estimate the shift of the reference against the scene.

    Args:
        view: scene and reference; the reference should reach `radius` scene pixels beyond the scene.
        radius: search radius along each axis, scene pixels; at most a quarter of the scene.
    """
    return estimate_pair(Pair(view, (0.0, 0.0)), radius)


def estimate_pair(first: Pair, radius: int = RADIUS) -> ShiftEstimate:
    """The same from a pair whose reference is placed by its georeference."""
    view = first.view
    radius = max(1, min(radius, view.pad, min(view.shape) // 4))
    if first.pixels < _MIN_PIXELS or min(view.shape) < _MIN_SIDE:
        return _refused("too small", first.pixels)
    if first.featureless:
        return _refused("featureless", first.pixels)
    shift, score, last = _by_phase(first, radius)
    other, correlation = _by_correlation(first, radius)
    apart = hypot(shift[0] - other[0], shift[1] - other[1])
    few = last.pixels < MISMATCH_PIXELS
    agreed = apart <= tolerance(last.pixels) and score >= _MIN_AGREEING_SCORE and correlation >= MIN_CORRELATION
    if not agreed or not _sure(last, score) or max(map(abs, shift)) > radius:
        verdict: Verdict = "featureless" if not last.structured else "too small" if few or agreed else "mismatch"
        return ShiftEstimate(verdict, shift, float("inf"), score, correlation, apart, last.pixels)
    return ShiftEstimate("registered", shift, standard_error(score), score, correlation, apart, last.pixels)


def tolerance(pixels: int) -> float:
    """Allowed distance between the two estimates, scene pixels, by the number of common valid pixels."""
    return float(np.clip(30.0 / np.sqrt(max(pixels, 1)), 0.15, 0.3))


def standard_error(score: float) -> float:
    """Standard error of a shift by phase correlation (length of the vector, scene pixels) from its score."""
    return 2.5 / max(score, 1e-3)


def _sure(pair: Pair, score: float) -> bool:
    """Whether the score of phase correlation suffices; images of unlike contrast need a higher one."""
    least = MIN_SCORE_FEW if pair.pixels < _FEW else MIN_SCORE
    return score >= MIN_SCORE_UNLIKE or (score >= least and pair.likeness >= _ALIKE)


def _refused(verdict: Verdict, pixels: int) -> ShiftEstimate:
    return ShiftEstimate(verdict, (0.0, 0.0), float("inf"), 0.0, 0.0, float("inf"), pixels)


def _by_phase(pair: Pair, radius: int) -> tuple[Shift, float, Pair]:
    """Phase correlation: a search, which gives the score, then steps that leave out what has changed."""
    peak = weighted_peak(*pair.orientations, pair.frame.taper, radius)
    step = peak.shift
    for _ in range(_ROUNDS):
        pair = pair.moved(step)
        weight = pair.frame.taper * pair.agreement
        step = weighted_peak(*pair.orientations, weight, None).shift
        if max(map(abs, step)) < _PHASE_CONVERGED:
            break
    return (pair.shift[0] + step[0], pair.shift[1] + step[1]), peak.score, pair


def _by_correlation(pair: Pair, radius: int) -> tuple[Shift, float]:
    """Enhanced correlation coefficient; a correlation of 0 where it does not converge."""
    step = search_shift(*pair.edges, pair.frame.used, radius)
    for _ in range(_ROUNDS):
        pair = pair.moved(step)
        refined = refine_shift(*pair.edges, pair.frame.solid)
        if refined is None:
            return pair.shift, 0.0
        step, correlation = refined
        if max(map(abs, step)) < _ECC_CONVERGED:
            break
    return (pair.shift[0] + step[0], pair.shift[1] + step[1]), correlation


@dataclass(frozen=True, slots=True)
class Site:
    """A shift measured in one window.

    Attributes:
        row, col: centroid of the compared pixels, scene pixels from the scene's corner.
        shift: (rows, columns) of the reference, as georeferenced, against the scene, scene pixels.
        residual: the part of it that remains at the placement it was measured at, scene pixels.
        sigma: standard error, length of the vector, scene pixels.
        score, correlation, disagreement: as in `ShiftEstimate`.
        accepted: whether both estimators agree.
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
    """Measure the remaining shift in windows all over a view; windows with too few valid pixels are left out.

    Args:
        pair: scene and reference, placed to within `radius`.
        radius: search radius, scene pixels; None: below a pixel.
    """
    height, width = pair.view.shape
    shape = _window(min(height, SIDE), min(width, SIDE))
    cols = spread_starts(0, width, SIDE, _site_count(width))
    sites: list[Site] = []
    for row in spread_starts(0, height, SIDE, _site_count(height)):  # a row of windows at a time fits the cache
        corners = [(row, col) for col in cols]
        weights = [shape * _cut(pair.frame.taper, at) for at in corners]
        chosen = [k for k, weight in enumerate(weights) if (weight > 0).mean() >= _MIN_PART]
        if chosen:
            sites += _measured(pair, [corners[k] for k in chosen], np.stack([weights[k] for k in chosen]), radius)
    return sites


def _measured(pair: Pair, corners: Sequence[Corner], weights: Image, radius: int | None) -> list[Site]:
    """A site for each window."""
    scenes, references = (_cuts(o, corners) for o in pair.orientations)
    masses = weights * _cuts(pair.agreement, corners)
    peaks = weighted_peaks(scenes, references, weights, radius)
    residuals = [p.shift for p in (peaks if radius is not None else weighted_peaks(scenes, references, masses, None))]
    first, second = (_cuts(e, corners) for e in pair.edges)
    solid = _cuts(pair.frame.solid, corners)
    starts = [(0.0, 0.0)] * len(corners) if radius is None else search_shifts(first, second, solid, radius)
    others = [refine_shift(*window) for window in zip(first, second, solid, starts, strict=True)]
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
    agreed = correlation >= MIN_CORRELATION and apart <= tolerance(int((weight > 0).sum()))
    return Site(
        row=pair.view.origin[0] + corner[0] + centre[0],
        col=pair.view.origin[1] + corner[1] + centre[1],
        shift=(base[0] + residual[0], base[1] + residual[1]),
        residual=residual,
        sigma=_WINDOW_ERROR * standard_error(peak.score),
        score=peak.score,
        correlation=correlation,
        disagreement=apart,
        accepted=peak.score >= _MIN_SITE_SCORE and agreed,
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


def _site_count(length: int) -> int:
    """Windows along an axis."""
    return min(_MAX_SITES, max(length - SIDE, 0) // _DISTANCE + 1)


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
