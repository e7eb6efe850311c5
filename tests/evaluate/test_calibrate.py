"""`calibrate`, as a user calls it; the model's runs are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs import write_pairs

from geo_refdiff.cli.main import run
from geo_refdiff.commands import calibrate
from geo_refdiff.plan.records import PREDICTORS
from geo_refdiff.plan.uncertainty import FILE


def made_up(tile: Any, model: Any, scale: int, runs: int, *, seed: int, **more: Any) -> calibrate.Trial:
    rng = np.random.default_rng(seed)
    energies = [rng.gamma(1.0, 1.0, (3, 64, 64)).astype(np.float32) for _ in PREDICTORS]
    errors = rng.normal(0, 1, (3, 64, 64)).astype(np.float32) * np.sqrt(energies[1])
    return calibrate.Trial(errors, errors, energies, 1.0)


def test_a_calibration_is_not_replaced_unasked(
    tiny_compact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "run_trial", made_up)
    index, file = write_pairs(tmp_path, places=4, side=256), tiny_compact / FILE
    asked = ["calibrate", str(tiny_compact), "--data", str(index), "--scales", "8", "--places", "4"]
    assert run([*asked, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(file.read_text())
    assert result["runs"] == 2
    assert result["tables"]["8"]["known"]["shares"][1] > 0.5

    file.write_text("mine")
    assert run(asked) == 1
    assert f"{FILE}: exists already" in capsys.readouterr().err
    assert file.read_text() == "mine"
    assert run([*asked, "--overwrite"]) == 0
    assert json.loads(file.read_text()) == result


def test_the_bundled_calibration_is_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", "default", "--data", str(tmp_path / "none.csv")]) == 1
    assert "exists already" in capsys.readouterr().err
