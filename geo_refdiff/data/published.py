"""Data sets in the folders in which they are published, read as they are.

- SECOND (Yang et al. 2022): `im1`, `im2`, `label1`, `label2`, PNGs of one name; labels are colours of the class at
  either date where it changed, white elsewhere. Read in both orders of the dates.
- CNAM-CD (Zhou et al. 2023): `A`, `B`, `label`, TIFFs of one name; labels are indices of the class now.
- Both as repacked for reference-based super-resolution (Dong et al., CVPR 2024): `CD_mask`, `CD_mask_RGB`, `HR_<n>`,
  `Ref`, `real_LR_D<scale>_<n>` or `Bic_LR_D<scale>_<n>`, and `CLASS_Table.txt`.

They are in the folder itself or in folders of it for train, test and val. A `CLASS_Table.txt` beside them replaces the
class table that belongs to a layout.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geo_refdiff.classes import CLASSES, SECOND_COLOURS, UNKNOWN_CLASS
from geo_refdiff.data.class_table import ClassTable, Encoding, parse_class_table, read_class_table
from geo_refdiff.data.dataset import UNKNOWN_COVER, Crop, Numbers, Problems, ReadError, check_window
from geo_refdiff.data.matching import match_radiometry
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import DatasetOptions
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.window import Window

TABLE = "CLASS_Table.txt"
_SECOND_TABLE = "\n".join(f"{name} {red} {green} {blue}" for (red, green, blue), name in SECOND_COLOURS.items())
_CNAM_TABLE = """0 background
1 impervious surface
2 bare ground
3 vegetation
4 water bodies
5 other
"""
_COLOUR_MASKS = "CD_mask_RGB"
_SPLITS = ("train", "test", "val")
_IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
_HR = re.compile(r"HR(_\d+)?")
_LR = re.compile(r"(real|bic)_LR_D(\d+)_\d+", re.IGNORECASE)
_SAMPLED = 32
_STREAMED = 64 * 2**20
_RESIDENT = 1 << 62


class Order(NamedTuple):
    """Folders of one order of the dates: the new date, the reference, labels of the new date (None = there are none).

    Attributes:
        suffix: of the pairs' names.
    """

    new: Path
    ref: Path
    labels: Path | None
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one split.

    Attributes:
        home: folder that holds them.
        orders: of the dates.
        table: text of the class table that belongs to the layout; "" = it comes with the data.
    """

    home: Path
    orders: tuple[Order, ...]
    table: str = ""


def find_layout(folder: Path, labels: str = "auto") -> Layout | None:
    """The layout of the folders in a folder; None where they are in no such one.

    Args:
        folder: of one split.
        labels: which labels of the layout for super-resolution are wanted: "colour", "grey" or "auto".

    Raises:
        OptionError: labels that are not there.
    """
    if not folder.is_dir():
        return None
    inner = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    hr = _named(folder, _HR)
    if "ref" in inner and hr:
        return Layout(folder, (Order(hr[-1], inner["ref"], _mask_folder(folder, labels)),))
    if {"im1", "im2"} <= inner.keys():
        one, two = inner["im1"], inner["im2"]
        forth, back = Order(two, one, inner.get("label2")), Order(one, two, inner.get("label1"), " im2->im1")
        return Layout(folder, (forth, back), _SECOND_TABLE)
    if {"a", "b", "label"} <= inner.keys():
        return Layout(folder, (Order(inner["b"], inner["a"], inner["label"]),), _CNAM_TABLE)
    return None


def is_published(folder: Path) -> bool:
    """Whether a folder, or folders in it, have one of these layouts."""
    return bool(_split_folders(folder))


def published_splits(folder: Path) -> tuple[str, ...]:
    """The splits of a data set in one of these layouts."""
    return tuple(_split_folders(folder))


def _split_folders(folder: Path) -> dict[str, Path]:
    """Split -> folder: the folder itself, or folders in it, "train" first; "SECOND_train_set" is train."""
    if find_layout(folder) is not None:
        return {_split_name(folder, "train"): folder}
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    named = {_split_name(path, path.name): path for path in inner if find_layout(path) is not None}
    order = [*_SPLITS, *sorted(named.keys() - set(_SPLITS))]
    return {name: named[name] for name in order if name in named}


def _split_name(folder: Path, other: str) -> str:
    return next((split for split in _SPLITS if split in folder.resolve().name.lower()), other)


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and pattern.fullmatch(p.name))


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a pair; what a folder lacks is named as the new date is.

    Attributes:
        shape: (height, width), once it was looked at.
        sizes: of the files, bytes, likewise.
    """

    name: str
    new: Path
    ref: Path
    labels: Path | None
    shape: tuple[int, int] = (0, 0)
    sizes: tuple[int, ...] = ()

    def paths(self) -> list[Path]:
        return [path for path in (self.new, self.ref, self.labels) if path is not None]


def _pairs(home: Path, order: Order) -> list[_Files]:
    """The pairs of one order of the dates, by name."""
    names = {folder: _images(folder) for folder in order[:3] if folder is not None}

    def in_folder(folder: Path, stem: str) -> Path:
        return names[folder].get(stem, folder / names[order.new][stem].name)

    return [
        _Files(
            f"{home.name}/{path.name}{order.suffix}",
            path,
            in_folder(order.ref, stem),
            None if order.labels is None else in_folder(order.labels, stem),
        )
        for stem, path in names[order.new].items()
    ]


def _images(folder: Path) -> dict[str, Path]:
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in _IMAGES and p.is_file()}


class PublishedDataset:
    """The pairs of one split; a `PairDataset` with red, green, blue.

    Land cover of the new date is given where it changed. The reference is taken as registered.

    Args:
        folder: the data set, or one split of it.
        options: see `DatasetOptions`; without a split train is taken, or the first one there is. `resident` True reads
            all pairs now and holds them; "auto" holds those that were read, up to `budget` bytes; False only the last
            few.

    Attributes:
        problems: pairs that are left out.
        split: the one that was opened.

    Raises:
        InputError: the folder, its class table or its labels cannot be used.
        OptionError: no such split.
    """

    bands = ("red", "green", "blue")

    def __init__(self, folder: Path, options: DatasetOptions) -> None:
        self.split, self._home = _chosen_split(folder, options.split)
        layout = find_layout(self._home, options.labels)
        assert layout is not None
        self._match = options.match
        self._lr = {(m[1].lower(), int(m[2])): p for p in _named(self._home, _LR) if (m := _LR.fullmatch(p.name))}
        pairs = [pair for order in layout.orders for pair in _pairs(self._home, order)]
        if not pairs:
            raise InputError(f"{layout.orders[0].new}: holds no images; check that the data set is unpacked")
        self.problems = Problems(total=len(pairs))
        self._labels = layout.orders[0].labels
        self._table: ClassTable | None = None
        self._encoding: Encoding | None = None
        if self._labels is not None:
            self._table = _table(layout, options.class_map)
            self._encoding = self._find_encoding(pairs)
        self._pairs: list[_Files] = []
        budget = {True: _RESIDENT, False: _STREAMED, "auto": options.budget}[options.resident]
        self._kept = PairCache(budget)
        for pair in pairs:
            self._admit(pair, options)
        if not self._pairs:
            raise ReadError(f"{self._home}: no pair can be used; the first: {next(iter(self.problems)).reason}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask's classes."""
        return CLASSES if self._table is None else self._table.classes

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        """Name of the pair in messages."""
        return self._pairs[index].name

    def place(self, index: int) -> str:
        """The pair's place, alike for both orders of its dates."""
        return f"{self._home.name}/{self._pairs[index].new.stem}"

    def paths(self, index: int) -> tuple[Path, Path]:
        """The images of the new date and of the reference."""
        return self._pairs[index].new, self._pairs[index].ref

    def files(self, index: int) -> tuple[str, ...]:
        """The images of both dates, below the split's folder."""
        return tuple(path.relative_to(self._home).as_posix() for path in self.paths(index))

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width), output pixels."""
        return self._pairs[index].shape

    def numbers(self, index: int) -> Numbers:
        """uint8, as they are."""
        return Numbers()

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        """One window of a pair, copied.

        Raises:
            ReadError: a file cannot be read, or its labels are not in the class table.
        """
        window = check_window(self.name(index), self.shape(index), top, left, height, width)
        rows, cols = window.within(Window(0, 0, *self.shape(index)))
        return cut(self._kept.get(index, lambda: self._load(self._pairs[index])), rows, cols)

    @property
    def labelled(self) -> bool:
        """Whether the data set has labels."""
        return self._table is not None

    def mask(self, index: int) -> NDArray[np.uint8]:
        """The whole change mask of a pair, (h, w) classes; 255 everywhere where the data set has no labels.

        Raises:
            ReadError: the labels cannot be read, or are not in the class table.
        """
        return self._mask(self._pairs[index])

    def _mask(self, pair: _Files) -> NDArray[np.uint8]:
        path = pair.labels
        if path is None or self._table is None or self._encoding is None:
            return np.full(pair.shape, UNKNOWN_CLASS, np.uint8)
        labels = _label_image(path)
        if (labels.ndim == 3) != (self._encoding == "colour"):
            raise ReadError(
                f"{path}: {'colours' if labels.ndim == 3 else 'one band'}, unlike the other masks; make it alike"
            )
        try:
            return self._table.decode(labels, self._encoding, str(path))
        except InputError as error:
            raise ReadError(str(error)) from error

    def lr_kinds(self) -> tuple[tuple[str, int], ...]:
        """The LR images that come with the pairs: ("bic" or "real", scale)."""
        return tuple(sorted(self._lr))

    def read_lr(self, index: int, scale: int, kind: str | None = None) -> NDArray[np.uint8]:
        """The whole LR image of a pair that comes with the data set, (3, height / scale, width / scale) uint8.

        Args:
            index: of the pair.
            scale: output pixels along a scene pixel.
            kind: "bic" (bicubic, the test protocol) or "real"; None: bicubic if it is there.

        Raises:
            OptionError: the data set has no such LR images.
            ReadError: the file is missing, damaged or of another size.
        """
        folder = next(
            (self._lr[k, scale] for k in ([kind] if kind else ["bic", "real"]) if (k, scale) in self._lr), None
        )
        if folder is None:
            have = ", ".join(f"{k} {s}x" for k, s in self.lr_kinds()) or "none"
            raise OptionError(f"{self._home}: has no {kind or ''} LR images for {scale}x; it has {have}")
        path = folder / self._pairs[index].new.name
        image = _image(path).transpose(2, 0, 1)
        wanted = tuple(n // scale for n in self._pairs[index].shape)
        if image.shape[1:] != wanted:
            raise ReadError(f"{path}: is {image.shape[1:]} pixels, expected {wanted}; unpack it again")
        return np.ascontiguousarray(image)

    def fingerprint(self) -> str:
        """SHA-256 over names and sizes of the files in use, the classes and how they are read; no absolute path."""
        table = (self._table, self._encoding, self._labels.name if self._labels else None)
        digest = hashlib.sha256(repr((self._home.name, self._match, table)).encode())
        for pair in self._pairs:
            digest.update(repr((pair.name.removeprefix(f"{self._home.name}/"), list(pair.sizes))).encode())
        return digest.hexdigest()

    def _find_encoding(self, pairs: list[_Files]) -> Encoding:
        """Colours, indices or greys, judged from some of the labels together."""
        assert self._table is not None
        seen: set[int] = set()
        for pair in pairs[:: max(1, len(pairs) // _SAMPLED)]:
            if pair.labels is None:
                continue
            try:
                labels = _label_image(pair.labels)
            except ReadError:
                continue  # reported when the pair is read
            if labels.ndim == 3:
                return "colour"
            seen.update(np.unique(labels).tolist())
        return self._table.encoding_of(seen, str(self._labels)) if seen else "colour"

    def _admit(self, pair: _Files, options: DatasetOptions) -> None:
        try:
            shapes = [_size(path) for path in pair.paths()]
            if len(set(shapes)) > 1:
                raise ReadError(
                    f"{pair.new.name}: the dates and the labels differ in size: {', '.join(map(str, shapes))}; "
                    f"unpack it again"
                )
            pair = replace(pair, shape=shapes[0], sizes=tuple(path.stat().st_size for path in pair.paths()))
            if options.resident is True:
                self._kept.get(len(self._pairs), lambda: self._load(pair))
            self._pairs.append(pair)
        except ReadError as error:
            self.problems.add(pair.name, str(error), options.on_error)

    def _load(self, pair: _Files) -> Crop:
        new, ref = (np.ascontiguousarray(_image(path).transpose(2, 0, 1)) for path in (pair.new, pair.ref))
        everywhere = np.ones(new.shape[1:], np.bool_)
        if self._match:
            ref = match_radiometry(new, ref, everywhere)
        mask = self._mask(pair)
        classes = np.where(mask == UNKNOWN_CLASS, UNKNOWN_COVER, mask).astype(np.uint8)
        return Crop(new, ref, everywhere, everywhere, classes, mask)


def _chosen_split(folder: Path, split: str | None) -> tuple[str, Path]:
    splits = _split_folders(folder)
    wanted = split or next(iter(splits), None)
    if wanted is None or wanted not in splits:
        raise OptionError(
            f"{folder}: has no split '{wanted}' in one of the layouts; it has {', '.join(splits) or 'none'}"
        )
    return wanted, splits[wanted]


def _mask_folder(home: Path, labels: str) -> Path | None:
    folders = {"colour": home / _COLOUR_MASKS, "grey": home / "CD_mask"}
    if labels != "auto":
        if not folders[labels].is_dir():
            raise OptionError(f"{home}: no labels '{labels}'; give auto, colour (CD_mask_RGB) or grey (CD_mask)")
        return folders[labels]
    return next((folder for folder in folders.values() if folder.is_dir()), None)


def _table(layout: Layout, class_map: Mapping[str, int] | str | None) -> ClassTable:
    places = (layout.home / TABLE, layout.home.parent / TABLE)
    there = next((path for path in places if path.is_file()), None)
    if there is None and layout.table:
        return parse_class_table(layout.table, str(layout.home), class_map)  # type: ignore[arg-type]
    return read_class_table(there or places[1], class_map)  # type: ignore[arg-type]


def _size(path: Path) -> tuple[int, int]:
    """(height, width) from the header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise ReadError(_unreadable(path, error)) from error


def _image(path: Path) -> NDArray[np.uint8]:
    """Colours (h, w, 3) uint8."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ReadError(_unreadable(path, error)) from error


def _label_image(path: Path) -> NDArray[np.uint8]:
    """Labels: colours (h, w, 3), or one band (h, w); a palette: indices in CD_mask and label, else colours."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "RGB", "RGBA"):
                raise ReadError(f"{path}: labels of kind '{image.mode}'; save them as 8-bit grey or RGB PNG")
            indices = path.parent.name.lower() in ("cd_mask", "label")
            plain = image.mode == "L" or (image.mode == "P" and indices)
            return np.asarray(image if plain else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ReadError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    reason = (
        "no such file"
        if isinstance(error, FileNotFoundError)
        else f"cannot be read as an image ({one_line(error, 120)})"
    )
    return f"{path}: {reason}; unpack the data set again"


class PairCache:
    """The last used pairs by number, up to a number of bytes; safe in threads, and empty after unpickling.

    Args:
        budget: bytes; one pair is always kept.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._bytes = 0
        self._pairs: OrderedDict[int, Crop] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, index: int, make: Callable[[], Crop]) -> Crop:
        """The pair of this number, made if it is not in memory."""
        with self._lock:
            pair = self._pairs.get(index)
            if pair is not None:
                self._pairs.move_to_end(index)
                return pair
        made = make()
        with self._lock:
            if index not in self._pairs:
                self._pairs[index] = made
                self._bytes += _nbytes(made)
            while self._bytes > self._budget and len(self._pairs) > 1:
                self._bytes -= _nbytes(self._pairs.popitem(last=False)[1])
        return made

    def __getstate__(self) -> int:
        return self._budget

    def __setstate__(self, budget: Any) -> None:
        self.__init__(budget)  # type: ignore[misc]


def _nbytes(crop: Crop) -> int:
    return sum(part.nbytes for part in crop)


def cut(whole: Crop, rows: slice, cols: slice) -> Crop:
    """A window of a whole pair, copied."""
    new, ref, new_valid, ref_valid, classes, mask = whole
    at = (slice(None), rows, cols)
    return Crop(
        new[at].copy(),
        ref[at].copy(),
        new_valid[rows, cols].copy(),
        ref_valid[rows, cols].copy(),
        classes[rows, cols].copy(),
        mask[rows, cols].copy(),
    )
