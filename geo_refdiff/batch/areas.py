"""The areas of a batch: one polygon each, with a name that can be a file's."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pyproj
import shapely
from shapely.geometry.base import BaseGeometry

from geo_refdiff.errors import OptionError
from geo_refdiff.raster.vector import LONLAT, dense, layer_source, read_layer, sound_polygons

_NAME_FIELDS = ("name", "aoi", "id", "tile", "grid_id")
_LONGEST = 80
_MOST_BYTES = 160
"""Of a name in UTF-8; file systems allow 255, and products append to it."""
_MARKS = "._-"
RESERVED = frozenset({"manifest", "batch", "collection", "report", "items"})
"""Names that files of the batch itself have."""

_PRODUCTS = (".source", ".uncertainty")
"""Ends of names that maps beside another area's output may have."""


@dataclass(frozen=True, slots=True)
class Area:
    """An area of interest.

    Attributes:
        name: unique in its batch, fit for a file name.
        text: as `upscale --aoi` takes it: "CRS;WKT" in the file's own CRS.
        lonlat: polygon in degrees, to choose inputs by; empty where the feature has no polygon.
    """

    name: str
    text: str
    lonlat: BaseGeometry

    @property
    def sha256(self) -> str:
        """Of its outline."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_areas(source: str | Path, name_field: str | None = None) -> list[Area]:
    """The polygons of a vector file, one area a feature, in the file's order.

    Args:
        source: any file that geopandas reads, in any CRS; `FILE|layername=NAME` for one layer of several, and what else
            `layer_source` takes.
        name_field: field that names the areas; default one called "name", "aoi", "id", "tile" or "grid_id" whose values
            are all there and all different, else they are numbered.

    Raises:
        InputError: missing, unreadable, without features or without a CRS.
        OptionError: no such field.
    """
    text, meant = str(source), layer_source(source)
    frame = read_layer(meant)
    if meant.only_polygons:
        frame = frame[frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"])]
    names = _names(text, frame, name_field)
    crs = pyproj.CRS.from_user_input(frame.crs)
    own = [shapely.Polygon() if shape is None else sound_polygons(shape, crs) for shape in frame.geometry]
    degrees = own
    if not crs.equals(LONLAT, ignore_axis_order=True):
        import geopandas

        degrees = list(geopandas.GeoSeries([dense(shape, 16) for shape in own], crs=crs).to_crs(LONLAT))
    authority = crs.to_authority()
    label = ":".join(authority) if authority else " ".join(crs.to_wkt().split())
    return [
        Area(name, f"{label};{shapely.to_wkt(geometry, rounding_precision=-1)}", _finite(lonlat))
        for name, geometry, lonlat in zip(names, own, degrees, strict=True)
    ]


def _finite(geometry: BaseGeometry) -> BaseGeometry:
    if geometry.is_empty or not all(isfinite(v) for v in geometry.bounds):
        return shapely.Polygon()
    return sound_polygons(geometry, LONLAT)


def _names(source: str, frame: Any, field: str | None) -> list[str]:
    fields = [str(c) for c in frame.columns if c != frame.geometry.name]
    if field is not None:
        if field not in fields:
            raise OptionError(f"{source}: has no field '{field}'; its fields are {', '.join(fields) or 'none'}")
        return file_names([None if frame[field].isna().iloc[i] else _text(v) for i, v in enumerate(frame[field])])
    lower = {name.lower(): name for name in reversed(fields)}
    for columns in _NAME_FIELDS:
        if columns in lower:
            column = frame[lower[columns]]
            if not column.isna().any() and column.is_unique:
                return file_names([_text(v) for v in column])
    return file_names([None] * len(frame))


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def file_names(texts: Sequence[str | None]) -> list[str]:
    """A file name for each text, in its script, unique even where case does not count; numbered where there is none."""
    width = max(4, len(str(len(texts))))
    taken: Counter[str] = Counter()
    names = []
    for number, text in enumerate(texts, 1):
        plain = "".join(c if _is_fit(c) else " " for c in unicodedata.normalize("NFC", text or ""))
        short = "_".join(plain.split())[:_LONGEST].encode()[:_MOST_BYTES].decode(errors="ignore")
        name = short.lstrip(_MARKS).rstrip("._-") or f"aoi_{number:0{width}d}"
        while not name[0].isalnum():  # a mark without its letter
            name = name[1:].lstrip(_MARKS) or f"aoi_{number:0{width}d}"
        if name.lower() in RESERVED or name.lower().endswith(_PRODUCTS):
            name += "_aoi"
        stem, count = name, 1
        while taken[_as_one(name)]:
            count += 1
            name = f"{stem}_{count}"
        taken[_as_one(name)] += 1
        names.append(name)
    return names


def is_file_name(text: str) -> bool:
    """Whether a text can be what `file_names` gives."""
    return bool(text) and text[0].isalnum() and all(map(_is_fit, text))


def _is_fit(character: str) -> bool:
    """Letters, their marks and numbers of any script, and ._-."""
    return character in _MARKS or unicodedata.category(character)[0] in "LMN"


def _as_one(name: str) -> str:
    """The same for names that a file system may take for one another."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
