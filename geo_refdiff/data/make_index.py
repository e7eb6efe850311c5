"""The index of a folder tree: every two dates of a place are paired, registered, and fitted radiometrically once."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.warp
from PIL import Image

from geo_refdiff.data.dataset import Problems
from geo_refdiff.data.index import Box, IndexRow, check_suffix, chosen_places, write_index
from geo_refdiff.data.matching import View, fit_views, median_shift
from geo_refdiff.data.pair_files import InfoCache, OpenPair, PairFiles, is_picture, named_bands, sample_windows
from geo_refdiff.data.published import PublishedDataset, is_published, published_splits
from geo_refdiff.errors import GeoRefDiffError, InputError, OptionError
from geo_refdiff.options import CountCallback, DatasetOptions, IndexOptions, ReadOptions, fields_of, takes_options
from geo_refdiff.raster.files import check_free, write_bytes_atomic
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
WriteMask = Callable[[], Path]


@dataclass(slots=True)
class MadeIndex:
    """An index as written; `str` gives a summary.

    Attributes:
        path: of the file.
        rows: see `IndexRow`.
        footprints: (west, south, east, north) of each row's new date, degrees; None = it is not georeferenced.
        problems: pairs that were left out or flagged as not valid.
    """

    path: Path
    rows: list[IndexRow] = field(default_factory=list)
    footprints: list[Box | None] = field(default_factory=list)
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


@takes_options(fields_of(IndexOptions))
def make_index(
    folder: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: CountCallback = lambda done, total: None,
    **options: Any,
) -> MadeIndex:
    """Write the index of all ordered pairs of dates of every place under a folder.

    Of SECOND and CNAM-CD as published (see `published`) the pairs of all splits are written; their change masks, as
    classes, go into a folder INDEX.masks.

    Args:
        folder: see `find_dates`.
        out: .csv, .parquet, .geoparquet or .gpkg.
        overwrite: replace an existing index.
        progress: called with (pairs done, pairs in all).
        options: as listed below.

    Raises:
        InputError: nothing to pair.
        OptionError: a name in `only` or `exclude` that matches no place, or an unknown format.
        OutputError: the index exists or cannot be written.
        ReadError: with on_error "stop".
    """
    folder, out, chosen = Path(folder).resolve(), Path(out), IndexOptions(**options)
    check_suffix(out)
    check_free(out, overwrite)
    root = (out.parent if chosen.root is None else Path(chosen.root)).resolve()
    made = MadeIndex(out)
    published = is_published(folder)
    masks: dict[str, WriteMask] = {}
    if published:
        rows, masks = _published_rows(folder, out, root, chosen, made)
    else:
        rows = _dated_rows(folder, root, chosen)
    made.problems.total += len(rows)
    infos = InfoCache()
    with gdal_env():
        for done, row in enumerate(rows):
            progress(done, len(rows))
            try:
                if row.name in masks:
                    mask = Path(os.path.relpath(masks[row.name](), root)).as_posix()
                    row = replace(row, mask=mask, new_classes=mask)
                row, footprint = _matched(row, root, chosen.register, infos, pictures=published)
            except GeoRefDiffError as error:
                made.problems.add(row.name, str(error), chosen.on_error)
                continue
            if not row.valid:
                made.problems.flag(row.name, row.note)
            made.rows.append(row)
            made.footprints.append(footprint)
    progress(len(rows), len(rows))
    if not made.rows:
        raise InputError(f"{folder}: no pair can be used; the first: {next(iter(made.problems)).reason}")
    write_index(out, made.rows, made.footprints)
    return made


def _dated_rows(folder: Path, root: Path, options: IndexOptions) -> list[IndexRow]:
    """All ordered pairs of dates of the places under a folder that are wanted."""
    places = find_dates(folder, options.pattern)
    wanted = chosen_places(places, options.only, options.exclude)
    pairs = [(place, *pair) for place in places if place in wanted for pair in itertools.permutations(places[place], 2)]
    if not pairs:
        raise InputError(
            f"{folder}: {len(wanted)} places, none with two dates; give --pattern (e.g. '<place>/<date>') so that "
            f"dates of a place come together"
        )
    return [_row(place, new, ref, root, options.split) for place, new, ref in pairs]


def _published_rows(
    folder: Path, out: Path, root: Path, options: IndexOptions, made: MadeIndex
) -> tuple[list[IndexRow], dict[str, WriteMask]]:
    """The pairs of a published data set, and by their names what writes their change masks.

    What cannot be used is a problem of `made`.
    """
    if options.pattern is not None:
        raise OptionError(f"--pattern goes with folders of dates; {folder} is read as it was published: leave it out")
    splits = [
        PublishedDataset(folder, DatasetOptions(split=split, on_error=options.on_error, resident=False))
        for split in published_splits(folder)
    ]
    places = (data.place(index) for data in splits for index in range(len(data)))
    wanted = chosen_places(places, options.only, options.exclude)
    rows: list[IndexRow] = []
    masks: dict[str, WriteMask] = {}
    for data in splits:
        made.problems.total += len(data.problems)
        made.problems.unusable += data.problems.unusable
        for index in range(len(data)):
            name, place = data.name(index), data.place(index)
            if place not in wanted:
                continue
            new, ref = (Path(os.path.relpath(path, root)).as_posix() for path in data.paths(index))
            rows.append(IndexRow(name, new, ref, split=options.split or data.split, place=place))
            if data.labelled:
                path = out.with_name(f"{out.stem}.masks") / f"{_mask_name(name)}.png"
                masks[name] = partial(_write_mask, data, index, path)
    return rows, masks


def _mask_name(name: str) -> str:
    """A pair's name as a file stem: "test/3.png im2->im1" is test_3_im2_im1."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", re.sub(r"\.\w+(?= |$)", "", name, count=1).replace("->", "_"))


def _write_mask(data: PublishedDataset, index: int, path: Path) -> Path:
    """Write the change mask of a pair as classes; its absolute path."""
    path = path.resolve()
    with BytesIO() as png:
        Image.fromarray(data.mask(index)).save(png, "PNG")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, png.getvalue())
    return path


def _row(place: str, new: DatedFile, ref: DatedFile, root: Path, split: str) -> IndexRow:
    paths = [Path(os.path.relpath(file.path, root)).as_posix() for file in (new, ref)]
    name = f"{place} {ref.date}->{new.date}"
    return IndexRow(
        name, paths[0], paths[1], split=new.split or split, place=place, new_date=new.date, ref_date=ref.date
    )


def _matched(
    row: IndexRow, root: Path, register: bool, infos: InfoCache, *, pictures: bool
) -> tuple[IndexRow, Box | None]:
    """The row with shift and fit, and its footprint; `pictures`: dates without georeference are fine, and have none."""
    new, ref = (infos.inspect(root / path, "reference") for path in (row.new, row.ref))
    if is_picture(new) and not pictures:
        raise InputError(f"{new.path}: is not georeferenced; assign an affine and a CRS: gdal_edit.py -a_ullr, -a_srs")
    bands = tuple(name for name in named_bands(new) if name in named_bands(ref))
    if len(bands) < len(named_bands(new)):
        have = [", ".join(named_bands(info)) for info in (new, ref)]
        raise InputError(f"the bands of the two dates differ ({have[0]}; {have[1]}); name them alike")
    if any(info.dtype != "uint8" for info in (new, ref)):
        low, high = _range((new, ref))
        row = replace(row, low=low, high=high)
    reading = ReadOptions(bands=bands, pseudo_classes=False)
    fitted = _fitted(row, lambda moved: PairFiles(moved, root, reading, infos).open(), register)
    return fitted, None if is_picture(new) else _footprint(new)


def _fitted(row: IndexRow, open_pair: Callable[[IndexRow], OpenPair], register: bool) -> IndexRow:
    """The row with shift and fit; not valid where the dates have next to no data in common."""
    views, share = _views(open_pair(row))
    if not views:
        return replace(row, valid=False, note=f"only {share:.1%} of the pixels have data at both dates")
    shift = median_shift(views) if register else None
    if shift is not None:
        row = replace(row, shift_rows=round(shift[0], 3), shift_cols=round(shift[1], 3))
        views, _ = _views(open_pair(row))
    fit = fit_views(views)
    note = NO_SHIFT if register and shift is None else ""
    return replace(row, gain=fit.gain, offset=fit.offset, correlation=float(np.mean(fit.correlation)), note=note)


def _views(opened: OpenPair) -> tuple[list[View], float]:
    """The sample windows of a pair in which both dates have data, and the share of all pixels where they do."""
    views, common, pixels = [], 0, 0
    try:
        for window in sample_windows(*opened.files.shape):
            view = View(*opened.new(window), *opened.ref(window))
            both = int((view.new_valid & view.ref_valid).sum())
            common, pixels = common + both, pixels + window.area
            if both >= _MIN_COMMON * window.area:
                views.append(view)
    finally:
        opened.close()
    return views, common / pixels


def _range(infos: Sequence[RasterInfo]) -> tuple[float, float]:
    """The values that become 0 and 255: the 0.2nd and the 99.8th percentile of both dates."""
    samples = []
    for info in infos:
        with RasterReader(info, info.data_bands) as reader:
            for window in sample_windows(info.height, info.width):
                values, valid = reader.read(window)
                samples.append(values[valid][:: max(1, values.size // 200_000)].astype(np.float64))
    pixels = np.concatenate(samples)
    if pixels.size == 0:
        raise InputError(f"{infos[0].path}: has no valid pixel where it was looked at; leave it out")
    low, high = (float(f"{q:.6g}") for q in np.quantile(pixels, _QUANTILES))
    if not low < high:
        raise InputError(f"{infos[0].path}: holds {low:g} everywhere; leave it out")
    return low, high


def _footprint(info: RasterInfo) -> Box:
    corners = rasterio.transform.array_bounds(info.height, info.width, rasterio.Affine(*info.transform))
    west, south, east, north = rasterio.warp.transform_bounds(info.crs_wkt, "EPSG:4326", *corners)
    return float(west), float(south), float(east), float(north)
