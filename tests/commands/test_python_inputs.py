"""What Python may give in place of files: open datasets, polygons of shapely, GeoDataFrames; and GeoParquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from odc.geo.geom import box as odc_box
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from geo_refdiff import upscale
from geo_refdiff.cli.main import run
from geo_refdiff.commands.coregister import coregister
from geo_refdiff.commands.detect_change import detect_change
from geo_refdiff.commands.simulate import simulate
from geo_refdiff.errors import GeoRefDiffError, GridError, InputError
from geo_refdiff.raster.vector import area_text, read_aoi
from geo_refdiff.validate.validation import validate_product

UTM = "EPSG:26914"
WEST, NORTH, PIXEL = 485_904.0, 5_209_248.0, 40.0
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
"""rasterio hides its own while it rasterises, which other threads undo."""

QUICK: dict[str, Any] = {"model": "bicubic", "scale": 2, "products": None}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where polygons are kept."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def square(row: float, col: float, side: float) -> shapely.Polygon:
    """By pixels of the scene."""
    west, north = WEST + col * PIXEL, NORTH - row * PIXEL
    return shapely.box(west, north - side * PIXEL, west + side * PIXEL, north)


def test_open_datasets_stand_for_their_files(make_pair: Any, make_raster: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(40, 48)
    mask = make_raster("mask.tif", np.zeros((1, 40, 48), np.uint8))
    options: dict[str, Any] = {"model": "matched-ref", "coregister": "off", "products": None}
    by_name = upscale(scene, ref=ref, mask=mask, out=tmp_path / "a.tif", **options)
    with rasterio.open(scene) as one, rasterio.open(ref) as two, rasterio.open(mask) as three:
        actual = upscale(one, ref=two, mask=three, like=two, out=tmp_path / "b.tif", **options)
        assert actual.out.read_bytes()[:4] == b"II*\0"
        assert coregister(one, two).scale == 8
        assert detect_change(one, two, tmp_path / "change.tif").scale == 8
        assert simulate(two, tmp_path / "coarse.tif", 8).scale == 8
        with rasterio.open(by_name.out) as out:
            assert not validate_product(out, one, reference=two).broken
        assert one.read().any()  # stays open
    with rasterio.open(by_name.out) as first, rasterio.open(actual.out) as second:
        np.testing.assert_array_equal(first.read(), second.read())


def test_a_dataset_in_memory_goes_as_long_as_it_is_open(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(16, 16)
    with MemoryFile(scene.read_bytes()) as memory, memory.open() as dataset:
        assert upscale(dataset, out=tmp_path / "o.tif", **QUICK).shape == (32, 32)
    with pytest.raises(InputError, match="is closed and was in memory alone"):
        upscale(dataset, out=tmp_path / "p.tif", **QUICK)


def test_what_is_no_file_is_reported_with_the_way_out(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(16, 16)
    out = tmp_path / "o.tif"
    output = pytest.raises(InputError, match="WarpedVRT has no name of its own; give what it warps")
    with rasterio.open(scene) as dataset, WarpedVRT(dataset, crs="EPSG:4326") as warped, output:
        upscale(warped, out=out, **QUICK)
    with rasterio.open(scene, "r+") as writing, pytest.raises(InputError, match="open for writing; close it first"):
        upscale(writing, out=out, **QUICK)
    with pytest.raises(InputError, match="ndarray: is no raster; give a path"):
        upscale(np.zeros((3, 4, 4)), out=out, **QUICK)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["geometry", "frame", "series", "in degrees", "odc", "box", "file"])
def test_areas_of_interest_come_in_many_forms(make_pair: Any, tmp_path: Path, kind: str) -> None:
    scene, _ = make_pair(16, 16)
    area = square(2.3, 3.3, 4.4)  # snapped outwards
    frame = geopandas.GeoDataFrame(geometry=[area], crs=UTM)
    frame.to_file(tmp_path / "a.gpkg")
    given = {
        "geometry": area,
        "frame": frame,
        "series": frame.geometry,
        "in degrees": frame.to_crs("EPSG:4326"),
        "odc": odc_box(*area.bounds, crs=UTM),
        "box": area.bounds,
        "file": tmp_path / "a.gpkg",
    }[kind]
    result = upscale(scene, aoi=given, out=tmp_path / "o.tif", **QUICK)
    assert result.transform[2] == WEST + 3 * PIXEL
    assert result.shape == (10, 10)


def test_areas_that_are_none_are_reported() -> None:
    line = shapely.LineString([(0, 0), (1, 1)])
    with pytest.raises(GridError, match="holds no polygon with an area"):
        area_text(line)
    with pytest.raises(InputError, match=r"the GeoDataFrame has no CRS; assign it: \.set_crs"):
        area_text(geopandas.GeoDataFrame(geometry=[square(0, 0, 1)]))
    bow = shapely.Polygon([(0, 0), (10, 10), (10, 0), (0, 10)])  # crosses itself
    assert read_aoi(area_text(bow), UTM).area == pytest.approx(50)


@pytest.mark.parametrize("kind", ["geometry", "frame", "in degrees", "geoparquet"])
def test_polygons_are_masks(make_pair: Any, tiny_compact: Path, tmp_path: Path, kind: str, cache: Path) -> None:
    scene, ref = make_pair(16, 16)
    frame = geopandas.GeoDataFrame(
        {"class": ["water", "building"], "more": [[1], [2]]}, geometry=[square(2, 2, 5), square(9, 9, 4)], crs=UTM
    )
    frame[["class", "geometry"]].to_file(tmp_path / "m.gpkg")
    frame.to_parquet(tmp_path / "m.parquet")
    given = {
        "geometry": shapely.union_all(frame.geometry),
        "frame": frame,
        "in degrees": frame.to_crs("EPSG:4326"),
        "geoparquet": tmp_path / "m.parquet",
    }[kind]
    field = None if kind == "geometry" else "class"
    options: dict[str, Any] = {"model": tiny_compact, "coregister": "off", "products": None, "ref": ref}
    wanted = upscale(scene, mask=tmp_path / "m.gpkg", mask_field=field, out=tmp_path / "a.tif", **options)
    actual = upscale(scene, mask=given, mask_field=field, out=tmp_path / "b.tif", **options)
    with rasterio.open(wanted.out) as first, rasterio.open(actual.out) as second:
        np.testing.assert_array_equal(first.read(), second.read())
    again = upscale(scene, mask=given, mask_field=field, out=tmp_path / "b.tif", resume=True, **options)
    assert again.notes[0] == "everything was finished already"
    assert len(list(cache.rglob("*.gpkg"))) == 1


def test_masks_that_are_none_are_reported(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(16, 16)
    frame = geopandas.GeoDataFrame(geometry=[square(0, 0, 1)])
    for mask, output in ((frame, "has no CRS"), (frame.set_crs(UTM).iloc[:0], "mask: holds no geometry")):
        with pytest.raises(GeoRefDiffError, match=output):
            upscale(scene, mask=mask, out=tmp_path / "o.tif", **QUICK)
    assert run(["upscale", str(scene), "--mask", str(tmp_path / "gone.parquet"), "--model", "bicubic"]) == 1


def test_a_mask_of_0_and_1_is_said_to_mean_what_it_is_taken_for(
    make_pair: Any, make_raster: Any, tiny_compact: Path, tmp_path: Path
) -> None:
    scene, ref = make_pair(16, 16)
    values = np.zeros((1, 16, 16), np.uint8)
    values[0, 3:5] = 1
    options: dict[str, Any] = {"model": tiny_compact, "coregister": "off", "products": None, "ref": ref}
    notes = upscale(scene, mask=make_raster("m.tif", values), out=tmp_path / "a.tif", **options).notes
    assert any("1 is taken for 'water', the model's class 1; if 1 means a change to whatever" in note for note in notes)
    (tmp_path / "map.json").write_text('{"1": "unknown"}')
    more = {"class_map": tmp_path / "map.json", "mask": tmp_path / "m.tif"}
    notes = upscale(scene, out=tmp_path / "b.tif", **more, **options).notes
    values[0, 9] = 2
    notes += upscale(scene, mask=make_raster("m.tif", values), out=tmp_path / "c.tif", **options).notes
    assert not any("holds 0 and 1" in note for note in notes)


@pytest.mark.parametrize(
    ("dtype", "value", "share", "output"),
    [
        ("uint8", 0, 0.1, "so 0 in all bands (10.0% of the pixels"),
        ("uint8", 0, 0.01, None),
        ("uint8", 255, 0.1, None),
        ("uint16", 65535, 0.01, "so 65535 in all bands (1.0% of the pixels"),
        ("int16", -9999, 0.01, "gdal_edit.py -a_nodata -9999"),
        ("float32", -9999, 0.01, "gdal_edit.py -a_nodata -9999"),
        ("float32", 0, 0.1, None),
    ],
)
def test_a_missing_nodata_value_is_reported(
    make_raster: Any, tmp_path: Path, dtype: str, value: float, share: float, output: str | None
) -> None:
    values = np.random.default_rng(0).integers(1, 200, (3, 40, 50)).astype(dtype)
    values.reshape(3, -1)[:, : int(share * 2000)] = value
    scene = make_raster("s.tif", values, names=("red", "green", "blue"))
    notes = [n for n in upscale(scene, out=tmp_path / "o.tif", **QUICK).notes if "no nodata value is declared" in n]
    assert bool(notes) == (output is not None)
    assert output is None or output in notes[0]
    scene = make_raster("t.tif", values, names=("red", "green", "blue"), nodata=value)
    assert not any("no nodata value" in n for n in upscale(scene, out=tmp_path / "p.tif", **QUICK).notes)
