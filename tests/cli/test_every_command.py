"""What all commands have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from geo_refdiff.cli.main import cli, run


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Names and commands, those of groups in their place."""
    with click.Context(group) as context:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from commands(command, (*path, name))
            else:
                yield " ".join((*path, name)), command


def test_every_command_takes_debug() -> None:
    found = dict(commands(cli))
    assert {"upscale", "models import"} <= set(found)
    without = {name for name, command in found.items() if "--debug" not in {o for p in command.params for o in p.opts}}
    assert not without


@pytest.mark.parametrize("what", ["block", "pair"])
def test_progress_comes_as_lines_where_a_program_reads_it(
    what: str, make_raster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.random.default_rng(1).integers(1, 255, (3, 32, 32), np.uint8)
    for name in ("2018.tif", "2020.tif"):
        make_raster(name, values, pixel=0.6, names=("red", "green", "blue"))
    args = {
        "block": ["simulate", str(tmp_path / "2018.tif"), "-o", str(tmp_path / "lr.tif"), "--scale", "4"],
        "pair": ["index", str(tmp_path), "-o", str(tmp_path / "pairs.csv")],
    }[what]
    monkeypatch.setenv("GEO_REFDIFF_PROGRESS", "lines")
    assert run(args) == 0
    count = {"block": 1, "pair": 2}[what]
    assert f"{what} {count} of {count} (100%)\n" in capsys.readouterr().err
