"""geo-refdiff evaluate: as a user calls it, on real places where there are some."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geo_refdiff.cli.main import run
from geo_refdiff.data.make_index import make_index


@pytest.fixture(scope="module")
def places(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An index of two places that no model was trained on, both directions in time; and its root."""
    root = shared_data / "naip-ca"
    if not (root / "santa_monica").is_dir():
        pytest.skip(f"no santa_monica in {root}")
    path = tmp_path_factory.mktemp("index") / "places.csv"
    make_index(root, path, root=root, only=["santa_monica/000", "santa_monica/001"])
    return path, root


def test_real_places_by_the_bundled_model(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, root = places
    out = tmp_path / "report"
    arguments = ["evaluate", "default", "--data", str(index), "--root", str(root), "-o", str(out), "--grid", "2"]
    assert run([*arguments, "--device", "cpu"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.startswith("# Evaluation")
    assert f"written: {out / 'metrics.json'}" in output.out
    assert f"written: {out / 'grid_8x.png'}" in output.out
    data = json.loads((out / "metrics.json").read_text())
    scale = data["scales"]["8"]
    assert len(scale["tiles"]) == 4
    assert scale["labelled_tiles"] == 0
    assert "a pseudo-label" in output.out
    result = {name: method["means"] for name, method in scale["methods"].items()}
    assert result["default"]["haarpsi"] > result["bicubic-ibp"]["haarpsi"] > result["bicubic"]["haarpsi"]
    assert result["matched-ref"]["haarpsi"] > result["ref"]["haarpsi"]
    assert result["matched-ref"]["haarpsi_unchanged"] > result["matched-ref"]["haarpsi_changed"] + 0.03
    assert result["default"]["lr_rmse"] < 0.7  # each tile is a scene with borders
    assert result["ref"]["energy"] > 0.8 > result["default"]["energy"] > result["bicubic-ibp"]["energy"]
    assert run([*arguments, "--device", "cpu"]) == 1
    assert "holds a report already; give another folder, or --overwrite" in capsys.readouterr().err


def test_results_of_another_method_on_some_bands(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index, root = places
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    name = "santa_monica_001_2016_2020"
    Image.fromarray(np.full((256, 256, 3), 90, np.uint8)).save(theirs / f"{name}.png")
    arguments = ["evaluate", "--data", str(index), "--root", str(root), "--outputs", f"grey={theirs}", "--grid", "0"]
    assert run([*arguments, "--bands", "red,green,blue", "-o", str(tmp_path / "rgb"), "--scale", "16"]) == 0
    data = json.loads((tmp_path / "rgb" / "metrics.json").read_text())
    assert data["data"]["bands"] == ["red", "green", "blue"]
    assert data["scales"]["16"]["tiles"] == [name]
    assert data["scales"]["16"]["methods"]["grey"]["means"]["energy"] == pytest.approx(0, abs=1e-6)
    assert len(data["scales"]["16"]["missing"]["grey"]) == 3
    capsys.readouterr()
    assert run([*arguments, "-o", str(tmp_path / "four")]) == 1
    assert "has 3 bands, 4 are wanted; choose bands with --bands" in capsys.readouterr().err


def test_a_classical_method_as_the_model_is_compared_once(landscapes: Callable[..., Path], tmp_path: Path) -> None:
    words = ["bicubic", "--data", str(landscapes("1-1", 64)), "--tile", "64", "--scale", "4", "--grid", "0"]
    assert run(["evaluate", *words, "--device", "cpu", "-o", str(tmp_path / "out")]) == 0
    data = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(data["scales"]["4"]["methods"]) == ["bicubic", "bicubic-ibp", "ref", "matched-ref"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "Missing option '--data'"),
        (["--data", "none.csv", "-o", "OUT"], 1, "none.csv: no such index file"),
        (["--data", "PAIRS", "-o", "OUT", "--outputs", "x"], 2, "outputs 'x': give NAME=DIR"),
        (["--data", "PAIRS", "-o", "OUT", "--outputs", "a=b", "--outputs", "a=c"], 2, "each name once"),
        (["--data", "PAIRS", "-o", "OUT", "--scale", "7"], 2, "scale 7"),
        (["--data", "PAIRS", "-o", "OUT", "--lpips", "w.pth"], 2, "give both --alexnet and --lpips"),
        (["nobody", "--data", "PAIRS", "--tile", "64", "-o", "OUT"], 1, "unknown model 'nobody'"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    code: int,
    text: str,
    landscapes: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in = {"OUT": str(tmp_path / "out"), "PAIRS": str(landscapes("1-1", 64))}
    given = [stand_in.get(a, a) for a in arguments]
    assert run(["evaluate", *given]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert text in output.err


def test_help_is_quick() -> None:
    code = (
        "import sys; from geo_refdiff.cli.main import run; run(['evaluate', '-h']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--outputs NAME=DIR" in done.stdout
    assert done.stderr == ""
