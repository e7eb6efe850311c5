"""The judge that no loss has seen: its features against the package's own network, distances and FD at their ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import image_pair

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate import efficientnet
from geo_refdiff.evaluate.efficientnet import Judge, distances, judge_weights, pooled
from geo_refdiff.evaluate.frechet import frechet_distance, jackknife_error, jackknifed


def images() -> tuple[torch.Tensor, torch.Tensor]:
    image, truth = (x.float() for x in image_pair(4, 64, 96))
    return image, truth


def test_features_are_those_of_the_packages_network(judge_file: Path) -> None:
    model = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    network = model.EfficientNet.from_name("efficientnet-lite0").eval()
    missing = network.load_state_dict(torch.load(judge_file, weights_only=True), strict=False).missing_keys
    assert all(key.startswith(("_conv_head", "_bn1", "_fc")) for key in missing)
    image = 255 * torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = Judge(judge_file).features(image)
        x = network._swish(network._bn0(network._conv_stem((image - 127) / 128)))
        for feature, block in zip(found, [*network._blocks, None], strict=True):
            torch.testing.assert_close(feature, x)
            x = x if block is None else block(x)


def test_distances_are_zero_for_the_truth_and_grow(judge_file: Path) -> None:
    assert judge_weights() == judge_file
    image, truth = images()
    judge = Judge(judge_file)
    with torch.inference_mode():
        features = judge.features(torch.cat([truth, truth + 0.3 * (image - truth), image]))
    layers = distances(features, [f[:1] for f in features])
    assert [tuple(layer.shape) for layer in layers] == [
        (3, 1, 32, 48), (3, 1, 32, 48), (3, 1, 16, 24), (3, 1, 8, 12), (3, 1, 4, 6), (3, 1, 2, 3),
    ]  # fmt: skip
    whole = torch.stack([layer.mean(dim=(1, 2, 3)) for layer in layers]).mean(dim=0)
    assert whole[0] == 0.0
    assert 0.0 < whole[1] < whole[2] < 4.0
    assert pooled(features).shape == (3, 2 * (40 + 112))
    alone = judge.features(image)
    torch.testing.assert_close(pooled(alone)[0], pooled(features)[2], rtol=1e-3, atol=1e-4)
    level = efficientnet._POOLED[0] + 1
    torch.testing.assert_close(pooled(alone)[0, :40], alone[level].mean(dim=(0, 2, 3)))


def test_files_and_images_that_will_not_do(judge_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="need red, green and blue: the images have 1 bands"):
        Judge(judge_file).features(torch.zeros(1, 1, 32, 32))
    state = torch.load(judge_file, weights_only=True)
    del state["_blocks.3._bn1.weight"]
    torch.save(state, judge_file)
    with pytest.raises(InputError, match=r"not EfficientNet-Lite0 .*lacks _blocks.3._bn1.weight"):
        Judge(judge_file)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert judge_weights() is None


def test_the_jackknife_finds_the_error_of_fd() -> None:
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(60):
        first, second = rng.normal(0, 1, (80, 4)), rng.normal(0.5, 1, (80, 4))
        value, parts = jackknifed(first, second)
        assert value == frechet_distance(first, second)
        assert len(parts) == 20
        draws.append((value, jackknife_error(parts)))
    values, errors = np.array(draws).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.35)
    assert jackknife_error(parts - parts) == 0.0
