"""The output is exactly on the scene's grid, and an identity restorer gives back the scene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from rasterio.enums import ColorInterp

from geo_refdiff import upscale
from geo_refdiff.restore.restorers import Classical, Conditions


class Identity(Classical):
    """Nearest neighbour, through windows with a halo and a cross-fade."""

    name = "identity"
    window = 64
    halo = 13
    overlap = 10

    def restore(self, batch: Conditions) -> torch.Tensor:
        scale = self.sensor.scale
        return batch.inner_lr.repeat_interleave(scale, -1).repeat_interleave(scale, -2)


GRIDS = {
    "north-up": Affine(40, 0, 485_904, 0, -40, 5_209_248),
    "south-up": Affine(40, 0, 485_904, 0, 40, 5_200_000),
    "rotated": Affine.translation(485_904.3, 5_209_248.7) @ Affine.rotation(23) @ Affine.scale(40, -40),
    "oblong": Affine(30, 0, 485_910, 0, -55, 5_209_230),
    "half a pixel off": Affine(40, 0, 485_920, 0, -40, 5_209_220),
}


@pytest.mark.parametrize("transform", GRIDS.values(), ids=GRIDS)
def test_any_grid(make_raster: Any, tmp_path: Path, transform: Affine) -> None:
    values = np.random.default_rng(0).integers(1, 255, (2, 23, 31), np.uint8)
    scene = make_raster("scene.tif", values, transform=transform, names=("red", "nir"))
    result = upscale(scene, model=Identity, scale=4, out=tmp_path / "out.tif", block_size=48)
    with rasterio.open(result.out) as out, rasterio.open(scene) as source:
        assert out.crs == source.crs
        assert out.shape == (92, 124)
        for corner in ((0, 0), (124, 0), (0, 92), (124, 92)):
            assert out.transform @ corner == pytest.approx(source.transform @ (corner[0] / 4, corner[1] / 4), abs=1e-6)
        assert out.descriptions == ("red", "nir")
        assert out.nodata is None
        np.testing.assert_array_equal(out.read(), values.repeat(4, 1).repeat(4, 2))


@pytest.mark.parametrize("scale", [1, 3, 5, 16])
@pytest.mark.parametrize("shape", [(91, 117), (1, 1), (5, 70)])
def test_odd_shapes_and_scales(make_raster: Any, tmp_path: Path, scale: int, shape: tuple[int, int]) -> None:
    if scale == 16 and shape[0] == 91:
        shape = (31, 37)
    values = np.random.default_rng(1).integers(0, 256, (1, *shape), np.uint8)
    scene = make_raster("scene.tif", values)
    for model in (Identity, "bicubic"):
        result = upscale(scene, model=model, scale=scale, out=tmp_path / f"{scale}.tif", overwrite=True, block_size=112)
        with rasterio.open(result.out) as out:
            assert out.shape == (shape[0] * scale, shape[1] * scale)
            if model is Identity or scale == 1:
                np.testing.assert_array_equal(out.read(), values.repeat(scale, 1).repeat(scale, 2))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
def test_types_units_and_names_survive(make_raster: Any, tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(2)
    whole = np.dtype(dtype).kind != "f"
    values = (rng.integers(0, 200, (2, 20, 20)) if whole else rng.normal(0, 1e3, (2, 20, 20))).astype(dtype)
    if dtype == "float64":
        values = values.astype("float32").astype("float64")
    scene = make_raster("scene.tif", values, names=("B4", "B8"))
    with rasterio.open(scene, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (1e-4, 2e-4), (-0.1, 0.0), ("1", "K")
    result = upscale(scene, model=Identity, scale=2, out=tmp_path / "out.tif")
    with rasterio.open(result.out) as out:
        assert set(out.dtypes) == {dtype}
        assert out.scales == (1e-4, 2e-4)
        assert out.offsets == (-0.1, 0.0)
        assert out.units == ("1", "K")
        assert out.descriptions == ("B4", "B8")
        np.testing.assert_array_equal(out.read(), values.repeat(2, 1).repeat(2, 2))
        tags = out.tags()
        assert tags["GEO_REFDIFF_MODEL"] == "identity"
        assert tags["GEO_REFDIFF_SCALE"] == "2"
        assert out.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        for band in (1, 2):
            stats = out.tags(band)
            pixels = out.read(band).astype(float)
            assert float(stats["STATISTICS_MINIMUM"]) == pixels.min()
            assert float(stats["STATISTICS_MEAN"]) == pytest.approx(pixels.mean(), abs=1e-3)
            assert float(stats["STATISTICS_STDDEV"]) == pytest.approx(pixels.std(), rel=1e-6)


def footprint(make_raster: Any, kind: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """A scene with a hole of odd shape in a corner and one inside; and its values and validity (C, h, w)."""
    rng = np.random.default_rng(3)
    dtype = "float32" if kind in ("nan", "nodata and nan") else "uint8"
    values = rng.integers(0, 4, (3, 27, 33)).astype(dtype)
    holes = np.zeros((27, 33), bool)
    holes[:9, 20:] = holes[15:18, 5:7] = holes[20, 30] = True
    values[:, ~holes & (values == 0).all(0)] = 1
    valid = np.repeat(~holes[None], 3, 0)
    if kind == "nodata":
        values[:, holes] = 0
        return make_raster("scene.tif", values, nodata=0), values, valid
    if kind == "nan":
        values[:, holes] = np.nan
        values[1, 3, 3] = np.nan
        valid[1, 3, 3] = False
        return make_raster("scene.tif", values), values, valid
    if kind == "nodata and nan":
        values[:, holes] = -9999
        values[2, 12:14, 3] = np.nan
        valid[2, 12:14, 3] = False
        return make_raster("scene.tif", values, nodata=-9999), values, valid
    mask = np.where(holes, 0, 255).astype(np.uint8)
    if kind == "mask":
        return make_raster("scene.tif", values, mask=mask), values, valid
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    path = make_raster(
        "scene.tif", np.concatenate([values, mask[None]]), colorinterp=colours, photometric="rgb", alpha="yes"
    )
    return path, values, valid


@pytest.mark.parametrize("kind", ["nodata", "nan", "nodata and nan", "alpha", "mask"])
@pytest.mark.parametrize("model", [Identity, "bicubic", "bicubic-ibp"])
def test_missing_pixels_keep_their_exact_footprint(make_raster: Any, tmp_path: Path, kind: str, model: Any) -> None:
    scene, values, valid = footprint(make_raster, kind)
    result = upscale(scene, model=model, scale=4, out=tmp_path / "out.tif", block_size=64, window=160)
    fine_valid = valid.repeat(4, 1).repeat(4, 2)
    with rasterio.open(result.out) as out:
        assert out.count == 3
        pixels = out.read()
        if kind in ("alpha", "mask"):
            np.testing.assert_array_equal(out.dataset_mask() > 0, fine_valid[0])
        elif kind == "nodata":
            assert out.nodata == 0
            np.testing.assert_array_equal(~(pixels == 0).all(0), fine_valid[0])
        else:
            missing = np.isnan(pixels) | (pixels == -9999)
            np.testing.assert_array_equal(~missing, fine_valid)
        known = pixels[fine_valid]
        assert np.isfinite(known).all()
        if model is Identity:
            np.testing.assert_array_equal(known, values.repeat(4, 1).repeat(4, 2)[fine_valid])
        else:
            assert known.min() >= -20
            assert known.max() <= 20


def test_holes_do_not_bleed(make_raster: Any, tmp_path: Path) -> None:
    values = np.full((1, 30, 30), 200, np.uint8)
    values[:, 10:20, 10:20] = 0
    scene = make_raster("scene.tif", values, nodata=0)
    for model in ("bicubic", "bicubic-ibp"):
        result = upscale(scene, model=model, scale=8, out=tmp_path / f"{model}.tif")
        with rasterio.open(result.out) as out:
            pixels = out.read(1)
            assert np.unique(pixels[pixels != 0]).tolist() == [200]


def test_a_dark_valid_pixel_is_no_hole(make_raster: Any, tmp_path: Path) -> None:
    values = np.full((2, 20, 20), 3, np.uint8)
    values[0, 5:15, 5:15] = 0
    values[:, 0, :] = 0
    result = upscale(make_raster("scene.tif", values, nodata=0), model="bicubic", scale=4, out=tmp_path / "out.tif")
    with rasterio.open(result.out) as out:
        holes = (out.read() == 0).all(0)
    assert holes[:4].all()
    assert not holes[4:].any()


@pytest.mark.parametrize("kind", ["nodata", "mask", "nan"])
@pytest.mark.parametrize("share", [0, 1])
def test_blocks_without_any_valid_pixel(make_raster: Any, tmp_path: Path, kind: str, share: int) -> None:
    values = np.full((2, 32, 32), 9, "float32" if kind == "nan" else "uint8")
    valid = np.zeros((32, 32), bool)
    valid[:5, : 20 * share] = True
    mask = np.where(valid, 255, 0).astype(np.uint8) if kind == "mask" else None
    if kind != "mask":
        values[:, ~valid] = np.nan if kind == "nan" else 0
    scene = make_raster("scene.tif", values, mask=mask, nodata=0 if kind == "nodata" else None)
    out = upscale(scene, model="bicubic", scale=4, block_size=32, out=tmp_path / "out.tif").out
    with rasterio.open(out) as dataset:
        pixels = dataset.read()
        actual = np.isfinite(pixels[0]) if kind == "nan" else dataset.dataset_mask() > 0
        assert dataset.transform.a == 10
    np.testing.assert_array_equal(actual, valid.repeat(4, 0).repeat(4, 1))
    assert (pixels[:, actual] == 9).all()
