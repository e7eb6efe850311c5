"""How progress is shown: one line that changes in a terminal, plain lines where a program reads them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

VARIABLE = "GEO_REFDIFF_PROGRESS"
"""Environment variable: "lines" asks for plain lines on stderr, as the QGIS plugin does."""


def as_lines() -> bool:
    """Whether somebody reads plain lines."""
    return os.environ.get(VARIABLE) == "lines"


def is_shown() -> bool:
    """Whether anybody looks."""
    return as_lines() or sys.stderr.isatty()


def show(text: str) -> None:
    """Replace the line, or add one."""
    click.echo(text if as_lines() else f"\r\033[K{text}", nl=as_lines(), err=True)


def show_count(what: str, done: int, total: int) -> None:
    """How many of something are done."""
    if is_shown():
        show(f"{what} {done} of {total} ({done / total:.0%})")


@contextmanager
def cleared() -> Iterator[None]:
    """Whatever happens within, the line is gone afterwards."""
    try:
        yield
    finally:
        clear()


def clear() -> None:
    """Remove the line."""
    if sys.stderr.isatty():
        click.echo("\r\033[K", nl=False, err=True)
