"""Training of the change detector: it learns, repeats, and says what it was made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from geo_refdiff.change.detector import ChangeNetwork, load_detector
from geo_refdiff.classes import CLASSES
from geo_refdiff.cli.main import run
from geo_refdiff.data import Crop, OpenedDataset, open_dataset
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.train.detector import (
    DetectorData,
    collect,
    drawn,
    lr_sample,
    probabilities,
    train,
    train_detector,
    whole,
)

SIZE = 96


@pytest.fixture(scope="module")
def index(landscapes: Callable[..., Path]) -> Path:
    """A dozen landscapes."""
    return landscapes("20000-20011", SIZE)


@pytest.fixture(scope="module")
def painted(index: Path) -> OpenedDataset:
    return open_dataset(index)


@pytest.fixture(scope="module")
def crops(painted: OpenedDataset) -> list[Crop]:
    return [whole(painted, index) for index in range(len(painted))]


def test_the_same_pairs_give_the_same_detector_and_its_folder_tells_how(painted: OpenedDataset, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = [DetectorData("x", painted, 15), DetectorData("y", painted, 3)]
    for name in "ab":
        train_detector(tmp_path / name, data, steps=3, width=4)
    first, second = (load_detector(tmp_path / name) for name in "ab")
    assert first.sha256 == second.sha256
    messages = json.loads((tmp_path / "a" / "config.json").read_text())["trained"]
    assert messages["steps"] == 3
    assert [(d["source"], d["pairs"], d["samples"]) for d in messages["data"]] == [("x", 12, 15), ("y", 12, 3)]
    assert {d["fingerprint"] for d in messages["data"]} == {painted.fingerprint()}


def test_samples_are_spread_over_the_pairs_that_are_not_held_out(
    painted: OpenedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def messages(dataset: OpenedDataset, index: int) -> Crop:
        read.append(index)
        return whole(dataset, index)

    monkeypatch.setattr("geo_refdiff.train.detector.whole", messages)
    monkeypatch.setattr("geo_refdiff.train.detector._PASTED", 0.0)
    assert len(collect(painted, 15, np.random.default_rng(0))) == 15
    assert read == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    read.clear()
    assert len(collect(painted, 4, np.random.default_rng(0))) == 4
    assert read == [2, 5, 8, 11]


def test_the_command_goes_on_from_a_detector(
    tmp_path: Path, index: Path, painted: OpenedDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    train_detector(tmp_path / "a", [DetectorData("x", painted, 12)], steps=1, width=4)
    asked = ["train-detector", "--data", str(index), "12", "--steps", "1", "--init", str(tmp_path / "a")]
    assert run([*asked, "--width", "4", "-o", str(tmp_path / "b")]) == 0
    assert f"{tmp_path / 'b'}: threshold 0." in capsys.readouterr().err
    messages = json.loads((tmp_path / "b" / "config.json").read_text())["trained"]
    assert messages["data"][0]["source"] == index.name
    assert messages["init"] == load_detector(tmp_path / "a").sha256
    assert run([*asked, "--width", "5", "-o", str(tmp_path / "c")]) == 1
    assert "do not fit the network" in capsys.readouterr().err


def test_too_few_pairs_are_reported(
    tmp_path: Path, landscapes: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    few = landscapes("20000-20001", SIZE)
    assert run(["train-detector", "--data", str(few), "12", "-o", str(tmp_path / "a")]) == 1
    assert "2 pairs; give 10 or more" in capsys.readouterr().err


def test_it_learns_what_it_is_shown(painted: OpenedDataset, crops: list[Crop]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ChangeNetwork(16, len(CLASSES))
    train(network, collect(painted, 24, np.random.default_rng(0)), 80, 3e-3)
    result = [(1 - probabilities(network, s)[0], s) for s in (lr_sample(crop, SensorModel(8)) for crop in crops)]
    messages, true = (
        torch.cat(parts)
        for parts in zip(*((p[s.weight > 0], s.shares[0][s.weight > 0] < 0.5) for p, s in result), strict=True)
    )
    assert true.any()
    assert messages[true].mean() > 2 * messages[~true].mean()


def test_samples_say_what_changed_and_where_nothing_is_known(crops: list[Crop]) -> None:
    crop, scale = crops[0], 8
    valid = crop.ref_valid.copy()
    valid[:scale, :scale] = False
    sample = lr_sample(crop._replace(ref_valid=valid), SensorModel(scale))
    assert sample.weight[0, 0] == 0
    assert float(sample.weight.mean()) > 0.9
    share = (crop.mask == 0).reshape(SIZE // scale, scale, SIZE // scale, scale).mean((1, 3))
    assert np.allclose(sample.shares[0].numpy()[sample.weight > 0], share[sample.weight.numpy() > 0], atol=1e-2)
    rng = np.random.default_rng(0)
    kinds = [drawn(crop, lambda: crops[1], rng) for _ in range(40)]
    assert len({k.scale for k in kinds}) > 2
    assert any(bool((k.shares[0][k.weight > 0] == 1).all()) for k in kinds), "the same date twice is among them"
    assert any(float(k.features[-4].max()) == 0 for k in kinds), "some lack near infrared"
