"""The index of a folder tree: every two dates of a place are paired, registered, and fitted radiometrically once."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.warp

from geo_refdiff.data.dataset import Problems, check_on_error
from geo_refdiff.data.index import Box, IndexRow, check_names, check_suffix, is_in, write_index
from geo_refdiff.data.matching import match
from geo_refdiff.data.pair_files import OpenPair, PairFiles, ReadOptions, Shared, named_bands, sample_windows
from geo_refdiff.errors import GeoRefDiffError, InputError, OptionError
from geo_refdiff.raster.files import check_free
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader

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
    """Find the dates of every place under a folder; places and dates are sorted.

    Args:
        folder: searched with all folders in it for GeoTIFF, VRT, JPEG 2000 and IMG files.
        pattern: path below the folder without suffix, e.g. "<city>/<place>/<year>" or "<place>_<date>"; <date> or
            <year> is the date, <split> the split, all other fields together the place. None: files of one folder
            are the dates of one place.

    Raises:
        InputError: no such folder, or no file that matches.
        OptionError: a pattern without a date.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one that holds a folder of dates for each place")
    fits = None if pattern is None else _template(pattern)
    places: dict[str, dict[str, DatedFile]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()):
        relative = path.relative_to(folder)
        if fits is None:
            dated = DatedFile(path, "/".join(relative.parts[:-1]) or folder.resolve().name, path.stem)
        else:
            match = fits.fullmatch(relative.with_suffix("").as_posix())
            if match is None:
                continue
            dated = _dated(path, match.groupdict(), folder.resolve().name)
        twin = places.setdefault(dated.place, {}).setdefault(dated.date, dated)
        if twin is not dated:
            raise InputError(
                f"{path} and {twin.path} are both {dated.place} {dated.date}; give a --pattern that parts them"
            )
    if not places:
        wanted = f" that is called like {pattern}" if pattern else ""
        raise InputError(f"{folder}: holds no {', '.join(SUFFIXES)} file{wanted}; give another folder or --pattern")
    return {place: [dates[date] for date in sorted(dates)] for place, dates in sorted(places.items())}


def _dated(path: Path, fields: Mapping[str, str], fallback: str) -> DatedFile:
    date = next(fields[key] for key in _DATES if key in fields)
    place = "/".join(value for key, value in fields.items() if key not in (*_DATES, "split"))
    return DatedFile(path, place or fallback, date, fields.get("split", ""))


def _template(pattern: str) -> re.Pattern[str]:
    names = _FIELD.findall(pattern)
    if len(set(names) & set(_DATES)) != 1 or len(set(names)) < len(names):
        raise OptionError(f"pattern '{pattern}': give <date> or <year> once, e.g. '<city>/<place>/<year>'")
    parts = _FIELD.split(pattern)
    fields = [f"(?P<{p}>[^/]+{'?' if p in _DATES else ''})" if i % 2 else re.escape(p) for i, p in enumerate(parts)]
    return re.compile("".join(fields))  # the date is as short as can be: <place>_<date> parts at the last "_"


NO_SHIFT = "no clear shift was found"
_QUANTILES = (0.002, 0.998)
_MIN_COMMON = 0.05
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class MadeIndex:
    """An index as written; `str` gives a summary.

    Attributes:
        path: of the file.
        rows: see `IndexRow`.
        footprints: (west, south, east, north) of each row's new date, degrees.
        problems: pairs that were left out or flagged as not valid.
    """

    path: Path
    rows: list[IndexRow] = field(default_factory=list)
    footprints: list[Box] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready summary."""
        left_out = [{"name": problem.name, "reason": problem.reason} for problem in self.problems]
        return {
            "index": str(self.path),
            "pairs": len(self.rows),
            "places": len({row.place for row in self.rows}),
            "valid": sum(row.valid for row in self.rows),
            "unregistered": self._unregistered,
            "left_out": left_out,
        }

    def __str__(self) -> str:
        places = len({row.place for row in self.rows})
        valid = [row for row in self.rows if row.valid]
        lines = [f"{self.path}: {len(self.rows)} ordered pairs of {places} places; {self.problems}"]
        if valid:
            shifts = np.hypot([row.shift_rows for row in valid], [row.shift_cols for row in valid])
            lines.append(
                f"shift between dates: median {np.median(shifts):.2f}, 90 % {np.quantile(shifts, 0.9):.2f} output px; "
                f"none found for {self._unregistered}"
            )
        return "\n".join(lines)

    @property
    def _unregistered(self) -> int:
        return sum(row.valid and row.note == NO_SHIFT for row in self.rows)


def make_index(
    folder: str | Path,
    out: str | Path,
    *,
    root: str | Path | None = None,
    pattern: str | None = None,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    split: str = "",
    register: bool = True,
    on_error: str = "skip",
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> MadeIndex:
    """Write the index of all ordered pairs of dates of every place under a folder.

    Args:
        folder, pattern: see `tree.find_dates`.
        out: .csv, .parquet, .geoparquet or .gpkg.
        root: the rows' paths are relative to it; None = the folder of `out`.
        only, exclude: places, or parts of their names, to take alone or to leave out.
        split: of the rows where the pattern gives none.
        register: whether to look for a shift between the dates.
        on_error: "skip" leaves out pairs of missing or unreadable files and lists them, "stop" raises.
        overwrite: replace an existing index.
        progress: called with (pairs done, pairs in all).

    Raises:
        InputError: nothing to pair.
        OptionError: a name in `only` or `exclude` that matches no place, or an unknown format.
        OutputError: the index exists or cannot be written.
        ReadError: with on_error "stop".
    """
    folder, out, skip = Path(folder).resolve(), Path(out), check_on_error(on_error)
    check_suffix(out)
    check_free(out, overwrite)
    home = (out.parent if root is None else Path(root)).resolve()
    places = find_dates(folder, pattern)
    check_names("--only", only, places)
    check_names("--exclude", exclude, places)
    wanted = {p: d for p, d in places.items() if (not only or is_in(p, only)) and not is_in(p, exclude)}
    todo = [(place, new, ref) for place, dates in wanted.items() for new, ref in itertools.permutations(dates, 2)]
    if not todo:
        raise InputError(
            f"{folder}: {len(wanted)} places, none with two dates; give --pattern (e.g. '<place>/<date>') so that "
            f"dates of a place come together"
        )
    made = MadeIndex(out, problems=Problems(total=len(todo)))
    shared = Shared()
    with gdal_env():
        for done, (place, new, ref) in enumerate(todo):
            progress(done, len(todo))
            row = _row(place, new, ref, home, split)
            try:
                row, info = _matched(row, home, register, shared)
            except GeoRefDiffError as error:
                made.problems.add(row.name, str(error), skip)
                continue
            if not row.valid:
                made.problems.flag(row.name, row.note)
            made.rows.append(row)
            made.footprints.append(_footprint(info))
    progress(len(todo), len(todo))
    if not made.rows:
        raise InputError(f"{folder}: no pair can be used; the first: {next(iter(made.problems)).reason}")
    write_index(out, made.rows, made.footprints)
    return made


def _row(place: str, new: DatedFile, ref: DatedFile, root: Path, split: str) -> IndexRow:
    paths = [Path(os.path.relpath(file.path, root)).as_posix() for file in (new, ref)]
    name = f"{place} {ref.date}->{new.date}"
    return IndexRow(
        name, paths[0], paths[1], split=new.split or split, place=place, new_date=new.date, ref_date=ref.date
    )


def _matched(row: IndexRow, root: Path, register: bool, shared: Shared) -> tuple[IndexRow, RasterInfo]:
    infos = [shared.look(root / path, "reference") for path in (row.new, row.ref)]
    bands = tuple(name for name in named_bands(infos[0]) if name in named_bands(infos[1]))
    if len(bands) < len(named_bands(infos[0])):
        have = [", ".join(named_bands(info)) for info in infos]
        raise InputError(f"the bands of the two dates differ ({have[0]}; {have[1]}); name them alike")
    if any(info.dtype != "uint8" for info in infos):
        low, high = _range(infos)
        row = replace(row, low=low, high=high)
    opened = PairFiles(row, root, ReadOptions(bands, pseudo_classes=False), shared).open()
    try:
        return _fitted(row, opened, register), infos[0]
    finally:
        opened.close()


def _fitted(row: IndexRow, opened: OpenPair, register: bool) -> IndexRow:
    views, common, pixels = [], 0, 0
    for window in sample_windows(*opened.files.shape):
        new, new_valid = opened.new(window)
        ref, ref_valid = opened.ref(window)
        both = int((new_valid & ref_valid).sum())
        common, pixels = common + both, pixels + window.area
        if both >= _MIN_COMMON * window.area:
            views.append((new, new_valid, ref, ref_valid))
    if not views:
        return replace(row, valid=False, note=f"only {common / pixels:.1%} of the pixels have data at both dates")
    matched = match(views, register)
    return replace(
        row,
        shift_rows=round(matched.shift[0], 3),
        shift_cols=round(matched.shift[1], 3),
        gain=matched.gain,
        offset=matched.offset,
        correlation=matched.correlation,
        note=NO_SHIFT if register and not matched.found else "",
    )


def _range(infos: Sequence[RasterInfo]) -> tuple[float, float]:
    """The values that become 0 and 255: the 0.2nd and the 99.8th percentile of both dates."""
    samples = []
    for info in infos:
        with RasterReader(info, info.data_bands) as reader:
            for window in sample_windows(info.height, info.width):
                values, valid = reader.read(window)
                samples.append(values[valid][:: max(1, values.size // 200_000)].astype(np.float64))
    seen = np.concatenate(samples)
    if seen.size == 0:
        raise InputError(f"{infos[0].path}: has no valid pixel where it was looked at; leave it out")
    low, high = (float(f"{q:.6g}") for q in np.quantile(seen, _QUANTILES))
    if not low < high:
        raise InputError(f"{infos[0].path}: holds {low:g} everywhere; leave it out")
    return low, high


def _footprint(info: RasterInfo) -> Box:
    corners = rasterio.transform.array_bounds(info.height, info.width, rasterio.Affine(*info.transform))
    west, south, east, north = rasterio.warp.transform_bounds(info.crs_wkt, "EPSG:4326", *corners)
    return float(west), float(south), float(east), float(north)
