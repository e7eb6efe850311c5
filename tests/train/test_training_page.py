"""docs/training.md: every key with its default, every preset, and commands that run as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geo_refdiff.cli.main import run
from geo_refdiff.train.config import INFERENCE_KEYS, TrainConfig, load_config, presets
from sample_tiles.painter.pairs import write_pairs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
SMALL = (
    "model.widths=[8, 8]", "model.hidden=8", "model.full_width=4", "model.embedding=8", "samples.crop=32",
    "samples.scales={ 4 = 1.0 }", "training.steps=2", "training.batch=2", "training.warmup=1",
    "report.validation_tiles=1", "report.pictures=1",
)  # fmt: skip
"""What makes a documented run a matter of seconds."""


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def sections(table: Any, name: str = "") -> dict[str, dict[str, Any]]:
    """Sections of a config -> its keys with their defaults."""
    result: dict[str, dict[str, Any]] = {}
    for item in fields(table):
        value, dotted = getattr(table, item.name), f"{name}.{item.name}" if name else item.name
        if is_dataclass(value):
            result |= {dotted: {}} | sections(value, dotted)
        elif name:
            result.setdefault(name, {})[item.name] = list(value) if isinstance(value, tuple) else value
    return result


def commands(page: str) -> list[list[str]]:
    lines = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in lines if line.startswith(("geo-refdiff ", "torchrun "))]


def test_every_key_is_there_with_its_default(page: str) -> None:
    messages = {}
    for part in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        name = re.match(r"\[(.+)\]", part)
        assert name is not None
        rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| .*\|$", part.split("\n## ")[0], flags=re.MULTILINE)
        messages[name[1]] = {key: tomllib.loads(f"value = {value}")["value"] for key, value in rows}
    inference = page.split("### [inference]")[1].split("\n## ")[0]
    assert messages.pop("inference") == {}
    assert messages == sections(TrainConfig())
    assert all(f"`{key}`" in inference for key in INFERENCE_KEYS)


def test_every_preset_is_there(page: str) -> None:
    table = page.split("## Presets")[1].split("\n## ")[0]
    named = [
        name for row in re.findall(r"^\| (`.+?) \|", table, flags=re.MULTILINE) for name in re.findall("`(.+?)`", row)
    ]
    assert sorted(named) == sorted(presets())


def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page):
        assert (PAGE.parent / target).exists(), target


def write_second(folder: Path) -> None:
    """Two pairs of noise as SECOND publishes its own."""
    rng = np.random.default_rng(0)
    for kind in ("im1", "im2", "label1", "label2"):
        (folder / kind).mkdir(parents=True)
        for n in range(2):
            image = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
            if kind.startswith("label"):
                image[:] = 255
                image[40:60] = (128, 0, 0)  # a building at either date
            Image.fromarray(image).save(folder / kind / f"{n:05d}.png")


def test_the_commands_run_one_after_the_other(
    page: str,
    tiny_index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a folder as the page describes it; only smaller."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_index.parent / "dates", "images")
    Path("images/2").rename("images/test_city")
    for index in ("landscapes", "build/landscapes-10000-10039", "build/landscapes-9000-9007"):
        write_pairs(Path(f"{index}.csv"), range(1), 128)
    write_second(Path("SECOND"))
    Path("mine.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    config = load_config("mine.toml")
    assert (config.training.steps, config.data.validation) == (8000, ("test.csv",))
    ran = []
    for program, *args in commands(page):
        if program == "torchrun" or args[0] == "upscale" or (args[0] == "train" and "default" in args):
            continue
        more: list[str] = []
        if args[0] == "train":
            more = [part for setting in SMALL for part in ("--set", setting)] + ["--device", "cpu"]
        elif args[0] == "evaluate":
            args.remove("default")
            more = ["--tile", "64", "--scale", "4", "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", [program, *args])
        assert run([*args, *more]) == 0, capsys.readouterr().err
        ran.append(args[0])
    assert ran == ["index", "index", "train", "train", "evaluate", "train", "train", "train", "train"]
    assert "continuing after step 2" in capsys.readouterr().err
    assert {path.name for path in Path("runs").iterdir()} == {"first", "mine", "finer", "second"}
    assert {path.name for path in Path("runs/mine/model").iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    assert "| matched-ref |" in Path("report/table.md").read_text()
    assert run(["models", "info", "runs/mine/model"]) == 0


def test_the_commands_for_torchrun_and_for_the_bundled_model_are_understood(
    page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What takes several processes, or the whole network, is parsed as it stands."""
    asked: list[tuple[TrainConfig, Path]] = []
    monkeypatch.setattr("geo_refdiff.train.run.train", lambda config, out, **options: asked.append((config, out)))
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    for program, *args in commands(page):
        at = args.index("train") if "train" in args else None
        if at is not None and (program == "torchrun" or "default" in args):
            assert program == "geo-refdiff" or args[:at] == [*args[:2], "-m", "geo_refdiff.cli.main"]
            assert run(args[at:]) == 0
    assert [(config.data.train, config.model.init, out.name) for config, out in asked] == [
        (("SECOND#train",), "", "paper"),
        (("train.csv", "landscapes.csv"), "", "pair"),
        (("train.csv",), "default", "local"),
    ]
