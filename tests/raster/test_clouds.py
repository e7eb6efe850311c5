"""Layers of clouds: what their values mean, and how they come onto the grid of their raster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.raster.clouds import NamedLayer, check_layer_name, cloud_layer, with_layer
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo, inspect
from geo_refdiff.raster.reader import ClearReader, RasterReader
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window

CORNER = (600_000.0, 5_400_000.0)
SIDE = 24


def write(path: Path, values: np.ndarray, pixel: float = 10, **profile: Any) -> Path:
    values = values if values.ndim == 3 else values[None]
    options = {
        "driver": "GTiff", "count": len(values), "height": values.shape[1], "width": values.shape[2],
        "dtype": values.dtype.name, "crs": "EPSG:32633", "transform": Affine(pixel, 0, CORNER[0], 0, -pixel, CORNER[1]),
        "photometric": "minisblack",
    }  # fmt: skip
    with rasterio.open(path, "w", **(options | profile)) as dataset:
        dataset.write(values)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> RasterInfo:
    values = np.random.default_rng(0).integers(100, 3000, (2, SIDE, SIDE)).astype(np.uint16)
    return inspect(write(tmp_path / "scene.tif", values, nodata=0), "scene")


def clear(scene: RasterInfo, layer: NamedLayer) -> np.ndarray:
    with ClearReader(replace(scene, clouds=cloud_layer(layer, scene))) as reader:
        return reader.read(Window(0, 0, scene.height, scene.width))


QA = {21824: True, 21888: True, 22280: False, 23888: False, 54596: False, 21826: False, 1: True, 30048: True}
"""Values of the product guide: clear land, water; cloud, shadow, cirrus, dilated; fill, snow."""

FMASK = {64: True, 66: False, 68: False, 72: False, 224: True}
SURE = {0.0: True, 0.39: True, 0.4: False, 0.41: False, 1.0: False, float("nan"): True}


@pytest.mark.parametrize(
    ("name", "dtype", "values"),
    [
        ("T33UUP_20220503T102021_SCL_20m.tif", "uint8", {v: v not in (3, 8, 9, 10) for v in range(12)}),
        ("LC09_L2SP_191025_20220503_02_T1_QA_PIXEL.TIF", "uint16", QA),
        ("HLS.S30.T33UUP.2022123T102021.v2.0.Fmask.tif", "uint8", FMASK),
        ("LC08_Fmask4.tif", "uint8", {0: True, 1: True, 2: False, 3: True, 4: False}),
        ("20220503_101112_1_3B_AnalyticMS_DN_udm.tif", "uint8", {0: True, 1: True, 2: False, 4: True, 6: False}),
        ("s2cloudless.tif", "float32", SURE),
        ("MSK_CLDPRB_20m.tif", "uint8", {0: True, 39: True, 40: False, 100: False}),
        ("scene_OCM_v1_6_0.tif", "uint8", {0: True, 1: False, 2: False, 3: False}),
        ("by_hand.tif", "uint8", {0: True, 1: False}),
        ("by_hand.tif", "uint8", {0: True, 255: False}),
    ],
)  # fmt: skip
def test_kinds_are_recognised_by_name_and_values(
    scene: RasterInfo, tmp_path: Path, name: str, dtype: str, values: dict[float, bool]
) -> None:
    grid = np.resize(np.array(list(values), dtype=dtype), (SIDE, SIDE))
    wanted = np.resize(list(values.values()), (SIDE, SIDE))
    np.testing.assert_array_equal(clear(scene, NamedLayer(str(write(tmp_path / name, grid)))), wanted)


def test_udm2_has_bands(scene: RasterInfo, tmp_path: Path) -> None:
    values = np.zeros((8, SIDE, SIDE), np.uint8)
    values[0], values[6] = 1, 90
    wanted = np.ones((SIDE, SIDE), bool)
    for row, band in enumerate((3, 4, 5, 6), 2):
        values[band - 1, row, :5] = 1
        wanted[row, :5] = False
    values[1, 20] = 1  # snow
    path = write(tmp_path / "x_3B_udm2.tif", values)
    np.testing.assert_array_equal(clear(scene, NamedLayer(str(path))), wanted)
    with pytest.raises(InputError, match="has 1 bands, UDM2 has 8"):
        cloud_layer(NamedLayer(str(write(tmp_path / "y_udm2.tif", values[0]))), scene)


def test_a_kind_may_be_said(scene: RasterInfo, tmp_path: Path) -> None:
    values = np.full((SIDE, SIDE), 4, np.uint8)
    values[3] = 9
    path = str(write(tmp_path / "layer.tif", values))
    assert NamedLayer.of(f"SCL:{path}") == NamedLayer(path, "scl")
    assert NamedLayer.of(path) == NamedLayer(path)
    np.testing.assert_array_equal(clear(scene, NamedLayer.of(f"scl:{path}")), values != 9)
    with pytest.raises(InputError, match=r"neither its name nor its values \(4 to 9\) tell what kind"):
        cloud_layer(NamedLayer(path), scene)
    with pytest.raises(InputError, match="holds float32, no scl"):
        cloud_layer(NamedLayer(str(write(tmp_path / "f.tif", values.astype(np.float32))), "scl"), scene)
    with pytest.raises(OptionError, match="give auto, none, or a file"):
        check_layer_name("scl:")


@pytest.mark.parametrize("pixel", [20, 60, 5, 10 / 3])
def test_a_layer_of_other_pixels_lies_by_its_georeference(scene: RasterInfo, tmp_path: Path, pixel: float) -> None:
    count = round(SIDE * 10 / pixel) + 4
    y = (np.arange(count) - 2 + 0.5) * pixel  # begins two pixels up and left of the scene
    cloudy = (y[:, None] > 90) & (y[None] < 130)
    grid = Affine(pixel, 0, CORNER[0] - 2 * pixel, 0, -pixel, CORNER[1] + 2 * pixel)
    path = write(tmp_path / "m.tif", cloudy.astype(np.uint8), transform=grid)
    result = ~clear(scene, NamedLayer(str(path)))
    for row in range(SIDE):
        for col in range(SIDE):
            at = [(10 * k + 5) / pixel + 2 for k in (row, col)]
            if pixel > 10:
                wanted = cloudy[int(at[0]), int(at[1])]
            else:  # any of the finer pixels
                half = 5 / pixel
                rows, cols = (slice(round(v - half), round(v + half)) for v in at)
                wanted = cloudy[rows, cols].any()
            assert result[row, col] == wanted, (row, col)


def test_a_layer_in_another_crs(scene: RasterInfo, tmp_path: Path) -> None:
    turn = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    west, south, east, north = turn.transform_bounds(CORNER[0], CORNER[1] - 240, CORNER[0] + 240, CORNER[1])
    step = 0.00002
    affine = Affine(step, 0, west - 5 * step, 0, -step, north + 5 * step)
    height, width = int((north - south) / step) + 10, int((east - west) / step) + 10
    lon, lat = np.meshgrid(affine.c + (np.arange(width) + 0.5) * step, affine.f - (np.arange(height) + 0.5) * step)
    x, y = turn.transform(lon, lat, direction="INVERSE")
    cloudy = (x > CORNER[0] + 60) & (x < CORNER[0] + 140) & (y < CORNER[1] - 60) & (y > CORNER[1] - 120)
    path = write(tmp_path / "m.tif", cloudy.astype(np.uint8), transform=affine, crs="EPSG:4326")
    result = ~clear(scene, NamedLayer(str(path)))
    assert result[6:12, 6:14].all()
    assert result.sum() <= 8 * 10


def test_a_layer_that_does_not_cover_the_raster_gives_one_line(scene: RasterInfo, tmp_path: Path) -> None:
    path = write(tmp_path / "part.tif", np.zeros((SIDE, SIDE // 2), np.uint8))
    with pytest.raises(InputError, match=r"part\.tif: the cloud mask covers only 50\.0% of .*scene\.tif"):
        cloud_layer(NamedLayer(str(path)), scene)
    away = write(tmp_path / "away.tif", np.zeros((SIDE, SIDE), np.uint8), transform=Affine(10, 0, 0, 0, -10, 0))
    with pytest.raises(InputError, match=r"away\.tif: does not overlap .* it is the cloud mask of .*scene\.tif"):
        cloud_layer(NamedLayer(str(away)), scene)
    with pytest.raises(InputError, match="no such file"):
        cloud_layer(NamedLayer(str(tmp_path / "nothing.tif")), scene)


def test_clouds_everywhere_are_refused(scene: RasterInfo, tmp_path: Path) -> None:
    layer = cloud_layer(NamedLayer(str(write(tmp_path / "m.tif", np.ones((SIDE, SIDE), np.uint8)))), scene)
    with pytest.raises(InputError, match=r"is cloudy everywhere, by .*m\.tif \(all values but 0\)"):
        with_layer(scene, layer)


def test_cloudy_pixels_are_missing_for_readers(scene: RasterInfo, tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:9, 10:15] = 1
    cloudy, share = with_layer(scene, cloud_layer(NamedLayer(str(write(tmp_path / "m.tif", mask))), scene))
    assert share == pytest.approx(25 / SIDE**2)
    with RasterReader(cloudy, (2, 1)) as reader:
        _, valid = reader.read(Window(-2, 3, SIDE, SIDE))
        rows, _ = reader.known_places(SIDE)
    np.testing.assert_array_equal(valid[0, 2:, : SIDE - 3], (mask == 0)[: SIDE - 2, 3:])
    np.testing.assert_array_equal(valid[0], valid[1])
    assert len(rows) == SIDE**2 - 25


def test_clouds_do_not_spread_in_a_warp(tmp_path: Path) -> None:
    values = np.full((1, SIDE, SIDE), 1000, np.uint16)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:16, 8:16] = 1
    values[0][mask == 1] = 9000
    values[0, 20:, 20:] = 0
    path = write(tmp_path / "ref.tif", values, nodata=0)
    info = inspect(path, "reference")
    info, _ = with_layer(info, cloud_layer(NamedLayer(str(write(tmp_path / "m.tif", mask))), info))
    target = output_geobox(scene_geobox(replace(info, transform=(10, 0, CORNER[0] + 3, 0, -10, CORNER[1] - 3))), 2)
    with WarpedReader(info, (1,), target) as reader:
        image, valid = reader.read(Window(0, 0, 2 * SIDE, 2 * SIDE))
    assert not valid[18:28, 18:28].any()
    assert not valid[42:, 42:].any()
    assert valid[:14, :46].all()
    assert set(np.unique(image[0][valid]).round(2).tolist()) == {1000.0}
