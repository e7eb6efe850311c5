"""What a DataArray says of its grid, bands and missing values, in the words of raster files."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import xarray
from affine import Affine
from numpy.typing import NDArray

from geo_refdiff.errors import InputError
from geo_refdiff.raster.geobox import apply, translated
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.vrt import GDAL_TYPES

BAND_DIMS = ("band", "bands", "variable", "channel", "wavelength")
"""What the dimension of bands may be called; any other beside y and x, such as time, is one of scenes."""

_EVEN = 1e-3
_SAME = 1e-5


@dataclass(frozen=True)
class Layers:
    """An array as images.

    Attributes:
        images: one or more (band, y, x) arrays.
        band: name of the dimension of bands; it is there even if the array had none.
        stack: name of the dimension along which the images lay, None if there was none.
    """

    images: tuple[xarray.DataArray, ...]
    band: Hashable
    stack: Hashable | None


def stacked(dataset: xarray.Dataset, what: str) -> xarray.DataArray:
    """The variables of a Dataset that have pixels as the bands of one array, by their names.

    Raises:
        InputError: none has, or they differ in dimensions, data type, CRS or nodata value.
    """
    try:
        pixels = {dataset.rio.y_dim, dataset.rio.x_dim}
    except Exception as error:  # rioxarray has its own for each case
        have = ", ".join(map(str, dataset.sizes))
        raise InputError(f"{what}: has dimensions {have}; name those of pixels y and x: ds.rename()") from error
    names = [name for name, variable in dataset.data_vars.items() if pixels <= set(variable.dims)]
    if not names:
        raise InputError(f"{what}: none of its variables ({', '.join(map(str, dataset.data_vars))}) has pixels")
    first = dataset[names[0]]
    for name in names[1:]:
        for kind, of in _TOLD.items():
            if of(dataset[name]) != of(first):
                raise InputError(
                    f"{what}: {kind} of '{name}' is {_shown(of(dataset[name]))}, of '{names[0]}' {_shown(of(first))}; "
                    f"make them alike, or choose variables: ds[['{names[0]}', ...]]"
                )
    taken = {d for name in names for d in (*dataset[name].dims, *dataset[name].coords)}
    band = next(name for name in BAND_DIMS if name not in first.dims)
    chosen: xarray.Dataset = dataset[names].drop_vars(band, errors="ignore") if band in taken else dataset[names]
    array: xarray.DataArray = chosen.to_dataarray(dim=band)
    array.attrs = {k: v for k, v in first.attrs.items() if k in _OF_ALL}
    if first.rio.nodata is not None:
        array = array.rio.write_nodata(first.rio.nodata)
    crs = dataset.rio.crs or first.rio.crs
    if crs and not array.rio.crs:
        array = array.rio.write_crs(crs)
    return array


def _same_value(array: xarray.DataArray) -> float | str | None:
    value = array.rio.nodata
    return None if value is None else "nan" if np.isnan(value) else float(value)


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


_TOLD: Mapping[str, Any] = {
    "the dimensions": lambda array: array.dims,
    "the data type": lambda array: array.dtype,
    "the nodata value": _same_value,
}

_OF_ALL = ("transform", "crs", "nodata", "_FillValue", "grid_mapping")


def layers(array: xarray.DataArray, what: str) -> Layers:
    """The images of an array of two to four dimensions in any order.

    Raises:
        InputError: no y and x, or more than one dimension beside those of bands and pixels.
    """
    y, x = _pixel_dims(array, what)
    rest = [d for d in array.dims if d not in (y, x)]
    bands = [d for d in rest if d in BAND_DIMS]
    stacks = [d for d in rest if d not in bands]
    if len(bands) > 1 or len(stacks) > 1:
        raise InputError(
            f"{what}: has dimensions {', '.join(map(str, array.dims))}; give y, x, at most one of bands "
            f"({', '.join(BAND_DIMS)}) and one more, e.g. time: choose with .isel()"
        )
    band = bands[0] if bands else "band"
    if not bands:
        array = array.drop_vars("band", errors="ignore").expand_dims(band)
    ordered = array.transpose(*stacks, band, y, x)
    if 0 in ordered.shape:
        raise InputError(f"{what}: is empty {dict(ordered.sizes)}; give an array with pixels")
    if not stacks:
        return Layers((ordered,), band, None)
    return Layers(tuple(ordered.isel({stacks[0]: i}) for i in range(ordered.sizes[stacks[0]])), band, stacks[0])


def array_info(image: xarray.DataArray, path: str, what: str) -> RasterInfo:
    """What `inspect` will say of the raster file with these pixels.

    Args:
        image: (band, y, x).
        path: of the file.
        what: for messages.

    Raises:
        InputError: no CRS, coordinates that are not evenly spaced, a type of pixels that GDAL does not know.
    """
    kind = np.dtype(np.uint8) if image.dtype == np.bool_ else image.dtype
    if kind.name not in GDAL_TYPES:
        raise InputError(f"{what}: holds {kind.name}; convert it, e.g. .astype('float32')")
    count, height, width = (int(n) for n in image.shape)
    nodata = _nodata(image, kind)
    missing = nodata is not None and not np.isnan(nodata)
    return RasterInfo(
        path=path,
        width=width,
        height=height,
        count=count,
        dtype=kind.name,
        crs_wkt=_crs_wkt(image, what),
        transform=cast(Any, tuple(float(v) for v in affine_of(image, what)[:6])),
        nodata=nodata,
        descriptions=band_names(image),
        scales=(1.0,) * count,
        offsets=(0.0,) * count,
        units=(None,) * count,
        colorinterp=("undefined",) * count,
        validity="nodata" if missing else "nan" if kind.kind == "f" else "none",
        data_bands=tuple(range(1, count + 1)),
        size_bytes=0,
        mtime_ns=0,
    )


def affine_of(image: xarray.DataArray, what: str) -> Affine:
    """Pixel (col, row) to CRS units, corner of the first pixel.

    The affine that the array carries (GeoTransform of rioxarray and odc-stac, `transform` of stackstac) is taken to the
    letter, moved by the whole pixels that were cut off since; stackstac's coordinates of upper left corners are
    distinguished from pixel centres by it. Without one, coordinates are pixel centres.

    Raises:
        InputError: coordinates that are missing or not evenly spaced.
    """
    y, x = image.dims[-2:]
    stated, corners = _stated(image)
    first = _first(image, x, y)
    if first is None:
        if stated is None:
            raise InputError(f"{what}: has no coordinates {x}, {y} and no affine; give one: da.rio.write_transform()")
        return stated
    if stated is not None and _steps(image, x, y, stated, what):
        cols, rows = apply(~stated, *(np.asarray([v]) for v in first))
        col, row = float(cols[0]), float(rows[0])
        for shift in (0.5, 0.0) if corners else (0.5,):
            cut = round(row - shift), round(col - shift)
            if max(abs(row - shift - cut[0]), abs(col - shift - cut[1])) < _EVEN:
                return translated(stated, *cut)
    (left, a), (top, e) = _line(image, x, what), _line(image, y, what)
    return Affine(a, 0.0, left - a / 2, 0.0, e, top - e / 2)


def band_names(image: xarray.DataArray) -> tuple[str | None, ...]:
    """What bands are called: common names (STAC) that are unique, names as coordinates, or rioxarray's long_name."""
    band = image.dims[0]
    count = image.sizes[band]
    names: list[str | None] = [None] * count
    long_name = image.attrs.get("long_name")
    if isinstance(long_name, str):
        long_name = (long_name,)
    if isinstance(long_name, tuple | list) and len(long_name) == count:
        names = [str(n) or None for n in long_name]
    if band in image.coords and image.coords[band].dtype.kind in "OUTS":
        names = [str(n) for n in image.coords[band].values]
    if "common_name" in image.coords and image.coords["common_name"].dims in ((band,), ()):
        common = [str(n) if isinstance(n, str) else "" for n in np.atleast_1d(image.coords["common_name"].values)]
        if len(common) == count:
            names = [c if c and common.count(c) == 1 else n for c, n in zip(common, names, strict=True)]
    return tuple(names)


def centres(affine: Affine, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(x, y) of pixel centres along the edges of a grid that is not rotated, CRS units."""
    a, _, c, _, e, f = (float(v) for v in affine[:6])
    x, y = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
    return np.asarray(a * (x + 0.5) + c), np.asarray(e * (y + 0.5) + f)


def _pixel_dims(array: xarray.DataArray, what: str) -> tuple[Hashable, Hashable]:
    try:
        return array.rio.y_dim, array.rio.x_dim
    except Exception as error:  # rioxarray has its own for each case
        have = ", ".join(map(str, array.dims))
        raise InputError(f"{what}: has dimensions {have}; name those of pixels y and x: da.rename()") from error


def _nodata(image: xarray.DataArray, kind: np.dtype[Any]) -> float | None:
    """The value of missing pixels, None where there is none that the type can hold."""
    value = image.rio.nodata
    if value is None or (kind.kind != "f" and (not np.isfinite(value) or float(value) != int(value))):
        return None
    if kind.kind != "f" and not np.iinfo(kind).min <= int(value) <= np.iinfo(kind).max:
        return None
    return float(value)


def _crs_wkt(image: xarray.DataArray, what: str) -> str:
    crs = image.rio.crs
    if not crs:
        raise InputError(f"{what}: has no CRS; assign the right one: da.rio.write_crs('EPSG:...')")
    return str(crs.to_wkt())


def _stated(image: xarray.DataArray) -> tuple[Affine | None, bool]:
    """The affine that the array carries, and whether its coordinates may be corners."""
    mapping: Mapping[Any, Any] = {}
    if image.rio.grid_mapping in image.coords:
        mapping = image.coords[image.rio.grid_mapping].attrs
    if "GeoTransform" in mapping:
        c, a, b, f, d, e = (float(v) for v in str(mapping["GeoTransform"]).split())
        return Affine(a, b, c, d, e, f), False
    stated = image.attrs.get("transform")
    if isinstance(stated, Affine | tuple | list) and len(tuple(stated)) >= 6:
        return Affine(*(float(v) for v in tuple(stated)[:6])), True
    return None, False


def _first(image: xarray.DataArray, x: Hashable, y: Hashable) -> tuple[float, float] | None:
    """(x, y) of the first pixel, None without coordinates."""
    names = (x, y) if x in image.coords and y in image.coords else ("xc", "yc")
    if not all(n in image.coords for n in names):
        return None
    left, top = (float(image.coords[n].values.flat[0]) for n in names)
    return left, top


def _steps(image: xarray.DataArray, x: Hashable, y: Hashable, affine: Affine, what: str) -> bool:
    """Whether the coordinates step as the affine says; always where they have two dimensions, or one pixel."""
    for name, pixel in ((x, affine.a), (y, affine.e)):
        if name in image.coords and image.sizes[name] > 1:
            step = _line(image, name, what)[1]
            if abs(step - pixel) > _SAME * abs(pixel):
                return False
    return True


def _line(image: xarray.DataArray, name: Hashable, what: str) -> tuple[float, float]:
    """First coordinate and step."""
    values = np.asarray(image.coords[name].values, dtype=np.float64)
    if values.size < 2:
        raise InputError(f"{what}: one pixel along {name} does not tell its size; give it: da.rio.write_transform()")
    step = float((values[-1] - values[0]) / (values.size - 1))
    off = np.abs(values - (values[0] + step * np.arange(values.size))).max()
    if not np.isfinite(values).all() or step == 0 or off > _EVEN * abs(step):
        raise InputError(f"{what}: its coordinates along {name} are not evenly spaced; resample it to a regular grid")
    return float(values[0]), step
