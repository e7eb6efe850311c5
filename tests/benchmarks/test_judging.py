"""What the ablation benchmark says: tables, differences, verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import ablation, real_scenes
from benchmarks.private import markdown, paired, plus_minus, verdict
from geo_refdiff.diffusion.checkpoint import save_model
from geo_refdiff.evaluate.methods import Observation
from geo_refdiff.evaluate.opening import open_all
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.evaluate.tiles import Tile
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.train.config import load_config
from geo_refdiff.train.model import new_denoiser

BANDS = ("red", "green", "blue", "nir")
CLASSES = ("no change", "water", "bare ground", "low vegetation", "tree", "built-up")


@pytest.fixture(scope="module")
def data(landscapes: Callable[..., Path]) -> str:
    return str(landscapes("9000-9001", 128))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six tiny models with the switches of the rows and random weights."""
    small = ("model.widths=[8, 8]", "model.hidden=8", "model.full_width=4", "model.embedding=8")
    folders = []
    for name in ablation.ROWS:
        denoiser = new_denoiser(load_config(name, small), BANDS, CLASSES)
        draw = torch.Generator().manual_seed(1)
        state = {
            key: value + 0.05 * torch.randn(value.shape, generator=draw)
            for key, value in denoiser.network.state_dict().items()
        }
        folder = tmp_path_factory.mktemp("rows") / name
        folders.append(save_model(folder, denoiser.config, state, "For tests.\n"))
    return folders


@pytest.fixture(scope="module")
def tile(rows: list[Path], data: str) -> Tile:
    """Of a generated landscape, with other landscapes pasted into its reference."""
    source = open_all(data, [str(rows[-1])], EvaluateOptions.of(paste=True, tile=128)).source
    return source.read(source.specs[0])


def test_markdown_columns_are_as_wide_as_their_widest_cell() -> None:
    lines = markdown(["", "long title"], [["row", "1"], ["b", "22"]]).splitlines()
    assert lines == [
        "|     | long title |",
        "|-----|------------|",
        "| row | 1          |",
        "| b   | 22         |",
    ]


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=20))
def test_paired_difference_is_that_of_the_means(values: list[tuple[float, float]]) -> None:
    one, other = zip(*values, strict=True)
    mean, error = paired(one, other)
    assert mean == pytest.approx(np.mean(one) - np.mean(other), abs=1e-9)
    assert error == pytest.approx(np.std(np.subtract(one, other), ddof=1) / math.sqrt(len(one)), abs=1e-9)
    back, same = paired(other, one)
    assert (back, same) == pytest.approx((-mean, error))


def test_tiles_without_a_figure_are_left_out_of_both() -> None:
    assert paired([1.0, math.nan, 3.0], [0.5, 9.0, 2.0])[0] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (0.03, "yes"),
        (-0.02, "no"),
        (0.001, "yes by the mean, not settled by two standard errors"),
        (-0.001, "no by the mean, not settled by two standard errors"),
    ],
)
def test_a_verdict_is_settled_by_two_standard_errors(mean: float, said: str) -> None:
    assert verdict(mean, 0.005) == said


def test_plus_minus() -> None:
    assert plus_minus(0.01234, 0.00126) == "+0.0123 ± 0.0013"
    assert plus_minus(0.5, 0.04, 2, signed=False) == "0.50 ± 0.04"


def report_of(efflp: list[float]) -> dict[str, Any]:
    """As metrics.json holds it: six rows whose effLP is given, in three outputs."""
    names = [f"{row}, detail {detail:g}" for row in ablation.ROWS for detail in ablation.OUTPUTS]
    value = {name: efflp[k // 3] for k, name in enumerate(names)} | dict.fromkeys(ablation.BASELINES, 0.4)
    keys = ("efflp", "efflp_changed", "efflp_unchanged", "haarpsi", "psnr", "chroma", "energy")
    methods = {
        name: {
            "means": dict.fromkeys(keys, v),
            "standard_errors": dict.fromkeys(keys, 0.01),
            "fd": 1000.0 * v,
            "fd_standard_error": 7.0,
        }
        for name, v in value.items()
    }
    differences = {
        one: {
            other: {key: {"mean": value[one] - value[other], "standard_error": 0.002} for key in keys}
            for other in value
            if other != one
        }
        for one in names
    }
    scale = {"methods": methods, "differences": differences, "tiles": ["a", "b"]}
    return {"models": dict.fromkeys(names), "scales": {"8": scale}}


def test_the_order_of_the_rows_is_reported_as_it_is() -> None:
    judged = ablation.Judged(report_of([0.50, 0.45, 0.40, 0.451, 0.48, 0.30]))
    order = judged.order(2)
    assert len(order) == 16
    assert order[0] == "+ mask better than LR in effLP: yes (-0.1000 ± 0.0020)"
    assert order[3].startswith("+ Ref SFT better than + Ref in effLP: no by the mean, not settled")
    assert order[5] == "+ semantic SFT better than + Ref in effLP: no (+0.0300 ± 0.0020)"
    assert order[8] == "+ mask better than LR in HaarPSI: no (-0.1000 ± 0.0020)"


def test_fd_has_a_column_of_its_own_where_it_was_measured() -> None:
    report = report_of([0.50, 0.45, 0.40, 0.451, 0.48, 0.30])
    head, _, first, *_ = ablation.Judged(report).means(0).splitlines()
    assert [c.strip() for c in first.split("|")][[c.strip() for c in head.split("|")].index("FD")] == "500 ± 7"
    for method in next(iter(report["scales"].values()))["methods"].values():
        method["fd"] = None
    assert " FD " not in ablation.Judged(report).means(0).splitlines()[0]


def test_steps_compare_rows_that_differ_in_one_thing() -> None:
    lines = ablation.Judged(report_of([0.50, 0.55, 0.60, 0.61, 0.63, 0.70])).steps(0).splitlines()[2:]
    summary = [line.split("|")[1].strip() + line.split("|")[2] for line in lines]
    assert [text.split(" ± ")[0] for text in summary] == [
        "+ Ref, less LR +0.0500",
        "+ mask, less + Ref +0.0500",
        "+ Ref SFT, less + mask +0.0100",
        "+ semantic SFT, less + mask +0.0300",
        "both SFT, less + Ref SFT +0.0900",
        "both SFT, less + semantic SFT +0.0700",
    ]


def test_each_step_adds_one_switch_but_the_row_of_the_mask() -> None:
    switches = [
        {name for name in ("ref", "mask", "ref_sft", "semantic_sft") if getattr(load_config(preset).model, name)}
        for preset in ablation.ROWS
    ]
    for row, before in ablation.STEPS:
        assert switches[before] < switches[row]
        assert len(switches[row] - switches[before]) == 1


def test_the_denoiser_is_judged_without_its_start(rows: list[Path], tile: Tile, data: str) -> None:
    options = EvaluateOptions.of(mask=("true",), paste=True, tile=128, detail=(1.0,))
    setup, sensor = open_all(data, [str(row) for row in rows], options), SensorModel(8)
    seen = Observation(tile, sensor.observe(tile.truth), sensor)
    with torch.inference_mode():
        errors = [ablation.denoising_errors(run, seen) for run in setup.runs]
    assert set(errors[0]) == {
        f"{n} {r}" for n in ("mean", "0.05", "0.15", "0.4", "1.2") for r in ("changed", "unchanged")
    }
    for summary in errors:
        # little noise leaves little to guess: whatever the weights, c_skip passes the image through
        assert summary["0.05 unchanged"] < summary["1.2 unchanged"]
    nothing = replace(seen, tile=replace(tile, changed=torch.zeros_like(tile.changed)))
    with torch.inference_mode():
        assert math.isnan(ablation.denoising_errors(setup.runs[0], nothing)["mean changed"])


def test_six_models_give_the_tables(
    rows: list[Path], data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = [*map(str, rows), "--data", data, "--landscapes", data, "--places", "1", "--tile", "64"]
    done = CliRunner().invoke(ablation.main, [*asked, "-o", "out"], catch_exceptions=False)
    assert done.exit_code == 0
    text = (tmp_path / "out" / "tables.md").read_text()
    assert done.output.strip() == text.strip()
    assert text.count("### error of the denoiser") == 2
    for title in ablation.ROWS.values():
        assert f"| {title} " in text


def test_nothing_trained_is_said_and_a_wrong_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    none = CliRunner().invoke(ablation.main, [])
    assert none.exit_code == 0
    assert none.output.startswith("skipped: runs/ablation-lr/model is not there")
    few = CliRunner().invoke(ablation.main, ["one", "two"])
    assert few.exit_code == 2
    assert "2 model folders: give 6" in few.output


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
