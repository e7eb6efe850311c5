"""Landsat 4 to 9, Collection 2, Level 1 and 2: folders and tars with their MTL file.

The reflective bands of 30 m; digital numbers become reflectance by the MTL's `REFLECTANCE_MULT_BAND_n` and
`REFLECTANCE_ADD_BAND_n` (Level 2: 2.75e-05 and -0.2; Level 1: at the top of the atmosphere, not divided by the sine of
the sun's elevation). 0 is nodata.

Sources: Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619); Level 1 Data Format Control Book
(LSDS-1822).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from geo_refdiff.errors import InputError
from geo_refdiff.products.files import Files, number, parsed_json, parsed_xml
from geo_refdiff.products.record import Band, Product, Quality

OLI = {1: "coastal", 2: "blue", 3: "green", 4: "red", 5: "nir08", 6: "swir16", 7: "swir22"}
"""Reflective bands of Landsat 8 and 9, by number."""

TM = {1: "blue", 2: "green", 3: "red", 4: "nir08", 5: "swir16", 7: "swir22"}
"""Those of Landsat 4 to 7."""

_METADATA = r"(?P<stem>L[A-Z]0\d_\w+)_MTL\.(?P<kind>json|txt|xml)"
_LEVELS = {
    "L1TP": "LEVEL1_RADIOMETRIC_RESCALING",
    "L1GT": "LEVEL1_RADIOMETRIC_RESCALING",
    "L1GS": "LEVEL1_RADIOMETRIC_RESCALING",
    "L2SP": "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",
    "L2SR": "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS",
}
"""Processing level -> the group of the MTL that holds its scales."""

_Groups = Mapping[str, Mapping[str, str]]


def read_landsat(files: Files) -> Product | None:
    """The product in a folder or tar; None where there is none.

    Raises:
        InputError: incomplete or damaged metadata, files that are missing, another collection.
    """
    matches = files.matching(_METADATA)
    if not matches:
        if files.matching(r"L[COTEM]0\d_L[12]\w{2}_\d{6}_\d{8}_\d{8}_02_\w{2}_.*B\d+\.TIF"):
            raise InputError(f"{files.path}: has no MTL file (..._MTL.json, .txt or .xml); fetch the product again")
        return None
    stems = sorted({match["stem"] for match in matches})
    if len(stems) > 1:
        raise InputError(f"{files.path}: holds {len(stems)} products ({', '.join(stems[:3])}); give one of them")
    name = matches[0][0]
    where = f"{files.path}/{name}"
    groups = _groups(where, files.text(name), matches[0]["kind"])
    contents, image = _group(where, groups, "PRODUCT_CONTENTS"), _group(where, groups, "IMAGE_ATTRIBUTES")
    if contents.get("COLLECTION_NUMBER", "").lstrip("0") != "2":
        raise InputError(f"{where}: is of Collection {contents.get('COLLECTION_NUMBER')}; give Collection 2")
    level = contents.get("PROCESSING_LEVEL", "")
    if level not in _LEVELS:
        raise InputError(f"{where}: processing level '{level}' is not supported; give one of {', '.join(_LEVELS)}")
    scales = _group(where, groups, _LEVELS[level])
    platform = re.fullmatch(r"LANDSAT_([4-9])", image.get("SPACECRAFT_ID", ""))
    if platform is None:
        raise InputError(f"{where}: SPACECRAFT_ID '{image.get('SPACECRAFT_ID')}' is none of Landsat 4 to 9")
    bands, used = [], [name]
    for band, common_name in (OLI if int(platform[1]) >= 8 else TM).items():
        file = _file(files, where, contents, f"FILE_NAME_BAND_{band}")
        used.append(file)
        gain, offset = (
            number(where, key, scales.get(key), float)
            for key in (f"REFLECTANCE_MULT_BAND_{band}", f"REFLECTANCE_ADD_BAND_{band}")
        )
        label = f"SR_B{band}" if level.startswith("L2") else f"B{band}"
        bands.append(Band(label, common_name, files.gdal(file), 1, gain, offset))
    quality = None
    if "FILE_NAME_QUALITY_L1_PIXEL" in contents:
        file = _file(files, where, contents, "FILE_NAME_QUALITY_L1_PIXEL")
        used.append(file)
        quality = Quality("qa_pixel", files.gdal(file))
    size, mtime = files.stamp(used)
    return Product(
        str(files.path), "Landsat", contents.get("LANDSAT_PRODUCT_ID", stems[0]),
        f"Landsat-{platform[1]} {level}", _taken(where, image), tuple(bands), (), 0.0, quality, size, mtime,
    )  # fmt: skip


def _file(files: Files, where: str, contents: Mapping[str, str], key: str) -> str:
    name = contents.get(key)
    if name is None:
        raise InputError(f"{where}: does not name a file for {key}; fetch the product again")
    if not files.has(name):
        raise InputError(f"{files.path}: {name} is missing ({key}); fetch the product again")
    return name


def _taken(where: str, image: Mapping[str, str]) -> str:
    """Day and time in UTC, to the second."""
    day, time = image.get("DATE_ACQUIRED", ""), image.get("SCENE_CENTER_TIME", "")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
        raise InputError(f"{where}: DATE_ACQUIRED '{day}' is no date; fetch the product again")
    clock = re.match(r"\d\d:\d\d:\d\d", time)
    return f"{day}T{clock[0]}Z" if clock else day


def _group(where: str, groups: _Groups, name: str) -> Mapping[str, str]:
    if name not in groups:
        raise InputError(f"{where}: has no group {name}; it is of another collection or cut short")
    return groups[name]


def _groups(where: str, text: str, kind: str) -> _Groups:
    """The MTL's groups, each with its values as text."""
    if kind == "txt":
        return _text_groups(text)
    if kind == "xml":
        return {group.tag: {e.tag: (e.text or "").strip() for e in group} for group in parsed_xml(where, text)}
    data: Any = next(iter(parsed_json(where, text).values()), None)
    groups = data.items() if isinstance(data, dict) else ()
    return {name: {k: str(v) for k, v in group.items()} for name, group in groups if isinstance(group, dict)}


def _text_groups(text: str) -> _Groups:
    groups: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            current = groups.setdefault(value, {})
        elif equals and key != "END_GROUP":
            current[key] = value.strip('"')
    return groups
