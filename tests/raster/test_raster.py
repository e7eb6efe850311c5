"""Inspecting and reading rasters on their own grid."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_refdiff.errors import InputError
from geo_refdiff.raster.geobox import scene_geobox
from geo_refdiff.raster.info import Role as RasterRole
from geo_refdiff.raster.info import inspect
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.vrt import VirtualRaster, with_bands_of
from geo_refdiff.raster.window import Window

GRID = {"crs": "EPSG:26914", "transform": Affine(5, 0, 485900, 0, -5, 5209245)}


def write(path: Path, values: Any, *, mask: Any = None, **profile: Any) -> Path:
    count, height, width = values.shape
    settings_ = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype.name}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **{**settings_, **GRID, **profile}) as out,
    ):
        out.write(values)
        if mask is not None:
            out.write_mask(mask)
    return path


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pixels that say where they are: band 1 the row, band 2 the column."""
    rows, cols = np.mgrid[0:91, 0:117].astype(np.uint16)
    path = tmp_path_factory.mktemp("coded") / "coded.tif"
    return write(path, np.stack([rows, cols]), tiled=True, blockxsize=32, blockysize=32)


@settings(max_examples=40)
@given(st.integers(-30, 100), st.integers(-30, 130), st.integers(1, 60), st.integers(1, 60))
def test_any_window_inside_or_outside(coded: Path, row: int, col: int, height: int, width: int) -> None:
    window = Window(row, col, height, width)
    with RasterReader(inspect(coded, "scene"), (2, 1)) as reader:
        values, valid = reader.read(window)
    rows, cols = np.mgrid[row : row + height, col : col + width]
    inside = (rows >= 0) & (rows < 91) & (cols >= 0) & (cols < 117)
    np.testing.assert_array_equal(valid, np.stack([inside, inside]))
    np.testing.assert_array_equal(values, np.where(inside, np.stack([cols, rows]), 0))


def test_a_dark_pixel_is_not_a_hole(tmp_path: Path) -> None:
    values = np.full((3, 8, 8), 9, np.uint8)
    values[0, 0, 0] = 0
    values[:, 1, 1] = 0
    values[:2, 2, 2] = 0
    info = inspect(write(tmp_path / "a.tif", values, nodata=0), "scene")
    assert (info.validity, info.nodata) == ("nodata", 0.0)
    for bands in ((1, 2, 3), (1,), (2, 1)):
        with RasterReader(info, bands) as reader:
            _, valid = reader.read(Window(0, 0, 8, 8))
        assert np.argwhere(~valid.all(axis=0)).tolist() == [[1, 1]]


@pytest.mark.parametrize(("dtype", "nodata"), [("float32", -9999.0), ("float64", 1e20), ("float32", 0), ("uint8", 255)])
def test_a_nodata_value_in_one_band_is_missing_there_if_nobody_measures_it(
    tmp_path: Path, dtype: str, nodata: float
) -> None:
    values = np.ones((2, 8, 8), dtype)
    values[1, 3, 4] = nodata
    values[:, 5, 5] = nodata
    with RasterReader(inspect(write(tmp_path / "a.tif", values, nodata=nodata), "scene"), (1, 2)) as reader:
        _, valid = reader.read(Window(0, 0, 8, 8))
    alone = [[1, 3, 4]] if dtype != "uint8" and nodata else []
    assert np.argwhere(~valid).tolist() == sorted([[0, 5, 5], *alone, [1, 5, 5]])


def test_nan_alpha_and_mask(tmp_path: Path) -> None:
    values = np.ones((2, 8, 8), np.float32)
    values[0, 3, 4], values[1, 5, 6] = np.nan, np.inf
    info = inspect(write(tmp_path / "nan.tif", values), "scene")
    assert info.validity == "nan"
    with RasterReader(info, (1, 2)) as reader:
        _, valid = reader.read(Window(0, 0, 8, 8))
    assert np.argwhere(~valid).tolist() == [[0, 3, 4], [1, 5, 6]]

    seen = np.full((8, 8), 255, np.uint8)
    seen[2, 3] = 0
    masked = inspect(write(tmp_path / "mask.tif", np.ones((3, 8, 8), np.uint8), mask=seen), "scene")
    rgba = np.concatenate([np.ones((3, 8, 8), np.uint8), seen[None]])
    alpha = inspect(write(tmp_path / "alpha.tif", rgba, photometric="rgb", alpha="yes"), "scene")
    assert (masked.validity, alpha.validity, alpha.data_bands) == ("mask", "alpha", (1, 2, 3))
    for info in (masked, alpha):
        with RasterReader(info, (3, 1)) as reader:
            _, valid = reader.read(Window(0, 0, 8, 8))
        assert np.argwhere(~valid).tolist() == [[0, 2, 3], [1, 2, 3]]


def test_info_of_a_file_that_says_much(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((2, 8, 9), np.float32), nodata=np.nan)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("red", "nir")
        dataset.scales, dataset.offsets, dataset.units = (0.5, 2.0), (0.0, -1.0), ("m", "W")
    info = inspect(path, "scene")
    assert info.nodata is not None
    assert np.isnan(info.nodata)
    assert (info.descriptions, info.scales, info.units) == (("red", "nir"), (0.5, 2.0), ("m", "W"))
    assert (info.width, info.height, info.size_bytes) == (9, 8, path.stat().st_size)


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.tif", np.ones((1, 8, 8), np.uint8))
    monkeypatch.chdir(tmp_path)
    assert inspect("a.tif", "mask").path == str(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("profile", "role", "says"),
    [
        ({"crs": None}, "scene", "no CRS.*-a_srs"),
        ({"crs": 'LOCAL_CS["field",UNIT["metre",1]]'}, "scene", "local.*field"),
        ({"transform": Affine(5, 10, 0, 2.5, 5, 0)}, "reference", "singular"),
        ({"dtype": "complex64"}, "scene", "complex"),
        ({"count": 2}, "mask", "2 bands"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, profile: dict[str, Any], role: RasterRole, says: str) -> None:
    values = np.ones((profile.pop("count", 1), 8, 8), profile.pop("dtype", "uint8"))
    with pytest.raises(InputError, match=says) as caught:
        inspect(write(tmp_path / "bad.tif", values, **profile), role)
    assert str(tmp_path / "bad.tif") in str(caught.value)


def test_files_that_are_no_rasters(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("not a raster")
    os.mkfifo(tmp_path / "pipe.tif")
    cases = {"missing.tif": "no such file", "empty.tif": "0 bytes", "text.tif": "cannot be opened",
             "pipe.tif": "not a regular file", ".": "a folder"}  # fmt: skip
    for name, says in cases.items():
        with pytest.raises(InputError, match=says):
            inspect(tmp_path / name, "scene")


def test_a_file_cut_short(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (1, 300, 300), np.uint8)
    path = write(tmp_path / "cut.tif", values, tiled=True, blockxsize=64, blockysize=64)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(InputError, match=r"cannot be read at row .*fetch it again"):
        inspect(path, "scene")


def test_damage_in_the_middle_is_reported_when_it_is_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9, (1, 320, 320), np.uint8)
    path = write(tmp_path / "bad.tif", values, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    with rasterio.open(path) as dataset:
        offset = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset : offset + 200] = b"\xff" * 200
    path.write_bytes(data)
    info = inspect(path, "scene")
    with RasterReader(info, (1,)) as reader:
        reader.read(Window(0, 0, 60, 60))
        with pytest.raises(InputError, match=r"bad\.tif: cannot be read in Window\(row=64"):
            reader.read(Window(64, 64, 64, 64))


def test_a_palette_may_be_a_mask_only(tmp_path: Path) -> None:
    path = write(tmp_path / "classes.tif", np.ones((1, 8, 8), np.uint8), photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255)})
    assert inspect(path, "mask").colorinterp == ("palette",)
    with pytest.raises(InputError, match=r"palette.*-expand rgb"):
        inspect(path, "scene")


@pytest.mark.parametrize("named", [True, False])
def test_near_infrared_that_gdal_flags_as_alpha_is_a_band(tmp_path: Path, named: bool) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "rgbn.tif"
    profile = {"driver": "GTiff", "count": 4, "height": 50, "width": 60, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", **profile, transform=Affine(8, 0, 500000, 0, -8, 5000000)) as target:
        target.write(rng.integers(1, 250, (4, 50, 60), dtype=np.uint8))
        if named:
            target.set_band_description(4, "nir")
        assert target.colorinterp[3].name == "alpha"
    info = inspect(path, "scene")
    assert (info.data_bands, info.validity) == ((1, 2, 3, 4), "none")
    with RasterReader(info, (4,)) as reader:
        assert reader.read(Window(0, 0, 50, 60))[1].all()
    output = with_bands_of(VirtualRaster(scene_geobox(info), "uint8", 2, ()), info, (4, 1))
    assert output.colorinterp == ("undefined", "red")
    assert output.descriptions == ("nir" if named else None, None)


@pytest.mark.parametrize(("dtype", "opaque", "edge"), [
    ("uint8", 255, 128), ("uint8", 1, 0), ("uint16", 1, 0), ("uint16", 255, 100), ("uint16", 65535, 1),
])  # fmt: skip
def test_alpha_of_0_and_one_other_value_is_alpha_even_with_soft_edges(
    tmp_path: Path, dtype: str, opaque: int, edge: int
) -> None:
    path = tmp_path / "rgba.tif"
    alpha = np.full((50, 60), opaque, dtype)
    alpha[:, :10], alpha[:, 10:12] = 0, edge
    profile = {"driver": "GTiff", "count": 4, "height": 50, "width": 60, "dtype": dtype, "crs": "EPSG:32633"}
    profile |= {"photometric": "rgb", "alpha": "yes"}
    with rasterio.open(path, "w", **profile, transform=Affine(8, 0, 500000, 0, -8, 5000000)) as target:
        target.write(np.stack([np.full((50, 60), 90, dtype)] * 3 + [alpha]))
    info = inspect(path, "scene")
    assert (info.data_bands, info.validity) == ((1, 2, 3), "alpha")


def test_near_infrared_of_dark_water_is_no_alpha(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    nir = np.where(rng.random((50, 60)) < 0.97, 7, rng.integers(1, 7, (50, 60))).astype(np.uint8)
    profile = {"driver": "GTiff", "count": 4, "height": 50, "width": 60, "dtype": "uint8", "crs": "EPSG:32633"}
    path = tmp_path / "rgbn.tif"
    with rasterio.open(path, "w", **profile, transform=Affine(8, 0, 500000, 0, -8, 5000000)) as target:
        target.write(np.stack([np.full((50, 60), 90, np.uint8)] * 3 + [nir]))
        assert target.colorinterp[3].name == "alpha"
    assert inspect(path, "scene").data_bands == (1, 2, 3, 4)
