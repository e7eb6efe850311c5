"""Inception's features against pytorch-fid 0.3 with the same weights; TorchScript files; wrong files."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from formula import image_pair

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.inception import Inception

FEATURES = {
    (0, 0): 0.0,
    (0, 1): 3.9967496395111084,
    (0, 3): 0.4582578241825104,
    (1, 2044): 1.3673205375671387,
    (1, 2045): 0.7314296960830688,
    (1, 2047): 2.629976272583008,
}


def both() -> torch.Tensor:
    return torch.cat([x.float() for x in image_pair(3, 96, 128)])


def script(path: Path, source: type[torch.nn.Module]) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(source()).save(str(path))
    return path


class Means(torch.nn.Module):
    """Six features: means and deviations of the bands."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)


class Map(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0


def test_pytorch_fid_finds_the_same(inception_file: Path) -> None:
    with torch.inference_mode():
        found = Inception(inception_file).features(both())
    assert found.shape == (2, 2048)
    assert found.mean().item() == pytest.approx(0.5060763955116272, abs=1e-5)
    assert found.norm(dim=1).tolist() == pytest.approx([50.518898010253906, 50.63736343383789], abs=1e-3)
    for place, value in FEATURES.items():
        assert found[place].item() == pytest.approx(value, abs=1e-4)


def test_a_torchscript_module_of_any_feature_size(tmp_path: Path) -> None:
    path = script(tmp_path / "means.pt", Means)
    image = torch.zeros(2, 4, 64, 64)
    image[0, 0], image[1, 2], image[:, 3] = 255.0, 300.0, 99.0
    found = Inception(path).features(image)
    expected = torch.full((2, 6), -1.0)
    expected[:, 3:] = 0
    expected[0, 0] = expected[1, 2] = 1  # clipped to 255, then [-1, 1]
    assert torch.allclose(found, expected, atol=1e-5)


def test_wrong_files_are_refused_in_one_line(tmp_path: Path, lpips_files: tuple[Path, Path]) -> None:
    torn = tmp_path / "torn.pt"
    torn.write_bytes(script(tmp_path / "map.pt", Map).read_bytes().replace(b"constants", b"c0nstants"))
    cases = {
        tmp_path / "none.pt": "no such file",
        tmp_path / "map.pt": r"gives \(1, 3, 299, 299\) for 1 images",
        torn: "cannot be read as TorchScript",
        lpips_files[0]: "not Inception in the layout of pt_inception-2015-12-05",
    }
    for path, text in cases.items():
        with pytest.raises(InputError, match=text) as caught:
            Inception(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="1 bands"):
        Inception(script(tmp_path / "means.pt", Means)).features(torch.zeros(1, 1, 64, 64))
