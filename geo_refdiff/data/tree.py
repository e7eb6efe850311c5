"""Folder trees of dates: which files are dates of one place, by a template of their paths."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from geo_refdiff.errors import InputError, OptionError

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img")
_FIELD = re.compile(r"<([A-Za-z_]+)>")
_DATES = ("date", "year")


@dataclass(frozen=True, slots=True)
class DatedFile:
    """One date of one place."""

    path: Path
    place: str
    date: str
    split: str = ""


def find_dates(folder: Path, pattern: str | None = None) -> dict[str, list[DatedFile]]:
    """The dates of every place under a folder, places and dates in order.

    Args:
        folder: searched with all folders in it for GeoTIFF, VRT, JPEG 2000 and IMG files.
        pattern: path below the folder without suffix, e.g. "<city>/<place>/<year>" or "<place>_<date>"; <date> or
            <year> is the date, <split> the split, all other fields together the place. None: files of one folder
            are the dates of one place.

    Raises:
        InputError: no such folder, or nothing that fits.
        OptionError: a pattern without a date.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds a folder of dates for each place")
    fits = None if pattern is None else _template(pattern)
    places: dict[str, dict[str, DatedFile]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        relative = path.relative_to(folder)
        if fits is None:
            found = DatedFile(path, "/".join(relative.parts[:-1]) or folder.resolve().name, path.stem)
        else:
            match = fits.fullmatch(relative.with_suffix("").as_posix())
            if match is None:
                continue
            found = _dated(path, match.groupdict(), folder.resolve().name)
        twin = places.setdefault(found.place, {}).setdefault(found.date, found)
        if twin is not found:
            raise InputError(
                f"{path} and {twin.path} are both {found.place} {found.date}; give a --pattern that parts them"
            )
    if not places:
        wanted = f" that is called like {pattern}" if pattern else ""
        raise InputError(f"{folder}: holds no {', '.join(SUFFIXES)} file{wanted}; give another folder or --pattern")
    return {place: [dates[date] for date in sorted(dates)] for place, dates in sorted(places.items())}


def _dated(path: Path, found: Mapping[str, str], fallback: str) -> DatedFile:
    date = next(found[key] for key in _DATES if key in found)
    place = "/".join(value for key, value in found.items() if key not in (*_DATES, "split"))
    return DatedFile(path, place or fallback, date, found.get("split", ""))


def _template(pattern: str) -> re.Pattern[str]:
    names = _FIELD.findall(pattern)
    if len(set(names) & set(_DATES)) != 1 or len(set(names)) < len(names):
        raise OptionError(f"pattern '{pattern}': give <date> or <year> once, e.g. '<city>/<place>/<year>'")
    parts = _FIELD.split(pattern)
    fields = [f"(?P<{p}>[^/]+{'?' if p in _DATES else ''})" if i % 2 else re.escape(p) for i, p in enumerate(parts)]
    return re.compile("".join(fields))  # the date is as short as can be: <place>_<date> parts at the last "_"


def is_in(place: str, names: Iterable[str]) -> bool:
    """Whether a place is one of `names`, or lies in one of them: "chico/012" in "chico" and in "chico/012"."""
    return any(place == name or place.startswith(f"{name}/") or name in place.split("/") for name in names)


def check_names(option: str, names: Sequence[str], places: Iterable[str]) -> None:
    """A name that fits no place is a slip that would let held-out places into training.

    Raises:
        OptionError: names it and the nearest known ones.
    """
    known = sorted({part for place in places for part in (place, *place.split("/"))})
    for name in names:
        if not is_in_any(name, known):
            near = get_close_matches(name, known, 3) or known[:5]
            raise OptionError(f"{option} '{name}' fits no place; known are e.g. {', '.join(near) or 'none'}")


def is_in_any(name: str, places: Iterable[str]) -> bool:
    """Whether any of the places is `name` or lies in it."""
    return any(is_in(place, [name]) for place in places)
