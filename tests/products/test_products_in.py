"""Products as agencies ship them: what is read from them, and that they are upsampled like any raster."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine

from geo_refdiff.batch.catalogue import read_catalogue
from geo_refdiff.batch.run import batch
from geo_refdiff.commands.coregister import coregister
from geo_refdiff.commands.upscale import Interrupted, upscale
from geo_refdiff.engine.run import Progress
from geo_refdiff.errors import InputError, OutputError
from geo_refdiff.options import Sources
from geo_refdiff.plan.file import read_plan
from geo_refdiff.plan.same_inputs import check_inputs
from geo_refdiff.products.opening import inspect, open_product
from geo_refdiff.validate.validation import validate_product

Make = Callable[..., Path]
CRS = "EPSG:32633"
S2 = ("B02", "B03", "B04", "B08")


def run(scene: Path, out: Path, **options: Any) -> Any:
    return upscale(scene, out=out, model="bicubic-ibp", scale=2, **options)


def planned_and_done(scene: Path, out: Path) -> rasterio.DatasetReader:
    """The output of a real run, after the plan alone."""
    planned = run(scene, out, plan_only=True)
    assert planned.plan_path is not None
    assert read_plan(planned.plan_path).scene.path == str(scene)
    run(scene, out, resume=True)
    assert validate_product(out, scene).broken == []
    return rasterio.open(out)


@pytest.mark.parametrize("level", ["L2A", "L1C"])
def test_a_sentinel_2_folder(make_sentinel_2: Make, tmp_path: Path, level: str) -> None:
    folder = make_sentinel_2(level=level)
    product = open_product(folder)
    assert product is not None
    assert (product.family, product.sensor, product.taken) == (
        "Sentinel-2", f"Sentinel-2A {level}", "2022-05-03T10:20:21.024Z",
    )  # fmt: skip
    assert [b.name for b in product.bands] == list(S2)
    assert [b.common_name for b in product.bands] == ["blue", "green", "red", "nir"]
    assert [b.name for b in product.coarser] == ["B05", "B06", "B07", "B8A", "B11", "B12"]
    assert product.quality is not None
    assert product.quality.kind == ("scl" if level == "L2A" else "msk_classi")
    info = inspect(folder, "scene")
    assert (info.nodata, info.dtype, info.descriptions) == (0, "uint16", S2)
    assert info.scales == pytest.approx([1e-4] * 4)
    assert info.offsets == pytest.approx([-0.1] * 4)
    with planned_and_done(folder, tmp_path / "out.tif") as out:
        assert (out.descriptions, out.nodata, out.dtypes[0]) == (S2, 0, "uint16")
        assert (out.scales, out.offsets) == (info.scales, info.offsets)
        assert not out.read(window=((0, 6), (0, 6))).any()
        assert out.read().max() > 3000


def test_the_time_of_day_reaches_the_stac_item(make_sentinel_2: Make, tmp_path: Path) -> None:
    run(make_sentinel_2(), tmp_path / "out.tif", products="stac")
    properties = json.loads(next(tmp_path.glob("out*.json")).read_text())["properties"]
    assert properties["datetime"] == "2022-05-03T10:20:21Z"
    assert properties["geo_refdiff:datetime_from"] == "scene metadata"


def test_a_zip_is_the_folder(make_sentinel_2: Make, zip_folder: Any, tmp_path: Path) -> None:
    folder = make_sentinel_2()
    run(folder, tmp_path / "folder.tif")
    packed = zip_folder(folder, f"{folder.name}.zip")
    result = upscale(packed, model="bicubic-ibp", scale=2)
    assert result.out == tmp_path / f"{folder.stem}_2x.tif"
    with rasterio.open(result.out) as a, rasterio.open(tmp_path / "folder.tif") as b:
        assert np.array_equal(a.read(), b.read())


def test_before_baseline_4_there_is_no_offset(make_sentinel_2: Make) -> None:
    assert inspect(make_sentinel_2(baseline="03.01", offset=None), "scene").offsets == (0, 0, 0, 0)


def test_broken_sentinel_2_products_give_one_line(make_sentinel_2: Make, zip_folder: Any, tmp_path: Path) -> None:
    for options, expected in (
        ({"without": ["B03"]}, r"band B03_10m is missing \(GRANULE/.*B03_10m.jp2\)"),
        (
            {"offset": None},
            r"baseline 05.00 adds an offset .* BOA_ADD_OFFSET of B02, B03, B04, B08 is missing",
        ),
        ({"baseline": "N/A"}, "PROCESSING_BASELINE is 'N/A', no number"),
    ):
        folder = make_sentinel_2(**options)
        with pytest.raises(InputError, match=expected):
            run(folder, tmp_path / "o.tif")
        shutil.rmtree(folder)
    folder = make_sentinel_2()
    metadata = folder / "MTD_MSIL2A.xml"
    whole = metadata.read_text()
    metadata.write_text(whole[:400])
    with pytest.raises(InputError, match="is no XML"):
        inspect(folder, "scene")
    metadata.write_text(whole.replace("10000</BOA", "</BOA"))
    with pytest.raises(InputError, match="BOA_QUANTIFICATION_VALUE is missing"):
        inspect(folder, "scene")
    metadata.unlink()
    with pytest.raises(InputError, match=r"has no MTD_MSIL1C\.xml or MTD_MSIL2A\.xml"):
        inspect(folder, "scene")
    metadata.write_text(whole)
    band = next(folder.glob("**/*B03_10m.jp2"))
    jp2 = band.read_bytes()
    band.write_bytes(jp2[:60])
    with pytest.raises(InputError, match="band B03 cannot be opened"):
        inspect(folder, "scene")
    band.write_bytes(jp2)
    shutil.copy(next(folder.glob("**/*B8A_20m.jp2")), band)
    with pytest.raises(InputError, match="do not lie on one grid: B03 has 12 x 12 pixels of 20"):
        inspect(folder, "scene")
    band.write_bytes(jp2)
    packed = zip_folder(folder, f"{folder.name}.zip")
    packed.write_bytes(packed.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"cannot be read .* cut short: fetch it again"):
        inspect(packed, "scene")


@pytest.mark.parametrize(("number", "mtl", "tar"), [(8, "json", False), (9, "txt", True), (5, "xml", False)])
def test_landsat_level_2(make_landsat: Make, tmp_path: Path, number: int, mtl: str, tar: bool) -> None:
    path = make_landsat(number=number, mtl=mtl, tar=tar)
    product = open_product(path)
    assert product is not None
    assert (product.sensor, product.taken) == (f"Landsat-{number} L2SP", "2022-05-03T10:02:34Z")
    assert product.quality is not None
    assert product.quality.kind == "qa_pixel"
    names = tuple(f"SR_B{k}" for k in (range(1, 8) if number >= 8 else (1, 2, 3, 4, 5, 7)))
    with planned_and_done(path, tmp_path / "out.tif") as out:
        assert out.descriptions == names
        assert out.scales == pytest.approx([2.75e-5] * len(names))
        assert out.offsets == pytest.approx([-0.2] * len(names))
        assert out.nodata == 0


def test_landsat_level_1_is_scaled_by_its_mtl(make_landsat: Make) -> None:
    info = inspect(make_landsat(level="L1TP"), "scene")
    assert (info.descriptions[0], info.scales[0], info.offsets[0]) == ("B1", 2e-5, -0.1)


def test_broken_landsat_products_give_one_line(make_landsat: Make, tmp_path: Path) -> None:
    for options, expected in (
        ({"without": ["B4"]}, r"SR_B4.TIF is missing \(FILE_NAME_BAND_4\)"),
        ({"without": ["MTL"]}, "has no MTL file"),
    ):
        folder = make_landsat(**options)
        with pytest.raises(InputError, match=expected):
            inspect(folder, "scene")
        shutil.rmtree(folder)
    folder = make_landsat()
    mtl = next(folder.glob("*_MTL.json"))
    whole = mtl.read_text()
    for old, new, expected in (
        ('"COLLECTION_NUMBER": "02"', '"COLLECTION_NUMBER": "01"', "is of Collection 01; give Collection 2"),
        ('"PROCESSING_LEVEL": "L2SP"', '"PROCESSING_LEVEL": "L3XX"', "processing level 'L3XX' is not supported"),
        ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "OTHER", "has no group LEVEL2_SURFACE"),
        ("LANDSAT_8", "SENTINEL_2", "is none of Landsat 4 to 9"),
        ("2022-05-03", "yesterday", "DATE_ACQUIRED 'yesterday' is no date"),
        (whole[200:], "", "is no JSON"),
    ):
        mtl.write_text(whole.replace(old, new))
        with pytest.raises(InputError, match=expected):
            inspect(folder, "scene")
    shutil.rmtree(folder)
    tar = make_landsat(tar=True)
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"\.tar"):
        inspect(tar, "scene")


@pytest.mark.parametrize(("kind", "count"), [("S30", 11), ("L30", 7)])
def test_an_hls_folder(make_hls: Make, tmp_path: Path, kind: str, count: int) -> None:
    folder = make_hls(kind)
    product = open_product(folder)
    assert product is not None
    assert (product.taken, len(product.bands)) == ("2022-05-03T10:20:21Z", count)
    assert product.quality is not None
    assert product.quality.kind == "fmask"
    with planned_and_done(folder, tmp_path / "out.tif") as out:
        assert (out.dtypes[0], out.nodata, out.scales[0]) == ("int16", -9999, 1e-4)
    shutil.rmtree(folder)
    folder = make_hls(kind, without=["B04"])
    with pytest.raises(InputError, match="band B04 is missing"):
        inspect(folder, "scene")


@pytest.mark.parametrize("bands", [4, 8])
def test_a_planetscope_folder(make_planetscope: Make, tmp_path: Path, bands: int) -> None:
    folder = make_planetscope(bands=bands)
    product = open_product(folder)
    assert product is not None
    assert (product.sensor, product.taken) == ("PlanetScope SR", "2022-05-03T10:11:12Z")
    assert product.quality is not None
    assert product.quality.kind == "udm2"
    with planned_and_done(folder, tmp_path / "out.tif") as out:
        assert out.descriptions[-1] == "nir"
        assert (len(out.descriptions), out.scales[0], out.nodata) == (bands, 1e-4, 0)


def test_planetscope_radiance_becomes_reflectance(make_planetscope: Make) -> None:
    folder = make_planetscope(sr=False)
    assert inspect(folder, "scene").scales == pytest.approx([2e-5, 4e-5, 6e-5, 8e-5])
    next(folder.glob("**/*.xml")).unlink()
    with pytest.raises(InputError, match=r"the metadata file of .*AnalyticMS_clip.tif is missing"):
        inspect(folder, "scene")


@pytest.mark.parametrize(
    ("style", "properties", "offset"),
    [
        ("earth-search", {}, -0.1),
        ("earth-search", {"earthsearch:boa_offset_applied": True}, 0),
        ("planetary-computer", {"s2:processing_baseline": "04.00"}, -0.1),
        ("planetary-computer", {"s2:processing_baseline": "02.12"}, 0),
        ("stac-1.1", {"s2:processing_baseline": "05.10"}, -0.1),
    ],
)
def test_a_stac_item(make_stac_item: Make, tmp_path: Path, style: str, properties: Any, offset: float) -> None:
    item = make_stac_item(style, **properties)
    product = open_product(item)
    assert product is not None
    assert [b.common_name for b in product.bands] == ["blue", "green", "red", "nir"]
    assert [b.common_name for b in product.coarser] == ["swir16"]
    assert product.quality is not None
    assert product.quality.kind == "scl"
    with planned_and_done(item, tmp_path / "out.tif") as out:
        assert out.descriptions == S2
        assert out.offsets == pytest.approx([offset] * 4)
        assert out.scales == pytest.approx([1e-4] * 4)


def test_broken_stac_items_give_one_line(make_stac_item: Make) -> None:
    item = make_stac_item("planetary-computer", **{"s2:processing_baseline": "04.00"})
    whole = json.loads(item.read_text())
    for change, expected in (
        ({"assets": {}}, "the STAC item has no assets"),
        ({"assets": {"thumbnail": {"href": "a.png", "type": "image/png"}}}, r"none of its assets \(thumbnail\)"),
        ({"type": "Collection"}, "is no STAC item but Collection"),
        ({"properties": {"datetime": "2022-05-03T10:25:01Z", "platform": "sentinel-2a"}}, "s2:processing_baseline"),
        ({"properties": whole["properties"] | {"datetime": None}}, "its datetime 'None' is no date"),
    ):
        item.write_text(json.dumps(whole | change))
        with pytest.raises(InputError, match=expected):
            inspect(item, "scene")
    item.write_text(json.dumps(whole))
    (item.parent / "assets" / "B03.tif").unlink()
    with pytest.raises(InputError, match="band B03 cannot be opened"):
        inspect(item, "scene")


def test_an_interrupted_run_on_a_product_goes_on(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder = make_sentinel_2()

    def stop(progress: Progress) -> None:
        if progress.stage == "blocks" and progress.done >= 2:
            raise KeyboardInterrupt

    options = {"block_size": 16, "products": "none"}
    with pytest.raises(Interrupted):
        run(folder, tmp_path / "a.tif", progress=stop, **options)
    assert run(folder, tmp_path / "a.tif", resume=True, **options).counts["blocks_resumed"] >= 1
    run(folder, tmp_path / "b.tif", **options)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_a_changed_product_is_another_input(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder = make_sentinel_2()
    plan = read_plan(run(folder, tmp_path / "a.tif", plan_only=True).plan_path)
    check_inputs(plan)
    metadata = folder / "MTD_MSIL2A.xml"
    metadata.write_text(metadata.read_text().replace("-1000<", "-500<"))
    with pytest.raises(InputError, match="was changed"):
        check_inputs(plan)


def test_a_product_as_reference_and_in_coregister(make_sentinel_2: Make, tmp_path: Path) -> None:
    sharp = make_sentinel_2()
    info = inspect(sharp, "reference")
    coarse = tmp_path / "coarse.tif"
    with rasterio.open(info.source) as source:
        values = source.read().reshape(4, 12, 2, 12, 2).mean((2, 4)).astype(np.uint16)
        profile = {
            "driver": "GTiff", "count": 4, "height": 12, "width": 12, "dtype": "uint16", "crs": source.crs,
            "transform": Affine(20, 0, source.transform.c, 0, -20, source.transform.f),
        }  # fmt: skip
    with rasterio.open(coarse, "w", **profile) as out:
        out.write(values)
        out.descriptions = S2
    result = upscale(coarse, ref=sharp, out=tmp_path / "o.tif", model="matched-ref", coregister="off")
    assert result.scale == 2
    with pytest.raises(InputError, match="not registered"):  # a scene of 12 pixels is too small, but it is read
        coregister(coarse, sharp, tmp_path / "moved.tif")


def test_no_output_is_written_into_a_product(make_sentinel_2: Make) -> None:
    folder = make_sentinel_2()
    with pytest.raises(OutputError, match="is in one of the inputs"):
        run(folder, folder / "out.tif", overwrite=True)


def test_other_folders_and_archives_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is a folder without a product"):
        inspect(tmp_path / "empty", "scene")
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"x\.zip: cannot be read"):
        inspect(tmp_path / "x.zip", "scene")


def test_a_batch_takes_the_products_of_a_folder(make_sentinel_2: Make, make_landsat: Make, tmp_path: Path) -> None:
    area = gpd.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(600_050, 5_399_850, 600_150, 5_399_950)], crs=CRS)
    area.to_file(tmp_path / "areas.gpkg")
    folder = make_sentinel_2()
    (tmp_path / "scenes").mkdir()
    shutil.move(folder, tmp_path / "scenes" / folder.name)
    shutil.move(make_landsat(tar=True), tmp_path / "scenes")
    (tmp_path / "scenes" / "notes.zip").write_bytes(b"no product")
    found = read_catalogue([tmp_path / "scenes"], "scene")
    assert sorted(Path(entry.files[0]).name[:4] for entry in found) == ["LC08", "S2A_"]
    assert sorted(str(entry.span and entry.span.exact) for entry in found) == [
        "2022-05-03T10:02:34Z", "2022-05-03T10:20:21.024000Z",
    ]  # fmt: skip
    result = batch(
        tmp_path / "areas.gpkg", Sources([tmp_path / "scenes" / folder.name]), tmp_path / "out",
        options={"model": "bicubic-ibp", "scale": 2, "products": "none"}, report=tmp_path / "report.html",
    )  # fmt: skip
    assert result.done == 1
    with rasterio.open(tmp_path / "out" / "a.tif") as out:
        assert (out.descriptions, out.shape) == (S2, (20, 20))
    assert "data:image/png" in (tmp_path / "report.html").read_text()


def test_a_folder_of_landsat_folders_is_no_product(make_landsat: Make, tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for number, kind in ((8, "txt"), (9, "json")):
        shutil.move(make_landsat(number=number, mtl=kind), scenes)
    found = read_catalogue([scenes], "scene")
    assert sorted(Path(entry.files[0]).name[:4] for entry in found) == ["LC08", "LC09"]


def test_workers_read_a_product_like_one_process(make_sentinel_2: Make, zip_folder: Any, tmp_path: Path) -> None:
    folder = make_sentinel_2()
    packed = zip_folder(folder, f"{folder.name}.zip")
    command = ["upscale", str(packed), "--model", "bicubic-ibp", "--scale", "2", "--block-size", "16"]
    for out, more in (("one.tif", []), ("two.tif", ["--workers", "2"])):
        done = subprocess.run(
            [sys.executable, "-m", "geo_refdiff.cli.main", *command, "-o", str(tmp_path / out), *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()
