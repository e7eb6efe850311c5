"""Rasters from STAC: items, ItemCollections, collections and catalogues, on disk or by URL (pystac)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

import shapely

from geo_refdiff.batch.entry import URL, Entry, footprint, gdal_name
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.raster.dates import Span, span_of
from geo_refdiff.raster.gdal import is_gdal_name, one_line

_MOST_PAGES = 10_000
_PATIENCE = 60.0
"""Seconds that a server has for an answer."""

_USUAL = ("data", "visual", "image", "analytic", "default")
_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/x-geotiff")


def is_stac(name: str) -> bool:
    """Whether a GeoJSON file, a path or URL, holds STAC items."""
    try:
        data = json.loads(_text(name))
    except (OSError, ValueError):
        return False
    features = data.get("features") if isinstance(data, dict) else None
    first = features[0] if isinstance(features, list) and features else data
    return isinstance(first, dict) and "stac_version" in first


def _text(name: str) -> str:
    if not URL.match(name):
        return Path(name).read_text(encoding="utf-8")
    from urllib.request import urlopen

    with urlopen(name, timeout=_PATIENCE) as answer:
        return str(answer.read().decode())


def read_stac(source: str, role: str, assets: Sequence[str] = ()) -> list[Entry]:
    """All items of a STAC file, each as an entry, in the order in which they stand there.

    Args:
        source: path or URL of an item, ItemCollection (with all its pages), collection or catalogue.
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
    return [_entry(item, page, assets) for item, page in items]


def _items(pystac: Any, source: str) -> Iterator[tuple[Any, str]]:
    """Items, each with what it was read from."""
    data = pystac.StacIO.default().read_json(source)
    if data.get("type") == "FeatureCollection":
        for page, features in _pages(pystac, source, data):
            for feature in features:
                yield pystac.Item.from_dict(feature), page
    else:
        found = pystac.read_file(source)
        for item in [found] if isinstance(found, pystac.Item) else found.get_items(recursive=True):
            yield item, source


def _pages(pystac: Any, source: str, data: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    """The features of an ItemCollection, page by page; a page that was there already is the end."""
    seen: set[str] = set()
    page: str | None = source if URL.match(source) else str(Path(source).absolute())
    while page is not None and page not in seen:
        if len(seen) == _MOST_PAGES:
            raise InputError(f"{source}: has more than {_MOST_PAGES} pages; search for less")
        if seen:
            data = pystac.StacIO.default().read_json(page)
        seen.add(page)
        yield page, data.get("features") or []
        page = _next_page(data.get("links") or [], page)


def _next_page(links: Sequence[Any], page: str) -> str | None:
    link = next((link for link in links if link.get("rel") == "next"), None)
    if link is None:
        return None
    given, method = str(link["href"]), str(link.get("method", "GET")).upper()
    remote = URL.match(page) is not None
    href = urljoin(page, given) if remote else _located(given, page)
    if method != "GET" or "body" in link or (remote and not href.startswith(("http://", "https://"))):
        raise InputError(
            f"{page}: its next page cannot be asked for ({method} {href}); search by GET, or save all items as one "
            f"ItemCollection"
        )
    return href


def _located(href: str, source: str) -> str:
    """What a link of a STAC file leads to: a URL, a GDAL name or a path.

    Args:
        href: absolute, or relative to the file; escapes such as %20 are undone in paths, where no file is called so.
        source: path or URL of the file.
    """
    if is_gdal_name(href) or (URL.match(source) and href.startswith("/")):
        return gdal_name(href) if href.lower().startswith("file:") else href
    if URL.match(source):
        return urljoin(source, href)
    path, plain = (Path(source).absolute().parent / name for name in (href, unquote(href)))
    return str(plain if plain.exists() and not path.exists() else path)


def _entry(item: Any, source: str, wanted: Sequence[str]) -> Entry:
    where = f"{source}, item {item.id}"
    if item.geometry is None:
        raise InputError(f"{where}: has no geometry; leave it out")
    keys = list(wanted) or [_usual(item, where)]
    missing = [key for key in keys if key not in item.assets]
    if missing:
        raise InputError(f"{where}: has no asset '{missing[0]}', only {', '.join(item.assets) or 'none'}")
    files = tuple(_file(item.assets[key], source) for key in keys)
    try:
        ground = footprint(where, shapely.geometry.shape(item.geometry))
    except (TypeError, ValueError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
        raise InputError(f"{where}: its geometry makes no sense ({one_line(error, 80)}); leave it out") from error
    if ground.is_empty:
        raise InputError(f"{where}: its geometry has no area; leave it out")
    return Entry(files, ground, _span(item), tuple(keys) if len(keys) > 1 else ())


def _file(asset: Any, source: str) -> str:
    return gdal_name(_located(str(asset.get_absolute_href() or asset.href), source))


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
    return span_of("/".join(str(item.properties.get(key)) for key in ("start_datetime", "end_datetime")))
