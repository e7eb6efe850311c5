"""A pickle reader that cannot run anything.

A pickle is a program for a small stack machine, and its REDUCE, NEWOBJ, BUILD, INST, OBJ and EXT instructions call
whatever they name. This reader is its own machine over the instructions that `pickletools` takes apart: names become
`Global` records, calls become `Call` records, and nothing is imported, called, or given state. The few calls that
make a tensor get their meaning from the caller, through `rebuild` and `persistent`.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from geo_refdiff.errors import ModelError

Key = str | bytes | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle asks for; never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A call that the pickle asks for and that was not made.

    Attributes:
        function: what would have been called, a `Global` in honest files.
        args: its arguments.
        state: the state that would have been given to the result.
        entries: dictionary entries that would have been set in the result.
        elements: list elements that would have been appended to the result.
    """

    function: Any
    args: Any
    state: Any = None
    entries: dict[Key, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


Rebuild = Callable[[Global, tuple[Any, ...]], Any]
"""Meaning of a call to a known name, as inert data; NotImplemented leaves it a `Call`."""

_MARK = object()

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_LITERALS = frozenset(
    {
        *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)


def read_pickle(stream: BinaryIO, *, rebuild: Rebuild, persistent: Callable[[Any], Any]) -> Any:
    """The object that one pickle describes, as inert data; the stream is left behind its end.

    Args:
        stream: at the pickle's first byte.
        rebuild: the meaning of calls to known names, see `Rebuild`.
        persistent: the meaning of a persistent id.

    Returns:
        None, bool, int, float, str, bytes, tuple, list, dict, set, `Global`, `Call`, or what `rebuild` and `persistent`
        gave.

    Raises:
        ModelError: the stream is no pickle, or one that no honest file has.
    """
    machine = _Machine(rebuild, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except (ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, struct.error) as error:
        raise ModelError(f"damaged pickle: {' '.join(str(error).split())[:200]}") from error
    raise ModelError("damaged pickle: it ends too early")


class _Machine:
    """The stack machine; instructions as documented in the standard library's pickletools."""

    def __init__(self, rebuild: Rebuild, persistent: Callable[[Any], Any]) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.rebuild, self.persistent = rebuild, persistent

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def pop_to_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ValueError("no mark")

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value belongs")
        return self.stack[-1]

    def step(self, name: str, argument: Any) -> None:
        push = self.stack.append
        if name in _LITERALS:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name]())
        elif name in ("PROTO", "FRAME"):
            return
        elif name == "MARK":
            push(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.top()
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self.memo[int(argument)])
        elif name == "POP":
            self.stack.pop()
        elif name == "POP_MARK":
            self.pop_to_mark()
        elif name == "DUP":
            push(self.top())
        elif name in _BUILDERS:
            _BUILDERS[name](self, argument)
        else:
            raise ValueError(f"instruction {name} belongs in no model file")

    def call(self, function: Any, args: Any) -> None:
        known: Any = NotImplemented
        if isinstance(function, Global) and isinstance(args, tuple):
            known = self.rebuild(function, args)
        self.stack.append(Call(function, args) if known is NotImplemented else known)

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Call):
            target.elements.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise ValueError(f"elements for a {type(target).__name__}")

    def set_items(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, Call):
            target = target.entries
        if not isinstance(target, dict) or len(values) % 2:
            raise ValueError(f"entries for a {type(target).__name__}")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    def add(self, values: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, set):
            raise ValueError(f"members for a {type(target).__name__}")
        target.update(_key(value) for value in values)

    def build(self) -> None:
        state, target = self.pop(), self.top()
        if isinstance(target, Call):
            target.state = state

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a global whose name is no text")
        self.stack.append(Global(module, name))

    def class_call(self, values: list[Any]) -> None:
        self.call(values[0], tuple(values[1:]))

    def new_object(self, keywords: bool) -> None:
        if keywords:
            self.pop()
        args = self.pop()
        self.call(self.pop(), args)

    def dictionary(self, values: list[Any]) -> None:
        self.stack.append({})
        self.set_items(values)


_BUILDERS: dict[str, Callable[[_Machine, Any], None]] = {
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "LIST": lambda m, _: m.stack.append(m.pop_to_mark()),
    "DICT": lambda m, _: m.dictionary(m.pop_to_mark()),
    "FROZENSET": lambda m, _: m.stack.append({_key(value) for value in m.pop_to_mark()}),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items(list(reversed([m.pop(), m.pop()]))),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.add(m.pop_to_mark()),
    "GLOBAL": lambda m, text: m.stack.append(Global(*text.split(" ", 1))),
    "STACK_GLOBAL": lambda m, _: m.stack_global(),
    "EXT1": lambda m, code: m.stack.append(Global("copyreg extension", str(code))),
    "EXT2": lambda m, code: m.stack.append(Global("copyreg extension", str(code))),
    "EXT4": lambda m, code: m.stack.append(Global("copyreg extension", str(code))),
    "REDUCE": lambda m, _: m.new_object(keywords=False),
    "NEWOBJ": lambda m, _: m.new_object(keywords=False),
    "NEWOBJ_EX": lambda m, _: m.new_object(keywords=True),
    "INST": lambda m, text: m.class_call([Global(*text.split(" ", 1)), *m.pop_to_mark()]),
    "OBJ": lambda m, _: m.class_call(m.pop_to_mark()),
    "BUILD": lambda m, _: m.build(),
    "PERSID": lambda m, text: m.stack.append(m.persistent(text)),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.pop())),
}


def _key(value: Any) -> Key:
    """Keys and members must be plain: hashing a deeply nested tuple can exhaust the interpreter's own stack."""
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} as a key")
