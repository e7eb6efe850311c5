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
    found = np.array(estimate_noise([t.astype("float64") for t in tiles]).sigmas) / gain
    assert found == pytest.approx(sigma, rel=0.2)
    alone = [estimate_noise([t[b : b + 1].astype("float64") for t in tiles]).sigmas[0] / gain for b in range(4)]
    assert alone == pytest.approx(sigma, rel=0.3)


@pytest.mark.parametrize("part", [0.5, 1.0])
def test_noise_that_bands_share_is_found_to_a_fifth(houses: list[np.ndarray], part: float) -> None:
    """As of colour cameras and pansharpened images."""
    sigma = np.array([0.8, 1.0, 1.1, 0.9])
    tiles = shared_noise(houses, sigma, part)
    assert estimate_noise(tiles).sigmas == pytest.approx(sigma, rel=0.2)


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
    assert estimate_noise(shared_noise(valley, sigma, shared)).sigmas == pytest.approx(sigma, rel=0.2)


@pytest.mark.parametrize("step", [1.0, 0.025])
def test_a_scene_without_noise_has_none(houses: list[np.ndarray], step: float) -> None:
    found = np.array(estimate_noise(noisy(houses, np.zeros(4), step)).sigmas)
    if step == 1.0:
        assert not found.any()  # rounding is no noise
    assert found.max() < 0.17


def test_noise_that_grows_with_the_signal(houses: list[np.ndarray]) -> None:
    rng = np.random.default_rng(4)
    shot = [t + rng.normal(size=t.shape) * np.sqrt(0.02 * t) for t in houses]
    typical = np.sqrt(0.02 * np.mean([t.mean(axis=(1, 2)) for t in houses], axis=0))
    assert estimate_noise(shot).sigmas == pytest.approx(typical, rel=0.25)


def test_missing_saturated_and_constant_places_say_nothing(houses: list[np.ndarray]) -> None:
    sigma = np.full(4, 1.5)
    tiles = noisy(houses, sigma)
    for tile in tiles:
        tile[:, :40, :60] = np.nan
        tile[:, 90:, :] = 255.0
        tile[3] = 7.0
    found = estimate_noise(tiles).sigmas
    assert found[:3] == pytest.approx(sigma[:3], rel=0.2)
    assert found[3] == 0


@pytest.mark.parametrize(
    "tiles",
    [[], [np.ones((2, 9, 9))], [np.full((2, 64, 64), np.nan)], [np.random.default_rng(0).normal(size=(2, 20, 20))]],
)
def test_too_little_says_nothing(tiles: list[np.ndarray]) -> None:
    assert np.isnan(estimate_noise(tiles).sigmas).all()


@pytest.fixture(scope="module")
def dense() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A scene of 128 x 128 pixels of a dense city whose bands share little, without noise, and an older reference as
    the sensor sees it: a part has changed, and it is in other units."""
    rng = np.random.default_rng(5)
    contrast = np.clip(90 * np.exp(0.8 * 12 * ndimage.gaussian_filter(rng.normal(size=(128, 128)), 3)), 15, 110)
    blocks = 120 + contrast * rng.uniform(-1, 1, (3, 128, 128))
    new = blocks.repeat(8, axis=1).repeat(8, axis=2)
    old = new.copy()
    old[:, 256:512, 256:768] = np.roll(new, 131, axis=1)[:, 256:512, 256:768]
    cut = [(slice(None), slice(i, i + 64), slice(j, j + 64)) for i in (0, 64) for j in (0, 64)]
    scene, reference = seen(np.roll(new, 3, axis=2), 8), seen(0.5 * np.roll(old, 2, axis=2) + 60, 8)
    return [scene[at] for at in cut], [reference[at] for at in cut]


@pytest.mark.parametrize("level", [0.6, 1.0])
def test_a_reference_tells_the_noise_of_a_dense_city(
    dense: tuple[list[np.ndarray], list[np.ndarray]], level: float
) -> None:
    scene, reference = dense
    sigma = level * np.array([1.0, 1.3, 0.8])
    tiles = noisy(scene, sigma)
    estimate = estimate_noise(tiles, reference)
    assert estimate.sigmas == pytest.approx(sigma, rel=0.2)
    alone = estimate_noise(tiles)
    assert max(abs(alone.sigmas / sigma - 1)) > 0.2
    assert any(alone.uncertain)
    elsewhere = [np.rot90(tile, 2, (1, 2)) for tile in reference]
    assert estimate_noise(tiles, elsewhere) == alone


def test_noise_of_calm_places_is_certain(houses: list[np.ndarray]) -> None:
    assert estimate_noise(noisy(houses, np.full(4, 1.5))).uncertain == (False,) * 4


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
    assert max(estimate_noise([tile]).sigmas) < 0.02


@pytest.mark.parametrize("percent", [0.0, 0.5, 1.0, 2.5])
def test_noise_of_real_scenes(
    real: list[np.ndarray], percent: float, record_property: Callable[[str, object], None]
) -> None:
    dark = np.percentile(np.concatenate([t.reshape(len(t), -1) for t in real], axis=1), 5, axis=1)
    sigma = dark * percent / 100
    found = np.array(estimate_noise(noisy(real, sigma)).sigmas)
    record_property("ratio", (found / np.maximum(sigma, 1e-9)).round(3).tolist())
    own = 0.15  # the images' own noise and what looks like it, 0.06 % of their range
    assert (found >= 0.8 * sigma).all()
    assert (found <= 1.2 * np.hypot(sigma, own) + (0 if percent else 0.05)).all()


@pytest.mark.parametrize("first", [0, 60])
@pytest.mark.parametrize("percent", [0.5, 1.0, 2.5])
def test_noise_of_a_small_dense_city_with_a_reference(shared_data: Path, first: int, percent: float) -> None:
    """128 x 128 pixels of long_beach at 8x, and the reference of two years before; without it, up to 2.2 times."""
    folders = sorted((shared_data / "naip-ca/long_beach").glob("*"))[first : first + 16]
    if not folders:
        pytest.skip(f"the aerial images are not at {shared_data}")
    scene, reference = ([seen(rasterio.open(f / f"{year}.tif").read(), 8) for f in folders] for year in (2018, 2016))
    dark = np.percentile(np.concatenate([t.reshape(len(t), -1) for t in scene], axis=1), 5, axis=1)
    sigma = dark * percent / 100
    found = np.array(estimate_noise(noisy(scene, sigma), reference).sigmas)
    assert found == pytest.approx(sigma, rel=0.2)


def test_bands_that_are_made_of_others_have_the_noise_of_those(houses: list[np.ndarray]) -> None:
    plain = [t[:3] + np.random.default_rng(8).normal(size=t[:3].shape) * 0.3 for t in houses[:3]]
    sigmas = estimate_noise(plain).sigmas
    more = [np.concatenate([t, t.mean(axis=0, keepdims=True), t[:1]]) for t in plain]
    mean = np.sqrt(np.mean(np.square(sigmas)) / 3)
    assert estimate_noise(more).sigmas == pytest.approx((*sigmas, mean, sigmas[0]), rel=0.05)
    assert sigmas == pytest.approx((0.3,) * 3, rel=0.2)


def test_a_grey_image_of_three_equal_bands_has_the_noise_of_one(houses: list[np.ndarray]) -> None:
    grey = [t[:1] + np.random.default_rng(8).normal(size=t[:1].shape) * 0.3 for t in houses[:3]]
    (one,) = estimate_noise(grey).sigmas
    assert one > 0.2
    assert estimate_noise([np.repeat(t, 3, axis=0) for t in grey]).sigmas == pytest.approx((one,) * 3, rel=0.02)


def test_units_of_a_reference_do_not_hide_the_scene(houses: list[np.ndarray]) -> None:
    tiles = noisy(houses, np.full(4, 3.0))
    small = [t * 1e-8 for t in tiles]
    assert estimate_noise(small, houses).sigmas == pytest.approx(
        [1e-8 * sigma for sigma in estimate_noise(tiles, houses).sigmas], rel=0.01
    )
