"""Clouds of products: they count for nothing, are marked or left out, and say so."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from PIL import Image

from geo_refdiff.batch.run import batch
from geo_refdiff.commands.coregister import coregister
from geo_refdiff.commands.detect_change import detect_change
from geo_refdiff.commands.upscale import upscale
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import Sources
from geo_refdiff.plan.file import read_plan
from geo_refdiff.plan.same_inputs import check_inputs
from geo_refdiff.restore.sources import CLOUD
from geo_refdiff.validate.validation import validate_product

Make = Callable[..., Path]
CORNER = (600_000.0, 5_400_000.0)
SIDE = 24
CLOUDS = np.zeros((SIDE, SIDE), bool)
CLOUDS[8:16, 4:14] = True
"""On pixels of 10 m, as the product tells."""
EMPTY = np.zeros((SIDE, SIDE), bool)
EMPTY[:3, :3] = True


def run(scene: Path, out: Path, **options: Any) -> Any:
    return upscale(scene, out=out, **({"model": "bicubic-ibp", "scale": 2} | options))


def pixels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values, and whether all bands are valid."""
    with rasterio.open(path) as dataset:
        return dataset.read(), dataset.dataset_mask() > 0


def fine(mask: np.ndarray, scale: int = 2) -> np.ndarray:
    return np.kron(mask, np.ones((scale, scale), bool))


def test_clouds_are_kept_and_marked(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder, out = make_sentinel_2(clouds=True), tmp_path / "out.tif"
    result = run(folder, out, products="all")
    assert any("of the scene is cloudy, by T33UUP_20220503T102021_SCL_20m.jp2" in note for note in result.notes)
    values, valid = pixels(out)
    np.testing.assert_array_equal(valid, fine(~EMPTY))
    assert np.median(values[:, fine(CLOUDS)]) == pytest.approx(12_000, rel=0.05)
    source, _ = pixels(tmp_path / "out.source.tif")
    np.testing.assert_array_equal(source[0] == CLOUD, fine(CLOUDS))
    with rasterio.open(tmp_path / "out.source.tif") as dataset:
        assert dataset.tags()["GEO_REFDIFF_CLASS_4"] == "cloud"
        assert dataset.tags()["GEO_REFDIFF_PIXELS_CLOUD"] == str(4 * CLOUDS.sum())
    assert "cloud" in (tmp_path / "out.source.qml").read_text()
    picture = np.asarray(Image.open(tmp_path / "out.png"))[..., :3]
    assert (picture[fine(CLOUDS)] > 250).all()
    assert np.ptp(picture[fine(~CLOUDS & ~EMPTY)]) > 200, "clouds have made the ground dark"
    assert picture[fine(~CLOUDS & ~EMPTY)].mean() > 90
    properties = json.loads((tmp_path / "out.json").read_text())["properties"]
    assert properties["geo_refdiff:clouds"] == {
        "layer": "T33UUP_20220503T102021_SCL_20m.jp2", "kind": "scl", "pixels": "keep",
    }  # fmt: skip
    assert properties["geo_refdiff:sources"]["cloud"] == 4 * CLOUDS.sum()
    page = (tmp_path / "out.html").read_text()
    assert "a cloud or its shadow hides the ground" in page
    assert "interpolated, and marked in the source map" in page
    found = validate_product(out, folder)
    assert found.broken == []
    assert found.sources["cloud"] == 4 * CLOUDS.sum()


@pytest.mark.parametrize("area", [{}, {"aoi": (CORNER[0] + 30, CORNER[1] - 200, CORNER[0] + 200, CORNER[1] - 60)}])
def test_clouds_darken_no_picture_where_there_is_no_map_of_sources(
    make_sentinel_2: Make, tmp_path: Path, area: dict[str, Any]
) -> None:
    folder, out = make_sentinel_2(clouds=True), tmp_path / "out.tif"
    run(folder, out, products=("quicklook",), **area)
    picture = np.asarray(Image.open(tmp_path / "out.png")).astype(int)
    rows, cols = (slice(12, 40), slice(6, 40)) if area else (slice(None), slice(None))
    cloudy, empty = fine(CLOUDS)[rows, cols], fine(EMPTY)[rows, cols]
    assert picture.shape[:2] == cloudy.shape
    assert (picture[cloudy][:, :3] > 250).all()
    assert np.ptp(picture[~cloudy & ~empty][:, :3]) > 200, "clouds have made the ground dark"


def test_clouds_become_nodata(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder, out = make_sentinel_2(clouds=True), tmp_path / "out.tif"
    run(folder, out, clouds="nodata", products="all")
    values, valid = pixels(out)
    np.testing.assert_array_equal(valid, fine(~EMPTY & ~CLOUDS))
    assert values[:, valid].max() < 6000, "the cloud has leaked"
    found = validate_product(out, folder)
    assert (found.broken, found.lost, found.invented) == ([], 0, 0)
    assert validate_product(out, folder, cloud_mask="none").broken == []  # which pixels were cloudy is not known then
    other = tmp_path / "other.tif"
    with rasterio.open(folder / next(folder.rglob("*SCL_20m.jp2"))) as scl:
        profile = dict(scl.profile) | {"driver": "GTiff"}
    with rasterio.open(other, "w", **profile) as dataset:
        dataset.write(np.eye(SIDE // 2, dtype=np.uint8), 1)
    assert "valid pixels lost" in validate_product(out, folder, cloud_mask=str(other)).broken[0]
    run(folder, tmp_path / "all.tif", clouds="nodata", cloud_mask="none")
    assert pixels(tmp_path / "all.tif")[1].sum() == fine(~EMPTY).sum()


def test_clouds_count_for_nothing_in_range_and_noise(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder, out = make_sentinel_2(clouds=True), tmp_path / "out.tif"
    plans = [
        read_plan(run(folder, out, cloud_mask=mask, plan_only=True, overwrite=True).plan_path)
        for mask in ("auto", "none")
    ]
    assert plans[0].scene.clouds is not None
    assert plans[0].scene.clouds.kind == "scl"
    assert plans[1].scene.clouds is None
    assert plans[0].digest != plans[1].digest
    middles = [plan.radiometry.fill for plan in plans]
    assert all(a < b for a, b in zip(*middles, strict=True))


@pytest.mark.parametrize("consistency", ["standard", "strict"])
def test_no_cloud_rings_into_clear_pixels(make_sentinel_2: Make, tmp_path: Path, consistency: str) -> None:
    folder, keep, nodata = make_sentinel_2(clouds=True), tmp_path / "keep.tif", tmp_path / "nodata.tif"
    run(folder, keep, consistency=consistency)
    run(folder, nodata, clouds="nodata", consistency=consistency)
    clear = fine(~CLOUDS & ~EMPTY)
    np.testing.assert_array_equal(pixels(keep)[0][:, clear], pixels(nodata)[0][:, clear])
    assert pixels(keep)[0][:, clear].max() < 6000
    assert pixels(keep)[0][:, fine(CLOUDS)].min() > 11_000, "an edge rings into the cloud"
    found = validate_product(keep, folder)
    assert found.broken == []
    assert found.residual.count == 4 * (~CLOUDS & ~EMPTY).sum()
    untold = validate_product(keep, folder, cloud_mask="none")
    assert untold.broken == []
    consistency = next(p for p in untold.promises if p.name == "consistency")
    assert "clouds of an unknown layer: give --cloud-mask" in consistency.unjudged


def test_clouds_count_for_nothing_beside_a_truth_and_a_reference(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder, out = make_sentinel_2(clouds=True), tmp_path / "out.tif"
    run(folder, out)
    values, valid = pixels(out)
    ground = values.astype(np.int64) + np.random.default_rng(0).integers(-90, 91, values.shape)
    ground[:, fine(CLOUDS)] -= 9_000
    truth = tmp_path / "truth.tif"
    with rasterio.open(out) as dataset:
        profile, names, scales, offsets = dataset.profile, dataset.descriptions, dataset.scales, dataset.offsets
    with rasterio.open(truth, "w", **profile) as dataset:
        dataset.write(np.where(valid, ground, 0).astype(np.uint16))
        dataset.descriptions, dataset.scales, dataset.offsets = names, scales, offsets
    found = validate_product(out, folder, truth=truth, reference=truth)
    clear = valid & fine(~CLOUDS)
    mse = ((values - ground)[:, clear].astype(float) * 255 / found.value_range) ** 2
    assert found.truth.figures["PSNR"] == pytest.approx(10 * np.log10(255**2 / mse.mean()))
    everywhere = validate_product(out, folder, reference=truth, cloud_mask="none")
    assert everywhere.reference["detail_shared"] < 0.5 < found.reference["detail_shared"]


@pytest.mark.parametrize("mode", ["keep", "nodata"])
def test_blocks_and_areas_do_not_change_pixels_near_clouds(make_sentinel_2: Make, tmp_path: Path, mode: str) -> None:
    folder = make_sentinel_2(clouds=True)
    whole, blocks, part = (tmp_path / name for name in ("whole.tif", "blocks.tif", "part.tif"))
    run(folder, whole, clouds=mode)
    run(folder, blocks, clouds=mode, block_size=16)
    box = f"{CORNER[0] + 50},{CORNER[1] - 150},{CORNER[0] + 180},{CORNER[1] - 30}"
    run(folder, part, clouds=mode, aoi=box)
    for end in (".tif", ".source.tif"):
        values, _ = pixels(whole.with_suffix(end))
        np.testing.assert_array_equal(pixels(blocks.with_suffix(end))[0], values)
        cut, _ = pixels(part.with_suffix(end))
        assert np.abs(cut.astype(int) - values[:, 6:30, 10:36].astype(int)).max() <= (1 if end == ".tif" else 0)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("baseline", ["05.10", "02.09"])
def test_clouds_of_level_1c(
    make_sentinel_2: Make, zip_folder: Callable[[Path, str], Path], tmp_path: Path, baseline: str, packed: bool
) -> None:
    product = make_sentinel_2(level="L1C", baseline=baseline, clouds=True)
    wanted = np.zeros((SIDE, SIDE), bool)
    if baseline == "02.09":
        wanted[8:16, 4:14], wanted[10:12, 6:8] = True, False
    else:
        coarse = CLOUDS[::6, ::6]
        wanted = np.kron(coarse | np.roll(coarse, 1, 0), np.ones((6, 6), bool))
        assert wanted.any()
    if packed:
        product = zip_folder(product, f"{product.name}.zip")
    out = tmp_path / "out.tif"
    plan = read_plan(run(product, out, clouds="nodata", plan_only=True).plan_path)
    assert check_inputs(plan) == plan
    run(product, out, clouds="nodata", resume=True)
    np.testing.assert_array_equal(pixels(out)[1], fine(~EMPTY & ~wanted))
    assert validate_product(out, product).broken == []


@pytest.mark.parametrize("baseline", ["05.10", "02.09"])
def test_clouds_of_level_1c_that_are_none_or_damaged(make_sentinel_2: Make, tmp_path: Path, baseline: str) -> None:
    folder, out = make_sentinel_2(level="L1C", baseline=baseline), tmp_path / "out.tif"
    name = next(folder.rglob("MSK_*"))
    assert f"the scene is free of clouds, by {name.name}" in run(folder, out, clouds="nodata").notes
    np.testing.assert_array_equal(pixels(out)[1], fine(~EMPTY))
    whole = name.read_bytes()
    if baseline == "02.09":
        ring = b"<Polygon><exterior><posList %s</posList></exterior></Polygon></eop:Mask>"
        name.write_bytes(whole.replace(b"</eop:Mask>", ring % b'srsDimension="two">6e5 x'))
        with pytest.raises(InputError, match=rf"{name.name}: posList is 'x', no number"):
            run(folder, out, overwrite=True)
        corners = b"600000 5399900 600100 5399900 600100 5399800 600000 5399900"
        name.write_bytes(whole.replace(b"</eop:Mask>", ring % (b'srsDimension="two">' + corners)))
        assert any("of the scene is cloudy" in note for note in run(folder, out, overwrite=True).notes)
    name.write_bytes(whole[:200])
    with pytest.raises(InputError, match=rf"{name.name}: (is no XML|cannot be (opened as a raster|read))") as error:
        run(folder, out, overwrite=True)
    assert "\n" not in str(error.value)


def test_the_change_of_a_layer_is_another_input(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder = make_sentinel_2()
    layer = tmp_path / "mask.tif"
    grid = {"crs": "EPSG:32633", "transform": Affine(10, 0, CORNER[0], 0, -10, CORNER[1])}
    profile = {"driver": "GTiff", "count": 1, "height": SIDE, "width": SIDE, "dtype": "uint8"} | grid
    with rasterio.open(layer, "w", **profile) as dataset:
        dataset.write(CLOUDS.astype(np.uint8), 1)
    out = tmp_path / "out.tif"
    plan = read_plan(run(folder, out, cloud_mask=str(layer), plan_only=True).plan_path)
    check_inputs(plan)
    run(folder, out, cloud_mask=str(layer), resume=True)
    np.testing.assert_array_equal(pixels(tmp_path / "out.source.tif")[0][0] == CLOUD, fine(CLOUDS))
    assert run(folder, out, cloud_mask=str(layer), resume=True).notes[0] == "everything was finished already"
    with rasterio.open(layer, "w", **(profile | {"dtype": "float32"})) as dataset:
        dataset.write(CLOUDS.astype(np.float32), 1)
    with pytest.raises(InputError, match=r"mask\.tif: is another file here, or was changed"):
        check_inputs(plan)


def test_clouds_of_a_reference_are_missing_pixels(make_sentinel_2: Make, tmp_path: Path) -> None:
    sharp, coarse = make_sentinel_2(clouds=True), tmp_path / "coarse.tif"
    y, x = np.mgrid[:12, :12]
    values = np.stack([2700 + 900 * np.sin(x / 1.5 + k) + 500 * np.cos(y / 2 - k) for k in (1, 2, 3, 7)])
    profile = {
        "driver": "GTiff", "count": 4, "height": 12, "width": 12, "dtype": "uint16", "crs": "EPSG:32633",
        "transform": Affine(20, 0, CORNER[0], 0, -20, CORNER[1]),
    }  # fmt: skip
    with rasterio.open(coarse, "w", **profile) as out:
        out.write(values.round().astype(np.uint16))
        out.descriptions = ("B02", "B03", "B04", "B08")
    options = {"ref": sharp, "model": "matched-ref", "coregister": "off", "scale": None}
    result = run(coarse, tmp_path / "o.tif", **options)
    assert any("of the reference is cloudy" in note for note in result.notes)
    source, _ = pixels(tmp_path / "o.source.tif")
    assert not (source[0][9:15, 5:13] == 1).any(), "detail from under a cloud"
    assert (source[0][18:, 16:] == 1).mean() > 0.5
    assert pixels(tmp_path / "o.tif")[0].max() < 6000
    run(coarse, tmp_path / "n.tif", cloud_mask="none", **options)
    assert (pixels(tmp_path / "n.tif")[0] != pixels(tmp_path / "o.tif")[0])[:, 9:15, 5:13].any()


def test_detect_change_and_coregister_leave_clouds_out(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder, ref = make_sentinel_2(clouds=True), tmp_path / "ref.tif"
    run(folder, ref, cloud_mask="none")
    result = detect_change(folder, ref, tmp_path / "change.tif", scale=2)
    assert any("of the scene is cloudy" in note for note in result.notes)
    assert (pixels(tmp_path / "change.tif")[0][0][CLOUDS] == 255).all()
    detect_change(folder, ref, tmp_path / "with.tif", scale=2, cloud_mask="none")
    assert (pixels(tmp_path / "with.tif")[0][0][9:15, 5:13] != 255).all()
    with pytest.raises(InputError, match="not registered"):  # 24 pixels are too few, but clouds were read
        coregister(folder, ref, tmp_path / "moved.tif")


def test_layers_that_do_not_fit_give_one_line(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder = make_sentinel_2()
    for mask, expected in ((str(tmp_path / "no.tif"), "no such file"), ("scl:", "give auto, none, or a file")):
        with pytest.raises((InputError, OptionError), match=expected):
            run(folder, tmp_path / "out.tif", cloud_mask=mask)
    assert sorted(p.name for p in tmp_path.iterdir()) == [folder.name]
    plain = make_sentinel_2(level="L1C", without=("MSK",))
    assert any("has no cloud layer" in note for note in run(plain, tmp_path / "out.tif").notes)


def test_a_batch_heeds_the_clouds_of_one_product_and_of_mosaics(make_sentinel_2: Make, tmp_path: Path) -> None:
    folder = make_sentinel_2(clouds=True)
    (tmp_path / "two").mkdir()
    east = shutil.copytree(folder, tmp_path / "two" / folder.name)
    for file in east.rglob("*.jp2"):  # the same tile, 200 m further east
        moved = file.with_suffix(".tif")
        with rasterio.open(file) as source:
            profile = dict(source.profile) | {
                "driver": "GTiff",
                "transform": Affine.translation(200, 0) @ source.transform,
            }
            with rasterio.open(moved, "w", **profile) as target:
                target.write(source.read())
        rasterio.shutil.copy(moved, file, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
        moved.unlink()
    box = shapely.box(CORNER[0], CORNER[1] - 240, CORNER[0] + 440, CORNER[1])
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[box], crs="EPSG:32633").to_file(tmp_path / "areas.gpkg")
    done = batch(
        tmp_path / "areas.gpkg", Sources([folder, east]), tmp_path / "out",
        options={"model": "bicubic-ibp", "scale": 2, "clouds": "nodata"},
    )  # fmt: skip
    assert done.done == 1
    _, valid = pixels(tmp_path / "out" / "a.tif")
    expected = np.zeros((2, SIDE, 44), int)  # 0 nothing, 1 clear, 2 cloudy
    for place, offset in enumerate((0, 20)):
        expected[place][:, offset : offset + SIDE] = np.where(EMPTY, 0, np.where(CLOUDS, 2, 1))
    layered = [
        np.where(expected[k] > 0, expected[k], expected[1 - k]) for k in (0, 1)
    ]  # which is on top is the batch's choice
    assert any(np.array_equal(valid, fine(seen == 1)) for seen in layered)


def earlier(folder: Path, days: int, to: Path) -> Path:
    """A copy of a product that says that it was taken before."""
    to.mkdir(parents=True, exist_ok=True)
    copy = shutil.copytree(folder, to / folder.name.replace("20220503T102021", f"202205{3 - days:02}T102021", 1))
    metadata = next(copy.glob("MTD_MSI*.xml"))
    metadata.write_text(metadata.read_text().replace("2022-05-03T", f"2022-05-{3 - days:02}T"))
    return copy


def test_a_batch_takes_the_clear_one_of_two_dates(make_sentinel_2: Make, tmp_path: Path) -> None:
    cloudy = make_sentinel_2(clouds=True).rename(tmp_path / "cloudy.SAFE")
    clear = earlier(make_sentinel_2(), 2, tmp_path / "more")
    box = shapely.box(CORNER[0] + 40, CORNER[1] - 160, CORNER[0] + 140, CORNER[1] - 80)  # all of it under the cloud
    beside = shapely.box(CORNER[0] + 160, CORNER[1] - 230, CORNER[0] + 230, CORNER[1] - 170)
    areas = tmp_path / "areas.gpkg"
    gpd.GeoDataFrame({"name": ["under", "beside"]}, geometry=[box, beside], crs="EPSG:32633").to_file(areas)

    def chosen(folder: str, **options: Any) -> dict[str, tuple[str, str]]:
        given = {"model": "bicubic-ibp", "scale": 2, "products": "none"} | options
        done = batch(areas, Sources([cloudy, clear]), tmp_path / folder, options=given)
        assert done.done == 2
        table = gpd.read_file(tmp_path / folder / "manifest.gpkg").set_index("name")
        return {name: (row["scene"], row["notes"] or "") for name, row in table.iterrows()}

    auto = chosen("auto")
    assert auto["under"][0] == clear.name
    assert "scenes of better dates are cloudy in the area: cloudy.SAFE (100%)" in auto["under"][1]
    assert auto["beside"][0] == "cloudy.SAFE"
    assert chosen("none", cloud_mask="none")["under"][0] == "cloudy.SAFE"


def test_pictures_of_a_batch_are_not_darkened_by_clouds(make_sentinel_2: Make, tmp_path: Path) -> None:
    box = shapely.box(CORNER[0] + 40, CORNER[1] - 240, CORNER[0] + 240, CORNER[1] - 40)
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[box], crs="EPSG:32633").to_file(tmp_path / "areas.gpkg")
    page = tmp_path / "page.html"
    options = {"model": "bicubic-ibp", "scale": 2}
    batch(
        tmp_path / "areas.gpkg", Sources([make_sentinel_2(clouds=True)]), tmp_path / "out", options=options, report=page
    )
    after = re.findall(r'src="data:image/png;base64,([^"]+)"', page.read_text())[1]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(after))))[..., :3]
    clear = ~CLOUDS[4:24, 4:24]
    assert picture[fine(clear)].mean() > 90


def test_coarser_bands_reach_mosaics_of_a_batch(make_sentinel_2: Make, tiny_compact: Path, tmp_path: Path) -> None:
    folder = make_sentinel_2()
    under = earlier(folder, 2, tmp_path / "more")
    box = shapely.box(CORNER[0], CORNER[1] - 200, CORNER[0] + 200, CORNER[1])  # with missing pixels: a mosaic
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[box], crs="EPSG:32633").to_file(tmp_path / "areas.gpkg")
    options = {"model": str(tiny_compact), "scale": 4, "other_bands": "transfer"}
    done = batch(tmp_path / "areas.gpkg", Sources([folder, under]), tmp_path / "out", options=options)
    assert done.done == 1, done.errors
    assert (tmp_path / "out" / "batch" / "mosaics" / "a.scene.vrt").exists()
    with rasterio.open(tmp_path / "out" / "a.tif") as dataset:
        assert dataset.descriptions[4:] == ("B05", "B06", "B07", "B8A", "B11", "B12")


def test_quality_layers_that_are_missing_or_damaged_give_one_line(
    make_sentinel_2: Make, make_landsat: Make, tmp_path: Path
) -> None:
    out = tmp_path / "out.tif"
    with pytest.raises(InputError, match=r"band SCL_20m is missing \(GRANULE.*\); fetch the product again"):
        run(make_sentinel_2(without=("SCL",)), out)
    shutil.rmtree(next(tmp_path.glob("*.SAFE")))
    folder = make_sentinel_2()
    layer = next(folder.rglob("*SCL_20m.jp2"))
    layer.write_bytes(layer.read_bytes()[:200])
    with pytest.raises(InputError, match=r"SCL_20m\.jp2: cannot be (opened as a raster|read)") as error:
        run(folder, out)
    assert "\n" not in str(error.value)
    landsat = make_landsat()
    next(landsat.glob("*QA_PIXEL.TIF")).unlink()
    with pytest.raises(InputError, match=r"_QA_PIXEL\.TIF is missing \(FILE_NAME_QUALITY_L1_PIXEL\)"):
        run(landsat, out)
    assert not out.exists()


def test_planetscopes_older_mask(make_planetscope: Make, tmp_path: Path) -> None:
    folder = make_planetscope(without=("udm2",))
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[CLOUDS], values[:3] = 2, 1
    image = next(folder.rglob("*AnalyticMS_SR_clip.tif"))
    with rasterio.open(image) as dataset:
        profile = dict(dataset.profile) | {"count": 1, "dtype": "uint8", "nodata": None}
    with rasterio.open(
        image.with_name("20220503_101112_34_2251_3B_AnalyticMS_DN_udm_clip.tif"), "w", **profile
    ) as mask:
        mask.write(values, 1)
    run(folder, tmp_path / "out.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "out.source.tif")[0][0] == CLOUD, fine(CLOUDS & ~EMPTY))


def test_dark_pixels_of_kept_clouds_do_not_read_as_missing(tmp_path: Path) -> None:
    scene, clouds, out = (tmp_path / f"{name}.tif" for name in ("scene", "clouds", "out"))
    rng = np.random.default_rng(0)
    values = rng.integers(60, 90, (3, SIDE, SIDE)).astype(np.uint8)
    values[:, CLOUDS] = np.where(rng.random(CLOUDS.sum()) < 0.3, 1, 240)  # between which the cubic kernel overshoots
    for path, array, nodata in ((scene, values, 0), (clouds, CLOUDS[None].astype(np.uint8), None)):
        profile = {"count": len(array), "height": SIDE, "width": SIDE, "dtype": "uint8", "nodata": nodata}
        with rasterio.open(path, "w", crs="EPSG:32633", transform=Affine(10, 0, 6e5, 0, -10, 5.4e6), **profile) as to:
            to.write(array)
    run(scene, out, cloud_mask=f"mask:{clouds}")
    shown, valid = pixels(out)
    assert valid.all()
    assert shown[:, fine(CLOUDS)].min() == 1


def test_nothing_is_said_of_the_error_under_kept_clouds(make_sentinel_2: Make, tmp_path: Path) -> None:
    run(make_sentinel_2(clouds=True), tmp_path / "out.tif", model="default", uncertainty=2)
    widths, _ = pixels(tmp_path / "out.uncertainty.tif")
    np.testing.assert_array_equal(np.isnan(widths).all(axis=0), fine(CLOUDS | EMPTY))
    np.testing.assert_array_equal(np.isnan(widths).any(axis=0), fine(CLOUDS | EMPTY))
