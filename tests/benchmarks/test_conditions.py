"""The benchmark asks for conditions that an evaluation can take, and a line of its table says what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import conditions, real_scenes
from benchmarks.conditions import CONDITIONS, FIGURES, REAL, figures, in_16_bits, measured, row, rows_of
from geo_refdiff.evaluate.options import EvaluateOptions


@pytest.mark.parametrize("name", CONDITIONS)
def test_every_condition_can_be_asked_for(name: str) -> None:
    data = EvaluateOptions.of(**CONDITIONS[name]).data
    assert data.tile * data.average in (240, 256)
    assert data.tile % 16 == 0  # what the model and the networks that judge take


def test_a_line_of_the_table() -> None:
    figures = {key: 0.5 for key in FIGURES if key != "efflp_changed"}
    method = {
        "means": figures | {"efflp": 0.61234},
        "standard_errors": figures | {"efflp": 0.01},
        "fd": 187.4,
        "fd_standard_error": 12.2,
    }
    summary = row("8x", "**new**", method)
    assert summary == ["8x", "**new**", "0.50", "0.500", "0.612 ± 0.010", "-", "0.50", "0.50", "0.50", "187 ± 12"]


def test_noise_and_psf_are_declared_and_not() -> None:
    declared, unknown = (CONDITIONS[f"8x, noise 1 %, PSF 0.48{end}"] for end in ("", ", not declared"))
    assert declared == {"noise": 2.55, "psf_sigma": 0.48}
    assert unknown == {"noise": 2.55, "psf_sigma": 0.48, "declared_psf": 0.35}
    names = [name for name in CONDITIONS if "noise" in name]
    assert len(names) == 3 * 2 * 2


def test_16_bits_hold_the_same_pictures(landscapes: Callable[..., Path], tmp_path: Path) -> None:
    data = landscapes("9000-9001", 128)
    copy = in_16_bits(data, None, 1, tmp_path)
    one, other = (
        figures(measured((), source, tile=64, places=1, **more))["bicubic"]["means"]["psnr"]
        for source, more in ((data, {}), (copy, {"root": str(tmp_path)}))
    )
    assert other == pytest.approx(one, abs=0.05)
    lines = rows_of("8x, uint16", (), copy, root=str(tmp_path), tile=64)
    assert [line[:2] for line in lines] == [["8x, uint16", "bicubic-ibp"], ["8x, uint16", "matched-ref"]]


def test_models_that_do_not_know_the_factor_are_left_out(
    landscapes: Callable[..., Path], tiny_compact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = rows_of("2x", (str(tiny_compact),), landscapes("9000-9001", 128), tile=64, scale=(2,), places=1)
    assert [line[1] for line in lines] == ["bicubic-ibp", "matched-ref"]
    assert "without models: scale 2: model 'tiny-compact' knows" in capsys.readouterr().err


def test_the_command_takes_some_conditions_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "pairs.csv"
    data.write_text("new,ref\na.tif,b.tif\n")
    monkeypatch.setattr(conditions, "DATA", tmp_path / "nothing")
    done = CliRunner().invoke(conditions.main, ["--data", str(data), "--only", "9x"])
    assert done.exit_code == 2
    assert "no condition '9x'; choose of: 8x; " in done.output
    monkeypatch.setattr(conditions, "lacking", lambda *names: "none here")
    done = CliRunner().invoke(conditions.main, ["--data", str(data), "--only", REAL])
    assert done.exit_code == 0
    assert f"left out: {REAL}: none here" in done.output


def test_the_table_of_real_scenes_goes_into_its_page(tmp_path: Path) -> None:
    def method(kind: str, psnr: list[float | None], fd: float | None = None) -> dict[str, object]:
        return {"kind": kind, "means": {"psnr": 1}, "per_tile": {"psnr": psnr}, "fd": fd, "fd_standard_error": 2.0}

    metrics = {
        "tiles": ["a", "b"],
        "scenes": {"a": {"factor": 3}, "b": {"factor": 16}},
        "methods": {"bicubic": method("baseline", [30.0, 20.0], 9.0), "new": method("model", [31.0, None], 7.0)},
        "common": {
            "tiles": ["a"],
            "methods": {
                "bicubic": method("baseline", [], 9.0) | {"means": {"psnr": 30.0}},
                "new": method("model", [], 7.0) | {"means": {"psnr": 31.0}},
            },
        },
        "differences": {
            "new": {"bicubic": {"psnr": {"mean": 1.0, "standard_error": None, "tiles": 1}}, "matched-ref": {}}
        },
    }
    text = real_scenes.table(metrics)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    assert cells == [
        ["a, 3x", "bicubic", "30.00", ""],
        ["", "**new**", "31.00", ""],
        ["b, 16x", "bicubic", "20.00", ""],
        ["mean of 1", "bicubic", "30.00", "9 ± 2"],
        ["", "**new**", "31.00", "7 ± 2"],
    ]
    assert real_scenes.differences(metrics) == ["- **new** less bicubic, 1 scenes: PSNR +1.00"]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{real_scenes.BEGIN}\nold\n{real_scenes.END}\nafter\n")
    real_scenes.write_page("new text", page)
    assert page.read_text() == f"before\n{real_scenes.BEGIN}\n\nnew text\n\n{real_scenes.END}\nafter\n"
