"""The valley on disk: it is what the generator draws, is where it says, and keeps within its size."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.warp import reproject
from scipy import ndimage

from geo_refdiff.classes import CLASSES, COLOURS
from geo_refdiff.sample_tiles import sample
from geo_refdiff.sensor.sensor import SensorModel
from sample_tiles.painter import valley
from sample_tiles.painter.landscape import LandscapePair

VALLEY = sample()


def read(path: Any) -> NDArray[np.uint8]:
    with rasterio.open(path) as src:
        return np.asarray(src.read())


def same(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Equal, but for one pixel in 5,000: processors differ in the last bit of a sine, and GDAL versions in warping."""
    return a.shape == b.shape and float((a != b).mean()) < 2e-4


@pytest.fixture(scope="module")
def pair() -> LandscapePair:
    return valley.draw_valley()


@pytest.fixture(scope="module")
def reference_on_truth() -> NDArray[np.float32]:
    """The reference warped onto the truth's grid by what its file says of itself."""
    out = np.zeros((4, valley.SIZE, valley.SIZE), np.float32)
    with rasterio.open(VALLEY.truth) as truth, rasterio.open(VALLEY.reference) as src:
        for band in range(4):
            reproject(
                src.read(band + 1).astype(np.float32),
                out[band],
                src_transform=src.transform,
                src_crs=src.crs,
                dst_transform=truth.transform,
                dst_crs=truth.crs,
                src_nodata=0,
                dst_nodata=0,
                resampling=Resampling.cubic,
                tolerance=0.0,
            )
    return out


def displacement(fixed: NDArray[Any], moved: NDArray[Any], weight: NDArray[Any]) -> tuple[float, float]:
    """(rows, columns) by which `moved` is off `fixed`: least squares on gradients (Lucas and Kanade), iterated."""
    d = np.zeros(2)
    for _ in range(6):
        shifted = ndimage.shift(fixed, d, order=3, mode="nearest")
        gy, gx = np.gradient(shifted)
        rest = moved - shifted
        normal = [[(weight * p * q).sum() for q in (gy, gx)] for p in (gy, gx)]
        d -= np.linalg.solve(normal, [(weight * p * rest).sum() for p in (gy, gx)])
    return float(d[0]), float(d[1])


def test_the_files_are_what_the_generator_draws(pair: LandscapePair) -> None:
    assert same(read(VALLEY.truth), valley.inner(pair.new))
    assert same(read(VALLEY.mask)[0], valley.inner(pair.mask))
    assert same(read(VALLEY.scene), valley.observe(pair.new))
    assert same(read(VALLEY.reference), valley.reference(pair.old))
    assert VALLEY.classes.read_text(encoding="utf-8") == valley.class_table()
    assert json.loads(VALLEY.facts.read_text(encoding="utf-8")) == json.loads(json.dumps(valley.facts()))


def test_the_class_table_is_the_product_s() -> None:
    rows = json.loads(VALLEY.classes.read_text(encoding="utf-8"))["classes"]
    assert [row["value"] for row in rows] == list(range(len(CLASSES)))
    assert tuple(row["name"] for row in rows) == CLASSES
    assert tuple(tuple(row["colour"]) for row in rows) == COLOURS


def test_it_is_small() -> None:
    assert sum(p.stat().st_size for p in VALLEY.folder.iterdir()) < 6e6


def test_scene_and_truth_share_a_corner_and_a_scale() -> None:
    with rasterio.open(VALLEY.scene) as scene, rasterio.open(VALLEY.truth) as truth, rasterio.open(VALLEY.mask) as mask:
        assert scene.crs == truth.crs == mask.crs == rasterio.crs.CRS.from_epsg(32633)
        assert scene.bounds == truth.bounds == mask.bounds
        assert scene.res == (8, 8)
        assert truth.res == mask.res == (1, 1)
        assert (scene.nodata, truth.nodata, mask.nodata) == (0, None, None)


@pytest.mark.parametrize("name", ["scene", "reference", "truth"])
def test_bands_are_named_and_the_fourth_is_no_alpha(name: str) -> None:
    with rasterio.open(getattr(VALLEY, name)) as src:
        assert src.descriptions == ("red", "green", "blue", "nir")
        assert src.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert src.colorinterp[3] != ColorInterp.alpha
        assert src.profile["tiled"]
        assert src.compression.name == "zstd"


def test_the_scene_is_what_the_sensor_sees_of_the_truth() -> None:
    truth, scene = read(VALLEY.truth).astype(np.float32), read(VALLEY.scene)
    seen = SensorModel(valley.SCALE, valley.PSF_SIGMA).observe(torch.from_numpy(truth)[None])[0].numpy()
    there = (scene != 0).any(axis=0)
    there[:2] = there[-2:] = there[:, :2] = there[:, -2:] = False  # the sensor saw beyond the truth's border
    error = (scene - seen)[:, there]
    assert abs(error.mean()) < 0.02
    assert error.std() == pytest.approx(np.hypot(valley.SCENE_NOISE, 12**-0.5), rel=0.03)


def test_one_corner_of_the_scene_is_missing_in_all_bands() -> None:
    hole = read(VALLEY.scene) == 0
    assert np.array_equal(hole.any(axis=0), hole.all(axis=0))
    assert hole[0, 0, -1]
    assert 0.01 < hole[0].mean() < 0.1
    assert not hole[0, 40:].any()
    assert not hole[0, :, :60].any()


def test_the_reference_covers_the_scene(reference_on_truth: NDArray[np.float32]) -> None:
    assert (reference_on_truth.max(axis=0) > 0).all()
    hole = read(VALLEY.reference) == 0
    assert np.array_equal(hole.any(axis=0), hole.all(axis=0))
    assert hole.any()


def test_the_reference_lies_off_by_the_documented_shift(
    pair: LandscapePair, reference_on_truth: NDArray[np.float32]
) -> None:
    """Against the old date, which it shows, to a fiftieth of a pixel."""
    old = valley.inner(pair.old).astype(np.float32)
    weight = np.zeros(old.shape[1:])
    weight[16:-16, 16:-16] = 1
    down, right = displacement(old[1], reference_on_truth[1], weight)
    assert right == pytest.approx(valley.SHIFT[0], abs=0.02)
    assert down == pytest.approx(-valley.SHIFT[1], abs=0.02)


def test_the_shift_can_be_seen_against_the_new_date(reference_on_truth: NDArray[np.float32]) -> None:
    """On unchanged ground, with local contrast made even; another sun moves the shadows, hence a fifth of a pixel."""

    def even(a: NDArray[np.float32]) -> NDArray[Any]:
        mean = ndimage.gaussian_filter(a, 12)
        return np.asarray((a - mean) / (np.sqrt(ndimage.gaussian_filter((a - mean) ** 2, 12)) + 1))

    truth = read(VALLEY.truth).astype(np.float32)
    still = ndimage.binary_erosion(read(VALLEY.mask)[0] == 0, iterations=6).astype(float)
    still[:16] = still[-16:] = still[:, :16] = still[:, -16:] = 0
    shifts = [displacement(even(truth[b]), even(reference_on_truth[b]), still) for b in range(4)]
    down, right = np.median(shifts, axis=0)
    assert right == pytest.approx(valley.SHIFT[0], abs=0.2)
    assert down == pytest.approx(-valley.SHIFT[1], abs=0.2)


def test_the_mask_carries_its_class_table() -> None:
    with rasterio.open(VALLEY.mask) as src:
        assert src.colorinterp == (ColorInterp.palette,)
        table = src.colormap(1)
        assert src.tags(1)["CLASS_4"] == "tree"
        present = set(np.unique(src.read(1)))
    assert present == set(range(len(CLASSES)))
    assert [table[k][:3] for k in present] == list(COLOURS)
    side = VALLEY.mask.with_name("mask.tif.aux.xml").read_text(encoding="utf-8")
    assert all(f"<Category>{name}</Category>" in side for name in CLASSES)
