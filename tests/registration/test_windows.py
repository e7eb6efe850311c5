"""What is computed for many windows, or kept from one placement to the next, is what each would give by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from geo_refdiff.registration import correlation
from geo_refdiff.registration.correlation import weighted_peak, weighted_peaks
from geo_refdiff.registration.features import Pair
from geo_refdiff.registration.field import _covariance, _Likelihood
from geo_refdiff.registration.view import View

MakePair = Callable[..., View]


def windows(count: int = 5, side: int = 48) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First images, the same moved by (2, -3), and a mask; (count, side, side)."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((count, side + 8, side + 8)).astype(np.float32)
    known = rng.random((count, side, side)) > 0.1
    return wide[:, 4:-4, 4:-4] * known, wide[:, 2:-6, 7:-1] * known, known


def test_the_masked_correlation_is_that_of_the_overlap() -> None:
    first, second, known = windows()
    surfaces = correlation._masked_correlation(first, second, known.astype(np.float32), 4)
    for row, col in ((2, -3), (0, 0), (-4, 4)):
        here = slice(max(0, -row), 48 - max(0, row)), slice(max(0, -col), 48 - max(0, col))
        there = slice(max(0, row), 48 + min(0, row)), slice(max(0, col), 48 + min(0, col))
        for k in range(len(first)):
            both = known[k][here] & known[k][there]
            direct = np.corrcoef(first[k][here][both], second[k][there][both])[0, 1]
            assert surfaces[k, row + 4, col + 4] == pytest.approx(direct, abs=1e-4)


def test_windows_at_once_are_windows_one_by_one() -> None:
    first, second, known = windows()
    shifts = correlation.search_shifts(first, second, known, 4)
    weight = known.astype(np.float32)
    peaks = weighted_peaks(first.astype(np.complex64), second.astype(np.complex64), weight, 4)
    for k, (shift, peak) in enumerate(zip(shifts, peaks, strict=True)):
        assert shift == pytest.approx((2, -3), abs=0.1)
        assert shift == pytest.approx(correlation.search_shift(first[k], second[k], known[k], 4), abs=1e-4)
        alone = weighted_peak(first[k].astype(np.complex64), second[k].astype(np.complex64), weight[k], 4)
        assert peak.shift == pytest.approx(alone.shift, abs=1e-4)
        assert peak.shift == pytest.approx((2, -3), abs=0.1)
        assert peak.score == pytest.approx(alone.score, rel=1e-4)


@pytest.mark.parametrize("amplitude", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("factor", [0.25, 2.0])
def test_one_decomposition_gives_the_likelihood_of_any_amplitude_and_error(amplitude: float, factor: float) -> None:
    rng = np.random.default_rng(0)
    points, shifts, noise = rng.uniform(0, 512, (40, 2)), rng.standard_normal((40, 2)), rng.uniform(0.001, 0.1, 40)
    covariance = _covariance(points, points, amplitude, 80.0) + np.diag(noise * factor**2)
    expected = -0.5 * (shifts * np.linalg.solve(covariance, shifts)).sum() - np.linalg.slogdet(covariance)[1]
    assert _Likelihood(points, shifts, noise, 80.0).logarithm(amplitude, factor) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("nodata", [0.0, 0.2])
def test_a_moved_pair_is_a_pair_made_there(pair: MakePair, nodata: float) -> None:
    view = pair(64, (0.6, -0.4), nodata=nodata)
    first = Pair(view, (0.0, 0.0))
    moved, made = first.moved((0.5, -0.25)), Pair(view, (0.5, -0.25))
    assert moved.frame is first.frame
    assert moved.pixels == made.pixels
    for one, other in (
        (moved.orientations, made.orientations),
        (moved.edges, made.edges),
        ((moved.agreement, moved.frame.taper, moved.frame.solid), (made.agreement, made.frame.taper, made.frame.solid)),
    ):
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_where_other_pixels_are_known_the_scene_is_described_again(pair: MakePair) -> None:
    view = pair(64, (0.0, 0.0))
    first = Pair(view, (0.0, 0.0))
    beyond = first.moved((view.pad + 4.0, 0.0))
    assert beyond.frame is not first.frame
    assert beyond.pixels < first.pixels
