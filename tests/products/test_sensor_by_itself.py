"""The sensor follows from the product's metadata, the file's name or the bands' names; options say otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geo_refdiff.commands.upscale import upscale
from geo_refdiff.plan.file import read_plan
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.info import inspect
from geo_refdiff.sensor.presets import PRESETS
from geo_refdiff.sensor.recognised import recognised

Make = Callable[..., Path]
MSI = [PRESETS["sentinel-2"].bands[band] for band in ("b2", "b3", "b4", "b8")]


def planned(scene: Path, out: Path, **options: Any) -> tuple[Plan, tuple[str, ...]]:
    result = upscale(scene, out=out, model="bicubic-ibp", scale=2, plan_only=True, overwrite=True, **options)
    assert result.plan_path is not None
    return read_plan(result.plan_path), result.notes


def written(path: Path, bands: tuple[str, ...], pixel: float, crs: str = "EPSG:32633", side: int = 24) -> Path:
    corner = (600_000.0, 5_400_000.0) if crs != "EPSG:4326" else (15.0, 60.0)
    values = np.random.default_rng(0).integers(500, 3000, (len(bands), side, side)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=side, width=side, dtype="uint16", crs=crs,
        transform=Affine(pixel, 0, corner[0], 0, -pixel, corner[1]), photometric="minisblack",
    ) as dataset:  # fmt: skip
        dataset.write(values)
        dataset.descriptions = bands
    return path


def test_a_sentinel_2_product(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder = make_sentinel_2()
    plan, notes = planned(folder, tmp_path / "out.tif")
    assert plan.sensor.name == "sentinel-2"
    assert plan.sensor.sigmas == pytest.approx(MSI)
    assert any(
        note.startswith("sensor: Sentinel-2A L2A, by the scene's metadata: PSF of 0.41 to 0.44") for note in notes
    )
    assert plan.sensor.noise == pytest.approx([13.3, 13.1, 15.8, 17.9], abs=0.1)
    assert any("what is usual for its sensor is taken, in digital numbers: B02 13.3" in note for note in notes)
    other, notes = planned(folder, tmp_path / "out.tif", psf="area", noise=0)
    assert other.sensor.name == "area"
    assert other.sensor.sigmas == (0.0,) * 4
    assert other.sensor.noise == (0.0,) * 4
    assert not any("sensor" in note for note in notes)


def test_hls_has_means_of_sentinel_2s_pixels(make_hls: Make, tmp_path: Path) -> None:
    plan, _ = planned(make_hls("S30"), tmp_path / "out.tif")
    widths = dict(zip(plan.bands.names, plan.sensor.sigmas, strict=True))
    assert widths["B04"] == pytest.approx(PRESETS["sentinel-2"].bands["b4"] / 3)
    assert widths["B05"] == pytest.approx(PRESETS["sentinel-2"].bands["b5"] * 20 / 30)


@pytest.mark.parametrize("number", [8, 5])
def test_landsat(make_landsat: Make, tmp_path: Path, number: int) -> None:
    plan, notes = planned(make_landsat(number), tmp_path / "out.tif")
    assert plan.sensor.name == ("landsat" if number == 8 else "model")
    if number == 8:
        assert plan.sensor.sigmas == (PRESETS["landsat"].psf_sigma,) * 7
        assert plan.sensor.noise[1] == pytest.approx(np.pi * 40 / 2004.57 / 364 / 2.75e-5)
    else:
        assert not any(note.startswith("sensor:") for note in notes)


def test_names_of_files_and_bands(tmp_path: Path) -> None:
    named = inspect(written(tmp_path / "S2B_MSIL2A_20220503.tif", ("a", "b", "c"), 10), "scene")
    assert (found := recognised(named)) is not None
    assert (found.preset, found.source) == ("sentinel-2", "file name")
    assert found.width("c") == PRESETS["sentinel-2"].psf_sigma
    numbered = inspect(written(tmp_path / "scene.tif", ("B02", "B03", "B8A"), 10), "scene")
    assert (found := recognised(numbered)) is not None
    assert (found.preset, found.source) == ("sentinel-2", "band names")
    assert found.width("B03") == PRESETS["sentinel-2"].bands["b3"]
    assert found.width("Band 2: B03 (Gray)") == PRESETS["sentinel-2"].bands["b3"]
    assert found.width("B8A") == 0.6  # pixels of 20 m on a grid of 10 m
    landsat = inspect(written(tmp_path / "LC09_L2SP_191025.tif", ("SR_B4",), 30), "scene")
    assert (found := recognised(landsat)) is not None
    assert found.preset == "landsat"
    assert found.noise("SR_B4") == PRESETS["landsat"].noise["red"]


def test_pixels_that_are_no_instruments_own(tmp_path: Path) -> None:
    finer = inspect(written(tmp_path / "S2A_5m.tif", ("B02", "B03", "B04"), 5), "scene")
    assert recognised(finer) is None
    plain = inspect(written(tmp_path / "x.tif", ("red", "green", "blue"), 10), "scene")
    assert recognised(plain) is None
    degrees = inspect(written(tmp_path / "S2A_deg.tif", ("B02",), 10 / 111_320 * 2**0.5, "EPSG:4326"), "scene")
    assert (found := recognised(degrees)) is not None  # at 60 degrees north a degree of longitude is half as long
    assert found.pixel == pytest.approx(10, rel=0.01)


def test_noise_that_can_be_measured_is(tmp_path: Path) -> None:
    scene = written(tmp_path / "S2A_MSIL2A_x.tif", ("B02", "B03", "B04", "B08"), 10, side=96)
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:96, :96]
    smooth = np.stack([2000 + 300 * np.sin(x / 20 + k) + 200 * np.cos(y / 17 + 2 * k) for k in range(4)])
    with rasterio.open(scene, "r+") as dataset:
        dataset.write((smooth + rng.normal(0, 40, smooth.shape)).round().astype(np.uint16))
        dataset.scales = (1e-4,) * 4
    plan, notes = planned(scene, tmp_path / "out.tif")
    assert plan.sensor.noise == pytest.approx([40] * 4, rel=0.2)
    assert not any("usual" in note for note in notes)
