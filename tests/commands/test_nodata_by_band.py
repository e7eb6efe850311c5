"""Fill values of whole numbers that stand in one band alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from geo_refdiff.commands.upscale import upscale
from geo_refdiff.raster.cog import add_overviews
from geo_refdiff.validate.validation import validate_product

SIDE, SCALE = 72, 8


@pytest.fixture
def make_scene(make_raster: Any, make_texture: Any) -> Any:
    """A scene of three bands with a hole in the second: make_scene(dtype, nodata, offset) -> path."""

    def make(dtype: str, nodata: float, offset: float = 0.0) -> Path:
        values = (1000 + 3000 * make_texture((3, SIDE, SIDE), seed=5)).astype(dtype)
        values[1, 10:12, 10:12] = nodata
        path = Path(make_raster("scene.tif", values, nodata=nodata, names=("red", "green", "blue")))
        with rasterio.open(path, "r+") as dataset:
            dataset.offsets = (offset,) * 3
        return path

    return make


@pytest.mark.parametrize(
    ("dtype", "nodata", "offset"),
    [("int16", -9999, 0), ("int16", -32768, 0), ("int32", -99999, 0), ("int16", 32767, 0), ("uint16", 0, -0.1)],
)
def test_they_are_missing_in_that_band_to_the_pixel(
    make_scene: Any, tmp_path: Path, dtype: str, nodata: float, offset: float
) -> None:
    scene, out = make_scene(dtype, nodata, offset), tmp_path / "o.tif"
    result = upscale(scene, model="bicubic-ibp", scale=SCALE, out=out)
    assert not [note for note in result.notes if "nodata" in note]
    hole = np.zeros((SIDE, SIDE), bool)
    hole[10:12, 10:12] = True
    for factor in (1, 2):
        with rasterio.open(out) as dataset:
            shape = (3, dataset.height // factor, dataset.width // factor)
            values = dataset.read(out_shape=shape)
            if factor > 1:
                assert factor in dataset.overviews(1)
        missing = values == nodata
        assert np.array_equal(missing[1], np.repeat(np.repeat(hole, SCALE // factor, 0), SCALE // factor, 1))
        assert not missing[[0, 2]].any()
        assert 0 < values[~missing].min() <= values[~missing].max() < 6000
    assert validate_product(out, scene).broken == []
    with rasterio.open(out, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
        values = dataset.read(2)
        values[80:96, 80:96] = 2000
        dataset.write(values, 2)
    assert "pixels lost, 256 invented" in " ".join(validate_product(out, scene).broken)


def test_every_overview_knows_them(make_scene: Any, tmp_path: Path) -> None:
    rasterio.shutil.copy(make_scene("uint16", 0, -0.1), tmp_path / "mosaic.vrt", driver="VRT")
    (tmp_path / "levels").mkdir()
    add_overviews(tmp_path / "mosaic.vrt", tmp_path / "levels", least=3)
    for factor, hole in ((2, 1), (4, 0), (8, 0)):
        with rasterio.open(tmp_path / "levels" / f"overview_{factor}.tif") as dataset:
            values = dataset.read()
        assert (values == 0).sum() == hole
        assert values[values > 0].min() > 900


def test_a_zero_that_may_be_measured_is_kept_and_reported(make_scene: Any, tmp_path: Path) -> None:
    scene, out = make_scene("uint16", 0), tmp_path / "o.tif"
    result = upscale(scene, model="bicubic-ibp", scale=SCALE, out=out)
    assert [note for note in result.notes if note.startswith("0, the nodata value, stands in band 2 where other bands")]
    assert validate_product(out, scene).broken == []


def test_those_of_a_reference_do_not_spoil_what_is_beside_them(
    make_raster: Any, make_texture: Any, tmp_path: Path
) -> None:
    fine = 1000 + 3000 * make_texture((3, 96, 96), seed=6)
    scene = make_raster(
        "s.tif", fine.reshape(3, 24, 4, 24, 4).mean((2, 4)).astype("int16"), names=("red", "green", "blue")
    )
    old = fine.astype("int16")
    old[1, 40:48, 40:48] = -9999
    ref = make_raster("r.tif", old, pixel=10.0, nodata=-9999, names=("red", "green", "blue"))
    upscale(scene, ref=ref, model="matched-ref", coregister="off", out=tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as dataset:
        values = dataset.read()
    assert values.min() > 0
    assert np.abs(values - fine)[:, :32].max() < 400
