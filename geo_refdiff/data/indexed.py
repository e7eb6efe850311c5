"""Pairs of an index: rasters of any size on any grids, read by window, or held in memory where they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data.base import Crop, Numbers
from geo_refdiff.data.index import IndexRow, as_text
from geo_refdiff.data.pair_files import Image, Known, Labels, OpenPair, Reading, RowFiles, Shared
from geo_refdiff.data.problems import OnError, Problems, ReadError
from geo_refdiff.data.rasters import OpenFiles, named_bands
from geo_refdiff.errors import GeoRefDiffError, InputError
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.window import Window

Resident = bool | Literal["auto"]
BUDGET = 3 * 2**30
"""Bytes of pixels that "auto" holds in memory at most."""

_RULES = 3  # version of what is made of the files' pixels; part of the fingerprint


@dataclass(frozen=True, slots=True)
class _Date:
    """A new date in memory, shared by its pairs; valid None = everywhere."""

    values: Image
    valid: Known | None
    classes: Labels


@dataclass(frozen=True, slots=True)
class _Held:
    """A pair in memory; mask None = nowhere known."""

    new: _Date
    ref: Image
    ref_valid: Known | None
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
        reading: Reading,
        resident: Resident = "auto",
        budget: int = BUDGET,
        on_error: OnError = "skip",
    ) -> None:
        self.problems = Problems(total=len(rows))
        self._open = OpenFiles()
        with gdal_env():
            self._pairs = self._look(rows, root, reading, on_error)
            self._held: list[_Held] | None = None
            self.resident = self._nbytes() <= budget if resident == "auto" else resident
            if self.resident:
                self._held = self._load(on_error)
        if not self._pairs:
            first = next(iter(self.problems), None)
            why = f"; the first: {first.name}: {first.reason}" if first else ""
            raise ReadError(f"no pair of the index can be used ({self.problems.summary()}){why}")
        self._reading = self._pairs[0].reading

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
        """What a message calls the pair."""
        return self._pairs[index].row.name

    def files(self, index: int) -> tuple[str, ...]:
        """The images of both dates, as the index names them."""
        row = self._pairs[index].row
        return row.new, row.ref

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width) of the new date, HR pixels."""
        return self._pairs[index].shape

    def numbers(self, index: int) -> Numbers:
        """The digital numbers of the pair's files."""
        return self._pairs[index].numbers

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        """One window of a pair, as arrays of the caller's own.

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

    def _look(self, rows: Sequence[IndexRow], root: Path, reading: Reading, on_error: OnError) -> list[RowFiles]:
        shared = Shared()
        pairs = []
        for row in rows:
            if not row.valid:
                self.problems.flag(row.name, row.note)
                continue
            try:
                if not reading.bands:
                    reading = replace(reading, bands=named_bands(shared.look(root / row.new, "reference")))
                pairs.append(RowFiles(row, root, reading, shared))
            except InputError as error:
                self.problems.add(row.name, str(error), on_error)
        return pairs

    def _nbytes(self) -> int:
        return sum(pair.nbytes for pair in self._pairs)

    def _load(self, on_error: OnError) -> list[_Held]:
        dates: dict[tuple[object, ...], _Date] = {}
        held, good = [], []
        for pair in self._pairs:
            try:
                held.append(_load(pair, dates))
                good.append(pair)
            except GeoRefDiffError as error:
                self.problems.add(pair.row.name, str(error), on_error)
        self._pairs = good
        return held


def _load(pair: RowFiles, dates: dict[tuple[object, ...], _Date]) -> _Held:
    opened, whole = pair.open(), Window(0, 0, *pair.shape)
    try:
        key = (pair.row.new, pair.row.new_classes, pair.row.low, pair.row.high, pair.dtype)
        if key not in dates:
            values, valid = opened.new(whole)
            dates[key] = _Date(values, None if valid.all() else valid, opened.classes(whole, values, valid))
        date = dates[key]
        ref, ref_valid = opened.ref(whole)
        new_valid = np.ones(pair.shape, np.bool_) if date.valid is None else date.valid
        mask = opened.change(whole, date.values, new_valid, ref, ref_valid, date.classes)
    finally:
        opened.close()
    known = None if (mask == UNKNOWN_CLASS).all() else mask
    return _Held(date, ref, None if ref_valid.all() else ref_valid, known)


def check_window(name: str, shape: tuple[int, int], top: int, left: int, height: int, width: int) -> Window:
    """The window of a crop.

    Raises:
        ReadError: it does not lie inside the pair.
    """
    if min(top, left) < 0 or min(height, width) < 1 or top + height > shape[0] or left + width > shape[1]:
        wanted = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        raise ReadError(f"{name}: {wanted} reach outside its {shape[0]} x {shape[1]} pixels; ask for less")
    return Window(top, left, height, width)
