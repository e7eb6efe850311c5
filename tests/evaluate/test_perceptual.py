"""Networks that judge images: against the packages they are named after, distances at their ends, files of weights."""

from __future__ import annotations

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from formula import image_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.linalg import sqrtm

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate import perceptual
from geo_refdiff.evaluate.perceptual import (
    EfficientNet,
    Inception,
    Lpips,
    efficientnet_weights,
    feature_distances,
    frechet_distance,
    jackknife_error,
    jackknifed,
    layers_map,
    layers_mean,
    pooled_features,
    read_tensors,
)


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
        result = read_tensors(path)
        assert set(result) == {"a", "b"}
        assert torch.equal(result["a"], state["a"])


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
        result = EfficientNet(judge_file).features(image)
        x = network._swish(network._bn0(network._conv_stem((image - 127) / 128)))
        for feature, block in zip(result, [*network._blocks, None], strict=True):
            torch.testing.assert_close(feature, x)
            x = x if block is None else block(x)


def test_distances_are_zero_for_the_truth_and_grow(judge_file: Path) -> None:
    assert efficientnet_weights() == judge_file
    image, truth = images()
    judge = EfficientNet(judge_file)
    with torch.inference_mode():
        features = judge.features(torch.cat([truth, truth + 0.3 * (image - truth), image]))
    layers = feature_distances(features, [f[:1] for f in features])
    assert [tuple(layer.shape) for layer in layers] == [
        (3, 1, 32, 48), (3, 1, 32, 48), (3, 1, 16, 24), (3, 1, 8, 12), (3, 1, 4, 6), (3, 1, 2, 3),
    ]  # fmt: skip
    whole = torch.stack([layer.mean(dim=(1, 2, 3)) for layer in layers]).mean(dim=0)
    assert whole[0] == 0.0
    assert 0.0 < whole[1] < whole[2] < 4.0
    assert pooled_features(features).shape == (3, 2 * (40 + 112))
    alone = judge.features(image)
    torch.testing.assert_close(pooled_features(alone)[0], pooled_features(features)[2], rtol=1e-3, atol=1e-4)
    level = perceptual._POOLED[0] + 1
    torch.testing.assert_close(pooled_features(alone)[0, :40], alone[level].mean(dim=(0, 2, 3)))


def test_a_file_of_another_layout_and_a_missing_package(judge_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.load(judge_file, weights_only=True)
    del state["_blocks.3._bn1.weight"]
    torch.save(state, judge_file)
    with pytest.raises(InputError, match=r"not EfficientNet-Lite0 .*lacks _blocks.3._bn1.weight"):
        EfficientNet(judge_file)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert efficientnet_weights() is None


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


def with_moments(mean: np.ndarray, root: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """Rows whose sample mean and covariance are exactly `mean` and root' root."""
    draws = np.random.default_rng(seed).standard_normal((rows, len(mean)))
    draws -= draws.mean(axis=0)
    white = draws @ np.linalg.inv(np.linalg.cholesky(np.cov(draws, rowvar=False)).T)
    return white @ root + mean


@given(st.integers(0, 1000))
@settings(max_examples=25)
def test_closed_form_of_gaussians_with_common_axes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    means, widths = rng.normal(0, 3, (2, 5)), rng.uniform(0.1, 4, (2, 5))
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    first, second = (with_moments(means[k], np.diag(widths[k]) @ turn, 40, seed + k) for k in (0, 1))
    expected = np.square(means[0] - means[1]).sum() + np.square(widths[0] - widths[1]).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rows", [(300, 200), (25, 30), (200, 25)], ids=["many", "few", "uneven"])
def test_the_matrix_root_says_the_same(rows: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((2, 40, 40))
    first, second = (rng.standard_normal((rows[k], 40)) @ mixing[k] + k for k in (0, 1))
    s1, s2 = (np.cov(x, rowvar=False) for x in (first, second))
    root = np.trace(sqrtm(s1 @ s2)).real
    expected = np.square(first.mean(0) - second.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * root
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_a_set_has_no_distance_to_itself_in_any_order() -> None:
    rows = np.random.default_rng(2).standard_normal((20, 64))
    assert frechet_distance(rows, rows[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows + 2) == pytest.approx(4 * 64)


def test_too_few_rows_or_other_features_are_refused() -> None:
    rows = np.zeros((3, 4))
    for other in (rows[:1], np.zeros((3, 5))):
        with pytest.raises(ValueError, match="features of shape"):
            frechet_distance(rows, other)


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
    result = Inception(inception_file).features(image)
    expected = torch.full((2, 6), -1.0)
    expected[:, 3:] = 0
    expected[0, 0] = expected[1, 2] = 1  # clipped to 255, then [-1, 1]
    assert torch.allclose(result, expected, atol=1e-5)


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


def layers(files: tuple[Path, Path]) -> list[torch.Tensor]:
    image, truth = (x.float() for x in image_pair(3, 96, 128))
    with torch.inference_mode():
        return Lpips(*files).layers(image, truth)


def test_the_authors_package_finds_the_same(lpips_files: tuple[Path, Path]) -> None:
    result = layers(lpips_files)
    assert layers_mean(result).item() == pytest.approx(0.1540568768978119, abs=2e-6)
    spatial = layers_map(result, (96, 128))
    assert spatial.shape == (1, 1, 96, 128)
    assert spatial.mean().item() == pytest.approx(0.15407106280326843, abs=2e-6)
    assert spatial[0, 0, 10, 20].item() == pytest.approx(0.05430469289422035, abs=2e-6)
    assert spatial[0, 0, 90, 100].item() == pytest.approx(0.18972747027873993, abs=2e-6)


def test_an_image_has_no_distance_to_itself_and_values_are_clipped(lpips_files: tuple[Path, Path]) -> None:
    image, truth = (x.float() for x in image_pair(4, 64, 64))
    judge = Lpips(*lpips_files)
    assert layers_mean(judge.layers(truth, truth)).item() == 0
    white = torch.full_like(truth, 255.0)
    assert torch.equal(layers_mean(judge.layers(white + 50, truth)), layers_mean(judge.layers(white, truth)))
    both = layers_mean(judge.layers(torch.cat([image, truth]), truth))
    assert both[1] < 1e-9
    assert both[0].item() == pytest.approx(layers_mean(judge.layers(image, truth)).item(), abs=1e-6)


def test_one_band_is_refused(lpips_files: tuple[Path, Path], inception_file: Path, judge_file: Path) -> None:
    for network in (Lpips(*lpips_files), Inception(inception_file), EfficientNet(judge_file)):
        with pytest.raises(InputError, match="need red, green and blue, the images have 1 bands"):
            network.features(torch.zeros(1, 1, 64, 64))


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


def test_files_in_the_wrong_order_are_reported_apart(lpips_files: tuple[Path, Path]) -> None:
    with pytest.raises(InputError, match="not AlexNet as torchvision's state dict"):
        Lpips(*reversed(lpips_files))
    with pytest.raises(InputError, match="not the linear weights"):
        Lpips(lpips_files[0], lpips_files[0])
