"""The noise of simulated scenes is found, and none in scenes without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from scipy import ndimage

from geo_refdiff.sample_tiles import sample
from geo_refdiff.sensor.noise import estimate_noise
from geo_refdiff.sensor.presets import psf_sigma_from_mtf
from geo_refdiff.sensor.sensor import SensorModel

MTF = 0.24
"""At Nyquist: Sentinel-2's red band."""


def seen(ground: np.ndarray, scale: int) -> np.ndarray:
    """(C, h, w) as the sensor sees (C, h scale, w scale), cut to whole scene pixels."""
    height, width = (n // scale * scale for n in ground.shape[1:])
    image = torch.from_numpy(ground[:, :height, :width].astype("float32"))[None]
    return np.asarray(SensorModel(scale, psf_sigma_from_mtf(MTF)).observe(image)[0].numpy(), dtype=np.float64)


def noisy(tiles: list[np.ndarray], sigma: np.ndarray, step: float = 0.025) -> list[np.ndarray]:
    """With white noise of a standard deviation a band, rounded to multiples of `step`."""
    rng = np.random.default_rng(3)
    return [np.round((t + rng.normal(size=t.shape) * sigma[:, None, None]) / step) * step for t in tiles]


def shared_noise(tiles: list[np.ndarray], sigma: np.ndarray, part: float) -> list[np.ndarray]:
    """With white noise, of which so much of the variance is the same in all bands."""
    rng = np.random.default_rng(6)

    def noise(tile: np.ndarray) -> np.ndarray:
        return np.sqrt(1 - part) * rng.normal(size=tile.shape) + np.sqrt(part) * rng.normal(size=tile.shape[1:])

    return [tile + sigma[:, None, None] * noise(tile) for tile in tiles]


@pytest.fixture(scope="module")
def houses() -> list[np.ndarray]:
    """Four bands of fields and houses with sharp edges, in tiles, without noise, 0..255."""
    rng = np.random.default_rng(0)
    tiles = []
    for _ in range(12):
        lie = rng.normal(size=(512, 512))
        ground = 90 + 60 * (ndimage.gaussian_filter(lie, 40) * 70)  # fields
        for _ in range(40):
            row, col, height, width = *rng.integers(0, 480, 2), *rng.integers(6, 32, 2)
            ground[row : row + height, col : col + width] = rng.uniform(30, 220)
        ground += ndimage.gaussian_filter(lie, 2) * 20
        bands = [gain * ground + offset for gain, offset in ((1, 0), (0.9, 10), (0.8, 15), (-0.6, 180))]
        tiles.append(seen(np.clip(np.stack(bands), 1, 254), 4))
    return tiles


@pytest.mark.parametrize("level", [0.4, 0.8, 2.0])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_noise_is_found_to_a_fifth(houses: list[np.ndarray], kind: str, level: float) -> None:
    sigma = level * np.array([1.0, 1.2, 1.3, 0.9])
    scene = {"uint8": (1.0, 1.0), "uint16": (40.0, 1.0), "float32": (1 / 255, 0.0)}
    gain, step = scene[kind]
    tiles = [(t * gain).astype(kind) for t in noisy([t + 1 for t in houses], sigma, step / gain or 1e-6)]
    found = np.array(estimate_noise([t.astype("float64") for t in tiles])) / gain
    assert found == pytest.approx(sigma, rel=0.2)
    alone = [estimate_noise([t[b : b + 1].astype("float64") for t in tiles])[0] / gain for b in range(4)]
    assert alone == pytest.approx(sigma, rel=0.3)


@pytest.mark.parametrize("part", [0.5, 1.0])
def test_noise_that_bands_share_is_found_to_a_fifth(houses: list[np.ndarray], part: float) -> None:
    """As of colour cameras and pansharpened images."""
    sigma = np.array([0.8, 1.0, 1.1, 0.9])
    tiles = shared_noise(houses, sigma, part)
    assert estimate_noise(tiles) == pytest.approx(sigma, rel=0.2)


@pytest.fixture(scope="module")
def valley() -> list[np.ndarray]:
    """The sample scene's truth, fields and a river, at a quarter of its resolution."""
    with rasterio.open(sample().truth) as dataset:
        image = seen(dataset.read(), 4)
    return [image[:, row : row + 64, col : col + 64] for row in range(0, 192, 64) for col in range(0, 192, 64)]


@pytest.mark.parametrize("shared", [0.0, 1.0])
@pytest.mark.parametrize("percent", [1.0, 2.5])
def test_noise_of_the_valley(valley: list[np.ndarray], percent: float, shared: float) -> None:
    dark = np.percentile(np.concatenate([t.reshape(len(t), -1) for t in valley], axis=1), 5, axis=1)
    sigma = dark * percent / 100
    assert estimate_noise(shared_noise(valley, sigma, shared)) == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize("step", [1.0, 0.025])
def test_a_scene_without_noise_has_none(houses: list[np.ndarray], step: float) -> None:
    found = np.array(estimate_noise(noisy(houses, np.zeros(4), step)))
    if step == 1.0:
        assert not found.any()  # rounding is no noise
    assert found.max() < 0.17


def test_noise_that_grows_with_the_signal(houses: list[np.ndarray]) -> None:
    rng = np.random.default_rng(4)
    shot = [t + rng.normal(size=t.shape) * np.sqrt(0.02 * t) for t in houses]
    typical = np.sqrt(0.02 * np.mean([t.mean(axis=(1, 2)) for t in houses], axis=0))
    assert estimate_noise(shot) == pytest.approx(typical, rel=0.25)


def test_missing_saturated_and_constant_places_say_nothing(houses: list[np.ndarray]) -> None:
    sigma = np.full(4, 1.5)
    tiles = noisy(houses, sigma)
    for tile in tiles:
        tile[:, :40, :60] = np.nan
        tile[:, 90:, :] = 255.0
        tile[3] = 7.0
    found = estimate_noise(tiles)
    assert found[:3] == pytest.approx(sigma[:3], rel=0.2)
    assert found[3] == 0


@pytest.mark.parametrize(
    "tiles",
    [[], [np.ones((2, 9, 9))], [np.full((2, 64, 64), np.nan)], [np.random.default_rng(0).normal(size=(2, 20, 20))]],
)
def test_too_little_says_nothing(tiles: list[np.ndarray]) -> None:
    assert np.isnan(estimate_noise(tiles)).all()


@pytest.fixture(scope="module", params=["city", "rural"])
def real(request: pytest.FixtureRequest, shared_data: Path) -> list[np.ndarray]:
    """Real aerial images as a sensor of a quarter of their resolution sees them: hardly any noise."""
    if request.param == "rural":
        files = [shared_data / "naip-knox/2015.tif"]
    else:
        files = sorted((shared_data / "naip-ca/long_beach").glob("*/2018.tif"))[:60]
    if not files or not all(file.exists() for file in files):
        pytest.skip(f"the aerial images are not at {shared_data}")
    tiles = []
    for file in files:
        with rasterio.open(file) as dataset:
            tiles.append(seen(dataset.read(), 4))
    return tiles


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("bands", "share"), [(4, 0.003), (13, 0.01), (13, 0.012)])
def test_ramps_without_noise_but_for_single_pixels(bands: int, share: float) -> None:
    rows, cols = np.mgrid[:256, :256]
    ramps = np.stack([100 + 0.1 * (band + 1) * rows + 0.2 * cols for band in range(bands)])
    tile = ramps + (np.random.default_rng(0).random(ramps.shape) < share)
    assert max(estimate_noise([tile])) < 0.02


@pytest.mark.parametrize("percent", [0.0, 0.5, 1.0, 2.5])
def test_noise_of_real_scenes(
    real: list[np.ndarray], percent: float, record_property: Callable[[str, object], None]
) -> None:
    dark = np.percentile(np.concatenate([t.reshape(len(t), -1) for t in real], axis=1), 5, axis=1)
    sigma = dark * percent / 100
    found = np.array(estimate_noise(noisy(real, sigma)))
    record_property("ratio", (found / np.maximum(sigma, 1e-9)).round(3).tolist())
    own = 0.15  # the images' own noise and what looks like it, 0.06 % of their range
    assert (found >= 0.8 * sigma).all()
    assert (found <= 1.2 * np.hypot(sigma, own) + (0 if percent else 0.05)).all()
