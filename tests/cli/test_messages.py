"""What commands say, and how loud: -v, -q, --log-file, notes before work begins, lines where there is no terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from geo_refdiff.cli import progress
from geo_refdiff.cli.main import cli, run

from .test_every_command import commands

SHORT = {"models list", "models info", "models import"}
Told = pytest.CaptureFixture[str]


@pytest.fixture
def job(make_pair: Any, tmp_path: Path) -> list[str]:
    """A small run with notes."""
    scene, ref = make_pair(16, 20)
    words = ["upscale", scene, "--ref", ref, "--model", "matched-ref", "--coregister", "off", "--products", "none"]
    return [*map(str, words), "-o", str(tmp_path / "o.tif"), "--overwrite"]


def test_every_long_command_takes_verbose_and_quiet() -> None:
    for name, command in commands(cli):
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert name in SHORT or {"-v", "-q", "--log-file"} <= flags, name


def test_notes_come_before_the_work_and_not_twice(
    job: list[str], capsys: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geo_refdiff.engine import block

    seen: list[str] = []
    compute = block.BlockComputer.compute

    def spied(self: block.BlockComputer, *args: Any) -> Any:
        seen.append(capsys.readouterr().err)
        return compute(self, *args)

    monkeypatch.setattr(block.BlockComputer, "compute", spied)
    assert run(job) == 0
    assert "note: scale 8x (the reference's pixels are 8 times finer)" in seen[0]
    assert "note: bands: red <- ref band 1 (red)" in seen[0]
    output = capsys.readouterr()
    assert "note:" not in output.out + output.err
    assert "160 x 128 pixels" in output.out


def test_quiet_says_errors_alone_and_json(job: list[str], capsys: Told) -> None:
    assert run([*job, "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert run([*job, "-q", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["notes"]
    assert output.err == ""
    assert run([*job, "-q", "--ref", "gone.tif"]) == 1
    assert capsys.readouterr().err.startswith("error: gone.tif: no such file")
    assert run([*job, "-q", "-v"]) == 2
    assert "give -v or -q, not both" in capsys.readouterr().err


def test_each_line_is_a_message(tmp_path: Path, capsys: Told, monkeypatch: Any) -> None:
    log = tmp_path / "log.txt"
    monkeypatch.setattr("geo_refdiff.train.run.train", lambda *args, log, **options: log("2 pairs:\n  a\n  b"))
    words = ["train", "cpu-minutes", "--set", 'data.train=["pairs.csv"]', "-o", str(tmp_path / "o")]
    assert run([*words, "--log-file", str(log)]) == 0
    assert capsys.readouterr().err.splitlines() == ["2 pairs:", "a", "b"]
    assert [line.rpartition("INFO ")[2] for line in log.read_text().splitlines()[-3:]] == ["2 pairs:", "a", "b"]


def test_verbose_says_each_step(job: list[str], capsys: Told) -> None:
    assert run(job) == 0
    assert "fitting the reference's values" not in capsys.readouterr().err
    assert run([*job, "-v"]) == 0
    output = capsys.readouterr().err
    assert "looking how the reference" in output
    assert re.search(r"^block 0 \(1 of 1\) took [0-9.]+ s$", output, re.MULTILINE)
    assert not logging.getLogger("geo_refdiff").handlers  # nothing is left behind


def test_a_log_file_holds_everything_and_is_appended_to(job: list[str], tmp_path: Path, capsys: Told) -> None:
    log = tmp_path / "run.log"
    assert run([*job, "-q", "--log-file", str(log)]) == 0
    first = log.read_text()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO) ", line) for line in first.splitlines())
    for part in ("geo-refdiff upscale", "note: scale 8x", "fitting the reference's values", "160 x 128 pixels"):
        assert part in first
    assert run([*job, "--ref", "gone.tif", "--log-file", str(log)]) == 1
    assert log.read_text().startswith(first)
    assert "ERROR error: gone.tif: no such file" in log.read_text()


@pytest.mark.parametrize("kind", ["foreign", "folder", "missing"])
def test_a_log_file_is_never_another_file(kind: str, job: list[str], tmp_path: Path, capsys: Told) -> None:
    scene = Path(job[1])
    before = scene.read_bytes()
    where = {"foreign": scene, "folder": tmp_path, "missing": tmp_path / "no" / "run.log"}[kind]
    assert run([*job, "--log-file", str(where)]) in (1, 2)
    output = capsys.readouterr().err
    assert str(where) in output
    assert output.count("\n") == 1
    assert scene.read_bytes() == before
    assert not (tmp_path / "o.tif").exists()


def test_without_a_terminal_there_is_a_line_a_minute_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: Told
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])

    @click.command()
    def slow() -> None:
        with progress.counted("tile") as show:
            for done in range(31):
                show(done, 40)
                now[0] += 10.0

    slow.main([], standalone_mode=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["tile 6 of 40 (15%), 5 min 40 s left", "tile 12 of 40 (30%), 4 min 40 s left"]
    assert len(lines) == 5


def test_validating_counts_tiles(job: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Told) -> None:
    assert run([*job, "-q"]) == 0
    monkeypatch.setenv("GEO_REFDIFF_PROGRESS", "lines")
    assert run(["validate", str(tmp_path / "o.tif"), "--scene", job[1]]) == 0
    assert capsys.readouterr().err == "tile 1 of 1 (100%)\n"


def test_a_batch_says_failures_even_when_quiet(make_pair: Any, tmp_path: Path, capsys: Told) -> None:
    import geopandas
    import shapely

    scene, _ = make_pair(16, 16)
    areas = tmp_path / "areas.gpkg"
    squares = {"here": (486_000, 5_208_800, 486_200, 5_209_100), "nowhere": (0, 0, 500, 500)}
    outlines = [shapely.box(*square) for square in squares.values()]
    geopandas.GeoDataFrame({"name": list(squares)}, geometry=outlines, crs="EPSG:26914").to_file(areas)
    command = ["batch", str(areas), "--scene", str(scene), "--out", str(tmp_path / "many"), "--model", "bicubic"]
    assert run([*command, "--scale", "2", "--products", "none", "-q"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert "nowhere failed: no scene of 1 overlaps the area" in output.err


@pytest.mark.parametrize(
    ("words", "completed"), [("geo-refdiff up", "upscale"), ("geo-refdiff upscale --mask-f", "--mask-field")]
)
def test_the_shell_completes_commands_and_options(words: str, completed: str) -> None:
    output = subprocess.run(
        [sys.executable, "-c", "from geo_refdiff.cli.main import main; main()"],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "_GEO_REFDIFF_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    assert output.stdout.splitlines() == [f"plain,{completed}"]
