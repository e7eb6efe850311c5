"""Vector layers as QGIS names them, areas of interest from text or a layer, and as pixels."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask
from shapely.geometry.base import BaseGeometry

from geo_refdiff.errors import GridError, InputError
from geo_refdiff.raster.crs import in_degrees
from geo_refdiff.raster.gdal import is_gdal_name, one_line
from geo_refdiff.raster.globe import on_the_globe
from geo_refdiff.raster.window import Window

_SUBSET = re.compile(r"\|subset=(.*)\Z", re.IGNORECASE | re.DOTALL)
_WAY_OUT = "give FILE, FILE|layername=NAME, |layerid=NUMBER or |subset=CONDITION"

LONLAT = pyproj.CRS.from_epsg(4326)
"""Degrees, longitude first."""

_SPARE = 1e-6

_NUMBER = r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*"
_BOX = re.compile(rf"^({_NUMBER}(?:,{_NUMBER})*)(?:,\s*(EPSG:\d+)\s*)?$", re.IGNORECASE)
_WKT = re.compile(r"^(?:([^;]+);)?\s*((?:MULTI)?POLYGON\b.*)$", re.IGNORECASE | re.DOTALL)
_TILE = 1024


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A vector file, and what of it is meant.

    Attributes:
        path: the file, or a GDAL name.
        layer: name or number of the layer; None: not said.
        subset: SQL condition that features must meet, "" if all are meant.
        only_polygons: whether features of other kinds are left out.
    """

    path: str
    layer: str | int | None = None
    subset: str = ""
    only_polygons: bool = False

    @property
    def exists(self) -> bool:
        """Whether there is such a file; what only GDAL can look up counts as there."""
        return is_gdal_name(self.path) or Path(self.path).exists()

    @property
    def options(self) -> dict[str, Any]:
        """pyogrio's arguments beside the path."""
        return {"layer": self.layer, "where": self.subset or None}

    @property
    def absolute(self) -> LayerSource:
        """With the absolute path of a file."""
        return self if is_gdal_name(self.path) else replace(self, path=str(Path(self.path).expanduser().absolute()))

    def __str__(self) -> str:
        kind = "layerid" if isinstance(self.layer, int) else "layername"
        layer = "" if self.layer is None else f"|{kind}={self.layer}"
        return f"{self.path}{layer}{f'|subset={self.subset}' if self.subset else ''}"


def layer_source(text: str | Path) -> LayerSource:
    """What a text names: a file, or a layer of it as QGIS writes it.

    Args:
        text: FILE, followed by any of |layername=NAME, |layerid=NUMBER (from 0), |geometrytype=Polygon and, last,
            |subset=CONDITION. A file whose own name looks so is taken as it is.

    Raises:
        InputError: one line: another part, or one that makes no sense.

    Source: QgsOgrProviderMetadata::decodeUri of QGIS.
    """
    name = str(text)
    if "|" not in name or Path(name).exists():
        return LayerSource(name)
    subset = _SUBSET.search(name)
    path, *parts = (name if subset is None else name[: subset.start()]).split("|")
    layer: str | int | None = None
    only_polygons = False
    for part in parts:
        key, _, value = part.partition("=")
        kind = key.lower()
        if kind == "layername" and value:
            layer = value
        elif kind == "layerid" and value.isdecimal():
            layer = int(value) if layer is None else layer
        elif kind == "geometrytype" and "polygon" in value.lower():
            only_polygons = True
        elif kind != "uniquegeometrytype":
            raise InputError(f"{path}: '|{part}' is not understood; {_WAY_OUT}")
    return LayerSource(path, layer, "" if subset is None else subset[1].strip(), only_polygons)


def is_box(text: str) -> bool:
    """Whether an area of interest is given as numbers, not as a file."""
    return _BOX.match(text) is not None


def is_wkt(text: str) -> bool:
    """Whether an area of interest is given as "CRS;POLYGON ((...))", or without the CRS."""
    return _WKT.match(text) is not None


def read_aoi(text: str, crs: Any) -> BaseGeometry:
    """The area of interest as a polygon or multipolygon in `crs`.

    Args:
        text: "xmin,ymin,xmax,ymax" in units of `crs`, or "xmin,ymin,xmax,ymax,EPSG:4326" in those of another CRS (x is
            the easting or longitude), or a vector file in any CRS, as `layer_source` takes it, or
            "CRS;POLYGON ((...))", e.g. "EPSG:4326;POLYGON ((...))"; without the CRS in that of `crs`.
        crs: anything pyproj takes, e.g. a GeoBox's crs; the scene's.

    Raises:
        GridError: an empty area, or a box that is not four numbers.
        InputError: the file is missing, unreadable or has no CRS.
    """
    numbers = _BOX.match(text)
    if numbers is None:
        written = _WKT.match(text)
        return _from_file(text, crs) if written is None else _from_wkt(written.group(1), written.group(2), crs)
    box = _box(numbers.group(1))
    if numbers.group(2) is None:
        return box
    own = _known_crs(numbers.group(2), text)
    check_degrees(f"area of interest '{text}'", own, box.bounds, "give a box in the scene's CRS without its name")
    return _moved(box, own, crs, text)


def area_text(area: Any) -> Any:
    """An area of interest from Python as text that `read_aoi` takes; what is none comes back as it is.

    Args:
        area: polygons of shapely, in the scene's CRS; a GeoSeries or GeoDataFrame; a Geometry of odc-geo; or four
            numbers, xmin, ymin, xmax, ymax in the scene's CRS.

    Raises:
        GridError, InputError: no polygon with an area, or a frame without a CRS.
    """
    if isinstance(area, tuple) and len(area) == 4 and all(isinstance(v, int | float) for v in area):
        return ",".join(f"{v!r}" for v in area)
    areas = as_polygons(area, "area of interest")
    if areas is None:
        return area
    geometries, crs = areas
    if crs is None:
        merged = polygons(shapely.make_valid(shapely.force_2d(shapely.union_all(geometries))))
    else:
        merged = shapely.union_all([sound_polygons(geometry, crs) for geometry in geometries])
    if merged.is_empty:
        raise GridError("area of interest: holds no polygon with an area; give polygons")
    wkt = shapely.to_wkt(merged, rounding_precision=-1)
    return wkt if crs is None else f"{crs.to_string() if crs.to_authority() else crs.to_wkt()};{wkt}"


def as_polygons(value: Any, what: str) -> tuple[list[BaseGeometry], pyproj.CRS | None] | None:
    """Geometries from Python, and their CRS, None where they have none of their own; None for anything else.

    Args:
        value: a geometry of shapely or odc-geo, a GeoSeries or a GeoDataFrame.
        what: for messages.

    Raises:
        InputError: a frame without a CRS.
    """
    if isinstance(value, BaseGeometry):
        return [value], None
    package = type(value).__module__.partition(".")[0]
    if package == "odc" and hasattr(value, "geom"):
        return [value.geom], None if value.crs is None else pyproj.CRS.from_user_input(str(value.crs))
    if package != "geopandas":
        return None
    if value.crs is None:
        raise InputError(f"{what}: the {type(value).__name__} has no CRS; assign it: .set_crs('EPSG:...')")
    return list(value.geometry.dropna()), pyproj.CRS.from_user_input(value.crs)


def other_meanings(text: str, crs: Any) -> list[tuple[str, BaseGeometry]]:
    """What an area of interest might have been meant to be: (how to say it, polygons in `crs`).

    Boxes in degrees without a CRS, and latitude before longitude.
    """
    numbers, written = _BOX.match(text), _WKT.match(text)
    if written is not None and written.group(1) is None:
        with contextlib.suppress(GridError, InputError):
            return [("EPSG:4326;POLYGON ...", read_aoi(f"EPSG:4326;{text}", crs))]
    if numbers is None:
        return _swapped_file(text, crs)
    x0, y0, x1, y1 = (part.strip() for part in numbers.group(1).split(","))
    straight, swapped = f"{x0},{y0},{x1},{y1}", f"{y0},{x0},{y1},{x1}"
    code = numbers.group(2)
    given = [f"{swapped},{code}"] if code else [f"{straight},EPSG:4326", f"{swapped},EPSG:4326", swapped]
    meanings = []
    for other in given:
        with contextlib.suppress(GridError, InputError):
            meanings.append((other, read_aoi(other, crs)))
    return meanings


def _swapped_file(text: str, crs: Any) -> list[tuple[str, BaseGeometry]]:
    if is_wkt(text):
        return []
    source = layer_source(text)
    with contextlib.suppress(GridError, InputError):
        frame = read_layer(source, columns=[])
        own = pyproj.CRS.from_user_input(frame.crs)
        turned = shapely.transform(shapely.union_all(frame.geometry.dropna()), lambda xy: xy[:, ::-1])
        return [
            (
                "a file with x and y swapped: write longitude first",
                _moved(sound_polygons(turned, own), own, crs, source.path),
            )
        ]
    return []


def _box(text: str) -> BaseGeometry:
    values = [float(v) for v in text.split(",")]
    if len(values) != 4 or not all(isfinite(v) for v in values):
        raise GridError(f"area of interest '{text}': {len(values)} numbers; give xmin,ymin,xmax,ymax")
    xmin, ymin, xmax, ymax = values
    if xmin >= xmax or ymin >= ymax:
        raise GridError(f"area of interest '{text}' is empty; give xmin,ymin,xmax,ymax with xmin < xmax, ymin < ymax")
    return shapely.box(xmin, ymin, xmax, ymax)


def _from_wkt(source: str | None, wkt: str, crs: Any) -> BaseGeometry:
    name = wkt if len(wkt) <= 40 else wkt[:37] + "..."
    crs_of_wkt = _known_crs(str(crs) if source is None else source.strip(), name)
    try:
        area = sound_polygons(shapely.from_wkt(wkt), crs_of_wkt)
    except shapely.errors.ShapelyError as error:
        raise GridError(f"area of interest '{name}': is no polygon ({one_line(error, 80)}); correct its WKT") from error
    if area.is_empty:
        raise GridError(f"area of interest '{name}': is empty; give a polygon with an area")
    return _moved(area, crs_of_wkt, crs, name)


def read_layer(source: LayerSource, columns: Sequence[str] | None = None) -> Any:
    """The features that a source names, as a GeoDataFrame with a CRS and at least one geometry.

    Args:
        source: file, layer and subset.
        columns: fields to read; None: all.

    Raises:
        InputError: missing, unreadable, several layers and none named, without geometry or without a CRS; one line.
    """
    import geopandas

    if not source.exists:
        raise InputError(
            f"{source.path}: no such file; give a vector file, FILE|layername=NAME for one layer of several"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the file's oddities only what stops us matters
            if is_parquet(source.path):
                frame = _read_parquet(source)
            else:
                options = {**source.options, "layer": only_layer(source)}
                frame = geopandas.read_file(source.path, columns=columns, **options)
    except InputError:
        raise
    except Exception as error:  # pyogrio, GEOS and pandas each have their own
        raise InputError(
            f"{source}: cannot be read as a vector file ({one_line(error, 160)}); check it with ogrinfo"
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame) or frame.geometry.isna().all():
        raise InputError(f"{source}: holds no geometry; give a layer of polygons (FILE|layername=NAME)")
    if frame.crs is None:
        how = ".set_crs('EPSG:...').to_parquet()" if is_parquet(source.path) else "ogr2ogr -a_srs EPSG:..."
        raise InputError(f"{source.path}: has no CRS; assign the right one: {how}")
    check_degrees(source.path, pyproj.CRS.from_user_input(frame.crs), frame.total_bounds)
    return frame


def is_parquet(path: str) -> bool:
    """Whether a file is called as GeoParquet is; GDAL reads it only where it was built with Arrow."""
    return path.casefold().endswith((".parquet", ".geoparquet"))


def _read_parquet(source: LayerSource) -> Any:
    import geopandas

    if source.layer is not None or source.subset:
        raise InputError(f"{source}: GeoParquet has one layer, taken whole; give {source.path}")
    try:
        return geopandas.read_parquet(source.path)
    except ImportError as error:
        raise InputError(f"{source.path}: GeoParquet needs pyarrow: pip install 'geo-refdiff[parquet]'") from error


def check_degrees(name: str, crs: pyproj.CRS, bounds: Sequence[float], way_out: str | None = None) -> None:
    """Whether coordinates that are to be longitudes and latitudes can be.

    Args:
        name: of the file, or the text.
        bounds: xmin, ymin, xmax, ymax.
        way_out: what to do about coordinates of another CRS; None: what helps with a file.

    Raises:
        InputError: they cannot, as those of GeoJSON in metres without a CRS, or with latitudes first.
    """
    xmin, ymin, xmax, ymax = (float(v) for v in bounds)
    if not in_degrees(crs) or (max(abs(ymin), abs(ymax)) <= 90.0 + _SPARE and max(abs(xmin), abs(xmax)) <= 540.0):
        return
    problem = (
        f"{name}: x {xmin:.10g} to {xmax:.10g}, y {ymin:.10g} to {ymax:.10g} are no degrees of longitude and latitude"
    )
    if max(abs(xmin), abs(xmax)) <= 90.0 and max(abs(ymin), abs(ymax)) <= 540.0:
        raise InputError(f"{problem}: they look swapped; put longitude first")
    assign = f"write it with the right one: ogr2ogr -a_srs EPSG:... area.gpkg {name}"
    of_file = f", as a file without a CRS of its own is taken to hold (GeoJSON); {assign}"
    raise InputError(problem + (of_file if way_out is None else f"; {way_out}"))


def only_layer(source: LayerSource) -> str | int:
    """The layer that a source names, else the only one of the file that has geometry.

    Raises:
        InputError: none is named, and there are several or none; one line.
        Exception: pyogrio's own, if the file cannot be read.
    """
    import pyogrio

    if source.layer is not None:
        return source.layer
    layers = [str(name) for name, kind in pyogrio.list_layers(source.path) if kind is not None]
    if not layers:
        raise InputError(f"{source}: holds no geometry; give a layer of polygons (FILE|layername=NAME)")
    if len(layers) > 1:
        raise InputError(
            f"{source.path}: has {len(layers)} layers with geometry ({', '.join(layers[:8])}); name one: "
            f"'{source.path}|layername=NAME'"
        )
    return layers[0]


def _from_file(text: str, crs: Any) -> BaseGeometry:
    source = layer_source(text)
    name, frame = source.path, read_layer(source, columns=[])
    own = pyproj.CRS.from_user_input(frame.crs)
    area = shapely.union_all([sound_polygons(geometry, own) for geometry in frame.geometry.dropna()])
    if area.is_empty:
        raise GridError(f"{name}: holds no polygon with an area; give polygons as area of interest")
    return _moved(area, own, crs, name)


def _known_crs(text: str, name: str) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError as error:
        raise GridError(f"area of interest '{name}': unknown CRS ({one_line(error, 80)}); give an EPSG code") from error


def _moved(area: BaseGeometry, source: pyproj.CRS, crs: Any, name: str) -> BaseGeometry:
    """Polygons from one CRS to another, their edges made dense first."""
    target = _known_crs(str(crs), name)
    if source.equals(target, ignore_axis_order=True):
        return area
    project = pyproj.Transformer.from_crs(source, target, always_xy=True).transform
    moved = shapely.transform(dense(area, 64), project, interleaved=False)
    moved = sound_polygons(moved, target) if all(isfinite(v) for v in moved.bounds) else shapely.Polygon()
    if moved.is_empty:
        raise GridError(f"{name}: its polygons cannot be projected to {target.name}; check their CRS")
    return moved


def dense(area: BaseGeometry, pieces: int) -> BaseGeometry:
    """Polygons with points along their edges, `pieces` in the largest one: a straight line may be a curve elsewhere."""
    if area.is_empty:
        return area
    west, south, east, north = shapely.bounds(shapely.get_parts(area)).T
    return shapely.segmentize(area, max((east - west).max(), (north - south).max()) / pieces)


def sound_polygons(geometry: BaseGeometry, crs: pyproj.CRS) -> BaseGeometry:
    """The polygons of any geometry, valid, without heights, in degrees as by `on_the_globe`; possibly none."""
    flat = shapely.force_2d(geometry)
    if in_degrees(crs):
        parts = shapely.get_parts(shapely.get_parts(flat))
        flat = on_the_globe(shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"]))
    return polygons(flat if flat.is_valid else shapely.make_valid(flat))


def polygons(geometry: BaseGeometry) -> BaseGeometry:
    """The polygonal part of a geometry, possibly empty."""
    parts = [g for g in shapely.get_parts(geometry, return_index=False) if g.geom_type in ("Polygon", "MultiPolygon")]
    return shapely.union_all(parts) if parts else shapely.Polygon()


class AreaOfInterest:
    """A polygon in pixels of the whole scene's output grid; a pixel belongs to it if its centre does.

    Args:
        polygon: WKT, in the grid's CRS.
        target: the grid.
        part: the output, in pixels of it.
    """

    def __init__(self, polygon: str, target: GeoBox, part: Window) -> None:
        self._part = part
        a, b, c, d, e, f = (~target.affine)[:6]
        self._geometry: BaseGeometry = shapely.affinity.affine_transform(shapely.from_wkt(polygon), [a, b, d, e, c, f])
        shapely.prepare(self._geometry)

    @property
    def is_empty(self) -> bool:
        """Whether no pixel of the output belongs to it."""
        return not any(self.inside(tile).any() for tile in Window(0, 0, *self._part.shape).tiles(_TILE))

    def inside(self, window: Window) -> NDArray[np.bool_]:
        """(height, width), True inside.

        Args:
            window: in output pixels.
        """
        place = window.shift(self._part.row, self._part.col)
        near = shapely.box(place.col - 1, place.row - 1, place.stop_col + 1, place.stop_row + 1)
        if not self._geometry.intersects(near):
            return np.zeros(window.shape, dtype=np.bool_)
        if self._geometry.contains(near):
            return np.ones(window.shape, dtype=np.bool_)
        pixels = Affine.translation(place.col, place.row)
        return np.asarray(geometry_mask([self._geometry], window.shape, pixels, invert=True), dtype=np.bool_)
