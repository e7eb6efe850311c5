"""The files of one row of an index, read by window as one crop on the grid of the new date."""

from __future__ import annotations

import os
import threading
import warnings
import xml.etree.ElementTree as ET
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from geo_refdiff.change.mask_files import ClassMask
from geo_refdiff.classes import CLASSES, UNKNOWN_CLASS
from geo_refdiff.data.dataset import UNKNOWN_COVER, Crop, Numbers
from geo_refdiff.data.index import IndexRow
from geo_refdiff.data.labels import (
    CHANGE_REACH,
    COVER_REACH,
    NEEDED_BANDS,
    Tone,
    change_mask,
    land_cover,
    measure_tone,
)
from geo_refdiff.errors import InputError
from geo_refdiff.options import ReadOptions
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env
from geo_refdiff.raster.geobox import scene_geobox, translated
from geo_refdiff.raster.info import RasterInfo, Role, inspect
from geo_refdiff.raster.sampling import spread_tiles
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window

Image = NDArray[np.generic]
Valid = NDArray[np.bool_]
Labels = NDArray[np.uint8]
T = TypeVar("T")
_READERS = 4
_WHOLE, _VIEW, _VIEWS = 1024, 512, 3
_BANDS = ("red", "green", "blue", "nir")
_PICTURE_CRS = "EPSG:3857"
"""Any projected one does: nothing is transformed from or to it."""


def shifted(grid: GeoBox, shift: tuple[float, float]) -> GeoBox:
    """The grid on which an image is read to be moved by `shift` (rows, cols) pixels."""
    return GeoBox(grid.shape, translated(grid.affine, -shift[0], -shift[1]), grid.crs)


def sample_windows(height: int, width: int) -> list[Window]:
    """The windows over which statistics of an image are taken: all of a small one, else nine spread over it."""
    if max(height, width) <= _WHOLE:
        return [Window(0, 0, height, width)]
    return spread_tiles(Window(0, 0, height, width), _VIEW, _VIEWS, _VIEWS)


def named_bands(info: RasterInfo) -> tuple[str, ...]:
    """Names of the image bands in lower case; without names they are red, green, blue, nir in this order."""
    names = [(info.descriptions[band - 1] or "").strip().lower() for band in info.data_bands]
    if all(names) and len(set(names)) == len(names):
        return tuple(names)
    return tuple(_BANDS[i] if i < len(_BANDS) else f"band {i + 1}" for i in range(len(names)))


def pick_bands(info: RasterInfo, wanted: Sequence[str]) -> tuple[int, ...]:
    """1-based indices of the wanted bands.

    Raises:
        InputError: one is missing.
    """
    have = named_bands(info)
    missing = [name for name in wanted if name not in have]
    if missing:
        raise InputError(
            f"{info.path}: has no band {missing[0]}, only {', '.join(have)}; name its bands, or ask for less"
        )
    return tuple(info.data_bands[have.index(name)] for name in wanted)


class ReaderCache:
    """The last used readers of each thread; safe across threads, forks and pickling."""

    def __init__(self, limit: int = _READERS) -> None:
        self._limit = limit
        self._local = threading.local()

    def get(self, key: object, make: Callable[[], T], close: Callable[[T], None]) -> T:
        """The reader of this key in this thread, made if there is none; the least recently used is closed."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.process, self._local.held = os.getpid(), OrderedDict()
        held: OrderedDict[object, tuple[T, Callable[[T], None]]] = self._local.held
        entry = held.pop(key, None) or (make(), close)
        held[key] = entry
        while len(held) > self._limit:
            old, shut = held.popitem(last=False)[1]
            shut(old)
        return entry[0]

    def __getstate__(self) -> int:
        return self._limit

    def __setstate__(self, limit: int) -> None:
        self.__init__(limit)  # type: ignore[misc]


def rules_apply(reading: ReadOptions) -> bool:
    """Whether labels can be made by rules from the bands and classes that are read."""
    return set(NEEDED_BANDS) <= set(reading.bands) and reading.classes == CLASSES


def reach(reading: ReadOptions) -> int:
    """Pixels around a window on which its labels by rules depend."""
    if not rules_apply(reading):
        return 0
    return (COVER_REACH if reading.pseudo_classes else 0) + (CHANGE_REACH if reading.pseudo_change else 0)


@dataclass(slots=True)
class InfoCache:
    """Properties of the files that rows share.

    Attributes:
        infos: by path.
        tones: of new dates, by path below the root.
    """

    infos: dict[str, RasterInfo] = field(default_factory=dict)
    tones: dict[str, Tone] = field(default_factory=dict)

    def inspect(self, path: Path, role: Role) -> RasterInfo:
        """Inspect a file once; a picture without georeference is put on the pixel grid that all such pictures share.

        Raises:
            InputError: it cannot be used.
        """
        if str(path) not in self.infos:
            try:
                info = inspect(path, role)
            except InputError:
                grid = picture_grid(path)
                if grid is None:
                    raise
                info = inspect(path, role, grid)
            self.infos[str(path)] = info
        return self.infos[str(path)]


def picture_grid(path: Path) -> str | None:
    """A VRT that puts a picture without any georeference on a grid of 1 m pixels from (0, 0) down; None for others.

    Two dates as pictures of one size share a grid this way, wherever on Earth they are.
    """
    try:
        with gdal_env(), warnings.catch_warnings(), MemoryFile(ext=".vrt") as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                plain = dataset.crs is None and dataset.transform.is_identity
                if not plain or dataset.gcps[0] or dataset.rpcs:
                    return None
            rasterio.shutil.copy(str(path.absolute()), memory.name, driver="VRT")
            root = ET.fromstring(memory.read())
    except GDAL_ERRORS:
        return None
    root.insert(0, element("SRS", _PICTURE_CRS))
    root.insert(1, element("GeoTransform", "0, 1, 0, 0, 0, -1"))
    return ET.tostring(root, encoding="unicode")


def element(tag: str, text: str) -> ET.Element:
    """An XML element that holds text."""
    made = ET.Element(tag)
    made.text = text
    return made


def is_picture(info: RasterInfo) -> bool:
    """Whether a raster stands on the grid of `picture_grid`."""
    return info.vrt is not None


class PairFiles:
    """The files of a row of an index, checked to exist and to fit together.

    Args:
        row: paths relative to `root`.
        root: the data root.
        reading: how to read.
        infos: of the data set's files, added to here.

    Raises:
        InputError: a file is missing, damaged or lacks a band; gains for another number of bands; no range for data
            that are not uint8.
    """

    def __init__(self, row: IndexRow, root: Path, reading: ReadOptions, infos: InfoCache) -> None:
        self.row, self.reading, self.tones = row, reading, infos.tones

        self.new, self.ref = (infos.inspect(root / path, "reference") for path in (row.new, row.ref))
        labels = [infos.inspect(root / p, "mask") if p else None for p in (row.mask, row.new_classes, row.ref_classes)]
        self.mask, self.new_classes, self.ref_classes = labels
        pictures = [info for info in (self.new, self.ref, *labels) if info is not None and is_picture(info)]
        if pictures and (
            is_picture(self.new) != is_picture(self.ref) or {_size(i) for i in pictures} != {_size(self.new)}
        ):
            raise InputError(
                f"{pictures[0].path}: is not georeferenced; both dates and their labels must be so, and of one size"
            )
        for info in labels:
            if info is not None and info.dtype != "uint8":
                raise InputError(f"{info.path}: labels in {info.dtype}; save them as uint8 (gdal_translate -ot Byte)")
        self.new_bands, self.ref_bands = pick_bands(self.new, reading.bands), pick_bands(self.ref, reading.bands)
        self.fit = _fit(row, self.new, reading.bands)
        other = [info for info in (self.new, self.ref) if info.dtype != "uint8"]
        if other and row.low is None:
            raise InputError(
                f"{other[0].path}: holds {other[0].dtype}; give low and high in the index, or index it again"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the new date."""
        return self.new.height, self.new.width

    @property
    def whole(self) -> Window:
        """All of the new date."""
        return Window(0, 0, *self.shape)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """uint8 where both files hold it and no range is given, else float32."""
        return np.dtype("uint8" if self.row.low is None else "float32")

    @property
    def numbers(self) -> Numbers:
        """The digital numbers of the files."""
        low, high = self.row.low, self.row.high
        return Numbers() if low is None or high is None else Numbers(self.new.dtype, low, high)

    @property
    def nbytes(self) -> int:
        """Bytes of the pair in memory, the new date included."""
        pixels = self.new.height * self.new.width
        return pixels * (2 * len(self.reading.bands) * self.dtype.itemsize + 4)

    @property
    def cover_by_rules(self) -> bool:
        """Whether land cover of the new date is made by rules."""
        return self.new_classes is None and rules_apply(self.reading) and self.reading.pseudo_classes

    @property
    def change_by_rules(self) -> bool:
        """Whether change is made by rules."""
        return self.mask is None and rules_apply(self.reading) and self.reading.pseudo_change

    @property
    def date(self) -> tuple[object, ...]:
        """What makes the new dates of two pairs the same."""
        return self.row.new, self.row.new_classes, self.row.low, self.row.high, self.dtype

    def open(self) -> OpenPair:
        """Readers of the files, for one thread.

        Raises:
            GridError: the dates do not overlap, or no exact transformation between their CRSs.
        """
        return OpenPair(self)


class Dates(NamedTuple):
    """Pixels (C, h, w) of both dates in a window, the reference matched, and where they are valid (h, w)."""

    new: Image
    new_valid: Valid
    ref: Image
    ref_valid: Valid


class OpenPair:
    """The open files of a pair; for one thread."""

    def __init__(self, files: PairFiles) -> None:
        self.files, row = files, files.row
        shift = (row.shift_rows, row.shift_cols) if files.reading.match else (0.0, 0.0)
        grid = scene_geobox(files.new)
        self._new = WarpedReader(files.new, files.new_bands, grid, "nearest")
        self._ref = WarpedReader(files.ref, files.ref_bands, shifted(grid, shift), "cubic")
        self._mask = _labels(files.mask, grid)
        self._classes = _labels(files.new_classes, grid)
        self._ref_classes = _labels(files.ref_classes, shifted(grid, shift))

    def close(self) -> None:
        """Closes the files."""
        for reader in (self._new, self._ref, self._mask, self._classes, self._ref_classes):
            if reader is not None:
                reader.close()

    def new(self, window: Window) -> tuple[Image, Valid]:
        """The new date, 0..255, and where it is valid."""
        values, valid = self._new.read(window)
        return self._finished(self._ranged(values), valid), valid

    def ref(self, window: Window) -> tuple[Image, Valid]:
        """The reference, registered and fitted radiometrically to the new date, and where it is valid."""
        values, valid = self._ref.read(window)
        values = self._ranged(values)
        if self.files.fit is not None and self.files.reading.match:
            gain, offset = self.files.fit
            values = values.astype(np.float32, copy=False) * gain + offset
        return self._finished(values, valid), valid

    def classes(self, window: Window, new: Image, valid: Valid) -> Labels:
        """Land cover of the new date; `new`: its pixels in the window."""
        if self._classes is not None:
            return _cover_labels(self._classes.read(window), len(self.files.reading.classes))
        return self._rules(new, valid)

    def before(self, window: Window) -> Labels | None:
        """Land cover of the reference from a file; None where there is none."""
        if self._ref_classes is None:
            return None
        return _cover_labels(self._ref_classes.read(window), len(self.files.reading.classes))

    def mask(self, window: Window) -> Labels | None:
        """Change classes from a file; None where there is none."""
        if self._mask is None:
            return None
        mask, classes = self._mask.read(window), len(self.files.reading.classes)
        wrong = mask[(mask >= classes) & (mask != UNKNOWN_CLASS)]
        if wrong.size:
            path = self.files.mask.path if self.files.mask else ""
            raise InputError(f"{path}: the mask holds {wrong[0]}; give 0 to {classes - 1}, or 255")
        return mask

    def change(self, dates: Dates, now: Labels, before: Labels | None) -> Labels:
        """Change classes by rules, 255 where they do not apply or data are missing.

        Args:
            dates: pixels of both dates.
            now: land cover of the new date.
            before: of the reference; None: by rules.
        """
        reading = self.files.reading
        if not self.files.change_by_rules:
            return np.full(now.shape, UNKNOWN_CLASS, np.uint8)
        if before is None:
            before = self._rules(dates.ref, dates.ref_valid)
        both = dates.new_valid & dates.ref_valid
        then = np.where(both, dates.ref, dates.new)  # no edges where data end
        before = np.where(both, before, now)
        mask = change_mask(rule_bands(dates.new, reading), rule_bands(then, reading), now, before, self.tone)
        mask[~both] = UNKNOWN_CLASS
        return mask

    @property
    def tone(self) -> Tone:
        """The tone of the new date as a whole, measured once."""
        tone = self.files.tones.get(self.files.row.new)
        if tone is None:
            views = [self.new(window) for window in sample_windows(*self.files.shape)]
            shown = [rule_bands(values, self.files.reading)[:, valid] for values, valid in views]
            tone = measure_tone(shown)
            self.files.tones[self.files.row.new] = tone
        return tone

    def read(self, window: Window) -> Crop:
        """One window as a crop; pixels do not depend on how windows are cut."""
        area = window.pad(reach(self.files.reading)).intersect(self.files.whole) or window
        dates = Dates(*self.new(area), *self.ref(area))
        classes = self.classes(area, dates.new, dates.new_valid)
        mask = self.mask(area)
        if mask is None:
            mask = self.change(dates, classes, self.before(area))
        at = window.within(area)
        new, new_valid, ref, ref_valid = dates
        return Crop(new[:, *at], ref[:, *at], new_valid[at], ref_valid[at], classes[at], mask[at])

    def _ranged(self, values: Image) -> Image:
        if self.files.row.low is None:
            return values
        return self.files.numbers.scaled(values.astype(np.float32))

    def _finished(self, values: Image, valid: Valid) -> Image:
        dtype = self.files.dtype
        if values.dtype == dtype == np.uint8:
            return values
        finished = values.astype(np.float32, copy=False)
        if dtype == np.uint8 or self.files.reading.clip:
            finished = np.clip(finished, 0.0, 255.0)
        if dtype == np.uint8:
            finished = np.rint(finished)
        finished[:, ~valid] = 0
        return finished.astype(dtype, copy=False)

    def _rules(self, image: Image, valid: Valid) -> Labels:
        reading = self.files.reading
        if not (rules_apply(reading) and reading.pseudo_classes):
            return np.full(valid.shape, UNKNOWN_COVER, np.uint8)
        labels = land_cover(rule_bands(image, reading), self.tone)
        labels[~valid] = UNKNOWN_COVER
        return labels


def _fit(
    row: IndexRow, new: RasterInfo, bands: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Gain and offset of the bands that are read, each (C, 1, 1)."""
    if not row.gain:
        return None
    names = named_bands(new)
    if len(row.gain) != len(names):
        raise InputError(f"{new.path}: {len(names)} bands, but the index has {len(row.gain)} gains; index it again")
    at = [names.index(name) for name in bands]
    gain, offset = (np.array(v, np.float32)[at][:, None, None] for v in (row.gain, row.offset))
    return gain, offset


def _size(info: RasterInfo) -> tuple[int, int]:
    return info.height, info.width


def _labels(info: RasterInfo | None, grid: GeoBox) -> ClassMask | None:
    return None if info is None else ClassMask(info, grid)


def rule_bands(image: Image, reading: ReadOptions) -> NDArray[np.uint8]:
    """Red, green, blue, nir of an image, 0..255, as the rules for labels take them."""
    picked = image[[reading.bands.index(name) for name in NEEDED_BANDS]]
    return picked if picked.dtype == np.uint8 else np.rint(np.clip(picked, 0, 255)).astype(np.uint8)  # type: ignore[return-value]


def _cover_labels(labels: Labels, classes: int) -> Labels:
    return np.where(labels < classes, labels, UNKNOWN_COVER).astype(np.uint8)
