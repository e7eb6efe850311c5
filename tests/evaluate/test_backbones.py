"""Weights files are read as data, or refused in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.backbones import read_tensors


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.canary),)


def test_the_usual_files_are_read(tmp_path: Path) -> None:
    state = {"a": torch.arange(4.0), "b": torch.ones(2, 2)}
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "safe.safetensors")
    for path in tmp_path.iterdir():
        found = read_tensors(path)
        assert set(found) == {"a", "b"}
        assert torch.equal(found["a"], state["a"])


@pytest.mark.parametrize("content", ["hostile", "list", "text", "cut short", "empty", "torn safetensors"])
def test_anything_else_is_refused_in_one_line_and_never_run(tmp_path: Path, content: str) -> None:
    path, canary = tmp_path / "weights.pth", tmp_path / "canary"
    if content == "hostile":
        torch.save({"a": Hostile(canary)}, path)
    elif content == "list":
        torch.save([torch.ones(2)], path)
    elif content == "text":
        path.write_text("<html>404</html>")
    elif content == "cut short":
        torch.save({"a": torch.ones(4096)}, path)
        path.write_bytes(path.read_bytes()[:900])
    elif content == "empty":
        path.write_bytes(b"")
    else:
        path = path.with_suffix(".safetensors")
        path.write_bytes(pickle.dumps(Hostile(canary)))
    with pytest.raises(InputError) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.pth: no such file"):
        read_tensors(tmp_path / "none.pth")
