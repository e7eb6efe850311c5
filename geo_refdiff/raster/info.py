"""What is known about a raster file without reading its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["scene", "reference", "mask"]
Validity = Literal["nodata", "nan", "alpha", "mask", "none"]


@dataclass(frozen=True)
class RasterInfo:
    """A raster that can be used: georeferenced by an affine, real-valued, readable.

    Attributes:
        path: absolute path, or a GDAL name (/vsi..., URL); of a product its folder, archive or STAC item.
        width, height: pixels.
        count: bands in the file, an alpha band included.
        dtype: numpy name of the data bands' type.
        crs_wkt: CRS as WKT.
        transform: pixel (col, row) to CRS units, (a, b, c, d, e, f): x = a col + b row + c.
        nodata: the first data band's nodata value.
        descriptions, scales, offsets, units, colorinterp: one for each band of the file.
        validity: where missing pixels are told: a nodata value, NaN (float data without a nodata value, or with
            NaN as such), an alpha band, a mask band, or nowhere.
        data_bands: 1-based indices of the bands that are not alpha.
        size_bytes, mtime_ns: size and time of last change (of a VRT: together with its sources); 0 if unknown.
        vrt: XML of the GDAL VRT that a product is read through; None: `path` itself is opened.
    """

    path: str
    width: int
    height: int
    count: int
    dtype: str
    crs_wkt: str
    transform: tuple[float, float, float, float, float, float]
    nodata: float | None
    descriptions: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str | None, ...]
    colorinterp: tuple[str, ...]
    validity: Validity
    data_bands: tuple[int, ...]
    size_bytes: int
    mtime_ns: int
    vrt: str | None = None

    @property
    def source(self) -> str:
        """What GDAL opens."""
        return self.path if self.vrt is None else self.vrt
