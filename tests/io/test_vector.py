"""Areas of interest."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pyproj
import pytest
import shapely

from geo_refdiff.errors import GridError, InputError
from geo_refdiff.io.vector import read_aoi

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
