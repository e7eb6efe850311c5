"""What the bands of a raster measure, from their names.

They are understood as products, STAC (`eo:common_name`), Google Earth Engine, QGIS, Planet and GDAL's drivers write
them: "B04", "SR_B4", "red", "coastal_blue", "NIR_Narrow", "nir08", "Band 1: B04 (Gray)", "B4, central wavelength 665
nm".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geo_refdiff.raster.info import RasterInfo

UNNAMED = "band "
"""Begins what a band without a name is called."""

Sensor = Literal["msi", "oli", "tm", "msi or oli"]
"""Whose numbers of bands: of Sentinel-2, of Landsat 8 and 9, of Landsat 4 to 7, or of one of the first two."""

_MSI = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "rededge071", "6": "rededge075", "7": "rededge078",
    "8": "nir", "8a": "nir08", "9": "nir09", "10": "cirrus", "11": "swir16", "12": "swir22",
}  # fmt: skip
_OLI = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir08", "6": "swir16", "7": "swir22", "8": "pan",
    "9": "cirrus", "10": "lwir11", "11": "lwir12",
}  # fmt: skip
_TM = {"1": "blue", "2": "green", "3": "red", "4": "nir08", "5": "swir16", "6": "lwir", "7": "swir22", "8": "pan"}
_BY_NUMBER: dict[Sensor, dict[str, str]] = {
    "msi": _MSI, "oli": _OLI, "tm": _TM, "msi or oli": {number: _MSI[number] for number in ("2", "3", "4")}
}  # fmt: skip

_WORDS = {
    "r": "red", "g": "green", "b": "blue", "n": "nir", "ir": "nir", "near_infrared": "nir", "near_infra_red": "nir",
    "near_ir": "nir", "infrared": "nir", "nir1": "nir", "nir_1": "nir", "nir_broad": "nir", "nir_wide": "nir",
    "nir_narrow": "nir08", "narrow_nir": "nir08", "nir_08": "nir08", "near_infrared_narrow": "nir08",
    "rededge4": "nir08", "coastal_blue": "coastal", "coastal_aerosol": "coastal", "aerosol": "coastal",
    "aerosols": "coastal", "ultra_blue": "coastal", "deep_blue": "coastal", "green_i": "green05",
    "rededge1": "rededge071", "rededge2": "rededge075", "rededge3": "rededge078", "water_vapor": "nir09",
    "water_vapour": "nir09",
    "swir1": "swir16", "swir_1": "swir16", "swir_16": "swir16", "swir2": "swir22", "swir_2": "swir22",
    "swir_22": "swir22", "panchromatic": "pan",
}  # fmt: skip
_WORDS |= {name: name for numbers in _BY_NUMBER.values() for name in numbers.values()}
_WORDS |= {name: name for name in ("yellow", "rededge", "green05", "pan")}
_NOISE = {
    "band", "reflectance", "surface", "sr", "toa", "boa", "median", "mean", "min", "max", "channel", "visible", "vis",
    "s2", "l8", "l9", "image", "layer", "gray", "undefined", "first", "mosaic",
}  # fmt: skip

_NANOMETRES = (
    (400, 452, "coastal"), (452, 515, "blue"), (515, 590, "green"), (590, 625, "yellow"), (625, 690, "red"),
    (690, 725, "rededge071"), (725, 760, "rededge075"), (760, 795, "rededge078"), (795, 853, "nir"),
    (853, 900, "nir08"), (900, 1000, "nir09"), (1360, 1390, "cirrus"), (1540, 1750, "swir16"), (2050, 2350, "swir22"),
)  # fmt: skip
"""Centres of bands, from and up to."""

_LENGTH = re.compile(
    r"(\d+(?:\.\d+)?)(?:\s*(?:-|–|to)\s*(\d+(?:\.\d+)?))?\s*(nm|nanomet\w*|µm|um|micromet\w*|microns?)(?![a-z])"
)
_NUMBER = re.compile(r"(?<![a-z0-9])(?:(?P<group>s[rt])_)?(?:b|(?<=sr_)band)_?(?P<number>0?\d|1[0-2]|8a)(?![a-z0-9])")
_PLACE = re.compile(r"(?:(?:band|layer|channel|image)[_ ]?)?\d*(?:\s*\((?:gray|undefined)\))?")
"""A name that says no more than the band's place."""

_IN_NAME: tuple[tuple[Sensor, str], ...] = (
    ("msi", r"(?<![a-z0-9])(s2[a-d]?_|s2[a-d]?(?![a-z0-9])|msil[12]|sentinel[-_ ]?2|hls\.s30)"),
    ("oli", r"(?<![a-z0-9])(l[co]0?[89]_|l[co]0?[89](?![a-z0-9])|landsat[-_ ]?[89]|hls\.l30)"),
    ("tm", r"(?<![a-z0-9])(l[et]0?[457]_|l[et]0?[457](?![a-z0-9])|landsat[-_ ]?[4-7])"),
)
"""Of files of one sensor."""

COLOURS = ("red", "green", "blue", "nir")
"""What three or four bands without any names are taken for, in this order."""

_KNOWN = set(_WORDS.values())


@dataclass(frozen=True, slots=True)
class BandKeys:
    """Names to compare the data bands of a raster by.

    Attributes:
        keys: STAC's common name where a band's name is understood, else its name in lower case, else "band N".
        assumed: positions of bands that are taken for a colour by their place alone.
    """

    keys: tuple[str, ...]
    assumed: tuple[int, ...] = ()

    def place(self, key: str) -> int | None:
        """Position of the one band with this key; None where there is none, or several."""
        return self.keys.index(key) if self.keys.count(key) == 1 else None

    def is_named(self, position: int) -> bool:
        """Whether the band has a name of its own, understood or not."""
        return not self.keys[position].startswith(UNNAMED)

    def is_known(self, position: int) -> bool:
        """Whether it is understood what the band measures."""
        return self.keys[position] in _KNOWN


def band_name(info: RasterInfo, position: int) -> str:
    """What the band at a place among the data bands is called: its description, else its colour, else "band N"."""
    band = info.data_bands[position]
    text = info.descriptions[band - 1]
    if text:
        return text
    colour = info.colorinterp[band - 1]
    return colour if colour in COLOURS else f"{UNNAMED}{band}"


def band_keys(info: RasterInfo) -> BandKeys:
    """What the data bands of a raster measure.

    A near infrared band is called "nir" where it is the only one, of whatever width. Three bands that tell nothing are
    taken for red, green and blue, four for these and near infrared, also where only the fourth tells nothing.
    """
    texts = [(info.descriptions[band - 1] or "").strip().lower() for band in info.data_bands]
    sensor = _sensor(texts, Path(info.path).name.lower())
    names: list[str | None] = []
    for band, text in zip(info.data_bands, texts, strict=True):
        colour = info.colorinterp[band - 1]
        name = meaning(text, sensor) or (colour if _tells_nothing(text) and colour in COLOURS else None)
        names.append(name or (None if _PLACE.fullmatch(text) else text))
    if "nir" not in names and names.count("nir08") == 1:
        names[names.index("nir08")] = "nir"
    assumed: tuple[int, ...] = ()
    nothing = [place for place, key in enumerate(names) if key is None]
    if len(names) in (3, 4) and (len(nothing) == len(names) or (nothing == [3] and set(names[:3]) == set(COLOURS[:3]))):
        assumed = tuple(nothing)
        for place in assumed:
            names[place] = COLOURS[place]
    keys = [key or f"{UNNAMED}{band}" for band, key in zip(info.data_bands, names, strict=True)]
    return BandKeys(tuple(keys), assumed)


def instrument(info: RasterInfo) -> tuple[Sensor | None, str]:
    """Whose numbers the bands bear, and what tells it: "file name" or "band names"."""
    texts = [(info.descriptions[band - 1] or "").strip().lower() for band in info.data_bands]
    by_name = _sensor([], Path(info.path).name.lower())
    return (by_name, "file name") if by_name is not None else (_sensor(texts, ""), "band names")


def meaning(text: str, sensor: Sensor | None) -> str | None:
    """STAC's common name for a band's name; None where it is not understood.

    Args:
        text: the name.
        sensor: whose numbers it may hold; None: unknown, so that "B4" means nothing.
    """
    text = re.sub(r"^band\s*\d+\s*[:=-]\s*", "", text.strip().lower())  # as QGIS puts before a band's name
    length = _LENGTH.search(text)
    if length is not None:
        return _by_wavelength(*length.groups())
    words = re.sub(r"red_?edge_?", "rededge", re.sub(r"[^a-z0-9]+", "_", _NUMBER.sub(" ", text)).strip("_"))
    if words not in _WORDS:
        words = "_".join(word for word in words.split("_") if word not in _NOISE and not word.isdecimal())
    number = _NUMBER.search(text)
    if words in _WORDS or number is None or sensor is None:
        return _WORDS.get(words)
    return _BY_NUMBER[sensor].get(number["number"].lstrip("0"))


def _by_wavelength(first: str, last: str | None, unit: str) -> str | None:
    value = float(first) if last is None else (float(first) + float(last)) / 2
    nanometres = value if unit.startswith("n") else value * 1000
    return next((name for low, high, name in _NANOMETRES if low <= nanometres < high), None)


def _tells_nothing(text: str) -> bool:
    """Whether a name says nothing of what the band measures but a number, which may be of any sensor."""
    return _PLACE.fullmatch(text) is not None or _NUMBER.search(text) is not None


def _sensor(texts: Sequence[str], name: str) -> Sensor | None:
    """Whose numbers the bands bear: as the file's name says, else as the numbers together do.

    Numbers from 1 without an 8 may be those of Landsat 4 to 7, whose 4 is near infrared, or of others.
    """
    for sensor, pattern in _IN_NAME:
        if re.search(pattern, name):
            return sensor
    matches = [match for match in map(_NUMBER.search, texts) if match is not None]
    if not matches:
        return None
    numbers = {match["number"].lstrip("0") for match in matches}
    surface = {match["number"] for match in matches if match["group"] == "sr"}
    if surface:
        return _landsat(surface)
    if {"8", "8a", "12"} & numbers or any(match["number"].startswith("0") for match in matches):
        return "msi"
    return None if "1" in numbers else "msi or oli"


def _landsat(numbers: set[str]) -> Sensor | None:
    """Whose numbers those of Collection 2, Level 2 are: Landsat 4 to 7 have no reflectance of a band 6."""
    if "6" in numbers or "1" not in numbers:
        return "oli"
    return "tm" if "7" in numbers or max(numbers) == "4" else None
