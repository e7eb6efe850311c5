"""Vector layers as QGIS names them: FILE|layername=NAME, with a subset of their features."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geo_refdiff.errors import InputError
from geo_refdiff.raster.gdal import is_gdal_name

_SUBSET = re.compile(r"\|subset=(.*)\Z", re.IGNORECASE | re.DOTALL)
_WAY_OUT = "give FILE, FILE|layername=NAME, |layerid=NUMBER or |subset=CONDITION"


@dataclass(frozen=True, slots=True)
class LayerSource:
    """A vector file, and what of it is meant.

    Attributes:
        path: the file, or a GDAL name.
        layer: name or number of the layer; None: not said.
        subset: SQL condition that features must meet, "" if all are meant.
        only_polygons: whether features of other kinds are left out.
    """

    path: str
    layer: str | int | None = None
    subset: str = ""
    only_polygons: bool = False

    @property
    def exists(self) -> bool:
        """Whether there is such a file; what only GDAL can look up counts as there."""
        return is_gdal_name(self.path) or Path(self.path).exists()

    @property
    def options(self) -> dict[str, Any]:
        """What pyogrio is told beside the path."""
        return {"layer": self.layer, "where": self.subset or None}

    @property
    def absolute(self) -> LayerSource:
        """With the absolute path of a file."""
        return self if is_gdal_name(self.path) else replace(self, path=str(Path(self.path).expanduser().absolute()))

    def __str__(self) -> str:
        kind = "layerid" if isinstance(self.layer, int) else "layername"
        layer = "" if self.layer is None else f"|{kind}={self.layer}"
        return f"{self.path}{layer}{f'|subset={self.subset}' if self.subset else ''}"


def layer_source(text: str | Path) -> LayerSource:
    """What a text names: a file, or a layer of it as QGIS writes it.

    Args:
        text: FILE, followed by any of |layername=NAME, |layerid=NUMBER (from 0), |geometrytype=Polygon and, last,
            |subset=CONDITION. A file whose own name looks so is taken as it is.

    Raises:
        InputError: one line: another part, or one that makes no sense.

    Source: QgsOgrProviderMetadata::decodeUri of QGIS.
    """
    name = str(text)
    if "|" not in name or Path(name).exists():
        return LayerSource(name)
    found = _SUBSET.search(name)
    path, *parts = (name if found is None else name[: found.start()]).split("|")
    layer: str | int | None = None
    only_polygons = False
    for part in parts:
        key, _, value = part.partition("=")
        kind = key.lower()
        if kind == "layername" and value:
            layer = value
        elif kind == "layerid" and value.isdecimal():
            layer = int(value) if layer is None else layer
        elif kind == "geometrytype" and "polygon" in value.lower():
            only_polygons = True
        elif kind != "uniquegeometrytype":
            raise InputError(f"{path}: '|{part}' is not understood; {_WAY_OUT}")
    return LayerSource(path, layer, "" if found is None else found[1].strip(), only_polygons)
