"""One shift between a scene and a reference, believed only where two independent witnesses agree.

The first witness is normalised phase correlation of edge orientations, the second the enhanced correlation coefficient
of edge strengths. Each searches by itself from nothing; after every step the reference is seen by the sensor anew where
it was found to lie, so that in the end both images are sampled alike and the last step is next to nothing: what
sampling and windows do to a single comparison cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Literal

import numpy as np

from geo_refdiff.registration import ecc
from geo_refdiff.registration.pair import Pair, Shift
from geo_refdiff.registration.phase import weighted_peak
from geo_refdiff.registration.view import View

Verdict = Literal["registered", "too small", "featureless", "mismatch"]

RADIUS = 16
"""Greatest shift along an axis that is looked for, LR pixels."""

LEAST_SCORE = 12.0
"""Sure enough to be used: below it, shadows and seasons alone may be half an LR pixel."""

LEAST_SCORE_UNLIKE = 20.0
"""The same for images whose contrasts differ, as in red against near infrared: their shadows and trees have edges in
different places, so that both witnesses err alike."""

LEAST_SCORE_FEW = 13.0
"""The same for fewer than `_FEW` common pixels; two of the eight city tiles of 32 x 32 pixels that score between 12 and
13 were more than half an LR pixel off."""

_ALIKE = 0.6
"""Correlation of contrasts from which on two images are alike: some 0.8 in the same bands of two years of a city, up to
0.7 with red against near infrared."""

_NOT_BY_CHANCE = 8.0
LEAST_CORRELATION = 0.05

TELLING_PIXELS = 8000
"""Common LR pixels below which it says nothing about two images that they cannot be registered: one of a hundred pairs
of years of 64 x 64 pixels cannot, none of 128 x 128."""

_FEW = 2048
_LEAST_PIXELS = 600
_LEAST_SIDE = 24
_ROUNDS = 3
_SETTLED = 0.1
_STILL = 0.02


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the two witnesses say.

    Attributes:
        verdict: "registered", or why not: "too small" (too few common pixels to tell), "featureless" (no edges to go
            by, or noise alone), "mismatch" (enough of both, but they do not show the same place, or the witnesses
            disagree).
        candidate: (rows, columns), LR pixels: what the scene shows at p the reference shows at p + candidate. Of phase
            correlation, the more accurate witness; only a guess unless registered.
        sigma: standard error of the candidate (length of the vector), LR pixels; infinite unless registered.
        score: of phase correlation, standard deviations above chance.
        correlation: of edge strengths, -1..1.
        disagreement: distance between the witnesses, LR pixels.
        pixels: LR pixels that both images know.
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
        """The verdict for people, with its figures."""
        known = f"{self.pixels} LR pixels known in both images"
        texts = {
            "registered": f"two witnesses agree to {self.disagreement:.2f} LR pixels",
            "too small": f"what the {known} have in common is too little to tell (phase correlation {self.score:.1f} "
            f"standard deviations above chance)"
            if self.score
            else f"{known} are too few to tell",
            "featureless": "there are no edges to go by",
            "mismatch": f"the images do not match (phase correlation {self.score:.1f} standard deviations above "
            f"chance, edge correlation {self.correlation:.2f}, {self.disagreement:.1f} LR pixels apart)",
        }
        return texts[self.verdict]


def estimate_shift(view: View, radius: int = RADIUS) -> Estimate:
    """The shift of the reference against the scene.

    Args:
        view: both over the same ground; the reference should reach `radius` LR pixels beyond the scene.
        radius: greatest shift along an axis that is looked for, LR pixels; at most a quarter of the scene.
    """
    return estimate_pair(Pair(view, (0.0, 0.0)), radius)


def estimate_pair(first: Pair, radius: int = RADIUS) -> Estimate:
    """The same from a pair in which the reference lies where it says."""
    view = first.view
    radius = max(1, min(radius, view.pad, min(view.shape) // 4))
    if first.pixels < _LEAST_PIXELS or min(view.shape) < _LEAST_SIDE:
        return _refused("too small", first.pixels)
    if first.featureless:
        return _refused("featureless", first.pixels)
    shift, score, last = _by_phase(first, radius)
    other, correlation = _by_correlation(first, radius)
    apart = hypot(shift[0] - other[0], shift[1] - other[1])
    few = last.pixels < TELLING_PIXELS
    agreed = apart <= tolerance(last.pixels) and score >= _NOT_BY_CHANCE and correlation >= LEAST_CORRELATION
    if not agreed or not _sure(last, score) or max(map(abs, shift)) > radius:
        verdict: Verdict = "featureless" if not last.structured else "too small" if few or agreed else "mismatch"
        return Estimate(verdict, shift, float("inf"), score, correlation, apart, last.pixels)
    return Estimate("registered", shift, standard_error(score), score, correlation, apart, last.pixels)


def tolerance(pixels: int) -> float:
    """How far the witnesses may lie apart, LR pixels, by the number of pixels that both images know."""
    return float(np.clip(30.0 / np.sqrt(max(pixels, 1)), 0.15, 0.3))


def standard_error(score: float) -> float:
    """Of a shift by phase correlation, length of the vector in LR pixels, from the score."""
    return 2.5 / max(score, 1e-3)


def _sure(pair: Pair, score: float) -> bool:
    """Whether phase correlation leaves no doubt; more is asked of images that are not alike."""
    least = LEAST_SCORE_FEW if pair.pixels < _FEW else LEAST_SCORE
    return score >= LEAST_SCORE_UNLIKE or (score >= least and pair.likeness >= _ALIKE)


def _refused(verdict: Verdict, pixels: int) -> Estimate:
    return Estimate(verdict, (0.0, 0.0), float("inf"), 0.0, 0.0, float("inf"), pixels)


def _by_phase(pair: Pair, radius: int) -> tuple[Shift, float, Pair]:
    """The first witness: a search, whose score counts, then steps without what has changed."""
    found = weighted_peak(*pair.orientations, pair.frame.taper, radius)
    step = found.shift
    for _ in range(_ROUNDS):
        pair = pair.moved(step)
        weight = pair.frame.taper * pair.agreement
        step = weighted_peak(*pair.orientations, weight, None).shift
        if max(map(abs, step)) < _STILL:
            break
    return (pair.shift[0] + step[0], pair.shift[1] + step[1]), found.score, pair


def _by_correlation(pair: Pair, radius: int) -> tuple[Shift, float]:
    """The second witness; a correlation of 0 where it comes to nothing."""
    step = ecc.search(*pair.edges, pair.frame.used, radius)
    for _ in range(_ROUNDS):
        pair = pair.moved(step)
        found = ecc.refine(*pair.edges, pair.frame.solid)
        if found is None:
            return pair.shift, 0.0
        step, correlation = found
        if max(map(abs, step)) < _SETTLED:
            break
    return (pair.shift[0] + step[0], pair.shift[1] + step[1]), correlation
