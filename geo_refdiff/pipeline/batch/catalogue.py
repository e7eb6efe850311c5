"""What there is to choose from: rasters with footprints and dates, from files, folders, indices and STAC."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.io.gdal import GDAL_ERRORS, gdal_env, one_line
from geo_refdiff.io.globe import on_the_globe
from geo_refdiff.io.layer_source import LayerSource, layer_source
from geo_refdiff.pipeline.dates import Span, span_in_name, span_of

RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img", ".png")
TABLES = (".csv", ".gpkg", ".geojson", ".parquet", ".geoparquet", ".fgb", ".shp")
_PARQUET = (".parquet", ".geoparquet")
PATH_COLUMNS = ("path", "file", "filename", "location", "href", "url", "image")
"""Columns of an index that may name the files."""

_DATE_COLUMNS = ("date", "datetime", "acquired", "acquisition_date", "time", "year")
_BOX_COLUMNS = (("west", "south", "east", "north"), ("xmin", "ymin", "xmax", "ymax"), ("minx", "miny", "maxx", "maxy"))
_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEMES = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_THREADS = 8


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
        return Path(self.files[0]).name


def gdal_name(location: str, base: Path | None = None) -> str:
    """A location as GDAL reads it: URLs by /vsicurl, buckets by their own drivers, other paths made absolute.

    Args:
        location: a path or URL.
        base: folder that relative paths start from; default the working directory.
    """
    if location.startswith("/vsi"):
        return location
    scheme, found, rest = location.partition("://")
    if found:
        if scheme.lower() == "file":
            return "/" + rest.lstrip("/")
        if scheme.lower() not in _SCHEMES:
            raise InputError(f"{location}: cannot be read by GDAL; give http(s)://, s3://, gs://, az:// or a path")
        return _SCHEMES[scheme.lower()] + rest
    path = Path(location).expanduser()
    return str((path if path.is_absolute() else (base or Path.cwd()) / path).absolute())


def read_catalogue(
    sources: Sequence[str | Path], role: str, assets: Sequence[str] = (), unusable: list[str] | None = None
) -> list[Entry]:
    """All rasters that are named, in a fixed order, each once.

    Args:
        sources: raster files, VRTs, folders (searched through for rasters), CSV or vector tables with a column "path"
            (or "file", "location", "href", "url") and maybe "date", STAC items, ItemCollections or catalogues (JSON,
            path or URL).
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
    table = layer_source(source)
    name = table.path
    suffix = Path(name.partition("?")[0]).suffix.lower()
    if suffix == ".json" or (suffix == "" and _REMOTE.match(name)) or (suffix == ".geojson" and _is_stac(name)):
        from geo_refdiff.pipeline.batch.stac_source import read_stac

        return read_stac(name, role, assets)
    if _REMOTE.match(name) or name.startswith("/vsi"):
        return _opened([gdal_name(name)])
    path = Path(name).expanduser()
    if path.is_dir():
        files = sorted(f for f in path.rglob("*") if f.suffix.lower() in RASTERS and _wanted(f.relative_to(path)))
        if not files:
            raise InputError(f"{path}: the folder holds no raster ({', '.join(RASTERS)}); give the {role}s")
        found = _opened([str(f.absolute()) for f in files], unusable)
        if not found:
            raise InputError(f"{path}: none of its {len(files)} rasters can be used; check them with gdalinfo")
        return found
    if not path.exists():
        raise InputError(f"{path}: no such file; give a {role}, a folder, an index (CSV, GeoPackage) or STAC JSON")
    if suffix in TABLES:
        return _from_table(path, table, role)
    return _opened([str(path.absolute())])


def _wanted(relative: Path) -> bool:
    """Hidden folders, and folders of unfinished runs, are left out."""
    return not any(part.startswith(".") or part.endswith(".parts") for part in relative.parts)


def _is_stac(name: str) -> bool:
    from geo_refdiff.pipeline.batch.stac_source import is_stac

    return is_stac(name)


def _opened(files: Sequence[str], unusable: list[str] | None = None) -> list[Entry]:
    """Entries from the rasters themselves."""

    def tried(file: str) -> Entry | str:
        try:
            return _open(file)
        except InputError as error:
            if unusable is None:
                raise
            return str(error)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(tried, files))
    if unusable is not None:
        unusable.extend(text for text in found if isinstance(text, str))
    return [entry for entry in found if isinstance(entry, Entry)]


def _open(file: str) -> Entry:
    import rasterio

    from geo_refdiff.io.stac import acquired, outline

    try:
        with gdal_env(), rasterio.open(file) as dataset:
            if not dataset.crs or dataset.transform.is_identity:
                raise InputError(
                    f"{file}: is not georeferenced; give it a CRS and an affine (gdal_edit.py), or leave it out"
                )
            footprint = outline(dataset)
        taken = acquired(file)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{file}: cannot be opened as a raster ({one_line(error, 160)}); check it with gdalinfo"
        ) from error
    return Entry((file,), footprint, span_in_name(Path(file).stem) if taken is None else span_of(taken))


def _from_table(path: Path, table: LayerSource, role: str) -> list[Entry]:
    if table.subset and path.suffix.lower() in (".csv", *_PARQUET):
        raise InputError(f"{table}: a subset needs a GeoPackage or another vector file; leave it out")
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _vector_rows(path, table)
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
        footprint = _footprint(f"{path}, row {number}", row, columns)
        if footprint is None:
            unknown.append(len(entries))
        entries.append(Entry((file,), footprint or shapely.Polygon(), span or span_in_name(Path(file).stem)))
    for at, found in zip(unknown, _opened([entries[at].files[0] for at in unknown]), strict=True):
        entries[at] = Entry(found.files, found.lonlat, entries[at].span or found.span)
    return entries


def _whole(value: Any) -> Any:
    """Years that a table reader took for floating numbers."""
    return str(int(value)) if isinstance(value, int | float) and float(value).is_integer() else value


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    import csv

    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [dict(row) for row in csv.DictReader(stream, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({one_line(error, 120)}); save it as UTF-8 CSV") from error
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise InputError(f"{path}, row {number}: has more or fewer cells than the head; correct it")
    return rows


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


def _footprint(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> BaseGeometry | None:
    shape = row.get("geometry")
    if isinstance(shape, BaseGeometry) and not shape.is_empty:
        return shape
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
            return shapely.from_wkt(wkt)
        except shapely.errors.ShapelyError as error:
            raise InputError(
                f"{where}: the footprint is no WKT ({one_line(error, 80)}); give degrees as WKT"
            ) from error
    return None


def check_asset_names(text: str | None) -> tuple[str, ...]:
    """Keys from "red,green,blue".

    Raises:
        OptionError: nothing but commas.
    """
    if text is None:
        return ()
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise OptionError(f"asset '{text}': give the key of an asset, or several for bands: red,green,blue")
    return names


def covered(area: BaseGeometry, entries: Iterable[Entry]) -> float:
    """Share of an area that footprints cover, 0..1."""
    shapes = [entry.lonlat.intersection(area) for entry in entries]
    return float(shapely.union_all(shapes).area / area.area) if shapes and area.area else 0.0
