"""Scenes as arrays, and the pixels that the command makes of the same content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

pytest.importorskip("dask", reason="the accessor needs dask, xarray and rioxarray: pip install 'geo-refdiff[xarray]'")
pytest.importorskip("rioxarray", reason="the accessor needs rioxarray: pip install 'geo-refdiff[xarray]'")

import rioxarray
import xarray

import geo_refdiff.xarray  # noqa: F401  (registers the accessor)
from geo_refdiff import upscale


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """rioxarray still multiplies affines by `*`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:Use `@` matmul"))


@pytest.fixture
def opened() -> Callable[..., xarray.DataArray]:
    """A raster file as a DataArray: in memory, or lazy with `chunks`."""

    def make(path: Path, chunks: dict[str, int] | None = None, **options: Any) -> xarray.DataArray:
        array = rioxarray.open_rasterio(path, chunks=chunks, **options)
        assert isinstance(array, xarray.DataArray)
        return array if chunks else array.load()

    return make


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., np.ndarray]:
    """The pixels that `geo_refdiff.upscale` writes, (band, y, x)."""

    def make(scene: Path, **options: Any) -> np.ndarray:
        out = tmp_path / "command.tif"
        upscale(scene, out=out, overwrite=True, **options)
        with rasterio.open(out) as dataset:
            return dataset.read()

    return make
