"""Overlap of two rasters, with exact transformations between their CRSs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
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
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.geobox import apply, apply_linear, crs_wkt
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.window import Window

Coordinates = NDArray[np.float64]

_EDGE_POINTS = 33
_AGREEMENT_PX = 0.25


@dataclass(frozen=True)
class Overlap:
    """The overlap of a raster with a target grid.

    Attributes:
        fraction: part of the target's area that the raster's extent covers, in (0, 1].
        gsd: size of a source pixel along its columns and rows, target pixels, at the centre of the overlap.
        offset: (row, col) of the raster's corner in target pixels if the grids differ by whole pixels only, else None.
    """

    fraction: float
    gsd: tuple[float, float]
    offset: tuple[int, int] | None


def horizontal_crs(crs: Any) -> pyproj.CRS:
    """The horizontal part of a CRS."""
    parsed = pyproj.CRS.from_user_input(crs)
    if parsed.is_compound:
        parsed = parsed.sub_crs_list[0]
    return parsed.to_2d() if len(parsed.axis_info) > 2 else parsed


def unit_of(crs: Any) -> str:
    """The unit of a CRS along its first axis, in the plural: "metres", "degrees", "US survey feet"."""
    name = str(horizontal_crs(crs).axis_info[0].unit_name)
    return name.replace("foot", "feet") if "foot" in name else f"{name}s"


def find_overlap(info: RasterInfo, target: GeoBox) -> Overlap:
    """Overlap of a raster with a target grid.

    Raises:
        GridError: they do not overlap, or no exact transformation between their CRSs is available.
    """
    source_crs, target_crs = horizontal_crs(info.crs_wkt), horizontal_crs(crs_wkt(target))
    source_affine, target_affine = Affine(*info.transform), target.affine
    same = source_crs.equals(target_crs, ignore_axis_order=True)
    transformer = None if same else _transformer(info.path, target, source_crs, target_crs)

    def to_source(cols: Coordinates, rows: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Target pixel coordinates to source pixel coordinates."""
        x, y = apply(target_affine, cols, rows)
        if transformer is not None:
            x, y = transformer.transform(x, y, direction="INVERSE", errcheck=False)
        return apply(~source_affine, np.asarray(x), np.asarray(y))

    height, width = target.shape
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
        _check_agreement(info, target, source_crs, target_crs, common, transformer)
    along_cols, along_rows = np.linalg.norm(jacobian, axis=1)
    return Overlap(
        fraction=min(1.0, common.area / area),
        gsd=(float(1 / along_cols), float(1 / along_rows)),
        offset=_whole_offset(source_affine, target_affine, info) if same else None,
    )


def footprint(reference: RasterInfo, scene: RasterInfo) -> Window:
    """Window of the scene that the reference may cover; the whole scene if that is not known."""
    t = np.linspace(0, 1, _EDGE_POINTS)
    zero, one = np.zeros_like(t), np.ones_like(t)
    cols = np.concatenate([t, one, t, zero]) * reference.width
    rows = np.concatenate([zero, t, one, t]) * reference.height
    x, y = apply(Affine(*reference.transform), cols, rows)
    x, y = (np.asarray(v) for v in rasterio.warp.transform(reference.crs_wkt, scene.crs_wkt, x, y)[:2])
    cols, rows = apply(~Affine(*scene.transform), x, y)
    whole = Window(0, 0, scene.height, scene.width)
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
    t = np.linspace(0, 1, _EDGE_POINTS)[:-1]
    cols = np.concatenate([t, np.ones_like(t), 1 - t, np.zeros_like(t)]) * width
    rows = np.concatenate([np.zeros_like(t), t, np.ones_like(t), 1 - t]) * height
    x, y = to_source(cols, rows)
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "best transformation is not available": the agreement check decides
            group = TransformerGroup(
                source_crs,
                target_crs,
                always_xy=True,
                area_of_interest=_area_of_interest(target, target_crs),
                allow_ballpark=False,
            )
    except pyproj.exceptions.ProjError as error:
        raise GridError(f"{path}: {_doubt(source_crs, target_crs)} ({one_line(error, 120)})") from error
    if not group.transformers:
        raise GridError(f"{path}: {_doubt(source_crs, target_crs)}")
    return group.transformers[0]


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
) -> None:
    """Raise GridError if GDAL's own choice of transformation, by which it warps, is not the most accurate one."""
    xmin, ymin, xmax, ymax = common.bounds
    cols, rows = (v.ravel() for v in np.meshgrid(np.linspace(xmin, xmax, 3), np.linspace(ymin, ymax, 3)))
    x, y = apply(Affine(*info.transform), cols, rows)
    best = transformer.transform(x, y)
    used = rasterio.warp.transform(source_crs.to_wkt(), target_crs.to_wkt(), x, y)
    delta = np.asarray(best) - np.asarray(used)[:2]
    off = np.hypot(*apply_linear(~target.affine, delta[0], delta[1])).max()
    if not off <= _AGREEMENT_PX:
        raise GridError(f"{info.path}: {_doubt(source_crs, target_crs)} (two candidates differ by {off:.2f} pixels)")
