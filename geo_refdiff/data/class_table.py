"""The class table of a published data set, and labels by its indices, its colours or the grey of its colours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.change.mask_files import pack_colour, pack_colours
from geo_refdiff.classes import CLASS_MAP, CLASSES, NO_CHANGE, UNKNOWN_CLASS
from geo_refdiff.errors import InputError

Encoding = Literal["colour", "index", "grey"]
ClassMap = Mapping[str, int] | Literal["own"] | None
_NAME = re.compile(r"[A-Za-z][A-Za-z.\-_/ ]*[A-Za-z.]")
_HEADINGS = (
    "class", "classes", "name", "index", "id", "label", "colour", "color", "rgb", "r", "g", "b", "value", "grey",
)  # fmt: skip
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class TableClass:
    """One class of a table: name as written, index, colour (red, green, blue) or None."""

    name: str
    index: int
    colour: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The classes of a data set, mapped to mask classes.

    Attributes:
        entries: as in the table.
        classes: names of the mask classes that labels are turned into; 0 is "no change".
        targets: for each entry its index in `classes`; 255 = changed to an unknown class.
    """

    entries: tuple[TableClass, ...]
    classes: tuple[str, ...]
    targets: tuple[int, ...]

    def decode(self, labels: NDArray[np.uint8], encoding: Encoding, where: str) -> NDArray[np.uint8]:
        """Labels as mask classes, (h, w) uint8.

        Args:
            labels: (h, w, 3) uint8 colours, or (h, w) uint8 indices or grey values.
            encoding: what they are.
            where: the file, for messages.

        Raises:
            InputError: lists the values that the table lacks.
        """
        codes = pack_colours(np.moveaxis(labels, -1, 0)) if encoding == "colour" else labels.astype(np.int64)
        out = np.full(codes.shape, UNKNOWN_CLASS, np.uint8)
        unknown = np.ones(codes.shape, np.bool_)
        for code, target in zip(self.codes(encoding), self.targets, strict=True):
            here = codes == code
            out[here] = target
            unknown &= ~here
        if unknown.any():
            raise InputError(
                f"{where}: {unknown_values(codes[unknown], encoding)}; correct the labels or CLASS_Table.txt"
            )
        return out

    def codes(self, encoding: Encoding) -> tuple[int, ...]:
        """Label value of each entry in this encoding; -1 where the table gives no colour."""
        if encoding == "index":
            return tuple(entry.index for entry in self.entries)
        colours = [entry.colour for entry in self.entries]
        if encoding == "grey":
            return tuple(-1 if c is None else _grey(c) for c in colours)
        return tuple(-1 if c is None else pack_colour(c) for c in colours)

    def encoding_of(self, values: Iterable[int], where: str) -> Encoding:
        """Whether one-band labels hold indices or the grey of the colours, by the values in them.

        Raises:
            InputError: neither; lists the values.
        """
        seen = set(values)
        for encoding in ("index", "grey"):
            if seen <= set(self.codes(encoding)):
                return encoding
        unknown = np.array(sorted(seen - set(self.codes("index")) - set(self.codes("grey"))) or sorted(seen))
        table = ", ".join(
            f"{e.index} or grey {g} {e.name}" for e, g in zip(self.entries, self.codes("grey"), strict=True)
        )
        raise InputError(f"{where}: {unknown_values(unknown, 'index')}; the table has {table}")


def unknown_values(codes: NDArray[np.integer], encoding: Encoding) -> str:
    """Values that are no class, with the count of each, for messages."""
    values, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_SHOWN]
    shown = []
    for value, count in zip(values[order].tolist(), counts[order].tolist(), strict=True):
        text = f"({value >> 16}, {value >> 8 & 255}, {value & 255})" if encoding == "colour" else str(value)
        shown.append(f"{text} x {count}")
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    what = "colours" if encoding == "colour" else "values"
    return f"{what} that are no class: {', '.join(shown)}{more}"


def _grey(colour: tuple[int, int, int]) -> int:
    """ITU-R 601 luma as image libraries round it."""
    red, green, blue = colour
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def read_class_table(path: Path, class_map: ClassMap = None) -> ClassTable:
    """Read a CLASS_Table.txt, see `parse_class_table`.

    Raises:
        InputError: no such file, or one that makes no sense.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: no class table; write one, a line a class: unchanged 255 255 255") from error
    return parse_class_table(text, str(path), class_map)


def parse_class_table(text: str, path: str, class_map: ClassMap = None) -> ClassTable:
    """A class table as text: a class a line, its name, its colour as three numbers, its index before or after them.

    What stands between does not matter; lines without numbers, comments (#) and headings are passed over. Classes
    without an index are counted in the order of the lines, "no change" first.

    Args:
        text: of the table.
        path: where it comes from, for messages.
        class_map: class name (lower case) -> index in CLASSES, or 255 for none, beside those of CLASS_MAP; "own":
            keep the table's classes as they are, "no change" first.

    Raises:
        InputError: a line that makes no sense, a class twice, a name that is not mapped, or no class
            for "no change".
    """
    parsed = (_parse(line, f"{path}, line {n}") for n, line in enumerate(text.splitlines(), 1))
    rows = [row for row in parsed if row is not None]
    if len(rows) < 2:
        raise InputError(f"{path}: {len(rows)} classes; give a line a class: unchanged 255 255 255")
    own = {} if class_map is None or class_map == "own" else dict(class_map)
    targets_of = {_plain(name): index for name, index in (CLASS_MAP | own).items()}
    names = [_plain(line.name) for line in rows]
    unchanged = [n for n, name in enumerate(names) if targets_of.get(name) == NO_CHANGE]
    if len(unchanged) != 1:
        raise InputError(
            f"{path}: {len(unchanged)} classes mean no change ({', '.join(names)}); give one, e.g. unchanged"
        )
    entries = _entries(rows, unchanged[0], path)
    if class_map == "own":
        order = sorted(range(len(entries)), key=lambda n: (n != unchanged[0], entries[n].index))
        classes = ("no change", *(names[n] for n in order[1:]))
        return ClassTable(entries, classes, tuple(order.index(n) for n in range(len(entries))))
    unmapped = [name for name in names if name not in targets_of]
    if unmapped:
        raise InputError(
            f"{path}: no model class for {', '.join(unmapped)}; map them with class_map or keep them: 'own'"
        )
    targets = tuple(targets_of[name] for name in names)
    wrong = [t for t in targets if not (0 <= t < len(CLASSES) or t == UNKNOWN_CLASS)]
    if wrong:
        raise InputError(f"{path}: class_map gives {wrong[0]}; give 0 to {len(CLASSES) - 1}, or 255 for none")
    return ClassTable(entries, CLASSES, targets)


def _plain(name: str) -> str:
    return " ".join(re.sub(r"[_\s]+", " ", name).strip().lower().split())


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a table: the name, the numbers behind it, and the index where it stands before the name."""

    name: str
    numbers: tuple[int, ...]
    index: int | None


def _parse(line: str, where: str) -> _Line | None:
    text = line.split("#")[0]
    words = [m for m in _NAME.finditer(text) if _plain(m.group()) not in _HEADINGS]
    word = max(words, key=lambda m: len(m.group()), default=None)
    numbers = [(int(m.group()), m.start()) for m in re.finditer(r"\d+", text)]
    if word is None or not numbers or (len(numbers) == 1 and numbers[0][0] > 255):
        return None
    values = tuple(value for value, _ in numbers)
    if len(values) not in (1, 3, 4) or max(values) > 255:
        raise InputError(f"{where}: '{line.strip()}' is no class; write its name, its colour (0 to 255) and its index")
    if len(values) == 3 or numbers[0][1] > word.start():
        return _Line(word.group(), values, None)
    return _Line(word.group(), values[1:], values[0])


def _entries(lines: Sequence[_Line], still: int, path: str) -> tuple[TableClass, ...]:
    """Names, indices and colours; of four numbers behind a name the index is the one that differs from line to line."""
    place = 0
    four = [line.numbers for line in lines if len(line.numbers) == 4]
    if four:
        ways = [p for p in (0, 3) if len({n[p] for n in four}) == len(four) and max(n[p] for n in four) <= len(lines)]
        if len(ways) != 1:
            raise InputError(f"{path}: which of four numbers is the index is not clear; write it before the name")
        place = ways[0]
    order = [still, *(n for n in range(len(lines)) if n != still)]
    entries = []
    for n, line in enumerate(lines):
        rest, index = list(line.numbers), line.index
        if len(rest) in (1, 4):
            index = rest.pop(place if len(rest) == 4 else 0)
        colour = (rest[0], rest[1], rest[2]) if rest else None
        entries.append(TableClass(line.name, order.index(n) if index is None else index, colour))
    colours = [entry.colour for entry in entries if entry.colour is not None]
    names, indices = [_plain(entry.name) for entry in entries], [entry.index for entry in entries]
    for what, values in (("name", names), ("index", indices), ("colour", colours)):
        twice = [str(value) for value, count in Counter(values).items() if count > 1]
        if twice:
            raise InputError(f"{path}: {what} {twice[0]} is there twice; give each class its own")
    return tuple(entries)
