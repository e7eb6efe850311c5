"""Borders of scene pixels stand out, or do not, by what gradients say at each place within a scene pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geo_refdiff.validate.seams import PROMISED, Gradients, Seams


def gradients(image: np.ndarray, scale: int = 8, valid: np.ndarray | None = None) -> Gradients:
    result = Gradients(scale)
    result.feed(image.astype(np.float32), np.ones(image.shape, bool) if valid is None else valid)
    return result


@pytest.fixture
def grain() -> np.ndarray:
    """(2, 256, 256) with detail of a few pixels, alike everywhere."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(3).standard_normal((2, 256, 256))
    return gaussian_filter(noise, (0, 0.8, 0.8)) * 50


def with_steps(image: np.ndarray, size: float) -> np.ndarray:
    """Every second scene pixel a little brighter."""
    rows, cols = np.indices(image.shape[1:]) // 8
    return image + size * ((rows + cols) % 2)


def test_means_are_those_of_each_place() -> None:
    ramp = np.tile(np.arange(32.0), (1, 16, 1))
    ramp[:, :, 16:] += 6  # a step of 7 across the border between columns 15 and 16
    result = gradients(ramp)
    horizontal = [1.0] * 7 + [3.0]
    down = [0.0] * 8
    counts = np.array([[64.0] * 7 + [48.0], [64.0] * 7 + [32.0]])  # pairs of pixels along rows, along columns
    expected = (np.array(horizontal) * counts[0] + np.array(down) * counts[1]) / counts.sum(axis=0)
    np.testing.assert_allclose(result.places, expected)
    assert result.ratio == pytest.approx(expected[-1] / 0.5)


def test_missing_pixels_have_no_gradient(grain: np.ndarray) -> None:
    valid = np.ones(grain.shape, bool)
    valid[:, 100:140, 60:90] = False
    hole = np.where(valid, grain, np.nan)
    spoilt = np.where(valid, grain, 1e4)
    np.testing.assert_array_equal(gradients(hole, valid=valid).places, gradients(spoilt, valid=valid).places)


def test_small_steps_at_borders_break_the_promise_where_there_is_detail(grain: np.ndarray) -> None:
    smooth = gradients(grain / 5)
    good = Seams.of(gradients(grain), smooth)
    assert good.judged
    assert not good.broken
    assert good.detail == pytest.approx(5)
    bad = Seams.of(gradients(with_steps(grain, 6)), smooth)
    assert bad.ratio > 1 + PROMISED + 3 * bad.scatter
    assert "seams: gradients across borders of scene pixels differ by +" in bad.broken
    assert "%" in bad.broken


def test_what_hardly_has_detail_is_judged_for_blocks_only(grain: np.ndarray) -> None:
    smooth = gradients(grain)
    some = Seams.of(gradients(with_steps(grain, 6)), smooth)
    assert not some.judged
    assert not some.broken
    assert "not judged: hardly any detail" in str(some)
    blocky = Seams.of(gradients(with_steps(grain, 120)), smooth)
    assert blocky.blocks
    assert "show as blocks" in blocky.broken


def test_pure_blocks_are_infinitely_steep_and_flat_images_are_nothing(grain: np.ndarray) -> None:
    blocks = grain[:, ::8, ::8].repeat(8, 1).repeat(8, 2)
    result = Seams.of(gradients(blocks), gradients(grain))
    assert result.ratio == np.inf
    assert "show as blocks" in result.broken
    assert result.to_dict() == {"ratio": "infinite", "scatter": None, "detail": 0.0, "judged": False}
    as_rounded = Seams.of(gradients(blocks), gradients(blocks))  # so flat a scene that rounding makes blocks of it
    assert not as_rounded.broken
    flat: Any = np.zeros((1, 64, 64))
    nothing = Seams.of(gradients(flat), gradients(flat))
    assert np.isnan(nothing.ratio)
    assert not nothing.broken
    assert str(nothing) == "none: a flat image"


def test_scales_of_two_and_three_are_not_judged(grain: np.ndarray) -> None:
    for scale in (2, 3):
        side = 256 // scale * scale
        result = Seams.of(gradients(grain[:, :side, :side], scale), gradients(grain[:, :side, :side] / 5, scale))
        assert not result.judged
        assert "too few positions inside" in str(result)
