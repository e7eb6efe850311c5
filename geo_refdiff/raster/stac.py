"""STAC items for outputs, as plain JSON.

Sources: STAC 1.1.0 item specification; projection extension 2.0.0; raster extension 1.1.0 (stac-extensions.github.io).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import hypot
from pathlib import Path
from typing import Any

import rasterio
import rasterio.warp
import shapely
from shapely.geometry.base import BaseGeometry

from geo_refdiff.raster.gdal import GDAL_ERRORS
from geo_refdiff.raster.geobox import apply, edge
from geo_refdiff.raster.globe import bounds_on_the_globe, on_the_globe

PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
VRT = "application/xml"
"""Of a GDAL VRT, which has no media type of its own."""

_EDGE_STEPS = 20


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of an item.

    Attributes:
        path: beside the item.
        title: for people.
        roles: STAC's words.
        media_type: MIME.
        properties: more fields.
    """

    path: Path
    title: str
    roles: tuple[str, ...]
    media_type: str
    properties: Mapping[str, Any] = field(default_factory=dict)


def item(raster: Path, assets: Mapping[str, Asset], when: datetime, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A STAC item for a raster.

    Args:
        raster: the main asset, whose grid and footprint the item states.
        assets: by key; rasters among them get `raster:bands`.
        when: of the scene.
        properties: more of them.
    """
    with rasterio.open(raster) as dataset:
        ground = outline(dataset)
        grid = _grid(dataset)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [PROJECTION, RASTER],
        "id": raster.stem,
        "geometry": shapely.geometry.mapping(ground),
        "bbox": list(bounds_on_the_globe(ground)),
        "properties": {"datetime": rfc3339(when), **grid, **properties},
        "links": [],
        "assets": {key: _asset(asset) for key, asset in assets.items()},
    }


def rfc3339(time: datetime) -> str:
    """A time as STAC wants it, in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def acquired(raster: str) -> datetime | None:
    """When a raster was taken, as its TIFF or STAC-like metadata say; UTC, also where no offset is given.

    Returns:
        None where they do not say.
    """
    try:
        with rasterio.open(raster) as dataset:
            tags = {key.upper(): value for key, value in dataset.tags().items()}
    except GDAL_ERRORS:
        return None
    for key in ("ACQUISITIONDATETIME", "DATETIME", "TIFFTAG_DATETIME"):
        for read in (datetime.fromisoformat, _tiff_time):
            try:
                time = read(str(tags.get(key, "")).strip())
                return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
            except (ValueError, OverflowError):
                continue
    return None


def _tiff_time(text: str) -> datetime:
    return datetime.strptime(text, "%Y:%m:%d %H:%M:%S")


def _grid(dataset: Any) -> dict[str, Any]:
    number = dataset.crs.to_epsg()
    grid: dict[str, Any] = {
        "proj:code": None if number is None else f"EPSG:{number}",
        "proj:shape": [dataset.height, dataset.width],
        "proj:transform": [float(v) for v in dataset.transform[:6]],
    }
    if number is None:
        grid["proj:wkt2"] = dataset.crs.to_wkt(version="WKT2_2019")
    return grid


def outline(dataset: Any) -> BaseGeometry:
    """What an open raster covers, in degrees; two polygons where it crosses the 180th meridian."""
    x, y = apply(dataset.transform, *edge(dataset.height, dataset.width, _EDGE_STEPS))
    lon, lat = rasterio.warp.transform(dataset.crs, "EPSG:4326", x, y)
    ring = [(round(x, 8), round(y, 8)) for x, y in zip(lon, lat, strict=True)]
    return shapely.orient_polygons(on_the_globe(shapely.Polygon(ring)))


def _asset(asset: Asset) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "href": f"./{asset.path.name}",
        "title": asset.title,
        "type": asset.media_type,
        "roles": list(asset.roles),
    }
    if asset.media_type in (COG, VRT):
        with rasterio.open(asset.path) as dataset:
            fields["raster:bands"] = _bands(dataset)
    return fields | dict(asset.properties)


def _bands(dataset: Any) -> Sequence[dict[str, Any]]:
    gsd = hypot(dataset.transform.a, dataset.transform.d)
    bands = []
    for index in range(dataset.count):
        band: dict[str, Any] = {"data_type": dataset.dtypes[index], "sampling": "area"}
        if not dataset.crs.is_geographic:
            band["spatial_resolution"] = gsd * dataset.crs.linear_units_factor[1]
        nodata = dataset.nodatavals[index]
        if nodata is not None:
            band["nodata"] = "nan" if nodata != nodata else nodata
        if dataset.scales[index] != 1:
            band["scale"] = float(dataset.scales[index])
        if dataset.offsets[index] != 0:
            band["offset"] = float(dataset.offsets[index])
        if dataset.units[index]:
            band["unit"] = dataset.units[index]
        tags = dataset.tags(index + 1)
        if "STATISTICS_MEAN" in tags:
            keys = {"minimum": "MINIMUM", "maximum": "MAXIMUM", "mean": "MEAN", "stddev": "STDDEV"}
            band["statistics"] = {key: float(tags[f"STATISTICS_{name}"]) for key, name in keys.items()}
            band["statistics"]["valid_percent"] = float(tags["STATISTICS_VALID_PERCENT"])
        if dataset.descriptions[index]:
            band["description"] = dataset.descriptions[index]
        bands.append(band)
    return bands
