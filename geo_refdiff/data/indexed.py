"""Pairs of an index: rasters of any size on any grids, read by window, or held in memory where they fit."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from msgspec.structs import replace

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data.dataset import Crop, Numbers, Problems, ReadError, check_window
from geo_refdiff.data.index import IndexRow, as_text
from geo_refdiff.data.labels import VERSION, LabelCache, LabelStore, content_key
from geo_refdiff.data.pair_files import (
    Dates,
    Image,
    InfoCache,
    Labels,
    OpenPair,
    PairFiles,
    ReaderCache,
    Valid,
    named_bands,
    rule_bands,
)
from geo_refdiff.errors import GeoRefDiffError, InputError
from geo_refdiff.options import DatasetOptions, ReadOptions, fields_of
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.process import cores
from geo_refdiff.raster.window import Window

Log = Callable[[str], None]
S = TypeVar("S")
T = TypeVar("T")
_OPENING = threading.Lock()
"""Opening silences PROJ's warnings, which Python can do for one thread at a time only."""
_EVERY = 30.0
"""Seconds between lines about the progress."""


@dataclass(slots=True)
class _Date:
    """A new date in memory, shared by its pairs; valid None = everywhere, classes None = by rules, not made yet."""

    values: Image
    valid: Valid | None
    classes: Labels | None


@dataclass(slots=True)
class _Held:
    """A pair in memory; mask None = unknown everywhere; before: land cover of the reference from a file."""

    files: PairFiles
    new: _Date
    ref: Image
    ref_valid: Valid | None
    mask: Labels | None
    before: Labels | None

    @property
    def dates(self) -> Dates:
        """All pixels of both dates."""
        valid = (np.ones(self.ref.shape[1:], np.bool_) if v is None else v for v in (self.new.valid, self.ref_valid))
        new_valid, ref_valid = valid
        return Dates(self.new.values, new_valid, self.ref, ref_valid)

    def crop(self, at: tuple[slice, slice]) -> Crop:
        shape = (at[0].stop - at[0].start, at[1].stop - at[1].start)
        new_valid, ref_valid = (
            np.ones(shape, np.bool_) if valid is None else valid[at].copy()
            for valid in (self.new.valid, self.ref_valid)
        )
        mask = np.full(shape, UNKNOWN_CLASS, np.uint8) if self.mask is None else self.mask[at].copy()
        assert self.new.classes is not None
        classes = self.new.classes[at].copy()
        return Crop(self.new.values[:, *at].copy(), self.ref[:, *at].copy(), new_valid, ref_valid, classes, mask)

    def cover_key(self) -> str:
        """Of the land cover of the new date by rules: all that it is made of."""
        new, new_valid, _, _ = self.dates
        return content_key("cover", rule_bands(new, self.files.reading), new_valid)

    def change_key(self) -> str:
        """The same of its change."""
        (new, new_valid, ref, ref_valid), reading, by_rules = self.dates, self.files.reading, self.files.cover_by_rules
        files = [part for part in (self.before, None if by_rules else self.new.classes) if part is not None]
        kind = f"change {reading.pseudo_classes} {self.before is None} {by_rules}"
        pixels = (rule_bands(new, reading), new_valid, rule_bands(ref, reading), ref_valid)
        return content_key(kind, *pixels, *files)

    def make_cover(self) -> Labels:
        """Land cover of the new date by rules."""
        with _opened(self.files) as opened:
            return opened.classes(self.files.whole, self.new.values, self.dates.new_valid)

    def make_change(self) -> Labels:
        """Change by rules."""
        assert self.new.classes is not None
        with _opened(self.files) as opened:
            return opened.change(self.dates, self.new.classes, self.before)


class IndexDataset:
    """The pairs of an index whose files are there; a `PairDataset`.

    Args:
        rows: of the index.
        root: folder that the rows' paths are relative to.
        options: see `DatasetOptions`; without bands those of the first file that can be read.
        cache: where labels by rules are kept from one opening to the next, if the pixels are held in memory; None =
            they are made each time.
        log: takes lines about the progress where labels are made.

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
        options: DatasetOptions,
        cache: LabelCache | None = None,
        log: Log | None = None,
    ) -> None:
        self.problems = Problems(total=len(rows))
        self._open = ReaderCache()
        with gdal_env():
            self._pairs = self._inspect(rows, root, options)
            self._held: list[_Held] | None = None
            size = sum(pair.nbytes for pair in self._pairs)
            self.resident = size <= options.budget if options.resident == "auto" else options.resident
            if self._pairs:
                self._reading = self._pairs[0].reading
            if self.resident and self._pairs:
                self._held = self._load(options, cache, log or _silent)
                self._pairs = [pair.files for pair in self._held]
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
        names = sorted(fields_of(ReadOptions).keys() - {"clip"})  # always on where something is learned
        reading = [(name, getattr(self._reading, name)) for name in names]
        digest = hashlib.sha256(repr((VERSION, reading)).encode())
        for pair in self._pairs:
            infos = (pair.new, pair.ref, pair.mask, pair.new_classes, pair.ref_classes)
            sizes = [info.size_bytes if info else 0 for info in infos]
            digest.update(repr((sorted(as_text(pair.row).items()), sizes)).encode())
        return digest.hexdigest()

    def _inspect(self, rows: Sequence[IndexRow], root: Path, options: DatasetOptions) -> list[PairFiles]:
        infos, reading = InfoCache(), options
        pairs = []
        for row in rows:
            if not row.valid:
                self.problems.flag(row.name, row.note)
                continue
            try:
                if not reading.bands:
                    reading = replace(reading, bands=named_bands(infos.inspect(root / row.new, "reference")))
                pairs.append(PairFiles(row, root, reading, infos))
            except InputError as error:
                self.problems.add(row.name, str(error), options.on_error)
        return pairs

    def _load(self, options: DatasetOptions, cache: LabelCache | None, log: Log) -> list[_Held]:
        """All pairs in memory, read side by side; labels by rules come from the cache, or are made and go there."""
        firsts = {pair.date: pair for pair in reversed(self._pairs)}
        dates = dict(zip(firsts, _side_by_side(_read_date, list(firsts.values())), strict=True))
        pairs = _side_by_side(partial(_read_pair, dates), self._pairs)
        held = self._usable(self._pairs, pairs, options)
        if not any(pair.files.change_by_rules for pair in held):
            cache, log = None, _silent
        with LabelStore(cache, log) as store:
            news = {id(pair.new): pair for pair in reversed(held) if pair.new.classes is None}
            make = partial(_side_by_side, _Held.make_cover, log=log, what="land cover of {} dates")
            covers = dict(zip(news, store.labels(list(news.values()), _Held.cover_key, make), strict=True))
            held = self._labelled(held, [covers.get(id(pair.new)) for pair in held], _set_cover, options)
            changed = [pair for pair in held if pair.files.change_by_rules]
            make = partial(_side_by_side, _Held.make_change, log=log, what="change of {} pairs")
            masks = dict(zip(map(id, changed), store.labels(changed, _Held.change_key, make), strict=True))
            return self._labelled(held, [masks.get(id(pair)) for pair in held], _set_mask, options)

    def _usable(
        self, pairs: Sequence[PairFiles], results: Sequence[T | GeoRefDiffError], options: DatasetOptions
    ) -> list[T]:
        """What is no error; an error is a problem of its pair."""
        for pair, result in zip(pairs, results, strict=True):
            if isinstance(result, GeoRefDiffError):
                self.problems.add(pair.row.name, str(result), options.on_error)
        return [result for result in results if not isinstance(result, GeoRefDiffError)]

    def _labelled(
        self,
        held: Sequence[_Held],
        labels: Sequence[Labels | GeoRefDiffError | None],
        put: Callable[[_Held, Labels], None],
        options: DatasetOptions,
    ) -> list[_Held]:
        """The pairs whose label is no error, each with its label if it has one."""
        for pair, label in zip(held, labels, strict=True):
            if isinstance(label, np.ndarray):
                put(pair, label)
        results = [x if isinstance(x, GeoRefDiffError) else pair for pair, x in zip(held, labels, strict=True)]
        return self._usable([pair.files for pair in held], results, options)


def _set_cover(pair: _Held, label: Labels) -> None:
    pair.new.classes = label


def _set_mask(pair: _Held, label: Labels) -> None:
    pair.mask = _or_none(label)


@contextmanager
def _opened(pair: PairFiles) -> Iterator[OpenPair]:
    with _OPENING:
        opened = pair.open()
    try:
        yield opened
    finally:
        opened.close()


def _read_date(pair: PairFiles) -> _Date:
    """The new date of a pair, without land cover by rules."""
    with _opened(pair) as opened:
        values, valid = opened.new(pair.whole)
        classes = None if pair.cover_by_rules else opened.classes(pair.whole, values, valid)
    return _Date(values, None if valid.all() else valid, classes)


def _read_pair(dates: Mapping[tuple[object, ...], _Date | GeoRefDiffError], pair: PairFiles) -> _Held:
    """A pair, without change by rules."""
    date = dates[pair.date]
    if isinstance(date, GeoRefDiffError):
        raise date
    with _opened(pair) as opened:
        ref, ref_valid = opened.ref(pair.whole)
        mask, before = opened.mask(pair.whole), opened.before(pair.whole) if pair.change_by_rules else None
    return _Held(pair, date, ref, None if ref_valid.all() else ref_valid, _or_none(mask), before)


def _or_none(mask: Labels | None) -> Labels | None:
    """A mask, None where all of it is unknown."""
    return None if mask is None or (mask == UNKNOWN_CLASS).all() else mask


def _silent(text: str) -> None:
    return None


def _side_by_side(
    work: Callable[[S], T], items: Sequence[S], log: Log = _silent, what: str = "{}"
) -> list[T | GeoRefDiffError]:
    """What `work` gives for each item, or its error, on all cores; logs the progress now and then."""
    results: list[T | GeoRefDiffError] = []
    due = time.monotonic()

    def one(item: S) -> T | GeoRefDiffError:
        try:
            with gdal_env():
                return work(item)
        except GeoRefDiffError as error:
            return error

    with ThreadPoolExecutor(cores(), thread_name_prefix="pairs") as pool:
        for count, result in enumerate(pool.map(one, items)):
            if time.monotonic() >= due:
                log(f"labels by rules, {what.format(len(items))}: {count} done")
                due = time.monotonic() + _EVERY
            results.append(result)
    return results
