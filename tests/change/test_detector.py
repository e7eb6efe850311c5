"""The detected change mask: a function of a finite neighbourhood, honest where it knows nothing, and any good."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geo_refdiff.change.detector as detector_module
from geo_refdiff.change.detector import (
    BUNDLED,
    CHANNELS,
    CONFIDENCE_STEPS,
    LAYOUT,
    LAYOUT_SIDE,
    ChangeNetwork,
    DetectedMask,
    Detector,
    change_features,
    load_detector,
)
from geo_refdiff.classes import CLASSES
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.sensor import SensorModel
from sample_tiles.painter.landscape import LandscapePair, render_pair

SCALE = 8
SENSOR = SensorModel(SCALE)
ALL = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def place() -> LandscapePair:
    return render_pair(30_003, (256, 256))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector()


def test_the_bundled_detector_is_loaded_once_a_process(detector: Detector) -> None:
    assert load_detector() is detector
    assert load_detector(Path(str(resources.files("geo_refdiff.models"))) / BUNDLED) is not detector


class Scene:
    """A place as the readers of a prior: LR of one image, reference of another, holes where `missing` says."""

    def __init__(self, new: np.ndarray, ref: np.ndarray) -> None:
        self.lr = SENSOR.observe(torch.from_numpy(new / 127.5 - 1).float()[None])[0].numpy()
        self.valid = np.ones(self.lr.shape, bool)
        self.ref = (ref / 127.5 - 1).astype(np.float32)
        self.reads: list[Window] = []

    def read_scene(self, window: Window) -> tuple[torch.Tensor, torch.Tensor]:
        self.reads.append(window)
        whole = Window(0, 0, *self.lr.shape[1:])
        values, valid = np.zeros((4, *window.shape), np.float32), np.zeros((4, *window.shape), bool)
        inside = window.intersect(whole)
        if inside is not None:
            to, at = inside.within(window), inside.within(whole)
            values[:, *to], valid[:, *to] = self.lr[:, *at], self.valid[:, *at]
        return torch.from_numpy(values), torch.from_numpy(valid)

    def read_reference(self, window: Window) -> torch.Tensor:
        whole = Window(0, 0, *self.ref.shape[1:])
        values = np.full((4, *window.shape), np.nan, np.float32)
        inside = window.intersect(whole)
        if inside is not None:
            values[:, *inside.within(window)] = self.ref[:, *inside.within(whole)]
        return torch.from_numpy(values)

    def prior(self, detector: Detector, **options: object) -> DetectedMask:
        return DetectedMask(detector, SENSOR, self.read_scene, self.read_reference, ALL, **options)  # type: ignore[arg-type]


def test_features_are_what_they_say() -> None:
    lr = torch.zeros(4, 3, 3)
    lr[3] = 0.5
    ref = torch.full((4, 24, 24), 0.25)
    ref[:, :8, :8] = torch.nan
    valid = torch.ones(3, 3, dtype=torch.bool)
    valid[2, 2] = False
    result = change_features(lr, valid, ref, SENSOR, nir=True)
    assert result.shape == (CHANNELS, 3, 3)
    layout, rest = result[:LAYOUT], result[LAYOUT:]
    assert (layout == 0).all(), "every scene pixel is flat, or missing"
    assert torch.allclose(rest[5:9, 1, 1], torch.tensor(0.25), atol=1e-6)
    assert (rest[5:16, 0, 0] == 0).all()  # no reference there
    assert (rest[:5, 2, 2] == 0).all()  # no scene there
    assert rest[-2, 2, 2] == 0
    assert rest[-1, 0, 0] == 0
    assert rest[4, 1, 1] == pytest.approx(0.5 / 2.55)  # NDVI of 0 and 0.5 in model units
    blind = change_features(lr, valid, ref, SENSOR, nir=False)[LAYOUT:]
    assert (blind[[3, 4, 8, 12, 14, 15, 16]] == 0).all()


def layout_of(ref: torch.Tensor, scale: int, *, nir: bool = True) -> torch.Tensor:
    """Of a reference (4, h, w): how its parts differ from their scene pixel's mean, (4, 4 h / scale, 4 w / scale)."""
    lr = torch.zeros(4, ref.shape[1] // scale, ref.shape[2] // scale, dtype=ref.dtype)
    valid = torch.ones(lr.shape[1:], dtype=torch.bool)
    result = change_features(lr, valid, ref, SensorModel(scale), nir=nir)[:LAYOUT]
    return torch.nn.functional.pixel_shuffle(result, LAYOUT_SIDE)


@pytest.mark.parametrize("scale", [6, 8, 10, 16])
def test_the_layout_tells_how_the_reference_lies_within_an_lr_pixel(scale: int) -> None:
    ref = torch.rand(4, 3 * scale, 2 * scale, generator=torch.Generator().manual_seed(scale), dtype=torch.float64)
    result = layout_of(ref, scale)
    assert result.shape == (4, 3 * LAYOUT_SIDE, 2 * LAYOUT_SIDE)
    assert torch.allclose(torch.rot90(result, 1, (1, 2)), layout_of(torch.rot90(ref, 1, (1, 2)), scale))
    assert (layout_of(ref, scale, nir=False)[3] == 0).all()
    cell = ref[:, scale : 2 * scale, :scale]
    rows, cols = slice(scale // 4, -(-scale // 2)), slice(0, -(-scale // 4))  # of the part (1, 0), whole output pixels
    assert torch.allclose(result[:, LAYOUT_SIDE + 1, 0], cell[:, rows, cols].mean((1, 2)) - cell.mean((1, 2)))


def test_the_layout_is_reported_where_the_reference_is_known() -> None:
    ref = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ref[:, :5, :5] = torch.nan  # 25 of 64 of the first scene pixel, and part of parts
    ref[:, 8:, :5] = torch.nan  # most of another
    result = layout_of(ref, 8)
    assert torch.isfinite(result).all()
    assert (result[:, :2, :2] == 0).all(), "nothing is known of these parts"
    assert (result[:, LAYOUT_SIDE:, :LAYOUT_SIDE] == 0).all(), "too little is known of this scene pixel"
    mean = torch.nanmean(ref[:, :8, :8].flatten(1), 1)
    assert torch.allclose(result[:, 2, 3], ref[:, 4:6, 6:8].mean((1, 2)) - mean)
    assert torch.allclose(result[:, 2, 2], torch.nanmean(ref[:, 4:6, 4:6].flatten(1), 1) - mean)


def test_the_network_sees_no_further_than_it_says() -> None:
    torch.manual_seed(0)
    network = ChangeNetwork(8, 3).double()
    side = 2 * network.reach + 1
    x = torch.randn(1, CHANNELS, side, side, dtype=torch.float64, requires_grad=True)
    assert network(x).shape == (1, 3, 1, 1)
    network(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad[0, :, 0, 0] != 0).any()), "the corner is used: the reach is not overstated"


@pytest.fixture(scope="module")
def result(place: LandscapePair, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Classes and confidence of the place, and of a rim of 4 scene pixels around it."""
    return Scene(place.new, place.old).prior(detector).detect(Window(-4, -4, 40, 40))


@settings(max_examples=5)
@given(st.integers(-3, 30), st.integers(-3, 30), st.integers(1, 5), st.integers(1, 5))
def test_the_same_mask_however_it_is_cut(
    place: LandscapePair,
    detector: Detector,
    result: tuple[np.ndarray, np.ndarray],
    row: int,
    col: int,
    height: int,
    width: int,
) -> None:
    window = Window(row, col, height, width)
    part = Scene(place.new, place.old).prior(detector).detect(window)
    at = window.within(Window(-4, -4, 40, 40))
    assert (part[0] == result[0][at]).all()
    assert (part[1] == result[1][at]).all()


def test_the_mask_does_not_depend_on_what_lies_beyond_its_reach(place: LandscapePair, detector: Detector) -> None:
    scene, other = Scene(place.new, place.old), Scene(place.new, place.old)
    prior = scene.prior(detector)
    edge = 5 + prior.reach
    other.lr[:, edge + 1 :] = 0.9
    other.ref[:, (edge + 1) * SCALE :] = -0.9
    window = Window(0, 0, 6, 32)
    assert all((a == b).all() for a, b in zip(prior.detect(window), other.prior(detector).detect(window), strict=True))
    other.lr[:, 5] = 0.9
    changed = other.prior(detector).detect(window)[1]
    assert (changed != prior.detect(window)[1]).any()


def test_unknown_where_scene_or_reference_is_missing(place: LandscapePair, detector: Detector) -> None:
    scene = Scene(place.new, place.old)
    scene.valid[:, 4:8, 4:8] = False
    scene.ref[:, 64:128, 128:192] = np.nan
    classes, sure = scene.prior(detector).detect(Window(-2, -2, 36, 36))
    known = classes[2:-2, 2:-2] != 255
    assert (sure[classes == 255] == 0).all()
    assert not known[4:8, 4:8].any()
    assert not known[8:16, 16:24].any()
    assert known.sum() == 32 * 32 - 16 - 64
    assert (classes[:2] == 255).all()


def test_hr_windows_are_lr_pixels_enlarged_and_low_confidence_is_unknown(
    place: LandscapePair, detector: Detector
) -> None:
    scene = Scene(place.new, place.old)
    classes, sure = scene.prior(detector).detect(Window(0, 0, 32, 32))
    fine = scene.prior(detector, origin=(2, 3)).read(Window(-5, -9, 40, 50))
    want = np.repeat(np.repeat(classes, SCALE, 0), SCALE, 1)
    assert (fine == want[2 * SCALE - 5 : 2 * SCALE + 35, 3 * SCALE - 9 : 3 * SCALE + 41]).all()
    limited, _ = scene.prior(detector, min_confidence=0.9).detect(Window(0, 0, 32, 32))
    assert ((limited == 255) == (sure < math.ceil(0.9 * CONFIDENCE_STEPS - 1e-9))).all()
    other, _ = scene.prior(detector, classes={3: 255, 5: 1}).detect(Window(0, 0, 32, 32))
    assert (other[classes == 5] == 1).all()
    assert (other[classes == 3] == 255).all()


def test_the_bundled_detector_finds_change_in_a_landscape_it_never_saw(detector: Detector) -> None:
    assert detector.classes == CLASSES
    hits = false = missed = 0
    for seed in (30_100, 30_101):
        place = render_pair(seed, (256, 256))
        result = Scene(place.new, place.old).prior(detector).detect(Window(0, 0, 32, 32))[0]
        share = (place.mask > 0).reshape(32, SCALE, 32, SCALE).mean((1, 3))
        true, output = share >= 0.5, (result > 0) & (result < 255)
        hits, false, missed = (
            hits + (true & output).sum(),
            false + (~true & output).sum(),
            missed + (true & ~output).sum(),
        )
    assert 2 * hits / (2 * hits + false + missed) > 0.8


def test_the_same_date_twice_is_no_change(place: LandscapePair, detector: Detector) -> None:
    result = Scene(place.new, place.new).prior(detector).detect(Window(0, 0, 32, 32))[0]
    assert (result != 0).mean() < 0.01


def test_windows_have_the_classes_of_float64_also_where_float32_is_too_coarse(
    place: LandscapePair, detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(place.new, place.old)
    whole = Window(0, 0, 32, 32)
    tile = scene.prior(detector)._probabilities(whole, torch.float64)[0]
    steps = (1 - tile[0]) * CONFIDENCE_STEPS
    off = np.where((steps > 10) & (steps < 240), np.abs(steps % 1 - 0.5), 1.0)
    assert off.min() < 0.1
    limit = np.floor(steps.flat[off.argmin()]) + 1  # its rounding is next to this pixel
    prior = scene.prior(replace(detector, threshold=limit / CONFIDENCE_STEPS))
    again: list[Window] = []
    shift = [0.0]
    exact = prior._probabilities

    def coarse(tile: Window, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
        probabilities, valid = exact(tile, dtype)
        if dtype == torch.float32:
            probabilities[0] += shift[0]
        else:
            again.append(tile)
        return probabilities, valid

    monkeypatch.setattr(prior, "_probabilities", coarse)
    right = prior.detect(whole)[0]
    wrong = []
    for shift[0] in (8e-4, -8e-4):
        monkeypatch.setattr(detector_module, "_COARSE", 1.6e-3)
        for few in (1000, 0):
            monkeypatch.setattr(detector_module, "_FEW", few)
            again.clear()
            result = prior.read(Window(0, 0, 256, 256))[::SCALE, ::SCALE]
            assert len(again) == 1 if few == 0 else 0 < len(again) < 512, len(again)
            assert np.array_equal(result, right)
        monkeypatch.setattr(detector_module, "_COARSE", 0.0)
        wrong.append(not np.array_equal(prior.read(Window(0, 0, 256, 256))[::SCALE, ::SCALE], right))
    assert any(wrong)  # the shift is enough to tell


def test_float32_is_coarse_by_far_less_than_what_is_allowed_for(place: LandscapePair, detector: Detector) -> None:
    prior = Scene(place.new, place.old).prior(detector)
    (fine, _), (coarse, _) = (prior._probabilities(Window(0, 0, 32, 32), t) for t in (torch.float64, torch.float32))
    assert 0 < np.abs(fine - coarse).max() < detector_module._COARSE / 10
