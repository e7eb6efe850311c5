"""Convolution over valid pixels alone: no bleeding, and the same bits wherever the image was cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_refdiff.sensor.kernels import oriented
from geo_refdiff.sensor.reduce import Factors
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.strided import TILE, ValidConvolution, reach_of


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (height, width))


def of(sensor: SensorModel) -> Factors:
    taps = np.array([sensor.taps])
    return taps, taps


def observe(values: np.ndarray, valid: np.ndarray, kernel: Factors, scale: int) -> tuple[np.ndarray, np.ndarray]:
    convolution = ValidConvolution(valid, kernel, scale)
    return convolution.observe(values), convolution.ok


@pytest.mark.parametrize("sensor", [SensorModel(8), SensorModel(3, 0.0), SensorModel(5, kernel="bicubic")])
def test_without_holes_it_is_the_sensor(sensor: SensorModel) -> None:
    hr = image(13 * sensor.scale, 21 * sensor.scale)
    padded = np.pad(hr, sensor.reach, mode="edge")
    seen, ok = observe(padded, np.ones(padded.shape, bool), of(sensor), sensor.scale)
    assert ok.all()
    np.testing.assert_allclose(seen, sensor.observe(torch.from_numpy(hr)[None, None])[0, 0].numpy(), atol=1e-9)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), bicubic=st.booleans(), density=st.floats(0.0, 0.9))
def test_missing_pixels_do_not_matter(seed: int, bicubic: bool, density: float) -> None:
    sensor = SensorModel(4, kernel="bicubic" if bicubic else "psf")
    margin = sensor.reach
    rng = np.random.default_rng(seed)
    hr = image(10 * 4 + 2 * margin, 18 * 4 + 2 * margin, seed)
    blocks = rng.random((hr.shape[0] // 4 + 1, hr.shape[1] // 4 + 1)) < density / 2
    holes = np.kron(blocks, np.ones((4, 4), bool))[: hr.shape[0], : hr.shape[1]] | (rng.random(hr.shape) < density / 2)
    results = []
    for poison in (0.0, 255.0, np.nan, -1e30):
        spoilt = np.where(holes, poison, hr)
        results.append(observe(spoilt, ~holes, of(sensor), 4))
    for seen, ok in results[1:]:
        assert np.array_equal(seen, results[0][0])
        assert np.array_equal(ok, results[0][1])
    seen, ok = results[0]
    own = (~holes)[margin:-margin, margin:-margin].reshape(10, 4, 18, 4).sum(axis=(1, 3))
    assert np.array_equal(ok, own >= 8)
    assert (seen[~ok] == 0).all()
    flat, _ = observe(np.where(holes, 7.0, 90.0), ~holes, of(sensor), 4)
    np.testing.assert_allclose(flat[ok], 90.0, atol=1e-9)  # a mean of what is valid, whatever is missing


@settings(max_examples=40)
@given(
    top=st.integers(0, 4),
    left=st.integers(0, 2),
    height=st.integers(1, 14),
    width=st.integers(1, 30),
    holes=st.booleans(),
    turned=st.booleans(),
)
def test_same_bits_wherever_it_was_cut(top: int, left: int, height: int, width: int, holes: bool, turned: bool) -> None:
    scale = 5
    kernel = oriented(scale, (0.5, 0.2), 0.6, 0.9, "bicubic") if turned else of(SensorModel(scale))
    margin = reach_of(kernel, scale)
    top, left = top * TILE[0], left * TILE[1]
    hr = image(30 * scale + 2 * margin, 62 * scale + 2 * margin)
    valid = np.ones(hr.shape, bool)
    if holes:
        valid[margin + 31 : margin + 44, margin + 18 : margin + 160] = False
    whole, whole_ok = observe(hr, valid, kernel, scale)
    rows = slice(top * scale, (top + height) * scale + 2 * margin)
    cols = slice(left * scale, (left + width) * scale + 2 * margin)
    seen, ok = observe(hr[rows, cols], valid[rows, cols], kernel, scale)
    inside = (slice(top, top + height), slice(left, left + width))
    assert np.array_equal(seen, whole[inside])
    assert np.array_equal(ok, whole_ok[inside])
