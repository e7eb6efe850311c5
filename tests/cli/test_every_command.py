"""What all commands have in common."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import geopandas
import numpy as np
import pytest
import shapely

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
    result = dict(commands(cli))
    assert {"upscale", "models import"} <= set(result)
    without = {name for name, command in result.items() if "--debug" not in {o for p in command.params for o in p.opts}}
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


@pytest.fixture
def coarse_and_fine(make_pair: Any) -> dict[str, list[str]]:
    """Commands that write a GeoTIFF, but for its name."""
    scene, ref = map(str, make_pair(16, 20))
    return {
        "upscale": ["upscale", scene, "--model", "bicubic", "--scale", "2", "--overwrite"],
        "simulate": ["simulate", ref, "--scale", "4", "--overwrite"],
        "coregister": ["coregister", scene, ref, "--overwrite"],
        "detect-change": ["detect-change", scene, ref, "--overwrite"],
    }


@pytest.mark.parametrize("command", ["upscale", "simulate", "coregister", "detect-change"])
@pytest.mark.parametrize("name", ["x.png", "x.jp2", "x.img", "x"])
def test_a_geotiff_has_the_name_of_one(
    command: str, name: str, coarse_and_fine: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    out.write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    assert run([*coarse_and_fine[command], "-o", str(out)]) == 2
    assert capsys.readouterr().err == f"error: {out}: a GeoTIFF is written; call it x.tif\n"
    assert out.read_text() == "precious"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "option", "name"),
    [
        ("upscale", "-o", "x.tif"),
        ("simulate", "-o", "x.tif"),
        ("coregister", "-o", "x.tif"),
        ("coregister", "--report", "x.json"),
        ("coregister", "--picture", "x.png"),
        ("detect-change", "-o", "x.tif"),
        ("index", "-o", "x.csv"),
        ("batch", "--report", "x.html"),
    ],
)
@pytest.mark.parametrize("kind", ["fifo", "link to a device"])
def test_only_regular_files_are_replaced(
    command: str,
    option: str,
    name: str,
    kind: str,
    coarse_and_fine: dict[str, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, scene = tmp_path / name, str(tmp_path / "scene.tif")
    if kind == "fifo":
        os.mkfifo(out)
    else:
        out.symlink_to("/dev/null")
    commands = coarse_and_fine | {
        "index": ["index", str(tmp_path), "--overwrite"],
        "batch": ["batch", areas(tmp_path), "--scene", scene, "--out", str(tmp_path / "many"), "--overwrite"],
    }
    before = sorted(tmp_path.rglob("*"))
    assert run([*commands[command], option, str(out)]) == 1
    assert capsys.readouterr().err == f"error: {out}: is no regular file, which is never replaced; choose a file name\n"
    assert stat.S_ISFIFO(out.lstat().st_mode) if kind == "fifo" else out.is_symlink()
    assert sorted(tmp_path.rglob("*")) == before


def areas(folder: Path) -> str:
    """A file with one area."""
    path = folder / "areas.gpkg"
    corner = (486_000, 5_208_800, 486_200, 5_209_100)
    geopandas.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(*corner)], crs="EPSG:26914").to_file(path)
    return str(path)
