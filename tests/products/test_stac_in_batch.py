"""STAC items in a batch without --scene-asset: their bands by common names, as in upscale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import rasterio
import shapely

from geo_refdiff.batch.catalogue import read_catalogue
from geo_refdiff.batch.run import batch
from geo_refdiff.commands.upscale import upscale
from geo_refdiff.errors import InputError
from geo_refdiff.options import Sources

pystac = pytest.importorskip("pystac", reason="needs pystac: pip install 'geo-refdiff[stac]'")

Make = Callable[..., Path]
AREA = shapely.box(600_050, 5_399_850, 600_150, 5_399_950)
OPTIONS = {"model": "bicubic-ibp", "scale": 2, "products": "none"}


@pytest.fixture
def item(make_stac_item: Make) -> Path:
    """An item with its footprint."""
    path = make_stac_item()
    ground = gpd.GeoSeries([shapely.box(600_000, 5_399_760, 600_240, 5_400_000)], crs=32633).to_crs(4326).iloc[0]
    content = json.loads(path.read_text())
    content |= {"geometry": shapely.geometry.mapping(ground), "bbox": list(ground.bounds)}
    path.write_text(json.dumps(content))
    return path


def done(source: Path, folder: Path) -> rasterio.DatasetReader:
    folder.mkdir()
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[AREA], crs="EPSG:32633").to_file(folder / "areas.gpkg")
    result = batch(folder / "areas.gpkg", Sources([source]), folder / "out", options=OPTIONS)
    assert result.done == 1
    return rasterio.open(folder / "out" / "a.tif")


def test_items_collections_and_catalogues_by_common_names(item: Path, tmp_path: Path) -> None:
    content = json.loads(item.read_text())
    other = content | {"id": "another", "properties": content["properties"] | {"datetime": "2020-01-01T00:00:00Z"}}
    several = tmp_path / "search.json"
    several.write_text(json.dumps({"type": "FeatureCollection", "features": [other, content]}))
    catalogue = pystac.Catalog("all", "all")
    catalogue.add_item(pystac.Item.from_file(str(item)))
    catalogue.normalize_hrefs(str(tmp_path / "stac"))
    catalogue.make_all_asset_hrefs_absolute()
    catalogue.save(pystac.CatalogType.SELF_CONTAINED)
    wanted = None
    for number, source in enumerate((item, several, tmp_path / "stac" / "catalog.json")):
        with done(source, tmp_path / str(number)) as out:
            assert out.descriptions == ("B02", "B03", "B04", "B08")
            assert out.scales == pytest.approx([1e-4] * 4)
            assert out.offsets == pytest.approx([-0.1] * 4)
            wanted = out.read() if wanted is None else wanted
            assert (out.read() == wanted).all()
    assert [entry.name for entry in read_catalogue([several], "scene")] == [
        "search.json#another", "search.json#S2A_33UUP_20220503_0_L2A",
    ]  # fmt: skip
    assert read_catalogue([item], "scene", ("red", "nir"))[0].bands == ("red", "nir")
    assert len(read_catalogue([item], "mask", ("scl",))[0].files) == 1


def test_one_item_of_several_is_named(item: Path, tmp_path: Path) -> None:
    content = json.loads(item.read_text())
    several = tmp_path / "search.json"
    several.write_text(
        json.dumps({"type": "FeatureCollection", "features": [content | {"id": "a"}, content | {"id": "b"}]})
    )
    out = tmp_path / "out.tif"
    upscale(f"{several}#b", out=out, **OPTIONS)
    with rasterio.open(out) as dataset:
        assert dataset.count == 4
    for name, message in (
        (f"{several}", r"holds 2 items; give one of them, e\.g\. .*#a"),
        (f"{several}#c", "has no item 'c'"),
    ):
        with pytest.raises(InputError, match=message):
            upscale(name, out=out, overwrite=True, **OPTIONS)


@pytest.mark.parametrize("change", [{"assets": {}}, {"assets": {"thumb": {"href": "a.png", "type": "image/png"}}}])
def test_items_without_rasters_give_one_line(item: Path, change: dict[str, Any]) -> None:
    item.write_text(json.dumps(json.loads(item.read_text()) | change))
    with pytest.raises(InputError, match="which of its rasters is meant") as error:
        read_catalogue([item], "scene")
    assert "\n" not in str(error.value)
