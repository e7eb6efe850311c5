"""Every command line of the pages, and of the help texts, is one that the command understands; nothing is run."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import click
import pytest

from geo_refdiff.cli.main import cli

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "models", "benchmarks", "sample_tiles", "qgis_plugin")
PAGES = [ROOT / "README.md", *(page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md")))]
HELP = sorted((ROOT / "cli").glob("*.py"))


def commands(path: Path) -> list[str]:
    """Lines of code that begin with the command, without comments; what stands in brackets is part of them."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ *(geo-refdiff [a-z].*)$", text, re.MULTILINE)
    return [re.sub(r"\[(--[^\]]*)\]", r"\1", re.sub(r"\s+#.*$", "", line)) for line in lines]


def understand(line: str) -> None:
    """Parse a command line.

    Raises:
        ClickException: it cannot be.
    """
    command: click.Command | None = cli
    _, *words = shlex.split(line)
    name = ""
    while isinstance(command, click.Group):
        name, *words = words
        command = command.get_command(click.Context(command), name)
    assert command is not None, f"no command {name}"
    if "--config" in words:  # a file, which is not there, says the rest
        command.make_parser(click.Context(command)).parse_args(words)
        return
    with contextlib.suppress(click.exceptions.Exit):  # of --help and --list
        command.make_context(name, words)


@pytest.mark.parametrize("path", [*PAGES, *HELP], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_understood(path: Path) -> None:
    for line in commands(path):
        try:
            understand(line)
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.format_message()}")


def test_there_are_many() -> None:
    assert sum(len(commands(path)) for path in PAGES) > 60
    assert len(commands(ROOT / "README.md")) > 10
