"""Features of a TorchScript network; wrong files."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.inception import Inception


def script(path: Path, source: type[torch.nn.Module]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(source()).save(str(path))
    return path


class Map(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0


def test_a_torchscript_module_of_any_feature_size(inception_file: Path) -> None:
    image = torch.zeros(2, 4, 64, 64)
    image[0, 0], image[1, 2], image[:, 3] = 255.0, 300.0, 99.0
    found = Inception(inception_file).features(image)
    expected = torch.full((2, 6), -1.0)
    expected[:, 3:] = 0
    expected[0, 0] = expected[1, 2] = 1  # clipped to 255, then [-1, 1]
    assert torch.allclose(found, expected, atol=1e-5)


def test_wrong_files_are_refused_in_one_line(
    tmp_path: Path, lpips_files: tuple[Path, Path], inception_file: Path
) -> None:
    torn = tmp_path / "torn.pt"
    torn.write_bytes(script(tmp_path / "map.pt", Map).read_bytes().replace(b"constants", b"c0nstants"))
    cases = {
        tmp_path / "none.pt": "no such file",
        tmp_path / "map.pt": r"gives \(1, 3, 299, 299\) for 1 images",
        torn: "cannot be read as TorchScript",
        lpips_files[0]: "cannot be read as TorchScript",
    }
    for path, text in cases.items():
        with pytest.raises(InputError, match=text) as caught:
            Inception(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="1 bands"):
        Inception(inception_file).features(torch.zeros(1, 1, 64, 64))
