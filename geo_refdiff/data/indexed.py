"""Pairs of an index: rasters of any size on any grids, read by window, or held in memory where they fit."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data.dataset import Crop, Numbers, OnError, Problems, ReadError
from geo_refdiff.data.index import IndexRow, as_text
from geo_refdiff.data.label_cache import read_labels, write_labels
from geo_refdiff.data.pair_files import (
    Image,
    Labels,
    OpenPair,
    PairFiles,
    ReaderCache,
    ReadOptions,
    Shared,
    Valid,
    named_bands,
)
from geo_refdiff.errors import GeoRefDiffError, InputError
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.process import cores
from geo_refdiff.raster.window import Window

Resident = bool | Literal["auto"]
Tell = Callable[[str], None]
T = TypeVar("T")
_OPENING = threading.Lock()
"""Opening silences PROJ's warnings, which Python can do for one thread at a time only."""
_TOLD = 30.0
"""Seconds between lines about the progress."""
BUDGET = 3 * 2**30
"""Bytes of pixels that "auto" holds in memory at most."""

_RULES = 3  # version of what is made of the files' pixels; part of the fingerprint


@dataclass(frozen=True, slots=True)
class _Date:
    """A new date in memory, shared by its pairs; valid None = everywhere."""

    values: Image
    valid: Valid | None
    classes: Labels


@dataclass(frozen=True, slots=True)
class _Held:
    """A pair in memory; mask None = unknown everywhere."""

    new: _Date
    ref: Image
    ref_valid: Valid | None
    mask: Labels | None

    def crop(self, at: tuple[slice, slice]) -> Crop:
        shape = (at[0].stop - at[0].start, at[1].stop - at[1].start)
        new_valid, ref_valid = (
            np.ones(shape, np.bool_) if valid is None else valid[at].copy()
            for valid in (self.new.valid, self.ref_valid)
        )
        mask = np.full(shape, UNKNOWN_CLASS, np.uint8) if self.mask is None else self.mask[at].copy()
        classes = self.new.classes[at].copy()
        return Crop(self.new.values[:, *at].copy(), self.ref[:, *at].copy(), new_valid, ref_valid, classes, mask)


class IndexDataset:
    """The pairs of an index whose files are there; a `PairDataset`.

    Args:
        rows: of the index.
        root: folder that the rows' paths are relative to.
        reading: what to read; no bands = those of the first file that can be read.
        resident: hold the pixels in memory; "auto": where they take no more than `budget` bytes.
        on_error: "skip" leaves pairs out whose files are missing or unreadable, "stop" raises.
        kept: file where labels by rules are kept from one opening to the next; None = they are made each time.
        tell: takes lines about the progress where labels are made.

    Attributes:
        problems: pairs that are left out.
        resident: whether the pixels are in memory.

    Raises:
        ReadError: with on_error "stop", a pair that cannot be used; in any case, if none can.
    """

    def __init__(
        self,
        rows: Sequence[IndexRow],
        root: Path,
        reading: ReadOptions,
        resident: Resident = "auto",
        budget: int = BUDGET,
        on_error: OnError = "skip",
        kept: Path | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.problems = Problems(total=len(rows))
        self._open = ReaderCache()
        with gdal_env():
            self._pairs = self._look(rows, root, reading, on_error)
            self._held: list[_Held] | None = None
            self.resident = self._nbytes() <= budget if resident == "auto" else resident
            if self._pairs:
                self._reading = self._pairs[0].reading
            if self.resident and self._pairs:
                self._held = self._load(on_error, kept, tell or _silent)
        if not self._pairs:
            first = next(iter(self.problems), None)
            why = f"; the first: {first.name}: {first.reason}" if first else ""
            raise ReadError(f"no pair of the index can be used ({self.problems.summary()}){why}")

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self._reading.bands

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask's classes."""
        return self._reading.classes

    def __len__(self) -> int:
        return len(self._pairs)

    def row(self, index: int) -> IndexRow:
        """The pair's row of the index."""
        return self._pairs[index].row

    def name(self, index: int) -> str:
        """Name of the pair in messages."""
        return self._pairs[index].row.name

    def files(self, index: int) -> tuple[str, ...]:
        """The images of both dates, as named by the index."""
        row = self._pairs[index].row
        return row.new, row.ref

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width) of the new date, output pixels."""
        return self._pairs[index].shape

    def numbers(self, index: int) -> Numbers:
        """The digital numbers of the pair's files."""
        return self._pairs[index].numbers

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        """One window of a pair, copied.

        Raises:
            ReadError: a file cannot be read (any more).
        """
        pair = self._pairs[index]
        window = check_window(pair.row.name, pair.shape, top, left, height, width)
        if self._held is not None:
            return self._held[index].crop(window.within(Window(0, 0, *pair.shape)))
        try:
            return self._open.get(index, pair.open, OpenPair.close).read(window)
        except ReadError:
            raise
        except GeoRefDiffError as error:
            raise ReadError(f"{pair.row.name}: {error}") from error

    def fingerprint(self) -> str:
        """SHA-256 over the rows in use, the sizes of their files and how they are read; no absolute path is in it."""
        reading = asdict(self._reading)
        del reading["clip"]  # always on where something is learned
        digest = hashlib.sha256(repr((_RULES, sorted(reading.items()))).encode())
        for pair in self._pairs:
            infos = (pair.new, pair.ref, pair.mask, pair.new_classes, pair.ref_classes)
            sizes = [info.size_bytes if info else 0 for info in infos]
            digest.update(repr((sorted(as_text(pair.row).items()), sizes)).encode())
        return digest.hexdigest()

    def _look(self, rows: Sequence[IndexRow], root: Path, reading: ReadOptions, on_error: OnError) -> list[PairFiles]:
        shared = Shared()
        pairs = []
        for row in rows:
            if not row.valid:
                self.problems.flag(row.name, row.note)
                continue
            try:
                if not reading.bands:
                    reading = replace(reading, bands=named_bands(shared.look(root / row.new, "reference")))
                pairs.append(PairFiles(row, root, reading, shared))
            except InputError as error:
                self.problems.add(row.name, str(error), on_error)
        return pairs

    def _nbytes(self) -> int:
        return sum(pair.nbytes for pair in self._pairs)

    def _load(self, on_error: OnError, kept: Path | None, tell: Tell) -> list[_Held]:
        """All pairs, side by side; labels by rules come from the file where they are kept, or go there."""
        fingerprint = self.fingerprint()
        labels = {} if kept is None else read_labels(kept, fingerprint)
        ruled = [number for number, pair in enumerate(self._pairs) if pair.ruled]
        making = kept is not None and any(f"change {number}" not in labels for number in ruled)
        firsts: dict[tuple[object, ...], int] = {}
        for number, pair in enumerate(self._pairs):
            firsts.setdefault(pair.date, number)
        load = partial(_load, self._pairs, firsts, labels)
        dates = dict(zip(firsts, _side_by_side(partial(load, None), list(firsts.values()), _silent), strict=True))
        numbers = list(range(len(self._pairs)))
        results = _side_by_side(partial(load, dates), numbers, tell if making else _silent)
        if making and kept is not None:
            for number in ruled:
                held = results[number]
                if isinstance(held, _Held):
                    labels[f"cover {firsts[self._pairs[number].date]}"] = held.new.classes
                    labels[f"change {number}"] = held.mask if held.mask is not None else _unknown(held.new.classes)
            if write_labels(kept, fingerprint, labels):
                tell(f"labels are kept in {kept}")
        return self._usable(results, on_error)

    def _usable(self, results: Sequence[_Date | _Held | GeoRefDiffError], on_error: OnError) -> list[_Held]:
        held, good = [], []
        for pair, result in zip(self._pairs, results, strict=True):
            if isinstance(result, _Held):
                held.append(result)
                good.append(pair)
            else:
                self.problems.add(pair.row.name, str(result), on_error)
        self._pairs = good
        return held


def _load(
    pairs: Sequence[PairFiles],
    firsts: Mapping[tuple[object, ...], int],
    labels: Mapping[str, Labels],
    dates: Mapping[tuple[object, ...], _Date | _Held | GeoRefDiffError] | None,
    number: int,
) -> _Date | _Held | GeoRefDiffError:
    """The new date of a pair, or with all `dates` the pair; the error where it cannot be read."""
    pair = pairs[number]
    try:
        with _OPENING:
            opened, whole = pair.open(), Window(0, 0, *pair.shape)
        try:
            if dates is None:
                values, valid = opened.new(whole)
                cover = labels.get(f"cover {number}") if pair.ruled else None
                classes = opened.classes(whole, values, valid) if cover is None else cover
                return _Date(values, None if valid.all() else valid, classes)
            date = dates[pair.date]
            if not isinstance(date, _Date):
                return date
            ref, ref_valid = opened.ref(whole)
            mask = labels.get(f"change {number}") if pair.ruled else None
            if mask is None:
                new_valid = np.ones(pair.shape, np.bool_) if date.valid is None else date.valid
                mask = opened.change(whole, date.values, new_valid, ref, ref_valid, date.classes)
        finally:
            opened.close()
    except GeoRefDiffError as error:
        return error
    known = None if (mask == UNKNOWN_CLASS).all() else mask
    return _Held(date, ref, None if ref_valid.all() else ref_valid, known)


def _unknown(like: Labels) -> Labels:
    return np.full_like(like, UNKNOWN_CLASS)


def _silent(text: str) -> None:
    return None


def _side_by_side(work: Callable[[int], T], numbers: Sequence[int], tell: Tell) -> list[T]:
    """What `work` gives for each number, on all cores; tells how far it is, at first and then each half a minute."""
    results: list[T] = []
    due = time.monotonic()

    def one(number: int) -> T:
        with gdal_env():
            return work(number)

    with ThreadPoolExecutor(cores(), thread_name_prefix="pairs") as pool:
        for count, result in enumerate(pool.map(one, numbers)):
            if time.monotonic() >= due:
                tell(f"labels by rules: {count} of {len(numbers)} pairs")
                due = time.monotonic() + _TOLD
            results.append(result)
    return results


def check_window(name: str, shape: tuple[int, int], top: int, left: int, height: int, width: int) -> Window:
    """The window of a crop.

    Raises:
        ReadError: it does not lie inside the pair.
    """
    if min(top, left) < 0 or min(height, width) < 1 or top + height > shape[0] or left + width > shape[1]:
        wanted = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        raise ReadError(f"{name}: {wanted} reach outside its {shape[0]} x {shape[1]} pixels; ask for less")
    return Window(top, left, height, width)
