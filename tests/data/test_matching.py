"""Shifts with their signs, and the fit of radiometry."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from geo_refdiff.data.matching import View, find_shift, fit_views, match_radiometry, median_shift


def texture(seed: int, side: int = 160) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (4, side, side)), (0, 2, 2)) * 160 + 120
    return np.clip(field, 1, 254).astype(np.uint8)


def shifted(image: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """By splines: another way than the code's own."""
    out = ndimage.shift(image.astype(float), (0, *shift), order=3, mode="nearest")
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shift", [(2.3, -1.6), (-4.0, 0.5), (0.0, 0.0), (7.5, 7.5)])
def test_shift_is_recovered_with_its_sign(shift: tuple[float, float]) -> None:
    result = find_shift(texture(1), shifted(texture(1), shift))
    assert result == pytest.approx((-shift[0], -shift[1]), abs=0.15)


def test_shift_is_recovered_beside_missing_data() -> None:
    fixed, moving = texture(1), shifted(texture(1), (1.5, -2.0))
    valid = np.ones(fixed.shape[1:], bool)
    valid[:, :60] = False
    fixed[:, :, :60] = 0
    moving[:, :, :60] = 0
    assert find_shift(fixed, moving, valid) == pytest.approx((-1.5, 2.0), abs=0.2)
    assert find_shift(fixed, moving, np.zeros_like(valid)) is None


def test_no_shift_is_claimed_between_other_places_or_too_far() -> None:
    assert find_shift(texture(2), texture(3)) is None
    assert find_shift(texture(2), np.roll(texture(2), 20, 1)) is None
    assert find_shift(texture(2)[:, :16], texture(2)[:, :16]) is None


def test_match_finds_shift_and_radiometry_and_says_how_well() -> None:
    new = texture(6)
    old = shifted((new - 15.0) / 0.85, (1.5, -2.0))
    everywhere = np.ones(new.shape[1:], bool)
    view = View(new, everywhere, old, everywhere)
    shift = median_shift([view])
    assert shift == pytest.approx((-1.5, 2.0), abs=0.15)
    registered = View(new, everywhere, shifted(old, shift), everywhere)
    fit = fit_views([registered])
    assert fit.gain == pytest.approx((0.85,) * 4, rel=0.05)
    assert np.mean(fit.correlation) > 0.95 > np.mean(fit_views([view]).correlation)
    # two views that see nothing are outvoted by none: half must agree to see something
    blind = View(texture(7), everywhere, texture(8), everywhere)
    assert median_shift([view, blind]) == shift
    assert median_shift([view, blind, blind]) is None


def test_fitted_is_in_the_new_radiometry() -> None:
    new = texture(9)
    old = np.clip(new * 0.6 + 50, 0, 255).astype(np.uint8)
    assert np.abs(match_radiometry(new, old, np.ones(new.shape[1:], bool)).astype(float) - new).mean() < 1.5
