"""A raster that may be chosen: its files, its footprint and its date."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from geo_refdiff.engine.tags import PLAN_TAG
from geo_refdiff.errors import InputError
from geo_refdiff.raster.dates import Span, span_in_name, span_of
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env, gdal_threads, is_gdal_name, one_line
from geo_refdiff.raster.globe import on_the_globe
from geo_refdiff.raster.vector import LONLAT, sound_polygons

URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_SCHEMES = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """A raster that may be chosen.

    Attributes:
        files: path or GDAL name; several: one for each band.
        lonlat: footprint in degrees.
        span: when it was taken; None = unknown.
        bands: names of the bands where `files` are several.
    """

    files: tuple[str, ...]
    lonlat: BaseGeometry
    span: Span | None = None
    bands: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For people."""
        return Path(self.files[0]).name


def footprint(where: str, shape: BaseGeometry) -> BaseGeometry:
    """The polygons of an outline in degrees, valid, cut at the 180th meridian; possibly none.

    Args:
        where: it stands, for the message.
        shape: the outline.

    Raises:
        InputError: it has coordinates that are no numbers.
    """
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise InputError(f"{where}: the footprint has points that cannot be told in degrees; correct it")
    plain = shape.geom_type == "Polygon" and shape.is_valid and not shape.has_z and on_the_globe(shape) is shape
    return shape if plain else sound_polygons(shape, LONLAT)


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


def opened(files: Sequence[str], unusable: list[str] | None = None, made: list[str] | None = None) -> list[Entry]:
    """Entries from the rasters themselves, in their order.

    Args:
        files: GDAL names.
        unusable: gets a line for each that cannot be used; None: such a file is an error.
        made: gets those that a run has made, which are left out then; None: they count as others do.

    Raises:
        InputError: one that cannot be opened or is not georeferenced.
    """

    def tried(file: str) -> Entry | str | None:
        try:
            return _open(file, made)
        except InputError as error:
            if unusable is None:
                raise
            return str(error)

    with gdal_threads(_THREADS, "catalogue") as pool:
        found = list(pool.map(tried, files))
    if unusable is not None:
        unusable.extend(text for text in found if isinstance(text, str))
    return [entry for entry in found if isinstance(entry, Entry)]


def _open(file: str, made: list[str] | None = None) -> Entry | None:
    import rasterio

    from geo_refdiff.raster.stac import acquired, outline

    try:
        with gdal_env(), rasterio.open(file) as dataset:
            if made is not None and PLAN_TAG in dataset.tags():
                made.append(file)
                return None
            if not dataset.crs or dataset.transform.is_identity:
                raise InputError(
                    f"{file}: is not georeferenced; give it a CRS and an affine (gdal_edit.py), or leave it out"
                )
            ground = footprint(file, outline(dataset))
        taken = acquired(file)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{file}: cannot be opened as a raster ({one_line(error, 160)}); check it with gdalinfo"
        ) from error
    return Entry((file,), ground, span_in_name(Path(file).stem) if taken is None else span_of(taken))
