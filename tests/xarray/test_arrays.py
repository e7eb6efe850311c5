"""Grid, names and attributes: of rioxarray's arrays and of arrays in the shape of odc-stac and stackstac."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray
import xarray
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geo_refdiff.errors import InputError, OptionError, OutputError
from geo_refdiff.raster.info import inspect
from geo_refdiff.xarray.arrays import affine_of, array_info, band_names
from geo_refdiff.xarray.store import store_image

Opened = Callable[..., xarray.DataArray]
Command = Callable[..., np.ndarray]
AFFINE = Affine(40.0, 0, 485_904.0, 0, -40.0, 5_209_248.0)
NAMES = ("blue", "green", "red")


def from_odc(path: Path, steps: int = 1) -> xarray.DataArray:
    """`odc.stac.load(...).to_array("band").rio.write_nodata(0)`: (band, time, y, x), names as coordinates."""
    with rasterio.open(path) as dataset:
        pixels, crs, (a, _, c, _, e, f) = dataset.read(), dataset.crs, dataset.transform[:6]
    _, height, width = pixels.shape
    attrs = {
        "spatial_ref": crs.to_wkt(), "crs_wkt": crs.to_wkt(), "grid_mapping_name": "transverse_mercator",
        "GeoTransform": f"{c} {a} 0.0 {f} 0.0 {e}",
    }  # fmt: skip
    coords = {
        "y": ("y", f + e * (np.arange(height) + 0.5), {"units": "metre", "resolution": e, "crs": str(crs)}),
        "x": ("x", c + a * (np.arange(width) + 0.5), {"units": "metre", "resolution": a, "crs": str(crs)}),
        "spatial_ref": ((), np.int32(crs.to_epsg()), attrs),
        "time": pd.date_range("2024-05-01", periods=steps, freq="5D"),
        "band": list(NAMES),
    }
    data = np.stack([np.maximum(pixels.astype("uint16"), 1) + i for i in range(steps)], axis=1)
    return (
        xarray.DataArray(data, coords, ("band", "time", "y", "x"), attrs={})
        .chunk(time=1, x=20, y=20)
        .rio.write_nodata(0)
    )


def from_stackstac(path: Path, xy: str = "topleft") -> xarray.DataArray:
    """What `stackstac.stack` gives: (time, band, y, x) float64, NaN, upper left corners, affine and CRS in `attrs`."""
    with rasterio.open(path) as dataset:
        pixels, transform, epsg = dataset.read().astype("float64"), dataset.transform, dataset.crs.to_epsg()
    pixels[:, 4:7, 5:9] = np.nan
    _, height, width = pixels.shape
    half = 0.5 if xy == "center" else 0.0
    coords: dict[str, Any] = {
        "time": pd.date_range("2024-05-01", periods=1),
        "id": ("time", ["S2A_1"]),
        "band": ["B02", "B03", "B04"],
        "common_name": ("band", list(NAMES)),
        "title": ("band", ["Blue", "Green", "Red"]),
        "epsg": epsg,
    }
    if xy != "none":
        coords["x"] = transform.c + transform.a * (np.arange(width) + half)
        coords["y"] = transform.f + transform.e * (np.arange(height) + half)
    attrs = {"spec": "RasterSpec", "crs": f"epsg:{epsg}", "transform": transform, "resolution": 40.0}
    array = xarray.DataArray(pixels[None], coords, ("time", "band", "y", "x"), name="stackstac-1f2e", attrs=attrs)
    return array.chunk(band=1, x=32, y=32)


@pytest.fixture
def scene(make_raster: Any, make_texture: Any) -> Path:
    values = (make_texture((3, 40, 48)) * 200 + 20).astype("uint8")
    return Path(make_raster("scene.tif", values, names=NAMES))


def test_everything_of_a_raster_is_kept(scene: Path, opened: Opened, tmp_path: Path) -> None:
    array = opened(scene).assign_attrs(title="a scene", STATISTICS_MEAN=3.5).rename("reflectance")
    array.attrs["_FillValue"] = 0
    fine = array.refdiff.upscale(model="bicubic", scale=4, block_size=64)
    assert fine.name == "reflectance"
    assert fine.dims == array.dims
    assert fine.attrs["title"] == "a scene"
    assert fine.attrs["long_name"] == NAMES
    assert fine.attrs["geo_refdiff_model"] == "bicubic"
    assert "STATISTICS_MEAN" not in fine.attrs
    assert fine.rio.nodata == 0
    assert fine.rio.crs == array.rio.crs
    assert fine.band.values.tolist() == [1, 2, 3]
    fine.rio.to_raster(tmp_path / "fine.tif")
    with rasterio.open(tmp_path / "fine.tif") as dataset:
        assert dataset.transform == AFFINE @ Affine.scale(0.25)
        assert dataset.descriptions == NAMES
        assert dataset.nodata == 0
    back = opened(tmp_path / "fine.tif")
    np.testing.assert_array_equal(back.x.values, fine.x.values)
    np.testing.assert_array_equal(back.y.values, fine.y.values)


def test_the_bands_that_were_chosen_keep_their_coordinates(scene: Path, opened: Opened) -> None:
    fine = opened(scene).refdiff.upscale(model="bicubic", scale=2, bands=["red", 1])
    assert fine.band.values.tolist() == [3, 1]
    assert fine.attrs["long_name"] == ("red", "blue")


def test_order_and_number_of_dimensions_are_kept(scene: Path, opened: Opened) -> None:
    array = opened(scene)
    wanted = array.refdiff.upscale(model="bicubic", scale=2).values
    last = array.transpose("y", "x", "band").refdiff.upscale(model="bicubic", scale=2)
    assert last.dims == ("y", "x", "band")
    np.testing.assert_array_equal(last.values, wanted.transpose(1, 2, 0))
    flat = array.sel(band=2).refdiff.upscale(model="bicubic", scale=2)
    assert flat.dims == ("y", "x")
    assert flat.band == 2
    np.testing.assert_array_equal(flat.values, wanted[1])
    geo = array.rename(x="longitude", y="latitude").refdiff.upscale(model="bicubic", scale=2)
    assert geo.dims == ("band", "latitude", "longitude")


def test_what_odc_stac_gives(scene: Path, command: Command, tmp_path: Path) -> None:
    array = from_odc(scene, steps=2)
    fine = array.refdiff.upscale(model="bicubic-ibp", scale=4, block_size=64)
    assert fine.dims == ("band", "time", "y", "x")
    assert fine.dtype == np.uint16
    assert fine.chunks == ((3,), (1, 1), (64, 64, 32), (64, 64, 64))
    assert fine.band.values.tolist() == list(NAMES)
    np.testing.assert_array_equal(fine.time.values, array.time.values)
    assert fine.rio.nodata == 0
    assert fine.rio.transform() == AFFINE @ Affine.scale(0.25)
    for step in range(2):
        image = tmp_path / f"step{step}.tif"
        array.isel(time=step).rio.to_raster(image)
        np.testing.assert_array_equal(fine.isel(time=step).values, command(image, model="bicubic-ibp", scale=4))


@pytest.mark.parametrize("xy", ["topleft", "center", "none"])
def test_what_stackstac_gives(scene: Path, xy: str, make_raster: Any, command: Command) -> None:
    """Its coordinates are corners by default: half a pixel off for who takes them for centres."""
    array = from_stackstac(scene, xy)
    fine = array.refdiff.upscale(model="bicubic-ibp", scale=4, block_size=64)
    assert fine.dims == ("time", "band", "y", "x")
    assert fine.dtype == np.float64
    assert fine.rio.transform() == AFFINE @ Affine.scale(0.25)
    assert fine.x.values[0] == AFFINE.c + 5.0
    assert not {"spec", "transform", "resolution"} & set(fine.attrs)
    assert fine.rio.crs == array.rio.crs
    assert fine.title.values.tolist() == ["Blue", "Green", "Red"]
    assert fine.id.values.tolist() == ["S2A_1"]
    same = make_raster("same.tif", array.values[0], names=NAMES)
    # blocks of another size cut other windows: last digits
    np.testing.assert_allclose(fine.values[0], command(same, model="bicubic-ibp", scale=4), atol=1e-3)
    assert np.isnan(fine.values[0, :, 16:28, 20:36]).all()


def test_common_names_tell_the_models_bands(scene: Path, make_pair: Any) -> None:
    array = from_stackstac(scene)
    assert band_names(array.isel(time=0)) == NAMES
    assert band_names(array.isel(time=0).drop_vars("common_name")) == ("B02", "B03", "B04")
    twice = array.isel(time=0).assign_coords(common_name=("band", ["nir", "nir", "red"]))
    assert band_names(twice) == ("B02", "B03", "red")
    fine = array.refdiff.upscale(ref=make_pair()[1], coregister="off")  # the scene's order is kept
    assert fine.band.values.tolist() == ["B02", "B03", "B04"]


@given(
    pixel=st.sampled_from([10.0, 0.6, 30.0, 1 / 3, 8.983152841195215e-05]),
    cut=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    corner=st.tuples(st.floats(-1e6, 1e7), st.floats(-1e7, 1e7)),
    up=st.booleans(),
    how=st.sampled_from(["rioxarray", "stackstac", "coordinates"]),
)
def test_the_affine_is_found_whatever_was_cut_off(
    pixel: float, cut: tuple[int, int], corner: tuple[float, float], up: bool, how: str
) -> None:
    """To a millionth of a pixel from coordinates alone, or what float64 can tell; to the letter from an affine."""
    if pixel < 1e-3:  # degrees
        corner = corner[0] % 180, corner[1] % 80
    known = Affine(pixel, 0, corner[0], 0, pixel if up else -pixel, corner[1])
    x = known.c + known.a * (np.arange(40) + (0.0 if how == "stackstac" else 0.5))
    y = known.f + known.e * (np.arange(40) + (0.0 if how == "stackstac" else 0.5))
    array = xarray.DataArray(np.zeros((1, 40, 40), np.uint8), {"y": y, "x": x}, ("band", "y", "x"))
    if how == "stackstac":
        array.attrs["transform"] = tuple(known[:6])
    if how == "rioxarray":
        array = array.rio.write_transform(known)
    result = affine_of(array[:, cut[0] :, cut[1] :], "it")
    wanted = known @ Affine.translation(cut[1], cut[0])
    noise = 4 * np.spacing(max(abs(corner[0]), abs(corner[1]))) + 1e-6 * pixel
    assert abs(result.c - wanted.c) <= noise
    assert abs(result.f - wanted.f) <= noise
    if how != "coordinates":
        assert (result.a, result.e) == (known.a, known.e)


def test_every_second_pixel_is_twice_as_large(scene: Path, opened: Opened) -> None:
    array = opened(scene)[:, ::2, 1::2]
    assert affine_of(array, "it").almost_equals(Affine(80, 0, AFFINE.c + 20, 0, -80, AFFINE.f + 20), 1e-6)


@pytest.mark.parametrize("source", ["raster", "odc", "stackstac", "masked"])
def test_what_is_announced_is_what_the_file_says_after(
    scene: Path, opened: Opened, tmp_path: Path, source: str
) -> None:
    array = {
        "raster": lambda: opened(scene),
        "masked": lambda: opened(scene, masked=True),
        "odc": lambda: from_odc(scene).isel(time=0),
        "stackstac": lambda: from_stackstac(scene).isel(time=0),
    }[source]()
    stored = store_image(array, tmp_path, "it")
    stored.written.compute()
    stored.store.finish()
    output, result = array_info(array, stored.store.info.path, "it"), inspect(stored.store.info.path, "scene")
    assert result.mtime_ns > 0
    for key, value in asdict(output).items():
        if key not in ("size_bytes", "mtime_ns"):
            assert getattr(result, key) == (pytest.approx(value, nan_ok=True) if key == "nodata" else value), key
    with rasterio.open(stored.store.info.path) as dataset:
        np.testing.assert_array_equal(dataset.read(), array.values)


def test_one_line_for_what_cannot_be_used(scene: Path, opened: Opened, tmp_path: Path) -> None:
    array = opened(scene)
    bent = array.assign_coords(x=array.x.values + np.arange(48) ** 2)
    bent = bent.drop_vars("spatial_ref").rio.write_crs("EPSG:32614")
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: array.drop_vars("spatial_ref").refdiff.upscale(scale=2), InputError, r"has no CRS; .*write_crs"),
        (lambda: bent.refdiff.upscale(scale=2, model="bicubic"), InputError, "not evenly spaced"),
        (lambda: array.astype(complex).refdiff.upscale(scale=2), InputError, "complex128; convert it"),
        (lambda: array[:, :0].refdiff.upscale(scale=2), InputError, "is empty"),
        (lambda: array.rename(x="a", y="b").refdiff.upscale(), InputError, "name those of pixels"),
        (lambda: array.expand_dims(["t", "run"]).refdiff.upscale(), InputError, "choose with .isel"),
        (lambda: array.refdiff.upscale(out="x.tif"), OptionError, "unknown option 'out': choose of aoi, scale"),
        (lambda: array.refdiff.upscale(scale=2.5), OptionError, "whole number"),
        (lambda: array.refdiff.upscale(batch_size=0), OptionError, "batch size 0"),
        (lambda: array.refdiff.upscale(ref="none.tif"), InputError, "no such file"),
        (lambda: array.refdiff.upscale(model="bicubic", mask="none.tif"), InputError, "no such file"),
        (lambda: array.refdiff.upscale(folder=tmp_path / "no"), OutputError, "no such folder"),
        (lambda: array.refdiff.upscale(ref=from_odc(scene, 2)), InputError, "2 steps along time"),
        (lambda: array.refdiff.upscale(model="bicubic", aoi="0,0,1,1"), Exception, "is outside"),
    ]  # fmt: skip
    for make, kind, text in cases:
        with pytest.raises(kind, match=text) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_a_worker_that_does_not_see_the_folder_says_so(scene: Path, opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    fine = opened(scene, {"x": 24}).refdiff.upscale(model="bicubic", scale=2, folder=folder)
    folder.rmdir()
    with pytest.raises(InputError, match=r"no such folder on .*; give folder=, a folder that all workers share"):
        fine.compute()
    folder.mkdir()
    fine.compute()
    next(folder.glob("*/r00000_c00001.tif")).unlink()
    next(folder.glob("*/plan-*.json")).unlink()
    stored = store_image(opened(scene, {"x": 24}), folder, "it")
    with pytest.raises(InputError, match="1 of 2 chunks are not to be seen"):
        stored.store.finish()


def test_the_accessor_is_there_by_import() -> None:
    assert hasattr(xarray.DataArray, "refdiff")
    assert rioxarray.__version__
