"""Blocks to one COG: valid, complete, the same bytes every time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags
from rio_cogeo.cogeo import cog_validate

from geo_refdiff.errors import OutputError
from geo_refdiff.raster.cog import halve, publish_cog
from geo_refdiff.raster.geobox import translated
from geo_refdiff.raster.statistics import BandStatistics
from geo_refdiff.raster.vrt import VirtualRaster, read_block_tags, write_block, write_vrt
from geo_refdiff.raster.window import Window

AFFINES = {
    "north-up": Affine(0.6, 0, 485900, 0, -0.6, 5209245),
    "south-up": Affine(0.6, 0, 485900, 0, 0.6, 5209245),
    "rotated": Affine(0.5, 0.1, 485900, 0.1, -0.5, 5209245),
}


def picture(count: int, height: int, width: int, dtype: str) -> NDArray[Any]:
    rows, cols = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 40, (count, height, width))
    return (1 + (rows // 7 + cols // 5) % 200 + noise).astype(dtype)


def mosaic(
    folder: Path, image: NDArray[Any], seen: NDArray[np.uint8] | None, block: int = 256, **options: Any
) -> tuple[Path, GeoBox]:
    count, height, width = image.shape
    grid = GeoBox((height, width), options.pop("affine", AFFINES["north-up"]), "EPSG:26914")
    sources = []
    (folder / "blocks").mkdir(parents=True)
    whole = Window(0, 0, height, width)
    for window in whole.tiles(block):
        name = f"blocks/{window.row}_{window.col}.tif"
        at = window.within(whole)
        write_block(
            folder / name,
            image[:, *at],
            None if seen is None else seen[at],
            translated(grid.affine, window.row, window.col),
            "EPSG:26914",
            options.get("nodata"),
            {"INDEX": f"{window.row},{window.col}"},
        )
        sources.append((name, window))
    spec = VirtualRaster(grid, image.dtype.name, count, tuple(sources), with_mask=seen is not None, **options)
    write_vrt(folder / "mosaic.vrt", spec)
    return folder / "mosaic.vrt", grid


def check_cog(path: Path) -> None:
    valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(path) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "ZSTD"
        assert dataset.block_shapes[0] == (512, 512)
    if shutil.which("gdalinfo"):
        subprocess.run(["gdalinfo", path], check=True, capture_output=True)


@pytest.mark.parametrize("affine", AFFINES)
def test_everything_arrives(tmp_path: Path, affine: str) -> None:
    image = picture(4, 700, 1150, "uint8")
    image[:, :333, :415] = 0
    image[0, 400, 400] = 0  # dark, not missing
    statistics = tuple(BandStatistics(1, 240, 111.25 + b, 40.5, 83.1) for b in range(4))
    vrt, grid = mosaic(
        tmp_path / "work",
        image,
        None,
        affine=AFFINES[affine],
        nodata=0,
        descriptions=("red", "green", "blue", "nir"),
        scales=(0.5, 1, 1, 1),
        offsets=(-3.0, 0, 0, 0),
        units=("W", None, None, None),
        colorinterp=("red", "green", "blue", "undefined"),
        statistics=statistics,
        tags={"GEO_REFDIFF_MODEL": 'a "model" & <more>'},
    )
    out = tmp_path / "out.tif"
    publish_cog(vrt, out)
    check_cog(out)
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(), image)
        assert tuple(dataset.transform)[:6] == pytest.approx(tuple(grid.affine)[:6], rel=1e-15)
        assert dataset.crs.to_epsg() == 26914
        assert dataset.nodata == 0
        assert dataset.descriptions == ("red", "green", "blue", "nir")
        assert (dataset.scales[0], dataset.offsets[0], dataset.units[0]) == (0.5, -3.0, "W")
        assert [c.name for c in dataset.colorinterp] == ["red", "green", "blue", "undefined"]
        assert dataset.tags()["GEO_REFDIFF_MODEL"] == 'a "model" & <more>'
        for band in range(4):
            tags = dataset.tags(band + 1)
            assert {k: v for k, v in tags.items() if k.startswith("STAT")} == statistics[band].tags()
        assert dataset.overviews(1) == [2, 4]
    with rasterio.open(out, overview_level=0) as overview:
        seen = (image != 0).any(axis=0)
        np.testing.assert_array_equal(overview.read(), halve(image, seen, 0)[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif", "work"]


@pytest.mark.parametrize("block", [256, 1024])
def test_a_mask_band_arrives_with_its_overviews(tmp_path: Path, block: int) -> None:
    image = picture(3, 1100, 1300, "uint16")
    seen = np.full((1100, 1300), 255, np.uint8)
    seen[200:601, 300:901] = 0
    image[:, seen == 0] = 0
    vrt, _ = mosaic(tmp_path / "work", image, seen, block)
    out = tmp_path / "out.tif"
    publish_cog(vrt, out)
    check_cog(out)
    with rasterio.open(out) as dataset:
        assert dataset.mask_flag_enums[0] == [MaskFlags.per_dataset]
        np.testing.assert_array_equal(dataset.read_masks(1), seen)
        np.testing.assert_array_equal(dataset.read(), image)
    half, ok = halve(image, seen != 0, None)
    assert ok is not None
    with rasterio.open(out, overview_level=0) as overview:
        np.testing.assert_array_equal(overview.read_masks(1) != 0, ok)
        np.testing.assert_array_equal(overview.read()[:, ok], half[:, ok])


def test_the_same_bytes_whatever_the_blocks_and_threads(tmp_path: Path) -> None:
    image = picture(3, 900, 1300, "uint8")
    image[:, 500:600, 500:600] = 0
    outs = []
    for name, block, threads in [("a", 256, 2), ("a2", 256, 2), ("b", 256, 1), ("c", 640, 2)]:
        vrt, _ = mosaic(tmp_path / name, image, None, block, nodata=0)
        publish_cog(vrt, tmp_path / f"{name}.tif", threads=threads)
        outs.append((tmp_path / f"{name}.tif").read_bytes())
    assert all(o == outs[0] for o in outs)


def test_classes_stay_classes(tmp_path: Path) -> None:
    image = np.random.default_rng(0).choice([1, 7, 200], size=(1, 600, 1030)).astype(np.uint8)
    vrt, _ = mosaic(tmp_path / "work", image, None, nodata=255)
    publish_cog(vrt, tmp_path / "out.tif", overview_resampling="mode")
    check_cog(tmp_path / "out.tif")
    for level in (0, 1):
        with rasterio.open(tmp_path / "out.tif", overview_level=level) as overview:
            assert set(np.unique(overview.read())) == {1, 7, 200}


@pytest.mark.parametrize(("count", "dtype"), [(1, "int16"), (2, "int16"), (1, "float32")])
def test_a_mean_of_valid_pixels_is_not_missing(tmp_path: Path, count: int, dtype: str) -> None:
    image = np.tile(np.array([[-2, 2], [-2, 2]], dtype), (count, 300, 300))
    image[:, :200, :200] = 0
    vrt, _ = mosaic(tmp_path / "work", image, None, nodata=0)
    publish_cog(vrt, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif", overview_level=0) as overview:
        valid = np.ones((300, 300), bool)
        valid[:100, :100] = False
        np.testing.assert_array_equal(overview.dataset_mask() > 0, valid)
        assert np.abs(overview.read()).max() <= 1


def test_a_band_that_is_nodata_in_a_valid_pixel_counts(tmp_path: Path) -> None:
    image = np.full((2, 600, 600), 100, np.uint16)
    image[0, ::2] = 0
    vrt, _ = mosaic(tmp_path / "work", image, None, nodata=0)
    publish_cog(vrt, tmp_path / "out.tif")
    with rasterio.open(tmp_path / "out.tif", overview_level=0) as overview:
        assert np.unique(overview.read(1)).tolist() == [50]


def test_float_with_nan_and_blocks_that_are_not_there(tmp_path: Path) -> None:
    image = picture(2, 600, 600, "float32") / np.float32(7)
    image[1, 100:300, 100:300] = np.nan
    vrt, grid = mosaic(tmp_path / "work", image, None, nodata=float("nan"))
    text = vrt.read_text()
    assert text.count("blocks/512_0.tif") == 2
    (tmp_path / "work" / "part.vrt").write_text(text)
    sources = tuple((f"blocks/{r}_{c}.tif", Window(r, c, min(256, 600 - r), min(256, 600 - c)))
                    for r in (0, 256, 512) for c in (0, 256, 512) if (r, c) != (256, 256))  # fmt: skip
    write_vrt(tmp_path / "work" / "part.vrt", VirtualRaster(grid, "float32", 2, sources, nodata=float("nan")))
    publish_cog(tmp_path / "work" / "part.vrt", tmp_path / "out.tif")
    check_cog(tmp_path / "out.tif")
    image[:, 256:512, 256:512] = np.nan
    with rasterio.open(tmp_path / "out.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(), image)


def test_small_pictures_need_no_overviews(tmp_path: Path) -> None:
    image = picture(1, 91, 117, "int16")
    vrt, _ = mosaic(tmp_path / "work", image, None, nodata=-1)
    publish_cog(vrt, tmp_path / "out.tif")
    valid, errors, _ = cog_validate(tmp_path / "out.tif", strict=True, quiet=True)
    assert (valid, errors) == (True, [])
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.overviews(1) == []
        np.testing.assert_array_equal(dataset.read(), image)


def test_an_output_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    vrt, _ = mosaic(tmp_path / "work", picture(1, 64, 64, "uint8"), None)
    out = tmp_path / "out.tif"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"):
        publish_cog(vrt, out)
    assert out.read_text() == "mine"
    publish_cog(vrt, out, overwrite=True)
    with rasterio.open(out) as dataset:
        assert dataset.shape == (64, 64)
    with pytest.raises(OutputError, match="folder does not exist"):
        publish_cog(vrt, tmp_path / "nowhere" / "out.tif")


def test_a_missing_or_damaged_block_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    vrt, _ = mosaic(tmp_path / "work", picture(3, 600, 600, "uint8"), None)
    block = tmp_path / "work" / "blocks" / "256_256.tif"
    data = block.read_bytes()
    block.unlink()
    for content in (None, data[:-5000], b"nothing"):
        if content is not None:
            block.write_bytes(content)
        with pytest.raises(OutputError, match="check the block files"):
            publish_cog(vrt, tmp_path / "out.tif")
        assert [p.name for p in tmp_path.iterdir()] == ["work"]


def test_block_tags(tmp_path: Path) -> None:
    mosaic(tmp_path / "work", picture(1, 64, 64, "uint8"), None)
    assert read_block_tags(tmp_path / "work" / "blocks" / "0_0.tif")["INDEX"] == "0,0"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32"])
@pytest.mark.parametrize("shape", [(40, 60), (41, 61), (1, 7)])
def test_halving_against_plain_means(dtype: str, shape: tuple[int, int]) -> None:
    image = picture(2, *shape, dtype)
    seen = np.random.default_rng(1).random(shape) > 0.4
    for valid in (None, seen):
        half, ok = halve(image, valid, 0)
        for row in range(half.shape[1]):
            for col in range(half.shape[2]):
                rows = np.minimum([2 * row, 2 * row + 1], shape[0] - 1)
                cols = np.minimum([2 * col, 2 * col + 1], shape[1] - 1)
                good = np.ones((2, 2), bool) if valid is None else valid[np.ix_(rows, cols)]
                four = image[:, rows[:, None], cols[None]].astype(np.float64)[:, good]
                mean = four.mean(axis=1) if good.any() else np.zeros(2)
                expected = mean if dtype == "float32" else np.floor(mean + 0.5)
                np.testing.assert_allclose(half[:, row, col], expected, rtol=1e-6)
                assert ok is None or ok[row, col] == good.any()
