"""Benchmarks on a checkout that has neither real scenes nor indexes nor trained rows: skipped, which is no failure."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import run_all


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("ablation", []),
        ("change_detection", []),
        ("change_detection", ["--landscapes", "PAINTED", "--restore", "0"]),
        ("real_scenes", []),
        ("registration", []),
        ("training", []),
        ("uncertainty", []),
        ("wrong_reference", []),
    ],
)
def test_skipped_with_0(
    name: str, args: list[str], landscapes: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [str(landscapes("31000-31000", 96)) if a == "PAINTED" else a for a in args]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmarks.private.DATA", tmp_path)
    done = CliRunner().invoke(import_module(f"benchmarks.{name}").main, args, catch_exceptions=False)
    assert done.exit_code == 0
    assert "skipped: " in done.output.splitlines()[-1]


def test_a_city_that_was_asked_for_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.private.DATA", tmp_path)
    (tmp_path / "naip-ca").mkdir()
    done = CliRunner().invoke(import_module("benchmarks.wrong_reference").main, ["--city", "atlantis"])
    assert done.exit_code == 2
    assert "atlantis: no such folder" in done.output


def test_all_of_them_leave_the_pictures_of_the_docs_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def main(self, args: list[str]) -> None:
            ran.append(self.name)

    monkeypatch.setattr("benchmarks.__main__.import_module", Fake)
    assert run_all() == 0
    assert "benchmarks.batch" in ran
    assert "benchmarks.pictures" not in ran


def test_every_benchmark_is_described() -> None:
    folder = Path(__file__).parents[2] / "benchmarks"
    page = (folder / "README.md").read_text()
    names = [path.stem for path in folder.glob("*.py") if "\ndef main(" in path.read_text()]
    assert len(names) == 11
    assert not [name for name in names if f"**{name}**" not in page]
