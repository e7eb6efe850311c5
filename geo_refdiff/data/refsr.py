"""The folder layout in which SECOND and CNAM-CD are published for reference-based super-resolution.

`train|test/{CD_mask, CD_mask_RGB, HR_<n>, Ref, real_LR_D<scale>_<n>, Bic_LR_D<scale>_<n>}/NAME.png` and
`CLASS_Table.txt` (Dong et al., CVPR 2024).
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geo_refdiff.classes import CLASSES, UNKNOWN_CLASS
from geo_refdiff.data.class_table import ClassTable, Encoding, read_class_table
from geo_refdiff.data.dataset import UNKNOWN_COVER, Crop, Numbers, OnError, Problems, ReadError
from geo_refdiff.data.indexed import BUDGET, Resident, check_window
from geo_refdiff.data.matching import match_radiometry
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.window import Window

Labels = Literal["auto", "colour", "grey"]
ClassMap = Mapping[str, int] | Literal["own"] | None
TABLE = "CLASS_Table.txt"
_COLOUR_MASKS = "CD_mask_RGB"
_SPLITS = ("train", "test", "val")
_HR = re.compile(r"HR(_\d+)?")
_LR = re.compile(r"(real|bic)_LR_D(\d+)_\d+", re.IGNORECASE)
_SAMPLED = 32
_STREAMED = 64 * 2**20


def is_refsr(folder: Path) -> bool:
    """Whether a folder, or its train or test folder, has this layout."""
    return folder.is_dir() and any(_holds_pairs(f) for f in (folder, *(folder / s for s in _SPLITS)))


def _holds_pairs(folder: Path) -> bool:
    return (folder / "Ref").is_dir() and bool(_named(folder, _HR))


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and pattern.fullmatch(p.name)) if folder.is_dir() else []


class RefSRDataset:
    """The pairs of one split; a `PairDataset` with red, green, blue.

    Land cover of the new date is known where it changed. The reference is taken as registered.

    Args:
        folder: the data set, or one split of it.
        split: "train" or "test"; None: train, or the only one there is.
        class_map: see `read_class_table`.
        labels: "colour" reads CD_mask_RGB, "grey" CD_mask, "auto" the first of them that is there.
        match: fit the reference's radiometry to the new date.
        resident: True reads all pairs now and holds them; "auto" holds those that were read, up to `budget` bytes;
            False only the last few.
        on_error: "skip" leaves out pairs whose files are missing or do not fit, "stop" raises.

    Attributes:
        problems: pairs that are left out.

    Raises:
        InputError: the folder, its class table or its labels cannot be used.
        OptionError: no such split.
    """

    bands = ("red", "green", "blue")

    def __init__(
        self,
        folder: Path,
        split: str | None = None,
        class_map: ClassMap = None,
        labels: Labels = "auto",
        match: bool = True,
        resident: Resident = "auto",
        budget: int = BUDGET,
        on_error: OnError = "skip",
    ) -> None:
        self._home = _split_folder(folder, split)
        self._hr, self._match = _named(self._home, _HR)[-1], match
        self._lr = {(m[1].lower(), int(m[2])): p for p in _named(self._home, _LR) if (m := _LR.fullmatch(p.name))}
        names = sorted(p.name for p in self._hr.glob("*.png"))
        if not names:
            raise InputError(f"{self._hr}: holds no PNG; check that the data set is unpacked")
        self.problems = Problems(total=len(names))
        self._masks = _mask_folder(self._home, labels)
        self._table: ClassTable | None = None
        self._encoding: Encoding | None = None
        if self._masks is not None:
            self._table = read_class_table(_table(self._home), class_map)
            self._encoding = self._find_encoding(names)
        self._names: list[str] = []
        self._shapes: list[tuple[int, int]] = []
        self._bytes: list[list[int]] = []
        self._kept = PairCache(_STREAMED if resident is False else (1 << 62 if resident is True else budget))
        for name in names:
            self._admit(name, resident is True, on_error)
        if not self._names:
            raise ReadError(f"{self._home}: no pair can be used; the first: {next(iter(self.problems)).reason}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask's classes."""
        return CLASSES if self._table is None else self._table.classes

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Name of the pair in messages."""
        return f"{self._home.name}/{self._names[index]}"

    def files(self, index: int) -> tuple[str, ...]:
        """The images of both dates, below the split's folder."""
        return f"{self._hr.name}/{self._names[index]}", f"Ref/{self._names[index]}"

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width), output pixels."""
        return self._shapes[index]

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
        return cut(self._kept.get(index, self._load), rows, cols)

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
        image = _png(folder / self._names[index]).transpose(2, 0, 1)
        wanted = tuple(n // scale for n in self._shapes[index])
        if image.shape[1:] != wanted:
            raise ReadError(
                f"{folder / self._names[index]}: is {image.shape[1:]} pixels, expected {wanted}; unpack it again"
            )
        return np.ascontiguousarray(image)

    def fingerprint(self) -> str:
        """SHA-256 over names and sizes of the files in use, the classes and how they are read; no absolute path."""
        table = (self._table, self._encoding, self._masks.name if self._masks else None)
        digest = hashlib.sha256(repr((self._home.name, self._match, table)).encode())
        for name, sizes in zip(self._names, self._bytes, strict=True):
            digest.update(repr((name, sizes)).encode())
        return digest.hexdigest()

    def _paths(self, name: str) -> list[Path]:
        return [folder / name for folder in (self._hr, self._home / "Ref", self._masks) if folder is not None]

    def _find_encoding(self, names: list[str]) -> Encoding:
        """Colours, indices or greys, judged from some of the masks together."""
        assert self._masks is not None
        assert self._table is not None
        seen: set[int] = set()
        for name in names[:: max(1, len(names) // _SAMPLED)]:
            try:
                labels = _label_png(self._masks / name)
            except ReadError:
                continue  # reported when the pair is read
            if labels.ndim == 3:
                return "colour"
            seen.update(np.unique(labels).tolist())
        return self._table.encoding_of(seen, str(self._masks)) if seen else "colour"

    def _admit(self, name: str, load: bool, on_error: OnError) -> None:
        try:
            shapes = [_size(path) for path in self._paths(name)]
            if len(set(shapes)) > 1:
                raise ReadError(
                    f"{name}: HR, Ref and mask differ in size: {', '.join(map(str, shapes))}; unpack it again"
                )
            self._names.append(name)
            self._shapes.append(shapes[0])
            self._bytes.append([path.stat().st_size for path in self._paths(name)])
            if load:
                self._kept.get(len(self._names) - 1, self._load)
        except ReadError as error:
            if self._names and self._names[-1] == name:
                self._names.pop()
                self._shapes.pop()
                self._bytes.pop()
            self.problems.add(f"{self._home.name}/{name}", str(error), on_error)

    def _load(self, index: int) -> Crop:
        paths = self._paths(self._names[index])
        new, ref = (np.ascontiguousarray(_png(path).transpose(2, 0, 1)) for path in paths[:2])
        everywhere = np.ones(new.shape[1:], np.bool_)
        if self._match:
            ref = match_radiometry(new, ref, everywhere)
        mask = np.full(new.shape[1:], UNKNOWN_CLASS, np.uint8)
        if self._table is not None and self._encoding is not None:
            mask = self._labels(paths[2], self._table, self._encoding)
        classes = np.where(mask == UNKNOWN_CLASS, UNKNOWN_COVER, mask).astype(np.uint8)
        return Crop(new, ref, everywhere, everywhere, classes, mask)

    def _labels(self, path: Path, table: ClassTable, encoding: Encoding) -> NDArray[np.uint8]:
        labels = _label_png(path)
        if (labels.ndim == 3) != (encoding == "colour"):
            raise ReadError(
                f"{path}: {'colours' if labels.ndim == 3 else 'one band'}, unlike the other masks; make it alike"
            )
        try:
            return table.decode(labels, encoding, str(path))
        except InputError as error:
            raise ReadError(str(error)) from error


def _split_folder(folder: Path, split: str | None) -> Path:
    if _holds_pairs(folder) and split in (None, folder.name):
        return folder
    there = [s for s in _SPLITS if _holds_pairs(folder / s)]
    wanted = split or next(iter(there), None)
    if wanted is None or wanted not in there:
        raise OptionError(f"{folder}: has no split '{wanted}' with HR_... and Ref; it has {', '.join(there) or 'none'}")
    return folder / wanted


def _mask_folder(home: Path, labels: Labels) -> Path | None:
    folders = {"colour": home / _COLOUR_MASKS, "grey": home / "CD_mask"}
    if labels != "auto":
        if labels not in folders or not folders[labels].is_dir():
            raise OptionError(f"{home}: no labels '{labels}'; give auto, colour (CD_mask_RGB) or grey (CD_mask)")
        return folders[labels]
    return next((folder for folder in folders.values() if folder.is_dir()), None)


def _table(home: Path) -> Path:
    places = (home / TABLE, home.parent / TABLE)
    return next((path for path in places if path.is_file()), places[1])


def _size(path: Path) -> tuple[int, int]:
    """(height, width) from the header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise ReadError(_unreadable(path, error)) from error


def _png(path: Path) -> NDArray[np.uint8]:
    """Colours (h, w, 3) uint8."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ReadError(_unreadable(path, error)) from error


def _label_png(path: Path) -> NDArray[np.uint8]:
    """Labels: colours (h, w, 3), or one band (h, w); of a palette its colours in CD_mask_RGB, else its indices."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P", "RGB", "RGBA"):
                raise ReadError(f"{path}: labels of kind '{image.mode}'; save them as 8-bit grey or RGB PNG")
            plain = image.mode == "L" or (image.mode == "P" and path.parent.name != _COLOUR_MASKS)
            return np.asarray(image if plain else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ReadError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    reason = (
        "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read as PNG ({one_line(error, 120)})"
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

    def get(self, index: int, make: Callable[[int], Crop]) -> Crop:
        """The pair of this number, made if it is not in memory."""
        with self._lock:
            pair = self._pairs.get(index)
            if pair is not None:
                self._pairs.move_to_end(index)
                return pair
        made = make(index)
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
