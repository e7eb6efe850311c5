"""`geo-refdiff models` from the command line."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from published_files import publish

from geo_refdiff.cli.models import models
from geo_refdiff.diffusion.checkpoint import bundled_models
from geo_refdiff.errors import ModelError, OutputError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(models, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_import_and_info(tmp_path, monkeypatch):
    publish(tmp_path / "p.pt", monkeypatch)
    folder = tmp_path / "model"
    assert "M parameters" in run("import", str(tmp_path / "p.pt"), str(folder))
    shown = run("info", str(folder))
    assert "architecture:    published" in shown
    assert "receptive field: the whole window" in shown
    facts = json.loads(run("info", "--json", str(folder)))
    assert facts["bands"] == ["red", "green", "blue"]
    assert facts["sha256"] in shown
    with pytest.raises(OutputError):
        run("import", str(tmp_path / "p.pt"), str(folder))
    run("import", "--overwrite", str(tmp_path / "p.pt"), str(folder))


def test_list():
    shown = run("list")
    for name in bundled_models():
        assert f"{name}: " in shown
    assert {model["name"] for model in json.loads(run("list", "--json"))} == set(bundled_models())


def test_errors_are_for_the_caller_to_print(tmp_path):
    (tmp_path / "p.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"not a file from torch\.save"):
        run("import", str(tmp_path / "p.pt"), str(tmp_path / "m"))
    with pytest.raises(ModelError, match="unknown model"):
        run("info", "nonsense")
