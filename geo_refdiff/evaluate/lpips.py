"""LPIPS: the distance of two images in the features of AlexNet, weighted as people see it.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", equation 1; version 0.1
of its weights (`lin0.model.1.weight` ...). AlexNet is Krizhevsky 2014, "One weird trick for parallelizing
convolutional neural networks", in torchvision's layout (`features.0.weight` ...).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.backbones import fill, read_tensors

_EPS = 1e-10
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LAYERS = {0: (3, 64, 11, 4, 2), 3: (64, 192, 5, 1, 2), 6: (192, 384, 3, 1, 1), 8: (384, 256, 3, 1, 1)} | {
    10: (256, 256, 3, 1, 1)
}
"""Place among torchvision's `features` -> in, out, kernel, stride, padding of a convolution; ReLU follows each."""
_POOL_BEFORE = (3, 6)


class AlexNetFeatures(nn.Module):
    """The five convolutions of AlexNet, named as in torchvision's state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict({str(k): nn.Conv2d(i, o, n, s, p) for k, (i, o, n, s, p) in _LAYERS.items()})

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W), normalised, to the five activations after their ReLUs, (N, c_l, h_l, w_l)."""
        activations = []
        for place in _LAYERS:
            if place in _POOL_BEFORE:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(self.features[str(place)](x))
            activations.append(x)
        return activations


class LinearWeights(nn.Module):
    """w_l of equation 1, (1, c_l, 1, 1) each."""

    def __init__(self) -> None:
        super().__init__()
        for level, (_, channels, *_rest) in enumerate(_LAYERS.values()):
            layer = nn.Module()
            layer.model = nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})
            self.add_module(f"lin{level}", layer)

    def weights(self) -> list[Tensor]:
        """In the order of the layers."""
        return list(self.parameters())


class Lpips:
    """LPIPS with the weights that were loaded.

    Args:
        alexnet: torchvision's AlexNet state dict (its classifier is not needed).
        linear: the linear weights of LPIPS, version 0.1, AlexNet.
        device: where it runs.

    Raises:
        InputError: a file is missing, unreadable, or of another layout.
    """

    def __init__(self, alexnet: Path, linear: Path, device: str = "cpu") -> None:
        network, weights = AlexNetFeatures(), LinearWeights()
        fill(network, read_tensors(alexnet), alexnet, "AlexNet as torchvision's state dict")
        fill(weights, read_tensors(linear), linear, "the linear weights of LPIPS for AlexNet")
        self.network = network.to(device)
        self.weights = [w.to(device) for w in weights.weights()]
        self.device = device

    def features(self, image: Tensor) -> list[Tensor]:
        """Unit-length features of (N, 3 or more, H, W) in DN (0..255; clipped); bands 1 to 3 are red, green, blue."""
        if image.shape[1] < 3:
            raise InputError(f"LPIPS needs red, green and blue: the images have {image.shape[1]} bands")
        x = image[:, :3].to(self.device, torch.float32).clamp(0.0, 255.0) / 127.5 - 1.0
        shift, scale = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        raw = self.network((x - shift) / scale)
        return [f / (f.square().sum(dim=1, keepdim=True).sqrt() + _EPS) for f in raw]

    def layers(self, image: Tensor, truth: Tensor) -> list[Tensor]:
        """The weighted distance at each place of each layer, (N, 1, h_l, w_l); `truth` may be one for all."""
        pairs = zip(self.features(image), self.features(truth), self.weights, strict=True)
        return [F.conv2d((a - b).square(), w) for a, b, w in pairs]


def lpips(layers: list[Tensor]) -> Tensor:
    """LPIPS (N,), equation 1: means over each layer, summed; 0 is best."""
    return torch.stack([layer.mean(dim=(1, 2, 3)) for layer in layers]).sum(dim=0)


def lpips_map(layers: list[Tensor], size: tuple[int, int]) -> Tensor:
    """The layers enlarged to the image (bilinear) and summed, (N, 1, H, W); its mean is near `lpips`, not equal."""
    return torch.stack([F.interpolate(x, size, mode="bilinear", align_corners=False) for x in layers]).sum(dim=0)
