"""Catalogues and rasters that are read from a server, here one of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import pytest
import rasterio
import shapely

from geo_refdiff.batch.catalogue import read_catalogue
from geo_refdiff.batch.run import batch, plan_batch
from geo_refdiff.errors import InputError
from geo_refdiff.options import Sources
from geo_refdiff.raster.stac import outline

from .conftest import OPTIONS, Country, square

pystac = pytest.importorskip("pystac", reason="needs pystac: pip install 'geo-refdiff[stac]'")


@pytest.fixture
def served(country: Country, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of the country's folder, and the file that lists what was asked for."""
    log = tmp_path / "asked.txt"
    command = [sys.executable, str(Path(__file__).with_name("file_server.py")), str(country.root), str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}", log
        server.kill()


def items_of(scenes: Path, prefix: str) -> list[Any]:
    items = []
    for path in sorted(scenes.glob("*.tif")):
        with rasterio.open(path) as dataset:
            ground = outline(dataset)
        taken = datetime.strptime(path.stem[-8:], "%Y%m%d").replace(tzinfo=UTC)
        item = pystac.Item(path.stem, shapely.geometry.mapping(ground), list(ground.bounds), taken, {})
        item.add_asset("data", pystac.Asset(f"{prefix}{path.name}", media_type=pystac.MediaType.COG))
        items.append(item)
    return items


def test_batch_from_an_item_collection_by_url(country: Country, served: tuple[str, Path], tmp_path: Path) -> None:
    address, log = served
    pystac.ItemCollection(items_of(country.scenes, "./scenes/")).save_object(str(country.root / "items.json"))
    far = batch(country.areas, Sources([f"{address}/items.json"]), tmp_path / "far", options=OPTIONS)
    near = batch(country.areas, country.sources(), tmp_path / "here", options=OPTIONS)
    assert far.done == near.done == 5
    asked = set(log.read_text().split())
    assert "/items.json" in asked
    assert {"/scenes/west_20210503.tif", "/scenes/east_20210613.tif"} <= asked
    for path in sorted((tmp_path / "here").glob("*.tif")):
        with rasterio.open(path) as a, rasterio.open(tmp_path / "far" / path.name) as b:
            assert (a.crs, a.transform, a.nodata) == (b.crs, b.transform, b.nodata)
            assert (a.read() == b.read()).all()


def test_catalogue_by_url_is_walked(country: Country, served: tuple[str, Path]) -> None:
    address, _ = served
    catalogue = pystac.Catalog("all", "all")
    catalogue.add_items(items_of(country.scenes, f"{address}/scenes/"))
    catalogue.normalize_hrefs(str(country.root / "stac"))
    catalogue.save(pystac.CatalogType.SELF_CONTAINED)
    result = read_catalogue([f"{address}/stac/catalog.json"], "scene")
    assert [entry.name for entry in result] == ["east_20210613.tif", "west_20210503.tif"]
    assert all(entry.files[0].startswith("/vsicurl/http://127.0.0.1") for entry in result)
    assert [str(entry.span) for entry in result] == ["2021-06-13", "2021-05-03"]


def test_pages_and_geojson_by_url(country: Country, served: tuple[str, Path], tmp_path: Path) -> None:
    address, log = served
    west, east = (item.to_dict() for item in reversed(items_of(country.scenes, "./scenes/")))
    for name, item, href in (("1", west, f"{address}/2.geojson?token=a/b"), ("2", east, "/1.geojson?page=1")):
        page = {"type": "FeatureCollection", "features": [item], "links": [{"rel": "next", "href": href}]}
        (country.root / f"{name}.geojson").write_text(json.dumps(page))
    result = read_catalogue([f"{address}/1.geojson?page=1"], "scene")
    assert [entry.name for entry in result] == ["west_20210503.tif", "east_20210613.tif"]
    assert result[0].files[0] == f"/vsicurl/{address}/scenes/west_20210503.tif"
    assert log.read_text().split() == ["/1.geojson?page=1", "/2.geojson?token=a/b"]
    page = {"type": "FeatureCollection", "features": [west], "links": [{"rel": "next", "href": "file:///etc/x.json"}]}
    (country.root / "2.geojson").write_text(json.dumps(page))
    with pytest.raises(InputError, match="its next page cannot be asked for"):
        read_catalogue([f"{address}/1.geojson?page=1"], "scene")
    (country.root / "2.geojson").write_text(json.dumps(page | {"links": []}))
    changes = geopandas.GeoDataFrame(geometry=[square(2, 2, 4)], crs="EPSG:26914").to_crs(4326)
    changes.to_file(country.root / "changes.geojson")
    for mask, kind in ((f"{address}/changes.geojson", f"{address}/changes.geojson"), (f"{address}/1.geojson", "west")):
        planned = plan_batch(country.areas, country.sources(masks=[mask]), tmp_path / "out", options=OPTIONS)
        assert planned.areas[0].mask.startswith(kind)


def test_what_a_server_does_not_have_is_one_line(served: tuple[str, Path]) -> None:
    address, _ = served
    with pytest.raises(InputError, match=r"none\.json: cannot be read as STAC") as error:
        read_catalogue([f"{address}/none.json"], "scene")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"none\.tif: cannot be opened as a raster") as error:
        read_catalogue([f"{address}/none.tif"], "scene")
    assert "\n" not in str(error.value)


def test_objects_of_a_bucket_are_read_as_s3(
    country: Country, served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, log = served
    for name, value in {
        "AWS_S3_ENDPOINT": address.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_NO_SIGN_REQUEST": "YES",
    }.items():
        monkeypatch.setenv(name, value)
    pystac.ItemCollection(items_of(country.scenes, "s3://scenes/")).save_object(str(country.root / "items.json"))
    far = batch(country.areas, Sources([country.root / "items.json"]), tmp_path / "far", options=OPTIONS)
    near = batch(country.areas, country.sources(), tmp_path / "here", options=OPTIONS)
    assert far.done == near.done == 5
    assert {"/scenes/west_20210503.tif", "/scenes/east_20210613.tif"} <= set(log.read_text().split())
    (entry,) = read_catalogue(["s3://scenes/west_20210503.tif"], "scene")
    assert entry.files == ("/vsis3/scenes/west_20210503.tif",)
    with rasterio.open(tmp_path / "here" / "plain.tif") as a, rasterio.open(tmp_path / "far" / "plain.tif") as b:
        assert (a.read() == b.read()).all()
