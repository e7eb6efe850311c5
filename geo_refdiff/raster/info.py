"""What is known about a raster file without reading its pixels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isnan
from typing import Any, Literal

Role = Literal["scene", "reference", "mask"]
Validity = Literal["nodata", "nan", "alpha", "mask", "none"]


@dataclass(frozen=True)
class RasterInfo:
    """A raster that can be used: georeferenced by an affine, real-valued, readable.

    Attributes:
        path: absolute path, or a GDAL name (/vsi..., URL).
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; NaN and infinite nodata become text, since JSON has no such numbers."""
        data = asdict(self)
        for key, value in data.items():
            if isinstance(value, tuple):
                data[key] = list(value)
        if self.nodata is not None and (isnan(self.nodata) or self.nodata in (float("inf"), float("-inf"))):
            data["nodata"] = str(self.nodata)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RasterInfo:
        """The inverse of `to_dict`, after a round trip through JSON."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        if values["nodata"] is not None:
            values["nodata"] = float(values["nodata"])
        return cls(**values)
