"""Coordinate systems as rasters of agencies have them: national grids, turns of the globe, another program's PROJ."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.crs
import rasterio.shutil
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.warp import Resampling, reproject

from geo_refdiff.errors import InputError
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.outline import make_outline
from geo_refdiff.raster.crs import find_overlap
from geo_refdiff.raster.info import inspect
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window

MakeRaster = Callable[..., Path]


def at_centre(code: int) -> tuple[float, float, int]:
    """A place in the middle of a national grid's area, and the UTM zone there (EPSG)."""
    area = pyproj.CRS.from_epsg(code).area_of_use
    assert area is not None
    lon, lat = (area.west + area.east) / 2, (area.south + area.north) / 2
    return lon, lat, (32600 if lat >= 0 else 32700) + int((lon + 180) // 6) + 1


@pytest.mark.parametrize(
    "code", [3067, 3133, 5110, 3006, 3301, 3059, 3346, 2180, 3763, 2154, 28992, 2056, 2193, 6677, 5972]
)
def test_national_grids_lie_where_their_code_says(
    make_raster: MakeRaster, make_texture: Callable[..., np.ndarray], code: int
) -> None:
    lon, lat, utm = at_centre(code)
    x, y = pyproj.Transformer.from_crs(4326, code, always_xy=True).transform(lon, lat)
    image = np.round(20 + 200 * make_texture((1, 64, 64))).astype("uint8")
    transform = Affine(5, 0, round(x) - 160, 0, -5, round(y) + 160)
    path = make_raster("national.tif", image, transform=transform, crs=f"EPSG:{code}")
    east, north = pyproj.Transformer.from_crs(code, utm, always_xy=True).transform(x, y)
    target = GeoBox((20, 20), Affine(5, 0, round(east) - 50, 0, -5, round(north) + 50), f"EPSG:{utm}")
    assert find_overlap(inspect(path, "reference"), target).fraction == pytest.approx(1)
    with WarpedReader(inspect(path, "reference"), (1,), target, "nearest") as reader:
        values, valid = reader.read(Window(0, 0, 20, 20))
    assert valid.all()
    cols, rows = np.meshgrid(np.arange(20) + 0.5, np.arange(20) + 0.5)
    to = pyproj.Transformer.from_crs(utm, code, always_xy=True)
    xs, ys = to.transform(round(east) - 50 + 5 * cols, round(north) + 50 - 5 * rows)
    wanted = image[0, ((transform.f - ys) // 5).astype(int), ((xs - transform.c) // 5).astype(int)]
    assert (values[0] == wanted).mean() > 0.98  # but where a centre is on an edge


@pytest.mark.parametrize(
    ("west", "scene_crs", "scene"),
    [
        (179.9997, "EPSG:32701", Affine(10, 0, 179300, 0, -10, 8200000)),
        (179.9997, "EPSG:4326", Affine(9e-5, 0, 179.9998, 0, -9e-5, -16.2596)),
        (179.9997, "EPSG:4326", Affine(9e-5, 0, -180.0001, 0, -9e-5, -16.2596)),
        (237.5, "EPSG:32610", None),
        (237.5, "EPSG:4326", Affine(9e-5, 0, -122.4996, 0, -9e-5, 37.9996)),
        (-122.5, "EPSG:4326", Affine(9e-5, 0, 237.5004, 0, -9e-5, 37.9996)),
    ],
)
def test_longitudes_beyond_180_are_the_same_places(
    make_raster: MakeRaster, make_texture: Callable[..., np.ndarray], west: float, scene_crs: str, scene: Affine | None
) -> None:
    north = 38.0 if west != 179.9997 else -16.2594
    image = np.round(20 + 200 * make_texture((1, 300, 300))).astype("uint8")
    path = make_raster("ref.tif", image, transform=Affine(1.17e-5, 0, west, 0, -1.17e-5, north), crs="EPSG:4326")
    if scene is None:
        x, y = pyproj.Transformer.from_crs(4326, 32610, always_xy=True).transform(-122.5 + 0.0005, north - 0.0005)
        scene = Affine(10, 0, round(x), 0, -10, round(y))
    side = 200
    a, _, c, _, e, f = scene[:6]
    fine = Affine(a / 8, 0, c, 0, e / 8, f)
    info, target = inspect(path, "reference"), GeoBox((side, side), fine, scene_crs)
    with WarpedReader(info, (1,), target, "nearest") as reader:
        values, valid = reader.read(Window(0, 0, side, side))
    assert find_overlap(info, target).fraction == pytest.approx(valid.mean(), abs=0.02)
    plain = np.zeros((side, side), dtype="uint8")
    turned = fine if scene_crs != "EPSG:4326" else Affine(a / 8, 0, c + 360 * round((west - c) / 360), 0, e / 8, f)
    with rasterio.open(path) as source, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reproject(
            rasterio.band(source, 1), plain, dst_transform=turned, dst_crs=scene_crs, resampling=Resampling.nearest
        )
    assert (plain > 0).mean() > 0.3
    assert ((plain > 0) == valid).mean() > 0.99
    both = valid & (plain > 0)
    assert (plain == values[0])[both].mean() > 0.97


def test_an_approximate_datum_shift_is_reported_with_its_accuracy(
    make_raster: MakeRaster, make_texture: Callable[..., np.ndarray]
) -> None:
    image = np.round(20 + 200 * make_texture((3, 40, 40))).astype("uint8")
    scene = inspect(make_raster("scene.tif", image, crs="EPSG:32614"), "scene")
    fine = np.repeat(np.repeat(image, 8, 1), 8, 2)
    reference = inspect(make_raster("ref.tif", fine, pixel=5.0, crs="EPSG:26914"), "reference")  # NAD83
    output = make_outline(UpscaleOptions.of(model="matched-ref"), scene, reference).notes
    assert any("accurate to 4 metres" in note and "registration takes out what remains" in note for note in output)
    output = make_outline(UpscaleOptions.of(model="matched-ref", coregister="off"), scene, reference).notes
    assert any("accurate to 4 metres" in note and "without registration what remains stays" in note for note in output)
    same = inspect(make_raster("same.tif", fine, pixel=5.0, crs="EPSG:32614"), "reference")
    output = make_outline(UpscaleOptions.of(model="matched-ref"), scene, same).notes
    assert not any("datum shift" in note for note in output)


def test_a_subdataset_is_opened_by_the_name_that_rasterio_gives(
    make_raster: MakeRaster, make_texture: Callable[..., np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_raster("one.tif", (100 * make_texture((2, 20, 24))).astype("int16"))
    rasterio.shutil.copy(path, tmp_path / "two.nc", driver="netCDF")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open("two.nc") as dataset:
            names = dataset.subdatasets
    assert names[0].startswith("netcdf:")
    with pytest.raises(InputError, match=r"name one of its subdatasets, e\.g\. netcdf:"):
        inspect("two.nc", "scene")
    info = inspect(names[0], "scene")
    assert (info.width, info.height, info.count) == (24, 20, 1)


@pytest.mark.parametrize("variable", ["PROJ_DATA", "PROJ_LIB"])
def test_another_program_s_proj_is_named_before_anything_is_computed(
    make_raster: MakeRaster, make_texture: Callable[..., np.ndarray], tmp_path: Path, variable: str
) -> None:
    scene = make_raster("scene.tif", (200 * make_texture((3, 20, 24))).astype("uint8"))
    (tmp_path / "foreign").mkdir()
    out = tmp_path / "o.tif"
    env = {k: v for k, v in os.environ.items() if k not in ("PROJ_DATA", "PROJ_LIB")}
    done = subprocess.run(
        [sys.executable, "-m", "geo_refdiff.cli.main", "upscale", scene, "--model", "bicubic", "-o", out],
        env=env | {variable: str(tmp_path / "foreign")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:  # it works nevertheless
        assert out.exists()
        return
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {variable}=")
    assert done.stderr.count("\n") == 1
    assert f"env -u {variable}" in done.stderr
    assert not list(tmp_path.glob("o.tif*"))
