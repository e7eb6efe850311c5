"""Validation in training: the same tiles and figures each time, pictures, unusable tiles named in messages."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from geo_refdiff.errors import InputError
from geo_refdiff.train import validation as validations
from geo_refdiff.train.config import TrainConfig
from geo_refdiff.train.model import new_denoiser
from geo_refdiff.train.validation import TileValidation, ValidationPlan

Make = Callable[..., tuple[TileValidation, Any]]


@pytest.fixture
def make(tiny_config: Callable[..., TrainConfig], tmp_path: Path) -> Make:
    """make(data, messages) -> (validation, denoiser)."""

    def made(
        data: Any, messages: list[str], *overrides: str, tiles: int = 4, pictures: int = 1
    ) -> tuple[TileValidation, Any]:
        denoiser = new_denoiser(tiny_config(*overrides), data.bands, data.classes)
        plan = ValidationPlan(4, tiles, pictures, tmp_path / "pictures")
        return TileValidation([data], denoiser, plan, "cpu", messages.append), denoiser

    return made


def test_figures_are_those_of_the_methods_and_come_again(make: Make, textures: Any, tmp_path: Path) -> None:
    validation, denoiser = make(textures((1, 2, 3), size=64), [], tiles=2)
    assert len(validation.tiles) == 2
    figures = validation(denoiser.network, 5)
    assert set(figures) == {
        f"{method} {figure}"
        for method in ("bicubic-ibp", "mean", "start", "sample")
        for figure in ("psnr", "haarpsi", "energy")
    }
    torch.manual_seed(7)
    assert validation(denoiser.network, 5) == figures
    assert figures["bicubic-ibp psnr"] == pytest.approx(figures["mean psnr"], abs=0.5)  # a network without training
    with Image.open(tmp_path / "pictures" / "step-0000005.png") as picture:
        assert picture.width > 7 * 256  # LR, Ref, four results, truth


def test_the_network_is_left_as_it_was(make: Make, textures: Any) -> None:
    validation, denoiser = make(textures((1,), size=64), [], pictures=0)
    before = {key: value.clone() for key, value in denoiser.network.state_dict().items()}
    validation(denoiser.network, 1)
    assert all(torch.equal(value, before[key]) for key, value in denoiser.network.state_dict().items())
    assert not (validation.plan.folder).exists()


def test_tiles_that_cannot_be_used_are_reported(make: Make, textures: Any) -> None:
    messages: list[str] = []
    validation, _ = make(textures((1, 2, 3), size=64, broken=(1,)), messages)
    assert len(validation.tiles) == 2
    assert messages == ["not validated on: texture 2: gone.tif: no such file"]
    with pytest.raises(InputError, match="no validation tile can be used"):
        make(textures((1,), size=64, broken=(0,)), messages)


def test_missing_pixels_of_the_truth_are_filled(make: Make, textures: Any) -> None:
    hole = np.ones((64, 64), bool)
    hole[:20] = False
    validation, denoiser = make(textures((1,), size=64, new_valid=hole), [])
    truth, _ = validation.tiles[0]
    assert float(truth[..., :20, :].std()) < float(truth.std())
    assert all(np.isfinite(value) for value in validation(denoiser.network, 1).values())


def test_unwritable_pictures_are_reported(make: Make, textures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    validation, denoiser = make(textures((1,), size=64), messages)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(validations, "write_panels", full)
    assert validation(denoiser.network, 3)
    assert len(messages) == 1
    assert "the pictures of step 3 are lost" in messages[0]


def test_a_network_without_a_mean_is_sampled_from_the_lr(make: Make, textures: Any) -> None:
    published = "model.published={img_resolution=32, model_channels=8, channel_mult=[1,1], num_blocks=1}"
    data = textures((1,), size=64)
    validation, denoiser = make(data, [], "model.architecture=published", published, tiles=1)
    figures = validation(denoiser.network, 1)
    assert {name.split()[0] for name in figures} == {"bicubic-ibp", "sample"}
