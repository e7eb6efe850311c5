"""Strict decoding of what people write: into dataclasses and typed dictionaries, nothing unknown, nothing wrong."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from reprlib import Repr
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from geo_refdiff.errors import GeoRefDiffError, OptionError

_T = TypeVar("_T")
_WHERE = re.compile(r"(.*) - at `(?:key in )?\$(.*)`", re.DOTALL)
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_LONGEST_KEY = 80
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxtuple = 12


def decode(kind: type[_T], raw: Mapping[str, Any], where: str = "", error: type[GeoRefDiffError] = OptionError) -> _T:
    """A record, with all records in it, from a mapping; what is not given keeps its default.

    Args:
        kind: dataclass or TypedDict; limits of numbers by `msgspec.Meta`, whatever else by `__post_init__`.
        raw: as read from TOML or JSON.
        where: what an error calls it, "" = nothing.
        error: the error to raise.

    Raises:
        GeoRefDiffError: (`error`) an unknown key (the nearest known one is named), a value of the wrong type or out of
            its range, with path and value.
    """
    head = f"{where}: " if where else ""
    try:
        _check(kind, raw, "", dict(_keys(kind)))
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as wrong:
        raise error(f"{head}{_explained(wrong, kind, raw)}") from None
    except ValueError as wrong:
        raise error(f"{head}{wrong}") from None


def plain(value: Any) -> Any:
    """A record as JSON or TOML hold it; of records what is None or empty is left out."""
    if is_dataclass(value):
        held = ((item.name, getattr(value, item.name)) for item in fields(value))
        return {name: plain(part) for name, part in held if part is not None and part not in ((), {})}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def _check(kind: Any, raw: Any, name: str, every: Mapping[str, str]) -> None:
    """Whether every key is known and every number finite."""
    own = _fields(kind)
    if not isinstance(raw, Mapping):
        if own is not None:
            if raw is None and NoneType in get_args(kind):
                return
            raise ValueError(f"{name} is {_SHORT.repr(raw)}: a section is needed")
        if isinstance(raw, float) and not math.isfinite(raw):
            raise ValueError(f"{name} is {raw!r}: a finite number is needed")
        return
    for key, value in raw.items():
        inner = _dotted(name, key)
        if own is not None and key not in own:
            shown = inner if len(inner) <= _LONGEST_KEY else f"{inner[:_LONGEST_KEY]}..."
            raise ValueError(f"unknown key '{shown}'; {_nearest(str(key)[:_LONGEST_KEY], name, list(own), every)}")
        _check(own[key] if own is not None else None, value, inner, every)


def _fields(kind: Any) -> dict[str, Any] | None:
    """The fields of a record, or of one that may be None, with their types."""
    if NoneType in get_args(kind):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    return get_type_hints(kind, include_extras=True) if is_dataclass(kind) or is_typeddict(kind) else None


def _keys(kind: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """All keys of a tree of records, dotted, each with its last part."""
    for key, inner in (_fields(kind) or {}).items():
        dotted = _dotted(name, key)
        yield dotted, key
        yield from _keys(inner, dotted)


def _nearest(key: str, name: str, own: list[str], every: Mapping[str, str]) -> str:
    """The known key that looks most like an unknown one: in its own section, unless another section's fits better."""

    def likeness(dotted: str) -> float:
        return difflib.SequenceMatcher(None, key, every[dotted]).ratio()

    best, other = max((_dotted(name, item) for item in own), key=likeness), max(every, key=likeness)
    return f"the nearest known one is '{other if likeness(other) > likeness(best) else best}'"


def _explained(wrong: msgspec.ValidationError, kind: Any, raw: Any) -> str:
    """msgspec's message with the value and, for one of several words, the words."""
    parts = _WHERE.fullmatch(str(wrong))
    if parts is None:
        return str(wrong)
    text, path = parts[1], parts[2].removeprefix(".")
    value = raw
    for step in _STEP.finditer(path):
        kind = (_fields(kind) or {}).get(step[1]) if step[1] else None
        try:
            value = value[step[1] if step[1] else int(step[2])]
        except (KeyError, IndexError, TypeError):
            return f"{path}: {text}"
    if get_origin(kind) is Literal:
        text = f"choose {', '.join(map(str, get_args(kind)))}"
    if isinstance(value, Mapping) and not text.startswith("Expected"):
        return f"{path}: {text}"  # said by `__post_init__`, with what is wrong in it
    return f"{path} is {_SHORT.repr(value)}: {text[:1].lower()}{text[1:]}"


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else str(key)
