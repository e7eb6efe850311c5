"""What every use of GDAL here shares: settings with bounded memory, and its errors in one line."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pyproj
import rasterio
import rasterio.crs
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from geo_refdiff.errors import InputError

CACHE_BYTES = 8 * 2**20
"""GDAL's block cache: fixed, so that memory does not grow with the scene (GDAL takes 5 % of the RAM else)."""
_REDUCING_CACHE_BYTES = 64 * 2**20

GDAL_ERRORS = (RasterioError, CPLE_BaseError, OSError, ValueError, SystemError)
"""What rasterio raises when GDAL refuses a file or fails on it; SystemError, where it failed in a thread of its own."""


_SUBDATASETS = (
    "netcdf|hdf4_sds|hdf4_eos|hdf4image|hdf5|hdf5image|gpkg|gtiff_dir|gtiff_raw|zarr|nitf_im|bag|grib|tiledb|heif|"
    "sentinel2_[a-z0-9_]+|derived_subdataset"
)
"""Drivers with subdatasets, which rasterio spells in lower case."""

_GDAL_NAME = re.compile(rf"^(/vsi|[A-Za-z][A-Za-z0-9+.-]*://|[A-Z0-9_]{{2,}}:|(?:{_SUBDATASETS}):)")


_REMOTE = re.compile(r"://|/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)")


def is_gdal_name(name: str) -> bool:
    """Whether a name is one that only GDAL can look up, not a path: /vsi..., a URL, or PREFIX:... of a driver."""
    return _GDAL_NAME.match(name) is not None


def is_remote(name: str) -> bool:
    """Whether a name leads GDAL to a server."""
    return _REMOTE.search(name) is not None


def unreadable(name: str) -> str:
    """What may be wrong with a raster that cannot be read, and the way out."""
    if is_remote(name):
        return "its server does not give it, or it is damaged: check address, access and gdalinfo"
    return "it is damaged or cut short: fetch it again"


def gdal_env(**options: Any) -> rasterio.Env:
    """A rasterio environment with a small fixed block cache, for the length of a run.

    Sources:
        https://gdal.org/en/stable/user/configoptions.html
    """
    settings: dict[str, Any] = {
        "GDAL_CACHEMAX": CACHE_BYTES,
        "GDAL_MAX_DATASET_POOL_SIZE": 16,  # open files of nested VRTs: each holds its own decoding buffers
        "GDAL_TIFF_INTERNAL_MASK": True,
        "GDAL_HTTP_CONNECTTIMEOUT": 10,
        "GDAL_HTTP_TIMEOUT": 60,
        "GDAL_HTTP_MAX_RETRY": 3,
        "GDAL_HTTP_RETRY_DELAY": 0.25,  # seconds, more than doubled each time: 2 in all; GDAL begins with 30
    }
    settings.update(options)
    return rasterio.Env(**settings)


def reducing_env() -> rasterio.Env:
    """The environment in which a raster is read in fewer pixels than it or its overview has.

    GDAL then takes one row of the result after the other, each from all blocks across, whose bands are decoded
    together: where a row of blocks does not fit into the cache, each is decoded again for every row of the result
    (four float32 bands of 928 x 720 pixels: 39 s of processor time instead of .04).
    """
    return gdal_env(GDAL_CACHEMAX=_REDUCING_CACHE_BYTES)


def gdal_threads(count: int, name: str) -> ThreadPoolExecutor:
    """A pool of threads that live in the environment of `gdal_env`, which is each thread's own."""
    return ThreadPoolExecutor(count, name, initializer=lambda: gdal_env().__enter__())


@cache
def check_proj() -> None:
    """Whether PROJ finds a database of coordinate systems that it can read.

    Raises:
        InputError: it does not; names the variable of the environment that leads it astray.
    """
    try:
        for code in (4326, 32633):
            rasterio.crs.CRS.from_epsg(code).to_wkt()
            pyproj.CRS.from_epsg(code)
    except (*GDAL_ERRORS, pyproj.exceptions.ProjError) as error:
        named = [f"{name}={os.environ[name]}" for name in ("PROJ_DATA", "PROJ_LIB") if name in os.environ]
        if not named:
            raise InputError(f"PROJ's database cannot be read ({one_line(error, 120)}); reinstall pyproj") from error
        raise InputError(
            f"{' and '.join(named)}: no database of coordinate systems that this program can read, likely another "
            f"program's; unset it: env -u {named[0].partition('=')[0]} geo-refdiff ..."
        ) from error


def one_line(error: BaseException, limit: int = 200) -> str:
    """What went wrong, on one line of at most `limit` characters: GDAL's own error where rasterio only points to it,
    and without the stack that torch's C++ adds."""
    text = str(error).partition("Exception raised from")[0]
    cause = error.__cause__ or error.__context__
    if cause is not None and ("previous exception" in text or not text):
        text = str(cause)
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
