"""`ds.refdiff.upscale`: bands as variables."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import xarray

from geo_refdiff.errors import InputError

Opened = Callable[..., xarray.DataArray]
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
"""rasterio hides its own while it rasterises, which other threads undo."""

OPTIONS: dict[str, Any] = {"model": "matched-ref", "coregister": "off"}


@pytest.fixture
def dataset(make_pair: Any, opened: Opened) -> tuple[xarray.Dataset, Path, Path]:
    """A scene with its bands as variables, and the files of scene and reference."""
    scene, ref = make_pair(16, 20)
    with rasterio.open(scene, "r+") as file:
        file.nodata = 0
    result = opened(scene, {"x": 8, "y": 8}).to_dataset(dim="band").rename({1: "red", 2: "green", 3: "blue"})
    for name in result.data_vars:
        result[name] = result[name].assign_attrs(long_name=name, sensor="x").rio.write_nodata(0)
    return result, scene, ref


def test_a_dataset_gives_the_commands_pixels(dataset: Any, command: Callable[..., np.ndarray]) -> None:
    scene, file, ref = dataset
    lazy = scene.assign_attrs(place="here").refdiff.upscale(ref=ref, block_size=128, **OPTIONS)
    assert isinstance(lazy, xarray.Dataset)
    assert list(lazy.data_vars) == ["red", "green", "blue"]
    assert lazy.red.chunks == ((128,), (128, 32))
    assert (lazy.attrs["place"], lazy.green.attrs["sensor"], lazy.green.attrs["long_name"]) == ("here", "x", "green")
    assert lazy.red.rio.nodata == 0
    assert lazy.rio.crs == scene.rio.crs
    wanted = command(file, ref=ref, products=None, **OPTIONS)
    for name, pixels in zip(("red", "green", "blue"), wanted, strict=True):
        np.testing.assert_array_equal(lazy[name].values, pixels)


def test_a_reference_may_be_a_dataset_and_a_step_of_time_a_scene(dataset: Any, opened: Opened) -> None:
    scene, _, ref = dataset
    fine = opened(ref).to_dataset(dim="band").rename({1: "red", 2: "green", 3: "blue"})
    cube = xarray.concat([scene, scene], "time", data_vars="all")
    lazy = cube.refdiff.upscale(ref=fine, **OPTIONS)
    assert lazy.blue.dims == ("time", "y", "x")
    with rasterio.open(ref) as open_ref:
        single = scene.refdiff.upscale(ref=open_ref, **OPTIONS)
    np.testing.assert_array_equal(lazy.blue[1].values, single.blue.values)


def test_variables_that_do_not_go_together_are_reported(dataset: Any) -> None:
    scene, _, _ = dataset
    for other, output in (
        (scene.red.astype("uint16"), "the data type of 'other' is uint16, of 'red' uint8"),
        (scene.red.expand_dims("time"), "the dimensions of 'other' is"),
        (scene.red.rio.write_nodata(9), "the nodata value of 'other' is 9.0, of 'red' 0.0"),
    ):
        with pytest.raises(InputError) as caught:
            scene.assign(other=other).refdiff.upscale(model="bicubic", scale=2)
        assert output in str(caught.value)
    with pytest.raises(InputError, match="name those of pixels y and x"):
        xarray.Dataset({"a": ("t", [1, 2])}).refdiff.upscale(model="bicubic", scale=2)
    kept = scene.assign(count=((), 3)).refdiff.upscale(model="bicubic", scale=2)
    assert "count" not in kept


def test_polygons_go_with_arrays(dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scene, _, ref = dataset
    west, north = 485_904.0, 5_209_248.0
    area = shapely.box(west + 90, north - 270, west + 270, north - 90)
    frame = geopandas.GeoDataFrame(geometry=[area], crs="EPSG:26914")
    lazy = scene.refdiff.upscale(ref=ref, aoi=frame.to_crs(4326), mask=area, **OPTIONS)
    assert dict(lazy.sizes) == {"y": 40, "x": 40}
    assert lazy.red.values.any()


def test_a_missing_nodata_value_is_reported(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    scene, _, _ = dataset
    with caplog.at_level(logging.WARNING, "geo_refdiff.xarray"):
        scene.refdiff.upscale(model="bicubic", scale=2)
        assert not caplog.messages
        scene.red.rio.write_nodata(None).refdiff.upscale(model="bicubic", scale=2)
    assert caplog.messages == ["the array has no nodata value: all pixels are data; else say it: .rio.write_nodata(0)"]
