"""Vector layers as QGIS names them, wherever one is read: areas, an area of interest, a mask."""

from __future__ import annotations

from pathlib import Path

import geopandas
import pytest
import shapely
from affine import Affine
from odc.geo.geobox import GeoBox

from geo_refdiff.batch.areas import read_areas
from geo_refdiff.batch.catalogue import read_catalogue
from geo_refdiff.change.polygons import PolygonMask, inspect_polygons, is_vector
from geo_refdiff.errors import InputError
from geo_refdiff.raster.vector import LayerSource, layer_source, read_aoi
from geo_refdiff.raster.window import Window

UTM = "EPSG:26914"
BOXES = {"p": shapely.box(0, 0, 10, 10), "q": shapely.box(20, 0, 30, 10), "r": shapely.box(40, 0, 50, 10)}


@pytest.fixture
def fields(tmp_path: Path) -> Path:
    """Two layers; in the one called "fields" two of three boxes are to be done, and a point is beside."""
    path = tmp_path / "x.gpkg"
    geopandas.GeoDataFrame({"name": ["else"]}, geometry=[shapely.box(7, 7, 8, 8)], crs=UTM).to_file(path, layer="other")
    shapes = [*BOXES.values(), shapely.Point(5, 5)]
    frame = geopandas.GeoDataFrame({"name": [*BOXES, "dot"], "todo": [1, 0, 1, 1]}, geometry=shapes, crs=UTM)
    frame.to_file(path, layer="fields")
    return path


@pytest.mark.parametrize(
    ("rest", "layer", "subset"),
    [
        ("", None, ""),
        ("|layername=my fields", "my fields", ""),
        ("|layerid=1", 1, ""),
        ("|layerid=1|layername=fields", "fields", ""),
        ('|layername=fields|subset="todo" = 1', "fields", '"todo" = 1'),
        ("|geometrytype=Polygon|layername=fields|uniqueGeometryType=yes", "fields", ""),
        ("|subset=a || '|layername=b' = 'c'\nOR d", None, "a || '|layername=b' = 'c'\nOR d"),
    ],
)
def test_parts_of_a_name(rest: str, layer: str | int | None, subset: str) -> None:
    result = layer_source(f"x.gpkg{rest}")
    assert (result.path, result.layer, result.subset) == ("x.gpkg", layer, subset)
    assert layer_source(str(result)) == LayerSource("x.gpkg", layer, subset)


@pytest.mark.parametrize("rest", ["|option:X=1", "|layerid=last", "|geometrytype=Point", "|layername=", "|fields"])
def test_what_is_not_understood_is_one_line(fields: Path, rest: str) -> None:
    for read in (read_areas, lambda text: read_aoi(text, UTM), is_vector, lambda text: read_catalogue([text], "scene")):
        with pytest.raises(InputError, match=r"x\.gpkg: '\|.*' is not understood; give FILE") as caught:
            read(f"{fields}{rest}")  # type: ignore[operator]
        assert "\n" not in str(caught.value)


def test_a_file_may_be_called_so(fields: Path) -> None:
    odd = fields.rename(fields.with_name("a|b.gpkg"))
    assert layer_source(odd) == LayerSource(str(odd))


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        ("|layername=fields", ["p", "q", "r", "dot"]),
        ("|layerid=1", ["p", "q", "r", "dot"]),
        ('|layername=fields|subset="todo" = 1', ["p", "r", "dot"]),
        ("|layername=fields|geometrytype=Polygon|subset=todo = 1", ["p", "r"]),
    ],
)
def test_the_same_is_meant_everywhere(fields: Path, rest: str, names: list[str]) -> None:
    text = f"{fields}{rest}"
    meant = shapely.union_all([BOXES[name] for name in names if name in BOXES])
    assert [area.name for area in read_areas(text)] == names
    assert read_aoi(text, UTM).equals(meant)
    assert is_vector(text)
    info = inspect_polygons(text, None)
    assert (info.layer, info.features, info.bounds) == (
        "fields",
        len(names) if "Polygon" not in rest else 3,
        (0, 0, 50, 10),
    )
    assert inspect_polygons(str(info.source), None) == info
    prior = PolygonMask(info, GeoBox((10, 50), Affine(1, 0, 0, 0, -1, 10), UTM), {})
    inside = prior.read(Window(0, 0, 10, 50))[5] != 0
    assert inside.tolist() == [shapely.contains_xy(meant, x + 0.5, 4.5) for x in range(50)]


def test_a_subset_that_is_wrong_or_holds_nothing(fields: Path) -> None:
    for read in (read_areas, lambda text: read_aoi(text, UTM), lambda text: inspect_polygons(text, None)):
        with pytest.raises(InputError, match="cannot be read as a vector file"):
            read(f"{fields}|layername=fields|subset=tod = 1")  # type: ignore[operator]
        with pytest.raises(InputError, match=r"holds no geometry|holds 0 features"):
            read(f"{fields}|layername=fields|subset=todo = 7")  # type: ignore[operator]


def test_an_index_may_be_a_subset(fields: Path) -> None:
    index = fields.with_name("index.gpkg")
    frame = geopandas.GeoDataFrame({"path": ["a.tif", "b.tif"], "cloud": [5, 90]}, geometry=[BOXES["p"]] * 2, crs=UTM)
    frame.to_file(index, layer="tiles")
    (entry,) = read_catalogue([f"{index}|layername=tiles|subset=cloud < 20"], "scene")
    assert entry.name == "a.tif"
    index.with_name("index.csv").write_text("path\na.tif\n")
    with pytest.raises(InputError, match="a subset needs a GeoPackage"):
        read_catalogue([f"{index.with_name('index.csv')}|subset=cloud < 20"], "scene")
