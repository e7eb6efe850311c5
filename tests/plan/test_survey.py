"""What a plan knows of the pixels, also where the fixed tiles meet next to none of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.windows import Window as RioWindow

from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan import aligning, survey
from geo_refdiff.plan.file import parsed
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.plan.records import Plan, Radiometry
from geo_refdiff.plan.survey import SeenReference, fit_reference, remembered, survey_scene
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import CloudLayer, RasterInfo, inspect
from geo_refdiff.raster.sampling import tiles_with_data
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.rasters import register_rasters
from geo_refdiff.sensor.noise import NoiseEstimate
from geo_refdiff.sensor.sensor import SensorModel

SCALE, SIDE, PATCH = 4, 1400, 96
PLACE = (100, 300)
"""Corner of the patch, scene pixels: between the fixed tiles of a scene of 1400 x 1400."""

CORNER = (485_904.0, 5_209_248.0)
PIXEL = 40.0
SENSOR = SensorModel(SCALE, 0.4)


def sparse(path: Path, image: np.ndarray, side: int, corner: tuple[int, int], pixel: float) -> Path:
    """A raster whose only valid pixels are those of an image."""
    profile = {
        "driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": image.dtype.name, "crs": "EPSG:26914",
        "transform": Affine(pixel, 0, CORNER[0], 0, -pixel, CORNER[1]), "nodata": 0, "tiled": True, "sparse_ok": True,
        "photometric": "minisblack",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(image, window=RioWindow(corner[1], corner[0], image.shape[2], image.shape[1]))
        dataset.descriptions = ("red", "green", "blue")
    return path


@pytest.fixture
def ground(make_texture: Callable[..., np.ndarray]) -> np.ndarray:
    """(3, PATCH x SCALE, PATCH x SCALE), 20..220."""
    return np.asarray(20 + 200 * make_texture((3, PATCH * SCALE, PATCH * SCALE), seed=5, smooth=2.0))


def seen(ground: np.ndarray) -> np.ndarray:
    """The ground at LR."""
    return np.asarray(ground.reshape(3, PATCH, SCALE, PATCH, SCALE).mean((2, 4)))


def test_the_range_of_a_scene_with_a_speck_of_data(tmp_path: Path, ground: np.ndarray) -> None:
    patch = (12 * seen(ground) + 100).astype("uint16")
    info = inspect(sparse(tmp_path / "scene.tif", patch, SIDE, PLACE, PIXEL), "scene")
    found = survey_scene(info, (1, 2, 3), model_units=True, scene_range=None)
    low, high = np.percentile(patch, [0.5, 99.5])
    assert found.centre == pytest.approx((low + high) / 2, rel=0.02)
    assert found.half_range == pytest.approx((high - low) / 2, rel=0.02)
    assert found.fill == pytest.approx(np.median(patch, axis=(1, 2)), rel=0.02)


def test_known_tiles_are_those_of_both(tmp_path: Path, ground: np.ndarray) -> None:
    scene = inspect(sparse(tmp_path / "a.tif", seen(ground).astype("uint8"), SIDE, PLACE, PIXEL), "scene")
    rows, cols = range(64, 196, 64), range(256, 396, 64)
    assert tiles_with_data(scene, 1, 64) == [Window(row, col, 64, 64) for row in rows for col in cols]
    half = ground[:, : 30 * SCALE].astype("uint8")
    place = (PLACE[0] * SCALE, PLACE[1] * SCALE)
    reference = inspect(sparse(tmp_path / "b.tif", half, SIDE * SCALE, place, PIXEL / SCALE), "reference")
    assert tiles_with_data(scene, 1, 64, (reference, 1)) == [
        Window(row, col, 64, 64) for row in (64, 128) for col in cols
    ]
    elsewhere = inspect(sparse(tmp_path / "c.tif", half, SIDE * SCALE, (3000, 0), PIXEL / SCALE), "reference")
    assert tiles_with_data(scene, 1, 64, (elsewhere, 1)) == []


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_sheet_in_a_large_scene_is_registered_and_fitted(
    tmp_path: Path, make_texture: Callable[..., np.ndarray], ground: np.ndarray, dtype: str
) -> None:
    """A reference with pixels in a corner of its extent, off by one scene px; its numbers a twelfth of the scene's."""
    around = 100 + 2400 * make_texture((3, SIDE, SIDE), seed=6)
    rows, cols = (slice(start, start + PATCH) for start in PLACE)
    around[:, rows, cols] = 12 * seen(ground) + 100
    scene = inspect(sparse(tmp_path / "scene.tif", around.astype("uint16"), SIDE, (0, 0), PIXEL), "scene")
    place = ((PLACE[0] + 1) * SCALE, PLACE[1] * SCALE)
    file = sparse(tmp_path / "ref.tif", ground.astype(dtype), SIDE * SCALE, place, PIXEL / SCALE)
    reference = inspect(file, "reference")
    found = register_rasters(scene, (1, 2, 3), reference, (1, 2, 3), SENSOR)
    assert found.verdict == "registered"
    assert found.shift == pytest.approx((1.0, 0.0), abs=0.03)
    target = output_geobox(scene_geobox(scene), SCALE)
    displacement = found.displacement.scaled(SCALE)
    reference_seen = SeenReference(reference, (1, 2, 3), target, SENSOR, displacement)
    fit = fit_reference(Radiometry(0.0, 1.0, (0.0,) * 3), scene, (1, 2, 3), reference_seen)
    assert fit.gain == pytest.approx((12.0,) * 3, rel=0.04)  # the sensor blurs, `seen` does not
    assert fit.offset == pytest.approx((100.0,) * 3, abs=60)
    assert min(fit.correlation) > 0.98


def test_a_great_gain_between_like_types_needs_likeness(tmp_path: Path, make_raster: Any, make_pair: Any) -> None:
    """Noise of a few numbers is not blown up to the scene's contrast; it might be what a cloud or a lake shows."""
    scene, _ = make_pair(40, 48)
    rng = np.random.default_rng(0)
    noise = make_raster("noise.tif", rng.integers(99, 101, (3, 320, 384)).astype("uint8"), pixel=5.0)
    infos = inspect(scene, "scene"), inspect(noise, "reference")
    target = output_geobox(scene_geobox(infos[0]), 8)
    reference_seen = SeenReference(infos[1], (1, 2, 3), target, SensorModel(8, 0.4))
    fit = fit_reference(Radiometry(0.0, 1.0, (0.0,) * 3), infos[0], (1, 2, 3), reference_seen)
    assert max(fit.gain) == 5.0
    assert max(fit.correlation) < 0.5


def noisy_scene(path: Path, make_texture: Callable[..., np.ndarray]) -> Path:
    """120 x 120 pixels of uint16 with noise of 12, 20 and 15 in three bands, and a reflectance offset of -1000."""
    smooth = 1500 + 3000 * make_texture((3, 120, 120), seed=3, smooth=6.0)
    noise = np.random.default_rng(0).normal(size=smooth.shape) * np.array([12.0, 20.0, 15.0])[:, None, None]
    profile = {
        "driver": "GTiff", "count": 3, "height": 120, "width": 120, "dtype": "uint16", "crs": "EPSG:26914",
        "transform": Affine(PIXEL, 0, CORNER[0], 0, -PIXEL, CORNER[1]), "photometric": "minisblack",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.round(smooth + noise).astype("uint16"))
        dataset.descriptions = ("red", "green", "blue")
        dataset.scales, dataset.offsets = (1e-4,) * 3, (-0.1,) * 3
    return path


def test_noise_is_estimated_reported_and_kept_in_the_plan(
    tmp_path: Path, make_texture: Callable[..., np.ndarray]
) -> None:
    scene = noisy_scene(tmp_path / "scene.tif", make_texture)
    made = make_plan(scene, None, UpscaleOptions.of(model="bicubic-ibp", scale=4))
    assert made.plan.sensor.noise == pytest.approx([12, 20, 15], rel=0.2)
    assert parsed(json.dumps(made.plan.to_dict())).sensor.noise == made.plan.sensor.noise
    noise_notes = [note for note in made.notes if "noise of the scene" in note]
    assert len(noise_notes) == 1
    assert "red 1" in noise_notes[0]
    assert "--noise" in noise_notes[0]


def test_a_reference_helps_to_tell_noise(tmp_path: Path) -> None:
    """Where the scene has no calm place."""
    rng = np.random.default_rng(2)
    contrast = np.geomspace(15, 110, 80)[:, None]
    ground = (120 + contrast * rng.uniform(-1, 1, (3, 80, 80))).repeat(8, axis=1).repeat(8, axis=2).astype("float32")
    sigma = np.array([1.0, 1.3, 0.8])
    scene = SensorModel(8, 0.4).observe(torch.from_numpy(ground)[None])[0].numpy()
    scene = 40 * (scene + rng.normal(size=scene.shape) * sigma[:, None, None])
    scene_file = sparse(tmp_path / "scene.tif", np.rint(scene).astype("uint16"), 80, (0, 0), PIXEL)
    older = np.rint(np.roll(ground, 1, axis=2)).astype("uint8")
    reference = sparse(tmp_path / "ref.tif", older, 640, (0, 0), PIXEL / 8)
    with_it, without = (
        make_plan(scene_file, ref, UpscaleOptions.of(model=model, scale=8, psf=0.4))
        for ref, model in ((reference, "matched-ref"), (None, "bicubic-ibp"))
    )
    assert with_it.plan.sensor.noise == pytest.approx(40 * sigma, rel=0.25)
    assert max(without.plan.sensor.noise / (40 * sigma)) > 1.2


def test_uncertain_noise_is_said_to_be(
    tmp_path: Path, make_texture: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = NoiseEstimate((12.0, 0.0, 15.0), (True, False, False))
    monkeypatch.setattr(survey, "estimate_noise", lambda *given: estimate)
    scene = noisy_scene(tmp_path / "scene.tif", make_texture)
    made = make_plan(scene, None, UpscaleOptions.of(model="bicubic-ibp", scale=4))
    (note,) = (note for note in made.notes if "noise of the scene" in note)
    assert "red 12, blue 15 (uncertain in red," in note


@pytest.mark.parametrize("given", [0, 7.5, "SNR:100"])
def test_noise_is_what_the_user_says(tmp_path: Path, make_texture: Callable[..., np.ndarray], given: Any) -> None:
    scene = noisy_scene(tmp_path / "scene.tif", make_texture)
    made = make_plan(scene, None, UpscaleOptions.of(model="bicubic-ibp", scale=4, noise=given))
    with rasterio.open(scene) as dataset:
        middle = np.median(dataset.read(), axis=(1, 2))
    wanted = (middle - 1000) / 100 if given == "SNR:100" else np.full(3, float(given))
    assert made.plan.sensor.noise == pytest.approx(wanted, rel=0.03)
    assert not any("noise of the scene" in note for note in made.notes)


def test_areas_of_one_scene_share_what_is_measured_of_it(
    make_pair: Any, make_raster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, reference = make_pair(40, 48)
    asked: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counting(*given: Any) -> Any:
            asked[name] += 1
            return real(*given)

        monkeypatch.setattr(module, name, counting)

    for module, name in ((aligning, "register_rasters"), (survey, "fit_radiometry"), (survey, "components")):
        count(module, name)

    def plan(rows: int) -> Plan:
        with rasterio.open(scene) as dataset:
            (left, top), (right, bottom) = (dataset.transform @ at for at in ((4, 4), (12, 4 + rows)))
        options = UpscaleOptions.of(model="matched-ref", scale=8, aoi=f"{left},{bottom},{right},{top}")
        return make_plan(scene, reference, options).plan

    one, other = plan(8), plan(16)
    assert sorted(asked.values()) == [1, 1, 1]
    assert (one.radiometry, one.coregistration) == (other.radiometry, other.coregistration)
    assert one.shape != other.shape
    with rasterio.open(scene, "r+") as dataset:
        values = dataset.read()
        dataset.write(values // 2 + 40)
    changed = plan(8)
    assert set(asked.values()) == {2}
    assert changed.radiometry.gain != one.radiometry.gain


def test_nothing_is_remembered_of_a_file_whose_time_is_unknown(make_pair: Any) -> None:
    info = inspect(make_pair(40, 48)[0], "scene")
    asked: list[RasterInfo] = []
    survey = remembered(lambda info: len(asked.append(info) or asked))
    assert [survey(info), survey(info)] == [1, 1]
    unknown = replace(info, mtime_ns=0)
    assert [survey(unknown), survey(unknown)] == [2, 3]
    layer = CloudLayer("/vsicurl/http://127.0.0.1/scl.tif", "scl", 0, 0, "")
    afar = replace(info, clouds=layer)
    assert [survey(afar), survey(afar)] == [4, 5]
