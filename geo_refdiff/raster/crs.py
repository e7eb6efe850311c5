"""Overlap of two rasters, with exact transformations between their CRSs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import pyproj
import rasterio.warp
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj.transformer import AreaOfInterest, TransformerGroup

from geo_refdiff.errors import GridError
from geo_refdiff.raster.geobox import apply, apply_linear, crs_wkt, edge
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.window import Window

Coordinates = NDArray[np.float64]

_TURN = 360.0
_EDGE_STEPS = 32
_AGREEMENT_PX = 0.25


@dataclass(frozen=True)
class Overlap:
    """The overlap of a raster with a target grid.

    Attributes:
        fraction: part of the target's area that the raster's extent covers, in (0, 1].
        gsd: size of a source pixel along its columns and rows, target pixels, at the centre of the overlap.
        offset: (row, col) of the raster's corner in target pixels if the grids differ by whole pixels only, else None.
        accuracy: of the transformation between their CRSs, metres; None where none is needed or it is not known.
        shift: what is added to the raster's x before the warp, degrees; not 0 for longitudes beyond 180 alone.
        crs_wkt: the CRS that x is then in.
    """

    fraction: float
    gsd: tuple[float, float]
    offset: tuple[int, int] | None
    accuracy: float | None
    shift: float
    crs_wkt: str

    @property
    def gsd_ratio(self) -> float:
        """The raster's ground sampling distance in target pixels: above 1 is coarser."""
        return sqrt(self.gsd[0] * self.gsd[1])


def horizontal_crs(crs: Any) -> pyproj.CRS:
    """The horizontal part of a CRS."""
    parsed = pyproj.CRS.from_user_input(crs)
    if parsed.is_compound:
        parsed = _horizontal_part(parsed)
    return parsed.to_2d() if len(parsed.axis_info) > 2 else parsed


def _horizontal_part(compound: pyproj.CRS) -> pyproj.CRS:
    """The horizontal part of a compound CRS, that of its authority's code where that is the same but for names.

    Newer databases than pyproj's have codes of their own for such parts.
    """
    own, code = compound.sub_crs_list[0], compound.to_json_dict().get("id")
    try:
        coded = compound if code is None else pyproj.CRS.from_authority(code["authority"], code["code"])
    except pyproj.exceptions.CRSError:
        return own
    horizontal = coded.sub_crs_list[0] if coded.is_compound else own
    return horizontal if _shape_of(horizontal) == _shape_of(own) else own


def unit_of(crs: Any) -> str:
    """The unit of a CRS along its first axis, in the plural: "metres", "degrees", "US survey feet"."""
    name = str(horizontal_crs(crs).axis_info[0].unit_name)
    return name.replace("foot", "feet") if "foot" in name else f"{name}s"


def in_degrees(crs: pyproj.CRS) -> bool:
    """Whether coordinates are longitude and latitude in degrees."""
    return bool(crs.is_geographic and crs.axis_info[0].unit_name == "degree")


def find_overlap(info: RasterInfo, target: GeoBox) -> Overlap:
    """Overlap of a raster with a target grid.

    Raises:
        GridError: they do not overlap, or no exact transformation between their CRSs is available.
    """
    source_crs, target_crs = horizontal_crs(info.crs_wkt), horizontal_crs(crs_wkt(target))
    source_affine, target_affine = Affine(*info.transform), target.affine
    height, width = target.shape
    shift, warped_crs = 0.0, source_crs
    if in_degrees(source_crs) and in_degrees(target_crs):
        shift = _TURN * round((_middle(target_affine, width, height) - _middle_of(info)) / _TURN)
        a, b, c, d, e, f = source_affine[:6]
        source_affine = Affine(a, b, c + shift, d, e, f)
    elif in_degrees(source_crs) and _beyond_180(info):
        shift = -float(round(_middle_of(info)))
        warped_crs = _with_meridian(source_crs, -shift)
    centre_x = _middle(source_affine, info.width, info.height)
    same = source_crs.equals(target_crs, ignore_axis_order=True)
    transformer = None if same else _transformer(info.path, target, source_crs, target_crs)

    def to_source(cols: Coordinates, rows: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Target pixel coordinates to source pixel coordinates."""
        x, y = apply(target_affine, cols, rows)
        if transformer is not None:
            x, y = transformer.transform(x, y, direction="INVERSE", errcheck=False)
            if in_degrees(source_crs):
                x = np.asarray(x) - _TURN * np.round((np.asarray(x) - centre_x) / _TURN)
        return apply(~source_affine, np.asarray(x), np.asarray(y))

    area, common = _common_area(info, to_source, width, height)
    if common.is_empty or common.area <= 0:
        raise GridError(
            f"{info.path}: does not overlap the scene's grid ({_extent(target)} in {target_crs.name}); "
            f"give a raster of the same place"
        )
    centre = common.representative_point()
    col, row = _invert_point(to_source, centre.x, centre.y, width, height)
    step = 0.5
    cols, rows = to_source(np.array([col - step, col + step, col, col]), np.array([row, row, row - step, row + step]))
    jacobian = np.array([[cols[1] - cols[0], cols[3] - cols[2]], [rows[1] - rows[0], rows[3] - rows[2]]])
    if transformer is not None:
        _check_agreement(info, target, source_crs, target_crs, common, transformer, (shift, warped_crs))
    along_cols, along_rows = np.linalg.norm(jacobian, axis=1)
    return Overlap(
        fraction=min(1.0, common.area / area),
        gsd=(float(1 / along_cols), float(1 / along_rows)),
        offset=_whole_offset(source_affine, target_affine, info) if same else None,
        accuracy=None if transformer is None or transformer.accuracy < 0 else transformer.accuracy,
        shift=shift,
        crs_wkt=warped_crs.to_wkt(),
    )


def _middle(affine: Affine, width: int, height: int) -> float:
    """x of a grid's centre."""
    return float(affine.a * width / 2 + affine.b * height / 2 + affine.c)


def _middle_of(info: RasterInfo) -> float:
    return _middle(Affine(*info.transform), info.width, info.height)


def _beyond_180(info: RasterInfo) -> bool:
    """Whether longitudes leave -180 to 180, which GDAL's warp does not follow on a projected grid."""
    a, b, c = info.transform[:3]
    xs = [c + a * col + b * row for col in (0, info.width) for row in (0, info.height)]
    return min(xs) < -_TURN / 2 - abs(a) or max(xs) > _TURN / 2 + abs(a)


def _with_meridian(crs: pyproj.CRS, longitude: float) -> pyproj.CRS:
    """The same CRS in degrees, counted from another prime meridian."""
    parts = crs.to_json_dict()
    parts.pop("id", None)
    datum = parts["datum" if "datum" in parts else "datum_ensemble"]
    datum.pop("id", None)
    datum["prime_meridian"] = {"name": f"{longitude:g} degrees", "longitude": longitude}
    return pyproj.CRS.from_json_dict(parts)


def covered_window(reference: RasterInfo, scene: RasterInfo) -> Window:
    """Window of the scene that the reference may cover; the whole scene if that is not known."""
    x, y = apply(Affine(*reference.transform), *edge(reference.height, reference.width, _EDGE_STEPS))
    x, y = (np.asarray(v) for v in rasterio.warp.transform(reference.crs_wkt, scene.crs_wkt, x, y)[:2])
    cols, rows = apply(~Affine(*scene.transform), x, y)
    whole = scene.window
    if not (np.isfinite(cols).all() and np.isfinite(rows).all()):
        return whole
    top, left = int(np.floor(rows.min())), int(np.floor(cols.min()))
    height, width = int(np.ceil(rows.max())) - top, int(np.ceil(cols.max())) - left
    return whole.intersect(Window(top, left, max(height, 1), max(width, 1))) or whole


def _extent(target: GeoBox) -> str:
    xmin, ymin, xmax, ymax = target.extent.boundingbox.bbox
    return f"x {xmin:.10g} to {xmax:.10g}, y {ymin:.10g} to {ymax:.10g}"


def _common_area(info: RasterInfo, to_source: Any, width: int, height: int) -> tuple[float, Any]:
    """(area of the target, the part that the raster covers), both in source pixels."""
    x, y = to_source(*edge(height, width, _EDGE_STEPS))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise GridError(
            f"{info.path}: the scene's extent cannot be projected to its CRS; reproject it with gdalwarp -t_srs"
        )
    outline = shapely.make_valid(shapely.Polygon(np.stack([x, y], axis=1)))
    return float(outline.area), outline.intersection(shapely.box(0, 0, info.width, info.height))


def _invert_point(to_source: Any, x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """The target pixel coordinates of a source pixel position, by Newton steps from the target's centre."""
    col, row = width / 2, height / 2
    for _ in range(20):
        cols, rows = to_source(np.array([col, col + 1, col]), np.array([row, row, row + 1]))
        jacobian = np.array([[cols[1] - cols[0], cols[2] - cols[0]], [rows[1] - rows[0], rows[2] - rows[0]]])
        step = np.linalg.solve(jacobian, np.array([x - cols[0], y - rows[0]]))
        col, row = float(np.clip(col + step[0], 0, width)), float(np.clip(row + step[1], 0, height))
        if np.abs(step).max() < 0.01:
            break
    return col, row


def _whole_offset(source: Affine, target: Affine, info: RasterInfo) -> tuple[int, int] | None:
    corners = np.array([[0, 0], [info.width, 0], [0, info.height], [info.width, info.height]], dtype=float)
    x, y = apply(source, corners[:, 0], corners[:, 1])
    cols, rows = apply(~target, x, y)
    shifts = np.stack([rows - corners[:, 1], cols - corners[:, 0]])
    whole = np.round(shifts[:, 0])
    if np.abs(shifts - whole[:, None]).max() > 1e-4:
        return None
    return int(whole[0]), int(whole[1])


def _transformer(path: str, target: GeoBox, source_crs: pyproj.CRS, target_crs: pyproj.CRS) -> pyproj.Transformer:
    """The most accurate transformation from the raster's CRS to the target's for the area of the target."""
    area = _area_of_interest(target, target_crs)
    transformer = _best(source_crs, target_crs, area) or _best(_by_code(source_crs), _by_code(target_crs), area)
    if transformer is None:
        raise GridError(f"{path}: {_doubt(source_crs, target_crs)}")
    return transformer


def _best(source: pyproj.CRS, target: pyproj.CRS, area: AreaOfInterest | None) -> pyproj.Transformer | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "best transformation is not available": the agreement check decides
            options: dict[str, Any] = {"always_xy": True, "area_of_interest": area, "allow_ballpark": False}
            transformers = TransformerGroup(source, target, **options).transformers
    except (pyproj.exceptions.ProjError, IndexError):  # IndexError: pyproj's own, where there is none
        return None
    return transformers[0] if transformers else None


def _by_code(crs: pyproj.CRS) -> pyproj.CRS:
    """The CRS that its authority's code stands for, if that has the same ellipsoid and the same projection.

    GDAL's database may be newer than pyproj's and know a datum by a name that pyproj's does not.
    """
    code = crs.to_json_dict().get("id")
    if code is None:
        return crs
    try:
        coded = pyproj.CRS.from_authority(code["authority"], code["code"])
    except pyproj.exceptions.CRSError:
        return crs
    return coded if _shape_of(coded) == _shape_of(crs) else crs


def _shape_of(crs: pyproj.CRS) -> tuple[Any, ...]:
    """What makes coordinates of a CRS, but for the names in it."""
    ellipsoid, meridian, operation = crs.ellipsoid, crs.prime_meridian, crs.coordinate_operation
    return (
        ellipsoid and (ellipsoid.semi_major_metre, ellipsoid.inverse_flattening),
        meridian and meridian.longitude,
        operation and (operation.method_code, {(p.code, f"{p.value:.9g}", p.unit_name) for p in operation.params}),
    )


def _doubt(source_crs: pyproj.CRS, target_crs: pyproj.CRS) -> str:
    return (
        f"no exact transformation from '{source_crs.name}' to '{target_crs.name}' is known; "
        f"assign the exact CRS (gdal_edit.py -a_srs) or reproject it yourself (gdalwarp -t_srs)"
    )


def _area_of_interest(target: GeoBox, crs: pyproj.CRS) -> AreaOfInterest | None:
    geodetic = crs.geodetic_crs
    if geodetic is None:
        return None
    xmin, ymin, xmax, ymax = target.extent.boundingbox.bbox
    to_degrees = pyproj.Transformer.from_crs(crs, geodetic, always_xy=True)
    west, south, east, north = to_degrees.transform_bounds(xmin, ymin, xmax, ymax)
    if not np.isfinite([west, south, east, north]).all():
        return None
    return AreaOfInterest(west, max(south, -90), east, min(north, 90))


def _check_agreement(
    info: RasterInfo,
    target: GeoBox,
    source_crs: pyproj.CRS,
    target_crs: pyproj.CRS,
    common: Any,
    transformer: pyproj.Transformer,
    warped: tuple[float, pyproj.CRS],
) -> None:
    """Raise GridError if GDAL's own choice of transformation, by which it warps, is not the most accurate one."""
    xmin, ymin, xmax, ymax = common.bounds
    cols, rows = (v.ravel() for v in np.meshgrid(np.linspace(xmin, xmax, 3), np.linspace(ymin, ymax, 3)))
    x, y = apply(Affine(*info.transform), cols, rows)
    best = transformer.transform(x, y)
    used = rasterio.warp.transform(warped[1].to_wkt(), target_crs.to_wkt(), x + warped[0], y)
    delta = np.asarray(best) - np.asarray(used)[:2]
    off = np.hypot(*apply_linear(~target.affine, delta[0], delta[1])).max()
    if not off <= _AGREEMENT_PX:
        raise GridError(f"{info.path}: {_doubt(source_crs, target_crs)} (two candidates differ by {off:.2f} pixels)")
