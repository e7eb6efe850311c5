"""Training of the change detector: it learns, repeats, and says what it was made of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geo_refdiff.change.network import load_detector
from geo_refdiff.data import Crop, open_dataset
from geo_refdiff.errors import InputError
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.train.detector import collect, crops, drawn, lr_sample, main, probabilities, train, write

SIZE = 96


@pytest.fixture(scope="module")
def painted() -> list[Crop]:
    """A dozen landscapes."""
    return list(crops(open_dataset("landscape:20000-20011", size=SIZE)))


def test_the_same_pairs_give_the_same_detector_and_its_folder_tells_how(painted: list[Crop], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for name in "ab":
        write(tmp_path / name, [painted, painted[:2]], (1, 2), steps=3, width=4, origin={"landscapes": ["x"]})
    first, second = (load_detector(tmp_path / name) for name in "ab")
    assert first.sha256 == second.sha256
    told = json.loads((tmp_path / "a" / "config.json").read_text())["trained"]
    assert told["landscapes"] == ["x"]
    assert (told["steps"], told["pairs"], told["draws"], told["samples"]) == (3, [11, 2], [1, 2], 15)


def test_the_command_goes_on_from_a_detector(tmp_path: Path, painted: list[Crop]) -> None:
    write(tmp_path / "a", [painted], (1,), steps=1, width=4)
    words = ["--landscapes", "20000-20009", "--size", str(SIZE), "--steps", "1", "--width", "4"]
    main([str(tmp_path / "b"), *words, "--init", str(tmp_path / "a")])
    told = json.loads((tmp_path / "b" / "config.json").read_text())["trained"]
    assert told["landscapes"] == ["20000-20009"]
    assert told["init"] == load_detector(tmp_path / "a").sha256


def test_too_few_pairs_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than 10 pairs"):
        main([str(tmp_path / "a"), "--landscapes", "20000-20001", "--size", str(SIZE)])


def test_it_learns_what_it_is_shown(painted: list[Crop]) -> None:
    torch.set_num_threads(1)
    network = train(collect([painted], [2], 0), 80, 16)
    found = [(1 - probabilities(network, s)[0], s) for s in (lr_sample(crop, SensorModel(8)) for crop in painted)]
    told, true = (
        torch.cat(parts)
        for parts in zip(*((p[s.weight > 0], s.shares[0][s.weight > 0] < 0.5) for p, s in found), strict=True)
    )
    assert true.any()
    assert told[true].mean() > 2 * told[~true].mean()


def test_samples_say_what_changed_and_where_nothing_is_known(painted: list[Crop]) -> None:
    crop, scale = painted[0], 8
    valid = crop.ref_valid.copy()
    valid[:scale, :scale] = False
    sample = lr_sample(crop._replace(ref_valid=valid), SensorModel(scale))
    assert sample.weight[0, 0] == 0
    assert float(sample.weight.mean()) > 0.9
    share = (crop.mask == 0).reshape(SIZE // scale, scale, SIZE // scale, scale).mean((1, 3))
    assert np.allclose(sample.shares[0].numpy()[sample.weight > 0], share[sample.weight.numpy() > 0], atol=1e-2)
    rng = np.random.default_rng(0)
    kinds = [drawn(crop, painted[1], rng) for _ in range(40)]
    assert len({k.scale for k in kinds}) > 2
    assert any(bool((k.shares[0][k.weight > 0] == 1).all()) for k in kinds), "the same date twice is among them"
    assert any(float(k.features[-4].max()) == 0 for k in kinds), "some lack near infrared"
