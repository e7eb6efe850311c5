"""Areas of interest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from shapely import affinity

from geo_refdiff.batch.areas import read_areas
from geo_refdiff.change.polygons import inspect_polygons
from geo_refdiff.errors import GridError, InputError
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.outline import make_outline
from geo_refdiff.raster.globe import on_the_globe
from geo_refdiff.raster.info import inspect
from geo_refdiff.raster.vector import read_aoi

UTM = "EPSG:26914"


def test_a_box_of_numbers() -> None:
    assert read_aoi("485900, 5.2e6 ,486000,5200100.5", UTM).bounds == (485900, 5200000, 486000, 5200100.5)
    assert read_aoi("-10,-5,-9.5,0", UTM).area == 2.5


@pytest.mark.parametrize(
    ("text", "says"), [("1,2,3", "3 numbers"), ("1,2,1,4", "empty"), ("5,2,1,4", "xmin < xmax"), ("1,2,3,4,5", "5 n")]
)
def test_boxes_that_make_no_sense(text: str, says: str) -> None:
    with pytest.raises(GridError, match=says):
        read_aoi(text, UTM)


def test_files_in_any_crs_and_layers(tmp_path: Path) -> None:
    box = shapely.box(486000, 5206000, 488000, 5208000)
    frame = geopandas.GeoDataFrame(geometry=[box, shapely.box(487000, 5207000, 489000, 5208500)], crs=UTM)
    frame.to_crs("EPSG:4326").to_file(tmp_path / "a.geojson")
    area = read_aoi(str(tmp_path / "a.geojson"), UTM)
    assert area.symmetric_difference(frame.union_all()).area < 500  # m2 of 7 km2: straight is not the same there
    frame.to_file(tmp_path / "b.gpkg", layer="one")
    frame.iloc[:1].to_file(tmp_path / "b.gpkg", layer="two")
    assert read_aoi(f"{tmp_path / 'b.gpkg'}|layername=two", UTM).equals(box)
    output = r"b.gpkg: has 2 layers with geometry \(one, two\); name one: '.*b.gpkg\|layername=NAME'"
    with pytest.raises(InputError, match=output):
        read_aoi(str(tmp_path / "b.gpkg"), UTM)
    with pytest.raises(InputError, match=output):
        read_areas(tmp_path / "b.gpkg")


@pytest.mark.parametrize("source", ["EPSG:4326", "EPSG:4167"])
def test_across_the_180th_meridian(tmp_path: Path, source: str) -> None:
    """A square of Fiji: whether longitudes jump, continue beyond 180, or are cut there, it is the same square."""
    square = shapely.box(817_500, 8_147_500, 820_500, 8_149_500)
    forth = pyproj.Transformer.from_crs("EPSG:32760", source, always_xy=True)
    jumps = shapely.transform(square, lambda xy: np.column_stack(forth.transform(*xy.T)))
    assert jumps.bounds[2] - jumps.bounds[0] > 359
    on = shapely.transform(jumps, lambda xy: np.column_stack([xy[:, 0] % 360, xy[:, 1]]))
    cut = on & shapely.box(179, -20, 180, 0) | affinity.translate(on & shapely.box(180, -20, 181, 0), -360)
    for name, shape in {"jumps": jumps, "on": on, "cut": cut}.items():
        file = tmp_path / f"{name}.gpkg"
        geopandas.GeoDataFrame(geometry=[shape], crs=source).to_file(file)
        (area,) = read_areas(file)
        assert area.lonlat.symmetric_difference(on_the_globe(jumps)).area < 1e-5 * area.lonlat.area
        for text in (str(file), f"{source};{shape.wkt}", area.text):
            result = read_aoi(text, "EPSG:32760")
            assert result.symmetric_difference(square).area < 300  # m2 of 6 km2: straight is not the same there
            assert result.geom_type == "Polygon"


def test_heights_are_left_out(tmp_path: Path) -> None:
    box = shapely.box(486000, 5206000, 488000, 5208000)
    geopandas.GeoDataFrame(geometry=[shapely.force_3d(box, 100.0)], crs=UTM).to_file(tmp_path / "z.gpkg")
    (area,) = read_areas(tmp_path / "z.gpkg")
    assert not area.lonlat.has_z
    assert area.text == f"EPSG:26914;{box.wkt}"
    assert not read_aoi(str(tmp_path / "z.gpkg"), UTM).has_z


def test_files_that_are_no_area(tmp_path: Path) -> None:
    (tmp_path / "text.gpkg").write_text("nothing")
    point = geopandas.GeoDataFrame(geometry=[shapely.Point(1, 2)], crs=UTM)
    point.to_file(tmp_path / "point.gpkg")
    geopandas.GeoDataFrame(geometry=[], crs=UTM).to_file(tmp_path / "none.gpkg")
    with pytest.warns(UserWarning, match="crs"):
        geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)]).to_file(tmp_path / "lost.shp")
    for name, kind, says in [
        ("missing.gpkg", InputError, "no such file"),
        ("text.gpkg", InputError, "cannot be read"),
        ("point.gpkg", GridError, "no polygon"),
        ("none.gpkg", InputError, "no geometry"),
        ("lost.shp", InputError, "no CRS"),
        ("point.gpkg|layername=x", InputError, "cannot be read"),
    ]:
        with pytest.raises(kind, match=says):
            read_aoi(str(tmp_path / name), UTM)


def test_a_box_in_another_crs_is_moved() -> None:
    west, south, east, north = 15.80, 48.39, 15.81, 48.40
    moved = read_aoi(f"{west},{south},{east},{north},EPSG:4326", "EPSG:32633")
    to_utm = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32633", always_xy=True)
    x, y = to_utm.transform([west, east, east, west], [south, south, north, north])
    assert moved.bounds == pytest.approx((min(x), min(y), max(x), max(y)), abs=1.0)
    with pytest.raises(GridError, match="unknown CRS"):
        read_aoi(f"{west},{south},{east},{north},EPSG:999999", "EPSG:32633")


def test_metres_without_a_crs_are_no_degrees(tmp_path: Path) -> None:
    path = tmp_path / "metres.geojson"
    geometry = shapely.geometry.mapping(shapely.box(485900, 5200000, 486000, 5200100))
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    for look in (lambda: read_aoi(str(path), UTM), lambda: inspect_polygons(str(path), None)):
        with pytest.raises(InputError, match=r"x 485900 to 486000.*are no degrees.*ogr2ogr -a_srs") as caught:
            look()
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="are no degrees of longitude and latitude; give a box in the scene's CRS"):
        read_aoi("485900,5200000,486000,5200100,EPSG:4326", UTM)


def test_geoparquet_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    box = shapely.box(485900, 5200000, 486000, 5200100)
    frame = geopandas.GeoDataFrame({"class": [1]}, geometry=[box], crs=UTM)
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_aoi(str(tmp_path / "a.parquet"), UTM).equals(box)
    frame.to_crs(4326).to_parquet(tmp_path / "b.parquet")
    assert read_aoi(str(tmp_path / "b.parquet"), UTM).symmetric_difference(box).area < 1e-3 * box.area
    with pytest.raises(InputError, match="GeoParquet has one layer"):
        read_aoi(f"{tmp_path / 'a.parquet'}|layername=a", UTM)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(InputError, match=r"c\.parquet: cannot be read as a vector file"):
        read_aoi(str(tmp_path / "c.parquet"), UTM)


@pytest.mark.parametrize("crs", [32614, 4326, 3857, 3413])
def test_a_polygon_that_crosses_itself_is_its_parts(tmp_path: Path, crs: int) -> None:
    west, north = 485900, 5200100
    points = [(0, 0), (100, -100), (100, 0), (0, -100)]  # a bow tie: half of the box
    tie = shapely.Polygon([(west + x, north + y) for x, y in points])
    frame = geopandas.GeoDataFrame(geometry=[tie], crs=UTM).to_crs(crs)
    frame.to_file(tmp_path / "tie.gpkg")
    result = read_aoi(str(tmp_path / "tie.gpkg"), UTM)
    assert result.is_valid
    assert result.symmetric_difference(shapely.make_valid(tie)).area < 0.01 * 5000
    assert not result.contains(shapely.Point(west + 50, north - 10))


def aoi_error(scene: Path, aoi: str) -> str:
    """What `upscale` says of an area of interest."""
    with pytest.raises((GridError, InputError)) as caught:
        make_outline(UpscaleOptions.of(model="bicubic", aoi=aoi), inspect(scene, "scene"), None)
    return str(caught.value)


def test_boxes_in_another_order_or_in_degrees_are_reported(make_raster: Callable[..., Path], tmp_path: Path) -> None:
    scene = make_raster("scene.tif", np.ones((1, 20, 24), np.uint8))
    forth = pyproj.Transformer.from_crs(UTM, 4326, always_xy=True)
    with rasterio.open(scene) as dataset:
        left, bottom, right, top = dataset.bounds
    west, south = forth.transform(left + 200, bottom + 200)
    east, north = forth.transform(right - 200, top - 200)
    degrees, swapped = f"{west},{south},{east},{north}", f"{south},{west},{north},{east}"
    assert f"it is inside as {degrees},EPSG:4326" in aoi_error(scene, degrees)
    assert f"it is inside as {degrees},EPSG:4326" in aoi_error(scene, swapped)
    assert "put longitude first" in aoi_error(scene, f"{swapped},EPSG:4326")
    assert f"it is inside as {left + 200},{bottom + 200},{right - 200},{top - 200}" in aoi_error(
        scene, f"{bottom + 200},{left + 200},{top - 200},{right - 200}"
    )
    box = shapely.box(south, west, north, east)
    geopandas.GeoDataFrame(geometry=[box], crs=4326).to_file(tmp_path / "swapped.gpkg")
    assert "look swapped" in aoi_error(scene, str(tmp_path / "swapped.gpkg"))
    assert "a vector file may be in any CRS" in aoi_error(scene, "1,2,3,4")


def test_latitude_first_is_reported_where_both_could_be_longitudes(
    make_raster: Callable[..., Path], tmp_path: Path
) -> None:
    scene = make_raster(
        "europe.tif", np.ones((1, 20, 24), np.uint8), transform=Affine(40, 0, 600000, 0, -40, 5400000), crs="EPSG:32633"
    )
    box = shapely.box(48.743, 16.361, 48.749, 16.367)
    output = aoi_error(scene, shapely.box(16.361, 48.743, 16.367, 48.749).wkt)
    assert "it is inside as EPSG:4326;POLYGON ..." in output
    output = aoi_error(scene, "48.743,16.361,48.749,16.367,EPSG:4326")
    assert "it is inside as 16.361,48.743,16.367,48.749,EPSG:4326" in output
    geopandas.GeoDataFrame(geometry=[box], crs=4326).to_file(tmp_path / "swapped.gpkg")
    assert "it is inside as a file with x and y swapped: write longitude first" in aoi_error(
        scene, str(tmp_path / "swapped.gpkg")
    )
