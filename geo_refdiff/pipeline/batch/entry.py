"""A raster that may be chosen: its files, its footprint and its date."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from geo_refdiff.engine.tags import PLAN_TAG
from geo_refdiff.errors import InputError
from geo_refdiff.io.gdal import GDAL_ERRORS, gdal_env, one_line
from geo_refdiff.pipeline.dates import Span, span_in_name, span_of

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


def gdal_name(location: str, base: Path | None = None) -> str:
    """A location as GDAL reads it: URLs by /vsicurl, buckets by their own drivers, other paths made absolute.

    Args:
        location: a path or URL.
        base: folder that relative paths start from; default the working directory.
    """
    if location.startswith("/vsi"):
        return location
    scheme, found, rest = location.partition("://")
    if found:
        if scheme.lower() == "file":
            return "/" + rest.lstrip("/")
        if scheme.lower() not in _SCHEMES:
            raise InputError(f"{location}: cannot be read by GDAL; give http(s)://, s3://, gs://, az:// or a path")
        return _SCHEMES[scheme.lower()] + rest
    path = Path(location).expanduser()
    return str((path if path.is_absolute() else (base or Path.cwd()) / path).absolute())


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

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(tried, files))
    if unusable is not None:
        unusable.extend(text for text in found if isinstance(text, str))
    return [entry for entry in found if isinstance(entry, Entry)]


def _open(file: str, made: list[str] | None = None) -> Entry | None:
    import rasterio

    from geo_refdiff.io.stac import acquired, outline

    try:
        with gdal_env(), rasterio.open(file) as dataset:
            if made is not None and PLAN_TAG in dataset.tags():
                made.append(file)
                return None
            if not dataset.crs or dataset.transform.is_identity:
                raise InputError(
                    f"{file}: is not georeferenced; give it a CRS and an affine (gdal_edit.py), or leave it out"
                )
            footprint = outline(dataset)
        taken = acquired(file)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{file}: cannot be opened as a raster ({one_line(error, 160)}); check it with gdalinfo"
        ) from error
    return Entry((file,), footprint, span_in_name(Path(file).stem) if taken is None else span_of(taken))
