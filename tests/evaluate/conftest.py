"""Makes the helpers of this folder importable; weights files of the true layouts, filled by formula."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))

from formula import fill_weights

from geo_refdiff.evaluate.inception import InceptionFeatures
from geo_refdiff.evaluate.lpips import AlexNetFeatures, LinearWeights


@pytest.fixture(scope="session")
def lpips_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """AlexNet as torch.save writes a state dict, with a classifier as torchvision's has one; and the linear weights."""
    folder = tmp_path_factory.mktemp("lpips")
    alexnet = fill_weights(AlexNetFeatures().state_dict())
    torch.save({**alexnet, "classifier.6.bias": torch.zeros(1000)}, folder / "alexnet.pth")
    linear = {key: value.abs() for key, value in fill_weights(LinearWeights().state_dict()).items()}
    torch.save(linear, folder / "linear.pth")
    return folder / "alexnet.pth", folder / "linear.pth"


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inception's state dict as safetensors, without the counters that old files lack."""
    state = fill_weights(InceptionFeatures().state_dict())
    path = tmp_path_factory.mktemp("inception") / "inception.safetensors"
    save_file({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    return path
