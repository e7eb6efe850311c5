"""Planning takes the same memory for four blocks as for two million."""

from __future__ import annotations

import tracemalloc
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from geo_refdiff.engine.workdir import Workdir
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.raster.gdal import gdal_env

SCALE = 8
BLOCK = 2048
"""output pixels, the default."""
_SIDE = 1024
_CORNER = (400_000.0, 5_800_000.0)
_EXTENT = 80_000.0
"""Metres that a scene covers, whatever its number of pixels: the CRS ends somewhere."""
_BANDS = ("red", "green", "blue")


def make_virtual(path: Path, side: int, source: Path) -> Path:
    """A VRT of `side` x `side` pixels that shows the small raster, stretched."""
    with rasterio.open(source) as dataset:
        crs, count = dataset.crs.to_wkt(), dataset.count
    pixel = _EXTENT / side
    root = ET.Element("VRTDataset", rasterXSize=str(side), rasterYSize=str(side))
    ET.SubElement(root, "SRS").text = crs
    ET.SubElement(root, "GeoTransform").text = f"{_CORNER[0]}, {pixel!r}, 0, {_CORNER[1]}, 0, {-pixel!r}"
    for index in range(count):
        band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band=str(index + 1))
        ET.SubElement(band, "Description").text = _BANDS[index]
        part = ET.SubElement(band, "SimpleSource")
        ET.SubElement(part, "SourceFilename", relativeToVRT="0").text = str(source)
        ET.SubElement(part, "SourceBand").text = str(index + 1)
        ET.SubElement(part, "SrcRect", xOff="0", yOff="0", xSize=str(_SIDE), ySize=str(_SIDE))
        ET.SubElement(part, "DstRect", xOff="0", yOff="0", xSize=str(side), ySize=str(side))
    path.write_bytes(ET.tostring(root))
    return path


def make_source(path: Path) -> Path:
    """The small raster: noise in three bands of uint8."""
    profile = {
        "driver": "GTiff", "count": 3, "height": _SIDE, "width": _SIDE, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": Affine(_EXTENT / _SIDE, 0, _CORNER[0], 0, -_EXTENT / _SIDE, _CORNER[1]), "tiled": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.random.default_rng(0).integers(1, 256, (3, _SIDE, _SIDE), np.uint8))
    return path


def peak(folder: Path, side: int, source: Path) -> tuple[int, int]:
    """(blocks, most bytes that Python held) of planning a scene of `side` x `side` pixels, up to the first block."""
    scene = make_virtual(folder / f"scene-{side}.vrt", side, source)
    tracemalloc.start()
    with gdal_env():
        plan = make_plan(
            scene,
            None,
            UpscaleOptions.of(scale=SCALE, model="bicubic", block_size=BLOCK, device="cpu", products=()),
        ).plan
    workdir = Workdir(folder / f"out-{side}.tif.parts")
    with workdir.locked():
        workdir.prepare(plan, resume=False, overwrite=False)
        assert workdir.done(plan.blocks) == set()
        assert next(plan.blocks.serpentine()) == 0
        last = plan.block(plan.blocks.count - 1)
    assert (last.stop_row, last.stop_col) == plan.shape
    assert workdir.plan.stat().st_size < 10_000
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return plan.blocks.count, held


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source.tif")


def test_memory_does_not_grow_with_the_number_of_blocks(tmp_path: Path, source: Path) -> None:
    peak(tmp_path, 500, source)  # imports and caches
    few, small = peak(tmp_path, 512, source)
    many, large = peak(tmp_path, 1415 * BLOCK // SCALE, source)
    assert (few, many) == (4, 1415**2)
    assert large < small + 2**20
