"""Strict reading of settings: mappings into frozen dataclasses, nothing unknown, nothing of the wrong kind."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from geo_refdiff.errors import OptionError

_T = TypeVar("_T")
_KINDS: dict[type, str] = {str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def from_mapping(cls: type[_T], raw: Mapping[str, Any], where: str) -> _T:
    """A dataclass, with all dataclasses in it, from a mapping; what is not given keeps its default.

    Args:
        cls: all its fields have defaults, and kinds out of str, int, float, bool, tuple, dict and dataclass.
        raw: as read from TOML or JSON.
        where: what an error calls it.

    Raises:
        OptionError: an unknown key (the nearest known one is named), a value of the wrong kind.
    """
    return _section(cls, raw, where, "", dict(_keys(cls)))


def _section(cls: type[_T], raw: Mapping[str, Any], where: str, name: str, known: Mapping[str, str]) -> _T:
    hints = get_type_hints(cls)
    own = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    for key in raw:
        if key not in own:
            raise OptionError(f"{where}: unknown key '{_dotted(name, key)}'; {_nearest(str(key), name, own, known)}")
    values = {}
    for key, value in raw.items():
        inner = _dotted(name, key)
        kind = hints[key]
        if is_dataclass(kind) and isinstance(kind, type):
            if not isinstance(value, Mapping):
                raise OptionError(f"{where}: {inner} is {value!r}: a section is needed")
            values[key] = _section(kind, value, where, inner, known)
        else:
            values[key] = _converted(kind, value, f"{where}: {inner}")
    return cls(**values)


def _keys(cls: type, name: str = "") -> Iterator[tuple[str, str]]:
    """All keys of a tree of dataclasses, dotted, each with its last part."""
    hints = get_type_hints(cls)
    for item in fields(cls):
        dotted = _dotted(name, item.name)
        yield dotted, item.name
        kind = hints[item.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from _keys(kind, dotted)


def _nearest(key: str, name: str, own: list[str], known: Mapping[str, str]) -> str:
    """The known key that looks most like an unknown one: in its own section, unless another section's fits better."""
    here = {_dotted(name, item): item for item in own}

    def likeness(dotted: str) -> float:
        return _likeness(key, known[dotted])

    best, other = max(here, key=likeness), max(known, key=likeness)
    return f"the nearest known one is '{other if likeness(other) > likeness(best) else best}'"


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _converted(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    origin = get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise OptionError(f"{where} is {value!r}: a list is needed")
        return tuple(_converted(get_args(kind)[0], item, where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise OptionError(f"{where} is {value!r}: a table is needed")
        return {str(key): _converted(get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise OptionError(f"{where} is {value!r}: {_KINDS[kind]} is needed")
    if isinstance(value, float) and not math.isfinite(value):
        raise OptionError(f"{where} is {value!r}: a finite number is needed")
    return value


def merged(below: Mapping[str, Any], above: Mapping[str, Any], whole: tuple[str, ...] = ()) -> dict[str, Any]:
    """One tree of tables laid over another, key by key; tables whose key is in `whole` are replaced, not mixed."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        mix = isinstance(old, Mapping) and isinstance(value, Mapping) and key not in whole
        both[key] = merged(old, value, whole) if mix and old is not None else value
    return both


def override(raw: dict[str, Any], text: str) -> None:
    """Set one value of a tree of tables: "section.key=VALUE", VALUE as in TOML, quotes may be left out.

    Raises:
        OptionError: it is not written so.
    """
    dotted, equals, value = text.partition("=")
    names = [name.strip() for name in dotted.split(".")]
    if not equals or len(names) < 2 or not all(names):
        raise OptionError(f"'{text}' is no setting: give section.key=value, as training.steps=500")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": value.strip()}
    if len(parsed) != 1:
        raise OptionError(f"'{text}' holds more than one setting: give each by itself")
    table = raw
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise OptionError(f"'{text}': {name} is no section")
    table[names[-1]] = parsed["value"]


def to_toml(table: Mapping[str, Any], name: str = "") -> str:
    """A tree of tables as TOML; values are texts, numbers, booleans and lists of these."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    parts = ["\n".join(([f"[{name}]"] if name and (lines or not table) else []) + lines)]
    parts += [to_toml(value, _dotted(name, _key(key))) for key, value in table.items() if key not in plain]
    return "\n\n".join(part for part in parts if part)


def _value(value: Any) -> str:
    """JSON's texts, numbers, booleans and lists are TOML's, but for one character that must be escaped there."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _value(key)


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else str(key)


def need(ok: bool, key: str, value: object, wanted: str) -> None:
    """Raise an OptionError unless a value is as it must be."""
    if not ok:
        raise OptionError(f"{key} is {value!r}: {wanted} is needed")


def at_least(section: object, name: str, least: float, *keys: str) -> None:
    """Each of these numbers must not be below `least`."""
    for key in keys:
        value = getattr(section, key)
        need(value >= least, f"{name}.{key}", value, f"{least:g} or more")


def positive(section: object, name: str, *keys: str) -> None:
    """Each of these numbers must be more than 0."""
    for key in keys:
        value = getattr(section, key)
        need(value > 0, f"{name}.{key}", value, "more than 0")


def shares(section: object, name: str, *keys: str) -> None:
    """Each of these numbers must lie in 0..1."""
    for key in keys:
        value = getattr(section, key)
        need(0 <= value <= 1, f"{name}.{key}", value, "a number from 0 to 1")


def one_of(section: object, name: str, key: str, known: tuple[str, ...]) -> None:
    """The value must be one of the known ones."""
    value = getattr(section, key)
    need(value in known, f"{name}.{key}", value, f"one of {', '.join(known)}")


def known_keys(table: Mapping[str, Any], name: str, known: tuple[str, ...]) -> None:
    """The table must have no key but the known ones."""
    for key in table:
        if key not in known:
            near = max(known, key=partial(_likeness, str(key)))
            raise OptionError(f"unknown key '{name}.{key}'; the nearest known one is '{name}.{near}'")
