"""A static STAC collection of what a batch has made, and its items as GeoParquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import shapely

from geo_refdiff import __version__
from geo_refdiff.commands.products import product_path
from geo_refdiff.raster.files import atomic_path, write_json_atomic
from geo_refdiff.raster.globe import bounds_on_the_globe

COLLECTION, ITEMS = "collection.json", "items.parquet"
_GEOPARQUET = "application/vnd.apache.parquet"


def write_collection(folder: Path, outputs: Mapping[str, Path]) -> list[str]:
    """Write collection.json over the STAC items of a batch, and items.parquet (stac-geoparquet) where pyarrow is there.

    Items that are there come in the order of the areas; each gets its links to the collection.

    Args:
        folder: of the outputs.
        outputs: files in it, by the areas' names.

    Returns:
        Notes.

    Raises:
        OutputError: a file cannot be written.

    Sources: STAC 1.1.0 collection specification; stac-geoparquet 1.1 (github.com/stac-utils/stac-geoparquet).
    """
    items = list(_items(folder, outputs))
    if not items:
        return []
    assets: dict[str, Any] = {}
    notes = []
    try:
        _write_parquet(folder / ITEMS, items)
        assets["items"] = {
            "href": f"./{ITEMS}",
            "title": "all items as GeoParquet",
            "type": _GEOPARQUET,
            "roles": ["stac-items"],
        }
    except ImportError:
        notes.append("no items.parquet: it needs pyarrow, pip install 'geo-refdiff[parquet]'")
    ground = shapely.union_all([shapely.geometry.shape(item["geometry"]) for item in items])
    spans = [_span(item["properties"]) for item in items]
    collection = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": folder.name or "batch",
        "title": folder.name or "batch",
        "description": f"Scenes upscaled by geo-refdiff {__version__}; detail beyond the scene's own is estimated.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [list(bounds_on_the_globe(ground))]},
            "temporal": {"interval": [[min(first for first, _ in spans), max(last for _, last in spans)]]},
        },
        "links": [
            {"rel": "root", "href": f"./{COLLECTION}", "type": "application/json"},
            *({"rel": "item", "href": f"./{i['id']}.json", "type": "application/geo+json"} for i in items),
        ],
        "assets": assets,
    }
    write_json_atomic(folder / COLLECTION, collection)
    return notes


def _span(properties: Mapping[str, Any]) -> tuple[str, str]:
    """First and last time of an item."""
    when = properties["datetime"]
    return properties.get("start_datetime") or when, properties.get("end_datetime") or when


def _items(folder: Path, outputs: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """The items, each with its links, which are written where they are missing."""
    name = folder.name or "batch"
    links = [
        {"rel": "root", "href": f"./{COLLECTION}", "type": "application/json"},
        {"rel": "parent", "href": f"./{COLLECTION}", "type": "application/json"},
        {"rel": "collection", "href": f"./{COLLECTION}", "type": "application/json"},
    ]
    for area, out in outputs.items():
        path = product_path(out, "stac")
        try:
            item = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if not out.exists() or not isinstance(item, dict) or item.get("type") != "Feature" or item.get("id") != area:
            continue
        if item.get("links") != links or item.get("collection") != name:
            item |= {"links": links, "collection": name}
            write_json_atomic(path, item)
        yield item


def _write_parquet(path: Path, items: Sequence[dict[str, Any]]) -> None:
    """stac-geoparquet: one row an item, its properties as columns; objects and lists among them are kept as JSON."""
    import geopandas
    import pandas
    import pyarrow  # noqa: F401  # its ImportError is caught below
    from shapely.geometry import shape

    rows = []
    for item in items:
        properties = {k: _flat(v) for k, v in item["properties"].items()}
        properties["datetime"] = pandas.Timestamp(properties["datetime"])
        west, south, east, north = item["bbox"]
        rows.append(
            {
                "type": "Feature",
                "stac_version": item["stac_version"],
                "stac_extensions": item["stac_extensions"],
                "id": item["id"],
                "bbox": {"xmin": west, "ymin": south, "xmax": east, "ymax": north},
                "links": item["links"],
                "assets": {k: _asset(v) for k, v in item["assets"].items()},
                "collection": item["collection"],
                **properties,
            }
        )
    frame = geopandas.GeoDataFrame(rows, geometry=[shape(i["geometry"]) for i in items], crs="EPSG:4326")
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary)


def _asset(asset: dict[str, Any]) -> dict[str, Any]:
    return {key: _flat(value) if ":" in key else value for key, value in asset.items()}


def _flat(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
