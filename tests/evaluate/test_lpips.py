"""LPIPS against the authors' package (0.1.4) with the same weights; files of a wrong layout are refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from formula import image_pair

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.lpips import Lpips, lpips, lpips_map


def layers(files: tuple[Path, Path]) -> list[torch.Tensor]:
    image, truth = (x.float() for x in image_pair(3, 96, 128))
    with torch.inference_mode():
        return Lpips(*files).layers(image, truth)


def test_the_authors_package_finds_the_same(lpips_files: tuple[Path, Path]) -> None:
    found = layers(lpips_files)
    assert lpips(found).item() == pytest.approx(0.1540568768978119, abs=2e-6)
    spatial = lpips_map(found, (96, 128))
    assert spatial.shape == (1, 1, 96, 128)
    assert spatial.mean().item() == pytest.approx(0.15407106280326843, abs=2e-6)
    assert spatial[0, 0, 10, 20].item() == pytest.approx(0.05430469289422035, abs=2e-6)
    assert spatial[0, 0, 90, 100].item() == pytest.approx(0.18972747027873993, abs=2e-6)


def test_an_image_has_no_distance_to_itself_and_values_are_clipped(lpips_files: tuple[Path, Path]) -> None:
    image, truth = (x.float() for x in image_pair(4, 64, 64))
    judge = Lpips(*lpips_files)
    assert lpips(judge.layers(truth, truth)).item() == 0
    white = torch.full_like(truth, 255.0)
    assert torch.equal(lpips(judge.layers(white + 50, truth)), lpips(judge.layers(white, truth)))
    both = lpips(judge.layers(torch.cat([image, truth]), truth))
    assert both[1] < 1e-9
    assert both[0].item() == pytest.approx(lpips(judge.layers(image, truth)).item(), abs=1e-6)


def test_one_band_is_refused(lpips_files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="the images have 1 bands"):
        Lpips(*lpips_files).features(torch.zeros(1, 1, 64, 64))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda state: state.pop("features.3.bias"), r"lacks features\.3\.bias"),
        (lambda state: state.update({"features.0.weight": torch.zeros(64, 3, 3, 3)}), r"\(64, 3, 3, 3\), not"),
        (lambda state: state.clear(), "lacks features.0.weight and 9 more tensors"),
    ],
)
def test_another_layout_is_refused(lpips_files: tuple[Path, Path], tmp_path: Path, spoil, text: str) -> None:  # type: ignore[no-untyped-def]
    state = torch.load(lpips_files[0], weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(InputError, match=text) as caught:
        Lpips(tmp_path / "wrong.pth", lpips_files[1])
    assert str(tmp_path / "wrong.pth") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_in_the_wrong_order_are_told_apart(lpips_files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="not AlexNet as torchvision's state dict"):
        Lpips(*reversed(lpips_files))
    with pytest.raises(InputError, match="not the linear weights"):
        Lpips(lpips_files[0], lpips_files[0])
