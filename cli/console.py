"""What commands say: results on stdout; the rest on stderr, as loud as -v and -q ask for, and in a log file."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import click

from geo_refdiff import __version__
from geo_refdiff.errors import OptionError
from geo_refdiff.signed_urls import unsigned

LOG = logging.getLogger("geo_refdiff.cli")

_Command = TypeVar("_Command", bound=Callable[..., Any])

_LOGGERS = ("geo_refdiff", "rasterio")
_BUSY = re.compile(r"HTTP error code: (\d+) - (\S+)\. Retrying again in ([0-9.]+) secs")
_REFUSED = re.compile(r"failed with response_code=([45]\d\d)")
_OWN = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")


class Result(Protocol):
    """What a command has made."""

    def to_dict(self) -> dict[str, Any]: ...


class Console(logging.Handler):
    """Prints what is logged on stderr: errors always, notes and progress unless -q, steps with -v.

    Of all that GDAL warns of it says, without -v, only that a server does not answer.

    Args:
        args: the command line, for the log file.
    """

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(logging.INFO)
        self._args = args
        self._last = ""
        self._file: logging.FileHandler | None = None

    @classmethod
    def current(cls) -> Self | None:
        """That of the command that runs; None where a command is called without `run`."""
        context = click.get_current_context(silent=True)
        return None if context is None else context.find_object(cls)

    @property
    def quiet(self) -> bool:
        """Whether only errors are said."""
        return self.level > logging.WARNING

    @property
    def keeps(self) -> bool:
        """Whether there is a log file."""
        return self._file is not None

    @contextmanager
    def listening(self) -> Iterator[Self]:
        """Hear the loggers of the package and of rasterio; the log file is closed at the end."""
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        package, level = loggers[0], loggers[0].level
        package.setLevel(logging.DEBUG)
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield self
        finally:
            for logger in loggers:
                logger.removeHandler(self)
                if self._file is not None:
                    logger.removeHandler(self._file)
            if self._file is not None:
                self._file.close()
            package.setLevel(level)

    def keep(self, path: Path) -> None:
        """Write everything into a file, too, at its end.

        Raises:
            OptionError: it holds something else than such lines.
            OutputError: it cannot be written, or is no regular file.
        """
        from geo_refdiff.raster.files import check_replaceable, output_error

        check_replaceable(path)
        try:
            if path.is_file() and path.stat().st_size:
                with path.open("rb") as stream:
                    if not _OWN.match(stream.read(64)):
                        raise OptionError(f"--log-file {path}: holds something else than a log; choose another name")
            self._file = logging.FileHandler(path, encoding="utf-8")
        except OSError as error:
            raise output_error(path, error) from error
        self._file.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self._file)
        LOG.debug("geo-refdiff %s: %s", __version__, shlex.join(["geo-refdiff", *self._args]))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, unless it is in a terminal's bars already or says the same once more."""
        text = _one_line(record.getMessage())
        if getattr(record, "drawn", False):
            return
        if record.name.startswith("rasterio"):
            text = _of_gdal(text, self.level <= logging.DEBUG)
        if record.levelno == logging.WARNING and text:
            text = f"note: {text}"
            if text == self._last:
                return
            self._last = text
        if text:
            print(text, file=sys.stderr, flush=True)  # above the bars of a terminal, which click.echo would write into


class _OneLine(logging.Formatter):
    """Each record on a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        return _one_line(super().format(record))


def _of_gdal(text: str, everything: bool) -> str:
    """A warning of GDAL in the words of people; "" where it is nothing for them."""
    busy, refused = _BUSY.search(text), _REFUSED.search(text)
    if busy:
        return f"HTTP status {busy[1]} from {busy[2]}; asking again in {busy[3]} s"
    if refused:
        return f"HTTP status {refused[1]} from a server"
    return text if everything else ""


def _one_line(text: str) -> str:
    return unsigned(" ".join(text.split()))


def say(text: str, level: int = logging.INFO, *, drawn: bool = False) -> None:
    """Say something on stderr and in the log file.

    Args:
        text: a line, or several, each of which is a message.
        level: as of `logging`; -q leaves errors alone.
        drawn: a terminal shows it already.
    """
    if not drawn and not any(isinstance(handler, Console) for handler in logging.getLogger(_LOGGERS[0]).handlers):
        click.echo(text, err=True)  # a command that is called without `run`
    for line in text.splitlines():
        LOG.log(level, "%s", line, extra={"drawn": drawn})


def show(result: Result, as_json: bool, words: str | None = None) -> None:
    """Print what a command has made.

    Args:
        result: with `to_dict`, and with words of its own.
        as_json: for machines, also with -q.
        words: instead of its own.
    """
    text = str(result) if words is None else words
    if as_json:
        click.echo(json.dumps(result.to_dict(), allow_nan=False))
    else:
        show_text(text)


def show_text(text: str) -> None:
    """Print a result in words, unless -q."""
    console = Console.current()
    if console is None or not console.quiet:
        click.echo(text)
    say(text, drawn=True)


def _level_option(short: str, long: str, level: int, text: str) -> Callable[[_Command], _Command]:
    def set_level(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
        console = context.find_object(Console)
        if not wanted or console is None:
            return
        if console.level != logging.INFO:
            raise click.UsageError("give -v or -q, not both", context)
        console.setLevel(level)

    return click.option(short, long, is_flag=True, expose_value=False, is_eager=True, callback=set_level, help=text)


def _keep(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    console = context.find_object(Console)
    if path is not None and console is not None:
        console.keep(path.expanduser())


def message_options(command: _Command) -> _Command:
    """-v, -q and --log-file, for commands that take a while; the command itself does not see them."""
    for option in (
        click.option(
            "--log-file",
            metavar="FILE",
            type=click.Path(path_type=Path),
            expose_value=False,
            is_eager=True,
            callback=_keep,
            help="Also write what is said, and each step with its time, at the end of this file.",
        ),
        _level_option("-q", "--quiet", logging.ERROR, "Say nothing but errors; what --json prints is printed."),
        _level_option("-v", "--verbose", logging.DEBUG, "Say each step, and what GDAL warns of."),
    ):
        command = option(command)
    return command
