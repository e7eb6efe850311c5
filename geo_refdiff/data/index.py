"""The index of a data set: one row an ordered pair of dates, as CSV, GeoParquet or GeoPackage."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.raster.files import atomic_path, write_bytes_atomic
from geo_refdiff.raster.gdal import one_line

SUFFIXES = (".csv", ".parquet", ".geoparquet", ".gpkg")
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One ordered pair of dates; paths are relative to the data root, "" = none.

    Attributes:
        name: of the pair in messages.
        new, ref: rasters of the two dates.
        mask: raster of change classes on any grid: 0 none, 255 unknown.
        new_classes, ref_classes: rasters of land cover of the two dates, 0 = unknown.
        split: e.g. "train".
        place: matched by --only and --exclude; parts joined by "/".
        new_date, ref_date: as text, sortable.
        shift_rows, shift_cols: output pixels of the new date by which the reference must be moved.
        gain, offset: empty, or one for each band of the new date's file: new ~ gain * reference + offset, in DN of
            0..255.
        low, high: values of both dates that become 0 and 255; None = the files hold uint8 0..255.
        correlation: of the two dates after the fit, -1..1; None = not measured.
        valid: whether to use the pair.
        note: why not.
    """

    name: str
    new: str
    ref: str
    mask: str = ""
    new_classes: str = ""
    ref_classes: str = ""
    split: str = ""
    place: str = ""
    new_date: str = ""
    ref_date: str = ""
    shift_rows: float = 0.0
    shift_cols: float = 0.0
    gain: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    correlation: float | None = None
    valid: bool = True
    note: str = ""


COLUMNS = tuple(field.name for field in fields(IndexRow))
_FLAGS = dict.fromkeys(("1", "true", "yes", "y", "t", "1.0"), True) | dict.fromkeys(
    ("0", "false", "no", "n", "f", "0.0"), False
)


def is_index(source: str | Path) -> bool:
    """Whether a path has the suffix of an index file."""
    return Path(source).suffix.lower() in SUFFIXES


def read_index(path: str | Path) -> list[IndexRow]:
    """Read the rows of an index. Unknown columns are ignored unless they look like a misspelt one.

    Raises:
        InputError: the file is missing or unreadable, holds no pair, lacks a column, or has an invalid value.
    """
    path = Path(path)
    columns, records = read_records(path)
    _check_columns(path, columns)
    if not records:
        raise InputError(f"{path}: the index holds no pair; make it again with geo-refdiff index")
    return [_row(f"{path}, row {number}", record) for number, record in enumerate(records, 1)]


def read_records(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a table in one of the formats of an index.

    Raises:
        InputError: the file is missing or unreadable.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such index file; make one with geo-refdiff index FOLDER -o {path.name}")
    return _read_csv(path) if path.suffix.lower() == ".csv" else _read_table(path)


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            lines = [line for line in csv.reader(stream, strict=True) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({one_line(error, 120)}); save it as UTF-8 CSV") from error
    columns = [name.strip() for name in lines[0]] if lines else []
    for number, line in enumerate(lines[1:], 1):
        if len(line) != len(columns):
            raise InputError(f"{path}, row {number}: {len(line)} cells for {len(columns)} columns; correct it")
    return columns, [dict(zip(columns, line, strict=True)) for line in lines[1:]]


def _read_table(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    try:
        if path.suffix.lower() == ".gpkg":
            import geopandas

            frame = geopandas.read_file(path, ignore_geometry=True)
            records = frame.astype(object).where(frame.notna(), None).to_dict("records")
            return [str(name) for name in frame.columns], records
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        return list(table.column_names), table.to_pylist()
    except ImportError as error:
        raise InputError(
            f"{path}: GeoParquet needs pyarrow; pip install 'geo-refdiff[parquet]', or give CSV or GeoPackage"
        ) from error
    except Exception as error:  # pyogrio and pyarrow each have their own
        raise InputError(f"{path}: cannot be read as an index ({one_line(error, 160)}); make it again") from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for needed in ("new", "ref"):
        if needed not in columns:
            have = ", ".join(columns[:12]) or "none"
            raise InputError(f"{path}: the index has no column '{needed}', only {have}; it needs new and ref")
    for column in columns:
        near = [] if column in COLUMNS else get_close_matches(column, COLUMNS, 1, 0.8)
        if near and near[0] not in columns:
            raise InputError(f"{path}: unknown column '{column}'; rename it to '{near[0]}' or to something else")


def _row(where: str, record: Mapping[str, Any]) -> IndexRow:
    texts = {key: "" if record.get(key) is None else str(record[key]).strip() for key in COLUMNS}
    values = {key: _PARSED.get(key, _text)(where, key, text) for key, text in texts.items() if text}
    for needed in ("new", "ref"):
        if needed not in values:
            raise InputError(f"{where}: '{needed}' is empty; give the path of a raster")
    values.setdefault("name", _default_name(texts))
    row = IndexRow(**values)
    if len(row.gain) != len(row.offset):
        raise InputError(f"{where}: {len(row.gain)} gains but {len(row.offset)} offsets; give one of each a band")
    if (row.low is None) != (row.high is None) or (row.low is not None and not row.low < (row.high or 0.0)):
        raise InputError(f"{where}: low {row.low} and high {row.high} make no range; give both, low below high")
    return row


def _default_name(values: Mapping[str, Any]) -> str:
    old, new = (values[f"{role}_date"] or Path(values[role]).stem for role in ("ref", "new"))
    return f"{values['place']} {old}->{new}".strip()


def _number(where: str, key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{where}: {key} is '{text}', which is no number; correct it") from error
    if not isfinite(value):
        raise InputError(f"{where}: {key} is {text}; give a finite number")
    return value


def _numbers(where: str, key: str, text: str) -> tuple[float, ...]:
    return tuple(_number(where, key, part) for part in text.split())


def _flag(where: str, key: str, text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise InputError(f"{where}: {key} is '{text}'; give 1 or 0")
    return _FLAGS[text.lower()]


def _text(where: str, key: str, text: str) -> str:
    return text


_PARSED: dict[str, Callable[[str, str, str], Any]] = {
    "gain": _numbers, "offset": _numbers, "shift_rows": _number, "shift_cols": _number, "low": _number,
    "high": _number, "correlation": _number, "valid": _flag,
}  # fmt: skip
"""How the columns are read that are not text; an empty cell is the default."""


def as_text(row: IndexRow) -> dict[str, str]:
    """A row as the text of the CSV's cells; numbers have six digits."""
    out = {}
    for key in COLUMNS:
        value = getattr(row, key)
        if isinstance(value, tuple):
            out[key] = " ".join(f"{v:.6g}" for v in value)
        elif isinstance(value, bool):
            out[key] = str(int(value))
        elif isinstance(value, float):
            out[key] = f"{value:.6g}"
        else:
            out[key] = "" if value is None else value
    return out


def write_index(path: str | Path, rows: Iterable[IndexRow], footprints: Sequence[Box | None] | None = None) -> None:
    """Write an index, whole or not at all; the suffix says in which format.

    Args:
        path: .csv, .parquet, .geoparquet or .gpkg.
        rows: see `IndexRow`.
        footprints: (west, south, east, north) of each row in degrees, for the formats with a geometry.

    Raises:
        OptionError: another suffix.
        OutputError: it cannot be written.
        InputError: GeoParquet without pyarrow.
    """
    path, records = Path(path), [as_text(row) for row in rows]
    check_suffix(path)
    if path.suffix.lower() == ".csv":
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        write_bytes_atomic(path, stream.getvalue().encode())
        return
    import geopandas
    import shapely

    boxes = [None if box is None else shapely.box(*box) for box in footprints or [None] * len(records)]
    frame = geopandas.GeoDataFrame(records, columns=list(COLUMNS), geometry=boxes, crs="EPSG:4326")
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".gpkg":
            frame.to_file(temporary, driver="GPKG", layer="pairs")
            return
        try:
            frame.to_parquet(temporary)
        except ImportError as error:
            raise InputError(
                f"{path}: GeoParquet needs pyarrow; pip install 'geo-refdiff[parquet]', or write .csv or .gpkg"
            ) from error


def check_suffix(path: Path) -> None:
    """Raises OptionError where `path` does not have the suffix of an index."""
    if not is_index(path):
        raise OptionError(f"{path}: an index ends in {', '.join(SUFFIXES)}; choose one of these")


def chosen_places(places: Iterable[str], only: Sequence[str], exclude: Sequence[str]) -> set[str]:
    """Those places that are in one of `only` (empty: all) and in none of `exclude`.

    Raises:
        OptionError: a name that fits no place.
    """
    places = set(places)
    check_places("only", only, places)
    check_places("exclude", exclude, places)
    return {place for place in places if (not only or is_in(place, only)) and not is_in(place, exclude)}


def is_in(place: str, names: Iterable[str]) -> bool:
    """Whether a place is one of `names`, or is in one of them: "chico/012" in "chico" and in "chico/012"."""
    return any(place == name or place.startswith(f"{name}/") or name in place.split("/") for name in names)


def check_places(option: str, names: Sequence[str], places: Iterable[str]) -> None:
    """Check that every name matches a place: a misspelt one would let held-out places into training.

    Raises:
        OptionError: names it and the most similar places.
    """
    names_of_places = sorted({part for place in places for part in (place, *place.split("/"))})
    for name in names:
        if not any(is_in(place, [name]) for place in names_of_places):
            near = get_close_matches(name, names_of_places, 3) or names_of_places[:5]
            raise OptionError(f"{option} '{name}' fits no place; there are e.g. {', '.join(near) or 'none'}")
