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
from typing import NamedTuple, TypeVar

import numpy as np
from msgspec.structs import replace

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data.dataset import Crop, Numbers, Problems, ReadError, check_window
from geo_refdiff.data.index import IndexRow, as_text
from geo_refdiff.data.label_cache import LabelCache, content_key
from geo_refdiff.data.labels import VERSION
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
    """A new date in memory, shared by its pairs; valid None = everywhere, classes None = not made yet."""

    values: Image
    valid: Valid | None
    classes: Labels | None


@dataclass(slots=True)
class _Held:
    """A pair in memory; mask None = unknown everywhere; before: land cover of the reference from a file, until then."""

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
            self.resident = self._nbytes() <= options.budget if options.resident == "auto" else options.resident
            if self._pairs:
                self._reading = self._pairs[0].reading
            if self.resident and self._pairs:
                self._held = self._load(options, cache, log or _silent)
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

    def _nbytes(self) -> int:
        return sum(pair.nbytes for pair in self._pairs)

    def _load(self, options: DatasetOptions, cache: LabelCache | None, log: Log) -> list[_Held]:
        """All pairs in memory, read side by side; labels by rules come from the cache, or are made and go there."""
        firsts: dict[tuple[object, ...], int] = {}
        for number, pair in enumerate(self._pairs):
            firsts.setdefault(pair.date, number)
        dates = dict(zip(firsts, _side_by_side(self._read_date, list(firsts.values())), strict=True))
        results = _side_by_side(partial(self._read_pair, dates), range(len(self._pairs)))
        held = self._usable(results, options)
        covers = list({id(pair.new): n for n, pair in enumerate(held) if pair.new.classes is None}.values())
        changes = [n for n, pair in enumerate(self._pairs) if pair.change_by_rules]
        if changes and cache is not None:
            results = self._label_once(held, covers, changes, cache, log)
        else:
            results = self._label(held, covers, changes, {}, _silent)
        return self._usable(results, options)

    def _usable(self, results: Sequence[_Held | GeoRefDiffError], options: DatasetOptions) -> list[_Held]:
        """What is no error, and its pairs; the others are problems."""
        good = [(pair, held) for pair, held in zip(self._pairs, results, strict=True) if isinstance(held, _Held)]
        for pair, result in zip(self._pairs, results, strict=True):
            if isinstance(result, GeoRefDiffError):
                self.problems.add(pair.row.name, str(result), options.on_error)
        self._pairs = [pair for pair, _ in good]
        return [held for _, held in good]

    @contextmanager
    def _opened(self, number: int) -> Iterator[OpenPair]:
        with _OPENING:
            opened = self._pairs[number].open()
        try:
            yield opened
        finally:
            opened.close()

    def _read_date(self, number: int) -> _Date | GeoRefDiffError:
        """The new date of a pair, without land cover by rules."""
        pair, whole = self._pairs[number], Window(0, 0, *self._pairs[number].shape)
        try:
            with self._opened(number) as opened:
                values, valid = opened.new(whole)
                classes = None if pair.cover_by_rules else opened.classes(whole, values, valid)
        except GeoRefDiffError as error:
            return error
        return _Date(values, None if valid.all() else valid, classes)

    def _read_pair(
        self, dates: Mapping[tuple[object, ...], _Date | GeoRefDiffError], number: int
    ) -> _Held | GeoRefDiffError:
        """A pair, without change by rules."""
        pair, whole = self._pairs[number], Window(0, 0, *self._pairs[number].shape)
        date = dates[pair.date]
        if isinstance(date, GeoRefDiffError):
            return date
        try:
            with self._opened(number) as opened:
                ref, ref_valid = opened.ref(whole)
                mask, before = opened.mask(whole), opened.before(whole) if pair.change_by_rules else None
        except GeoRefDiffError as error:
            return error
        return _Held(date, ref, None if ref_valid.all() else ref_valid, _or_none(mask), before)

    def _label_once(
        self, held: Sequence[_Held], covers: Sequence[int], changes: Sequence[int], cache: LabelCache, log: Log
    ) -> list[_Held | GeoRefDiffError]:
        """Labels from the cache; those that are missing are made by one process at a time and kept."""
        jobs = [*(_Job("cover", n) for n in covers), *(_Job("change", n) for n in changes)]
        keys = dict(zip(jobs, _side_by_side(partial(self._key, held), jobs), strict=True))
        stored = cache.read()
        if stored.keys() >= set(keys.values()):
            return self._label(held, covers, changes, {job: stored[keys[job]] for job in jobs}, log)
        with cache.exclusive(log):
            stored = cache.read()  # another process may have made them meanwhile
            ready = {job: stored[keys[job]] for job in jobs if keys[job] in stored}
            results = self._label(held, covers, changes, ready, log)
            if len(ready) < len(jobs):
                for job in jobs:
                    pair = held[job.number]
                    made = pair.new.classes if job.kind == "cover" else pair.mask
                    if not isinstance(results[job.number], GeoRefDiffError):
                        stored[keys[job]] = (
                            np.full(pair.ref.shape[1:], UNKNOWN_CLASS, np.uint8) if made is None else made
                        )
                if cache.write(stored):
                    log(f"labels by rules are kept in {cache.path}")
        return results

    def _key(self, held: Sequence[_Held], job: _Job) -> str:
        """What identifies a label by rules: all that it is made of."""
        pair, reading = held[job.number], self._reading
        new, new_valid, ref, ref_valid = pair.dates
        now = (rule_bands(new, reading), new_valid)
        if job.kind == "cover":
            return content_key("cover", *now)
        files = [part for part in (pair.before, pair.new.classes) if part is not None]
        kind = f"change {reading.pseudo_classes} {pair.before is None} {pair.new.classes is None}"
        return content_key(kind, *now, rule_bands(ref, reading), ref_valid, *files)

    def _label(
        self,
        held: Sequence[_Held],
        covers: Sequence[int],
        changes: Sequence[int],
        stored: Mapping[_Job, Labels],
        log: Log,
    ) -> list[_Held | GeoRefDiffError]:
        """Fill in labels by rules, side by side: land cover of the new dates, then change; the pairs, or their errors.

        Args:
            held: the pairs.
            covers, changes: numbers of pairs that need them; for land cover one pair a date.
            stored: labels that need not be made.
            log: takes lines about the progress.
        """
        failed: dict[int, GeoRefDiffError] = {}
        failed_dates: dict[int, GeoRefDiffError] = {}

        def made(kind: str, numbers: Sequence[int], what: str) -> Iterator[tuple[int, Labels | GeoRefDiffError]]:
            jobs = [job for n in numbers if (job := _Job(kind, n)) not in stored]
            new = dict(zip(jobs, _side_by_side(partial(self._by_rules, held), jobs, log, what), strict=True))
            return ((n, stored[job] if (job := _Job(kind, n)) in stored else new[job]) for n in numbers)

        for n, label in made("cover", covers, "land cover of {} dates"):
            if isinstance(label, GeoRefDiffError):
                failed_dates[id(held[n].new)] = label
            else:
                held[n].new.classes = label
        for n, label in made("change", changes, "change of {} pairs"):
            if isinstance(label, GeoRefDiffError):
                failed[n] = label
            else:
                held[n].mask = _or_none(label)
        return [failed_dates.get(id(pair.new)) or failed.get(n) or pair for n, pair in enumerate(held)]

    def _by_rules(self, held: Sequence[_Held], job: _Job) -> Labels | GeoRefDiffError:
        pair, whole = held[job.number], Window(0, 0, *self._pairs[job.number].shape)
        try:
            with self._opened(job.number) as opened:
                if job.kind == "cover":
                    return opened.classes(whole, pair.new.values, pair.dates.new_valid)
                if pair.new.classes is None:
                    return ReadError("its land cover could not be made")
                return opened.change(pair.dates, pair.new.classes, pair.before)
        except GeoRefDiffError as error:
            return error


class _Job(NamedTuple):
    """A label by rules: "cover" of a pair's new date, or "change"."""

    kind: str
    number: int


def _or_none(mask: Labels | None) -> Labels | None:
    """A mask, None where all of it is unknown."""
    return None if mask is None or (mask == UNKNOWN_CLASS).all() else mask


def _silent(text: str) -> None:
    return None


def _side_by_side(work: Callable[[S], T], items: Sequence[S], log: Log = _silent, what: str = "{}") -> list[T]:
    """What `work` gives for each item, on all cores; tells how far it is, at first and then each half a minute."""
    results: list[T] = []
    due = time.monotonic()

    def one(item: S) -> T:
        with gdal_env():
            return work(item)

    with ThreadPoolExecutor(cores(), thread_name_prefix="pairs") as pool:
        for count, result in enumerate(pool.map(one, items)):
            if time.monotonic() >= due:
                log(f"labels by rules, {what.format(len(items))}: {count} done")
                due = time.monotonic() + _EVERY
            results.append(result)
    return results
