"""Reference and mask in other grids, other units, or missing in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from scipy import ndimage

from geo_refdiff import upscale
from geo_refdiff.engine.conditions import ConditionReader
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.raster.window import Window

UTM13 = "EPSG:26913"


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read().astype(float)


def detail(image: np.ndarray) -> np.ndarray:
    return image - ndimage.gaussian_filter(image, (0, 2, 2))


@pytest.mark.parametrize("crs", ["EPSG:4326", UTM13])
def test_a_reference_in_another_crs_lands_in_place(make_pair: Any, reprojected: Any, tmp_path: Path, crs: str) -> None:
    scene, ref = make_pair()
    same = pixels(upscale(scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "same.tif").out)
    moved = upscale(scene, ref=reprojected(ref, crs), model="matched-ref", scale=8, out=tmp_path / "moved.tif").out
    inner = (slice(None), slice(40, -40), slice(40, -40))
    a, b = detail(same)[inner], detail(pixels(moved))[inner]
    here = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert here > 0.9
    for rows, cols in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        shifted = np.roll(b, (rows, cols), (1, 2))
        assert np.corrcoef(a.ravel(), shifted.ravel())[0, 1] < here - 0.01


def test_south_up_scene_with_a_north_up_reference(make_pair: Any, make_raster: Any, tmp_path: Path) -> None:
    scene, ref = make_pair()
    with rasterio.open(scene) as dataset:
        values, transform = dataset.read(), dataset.transform
    flipped = make_raster(
        "flipped.tif", values[:, ::-1], transform=transform @ Affine.translation(0, 40) @ Affine.scale(1, -1)
    )
    north = pixels(upscale(scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "n.tif").out)
    south = pixels(upscale(flipped, ref=ref, model="matched-ref", scale=8, out=tmp_path / "s.tif").out)
    assert np.abs(south[:, ::-1] - north).max() <= 1


@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_a_reference_in_other_units_is_matched(make_pair: Any, make_raster: Any, tmp_path: Path, kind: str) -> None:
    scene, ref = make_pair()
    same = upscale(scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "same.tif").out
    numbers = pixels(ref)
    other = (numbers * 37 + 500).astype("uint16") if kind == "uint16" else (numbers / 25_500).astype("float32")
    actual = upscale(
        scene, ref=make_raster("other.tif", other, pixel=5), model="matched-ref", scale=8, out=tmp_path / "o.tif"
    ).out
    assert np.abs(pixels(actual) - pixels(same)).mean() < 1.5


def test_a_reference_that_covers_a_part(make_pair: Any, make_raster: Any, tmp_path: Path) -> None:
    scene, ref = make_pair()
    half = make_raster("half.tif", pixels(ref)[:, :, :192].astype("uint8"), pixel=5)
    result = upscale(scene, ref=half, model="matched-ref", scale=8, out=tmp_path / "part.tif")
    assert any("covers 50.0%" in note for note in result.notes)
    plain = pixels(upscale(scene, model="bicubic-ibp", scale=8, out=tmp_path / "plain.tif").out)
    actual = pixels(result.out)
    assert np.abs(actual[:, :, 300:] - plain[:, :, 300:]).max() <= 1
    assert detail(actual[:, :, :150]).std() > 1.25 * detail(actual[:, :, 300:]).std()
    outside = upscale(
        scene, ref=half, model="matched-ref", scale=8, out=tmp_path / "aoi.tif", aoi="487000,5208000,487500,5209000"
    )
    assert outside.out.exists()


def test_scale_comes_from_the_reference(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(scale=4)
    result = upscale(scene, ref=ref, model="bicubic", out=tmp_path / "out.tif")
    assert result.scale == 4
    assert "4 times finer" in result.notes[0]


def test_conditions(make_pair: Any, make_raster: Any, tiny_compact: Path) -> None:
    scene, ref = make_pair()
    with rasterio.open(ref, "r+") as dataset:
        dataset.nodata = 0
        dataset.write(np.zeros((3, 40, 40), np.uint8), window=rasterio.windows.Window(64, 80, 40, 40))
    classes = np.zeros((1, 160, 90), np.uint8)
    classes[:, 40:80, 20:60] = 2
    mask = make_raster("mask.tif", classes, pixel=10)
    planned = make_plan(scene, ref, UpscaleOptions.of(mask=mask, model=tiny_compact, scale=8))
    plan = planned.plan
    rows, cols = (v * 8 for v in plan.lr_origin)
    with ConditionReader(plan, planned.restorer) as reader:
        windows = (Window(rows, cols, 320, 384), Window(rows - 320, cols, 320, 384))
        batch = reader.conditions(reader.read(windows))
    assert batch.lr.shape == (2, 3, 44, 52)
    assert batch.ref is not None
    assert batch.mask is not None
    missing = batch.ref[0].isnan()
    assert missing[:, 80:120, 64:104].all()
    assert int(missing.sum()) == 3 * 40 * 40
    assert batch.ref[1].isnan().all()
    assert (batch.mask[0, 0, 80:160, 40:120] == 2).all()
    assert (batch.mask[0, 0, :, :180] != 255).all()
    assert (batch.mask[0, 0, :, 180:] == 255).all()
    assert (batch.mask[1] == 255).all()
    assert float(batch.lr.abs().max()) <= 1


def test_a_mask_changes_only_what_uses_it(make_pair: Any, make_raster: Any, tmp_path: Path, tiny_compact: Path) -> None:
    scene, ref = make_pair()
    mask = make_raster("mask.tif", np.ones((1, 40, 48), np.uint8))
    options: dict[str, Any] = {"model": tiny_compact, "scale": 4, "aoi": "485904,5208900,486300,5209248"}
    files = [
        upscale(scene, out=tmp_path / f"{i}.tif", **options, **more).out
        for i, more in enumerate(({"ref": ref, "mask": mask}, {"ref": ref, "mask": "none"}, {}, {"ref": ref}))
    ]
    images = [pixels(f) for f in files]
    assert (images[0] != images[1]).any()
    assert (images[1] != images[2]).any()
    tags = []
    for file in files:
        with rasterio.open(file) as dataset:
            tags.append((dataset.tags()["GEO_REFDIFF_REFERENCE"], dataset.tags()["GEO_REFDIFF_MASK"]))
    assert tags == [("yes", "yes"), ("yes", "no"), ("no", "no"), ("yes", "detected")]


def test_sixteen_bit_scene_through_a_model(
    make_pair: Any, make_raster: Any, tmp_path: Path, tiny_compact: Path
) -> None:
    scene, _ = make_pair()
    dn = (pixels(scene) * 40 + 300).astype("uint16")
    path = make_raster("dn.tif", dn, names=("red", "green", "blue"))
    result = upscale(path, model=tiny_compact, scale=4, steps=0, out=tmp_path / "out.tif")
    actual = pixels(result.out)
    assert 0 < np.median(actual) < 20_000
    assert any("no reference" in note for note in result.notes)


def test_polygons_with_names_of_classes_stop_no_method_that_uses_no_mask(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(40, 48)
    with rasterio.open(scene) as dataset:
        area, crs = shapely.box(*dataset.bounds), dataset.crs
    geopandas.GeoDataFrame({"class": ["low vegetation"]}, geometry=[area], crs=crs).to_file(tmp_path / "m.gpkg")
    options: dict[str, Any] = {"ref": ref, "mask": tmp_path / "m.gpkg", "mask_field": "class", "plan_only": True}
    planned = upscale(scene, model="matched-ref", scale=8, out=tmp_path / "o.tif", **options)
    assert "matched-ref does not use the mask" in planned.notes
