"""The Frechet distance against its closed form and against the matrix root."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from geo_refdiff.evaluate.frechet import frechet_distance


def with_moments(mean: np.ndarray, root: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Rows whose sample mean and covariance are exactly `mean` and root' root."""
    draws = np.random.default_rng(seed).standard_normal((rows, len(mean)))
    draws -= draws.mean(axis=0)
    white = draws @ np.linalg.inv(np.linalg.cholesky(np.cov(draws, rowvar=False)).T)
    return white @ root + mean


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_closed_form_of_gaussians_with_common_axes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    means, widths = rng.normal(0, 3, (2, 5)), rng.uniform(0.1, 4, (2, 5))
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    first, second = (with_moments(means[k], np.diag(widths[k]) @ turn, 40, seed + k) for k in (0, 1))
    expected = np.square(means[0] - means[1]).sum() + np.square(widths[0] - widths[1]).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [(300, 200), (25, 30), (200, 25)], ids=["many", "few", "uneven"])
def test_the_matrix_root_says_the_same(rows: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((2, 40, 40))
    first, second = (rng.standard_normal((rows[k], 40)) @ mixing[k] + k for k in (0, 1))
    s1, s2 = (np.cov(x, rowvar=False) for x in (first, second))
    root = np.trace(sqrtm(s1 @ s2)).real
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_a_set_has_no_distance_to_itself_in_any_order() -> None:
    rows = np.random.default_rng(2).standard_normal((20, 64))
    assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows + 2) == pytest.approx(4 * 64)


def test_too_few_rows_or_other_features_are_refused() -> None:
    rows = np.zeros((3, 4))
    for other in (rows[:1], np.zeros((3, 5))):
        with pytest.raises(ValueError, match="features of shape"):
            frechet_distance(rows, other)
