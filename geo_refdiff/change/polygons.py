"""Change masks from polygons of any vector file in any CRS, rasterised tile by tile onto the output grid."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio.features
import shapely
import shapely.affinity
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.transform import IDENTITY

from geo_refdiff.change.class_map import Key, as_key
from geo_refdiff.classes import NO_CHANGE, UNKNOWN_CLASS
from geo_refdiff.errors import GridError, InputError, OutputError
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.files import atomic_path
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.geobox import crop, crs_wkt
from geo_refdiff.raster.vector import (
    LayerSource,
    as_polygons,
    check_degrees,
    is_parquet,
    layer_source,
    only_layer,
    read_layer,
)
from geo_refdiff.raster.window import TileCache, Window

TILE = 512
"""Side of the fixed tiles, counted from the target's corner, in which polygons are rasterised, pixels."""

_SUFFIXES = (".gpkg", ".geojson", ".json", ".geojsonl", ".shp", ".fgb", ".gml", ".kml", ".parquet", ".zip")
_CLASS_FIELDS = frozenset(
    {"class", "classes", "class_id", "classname", "class_name", "klasse", "label", "label_id", "category", "type"}
    | {"landcover", "land_cover", "landuse", "land_use", "lulc", "dn"}
)
_TILES_KEPT = 64
_STEP = 64.0
"""Distance of the points along an edge when a displacement field may bend it, output pixels."""

_PARTS = 16
"""Pieces into which the longest side of a polygon is divided before it is projected: straight edges may bend."""


@dataclass(frozen=True, slots=True)
class VectorInfo:
    """A layer of polygons, inspected.

    Attributes:
        path: absolute path, or a GDAL name.
        layer: its name.
        field: attribute that holds the class; None: every polygon is a change to an unknown class.
        crs_wkt: CRS as WKT.
        bounds: xmin, ymin, xmax, ymax in it.
        features: number of them.
        size_bytes, mtime_ns: size and time of last change of the file; 0 if unknown.
        subset: SQL condition that selects features; "" = all.
    """

    path: str
    layer: str
    field: str | None
    crs_wkt: str
    bounds: tuple[float, float, float, float]
    features: int
    size_bytes: int
    mtime_ns: int
    subset: str = ""

    @property
    def source(self) -> LayerSource:
        """File, layer and subset, for reading."""
        return LayerSource(self.path, self.layer, self.subset)


def is_vector(text: str) -> bool:
    """Whether a mask is a vector file: given with `|layername=` and the like, or with a vector suffix and layers in it.

    Raises:
        InputError: an unknown part after `|`.
    """
    import pyogrio

    source = layer_source(text)
    name = source.path
    if name != text:
        return True
    if not name.casefold().endswith(_SUFFIXES):
        return False
    try:
        return len(pyogrio.list_layers(name)) > 0
    except Exception:  # pyogrio's own errors; opening the file reports what is wrong
        return not name.casefold().endswith((".zip", ".json"))


def mask_name(mask: Any, scene_crs: Callable[[], str]) -> Any:
    """A change mask of Python's as a file: polygons of shapely, a GeoSeries or a GeoDataFrame; others as they are.

    Args:
        mask: geometries without a CRS are in the scene's.
        scene_crs: gives that CRS.

    Raises:
        InputError: a frame without a CRS, or without geometries.
    """
    source = as_polygons(mask, "mask")
    if source is None:
        return mask
    import geopandas  # takes longer to import than all else that a small scene needs

    geometries, crs = source
    frame = mask if isinstance(mask, geopandas.GeoDataFrame) else geopandas.GeoDataFrame(geometry=geometries)
    if not geometries:
        raise InputError("mask: holds no geometry; give polygons, or mask='none'")
    return str(_kept(frame.set_crs(scene_crs() if crs is None else crs, allow_override=True)))


def _kept(frame: Any) -> Path:
    """A frame as a GeoPackage, read by extent later on, and called by its content, so that a run can be resumed."""
    plain = frame[[c for c in frame.columns if c == frame.geometry.name or frame[c].dtype.kind in "OUbiuf"]].copy()
    content = hashlib.sha256(plain.crs.to_wkt().encode())
    for column in plain.columns:
        if column == plain.geometry.name:
            values = plain.geometry.to_wkb()
        else:
            if plain[column].dtype.kind == "O":
                plain[column] = plain[column].map(str, na_action="ignore")
            values = plain[column].map(repr)
        content.update(repr((str(column), list(values))).encode())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for folder in (home / "geo-refdiff" / "masks", Path(tempfile.gettempdir()) / f"geo-refdiff-{os.getuid()}"):
        path = folder / f"{content.hexdigest()[:32]}.gpkg"
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):
                if not path.is_file():
                    with atomic_path(path) as part:
                        plain.to_file(part, driver="GPKG", layer="mask")
                return path
    raise OutputError(f"{path}: the mask's polygons cannot be kept; write them into a file (.to_file) and give that")


def inspect_polygons(text: str, field: str | None) -> VectorInfo:
    """Inspect a layer of polygons.

    Args:
        text: FILE, FILE|layername=NAME, or any other form that `layer_source` takes; GeoParquet, which GDAL does not
            read everywhere, is taken as a GeoPackage made of it.
        field: attribute that holds the class.

    Raises:
        InputError: missing, unreadable, several layers and none named, no CRS, no polygons, or no such field.
    """
    import pyogrio

    given = layer_source(text)
    if not given.exists:
        raise InputError(f"{given.path}: no such file; give a raster or a vector file as mask")
    if is_parquet(given.path):
        given = LayerSource(str(_kept(read_layer(given))))
    source = given.absolute
    path = source.path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = only_layer(source)
            layer_info = pyogrio.read_info(path, layer=layer, force_feature_count=True, force_total_bounds=True)
            if source.subset:
                _, bounds = pyogrio.read_bounds(path, layer=layer, where=source.subset)
                layer_info |= {"features": bounds.shape[1], "total_bounds": _around(bounds)}
    except InputError:
        raise
    except Exception as error:  # pyogrio and GDAL each have their own
        raise InputError(
            f"{text}: cannot be read as a vector file ({one_line(error, 160)}); check it with ogrinfo"
        ) from (error)
    return _checked(layer_info, path, source.subset, field)


def _around(bounds: NDArray[np.float64]) -> tuple[float, ...]:
    """xmin, ymin, xmax, ymax around all bounds; NaN without any."""
    if not np.isfinite(bounds).any():
        return (float("nan"),) * 4
    return (*np.nanmin(bounds[:2], axis=1).tolist(), *np.nanmax(bounds[2:], axis=1).tolist())


def _checked(layer_info: Mapping[str, Any], path: str, subset: str, field: str | None) -> VectorInfo:
    layer = str(layer_info["layer_name"])
    if not layer_info["crs"]:
        raise InputError(f"{path}: has no CRS; assign the right one: ogr2ogr -a_srs EPSG:...")
    kind = str(layer_info["geometry_type"] or "Unknown")
    if not layer_info["features"] or not any(word in kind for word in ("Polygon", "Surface", "Unknown", "Collection")):
        raise InputError(
            f"{path}: layer '{layer}' holds {layer_info['features']} features of type {kind}; give a layer of polygons"
        )
    fields = [str(f) for f in layer_info["fields"]]
    if field is not None and field not in fields:
        have = ", ".join(fields) or "none"
        raise InputError(f"{path}: layer '{layer}' has no field '{field}'; its fields are {have}")
    bounds = layer_info["total_bounds"]
    if bounds is None or not all(isfinite(v) for v in bounds):
        raise InputError(f"{path}: layer '{layer}' has no finite extent; check it with ogrinfo")
    file = Path(path)
    size, mtime = (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else (0, 0)
    check_degrees(path, pyproj.CRS.from_user_input(layer_info["crs"]), bounds)
    crs = pyproj.CRS.from_user_input(layer_info["crs"]).to_wkt()
    xmin, ymin, xmax, ymax = (float(v) for v in bounds)
    return VectorInfo(
        path, layer, field, crs, (xmin, ymin, xmax, ymax), int(layer_info["features"]), size, mtime, subset
    )


def class_field(info: VectorInfo) -> str | None:
    """The field that by its name holds classes, where none was named; None if there is none such."""
    import pyogrio

    if info.field is not None:
        return None
    fields = [str(name) for name in pyogrio.read_info(info.path, layer=info.layer)["fields"]]
    return next((name for name in fields if name.casefold() in _CLASS_FIELDS), None)


def field_values(info: VectorInfo) -> list[Key]:
    """The distinct values of the class field, without None and NaN, whose polygons are unknown; empty without a field.

    Raises:
        InputError: the file cannot be read.
    """
    if info.field is None:
        return []
    frame = _read(info, read_geometry=False)
    return sorted({as_key(v) for v in frame[info.field].dropna().unique().tolist()}, key=str)


def _read(info: VectorInfo, **options: Any) -> Any:
    import pyogrio

    columns = [] if info.field is None else [info.field]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pyogrio.read_dataframe(
                info.path, columns=columns, fid_as_index=True, **info.source.options, **options
            )
    except Exception as error:  # pyogrio, GEOS and pandas each have their own
        raise InputError(
            f"{info.path}: cannot be read as a vector file ({one_line(error, 160)}); check it with ogrinfo"
        ) from error


class PolygonMask:
    """Class indices on the output grid: of the last polygon, in the file's order, that contains the pixel's centre.

    Polygons are read by the extent of fixed tiles, so that pixels do not depend on the windows that are read, and
    memory holds the polygons of a few tiles.

    Args:
        info: from `inspect_polygons`.
        target: the whole scene's output grid.
        values: value of the field -> class index; others are unknown.
        displacement: target pixel p is found in the polygons' coordinates at p + displacement, target pixels.

    Raises:
        GridError: the polygons' CRS cannot be brought to the target's.
    """

    def __init__(
        self, info: VectorInfo, target: GeoBox, values: Mapping[Key, int], displacement: Displacement | None = None
    ) -> None:
        self.info, self.target, self._values = info, target, dict(values)
        self._source, self._to = pyproj.CRS.from_wkt(info.crs_wkt), pyproj.CRS.from_wkt(crs_wkt(target))
        self._same = self._source.equals(self._to, ignore_axis_order=True)
        self._tiles: TileCache[NDArray[np.uint8]] = TileCache(_TILES_KEPT)
        self._displacement = displacement
        self._reach = 2 if displacement is None else 2 + displacement.reach((target.height, target.width))

    def meets_target(self) -> bool:
        """Whether the extents intersect."""
        height, width = self.target.shape
        xmin, ymin, xmax, ymax = self._extent(Window(0, 0, height, width))
        left, bottom, right, top = self.info.bounds
        return left <= xmax and right >= xmin and bottom <= ymax and top >= ymin

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices: 0 outside the polygons, 255 in polygons of unknown class."""
        out = np.empty(window.shape, dtype=np.uint8)
        for tile, part in window.cells(TILE):
            out[part.within(window)] = self._tiles.get(tile, self._rasterise)[part.within(tile)]
        return out

    def close(self) -> None:
        """Drop the cached tiles."""
        self._tiles.clear()

    def _extent(self, tile: Window) -> tuple[float, float, float, float]:
        """Extent of a window in the polygons' CRS, slightly enlarged."""
        xmin, ymin, xmax, ymax = crop(self.target, tile.pad(self._reach)).extent.boundingbox.bbox
        if self._same:
            return xmin, ymin, xmax, ymax
        back = pyproj.Transformer.from_crs(self._to, self._source, always_xy=True)
        bounds = back.transform_bounds(xmin, ymin, xmax, ymax, densify_pts=21)
        if not all(isfinite(v) for v in bounds):
            raise GridError(
                f"{self.info.path}: the scene's extent cannot be projected to the polygons' CRS '{self._source.name}'; "
                f"reproject them: ogr2ogr -t_srs"
            )
        left, bottom, right, top = bounds
        margin = 0.01 * max(right - left, top - bottom)
        return left - margin, bottom - margin, right + margin, top + margin

    def _rasterise(self, tile: Window) -> NDArray[np.uint8]:
        classes = np.full(tile.shape, NO_CHANGE, dtype=np.uint8)
        frame = _read(self.info, bbox=self._extent(tile)).sort_index(kind="stable")
        a, b, c, d, e, f = (~self.target.affine)[:6]
        shapes = []
        for position, geometry in enumerate(frame.geometry):
            projected = None if geometry is None or geometry.is_empty else self._projected(geometry)
            if projected is not None:
                local = self._displaced(shapely.affinity.affine_transform(projected, (a, b, d, e, c, f)))
                in_tile = shapely.affinity.translate(local, -tile.col, -tile.row)
                shapes.append((in_tile, self._class(frame, position)))
        if shapes:
            rasterio.features.rasterize(shapes, out=classes, transform=IDENTITY)
        return classes

    def _displaced(self, geometry: Any) -> Any:
        """A polygon in target pixels, moved against the displacement."""
        if self._displacement is None:
            return geometry
        displacement = self._displacement

        def move(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            rows, cols = displacement.came_from(xy[:, 1], xy[:, 0])
            return np.column_stack([cols, rows])

        return shapely.transform(geometry if displacement.is_linear else shapely.segmentize(geometry, _STEP), move)

    def _class(self, frame: Any, position: int) -> int:
        value = None if self.info.field is None else frame[self.info.field].iloc[position]
        missing = value is None or value != value
        return UNKNOWN_CLASS if missing else self._values.get(as_key(value), UNKNOWN_CLASS)

    def _projected(self, geometry: Any) -> Any:
        """A polygon in the target's CRS; None if it has no area there."""
        if not self._same:
            xmin, ymin, xmax, ymax = geometry.bounds
            dense = shapely.segmentize(geometry, max(max(xmax - xmin, ymax - ymin) / _PARTS, 1e-9))
            forth = pyproj.Transformer.from_crs(self._source, self._to, always_xy=True)
            geometry = shapely.transform(dense, lambda xy: np.column_stack(forth.transform(xy[:, 0], xy[:, 1])))
        if not np.isfinite(shapely.get_coordinates(geometry)).all():
            raise GridError(
                f"{self.info.path}: a polygon cannot be projected to the scene's CRS; clip the layer to the scene first"
            )
        solid = shapely.make_valid(shapely.force_2d(geometry))
        return solid if solid.area > 0 else None
