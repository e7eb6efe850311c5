"""Shifts with their signs, cubic interpolation, and the fit of radiometry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from geo_refdiff.data.matching import find_shift, match, match_radiometry, moved, whole_and_part


def texture(seed: int, side: int = 160) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, (4, side, side)), (0, 2, 2)) * 160 + 120
    return np.clip(field, 1, 254).astype(np.uint8)


def shifted(image: np.ndarray, shift: tuple[float, float]) -> np.ndarray:
    """By splines: another way than the code's own."""
    out = ndimage.shift(image.astype(float), (0, *shift), order=3, mode="nearest")
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shift", [(2.3, -1.6), (-4.0, 0.5), (0.0, 0.0), (7.5, 7.5)])
def test_shift_is_found_with_its_sign(shift: tuple[float, float]) -> None:
    found = find_shift(texture(1), shifted(texture(1), shift))
    assert found == pytest.approx((-shift[0], -shift[1]), abs=0.15)


def test_shift_is_found_beside_missing_data() -> None:
    fixed, moving = texture(1), shifted(texture(1), (1.5, -2.0))
    valid = np.ones(fixed.shape[1:], bool)
    valid[:, :60] = False
    fixed[:, :, :60] = 0
    moving[:, :, :60] = 0
    assert find_shift(fixed, moving, valid) == pytest.approx((-1.5, 2.0), abs=0.2)
    assert find_shift(fixed, moving, np.zeros_like(valid)) is None


def test_no_shift_is_claimed_between_strangers_or_too_far() -> None:
    assert find_shift(texture(2), texture(3)) is None
    assert find_shift(texture(2), np.roll(texture(2), 20, 1)) is None
    assert find_shift(texture(2)[:, :16], texture(2)[:, :16]) is None


@given(st.floats(-20, 20))
def test_a_position_is_whole_pixels_and_a_rest(shift: float) -> None:
    whole, part = whole_and_part(shift)
    assert 0 <= part < 1
    assert whole + part == pytest.approx(-shift, abs=2e-6)


@settings(max_examples=25)
@given(st.floats(-6, 6), st.floats(-6, 6))
def test_moving_agrees_with_splines_and_tells_what_it_does_not_know(rows: float, cols: float) -> None:
    image = texture(4, 64)
    out, known = moved(image, (rows, cols))
    expected = ndimage.shift(image.astype(float), (0, rows, cols), order=3, mode="nearest")
    inner = (slice(None), slice(12, -12), slice(12, -12))
    assert known[12:-12, 12:-12].all()
    assert np.abs(out - expected)[inner].mean() < 1.0
    share = known.mean()
    reach = (64 - abs(rows) - 4) * (64 - abs(cols) - 4) / 64**2
    assert reach <= share <= (64 - abs(rows) + 1) * (64 - abs(cols) + 1) / 64**2


def test_whole_shifts_copy_pixels() -> None:
    image = texture(5, 48)
    out, known = moved(image, (3.0, -5.0))
    np.testing.assert_array_equal(out[:, 3:, :-5], image[:, :-3, 5:])
    assert known.sum() == 45 * 43


def test_match_finds_shift_and_radiometry_and_says_how_well() -> None:
    new = texture(6)
    old = shifted((new - 15.0) / 0.85, (1.5, -2.0))
    everywhere = np.ones(new.shape[1:], bool)
    found = match([(new, everywhere, old, everywhere)], register=True)
    assert found.registered
    assert found.shift == pytest.approx((-1.5, 2.0), abs=0.15)
    assert found.gain == pytest.approx((0.85,) * 4, rel=0.05)
    assert found.correlation > 0.95
    assert not match([(new, everywhere, old, everywhere)], register=False).registered
    # two views that see nothing are outvoted by none: half must agree to see something
    blind = (texture(7), everywhere, texture(8), everywhere)
    assert not match([(new, everywhere, old, everywhere), blind, blind], register=True).registered


def test_fitted_is_in_the_new_radiometry() -> None:
    new = texture(9)
    old = np.clip(new * 0.6 + 50, 0, 255).astype(np.uint8)
    assert np.abs(match_radiometry(new, old, np.ones(new.shape[1:], bool)).astype(float) - new).mean() < 1.5
