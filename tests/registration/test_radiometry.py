"""The plan-level radiometric fit: finds the gain through change and noise, and is the identity where it cannot know."""

from __future__ import annotations

import numpy as np
import pytest

from geo_refdiff.registration.radiometry import fit_radiometry


def test_finds_gain_and_offset_through_changed_pixels() -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(100, 30, (3, 4000))
    gain, offset = np.array([0.8, 1.2, 1.0]), np.array([12.0, -20.0, 5.0])
    scene = gain[:, None] * reference + offset[:, None] + rng.normal(0, 2, reference.shape)
    changed = rng.random(4000) < 0.2
    scene[:, changed] = rng.normal(180, 15, (3, int(changed.sum())))
    fit = fit_radiometry(reference, scene, np.ones(4000, bool))
    assert fit.gain == pytest.approx(gain, rel=0.05)
    assert np.array(fit.gain) * 100 + fit.offset == pytest.approx(gain * 100 + offset, abs=2.0)
    assert min(fit.correlation) > 0.95
    assert fit.pixels > 2000


def test_the_gain_does_not_shrink_where_dates_agree_badly() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(0, 10, 20_000)
    reference = (100 + common + rng.normal(0, 20, 20_000))[None]
    scene = (100 + common + rng.normal(0, 20, 20_000))[None]
    fit = fit_radiometry(reference, scene, np.ones(20_000, bool))
    assert 0.75 < fit.gain[0] < 1.3  # least squares would give 0.2


def test_too_few_pixels_or_no_contrast_give_the_identity() -> None:
    ones = np.ones((2, 100))
    few = fit_radiometry(ones, ones * 3, np.arange(100) < 5)
    assert (few.gain, few.offset, few.pixels) == ((1.0, 1.0), (0.0, 0.0), 0)
    flat = fit_radiometry(ones, ones * 3, np.ones(100, bool))
    assert flat.gain == (1.0, 1.0)
    assert flat.offset == (2.0, 2.0)


def test_each_band_has_units_of_its_own() -> None:
    """Reflectance against digital numbers, dark visible bands beside a bright near infrared: no gain is odd."""
    rng = np.random.default_rng(2)
    reference = rng.normal(100, 30, (4, 4000))
    gain, offset = np.array([0.004, 5.0, 257.0, 1e5]), np.array([0.01, 100.0, -40.0, 0.0])
    scene = gain[:, None] * (reference + rng.normal(0, 2, reference.shape)) + offset[:, None]
    changed = rng.random(4000) < 0.2
    scene[:, changed] = (gain * 180 + offset)[:, None]
    fit = fit_radiometry(reference, scene, np.ones(4000, bool))
    assert fit.gain == pytest.approx(gain, rel=0.05)
    assert np.array(fit.gain) * 100 + fit.offset == pytest.approx(gain * 100 + offset, rel=0.03)
