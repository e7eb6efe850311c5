"""`geo-refdiff train` as it is typed: presets, dry runs, one-line errors, exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from geo_refdiff.cli.main import run
from geo_refdiff.train.config import presets
from geo_refdiff.train.loop import TrainingInterrupted

TINY = [
    "cpu-minutes",
    *("--set", 'data.train=["pairs.csv"]'),
    *("--set", "data.validation=[]"),
    *("--set", "model.widths=[8,8]"),
    *("--set", "samples.crop=32"),
    *("--set", "training.steps=1"),
    *("--device", "cpu"),
]


@pytest.fixture
def here(landscapes: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where pairs.csv can be found."""
    index = landscapes("1-1", 64)
    (tmp_path / "pairs.csv").symlink_to(index)
    (tmp_path / index.stem).symlink_to(index.with_suffix(""))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_presets_are_listed_each_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(presets())
    assert all(len(line.split()) > 4 for line in lines)


def test_a_dry_run_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(here.iterdir())
    assert run(["train", *TINY, "-o", "run", "--dry-run"]) == 0
    assert "a batch of 4 at 8x, 32 px" in capsys.readouterr().err
    assert list(here.iterdir()) == before


def test_a_run_goes_where_the_config_s_name_says(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["geo-refdiff", "train", *TINY, "--overwrite"])
    assert run(["train", *TINY]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "step 1/1" in captured.err
    model = here / "runs" / "cpu-minutes" / "model"
    assert "    geo-refdiff train cpu-minutes --set 'data.train=" in (model / "README.md").read_text()
    assert run(["train", *TINY]) == 1
    output = capsys.readouterr().err
    assert output.startswith("error: runs/cpu-minutes holds a run at step 1: give --resume or --overwrite")
    assert run(["train", *TINY, "--init", "runs/cpu-minutes/model", "-o", "fine"]) == 0
    assert "It began with the weights of runs/cpu-minutes/model" in (here / "fine/model/README.md").read_text()


@pytest.mark.parametrize(
    ("args", "code", "output"),
    [
        (["nowhere"], 2, "error: no config nowhere: give a TOML file or a preset ("),
        (
            [*TINY, "--set", "training.stepz=3"],
            2,
            "unknown key 'training.stepz'; the nearest known one is 'training.steps'",
        ),
        ([*TINY, "--set", "training.compile=maybe"], 2, "training.compile is 'maybe': choose auto, off, on"),
        ([*TINY, "--set", 'data.train=["gone.csv"]'], 1, "gone.csv"),
        ([*TINY, "--init", "nowhere"], 1, "unknown model 'nowhere'"),
        ([*TINY, "--init", "default"], 1, "cannot be trained on here: it has model.widths = "),
        ([*TINY, "--set", "training.rate=1e30", "--set", "training.steps=9"], 1, "is not finite at step"),
        ([*TINY, "-o", "/proc/nowhere"], 1, "/proc/nowhere: cannot be written"),
        (["cpu-minutes", "--steps", "3"], 2, "No such option"),
    ],
)
def test_an_error_is_one_line(
    args: list[str],
    code: int,
    output: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["train", *args]) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert output in last


def test_a_stop_tells_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(*args: object, **kwargs: object) -> None:
        raise TrainingInterrupted("stopped after step 3, kept in runs/x/state; continue with --resume")

    monkeypatch.setattr("geo_refdiff.train.run.train", stopped)
    assert run(["train", *TINY]) == 130
    assert capsys.readouterr().err == "stopped after step 3, kept in runs/x/state; continue with --resume\n"


def test_pairs_that_are_left_out_are_listed_line_by_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, row = (here / "pairs.csv").read_text().splitlines()
    name = row.split(",")[0]
    broken = [row.replace(name, f"gone {n}", 1).replace(".tif", f"-{n}.tif") for n in (1, 2)]
    (here / "pairs.csv").unlink()
    (here / "pairs.csv").write_text("\n".join([header, row, *broken]) + "\n")
    assert run(["train", *TINY, "-o", "run", "--dry-run"]) == 0
    lines = capsys.readouterr().err.splitlines()
    at = lines.index("pairs.csv: 1 of 3 pairs are used, 2 left out as missing or unreadable")
    assert [line.split(":")[0].strip() for line in lines[at + 1 : at + 3]] == ["gone 1", "gone 2"]
