"""Rasters from STAC: items, ItemCollections, collections and catalogues, on disk or by URL (pystac)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import shapely

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.io.gdal import one_line
from geo_refdiff.pipeline.batch.entry import Entry, gdal_name
from geo_refdiff.pipeline.dates import Span, span_of

_USUAL = ("data", "visual", "image", "analytic", "default")
_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/x-geotiff")


def is_stac(name: str) -> bool:
    """Whether a GeoJSON file holds STAC items."""
    try:
        data = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    features = data.get("features") if isinstance(data, dict) else None
    first = features[0] if isinstance(features, list) and features else data
    return isinstance(first, dict) and "stac_version" in first


def read_stac(source: str, role: str, assets: Sequence[str] = ()) -> list[Entry]:
    """All items of a STAC file, each as an entry, in the order in which they stand there.

    Args:
        source: path or URL of an item, ItemCollection, collection or catalogue.
        role: for messages.
        assets: keys to use; several: one a band. Default: the only raster, or the one called "data", "visual", "image",
            "analytic" or "default".

    Raises:
        InputError: unreadable, no items, or an item without such assets.
    """
    try:
        import pystac
    except ImportError as error:
        raise InputError(f"{source}: STAC needs pystac; pip install 'geo-refdiff[stac]'") from error
    try:
        items = list(_items(pystac, source))
    except (InputError, OptionError):
        raise
    except Exception as error:  # pystac, urllib and json each have their own
        raise InputError(
            f"{source}: cannot be read as STAC ({one_line(error, 160)}); give an item, ItemCollection or catalogue"
        ) from error
    if not items:
        raise InputError(f"{source}: holds no STAC items; give one with {role}s")
    base = None if "://" in source else Path(source).absolute().parent
    return [_entry(item, source, base, assets) for item in items]


def _items(pystac: Any, source: str) -> Iterator[Any]:
    data = pystac.StacIO.default().read_json(source)
    if data.get("type") == "FeatureCollection":
        for feature in data.get("features", []):
            yield pystac.Item.from_dict(feature)
    else:
        found = pystac.read_file(source)
        if isinstance(found, pystac.Item):
            yield found
        else:
            yield from found.get_items(recursive=True)


def _entry(item: Any, source: str, base: Path | None, wanted: Sequence[str]) -> Entry:
    where = f"{source}, item {item.id}"
    if item.geometry is None:
        raise InputError(f"{where}: has no geometry; leave it out")
    keys = list(wanted) or [_usual(item, where)]
    missing = [key for key in keys if key not in item.assets]
    if missing:
        raise InputError(f"{where}: has no asset '{missing[0]}', only {', '.join(item.assets) or 'none'}")
    files = tuple(_file(item.assets[key], source, base) for key in keys)
    return Entry(files, shapely.geometry.shape(item.geometry), _span(item), tuple(keys) if len(keys) > 1 else ())


def _file(asset: Any, source: str, base: Path | None) -> str:
    href = str(asset.get_absolute_href() or asset.href)
    if base is None and "://" not in href and not href.startswith("/"):
        href = f"{source.rpartition('/')[0]}/{href.removeprefix('./')}"
    return gdal_name(href, base)


def _usual(item: Any, where: str) -> str:
    rasters = [str(key) for key, asset in item.assets.items() if _is_image(asset)]
    for key in (*_USUAL, *rasters[:1]):
        if key in rasters and (key in _USUAL or len(rasters) == 1):
            return key
    raise InputError(
        f"{where}: which of its rasters is meant? Name one, or several for bands (red,green,blue): "
        f"{', '.join(rasters or item.assets) or 'it has none'} (--scene-asset, --ref-asset, --mask-asset)"
    )


def _is_image(asset: Any) -> bool:
    kind = (asset.media_type or "").partition(";")[0].strip().lower()
    roles = set(asset.roles or ())
    if roles & {"thumbnail", "overview", "metadata"}:
        return False
    return kind in _TYPES or (
        not kind and Path(asset.href.partition("?")[0]).suffix.lower() in (".tif", ".tiff", ".jp2")
    )


def _span(item: Any) -> Span | None:
    if item.datetime is not None:
        return span_of(item.datetime)
    first, last = (span_of(item.properties.get(k)) for k in ("start_datetime", "end_datetime"))
    return None if first is None or last is None else Span(first.first, last.last)
