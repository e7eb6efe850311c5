"""Rasters from an index: CSV, or a vector table, with a row for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from geo_refdiff.batch.entry import Entry, footprint, gdal_name, opened
from geo_refdiff.errors import InputError
from geo_refdiff.raster.dates import span_in_name, span_of
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.globe import on_the_globe
from geo_refdiff.raster.layer_source import LayerSource

TABLES = (".csv", ".gpkg", ".geojson", ".parquet", ".geoparquet", ".fgb", ".shp")
PATH_COLUMNS = ("path", "file", "filename", "location", "href", "url", "image")
"""Columns of an index that may name the files."""

_PARQUET = (".parquet", ".geoparquet")
_DATE_COLUMNS = ("date", "datetime", "acquired", "acquisition_date", "time", "year")
_BOX_COLUMNS = (("west", "south", "east", "north"), ("xmin", "ymin", "xmax", "ymax"), ("minx", "miny", "maxx", "maxy"))


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
        ground = _ground(f"{path}, row {number}", row, columns)
        if ground is None:
            unknown.append(len(entries))
        entries.append(Entry((file,), ground or shapely.Polygon(), span or span_in_name(Path(file).stem)))
    for at, found in zip(unknown, opened([entries[at].files[0] for at in unknown]), strict=True):
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


def _ground(where: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> BaseGeometry | None:
    """The footprint that a row tells, None if it tells none with an area."""
    shape = row.get("geometry")
    if isinstance(shape, BaseGeometry) and not (ground := footprint(where, shape)).is_empty:
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
        ground = footprint(where, shape)
        return None if ground.is_empty else ground
    return None
