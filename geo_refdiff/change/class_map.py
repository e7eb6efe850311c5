"""Class maps: from values, colours or names in a mask to the classes of a model; from JSON, CSV or category names."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp

from geo_refdiff.classes import SECOND_COLOURS, class_index
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.raster.gdal import GDAL_ERRORS

Key = int | tuple[int, int, int] | str
"""A value, a colour (red, green, blue), or a text in lower case."""

_HEX = re.compile(r"#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})")
_TRIPLE = re.compile(r"\(?\s*(\d+)\s*[,; ]\s*(\d+)\s*[,; ]\s*(\d+)\s*\)?")
_HEADERS = {"value", "class", "colour", "color", "red", "name", "from", "to"}


def list_classes(classes: Sequence[str]) -> str:
    """The classes by number and name, for messages."""
    return ", ".join(f"{i} {name}" for i, name in enumerate(classes)) or "0 to 254"


def as_key(value: Any) -> Key:
    """A value as a class map's key: a whole number, a colour ("#rrggbb", "r,g,b", [r, g, b]) or a text."""
    if isinstance(value, list | tuple) and len(value) == 3:
        return (int(value[0]), int(value[1]), int(value[2]))
    if isinstance(value, int | float) and value == int(value):
        return int(value)
    text = str(value).strip().casefold()
    if re.fullmatch(r"[-+]?\d+(\.0*)?", text):
        return int(float(text))
    triple = _TRIPLE.fullmatch(text)
    if triple:
        return (int(triple[1]), int(triple[2]), int(triple[3]))
    six = _HEX.fullmatch(text) if text.startswith("#") else None
    return (int(six[1], 16), int(six[2], 16), int(six[3], 16)) if six else text


def read_class_map(path: str | Path, classes: Sequence[str]) -> dict[Key, int]:
    """A class map file: value, colour or name of the mask -> class index of the model, 255 = unknown.

    JSON: `{"10": "water", "#808080": "bare ground", "road": 5}`, or `{"classes": [{"value": 1, "name": "water",
    "colour": [0, 0, 255]}, ...]}`. CSV: rows `value,class`, `#rrggbb,class` or `red,green,blue,class`, with or
    without a header.

    Raises:
        InputError: it cannot be read, or is no class map.
        OptionError: a class that the model does not have; the message lists those it has.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the class map cannot be read ({error}); give a JSON or CSV file") from error
    try:
        pairs = list(_from_json(json.loads(text)) if text.lstrip().startswith(("{", "[")) else _from_csv(text))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f'{path}: is no class map ({error}); give JSON like {{"10": "water"}} or CSV rows like 10,water'
        ) from error
    mapped: dict[Key, int] = {}
    for key, name in pairs:
        index = class_index(str(name), classes)
        if index is None:
            raise OptionError(f"{path}: '{name}' is no class of the model; its classes are {list_classes(classes)}")
        mapped[key] = index
    if not mapped:
        raise InputError(f"{path}: the class map is empty; give JSON like {{'10': 'water'}} or CSV rows like 10,water")
    return mapped


def _from_json(data: Any) -> Iterator[tuple[Key, Any]]:
    if isinstance(data, dict) and not isinstance(data.get("classes"), list):
        for key, name in data.items():
            yield as_key(key), name
        return
    for entry in data["classes"] if isinstance(data, dict) else data:
        name = entry.get("class", entry.get("name"))
        if name is None:
            raise ValueError(f"{entry} names no class")
        for field in ("value", "colour", "color", "name"):
            if field in entry:
                yield as_key(entry[field]), name


def _from_csv(text: str) -> Iterator[tuple[Key, Any]]:
    dialect = "\t" if "\t" in text else ";" if ";" in text else ","
    for row in csv.reader(io.StringIO(text), delimiter=dialect):
        cells = [c.strip() for c in row]
        if not any(cells) or cells[0].startswith("# ") or {c.casefold() for c in cells} <= _HEADERS | {"green", "blue"}:
            continue
        if len(cells) not in (2, 4):
            raise ValueError(f"row {','.join(cells)} has {len(cells)} fields")
        yield as_key(cells[0] if len(cells) == 2 else cells[:3]), cells[-1]


def second_colours(classes: Sequence[str]) -> dict[Key, int]:
    """The class map of SECOND's label colours, as far as the model has such classes."""
    indices = {colour: class_index(name, classes) for colour, name in SECOND_COLOURS.items()}
    return {colour: index for colour, index in indices.items() if index is not None}


def category_names(path: str, band: int = 1) -> tuple[str, ...]:
    """A raster's category names of the values 0, 1, 2, ...; "" for a value without a name; empty where it has none."""
    copy = f"/vsimem/{uuid4().hex}.vrt"
    try:
        rasterio.shutil.copy(path, copy, driver="VRT")  # rasterio does not expose category names
        with rasterio.open(copy) as dataset:
            text = dataset.tags(ns="xml:VRT")["xml:VRT"]
        rasterio.shutil.delete(copy)
    except (*GDAL_ERRORS, KeyError):
        return ()
    element = ET.fromstring(text).find(f"VRTRasterBand[@band='{band}']/CategoryNames")
    names = [(c.text or "").strip() for c in element.findall("Category")] if element is not None else []
    return tuple(names) if any(names) else ()


def colour_table(path: str, band: int = 1) -> dict[int, tuple[int, int, int]]:
    """Value -> (red, green, blue) of a paletted raster; empty without a colour table."""
    with rasterio.open(path) as dataset:
        if dataset.colorinterp[band - 1] != ColorInterp.palette:
            return {}
        return {int(value): tuple(colour[:3]) for value, colour in dataset.colormap(band).items()}


def by_names(names: Iterable[str], classes: Sequence[str]) -> tuple[dict[Key, int], dict[int, str]]:
    """Category names -> (value -> class index; value -> name, for the names that are no class)."""
    mapped: dict[Key, int] = {}
    unmapped: dict[int, str] = {}
    for value, name in enumerate(names):
        index = class_index(name, classes) if name else None
        if index is not None:
            mapped[value] = index
        elif name:
            unmapped[value] = name
    return mapped, unmapped
