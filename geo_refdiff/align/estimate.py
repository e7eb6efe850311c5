"""One shift between a scene and a reference, believed only where two independent witnesses agree.

The first witness is normalised phase correlation of edge orientations, the second the enhanced correlation coefficient
of edge strengths. Each searches by itself from nothing; after every step the reference is seen by the sensor anew where
it was found to lie, so that in the end both images are sampled alike and the last step is next to nothing: what
sampling and windows do to a single comparison cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import hypot
from typing import Literal

import numpy as np

from geo_refdiff.align import ecc
from geo_refdiff.align.features import (
    Complex,
    Image,
    agreement,
    edges,
    gradients,
    likeness,
    orientation,
    structure,
    taper,
    usable,
)
from geo_refdiff.align.phase import Peak, correlate
from geo_refdiff.align.view import Placement, View

Verdict = Literal["registered", "too small", "featureless", "mismatch"]

RADIUS = 16
"""Greatest shift along an axis that is looked for, LR pixels."""

LEAST_SCORE = 12.0
"""Sure enough to be used: below it, shadows and seasons alone may be half an LR pixel."""

LEAST_SCORE_UNLIKE = 20.0
"""The same for images whose contrasts differ, as in red against near infrared: their shadows and trees have edges in
different places, so that both witnesses err alike."""

_ALIKE = 0.6
"""Correlation of contrasts from which on two images are alike: some 0.8 in the same bands of two years of a city, up to
0.7 with red against near infrared."""

_NOT_BY_CHANCE = 8.0
LEAST_CORRELATION = 0.05

TELLING_PIXELS = 8000
"""Common LR pixels below which it says nothing about two images that they cannot be registered: one of a hundred pairs
of years of 64 x 64 pixels cannot, none of 128 x 128."""

_LEAST_PIXELS = 600
_LEAST_SIDE = 24
_ROUNDS = 3
_SETTLED = 0.1
_STILL = 0.02
_LEAST_STRUCTURE = 0.1

Shift = tuple[float, float]


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
    radius = max(1, min(radius, view.pad, min(view.shape) // 4))
    first = Pair(view, (0.0, 0.0))
    if first.pixels < _LEAST_PIXELS or min(view.shape) < _LEAST_SIDE:
        return _refused("too small", first.pixels)
    if not (first.scene and first.reference):
        return _refused("featureless", first.pixels)
    shift, score, last = _by_phase(first, radius)
    other, correlation = _by_correlation(first, radius)
    apart = hypot(shift[0] - other[0], shift[1] - other[1])
    few = last.pixels < TELLING_PIXELS
    agreed = apart <= tolerance(last.pixels) and score >= _NOT_BY_CHANCE and correlation >= LEAST_CORRELATION
    if not agreed or score < last.least_score or max(map(abs, shift)) > radius:
        verdict: Verdict = "featureless" if not last.structured else "too small" if few or agreed else "mismatch"
        return Estimate(verdict, shift, float("inf"), score, correlation, apart, last.pixels)
    return Estimate("registered", shift, standard_error(score), score, correlation, apart, last.pixels)


def tolerance(pixels: int) -> float:
    """How far the witnesses may lie apart, LR pixels, by the number of pixels that both images know."""
    return float(np.clip(30.0 / np.sqrt(max(pixels, 1)), 0.15, 0.3))


def standard_error(score: float) -> float:
    """Of a shift by phase correlation, length of the vector in LR pixels, from the score."""
    return 2.5 / max(score, 1e-3)


def _refused(verdict: Verdict, pixels: int) -> Estimate:
    return Estimate(verdict, (0.0, 0.0), float("inf"), 0.0, 0.0, float("inf"), pixels)


class Pair:
    """Scene and reference at one placement, described over the same pixels.

    Attributes:
        view, placement: as given.
        used: (h, w), pixels that are compared.
        pixels: LR pixels that both images know.
        scene, reference: gradients, a band each.
    """

    def __init__(self, view: View, placement: Placement) -> None:
        self.view, self.placement = view, placement
        image, seen = view.render(placement)
        both = view.valid & seen
        self.used = usable(both)
        self.pixels = int(both.sum())
        self.scene, self.reference = (gradients(x, both, self.used) for x in (view.scene, image))
        self._images, self._both = (view.scene, image), both

    @cached_property
    def orientations(self) -> tuple[Complex, Complex]:
        """Of scene and reference."""
        return orientation(self.scene, self.used), orientation(self.reference, self.used)

    @cached_property
    def edges(self) -> tuple[Image, Image]:
        """Of scene and reference."""
        return edges(self.scene, self.used), edges(self.reference, self.used)

    @property
    def least_score(self) -> float:
        """Of phase correlation, below which a shift is not sure enough to be used."""
        return LEAST_SCORE if likeness(*self._images, self._both) >= _ALIKE else LEAST_SCORE_UNLIKE

    @property
    def structured(self) -> bool:
        """Whether both images show more than noise."""
        return all(structure(image, self._both) > _LEAST_STRUCTURE for image in self._images)

    @property
    def shift(self) -> Shift:
        """The placement, of a pair that is placed by one shift."""
        row, col = self.placement
        return float(row), float(col)

    def moved(self, step: Shift) -> Pair:
        """The pair with the reference placed elsewhere, by one shift."""
        return Pair(self.view, (self.shift[0] + step[0], self.shift[1] + step[1]))


def weighted_peak(first: Complex, second: Complex, weight: Image, radius: int | None) -> Peak:
    """Phase correlation of two orientations under a weight (h, w), after their weighted means are taken off."""
    total = max(float(weight.sum()), 1e-6)
    a, b = ((o - np.complex64(np.vdot(weight, o) / total)) * weight for o in (first, second))
    return correlate(a, b, radius)


def _by_phase(pair: Pair, radius: int) -> tuple[Shift, float, Pair]:
    """The first witness: a search, whose score counts, then steps without what has changed."""
    found = weighted_peak(*pair.orientations, taper(pair.used), radius)
    step = found.shift
    for _ in range(_ROUNDS):
        pair = pair.moved(step)
        weight = taper(pair.used) * agreement(*pair.orientations)
        step = weighted_peak(*pair.orientations, weight, None).shift
        if max(map(abs, step)) < _STILL:
            break
    return (pair.shift[0] + step[0], pair.shift[1] + step[1]), found.score, pair


def _by_correlation(pair: Pair, radius: int) -> tuple[Shift, float]:
    """The second witness; a correlation of 0 where it comes to nothing."""
    step = ecc.search(*pair.edges, pair.used, radius)
    for _ in range(_ROUNDS):
        pair = pair.moved(step)
        found = ecc.refine(*pair.edges, usable(pair.used))
        if found is None:
            return pair.shift, 0.0
        step, correlation = found
        if max(map(abs, step)) < _SETTLED:
            break
    return (pair.shift[0] + step[0], pair.shift[1] + step[1]), correlation
