"""The error tree: one root, one line each, always with the value at fault and the way out."""

from __future__ import annotations

from geo_refdiff.signed_urls import unsigned


class GeoRefDiffError(Exception):
    """Root of every error raised on purpose by this package; its text is one line for a person.

    What cannot be printed, as it comes from names in damaged files, is escaped; URLs come without signatures.
    """

    def __str__(self) -> str:
        text = unsigned(super().__str__())
        return text if text.isprintable() else "".join(map(_printable, text))


class InputError(GeoRefDiffError):
    """An input file cannot be used: unreadable, not georeferenced, wrong bands or kind of data."""


class GridError(GeoRefDiffError):
    """Grids do not fit: no overlap, an empty area of interest, an impossible or doubtful projection."""


class ModelError(GeoRefDiffError):
    """A model folder is unknown, damaged, or not made for what is asked of it."""


class OptionError(GeoRefDiffError, ValueError):
    """An option has a value that makes no sense; the command line exits with 2."""


class OutputError(GeoRefDiffError):
    """The output cannot be written: it exists, the folder is missing or read-only, the disk is full."""


class WorkerError(GeoRefDiffError):
    """Workers cannot be had, or none of them can do what is asked; what is finished stays."""


class ResumeError(GeoRefDiffError):
    """A run cannot be resumed: the plan on disk is not the plan that is asked for, or another run holds it."""


class BusyError(ResumeError):
    """Another process is at work on the same output; the message names it."""


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else ascii(character)[1:-1]
