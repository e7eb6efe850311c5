"""What there is to choose from: rasters with footprints and dates, from files, folders, index tables and STAC."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geo_refdiff.batch.folder import is_batch
from geo_refdiff.data.index import read_records
from geo_refdiff.engine.publish import published_digest
from geo_refdiff.engine.rasters import PLAN_TAG
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import comma_separated
from geo_refdiff.products.files import is_archive
from geo_refdiff.products.opening import gdal_source, holds_product
from geo_refdiff.products.stac_item import has_bands
from geo_refdiff.raster.dates import Span, span_in_name, span_of
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env, gdal_threads, is_gdal_name, one_line
from geo_refdiff.raster.globe import on_the_globe
from geo_refdiff.raster.location import URL, gdal_name, located, text_of
from geo_refdiff.raster.vector import LONLAT, LayerSource, layer_source, sound_polygons
from geo_refdiff.signed_urls import unsigned

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png")
_THREADS = 8

TABLES = (".csv", ".gpkg", ".geojson", ".parquet", ".geoparquet", ".fgb", ".shp")
PATH_COLUMNS = ("path", "file", "filename", "location", "href", "url", "image")
"""Columns of an index that may name the files."""

_PARQUET = (".parquet", ".geoparquet")
_DATE_COLUMNS = ("date", "datetime", "acquired", "acquisition_date", "time", "year")
_BOX_COLUMNS = (("west", "south", "east", "north"), ("xmin", "ymin", "xmax", "ymax"), ("minx", "miny", "maxx", "maxy"))

_MOST_PAGES = 10_000

_USUAL = ("data", "visual", "image", "analytic", "default")
_TYPES = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/x-geotiff")


@dataclass(frozen=True, slots=True)
class Entry:
    """A raster that may be chosen.

    Attributes:
        files: path or GDAL name; several: one for each band.
        lonlat: footprint in degrees.
        span: when it was taken; None = unknown.
        bands: names of the bands where `files` are several.
    """

    files: tuple[str, ...]
    lonlat: BaseGeometry
    span: Span | None = None
    bands: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return Path(unsigned(self.files[0])).name


def read_catalogue(
    sources: Sequence[str | Path], role: str, assets: Sequence[str] = (), unusable: list[str] | None = None
) -> list[Entry]:
    """All rasters that are named, in a fixed order, each once.

    Args:
        sources: raster files, VRTs, products (folders and archives), folders (searched through for both), CSV or vector
            tables with a column "path" (or "file", "location", "href", "url") and maybe "date", STAC items,
            ItemCollections or catalogues (JSON, path or URL).
        role: "scene", "reference" or "mask", for messages.
        assets: keys of the STAC assets to use; several are stacked as bands.
        unusable: gets a line for each file of a folder that cannot be used; None: such a file is an error.

    Raises:
        InputError: a source is missing, unreadable, or holds no raster.
    """
    entries: list[Entry] = []
    for source in map(str, sources):
        entries += _read(source, role, assets, unusable)
    return list({entry.files: entry for entry in entries}.values())


def _read(source: str, role: str, assets: Sequence[str], unusable: list[str] | None) -> list[Entry]:
    table = LayerSource(source) if URL.match(source) else layer_source(source)
    name = gdal_name(table.path) if table.path.lower().startswith("file:") else table.path
    suffix = Path(name.partition("?")[0]).suffix.lower()
    remote = URL.match(name) is not None
    if suffix == ".json" or (remote and suffix in ("", ".geojson")) or (suffix == ".geojson" and is_stac(name)):
        return read_stac(name, role, assets)
    if is_gdal_name(name):
        return open_entries([gdal_name(name)])
    path = Path(name).expanduser()
    if path.is_dir() and not holds_product(path):
        return _from_folder(path, role, unusable)
    if not path.exists():
        raise InputError(f"{path}: no such file; give a {role}, a folder, an index (CSV, GeoPackage) or STAC JSON")
    if suffix in TABLES:
        return read_table(path, table, role)
    return open_entries([str(path.absolute())])


def _from_folder(path: Path, role: str, unusable: list[str] | None) -> list[Entry]:
    """The rasters of a folder, but for what runs have made of them: that counts only where it is named."""
    if is_batch(path):
        raise InputError(f"{path}: holds the outputs of a batch; name those that are meant")
    files = _rasters(path)
    if not files:
        raise InputError(f"{path}: the folder holds no raster ({', '.join(RASTERS)}); give the {role}s")
    made: list[str] = []
    entries = open_entries([str(file.absolute()) for file in files if not _is_quicklook(file)], unusable, made)
    if made and unusable is not None:
        unusable.append(f"{path}: {len(made)} outputs of runs, such as {min(made)}; name those that are meant")
    if not entries:
        raise InputError(
            f"{path}: none of its {len(files)} rasters can be used ({len(made)} are outputs of runs); check them with "
            f"gdalinfo"
        )
    return entries


def _rasters(path: Path) -> list[Path]:
    """Files and products in a fixed order, but for those of batches, of unfinished runs, shards, and what is hidden."""
    rasters: list[Path] = []
    for name, folders, files in os.walk(path):
        folder = Path(name)
        folders[:] = [f for f in folders if f[0] != "." and not f.endswith((".parts", ".shards"))]
        if is_batch(folder):
            folders.clear()
        elif folder != path and holds_product(folder):
            folders.clear()
            rasters.append(folder)
        else:
            shown = [folder / f for f in files if f[0] != "."]
            rasters += [f for f in shown if f.suffix.lower() in RASTERS or (is_archive(f) and holds_product(f))]
    return sorted(rasters)


def _is_quicklook(file: Path) -> bool:
    return file.suffix == ".png" and any(published_digest(file.with_suffix(end)) for end in (".tif", ".vrt"))


def check_asset_names(text: str | None) -> tuple[str, ...]:
    """Keys from "red,green,blue".

    Raises:
        OptionError: nothing but commas.
    """
    if text is None:
        return ()
    names: tuple[str, ...] = comma_separated(text)
    if not names:
        raise OptionError(f"asset '{text}': give the key of an asset, or several for bands: red,green,blue")
    return names


def lonlat_footprint(where: str, shape: BaseGeometry) -> BaseGeometry:
    """The polygons of an outline in degrees, valid, cut at the 180th meridian; possibly none.

    Args:
        where: it stands, for the message.
        shape: the outline.

    Raises:
        InputError: it has coordinates that are no numbers.
    """
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise InputError(f"{where}: the footprint has points that cannot be given in degrees; correct it")
    plain = shape.geom_type == "Polygon" and shape.is_valid and not shape.has_z and on_the_globe(shape) is shape
    return shape if plain else sound_polygons(shape, LONLAT)


def open_entries(files: Sequence[str], unusable: list[str] | None = None, made: list[str] | None = None) -> list[Entry]:
    """Entries from the rasters themselves, in their order.

    Args:
        files: GDAL names.
        unusable: gets a line for each that cannot be used; None: such a file is an error.
        made: gets those that a run has made, which are left out then; None: they count as others do.

    Raises:
        InputError: one that cannot be opened or is not georeferenced.
    """

    def tried(file: str) -> Entry | str | None:
        try:
            return _open(file, made)
        except InputError as error:
            if unusable is None:
                raise
            return str(error)

    with gdal_threads(_THREADS, "catalogue") as pool:
        results = list(pool.map(tried, files))
    if unusable is not None:
        unusable.extend(text for text in results if isinstance(text, str))
    return [entry for entry in results if isinstance(entry, Entry)]


def _open(file: str, made: list[str] | None = None) -> Entry | None:
    import rasterio

    from geo_refdiff.raster.stac import acquired, outline

    source = gdal_source(file)
    try:
        with gdal_env(), rasterio.open(source) as dataset:
            if made is not None and PLAN_TAG in dataset.tags():
                made.append(file)
                return None
            if not dataset.crs or dataset.transform.is_identity:
                raise InputError(
                    f"{file}: is not georeferenced; give it a CRS and an affine (gdal_edit.py), or leave it out"
                )
            ground = lonlat_footprint(file, outline(dataset))
        taken = acquired(source)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{file}: cannot be opened as a raster ({one_line(error, 160)}); check it with gdalinfo"
        ) from error
    return Entry((file,), ground, span_in_name(Path(file).stem) if taken is None else span_of(taken))


def read_table(path: Path, table: LayerSource, role: str) -> list[Entry]:
    """The rasters of an index, in its order; one without a footprint is opened.

    Args:
        path: of the index, whose folder relative paths start from.
        table: which layer and which rows of it.
        role: for messages.

    Raises:
        InputError: unreadable, empty, without a column that names the files, or with a row that makes no sense.
    """
    if table.subset and path.suffix.lower() in (".csv", *_PARQUET):
        raise InputError(f"{table}: a subset needs a GeoPackage or another vector file; leave it out")
    rows = read_records(path)[1] if path.suffix.lower() == ".csv" else _vector_rows(path, table)
    if not rows:
        raise InputError(f"{path}: the index is empty; give one row for each {role}")
    columns = {str(c).lower(): str(c) for c in reversed(list(rows[0]))}
    key = next((columns[c] for c in PATH_COLUMNS if c in columns), None)
    if key is None:
        raise InputError(
            f"{path}: has no column that names the files ({', '.join(PATH_COLUMNS)}), only "
            f"{', '.join(c for c in rows[0] if c != 'geometry') or 'none'}; rename one"
        )
    when = next((columns[c] for c in _DATE_COLUMNS if c in columns), None)
    entries: list[Entry] = []
    unknown: list[int] = []
    for number, row in enumerate(rows, 1):
        location = str(row[key] or "").strip()
        if not location:
            raise InputError(f"{path}, row {number}: '{key}' is empty; give the file")
        file, span = gdal_name(location, path.parent), None
        if when is not None and row[when] not in (None, ""):
            span = span_of(_whole(row[when]))
            if span is None:
                raise InputError(f"{path}, row {number}: {when} '{row[when]}' is no date; write 2021-05-03")
        ground = _ground(f"{path}, row {number}", row, columns)
        if ground is None:
            unknown.append(len(entries))
        entries.append(Entry((file,), ground or shapely.Polygon(), span or span_in_name(Path(file).stem)))
    for at, inspected in zip(unknown, open_entries([entries[at].files[0] for at in unknown]), strict=True):
        entries[at] = Entry(inspected.files, inspected.lonlat, entries[at].span or inspected.span)
    return entries


def _whole(value: Any) -> Any:
    """Years that a table reader took for floating numbers."""
    return str(int(value)) if isinstance(value, int | float) and float(value).is_integer() else value


def _vector_rows(path: Path, table: LayerSource) -> list[dict[str, Any]]:
    import geopandas

    try:
        if path.suffix.lower() in _PARQUET:
            frame = geopandas.read_parquet(path)
        else:
            frame = geopandas.read_file(path, **table.options)
        if isinstance(frame, geopandas.GeoDataFrame) and frame.crs is not None:
            frame = frame.to_crs(4326)
            frame = frame if frame.geometry.name == "geometry" else frame.rename_geometry("geometry")
    except ImportError as error:
        raise InputError(f"{path}: GeoParquet needs pyarrow; pip install 'geo-refdiff[parquet]'") from error
    except Exception as error:  # pyogrio, pyarrow and pandas each have their own
        raise InputError(
            f"{path}: cannot be read as an index ({one_line(error, 160)}); check it with ogrinfo"
        ) from error
    return [{str(k): None if v is None or v != v else v for k, v in row.items()} for row in frame.to_dict("records")]


def _ground(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> BaseGeometry | None:
    """The footprint in a row of an index; None where it has none with an area."""
    shape = row.get("geometry")
    if isinstance(shape, BaseGeometry) and not (ground := lonlat_footprint(where, shape)).is_empty:
        return ground
    for names in _BOX_COLUMNS:
        if all(name in columns for name in names):
            try:
                west, south, east, north = (float(row[columns[name]]) for name in names)
            except (TypeError, ValueError) as error:
                raise InputError(f"{where}: {', '.join(names)} are no numbers; give degrees") from error
            width = (east - west) % 360 if east < west else east - west  # west > east: across the 180th meridian
            fits = -180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90
            if not (fits and 0 < width <= (360 if east > west else 180)):
                raise InputError(
                    f"{where}: {west}, {south}, {east}, {north} is no box in degrees; give west,south,east,north"
                )
            return on_the_globe(shapely.box(west, south, west + width, north))
    wkt = next((row[columns[c]] for c in ("wkt", "footprint", "geometry") if c in columns), None)
    if isinstance(wkt, str) and wkt.strip():
        try:
            shape = shapely.from_wkt(wkt)
        except shapely.errors.ShapelyError as error:
            raise InputError(
                f"{where}: the footprint is no WKT ({one_line(error, 80)}); give degrees as WKT"
            ) from error
        ground = lonlat_footprint(where, shape)
        return None if ground.is_empty else ground
    return None


def is_stac(name: str) -> bool:
    """Whether a GeoJSON file, a path or URL, holds STAC items."""
    try:
        data = json.loads(text_of(name))
    except (OSError, ValueError):
        return False
    features = data.get("features") if isinstance(data, dict) else None
    first = features[0] if isinstance(features, list) and features else data
    return isinstance(first, dict) and "stac_version" in first


def read_stac(source: str, role: str, assets: Sequence[str] = ()) -> list[Entry]:
    """All items of a STAC file, each as an entry, in the order in which they stand there.

    Args:
        source: path or URL of an item, ItemCollection (with all its pages), collection or catalogue.
        role: for messages.
        assets: keys to use; several: one a band. Default: of scenes and references all of the red one's resolution
            that tell common names; else the only raster, or the one called "data", "visual", "image", "analytic" or
            "default".

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
    return [_entry(item, page, assets, None if role == "mask" else name) for item, page, name in items]


def _items(pystac: Any, source: str) -> Iterator[tuple[Any, str, str]]:
    """Items, each with what it was read from and what it is called as a product: a file, or FILE#ID."""
    place = source if URL.match(source) else str(Path(source).absolute())
    data = pystac.StacIO.default().read_json(source)
    if data.get("type") == "FeatureCollection":
        for page, features in _pages(pystac, source, data):
            for feature in features:
                item = pystac.Item.from_dict(feature)
                yield item, page, f"{page}#{item.id}"
    else:
        stac = pystac.read_file(source)
        if isinstance(stac, pystac.Item):
            yield stac, source, place
        else:
            for item in stac.get_items(recursive=True):
                yield item, source, str(item.get_self_href() or "")


def _pages(pystac: Any, source: str, data: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    """The features of an ItemCollection, page by page; a page that was there already is the end."""
    visited: set[str] = set()
    page: str | None = source if URL.match(source) else str(Path(source).absolute())
    while page is not None and page not in visited:
        if len(visited) == _MOST_PAGES:
            raise InputError(f"{source}: has more than {_MOST_PAGES} pages; search for less")
        if visited:
            data = pystac.StacIO.default().read_json(page)
        visited.add(page)
        yield page, data.get("features") or []
        page = _next_page(data.get("links") or [], page)


def _next_page(links: Sequence[Any], page: str) -> str | None:
    link = next((link for link in links if link.get("rel") == "next"), None)
    if link is None:
        return None
    given, method = str(link["href"]), str(link.get("method", "GET")).upper()
    remote = URL.match(page) is not None
    href = urljoin(page, given) if remote else located(given, page)
    if method != "GET" or "body" in link or (remote and not href.startswith(("http://", "https://"))):
        raise InputError(
            f"{page}: its next page cannot be asked for ({method} {href}); search by GET, or save all items as one "
            f"ItemCollection"
        )
    return href


def _entry(item: Any, source: str, wanted: Sequence[str], name: str | None) -> Entry:
    """An item, read by its common names where it may be (`name`) and no assets are asked for."""
    where = f"{source}, item {item.id}"
    if item.geometry is None:
        raise InputError(f"{where}: has no geometry; leave it out")
    keys: list[str] = []
    if not wanted and name and has_bands(item.to_dict(include_self_link=False, transform_hrefs=False)):
        files: tuple[str, ...] = (name,)
    else:
        keys = list(wanted) or [_usual(item, where)]
        missing = [key for key in keys if key not in item.assets]
        if missing:
            raise InputError(f"{where}: has no asset '{missing[0]}', only {', '.join(item.assets) or 'none'}")
        files = tuple(_file(item.assets[key], source) for key in keys)
    try:
        ground = lonlat_footprint(where, shapely.geometry.shape(item.geometry))
    except (TypeError, ValueError, KeyError, AttributeError, shapely.errors.ShapelyError) as error:
        raise InputError(f"{where}: its geometry makes no sense ({one_line(error, 80)}); leave it out") from error
    if ground.is_empty:
        raise InputError(f"{where}: its geometry has no area; leave it out")
    return Entry(files, ground, _span(item), tuple(keys) if len(keys) > 1 else ())


def _file(asset: Any, source: str) -> str:
    return gdal_name(located(str(asset.get_absolute_href() or asset.href), source))


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
