"""Simulated scenes: the right pixels at the right place, whatever the blocks, the type and the holes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.warp import Resampling, reproject
from scipy import ndimage

from geo_refdiff.commands.simulate import simulate
from geo_refdiff.errors import GeoRefDiffError
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.jpeg import jpeg
from geo_refdiff.sensor.presets import PRESETS
from geo_refdiff.sensor.recipe import RECIPES, DegradationRecipe
from geo_refdiff.sensor.sensor import SensorModel

WILD = DegradationRecipe(
    isotropic=0.0, anisotropic=1.0, sigma=(0.2, 0.6), area=0.0, bicubic=1.0, noise=(4.0, 4.0),
    jpeg=1.0, jpeg_quality=(45, 45),
)  # fmt: skip


def land(bands: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(bands, height, width) 0..1 with structure at all sizes."""
    rng = np.random.default_rng(seed)
    layers = [ndimage.gaussian_filter(rng.standard_normal((bands, height, width)), (0, s, s)) * s for s in (1, 3, 9)]
    total = np.sum(layers, axis=0)
    low, high = np.percentile(total, [1, 99])
    return np.clip((total - low) / (high - low), 0, 1)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and the dataset's own mask, True = valid."""
    with rasterio.open(path) as made:
        return made.read(), made.dataset_mask() != 0


@pytest.mark.parametrize("scale", [2, 3, 8, 10])
@pytest.mark.parametrize("preset", ["default", "bicubic", "area"])
def test_it_is_the_declared_sensor(make_raster: Any, tmp_path: Path, scale: int, preset: str) -> None:
    fine = np.round(255 * land(3, 12 * scale, 9 * scale)).astype("uint8")
    simulate(str(make_raster("hr.tif", fine)), tmp_path / "lr.tif", scale, preset=preset)
    sensor = {
        "default": SensorModel(scale),
        "bicubic": SensorModel(scale, kernel="bicubic"),
        "area": SensorModel(scale, 0),
    }
    expected = sensor[preset].observe(torch.from_numpy(fine.astype(np.float64))[None])[0].clamp(0, 255).numpy()
    pixels, valid = read(tmp_path / "lr.tif")
    assert valid.all()
    assert pixels.dtype == np.uint8
    assert np.abs(pixels - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    "linear",
    [
        Affine(5, 0, 0, 0, -5, 0),
        Affine(5, 0, 0, 0, 5, 0),
        Affine(-5, 0, 0, 0, -5, 0),
        Affine.rotation(30) @ Affine.scale(5, -4),
    ],
    ids=["north-up", "south-up", "mirrored", "rotated"],
)
def test_the_grid_is_the_input_s_and_what_is_left_out_is_said(make_raster: Any, tmp_path: Path, linear: Affine) -> None:
    transform = Affine.translation(485_903.0, 5_209_242.5) @ linear
    fine = np.round(255 * land(1, 53, 47)).astype("uint8")
    result = simulate(str(make_raster("hr.tif", fine, transform=transform)), tmp_path / "lr.tif", 10)
    with rasterio.open(tmp_path / "lr.tif") as made, rasterio.open(tmp_path / "hr.tif") as source:
        assert made.crs == source.crs
        assert made.shape == (5, 4)
        assert made.transform.almost_equals(transform @ Affine.scale(10), 1e-6)
        assert made.transform @ (0, 0) == pytest.approx(source.transform @ (0, 0), abs=1e-6)
        assert made.transform @ (4, 5) == pytest.approx(source.transform @ (40, 50), abs=1e-6)
    (note,) = result.notes
    assert note.startswith("left out of the input: 3 rows at the bottom and 7 columns at the right")


def holed(bands: int, height: int, width: int) -> np.ndarray:
    fine = np.round(1 + 254 * land(bands, height, width)).astype("uint8")
    fine[:, :60, 30:120] = 0
    fine[:, 130:133] = 0
    fine[:, np.random.default_rng(1).random((height, width)) < 0.02] = 0
    return fine


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize(
    "options",
    [{"preset": "default"}, {"preset": "bicubic", "noise": 3.0}, {"recipe": WILD}],
    ids=["default", "bicubic", "wild"],
)
def test_blocks_change_no_pixel(make_raster: Any, tmp_path: Path, bands: int, options: dict[str, Any]) -> None:
    hr = str(make_raster("hr.tif", holed(bands, 170, 200), nodata=0))
    made = []
    for size in (16, 48, None):
        simulate(hr, tmp_path / f"{size}.tif", 3, seed=11, block_size=size, **options)
        made.append(read(tmp_path / f"{size}.tif"))
    for pixels, valid in made[1:]:
        assert np.array_equal(pixels, made[0][0])
        assert np.array_equal(valid, made[0][1])
    assert 0.5 < made[0][1].mean() < 0.99


def test_a_cut_out_has_the_same_noise(make_raster: Any, tmp_path: Path) -> None:
    fine = np.full((2, 240, 240), 100, "uint8")
    whole = make_raster("whole.tif", fine, transform=Affine(5, 0, 486_000, 0, -5, 5_209_200))
    part = make_raster("part.tif", fine[:, 80:, 40:], transform=Affine(5, 0, 486_200, 0, -5, 5_208_800))
    for path in (whole, part):
        simulate(str(path), tmp_path / f"lr_{path.name}", 8, noise=5.0, seed=2)
    pixels, _ = read(tmp_path / "lr_whole.tif")
    cut, _ = read(tmp_path / "lr_part.tif")
    assert np.array_equal(cut, pixels[:, 10:, 5:])
    assert pixels.astype(float).std() == pytest.approx(5.0, rel=0.05)
    assert np.abs(np.corrcoef(pixels[0].ravel(), pixels[1].ravel())[0, 1]) < 0.12


def test_jpeg_is_that_of_the_whole_scene(make_raster: Any, tmp_path: Path) -> None:
    fine = np.round(255 * land(3, 260, 330)).astype("uint8")
    recipe = DegradationRecipe(isotropic=0.0, jpeg=1.0, jpeg_quality=(40, 40))
    simulate(str(make_raster("hr.tif", fine)), tmp_path / "lr.tif", 4, recipe=recipe, block_size=16)
    lr = SensorModel(4, 0.0).observe(torch.from_numpy(fine[:, :260, :328].astype(np.float64))[None])
    expected = jpeg(lr.float().double(), [40])[0].numpy()
    assert np.array_equal(read(tmp_path / "lr.tif")[0], expected)


@pytest.mark.parametrize("told_by", ["nodata", "mask", "alpha"])
def test_holes_stay_and_do_not_bleed(make_raster: Any, tmp_path: Path, told_by: str) -> None:
    fine = np.full((3, 160, 160), 120, "uint8")
    valid = np.ones((160, 160), bool)
    valid[40:84, 60:100] = False  # rows 40..83 of 8: five LR rows whole, one half
    valid[120, 8:16] = False
    fine[:, ~valid] = 0
    if told_by == "nodata":
        hr = make_raster("hr.tif", fine, nodata=0)
    elif told_by == "mask":
        hr = make_raster("hr.tif", fine, mask=(valid * 255).astype("uint8"))
    else:
        with_alpha = np.concatenate([fine, (valid * 255).astype("uint8")[None]])
        hr = make_raster("hr.tif", with_alpha, photometric="rgb", alpha="yes")
    simulate(str(hr), tmp_path / "lr.tif", 8, preset="bicubic")
    pixels, made_valid = read(tmp_path / "lr.tif")
    expected = np.ones((20, 20), bool)
    expected[5:10, 8:12] = False
    expected[5:10, 7] = True  # columns 60..63: half of it is left
    assert np.array_equal(made_valid, expected)
    assert pixels.shape[0] == 3
    assert (pixels[:, expected] == 120).all()
    with rasterio.open(tmp_path / "lr.tif") as made:
        assert made.nodata == (0 if told_by == "nodata" else None)


def test_floats_miss_band_by_band(make_raster: Any, tmp_path: Path) -> None:
    fine = land(2, 80, 80).astype("float32") * 0.3
    fine[0, :40] = np.nan
    fine[1, 72:, 72:] = np.inf
    simulate(str(make_raster("hr.tif", fine)), tmp_path / "lr.tif", 8)
    with rasterio.open(tmp_path / "lr.tif") as made:
        pixels = made.read()
        assert made.dtypes == ("float32", "float32")
        assert np.isnan(made.nodata)
    assert np.array_equal(np.isnan(pixels[0]), np.arange(10)[:, None] + np.zeros(10) < 5)
    assert np.isnan(pixels[1]).sum() == 1
    assert np.isnan(pixels[1, 9, 9])


def test_type_scale_offset_units_and_names_stay(make_raster: Any, tmp_path: Path) -> None:
    fine = np.round(land(2, 64, 64) * 9000 - 400).astype("int16")
    fine[:, :16, :16] = -9999
    hr = make_raster("hr.tif", fine, nodata=-9999, names=("NIR", "SWIR1"))
    with rasterio.open(hr, "r+") as source:
        source.scales, source.offsets, source.units = (0.0001, 0.0002), (-0.1, 0.0), ("reflectance", "K")
    simulate(str(hr), tmp_path / "lr.tif", 8, preset="sentinel-2")
    with rasterio.open(tmp_path / "lr.tif") as made:
        assert made.dtypes == ("int16", "int16")
        assert made.nodata == -9999
        assert made.descriptions == ("NIR", "SWIR1")
        assert made.scales == (0.0001, 0.0002)
        assert made.offsets == (-0.1, 0.0)
        assert made.units == ("reflectance", "K")
        pixels = made.read()
    assert (pixels[:, :2, :2] == -9999).all()
    assert pixels[:, 2:].min() > -500
    for band, name in enumerate(("nir", "swir1")):
        sensor = PRESETS["sentinel-2"].sensor(8, name)
        expected = sensor.observe(torch.from_numpy(fine[band, 32:].astype(np.float64))[None, None])[0, 0].numpy()
        assert np.abs(pixels[band, 6:] - expected[2:]).max() <= 0.5 + 1e-6


def test_a_dark_valid_pixel_is_not_called_missing(make_raster: Any, tmp_path: Path) -> None:
    fine = np.full((2, 64, 64), 60, "uint8")
    fine[:, :16] = 0  # missing
    fine[0, 40:48, 24:32], fine[1, 40:48, 24:32] = 0, 1  # dark: nodata in one band only
    fine[1, 44, 28] = 0
    simulate(str(make_raster("hr.tif", fine, nodata=0)), tmp_path / "lr.tif", 8, preset="area")
    pixels, _ = read(tmp_path / "lr.tif")
    assert (pixels[:, :2] == 0).all()
    assert pixels[:, 5, 3].tolist() == [0, 1]
    shallow = np.full((2, 64, 64), 60, "uint8")
    shallow[:, :8] = 0
    shallow[:, 16:24, 16:24] = np.indices((8, 8)).sum(0) % 2  # half of it valid ones, half missing
    shallow[0, 32:40, 32:40], shallow[1, 32:40, 32:40] = 1, 0
    shallow[:, 32:36, 32:40] = np.array([0, 1])[:, None, None]
    simulate(str(make_raster("hr2.tif", shallow, nodata=0)), tmp_path / "lr2.tif", 8, preset="area")
    pixels, valid = read(tmp_path / "lr2.tif")
    assert pixels[:, 2, 2].tolist() == [1, 1]
    assert pixels[:, 4, 4].tolist() == [1, 1]  # means of 0.5 are rounded to 0 in both: moved by one, not lost
    assert valid[4, 4]
    assert not valid[0].any()


def test_memory_follows_the_block_not_the_scene(
    make_raster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_windows: list[Window] = []
    original = RasterReader.read

    def spy(self: RasterReader, window: Window) -> Any:
        read_windows.append(window)
        return original(self, window)

    monkeypatch.setattr(RasterReader, "read", spy)
    hr = make_raster("hr.tif", np.ones((1, 3000, 3400), "uint8"), tiled=True, blockxsize=256, blockysize=256)
    simulate(str(hr), tmp_path / "lr.tif", 8)
    reach = SensorModel(8).reach
    assert len(read_windows) == 6
    assert max(max(w.shape) for w in read_windows) <= 1536 + 2 * reach
    assert read(tmp_path / "lr.tif")[0].shape == (1, 375, 425)


def test_what_fails_leaves_nothing(make_raster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hr = make_raster("hr.tif", np.ones((1, 64, 64), "uint8"))
    (tmp_path / "lr.tif").write_bytes(b"before")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(str(hr), tmp_path / "lr.tif", 8, overwrite=True, progress=stop)
    with pytest.raises(GeoRefDiffError, match="block size 20: give a multiple of 16"):
        simulate(str(hr), tmp_path / "lr.tif", 8, overwrite=True, block_size=20)
    assert (tmp_path / "lr.tif").read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hr.tif", "lr.tif"]


def registered(fine: Path, coarse: Path) -> tuple[float, float]:
    """(rows, cols), output px, by which the coarse scene, warped to the fine one's grid by its own georeference, is
    off the fine one: phase correlation at the frequencies that the coarse one holds."""
    with rasterio.open(fine) as a, rasterio.open(coarse) as b, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scale = round(b.res[0] / a.res[0])
        height, width = b.height * scale, b.width * scale
        sharp = a.read(1)[:height, :width].astype(float)
        warped = np.zeros_like(sharp)
        reproject(
            b.read(1).astype(float), warped, src_transform=b.transform, src_crs=b.crs,
            dst_transform=a.transform, dst_crs=a.crs, resampling=Resampling.cubic,
        )  # fmt: skip
    window = np.hanning(height)[:, None] * np.hanning(width)
    spectra = [np.fft.fft2((x - x.mean()) * window) for x in (sharp, warped)]
    cross = spectra[0] * spectra[1].conj()
    rows, cols = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    low = (np.hypot(rows, cols) < 0.15 / scale) & (np.hypot(rows, cols) > 0)
    weight = np.sqrt(np.abs(cross[low]))
    matrix = 2 * np.pi * np.stack([rows[low], cols[low]], 1) * weight[:, None]
    actual = np.linalg.lstsq(matrix, np.angle(cross[low]) * weight, rcond=None)[0]
    return float(actual[0]), float(actual[1])


@pytest.mark.parametrize("scale", [4, 7, 8, 16])
@pytest.mark.parametrize(
    "options",
    [
        {"preset": "sentinel-2"},
        {"preset": "bicubic"},
        {"recipe": replace(RECIPES["published"], noisy=0.0, jpeg=0.0), "seed": 4},
        {"recipe": replace(RECIPES["published"], noisy=0.0, jpeg=0.0, motion=0.5, isotropic=0.0), "seed": 8},
    ],
    ids=["sentinel-2", "bicubic", "published", "motion"],
)
def test_a_person_who_registers_it_finds_no_shift(
    make_raster: Any, tmp_path: Path, scale: int, options: dict[str, Any]
) -> None:
    fine = np.round(20 + 200 * land(1, 40 * scale, 40 * scale, seed=3)).astype("uint8")
    fine = ndimage.gaussian_filter(fine.astype(float), (0, scale, scale)).round().astype("uint8")
    hr = make_raster("hr.tif", fine, pixel=5.0)
    simulate(str(hr), tmp_path / "lr.tif", scale, **options)
    assert registered(hr, tmp_path / "lr.tif") == pytest.approx((0, 0), abs=0.02 * scale)


def test_the_measure_sees_half_a_coarse_pixel(make_raster: Any, tmp_path: Path) -> None:
    fine = np.round(20 + 200 * land(1, 320, 320, seed=3)).astype("uint8")
    hr = make_raster("hr.tif", fine, pixel=5.0)
    simulate(str(hr), tmp_path / "lr.tif", 8)
    with rasterio.open(tmp_path / "lr.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as made:
        made.transform = made.transform @ Affine.translation(0.5, 0)
    assert registered(hr, tmp_path / "lr.tif") == pytest.approx((0, 4), abs=0.3)


@pytest.mark.parametrize("scale", [8, 10])
def test_real_land_stays_where_it_is(shared_data: Path, tmp_path: Path, scale: int) -> None:
    hr = shared_data / "naip-knox" / "2015.tif"
    simulate(str(hr), tmp_path / "lr.tif", scale, preset="sentinel-2")
    with rasterio.open(hr) as source, rasterio.open(tmp_path / "lr.tif") as made:
        assert made.shape == (source.height // scale, source.width // scale)
        assert made.bounds.left == source.bounds.left
        assert made.bounds.top == source.bounds.top
    assert registered(hr, tmp_path / "lr.tif") == pytest.approx((0, 0), abs=0.02 * scale)
