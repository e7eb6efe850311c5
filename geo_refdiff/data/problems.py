"""Pairs that cannot be used: listed by name, counted, told in one line or in full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from geo_refdiff.errors import InputError, OptionError

OnError = Literal["skip", "stop"]


class ReadError(InputError):
    """A file of a data set cannot be read: missing, damaged, or holding what it should not."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One pair that is left out.

    Attributes:
        name: of the pair.
        reason: one line, with the file and what is wrong with it.
    """

    name: str
    reason: str


@dataclass(slots=True)
class Problems:
    """What a data set leaves out; its text is for the user.

    Attributes:
        total: pairs listed, the good ones included.
        unusable: pairs whose files are missing or unreadable.
        flagged: pairs that the index itself marks as not valid.
    """

    total: int = 0
    unusable: list[Problem] = field(default_factory=list)
    flagged: list[Problem] = field(default_factory=list)

    def add(self, name: str, reason: str, on_error: OnError) -> None:
        """Note a pair that cannot be used.

        Raises:
            ReadError: with on_error "stop".
        """
        if on_error == "stop":
            raise ReadError(f"{name}: {reason}")
        self.unusable.append(Problem(name, reason))

    def flag(self, name: str, note: str) -> None:
        """Note a pair that the index marks as not valid."""
        self.flagged.append(Problem(name, note or "marked as not valid"))

    def __len__(self) -> int:
        return len(self.unusable)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.unusable)

    def summary(self) -> str:
        """One line: how many pairs are used, left out as unreadable, and flagged in the index."""
        used = self.total - len(self.unusable) - len(self.flagged)
        parts = [f"{used} of {self.total} pairs are used"]
        if self.unusable:
            parts.append(f"{len(self.unusable)} left out as missing or unreadable")
        if self.flagged:
            parts.append(f"{len(self.flagged)} flagged as not valid")
        return ", ".join(parts)

    def __str__(self) -> str:
        """The summary, then each unreadable pair with its reason, one a line."""
        return "\n".join([self.summary(), *(f"  {problem.name}: {problem.reason}" for problem in self.unusable)])


def check_on_error(on_error: str) -> OnError:
    """The option as given.

    Raises:
        OptionError: neither "skip" nor "stop".
    """
    if on_error == "skip":
        return "skip"
    if on_error == "stop":
        return "stop"
    raise OptionError(f"on_error '{on_error}' is unknown; give skip or stop")
