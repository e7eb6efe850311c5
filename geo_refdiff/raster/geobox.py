"""Georeferenced pixel grids, thin on odc-geo's GeoBox."""

from __future__ import annotations

from typing import Protocol

from affine import Affine
from odc.geo.geobox import GeoBox

from geo_refdiff.raster.affine import translated
from geo_refdiff.raster.window import Window


class Georeferenced(Protocol):
    """What a raster says about its grid."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def transform(self) -> tuple[float, ...]: ...
    @property
    def crs_wkt(self) -> str: ...


def scene_geobox(info: Georeferenced) -> GeoBox:
    """The grid of a raster: its shape (height, width), affine and CRS."""
    return GeoBox((info.height, info.width), Affine(*info.transform[:6]), info.crs_wkt)


def output_geobox(gbox: GeoBox, scale: int) -> GeoBox:
    """The grid with `scale` x `scale` pixels for each pixel of `gbox`: same corner, same extent, same CRS."""
    if scale < 1:
        raise ValueError(f"scale must be a whole number of 1 or more, got {scale}")
    height, width = gbox.shape
    a, b, c, d, e, f = gbox.affine[:6]
    affine = Affine(a / scale, b / scale, c, d / scale, e / scale, f)
    return GeoBox((height * scale, width * scale), affine, gbox.crs)


def coarse_geobox(gbox: GeoBox, scale: int) -> GeoBox:
    """The grid with one pixel for each whole `scale` x `scale` pixels of `gbox`: same corner, same CRS.

    Rows and columns of `gbox` that do not fill a pixel are left out.

    Raises:
        ValueError: `scale` below 1, or not one whole pixel.
    """
    height, width = (int(n) // scale if scale >= 1 else 0 for n in gbox.shape)
    if height < 1 or width < 1:
        raise ValueError(f"a grid of {gbox.shape[0]} x {gbox.shape[1]} pixels holds no pixel of the scale {scale}")
    a, b, c, d, e, f = gbox.affine[:6]
    affine = Affine(a * scale, b * scale, c, d * scale, e * scale, f)
    return GeoBox((height, width), affine, gbox.crs)


def crs_wkt(gbox: GeoBox) -> str:
    """The CRS of a georeferenced grid as WKT.

    Raises:
        ValueError: the grid has no CRS.
    """
    if gbox.crs is None:
        raise ValueError("the grid has no CRS")
    return str(gbox.crs.to_wkt())


def crop(gbox: GeoBox, window: Window) -> GeoBox:
    """The part of `gbox` under `window` (pixels of `gbox`; may reach outside, then the grid is extended)."""
    return GeoBox(window.shape, translated(gbox.affine, window.row, window.col), gbox.crs)
