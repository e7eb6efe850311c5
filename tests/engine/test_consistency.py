"""Seen through the declared sensor, the output is the scene, as far as its noise lets it be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff import upscale
from geo_refdiff.engine.consistency import LrConsistency
from geo_refdiff.engine.finish import rounded
from geo_refdiff.plan.records import SensorRecord, correction_halo
from geo_refdiff.sensor.resize import repeat_pixels, upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.wiener import NoiseFilter
from geo_refdiff.validate.validation import validate_product

SENSORS = [SensorModel(8), SensorModel(4, 0.0), SensorModel(5, 0.46), SensorModel(4, kernel="bicubic")]
ALL = (slice(None), slice(None))
UINT8 = np.dtype("uint8")


def problem(texture: Any, sensor: SensorModel, size: int = 40, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """An image that has nothing to do with the scene, the scene (1, 1, h, w) float32, and what of it is valid."""
    side = size * sensor.scale
    truth = torch.from_numpy(20 + 200 * texture((1, 1, side, side), seed)).float()
    image = torch.from_numpy(20 + 200 * texture((1, 1, side, side), seed + 50)).float()
    lr = sensor.observe(truth)
    return image, lr, torch.ones_like(lr, dtype=torch.bool)


@pytest.mark.parametrize("sensor", SENSORS, ids=str)
def test_what_the_sensor_sees_is_the_scene(sensor: SensorModel, make_texture: Any) -> None:
    image, lr, _ = problem(make_texture, sensor)
    before = (sensor.observe(image) - lr).abs()
    corrected = LrConsistency((sensor,), "standard", UINT8).correct(image, lr, None)
    after = (sensor.observe(corrected) - lr).abs()[..., 6:-6, 6:-6]
    assert before.max() > 20
    assert after.max() < 0.25
    assert after.square().mean().sqrt() < 0.05


@pytest.mark.parametrize("sensor", SENSORS, ids=str)
def test_a_halo_of_the_stated_size_makes_windows_agree(sensor: SensorModel, make_texture: Any) -> None:
    """Half a digital number where the correction itself is 20 and more."""
    consistency = LrConsistency((sensor,), "standard", UINT8)
    record = SensorRecord("", sensor.kernel, (sensor.psf_sigma,), "standard", (0.0,), ())
    halo = correction_halo(record, sensor.scale)
    image, lr, valid = problem(make_texture, sensor, 60)
    valid[..., 20:23, 30] = False
    row, col = 7, 11
    part = (..., slice(row * sensor.scale, None), slice(col * sensor.scale, None))
    whole = consistency.correct(image, lr, valid)
    cut = consistency.correct(image[part], lr[..., row:, col:], valid[..., row:, col:])
    inner = (..., slice(halo, None), slice(halo, None))
    assert (whole - image).abs().max() > 20
    assert (cut[inner] - whole[part][inner]).abs().max() < 0.5


def to_noisy(image: Tensor, lr: Tensor, sensor: SensorModel, sigma: float) -> Tensor:
    """An image corrected to a scene with noise."""
    noise = NoiseFilter((sigma,), ((1.0,),)) if sigma else None
    consistency = LrConsistency((sensor,), "standard", UINT8, noise=noise)
    return consistency.correct(image, lr, None)


def test_what_is_left_of_a_noisy_scene_is_as_large_as_its_noise(make_texture: Any) -> None:
    """An exact correction would bring the noise in; the regularised one leaves it, and corrects what is wrong."""
    sensor, sigma = SensorModel(8, 0.45), 2.0
    truth = torch.from_numpy(20 + 200 * make_texture((1, 1, 480, 480), 3, 8.0)).float()
    draw = torch.Generator().manual_seed(0)
    clean = sensor.observe(truth)
    lr = clean + sigma * torch.randn(clean.shape, generator=draw)
    begun = upsample(lr, 8)
    exact, aware = (to_noisy(begun, lr, sensor, noise) for noise in (0.0, sigma))
    inner = (..., slice(80, -80), slice(80, -80))
    off = {name: float((x - truth)[inner].square().mean().sqrt()) for name, x in
           {"before": begun, "exact": exact, "aware": aware}.items()}  # fmt: skip
    assert off["aware"] < 0.95 * off["before"]
    assert off["aware"] < 0.95 * off["exact"]
    left = float((lr - sensor.observe(aware))[..., 10:-10, 10:-10].square().mean().sqrt())
    assert 0.6 * sigma < left < 1.2 * sigma


def test_known_noise_is_zero_in_the_limit(make_texture: Any) -> None:
    sensor = SensorModel(4)
    image, lr, _ = problem(make_texture, sensor)
    left = (sensor.observe(to_noisy(image, lr, sensor, 1e-3)) - lr).abs()[..., 6:-6, 6:-6]
    assert left.square().mean().sqrt() < 0.3


def test_strict_mode_keeps_to_the_scene_as_it_is(make_texture: Any) -> None:
    sensor, noise = SensorModel(4), NoiseFilter((5.0,), ((1.0,),))
    image, lr, _ = problem(make_texture, sensor)
    exact, strict, standard = (
        LrConsistency((sensor,), mode, UINT8, noise=known).correct(image, lr, None)
        for mode, known in (("strict", None), ("strict", noise), ("standard", noise))
    )
    assert torch.equal(strict, exact)
    assert not torch.equal(standard, exact)


def test_detail_that_image_and_noisy_scene_share_is_kept(make_texture: Any) -> None:
    """A good image tells ground from noise: it keeps faint detail that a filter of the scene alone takes for noise."""
    sensor, sigma = SensorModel(8, 0.45), 3.0
    truth = torch.from_numpy(100 + 15 * make_texture((1, 1, 480, 480), 3, 3.0)).float()
    clean = sensor.observe(truth)
    lr = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    inner = (..., slice(80, -80), slice(80, -80))
    kept = to_noisy(truth, lr, sensor, sigma)
    filtered = lr - NoiseFilter((sigma,), ((1.0,),)).estimate(lr)
    from_scene = to_noisy(truth, filtered, sensor, 0.0)
    off, off_from_scene = (float((x - truth)[inner].square().mean().sqrt()) for x in (kept, from_scene))
    assert off < 0.6 * off_from_scene


def test_noise_beside_missing_pixels_is_as_elsewhere(make_texture: Any) -> None:
    sensor, sigma = SensorModel(4), 3.0
    truth, lr, valid = problem(make_texture, sensor, 40)
    lr = sensor.observe(truth) + sigma * torch.randn(lr.shape, generator=torch.Generator().manual_seed(0))
    valid[..., 12:24, 15:25] = False
    consistency = LrConsistency((sensor,), "standard", UINT8, noise=NoiseFilter((sigma,), ((1.0,),)))
    made = consistency.correct(truth, torch.where(valid, lr, -9999.0), valid)
    near = repeat_pixels(F.max_pool2d((~valid).float(), 5, 1, 2) > 0, 4) & repeat_pixels(valid, 4)
    off = (made - truth).square()
    assert off[near].mean() < 2 * off[repeat_pixels(valid, 4)].mean()


def test_missing_pixels_do_not_count(make_texture: Any) -> None:
    """Whatever is under nodata, in the scene or in the image, valid pixels stay the same."""
    sensor = SensorModel(4)
    image, lr, valid = problem(make_texture, sensor, 30)
    valid[..., 10:14, 5:20] = False
    hidden = repeat_pixels(~valid, 4)
    results = []
    for seed in (0, 1):
        noise = torch.empty_like(image).uniform_(-999, 999, generator=torch.Generator().manual_seed(seed))
        x, y = torch.where(hidden, noise, image), torch.where(valid, lr, -9999.0 * seed)
        consistency = LrConsistency((sensor,), "strict", UINT8)
        pixels = consistency.finish(consistency.correct(x, y, valid), y, valid)
        left = consistency.measure(pixels, y, valid, ALL)
        assert left.count == valid.sum()
        assert left.largest <= 0.5
        results.append(pixels[~hidden])
    assert torch.equal(results[0], results[1])


def test_strict_holds_in_the_file_where_the_scene_is_saturated(
    make_raster: Any, make_texture: Any, tmp_path: Path
) -> None:
    fine = np.clip(np.round(-60 + 380 * make_texture((2, 320, 320), 5, 1.0)), 0, 255)
    sensor = SensorModel(8)
    scene = np.rint(sensor.observe(torch.from_numpy(fine).float()[None])[0].numpy()).astype(np.uint8)
    assert (fine == 0).mean() > 0.05
    assert (fine == 255).mean() > 0.05
    old = np.clip(np.round(-60 + 380 * make_texture((2, 320, 320), 6, 1.0)), 0, 255).astype(np.uint8)
    path, ref = make_raster("scene.tif", scene), make_raster("ref.tif", old, pixel=5.0)
    beyond = {}
    for mode in ("standard", "strict"):
        out = upscale(path, ref=ref, model="matched-ref", out=tmp_path / f"{mode}.tif", consistency=mode).out
        with rasterio.open(out) as dataset:
            seen = sensor.observe(torch.from_numpy(dataset.read()).float()[None])[0].numpy()
            tags = dataset.tags()
        beyond[mode] = int((np.abs(seen - scene) > 0.5)[:, 3:-3, 3:-3].sum())
        assert tags["GEO_REFDIFF_CONSISTENCY"] == mode
        assert tags["GEO_REFDIFF_PSF_SIGMAS"] == "0.35,0.35"
    assert beyond["strict"] == 0 < beyond["standard"]
    assert float(tags["GEO_REFDIFF_SCENE_RESIDUAL_MAX"]) <= 0.5
    assert tags["GEO_REFDIFF_SCENE_PIXELS_BEYOND_HALF_DN"] == "0"


def observed(image: np.ndarray, valid: np.ndarray, sensor: SensorModel) -> np.ndarray:
    """What the sensor sees of valid pixels alone: weighted means, (C, h, w); written a second time, in float64."""
    taps, scale, reach = np.array(sensor.taps), sensor.scale, sensor.reach
    known = np.kron(valid, np.ones((1, scale, scale)))

    def reduced(x: np.ndarray) -> np.ndarray:
        x = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        for axis in (1, 2):
            x = np.apply_along_axis(lambda v: np.correlate(v, taps, "valid")[::scale], axis, x)
        return x

    return reduced(np.where(known, image, 0.0)) / np.maximum(reduced(known), 1e-9)


def dark_water(size: int, dtype: str = "uint16") -> np.ndarray:
    """A scene (1, size, size) that no sensor with a PSF can have made of an image without negative values."""
    rng = np.random.default_rng(1)
    lr = np.rint(rng.uniform(3000, 9000, (1, size, size)))
    lr[:, rng.random((size, size)) < 0.1] = 100
    return lr.astype(dtype)


def test_what_lies_beside_saturated_pixels_settles() -> None:
    sensor = SensorModel(2, 0.2)
    consistency = LrConsistency((sensor,), "strict", np.dtype("uint16"))
    lr = torch.from_numpy(dark_water(60)[None].astype(np.float32))
    noise = np.random.default_rng(2).uniform(0, 9000, (1, 1, 120, 120))
    image = consistency.correct(torch.from_numpy(noise).float(), lr, None)
    before = consistency.measure(rounded(image.clone(), np.dtype("uint16")), lr, None, ALL)
    after = consistency.measure(consistency.finish(image, lr, None), lr, None, ALL)
    assert after.beyond == after.saturated
    assert before.beyond > before.saturated > 0


@pytest.mark.parametrize("wide", [False, True])
def test_a_fresh_strict_output_tells_what_it_did_not_reach(wide: bool, make_raster: Any, tmp_path: Path) -> None:
    """Beside saturated pixels, which `validate` passes; and what a PSF that is too wide leaves, which it does not."""
    rng = np.random.default_rng(2)
    lr = rng.integers(28_500, 31_500, (1, 24, 24)).astype("uint16") if wide else dark_water(24)
    scene, psf = make_raster("scene.tif", lr), "0.6" if wide else "0.35"
    options: dict[str, Any] = {"model": "bicubic-ibp", "scale": 4, "consistency": "strict"}
    result = upscale(scene, psf=psf, out=tmp_path / "o.tif", products="stac", **options)
    found = validate_product(result.out, scene)
    left, note = found.residual, result.notes[-1]
    others = left.beyond - left.saturated
    stated = (
        f"did not reach {left.beyond} of 576 scene pixels (bands counted apart), off by up to {left.largest:.4g} DN"
    )
    assert stated in note
    assert (f"{left.saturated} see pixels at the limits of uint16" in note) == (left.saturated > 0)
    assert (f"for {others} the declared PSF is too wide" in note) == wide
    assert (others > 0) == bool(found.broken) == wide
    assert json.loads((tmp_path / "o.json").read_text())["properties"]["geo_refdiff:notes"][-1] == note
    again = upscale(scene, psf="area", out=tmp_path / "a.tif", **options)
    assert not any("strict" in note for note in again.notes)


def test_a_river_of_nodata_in_one_band_stays_dark_from_border_to_border(make_texture: Any) -> None:
    """Bands together say which 0 is a hole and which a number, pixel by pixel: a column of them is no hole."""
    sensor = SensorModel(4, 0.0)
    lr = np.rint(20 + 200 * make_texture((2, 24, 24), 3)).astype(np.uint8)
    lr[1, :, 9:14] = 0
    consistency = LrConsistency((sensor,) * 2, "strict", UINT8, 0)
    scene, image = torch.from_numpy(lr.astype(np.float32))[None], torch.full((1, 2, 96, 96), 90.0)
    pixels = consistency.finish(consistency.correct(image, scene, None), scene, None)
    assert consistency.measure(pixels, scene, None, ALL).beyond == 0


KINDS = {
    "uint8 with nodata 0, saturated": ("uint8", 0, -60.0, 300.0),
    "uint8 with nodata 255, saturated": ("uint8", 255, 10.0, 290.0),
    "uint8 without nodata, saturated": ("uint8", None, -60.0, 380.0),
    "uint16 reflectance": ("uint16", 0, 200.0, 9000.0),
    "int16 with nodata -9999": ("int16", -9999, -500.0, 4000.0),
    "float32 reflectance": ("float32", float("nan"), 0.0, 1.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_strict_mode_on_every_valid_pixel(kind: str, make_raster: Any, make_texture: Any, tmp_path: Path) -> None:
    """Of the file itself, at borders and beside missing pixels, too; what the type's range forbids is reported."""
    dtype, nodata, low, span = KINDS[kind]
    sensor, shape = SensorModel(4), (2, 36, 44)
    fine = low + span * make_texture((2, 144, 176), 7, 1.0)
    if dtype != "float32":
        fine = np.clip(fine, max(np.iinfo(dtype).min, low if dtype == "int16" else 0), np.iinfo(dtype).max)
    scene = sensor.observe(torch.from_numpy(fine).float()[None])[0].numpy()
    scene = (scene if dtype == "float32" else np.rint(scene)).astype(dtype)
    if nodata is not None:
        hole = np.random.default_rng(3).random(shape[1:]) < 0.03
        hole[10:16, 20:30] = True
        hole[:, :2] = True
        full = (scene == nodata).all(axis=0)
        scene[1, full] = 1 if nodata == 0 else 254 if nodata == 255 else scene[1, full]
        scene[:, hole] = nodata
    old = np.clip(low + span * make_texture((2, 144, 176), 8, 1.0), 0, None)
    old = old.astype("float32") if dtype == "float32" else np.clip(old, 1, np.iinfo(dtype).max - 1).astype(dtype)
    path, ref = make_raster("scene.tif", scene, nodata=nodata), make_raster("ref.tif", old, pixel=10.0)
    out = upscale(
        path, ref=ref, model="matched-ref", scale=4, out=tmp_path / "o.tif", consistency="strict", coregister="off"
    ).out
    with rasterio.open(out) as dataset, rasterio.open(path) as source:
        image, tags, valid = dataset.read().astype(float), dataset.tags(), source.read_masks() > 0
        whole = np.broadcast_to(valid.any(axis=0), valid.shape)
        np.testing.assert_array_equal(dataset.dataset_mask() > 0, np.kron(whole[0], np.ones((4, 4))) > 0)
    left = np.abs(observed(image, whole, sensor) - scene.astype(float))[whole]
    stated = float(tags["GEO_REFDIFF_SCENE_RESIDUAL_MAX"])
    assert left.max() == pytest.approx(stated, rel=1e-3, abs=1e-6 if dtype == "float32" else 2e-3)
    assert int(tags["GEO_REFDIFF_SCENE_PIXELS"]) == left.size
    if dtype == "float32":
        assert left.max() < 1e-4
        assert not [key for key in tags if "BEYOND" in key]
        return
    beyond = int(tags["GEO_REFDIFF_SCENE_PIXELS_BEYOND_HALF_DN"])
    assert beyond == int((left > 0.5).sum()) == int(tags["GEO_REFDIFF_SCENE_PIXELS_BEYOND_SATURATED"])
    assert beyond == 0 or "saturated" in kind
    assert beyond < 0.005 * left.size


def test_blocks_and_cut_outs_change_no_pixel_by_more_than_one(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(70, 60)
    options: dict[str, Any] = {"ref": ref, "model": "matched-ref", "scale": 4, "psf": "landsat", "window": 160}
    options |= {"products": "none", "coregister": "off"}
    pixels = {}
    for name, more in {
        "one": {},
        "many": {"block_size": 112},
        "aoi": {"aoi": "486304,5206900,487504,5208000", "block_size": 96},
    }.items():
        result = upscale(scene, out=tmp_path / f"{name}.tif", consistency="standard", **options, **more)
        with rasterio.open(result.out) as dataset:
            pixels[name] = dataset.read()
            window = rasterio.windows.from_bounds(*dataset.bounds, rasterio.open(tmp_path / "one.tif").transform)
    rows, cols = (slice(round(a), round(b)) for a, b in window.toranges())
    for found, expected in ((pixels["many"], pixels["one"]), (pixels["aoi"], pixels["one"][:, rows, cols])):
        assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1


def test_no_blocks_of_lr_pixels_are_seen(shared_data: Path) -> None:
    """Real places: another year's detail, corrected; gradients across LR borders are those inside, within 2 %."""
    sensor = SensorModel(8)
    steps = np.zeros(8)
    for place in ("000", "016", "032", "048", "064", "080"):
        images = []
        for year in (2016, 2020):
            with rasterio.open(shared_data / "naip-ca" / "santa_monica" / place / f"{year}.tif") as dataset:
                images.append(dataset.read().astype(np.float32))
        old, truth = images
        lr = sensor.observe(torch.from_numpy(truth)[None])[0].numpy()
        spread = truth.std(axis=(1, 2), keepdims=True) / old.std(axis=(1, 2), keepdims=True)
        image = (old - old.mean(axis=(1, 2), keepdims=True)) * spread + truth.mean(axis=(1, 2), keepdims=True)
        consistency = LrConsistency((sensor,) * 4, "standard", UINT8)
        image = consistency.correct(torch.from_numpy(image)[None], torch.from_numpy(lr)[None], None)[0].numpy()
        for axis in (1, 2):
            profile = np.abs(np.diff(image, axis=axis)).mean(axis=(0, 3 - axis))[:248]
            steps += profile.reshape(-1, 8).mean(axis=0)
    assert steps[7] / steps[:7].mean() == pytest.approx(1.0, abs=0.02)
