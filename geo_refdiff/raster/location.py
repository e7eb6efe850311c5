"""Locations of rasters and STAC files: paths, URLs and GDAL's names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urljoin

from geo_refdiff.errors import InputError
from geo_refdiff.raster.gdal import is_gdal_name

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Raster: TypeAlias = "str | os.PathLike[str] | DatasetReader"
"""A raster: its path, URL or GDAL name, or an open rasterio dataset, which stays open."""

URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEMES = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_PATIENCE = 60.0
"""Seconds that a server has for an answer."""


def text_of(name: str) -> str:
    """What a text file, a path or URL, holds.

    Raises:
        OSError, ValueError: it cannot be read, is no text.
    """
    if not URL.match(name):
        return Path(name).read_text(encoding="utf-8")
    from urllib.request import urlopen

    with urlopen(name, timeout=_PATIENCE) as answer:
        return str(answer.read().decode())


def name_of(raster: Raster) -> str:
    """The path, URL or GDAL name of a raster.

    Raises:
        InputError: a dataset that cannot be opened once more by its name, or nothing of the kind.
    """
    if isinstance(raster, str | os.PathLike):
        return os.fspath(raster)
    from rasterio.io import DatasetReader, DatasetWriter
    from rasterio.vrt import WarpedVRT

    if isinstance(raster, WarpedVRT):
        raise InputError("an open WarpedVRT has no name of its own; give what it warps, in whatever CRS that is")
    if isinstance(raster, DatasetWriter):
        raise InputError(f"{raster.name}: is open for writing; close it first, and give its path")
    if type(raster).__module__.startswith("xarray."):
        raise InputError("an array is no file: import geo_refdiff.xarray, and call array.refdiff.upscale(...)")
    if not isinstance(raster, DatasetReader):
        raise InputError(f"{type(raster).__name__}: is no raster; give a path, a URL or an open rasterio dataset")
    if raster.name.startswith("/vsimem/") and raster.closed:
        raise InputError(f"{raster.name}: is closed and was in memory alone; give it while it is open")
    return str(raster.name)


def gdal_name(location: str, base: Path | None = None) -> str:
    """A location as GDAL reads it: URLs by /vsicurl, buckets by their own drivers, other paths made absolute,
    also those within names as GTIFF_DIR:2:a.tif.

    Args:
        location: a path, URL or name that only GDAL can look up (see `is_gdal_name`).
        base: folder that relative paths start from; default the working directory.
    """
    folder = base or Path.cwd()
    if URL.match(location):
        scheme, _, rest = location.partition("://")
        if scheme.lower() == "file":
            return "/" + unquote(rest.removeprefix("localhost")).lstrip("/")
        if scheme.lower() not in _SCHEMES:
            raise InputError(f"{location}: cannot be read by GDAL; give http(s)://, s3://, gs://, az:// or a path")
        return _SCHEMES[scheme.lower()] + rest
    if is_gdal_name(location):
        return location if location.startswith("/vsi") else _absolute_inside(location, folder)
    path = Path(location).expanduser()
    return str((path if path.is_absolute() else folder / path).absolute())


def _absolute_inside(name: str, folder: Path) -> str:
    """PREFIX:...:file with the absolute path of the file, where there is one: workers may start elsewhere."""
    parts = re.split('([:"])', name)
    files = [k for k, part in enumerate(parts) if part and (folder / part).is_file()]
    if files:
        last = max(files, key=lambda k: len(parts[k]))
        parts[last] = str((folder / parts[last]).absolute())
    return "".join(parts)


def located(href: str, source: str) -> str:
    """What a link of a STAC file leads to: a URL, a GDAL name or a path.

    Args:
        href: absolute, or relative to the file; escapes such as %20 are undone in paths, where no file is called so.
        source: path or URL of the file.
    """
    if is_gdal_name(href) or (URL.match(source) and href.startswith("/")):
        return gdal_name(href) if href.lower().startswith("file:") else href
    if URL.match(source):
        return urljoin(source, href)
    path, plain = (Path(source).absolute().parent / name for name in (href, unquote(href)))
    return str(plain if plain.exists() and not path.exists() else path)
