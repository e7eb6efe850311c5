"""Which inputs serve an area: catalogues, dates, overlap, nodata, mosaics."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geo_refdiff.batch.areas import file_names, is_file_name, read_areas
from geo_refdiff.batch.catalogue import Entry, read_catalogue
from geo_refdiff.batch.mosaic import Mosaic
from geo_refdiff.batch.selection import Chooser, missing_share, reference_dates, scene_dates
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.raster.dates import Span, span_in_name, span_of
from geo_refdiff.raster.location import gdal_name

CORNER = (485_904.0, 5_209_248.0)


def at(col: int, row: int = 0, pixel: float = 40.0) -> Affine:
    return Affine(pixel, 0, CORNER[0] + col * 40.0, 0, -pixel, CORNER[1] - row * 40.0)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("S2A_MSIL2A_20210503T183921_N0300", "2021-05-03"),
        ("naip_2018", "2018"),
        ("x_2018-06-01", "2018-06-01"),
        ("LC08_L1TP_042035_20210812_20210818", "2021-08-12"),
        ("shot-20210503183921", "2021-05-03"),
        ("tile_20211399", None),
        ("x12021050312", None),
        ("tile_2048_4096", None),
        ("tile_1920_4096", None),
        ("tile-0512-1920", None),
        ("r1920_c2048", None),
        ("row_1920_col_0", None),
        ("x2000y1900", None),
        ("shot_1920x1080", None),
        ("tile_2048_4096_2018", "2018"),
        ("r1920_c2048_naip_2018", "2018"),
        ("naip2018", "2018"),
        ("75-2021-0650-6860-LA93-0M20-E080", "2021"),
        ("swissimage-dop10_2020_2600-1199_0.1_2056", "2020"),
        ("mosaic_2018_2019", "2018"),
        ("landsat_8_2018", "2018"),
        ("plan_2098", None),
        ("plan_20980101_2018", "2018"),
        ("plain", None),
    ],
)
def test_dates_in_names(name: str, output: str | None) -> None:
    result = span_in_name(name)
    assert (None if result is None else str(result)) == output


def test_a_name_tells_no_day_after_a_file_was_written() -> None:
    written = date(2020, 3, 1)
    assert str(span_in_name("a_2020", written)) == "2020"
    assert span_in_name("a_2021", written) is None
    assert span_in_name("a_20200302", written) is None
    assert span_in_name(f"a_{date.today().year + 1}") is None


def test_dates_as_text() -> None:
    assert str(span_of("2021-05-03T10:00:00Z")) == "2021-05-03"
    assert str(span_of("2024-02")) == "2024-02-01/2024-02-29"
    assert str(span_of("2021-05-03/2021-06")) == "2021-05-03/2021-06-30"
    assert span_of("2021-06/2021-05") is None
    assert span_of("soon") is None
    assert span_of(datetime(2020, 1, 2, tzinfo=UTC)) == span_of("2020-01-02")


@pytest.mark.parametrize(
    ("text", "exact", "days"),
    [
        ("2021-05-03T10:30:21Z", "2021-05-03T10:30:21Z", "2021-05-03"),
        ("2021-05-03 10:30:21.5", "2021-05-03T10:30:21.500000Z", "2021-05-03"),
        ("2021-05-03T23:30:00-05:00", "2021-05-04T04:30:00Z", "2021-05-04"),
        ("2021-05-03T00:00:00Z", "2021-05-03", "2021-05-03"),
        ("2021-05-03T10:30:00Z/2021-05-03T10:31:00Z", "2021-05-03T10:30:00Z/2021-05-03T10:31:00Z", "2021-05-03"),
        ("2021-05-03/2021-05-05T12:00Z", "2021-05-03T00:00:00Z/2021-05-05T12:00:00Z", "2021-05-03/2021-05-05"),
        ("2021-05", "2021-05-01/2021-05-31", "2021-05-01/2021-05-31"),
    ],
)
def test_times_are_kept_beside_days(text: str, exact: str, days: str) -> None:
    span = span_of(text)
    assert span is not None
    assert (span.exact, str(span)) == (exact, days)
    assert span == span_of(days)
    again = span_of(exact)
    assert again is not None
    assert (again.begin, again.end) == (span.begin, span.end)
    assert span_of("2021-05-03T10:31:00Z/2021-05-03T10:30:00Z") is None


@given(st.dates(), st.dates(), st.dates(), st.dates())
def test_distance_of_spans(a: Any, b: Any, c: Any, d: Any) -> None:
    one, two = Span(*sorted([a, b])), Span(*sorted([c, d]))
    overlap = one.first <= two.last and two.first <= one.last
    assert one.days_from(two) == two.days_from(one)
    assert (one.days_from(two) == 0) == overlap


@given(st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=12))
def test_names_are_plain_unique_file_names(texts: list[str | None]) -> None:
    names = file_names(texts)
    assert len({unicodedata.normalize("NFKD", name).lower() for name in names}) == len(texts)
    for name in names:
        assert name == Path(name).name
        assert is_file_name(name)
        assert name.isprintable()
        assert " " not in name
        assert len(name.encode()) <= 180
        assert name.lower() not in ("manifest", "batch", "collection")


def test_names_stay_in_their_script() -> None:
    given = [
        "Málaga",
        "東京都 千代田区",
        "Санкт-Петербург",
        "القاهرة",
        "नई दिल्ली",
        "서울",
        "Zürich/Nord",
        "../etc",
        "😀",
    ]
    assert file_names(given) == [
        "Málaga", "東京都_千代田区", "Санкт-Петербург", "القاهرة", "नई_दिल्ली", "서울", "Zürich_Nord", "etc", "aoi_0009",
    ]  # fmt: skip
    assert file_names(["Málaga", unicodedata.normalize("NFD", "MÁLAGA")]) == ["Málaga", "MÁLAGA_2"]
    assert not any(map(is_file_name, ["", "../x", "a/b", ".hidden", "a\nb", "a b", "a\\b"]))


def test_no_output_is_called_as_the_map_of_another() -> None:
    assert file_names(["x", "x.source", "X.Uncertainty", "batch"]) == [
        "x", "x.source_aoi", "X.Uncertainty_aoi", "batch_aoi",
    ]  # fmt: skip


def test_areas_of_any_format_and_crs(tmp_path: Path) -> None:
    box = shapely.box(-101, 47, -100.9, 47.1)
    frame = geopandas.GeoDataFrame({"id": [7.0, 8.0]}, geometry=[box, shapely.Point(-101, 47)], crs="EPSG:4326")
    for name, crs in (("a.geojson", "EPSG:4326"), ("a.shp", "EPSG:3857"), ("a.fgb", "EPSG:26914")):
        frame.iloc[:1].to_crs(crs).to_file(tmp_path / name)
        (area,) = read_areas(tmp_path / name)
        assert area.name == "7"
        assert area.lonlat.area == pytest.approx(box.area, rel=1e-3)
        assert area.text.startswith(crs + ";POLYGON" if crs != "EPSG:4326" else "")
    frame.to_file(tmp_path / "a.gpkg", layer="other")
    frame.to_file(tmp_path / "a.gpkg", layer="mine")
    areas = read_areas(f"{tmp_path / 'a.gpkg'}|layername=mine")
    assert [a.name for a in areas] == ["7", "8"]
    assert areas[1].lonlat.is_empty
    with pytest.raises(OptionError, match=r"no field 'town'; its fields are id"):
        read_areas(tmp_path / "a.shp", "town")
    with pytest.raises(InputError, match="no such file"):
        read_areas(tmp_path / "none.gpkg")


def test_folder_and_indices_tell_the_same(make_raster: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, col in (("a_20210503.tif", 0), ("b_2020.tif", 8)):
        make_raster(f"in/{name}", np.ones((1, 8, 8), "uint8"), transform=at(col))
    (tmp_path / "in" / "x.tif.parts").mkdir()
    (tmp_path / "in" / "x.tif.parts" / "no.tif").touch()
    folder = read_catalogue([tmp_path / "in"], "scene")
    assert [(e.name, str(e.span)) for e in folder] == [("a_20210503.tif", "2021-05-03"), ("b_2020.tif", "2020")]
    text = "file,date\n" + "".join(f"in/{e.name},{e.span}\n" for e in folder)
    (tmp_path / "index.csv").write_text(text)
    assert read_catalogue([tmp_path / "index.csv"], "scene") == folder
    frame = geopandas.GeoDataFrame(
        {"location": [f"in/{e.name}" for e in folder], "date": [str(e.span) for e in folder]},
        geometry=[e.lonlat for e in folder],
        crs="EPSG:4326",
    )
    frame.to_crs("EPSG:3857").to_file(tmp_path / "index.gpkg", layer="tiles")
    frame.to_parquet(tmp_path / "index.parquet")
    for name in ("index.gpkg|layername=tiles", "index.parquet"):
        result = read_catalogue([f"{tmp_path}/{name}"], "scene")
        assert [(e.files, e.span) for e in result] == [(e.files, e.span) for e in folder]
        for one, other in zip(result, folder, strict=True):
            assert one.lonlat.symmetric_difference(other.lonlat).area < 1e-6 * other.lonlat.area
    assert read_catalogue([tmp_path / "in", tmp_path / "in" / "b_2020.tif"], "scene") == folder


def test_footprints_are_mended(make_raster: Any, tmp_path: Path) -> None:
    """A bow tie counts with both its halves; what has no area is looked up in the file."""
    from geo_refdiff.batch.catalogue import read_stac

    bow = shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)])
    jump = shapely.Polygon([(179, 0), (-179, 0), (-179, 1), (179, 1)])
    point = shapely.Point(-101.18, 47)
    scene = make_raster("x.tif", np.ones((1, 8, 8), "uint8"))
    own = read_catalogue([scene], "scene")[0].lonlat
    wanted = {"bow": 2.0, "jump": 2.0, "point": own.area}
    shapes = {"bow": bow, "jump": jump, "point": point}
    names = [f"{name}.tif" for name in shapes]
    for name in names:
        (tmp_path / name).symlink_to(scene)
    (tmp_path / "index.csv").write_text("path,wkt\n" + "".join(f'{n}.tif,"{s.wkt}"\n' for n, s in shapes.items()))
    geopandas.GeoDataFrame({"path": names}, geometry=list(shapes.values()), crs="EPSG:4326").to_file(
        tmp_path / "i.gpkg"
    )
    for index in ("index.csv", "i.gpkg"):
        entries = read_catalogue([tmp_path / index], "scene")
        assert all(entry.lonlat.is_valid for entry in entries)
        assert [entry.lonlat.area for entry in entries] == pytest.approx(list(wanted.values()))
    Chooser(entries, "scene").choose(shapely.box(0.4, 0.4, 1.5, 1.6), scene_dates(None, False))
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "x", "bbox": [0, 0, 2, 2], "links": []}
    item |= {"properties": {"datetime": "2021-05-03T00:00:00Z"}, "assets": {"data": {"href": "bow.tif"}}}
    path = tmp_path / "item.json"
    path.write_text(json.dumps(item | {"geometry": shapely.geometry.mapping(bow)}))
    assert read_stac(str(path), "scene")[0].lonlat.area == pytest.approx(wanted["bow"])
    for geometry in (shapely.geometry.mapping(point), {"type": "Polygon", "coordinates": [[[0, 0]]]}):
        path.write_text(json.dumps(item | {"geometry": geometry}))
        with pytest.raises(InputError, match=r"item x: its geometry (has no area|makes no sense)"):
            read_stac(str(path), "scene")
    (tmp_path / "index.csv").write_text('path,wkt\nx.tif,"POLYGON ((0 0, 1 1, inf 0, 0 0))"\n')
    with pytest.raises(InputError, match="row 1: the footprint has points that cannot be given in degrees"):
        read_catalogue([tmp_path / "index.csv"], "scene")


def test_bad_catalogues_are_one_line(make_raster: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no_column.csv").write_text("a,b\n1,2\n")
    (tmp_path / "bad_date.csv").write_text("path,date,west,south,east,north\nx.tif,soon,0,0,1,1\n")
    (tmp_path / "bad_box.csv").write_text("path,west,south,east,north\nx.tif,5,0,1,1\n")
    (tmp_path / "ragged.csv").write_text("path,date\nx.tif\n")
    (tmp_path / "text.tif").write_text("no raster")
    (tmp_path / "no.json").write_text("{}")
    for name, output in {
        "empty": "holds no raster",
        "no_column.csv": "no column that names the files",
        "bad_date.csv": "row 1: date 'soon' is no date",
        "bad_box.csv": "is no box in degrees",
        "ragged.csv": "row 1: 1 cells for 2 columns",
        "text.tif": "cannot be opened as a raster",
        "no.json": "cannot be read as STAC",
        "gone.tif": "no such file",
    }.items():
        with pytest.raises(InputError, match=output) as caught:
            read_catalogue([tmp_path / name], "scene")
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_locations_as_gdal_names(tmp_path: Path) -> None:
    assert gdal_name("https://x.org/a.tif") == "/vsicurl/https://x.org/a.tif"
    assert gdal_name("s3://bucket/a.tif") == "/vsis3/bucket/a.tif"
    assert gdal_name("/vsizip/a.zip/a.tif") == "/vsizip/a.zip/a.tif"
    assert gdal_name("a.tif", tmp_path) == f"{tmp_path}/a.tif"
    (tmp_path / "a.nc").touch()
    assert gdal_name('NETCDF:"a.nc":a', tmp_path) == f'NETCDF:"{tmp_path}/a.nc":a'
    assert gdal_name(f'HDF5:"{tmp_path}/a.nc"://group/a', tmp_path) == f'HDF5:"{tmp_path}/a.nc"://group/a'
    assert gdal_name("GTIFF_DIR:2:/vsicurl/https://x.org/a.tif") == "GTIFF_DIR:2:/vsicurl/https://x.org/a.tif"
    with pytest.raises(InputError, match="cannot be read by GDAL"):
        gdal_name("ftp://x.org/a.tif")


def test_stac_on_disk(make_raster: Any, tmp_path: Path) -> None:
    import pystac

    paths = {b: make_raster(f"{b}.tif", np.full((1, 4, 4), v, "uint8")) for b, v in (("red", 1), ("nir", 2))}
    box = shapely.box(-101, 47, -100.9, 47.1)
    item = pystac.Item("one", shapely.geometry.mapping(box), list(box.bounds), datetime(2021, 5, 3, tzinfo=UTC), {})
    for band, path in paths.items():
        item.add_asset(band, pystac.Asset(f"./{path.name}", media_type=pystac.MediaType.COG))
    collection = pystac.ItemCollection([item])
    collection.save_object(str(tmp_path / "items.json"))
    with pytest.raises(InputError, match=r"which of its rasters is meant\? .*red, nir"):
        read_catalogue([tmp_path / "items.json"], "scene")
    with pytest.raises(InputError, match="item one: has no asset 'blue', only red, nir"):
        read_catalogue([tmp_path / "items.json"], "scene", ["blue"])
    (entry,) = read_catalogue([tmp_path / "items.json"], "scene", ["nir", "red"])
    assert str(entry.span) == "2021-05-03"
    assert entry.lonlat.equals(box)
    file = Mosaic("scene").write([entry], tmp_path / "stack.vrt")
    with rasterio.open(file) as dataset:
        assert dataset.descriptions == ("nir", "red")
        assert dataset.read()[:, 0, 0].tolist() == [2, 1]
    catalog = pystac.Catalog("all", "all")
    catalog.add_item(item)
    for asset in item.assets.values():
        asset.href = str(tmp_path / Path(asset.href).name)
    catalog.normalize_and_save(str(tmp_path / "catalog"), pystac.CatalogType.SELF_CONTAINED)
    (same,) = read_catalogue([tmp_path / "catalog" / "catalog.json"], "scene", ["nir", "red"])
    assert same.files == entry.files
    feature = json.loads((tmp_path / "items.json").read_text())["features"][0]
    feature["assets"] = {"visual": feature["assets"]["red"]}
    (tmp_path / "item.geojson").write_text(json.dumps(feature))
    (only,) = read_catalogue([tmp_path / "item.geojson"], "scene")
    assert only.files == (str(paths["red"]),)


def stac_item(name: str, href: str) -> dict[str, Any]:
    ground = shapely.geometry.mapping(shapely.box(-101, 47, -100.9, 47.1))
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": ground,
        "bbox": [-101, 47, -100.9, 47.1],
    }
    return item | {"links": [], "properties": {"datetime": "2021-05-03T00:00:00Z"}, "assets": {"data": {"href": href}}}


def write_page(path: Path, names: list[str], link: dict[str, Any] | None = None) -> Path:
    """A page of an ItemCollection, its assets beside it."""
    features = [stac_item(name, f"./{name}.tif") for name in names]
    links = [{"rel": "self", "href": "x"}] + ([] if link is None else [{"rel": "next"} | link])
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, "links": links}))
    return path


def test_pages_of_an_item_collection(tmp_path: Path) -> None:
    (tmp_path / "more pages").mkdir()
    first = write_page(tmp_path / "1.json", ["a", "b"], {"href": "more%20pages/2.json"})
    write_page(tmp_path / "more pages" / "2.json", [], {"href": f"file://{tmp_path}/3.json", "method": "GET"})
    write_page(tmp_path / "3.json", ["c"], {"href": "1.json"})  # where it began
    result = read_catalogue([first], "scene")
    assert [entry.files[0] for entry in result] == [f"{tmp_path}/{name}.tif" for name in "abc"]
    for link in ({"href": "2.json", "method": "POST"}, {"href": "2.json", "body": {"token": "x"}}):
        write_page(first, ["a"], link)
        with pytest.raises(InputError, match=r"1\.json: its next page cannot be asked for .*; search by GET") as caught:
            read_catalogue([first], "scene")
        assert "\n" not in str(caught.value)
    write_page(first, ["a"], {"href": "gone.json"})
    with pytest.raises(InputError, match="cannot be read as STAC"):
        read_catalogue([first], "scene")


def test_pages_without_an_end_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_refdiff.batch.catalogue._MOST_PAGES", 3)
    for number in range(4):
        write_page(tmp_path / f"{number}.json", [], {"href": f"{number + 1}.json"})
    with pytest.raises(InputError, match="has more than 3 pages"):
        read_catalogue([tmp_path / "0.json"], "scene")


def test_escapes_in_links_are_undone(tmp_path: Path) -> None:
    folder = tmp_path / "my scenes"
    folder.mkdir()
    for name in ("a 1.tif", "b%201.tif", "c.tif"):
        (folder / name).touch()
    hrefs = {
        "./a%201.tif": "a 1.tif",
        "a 1.tif": "a 1.tif",
        "b%201.tif": "b%201.tif",  # a file may be called so
        f"file://{tmp_path}/my%20scenes/a%201.tif": "a 1.tif",
        f"file://localhost{tmp_path}/my%20scenes/c.tif": "c.tif",
    }
    for item_file in ("item.json", "items.json"):
        for href, name in hrefs.items():
            item = stac_item("x", href)
            whole = item if item_file == "item.json" else {"type": "FeatureCollection", "features": [item]}
            (folder / item_file).write_text(json.dumps(whole))
            for source in (folder / item_file, f"file://{tmp_path}/my%20scenes/{item_file}"):
                assert read_catalogue([source], "scene")[0].files == (str(folder / name),)


def entry(name: str, box: tuple[float, float, float, float], date: str | None = None) -> Entry:
    return Entry((name,), shapely.box(*box), span_of(date))


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [e.files[0] for e in entries]


@pytest.fixture
def no_nodata(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Shares of missing pixels by file name, instead of reading files."""
    shares: dict[str, float] = {}
    monkeypatch.setattr("geo_refdiff.batch.selection.missing_share", lambda e, area: shares.get(e.files[0], 0.0))
    return shares


def test_overlap_then_date_then_nodata(no_nodata: dict[str, float]) -> None:
    area = shapely.box(0, 0, 1, 1)
    part = entry("part", (0, 0, 0.5, 1), "2021-05-03")
    old, new = entry("old", (0, 0, 2, 2), "2019-01-01"), entry("new", (0, 0, 2, 2), "2020-01-01")
    unknown = entry("unknown", (0, 0, 2, 2))
    chooser = Chooser([part, old, unknown, new], "scene")
    asked = span_of("2021-05-03")
    assert names(chooser.choose(area, scene_dates(asked, False)).entries) == ["new"]
    assert names(chooser.choose(area, scene_dates(span_of("2018"), False)).entries) == ["old"]
    assert names(chooser.choose(area, scene_dates(None, False)).entries) == ["new"]
    assert names(chooser.choose(area, scene_dates(span_of("2019-01-01/2019-12-31"), True)).entries) == ["old"]
    with pytest.raises(InputError, match=r"no scene of the dates asked for overlaps the area \(2019-01-01, 2020-01-01"):
        chooser.choose(area, scene_dates(span_of("2010/2011"), True))
    with pytest.raises(InputError, match="no scene of 4 overlaps"):
        chooser.choose(shapely.box(9, 9, 10, 10), scene_dates(None, False))
    twins = Chooser([entry("a", (0, 0, 1, 1), "2020"), entry("b", (0, 0, 1, 1), "2020")], "scene")
    assert names(twins.choose(area, scene_dates(None, False)).entries) == ["a"]
    no_nodata["a"] = 0.3
    assert names(twins.choose(area, scene_dates(None, False)).entries) == ["b"]


def test_a_file_without_rivals_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could fill its gaps, whatever they are."""
    read: list[str] = []
    monkeypatch.setattr("geo_refdiff.batch.selection.missing_share", lambda e, area: read.append(e.name) or 0.0)
    area, alone = shapely.box(0, 0, 1, 1), entry("alone", (0, 0, 2, 2), "2020")
    assert names(Chooser([alone], "scene").choose(area, scene_dates(None, False)).entries) == ["alone"]
    assert not read
    far = entry("far", (5, 5, 6, 6), "2020")
    chooser = Chooser([alone, far, entry("part", (0, 0, 1, 0.5), "2020")], "scene")
    assert names(chooser.choose(area, scene_dates(None, False)).entries) == ["alone"]
    assert read == ["alone"]


def test_each_percent_of_clouds_counts_as_a_day(no_nodata: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    area = shapely.box(0, 0, 1, 1)
    shares = {"may": 0.4, "june": 0.0, "july": 0.9, "part": 0.0}
    looked: list[str] = []

    def cloudy(entry: Entry, area: Any) -> float:
        looked.append(entry.name)
        return shares[entry.name]

    monkeypatch.setattr("geo_refdiff.batch.selection.cloudy_share", cloudy)
    dates = (("may", "2021-05-03"), ("june", "2021-06-03"), ("july", "2021-07-03"))
    entries = [entry("part", (0, 0, 0.5, 1), "2021-05-03"), *(entry(name, (0, 0, 2, 2), day) for name, day in dates)]
    by_date = scene_dates(span_of("2021-05-03"), False)
    chosen = Chooser(entries, "scene", clear=True).choose(area, by_date)
    assert names(chosen.entries) == ["june"]  # 31 days further off, 40 % clearer
    assert chosen.cloudy == ("may (40%)",)
    assert looked == ["may", "june"], "july cannot win: its clouds are not looked at"
    shares["may"] = 0.3
    assert names(Chooser(entries, "scene", clear=True).choose(area, by_date).entries) == ["may"]
    shares |= {"may": 1.0, "june": 1.0, "july": 1.0}
    assert names(Chooser(entries, "scene", clear=True).choose(area, by_date).entries) == ["may"]  # covers all of it
    looked.clear()
    assert names(Chooser(entries, "scene").choose(area, by_date).entries) == ["may"]
    assert not looked


def test_references_are_older_than_the_scene(no_nodata: dict[str, float]) -> None:
    area = shapely.box(0, 0, 1, 1)
    entries = [entry(d, (0, 0, 1, 1), d) for d in ("2014", "2016-07-01", "2018", "2022")]
    chooser = Chooser(entries, "reference")

    def top(scene: str | None, before: str | None) -> str:
        return names(chooser.choose(area, reference_dates(span_of(scene), span_of(before))).entries)[0]

    assert top("2020-01-01", None) == "2018"
    assert top("2018-05-05", None) == "2016-07-01"
    assert top("2013-01-01", None) == "2014"
    assert top("2020-01-01", "2018-06-01") == "2016-07-01"
    assert top("2020-01-01", "2016") == "2014"
    assert top(None, None) == "2022"


def test_gaps_are_filled_in_order(no_nodata: dict[str, float]) -> None:
    area = shapely.box(0, 0, 4, 1)
    left, right = entry("left", (0, 0, 3, 1), "2020"), entry("right", (2, 0, 4, 1), "2021")
    chooser = Chooser([right, left, entry("inside", (0.5, 0, 1, 1), "2022")], "scene")
    chosen = chooser.choose(area, scene_dates(None, False))
    assert names(chosen.entries) == ["left", "right"]
    assert chosen.covered == pytest.approx(1.0)
    no_nodata["left"] = 0.1
    assert names(chooser.choose(area, scene_dates(None, False)).entries) == ["left", "right", "inside"]


def test_missing_share_is_that_of_the_area(make_raster: Any) -> None:
    values = np.full((1, 40, 40), 9, "uint8")
    values[:, :, :10] = 0
    path = make_raster("half.tif", values, nodata=0)
    (whole,) = read_catalogue([path], "scene")
    with rasterio.open(path) as dataset:
        left, bottom, _, top = dataset.bounds
    part = geopandas.GeoSeries([shapely.box(left, bottom, left + 20 * 40, top)], crs="EPSG:26914").to_crs(4326).iloc[0]
    assert missing_share(whole, whole.lonlat) == pytest.approx(0.25, abs=0.04)
    assert missing_share(whole, part) == pytest.approx(0.5, abs=0.04)


def test_mosaic_lays_the_first_on_top(make_raster: Any, tmp_path: Path) -> None:
    top = np.full((3, 6, 6), 100, "uint8")
    top[:, :2, 3:] = 0
    a = make_raster("a.tif", top, nodata=0, names=("red", "green", "blue"))
    b = make_raster("b.tif", np.full((3, 6, 6), 50, "uint8"), nodata=0, transform=at(3, 1))
    file = Mosaic("scene").write(read_catalogue([a, b], "scene"), tmp_path / "m.vrt")
    with rasterio.open(file) as dataset:
        assert (dataset.height, dataset.width) == (7, 9)
        assert dataset.descriptions == ("red", "green", "blue")
        assert dataset.nodata == 0
        assert tuple(dataset.transform[:6]) == tuple(at(0)[:6])
        values = dataset.read(2)
    expected = np.zeros((7, 9), "uint8")
    expected[1:, 3:] = 50
    expected[:6, :6] = np.where(top[0] > 0, top[0], expected[:6, :6])
    np.testing.assert_array_equal(values, expected)
    before = Path(file).stat().st_mtime_ns
    assert Mosaic("scene").write(read_catalogue([a, b], "scene"), tmp_path / "m.vrt") == file
    assert Path(file).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("other", "output"),
    [
        ({"transform": at(3) @ Affine.translation(0.5, 0)}, "on another pixel grid"),
        ({"crs": "EPSG:32613"}, "on another pixel grid"),
        ({"bands": 4, "names": ()}, "4 bands instead of 3"),
        ({"dtype": "uint16"}, "uint16 instead of uint8"),
        ({"names": ("blue", "green", "red")}, "bands blue, green, red instead of red, green, blue"),
        ({"scales": (1.0, 1.0, 1e-4)}, "scale 0.0001 instead of 1.0"),
        ({"offsets": (0.0, -0.1, 0.0)}, "offset -0.1 instead of 0.0"),
        ({"units": ("K", "K", "K")}, "unit K instead of none"),
        ({}, None),
        ({"names": ("B4", "B3", "B2")}, None),
        ({"names": ()}, None),
    ],
)
def test_what_is_laid_under_another_one(
    make_raster: Any, tmp_path: Path, other: dict[str, Any], output: str | None
) -> None:
    more = {"transform": at(3), "names": ("red", "green", "blue")} | other
    tags = {k: more.pop(k) for k in ("scales", "offsets", "units") if k in more}
    values = np.full((more.pop("bands", 3), 6, 6), 7, more.pop("dtype", "uint8"))
    under = make_raster("under.tif", values, **more)
    with rasterio.open(under, "r+") as dataset:
        for name, value in tags.items():
            setattr(dataset, name, value)
    on_top = make_raster("top.tif", np.full((3, 6, 6), 9, "uint8"), names=("red", "green", "blue"))
    top, entry = read_catalogue([on_top, under], "scene")
    assert Mosaic("scene").why_not(entry, top) == output


def test_what_does_not_fit_leaves_its_place_to_the_next(no_nodata: dict[str, float]) -> None:
    area = shapely.box(0, 0, 4, 1)
    left, right = entry("left", (0, 0, 3, 1), "2020"), entry("right", (2, 0, 4, 1), "2021")
    spare = entry("spare", (2, 0, 3.5, 1), "2020")

    def why_not(entry: Entry, top: Entry) -> str | None:
        assert top.name == "left"
        return "uint16 instead of uint8" if entry.name == "right" else None

    chosen = Chooser([left, right, spare], "scene").choose(area, scene_dates(None, False), why_not)
    assert names(chosen.entries) == ["left", "spare"]
    assert chosen.covered == pytest.approx(3.5 / 4)
    assert chosen.left_out == ("right (uint16 instead of uint8)",)


def test_mosaic_of_masked_and_plain_rasters(make_raster: Any, tmp_path: Path) -> None:
    mask = np.full((6, 6), 255, "uint8")
    mask[:2, :2] = 0
    a = make_raster("a.tif", np.full((1, 6, 6), 100, "uint8"), mask=mask, transform=at(3))
    b = make_raster("b.tif", np.full((1, 6, 6), 0, "uint8"))
    file = Mosaic("scene").write(read_catalogue([a, b], "scene"), tmp_path / "m.vrt")
    with rasterio.open(file) as dataset:
        values, valid = dataset.read(1), dataset.dataset_mask()
    assert values[0].tolist() == [0, 0, 0, 0, 0, 100, 100, 100, 100]
    assert valid.all()
    c = make_raster("c.tif", np.full((1, 3, 6), 9, "uint8"), transform=at(6, 3))
    file = Mosaic("scene").write(read_catalogue([b, c], "scene"), tmp_path / "n.vrt")
    with rasterio.open(file) as dataset:
        valid = dataset.dataset_mask()
    assert not valid[:3, 6:].any()
    assert valid[:, :6].all()
    assert valid[3:, 6:].all()


def test_the_180th_meridian_is_no_border(make_raster: Any, tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    ground = np.full((1, 40, 40), 7, "uint8")
    fiji = {"crs": "EPSG:32760", "transform": Affine(100.0, 0, 818_000, 0, -100.0, 8_150_000)}
    make_raster("scenes/taveuni_20210503.tif", ground, **fiji)
    make_raster("scenes/elsewhere_20210601.tif", ground, **(fiji | {"crs": "EPSG:32734"}))
    entries = read_catalogue([tmp_path / "scenes"], "scene")
    taveuni = next(e for e in entries if e.name.startswith("taveuni"))
    assert taveuni.lonlat.geom_type == "MultiPolygon"
    assert taveuni.lonlat.bounds[::2] == (-180, 180)
    assert taveuni.lonlat.area < 0.01
    west, north = 819_000, 8_149_000
    shape = shapely.box(west, north - 2_000, west + 2_000, north)
    path = tmp_path / "areas.gpkg"
    geopandas.GeoDataFrame({"name": ["both"]}, geometry=[shape], crs="EPSG:32760").to_file(path)
    index = tmp_path / "index.csv"
    index.write_text("path,west,south,east,north\nx.tif,179.9,-17,-179.9,-16\n")
    assert read_catalogue([index], "scene")[0].lonlat.area == pytest.approx(0.2)
    (area,) = read_areas(path)
    assert area.lonlat.geom_type == "MultiPolygon"
    chosen = Chooser(entries, "scene").choose(area.lonlat, scene_dates(None, strict=False))
    assert [e.name for e in chosen.entries] == ["taveuni_20210503.tif"]
    assert chosen.covered == pytest.approx(1.0)
    assert missing_share(taveuni, area.lonlat) == 0.0
