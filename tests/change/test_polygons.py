"""Masks from polygons: any CRS, layer and field, the same pixels whatever the window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geo_refdiff.change.mask import decide_mask
from geo_refdiff.change.polygons import PolygonMask, class_field, inspect_polygons, is_vector
from geo_refdiff.classes import CLASSES
from geo_refdiff.errors import GridError, InputError, OptionError
from geo_refdiff.options import MaskOptions
from geo_refdiff.raster.geobox import scene_geobox
from geo_refdiff.raster.info import inspect
from geo_refdiff.raster.window import Window

Make = Callable[..., Path]
SIDE = 700  # more than one tile
UTM = "EPSG:26914"
X, Y = 485_904.0, 5_209_248.0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> GeoBox:
    from affine import Affine

    return GeoBox((SIDE, SIDE), Affine(5, 0, X, 0, -5, Y), UTM)


def frame(crs: str = UTM) -> geopandas.GeoDataFrame:
    """A box of water over pixels 100..299 of both axes, a triangle of building on top, a ring of unknown class."""
    water = shapely.box(X + 500, Y - 1500, X + 1500, Y - 500)
    building = shapely.Polygon([(X + 1000, Y - 1000), (X + 2500, Y - 1000), (X + 1000, Y - 2500)])
    ring = shapely.Point(X + 2700, Y - 700).buffer(400).difference(shapely.Point(X + 2700, Y - 700).buffer(200))
    data = {"now": ["Water", "building", None], "code": [1, 5, 255]}
    return geopandas.GeoDataFrame(data, geometry=[water, building, ring], crs=UTM).to_crs(crs)


def prior_of(path: str, target: GeoBox, field: str | None = "now") -> PolygonMask:
    record = decide_mask(MaskOptions(mask=path, mask_field=field), CLASSES, target)
    assert record is not None
    assert record.polygons is not None
    return PolygonMask(record.polygons, target, dict(record.values))


def test_pixels_of_boxes_triangles_and_rings(tmp_path: Path, target: GeoBox) -> None:
    frame().to_file(tmp_path / "p.gpkg", layer="changes")
    mask = prior_of(str(tmp_path / "p.gpkg"), target).read(Window(0, 0, SIDE, SIDE))
    rows, cols = np.mgrid[:SIDE, :SIDE]
    inside = shapely.contains_xy
    x, y = X + 5 * (cols + 0.5), Y - 5 * (rows + 0.5)
    want = np.zeros(mask.shape, np.uint8)
    for geometry, index in zip(frame().geometry, (1, 5, 255), strict=True):  # an oracle of its own: pixel centres
        want[inside(geometry, x, y)] = index
    assert (mask != want).sum() <= 400  # centres exactly on the triangle's 45 degree edge may go either way
    assert (mask[100:200, 100:200] == 1).all()
    assert mask[250, 250] == 5
    assert {0, 1, 5, 255} == set(np.unique(mask).tolist())


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(-20, 690), st.integers(-20, 690), st.integers(1, 200), st.integers(1, 200))
def test_the_same_pixels_whatever_the_window(
    wgs84_polygons: PolygonMask, whole: np.ndarray, row: int, col: int, height: int, width: int
) -> None:
    window = Window(row, col, height, width)
    part = wgs84_polygons.read(window)
    wide = Window(-30, -30, whole.shape[0], whole.shape[1])
    assert (part == whole[window.within(wide)]).all()


@pytest.fixture(scope="module")
def wgs84_polygons(tmp_path_factory: pytest.TempPathFactory, target: GeoBox) -> PolygonMask:
    path = tmp_path_factory.mktemp("polygons") / "p.geojson"
    frame("EPSG:4326").to_file(path)
    return prior_of(str(path), target)


@pytest.fixture(scope="module")
def whole(wgs84_polygons: PolygonMask) -> np.ndarray:
    return wgs84_polygons.read(Window(-30, -30, 960, 960))


@pytest.mark.parametrize(
    ("name", "crs"), [("p.geojson", "EPSG:4326"), ("p.shp", "EPSG:3857"), ("p.gpkg", "EPSG:32615")]
)
def test_other_crs_and_formats_give_the_same_mask(tmp_path: Path, target: GeoBox, name: str, crs: str) -> None:
    frame().to_file(tmp_path / "own.gpkg")
    frame(crs).to_file(tmp_path / name)
    window = Window(0, 0, SIDE, SIDE)
    own = prior_of(str(tmp_path / "own.gpkg"), target).read(window)
    other = prior_of(str(tmp_path / name), target).read(window)
    assert (own != other).mean() < 0.002  # centres on edges


def test_layers_fields_and_numbers(tmp_path: Path, target: GeoBox) -> None:
    path = tmp_path / "p.gpkg"
    frame().to_file(path, layer="changes")
    frame().iloc[:1].to_file(path, layer="more")
    with pytest.raises(InputError, match=r"has 2 layers with geometry \(changes, more\)"):
        decide_mask(MaskOptions(mask=path, mask_field="now"), CLASSES, target)
    mask = prior_of(f"{path}|layername=more", target, "code").read(Window(150, 150, 4, 4))
    assert (mask == 1).all()
    blind = prior_of(f"{path}|layername=more", target, None)
    assert (blind.read(Window(150, 150, 4, 4)) == 255).all()
    assert (blind.read(Window(0, 0, 4, 4)) == 0).all()


def test_class_map_of_a_field(tmp_path: Path, target: GeoBox) -> None:
    data = frame()
    data["kind"] = ["A", "B", "B"]
    data.to_file(tmp_path / "p.gpkg")
    (tmp_path / "map.json").write_text('{"a": "tree", "b": "bare ground"}')
    request = MaskOptions(mask=tmp_path / "p.gpkg", mask_field="kind", class_map=tmp_path / "map.json")
    record = decide_mask(request, CLASSES, target)
    assert record is not None
    assert dict(record.values) == {"a": 4, "b": 2}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"mask_field": "none"}, InputError, "has no field 'none'; its fields are now, code"),
        ({"mask_field": "now", "no_change": 0}, OptionError, "outside of polygons there is no change"),
        ({"class_map": "x"}, OptionError, "give --mask-field"),
    ],
)
def test_options_of_polygons(
    tmp_path: Path, target: GeoBox, options: dict[str, object], error: type[Exception], words: str
) -> None:
    frame().to_file(tmp_path / "p.gpkg")
    with pytest.raises(error, match=words):
        decide_mask(MaskOptions(mask=tmp_path / "p.gpkg", **options), CLASSES, target)  # type: ignore[arg-type]


def test_polygons_that_cannot_be_used(tmp_path: Path, target: GeoBox) -> None:
    data = frame()
    data["now"] = "ship"
    data.to_file(tmp_path / "ship.gpkg")
    with pytest.raises(InputError, match="holds 'ship', which is no class of the model; its classes are 0 no change"):
        decide_mask(MaskOptions(mask=tmp_path / "ship.gpkg", mask_field="now"), CLASSES, target)
    far = frame()
    far.geometry = far.geometry.translate(1e5, 0)
    far.to_file(tmp_path / "far.gpkg")
    with pytest.raises(GridError, match="no polygon is near the scene"):
        decide_mask(MaskOptions(mask=tmp_path / "far.gpkg", mask_field="now"), CLASSES, target)
    points = frame()
    points.geometry = points.geometry.centroid
    points.to_file(tmp_path / "points.gpkg")
    with pytest.raises(InputError, match="features of type Point"):
        inspect_polygons(str(tmp_path / "points.gpkg"), None)
    with pytest.raises(InputError, match="no such file"):
        inspect_polygons(str(tmp_path / "none.gpkg"), None)


def test_rasters_are_no_vector_files(make_raster: Make, tmp_path: Path) -> None:
    assert not is_vector(str(make_raster("m.tif", np.zeros((1, 8, 8), np.uint8))))
    frame().to_file(tmp_path / "p.fgb")
    assert is_vector(str(tmp_path / "p.fgb"))
    assert is_vector("whatever|layername=x")
    assert scene_geobox(inspect(str(tmp_path / "m.tif"), "mask")).shape == (8, 8)


@pytest.mark.parametrize(
    ("fields", "likely"), [(("id", "Class"), "Class"), (("label",), "label"), (("DN",), "DN"), (("area",), None)]
)
def test_a_field_that_looks_like_classes_is_found(tmp_path: Path, fields: tuple[str, ...], likely: str | None) -> None:
    frame = geopandas.GeoDataFrame({key: [3] for key in fields}, geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    frame.to_file(tmp_path / "a.gpkg")
    assert class_field(inspect_polygons(str(tmp_path / "a.gpkg"), None)) == likely
    assert class_field(inspect_polygons(str(tmp_path / "a.gpkg"), fields[0])) is None
