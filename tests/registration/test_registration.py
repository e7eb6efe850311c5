"""Registration finds what was injected, says which way it goes, and claims nothing that it cannot know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import hypot

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo_refdiff.raster.window import Window
from geo_refdiff.registration.estimate import MIN_SCORE, MIN_SCORE_FEW, MIN_SCORE_UNLIKE, estimate_shift
from geo_refdiff.registration.features import likeness
from geo_refdiff.registration.field import fit_affine, fit_constant, fit_field
from geo_refdiff.registration.register import Registration, register_tiles, register_view
from geo_refdiff.registration.view import View

HARD = {"other_date": True, "gain": 1.4, "noise": 4.0, "nodata": 0.3, "changed": 0.2}
MakePair = Callable[..., View]


def off(found: Registration, truth: tuple[float, float]) -> float:
    return hypot(found.shift[0] - truth[0], found.shift[1] - truth[1])


@given(row=st.integers(-20, 20), col=st.integers(-20, 20))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sign_and_direction(pair: MakePair, row: int, col: int) -> None:
    """Up to 20 output pixels at 8x, each way along each axis."""
    truth = row / 8, col / 8
    found = register_view(pair(64, truth, seed=3))
    assert found.registered
    assert off(found, truth) < 0.05
    assert found.kind == ("none" if row == col == 0 else "global")


@pytest.mark.parametrize(("side", "limit"), [(64, 0.2), (128, 0.08)])
@pytest.mark.parametrize("truth", [(2.5, -1.25), (-1.25, 0.625)], ids=["20 px at 8x", "20 px at 16x"])
def test_another_date_with_noise_holes_and_changes(
    pair: MakePair, side: int, limit: float, truth: tuple[float, float]
) -> None:
    found = register_view(pair(side, truth, seed=side, **HARD))
    if side > 64 or found.registered:
        assert found.registered
        assert off(found, truth) < limit
        assert found.before > 0.2
        assert found.after < 0.2 if found.accepted else np.isnan(found.after)


def test_a_large_scene_to_a_fiftieth_of_a_pixel(pair: MakePair) -> None:
    truth = (-1.25, 0.625)
    found = register_view(pair(256, truth, seed=1, other_date=True, noise=4, nodata=0.3), "global")
    assert found.registered
    assert off(found, truth) < 0.03


@pytest.mark.parametrize("bands", [1, 3])
def test_contrasts_that_turn_round(pair: MakePair, bands: int) -> None:
    """One band of one date against another band of another date: edges are all that they have in common."""
    view = pair(128, (0.75, -1.5), seed=2, other_date=True, bands=bands)
    inverted = replace(view, scene=255 - view.scene)
    found, other = register_view(view, "global"), register_view(inverted, "global")
    assert off(found, (0.75, -1.5)) < 0.08
    assert off(other, found.shift) < 1e-3  # neither estimator sees the sign of a contrast


def test_units_do_not_matter(pair: MakePair) -> None:
    view = pair(64, (0.5, 1.0), seed=4)
    found = register_view(replace(view, scene=view.scene * 37 + 1000, observed=view.observed / 255))
    assert off(found, register_view(view).shift) < 1e-3


def test_another_place_is_refused(pair: MakePair) -> None:
    for seed, side in ((0, 128), (1, 128), (2, 96)):
        found = register_view(pair(side, unrelated=True, seed=seed, noise=2))
        assert (found.verdict, found.registered) == ("mismatch", False)
        assert found.displacement.is_zero
        assert found.reason.startswith("the images do not match (phase correlation")


def test_what_cannot_be_measured_is_reported(pair: MakePair) -> None:
    small = register_view(pair(20))
    assert (small.verdict, small.reason) == ("too small", "400 scene pixels valid in both images are too few")
    view = pair(64)
    flat = register_view(replace(view, scene=np.full_like(view.scene, 7.0)))
    assert (flat.verdict, flat.reason) == ("featureless", "there are no edges to compare")
    rng = np.random.default_rng(0)
    noise = register_view(replace(view, scene=rng.normal(100, 9, view.scene.shape).astype(np.float32)))
    assert noise.verdict == "featureless"
    unknown = register_view(replace(view, valid=np.zeros_like(view.valid)))
    assert unknown.verdict == "too small"


def test_more_is_asked_of_images_that_are_not_alike(pair: MakePair) -> None:
    """The same edges and the same score; but contrasts that turn round show different things, whose edges may lie."""
    view = pair(36, (0.5, -0.75), seed=1, noise=32, nodata=0.3, changed=0.3)
    unlike = replace(view, scene=255 - view.scene)
    estimates = estimate_shift(view), estimate_shift(unlike)
    assert MIN_SCORE <= estimates[0].score < MIN_SCORE_UNLIKE
    assert estimates[1].score == pytest.approx(estimates[0].score, abs=0.01)
    assert [e.verdict for e in estimates] == ["registered", "too small"]
    assert estimates[1].reason.endswith("standard deviations above chance)")


def test_more_is_asked_of_few_pixels(pair: MakePair, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (pair(side, (0.5, -1.0), seed=5, noise=8) for side in (40, 64))
    score = estimate_shift(small).score
    assert MIN_SCORE < MIN_SCORE_FEW < score
    monkeypatch.setattr("geo_refdiff.registration.estimate.MIN_SCORE_UNLIKE", np.inf)
    monkeypatch.setattr("geo_refdiff.registration.estimate.MIN_SCORE_FEW", score + 0.1)
    found = estimate_shift(small)
    assert (found.verdict, found.registered) == ("too small", False)
    assert estimate_shift(large).registered


def test_likeness_is_a_correlation_of_known_pixels() -> None:
    rng = np.random.default_rng(0)
    image, other = rng.normal(100, 9, (2, 2, 64, 64)).astype(np.float32)
    known = rng.random((64, 64)) < 0.8
    spoilt = np.where(known, 3 * image + 7, 1e4).astype(np.float32)
    assert likeness(image, spoilt, known) == pytest.approx(1, abs=1e-4)
    assert likeness(image, -image, known) == pytest.approx(-1, abs=1e-4)
    assert abs(likeness(image, other, known)) < 0.1


def test_a_bump_is_recovered(pair: MakePair, bump: Callable[..., Callable[..., tuple[np.ndarray, np.ndarray]]]) -> None:
    field = bump(192, 1.5, 48)
    view = pair(192, seed=2, other_date=True, noise=2, field=field)
    found = register_view(view)
    assert found.kind == "local"
    at = np.arange(192) + 0.5
    left = found.displacement.on_pixels(view.shape) - np.stack(field(*np.meshgrid(at, at, indexing="ij")))
    assert float(np.sqrt((left**2).sum(axis=0).mean())) < 0.1
    assert np.hypot(*left[:, 96, 96]) < 0.1
    assert found.after < 0.05
    assert found.before > 1.0
    # one shift cannot, and says what it leaves
    one = register_view(view, "global")
    assert one.kind == "global"
    assert one.after > 4 * found.after


def test_an_affine_where_asked(pair: MakePair) -> None:
    def field(rows: np.ndarray, cols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 0.4 + 0.006 * (rows - 80) - 0.002 * cols, -0.3 + 0.004 * cols

    view = pair(160, seed=5, noise=1, field=field)
    found = register_view(view, "affine")
    assert found.kind == "affine"
    assert found.displacement.is_linear
    at = np.arange(160) + 0.5
    left = found.displacement.on_pixels(view.shape) - np.stack(field(*np.meshgrid(at, at, indexing="ij")))
    assert float(np.abs(left).max()) < 0.1


def test_one_shift_is_not_mistaken_for_a_field(pair: MakePair) -> None:
    for seed in (1, 61):  # of the second, the scene as a whole is not registered: all its places are
        found = register_view(pair(192, (-1.125, 2.5), seed=seed, other_date=True, noise=2))
        assert found.kind == "global"
        assert off(found, (-1.125, 2.5)) < 0.03


def test_tiles_of_a_large_scene(pair: MakePair) -> None:
    area = Window(0, 0, 600, 600)
    corners = [(r, c) for r in (0, 250, 500) for c in (0, 250, 500)]
    good = [replace(pair(64, (1.25, -0.5), seed=9 + k), origin=c) for k, c in enumerate(corners[:7])]
    bad = [replace(pair(64, seed=40 + k, unrelated=True), origin=c) for k, c in enumerate(corners[7:])]
    found = register_tiles([*good, *bad], area)
    assert (found.kind, len(found.accepted)) == ("global", 7)
    assert off(found, (1.25, -0.5)) < 0.02
    refused = register_tiles([*bad, *bad], area)
    assert not refused.registered
    # every tile by itself, but no two alike
    apart = [replace(pair(64, (k - 3.0, 3.0 - 1.5 * k), seed=9 + k), origin=c) for k, c in enumerate(corners[:7])]
    disagree = register_tiles(apart, area, "global")
    assert disagree.verdict == "mismatch"
    assert "tiles disagree" in disagree.reason


def test_the_estimators_must_agree(pair: MakePair) -> None:
    """Two halves of a scene that moved differently by 3 scene pixels have no one shift."""
    one, other = pair(64, (0.0, 0.0), seed=6), pair(64, (0.0, 3.0), seed=6)
    seen = one.observed.copy()
    middle = seen.shape[1] // 2
    seen[:, middle:] = other.observed[:, middle:]
    estimate = estimate_shift(replace(one, observed=seen))
    near = [hypot(estimate.candidate[0], estimate.candidate[1] - c) < 0.1 for c in (0.0, 3.0)]
    assert any(near)  # the candidate is one of both, never the middle
    if estimate.registered:
        assert estimate.disagreement < 0.5


def test_fits_leave_out_what_is_wrong() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 256, (60, 2))
    sigma = np.full(60, 0.05)
    noise = rng.normal(0, 0.02, (60, 2))
    wrong = np.arange(60) % 20 == 3
    shifts = np.array([0.7, -0.2]) + noise
    shifts[wrong] += [[2, -3], [-4, 1], [3, 2]]
    constant = fit_constant(shifts, sigma)
    assert constant.displacement.at(np.array(5.0), np.array(5.0)) == pytest.approx((0.7, -0.2), abs=0.02)
    assert not constant.inlier[wrong].any()

    sloped = shifts + points @ np.array([[0.004, 0.0], [0.0, -0.002]])
    affine = fit_affine(points, sloped, sigma)
    assert affine is not None
    assert affine.displacement.matrix[0] == pytest.approx(0.004, abs=3e-4)
    assert fit_affine(points * [1, 0], sloped, sigma) is None  # on a line
    assert fit_affine(points[:5], sloped[:5], sigma[:5]) is None

    nodes = np.linspace(0, 256, 9)
    bumpy = shifts + 1.5 * np.exp(-((points - 128) ** 2).sum(axis=1) / (2 * 60**2))[:, None]
    field = fit_field(points, bumpy, sigma, nodes, nodes)
    assert field.gain > 10
    assert field.inlier[~wrong].mean() > 0.9
    assert field.displacement.at(np.array(128.0), np.array(128.0)) == pytest.approx((2.2, 1.3), abs=0.15)
    assert fit_field(points, np.array([0.7, -0.2]) + noise, sigma, nodes, nodes).gain < 3
