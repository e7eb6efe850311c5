"""Convolution over valid pixels alone: no bleeding, a mean of what is seen, a kernel for each image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_refdiff.sensor.kernels import Factors, oriented
from geo_refdiff.sensor.sensor import SensorModel, observe, observe_valid, reach_of


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (1, 1, height, width)))


@pytest.mark.parametrize("sensor", [SensorModel(8), SensorModel(3, 0.0), SensorModel(5, kernel="bicubic")])
def test_without_holes_it_is_the_sensor(sensor: SensorModel) -> None:
    hr = image(13 * sensor.scale, 21 * sensor.scale)
    margin = sensor.reach
    padded = torch.nn.functional.pad(hr, (margin,) * 4, mode="replicate")
    seen, weight = sensor.observe_valid(padded, torch.ones_like(padded, dtype=torch.bool), margin)
    torch.testing.assert_close(weight, torch.ones_like(weight))
    torch.testing.assert_close(seen, sensor.observe(hr))


@pytest.mark.parametrize(
    "sensor", [SensorModel(8), SensorModel(4, 0.0), SensorModel(7), SensorModel(5, kernel="bicubic")]
)
def test_it_is_the_weighted_mean_written_out(sensor: SensorModel) -> None:
    scale, reach, taps = sensor.scale, sensor.reach, np.array(sensor.taps)
    hr = image(9 * scale, 11 * scale)
    padded = np.pad(hr[0, 0].numpy(), reach, mode="edge")
    expected = np.empty((9, 11))
    for row in range(9):
        for col in range(11):
            part = padded[row * scale : row * scale + len(taps), col * scale : col * scale + len(taps)]
            expected[row, col] = taps @ part @ taps
    np.testing.assert_allclose(sensor.observe(hr)[0, 0].numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("margin", [0, 5, 40])
def test_a_whole_rectangle_is_one_without_holes(margin: int) -> None:
    sensor, hr = SensorModel(8), image(80 + 2 * margin, 96 + 2 * margin)
    whole, weight = sensor.observe_valid(hr, None, margin)
    expected, share = sensor.observe_valid(hr, torch.ones_like(hr, dtype=torch.bool), margin)
    torch.testing.assert_close(whole, expected)
    torch.testing.assert_close(weight, share)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), bicubic=st.booleans(), density=st.floats(0.0, 0.9))
def test_missing_pixels_do_not_matter(seed: int, bicubic: bool, density: float) -> None:
    sensor = SensorModel(4, kernel="bicubic" if bicubic else "psf")
    rng = np.random.default_rng(seed)
    hr = image(40, 72, seed)
    blocks = np.kron(rng.random((10, 18)) < density / 2, np.ones((4, 4), bool))
    holes = torch.from_numpy(blocks | (rng.random((40, 72)) < density / 2))[None, None]
    results = [
        sensor.observe_valid(torch.where(holes, poison, hr), ~holes) for poison in (0.0, 255.0, float("nan"), -1e30)
    ]
    for seen, weight in results[1:]:
        assert torch.equal(seen, results[0][0])
        assert torch.equal(weight, results[0][1])
    flat, weight = sensor.observe_valid(torch.where(holes, 7.0, torch.full_like(hr, 90.0)), ~holes)
    known = weight > 0.01
    torch.testing.assert_close(flat[known], torch.full_like(flat[known], 90.0))  # a mean, whatever is missing


def test_images_have_kernels_of_their_own() -> None:
    """Of several ranks and lengths; together as each alone."""
    scale = 5
    kernels: list[Factors] = [
        SensorModel(scale).factors,
        oriented(scale, (0.5, 0.2), 0.6, 0.9, "bicubic"),
        SensorModel(scale, 0.0).factors,
        oriented(scale, (0.3, 0.3), 1.0, 0.2, "area"),
    ]
    assert len({len(rows) for rows, _ in kernels}) > 1
    assert len({reach_of(kernel, scale) for kernel in kernels}) == 4
    hr = torch.cat([image(60, 45, seed) for seed in range(4)])
    valid = torch.rand(4, 1, 60, 45, generator=torch.Generator().manual_seed(0)) > 0.1
    together, seen = observe(hr, kernels, scale), observe_valid(hr, valid, kernels, scale)[0]
    for i, kernel in enumerate(kernels):
        torch.testing.assert_close(together[i : i + 1], observe(hr[i : i + 1], [kernel], scale))
        alone, _ = observe_valid(hr[i : i + 1], valid[i : i + 1], [kernel], scale)
        torch.testing.assert_close(seen[i : i + 1], alone)
