"""Inception-v3 as the Frechet inception distance uses it.

Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", figures 5 to 7; the names and the
oddities of the network of 2015-12-05 (averages that leave the padding out, a maximum in the last block) are those of
its PyTorch port, `pt_inception-2015-12-05`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.backbones import fill, is_torchscript, read_tensors

SIDE = 299
"""Pixels along a side of what the network sees."""

Pair = tuple[int, int]


class _Step(NamedTuple):
    """One convolution with batch norm and ReLU."""

    name: str
    outputs: int
    kernel: int | Pair = 1
    padding: int | Pair = 0
    stride: int = 1


_Branch = list[tuple[_Step, ...]]
"""Stages one after the other; the steps of one stage all see the same, and their outputs are joined."""


class _Conv(nn.Module):
    def __init__(self, inputs: int, step: _Step) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, step.outputs, step.kernel, step.stride, step.padding, bias=False)
        self.bn = nn.BatchNorm2d(step.outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Branches side by side, joined along the channels; the last one pools, then convolves to `pooled` channels."""

    def __init__(
        self, inputs: int, branches: Sequence[_Branch], pool: Callable[[Tensor], Tensor], pooled: int = 0
    ) -> None:
        super().__init__()
        self.pool, self.outputs = pool, pooled or inputs
        self.names: list[list[list[str]]] = []
        for branch in branches:
            width = inputs
            for stage in branch:
                for step in stage:
                    self.add_module(step.name, _Conv(width, step))
                width = sum(step.outputs for step in stage)
            self.outputs += width
            self.names.append([[step.name for step in stage] for stage in branch])
        self.branch_pool = _Conv(inputs, _Step("branch_pool", pooled)) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for branch in self.names:
            y = x
            for stage in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in stage], dim=1)
            parts.append(y)
        parts.append(self.branch_pool(self.pool(x)))
        return torch.cat(parts, dim=1)


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _halving(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


def _chain(*steps: _Step) -> _Branch:
    return [(step,) for step in steps]


def _wide(name: str, outputs: int, length: int = 7) -> _Step:
    return _Step(name, outputs, (1, length), (0, length // 2))


def _tall(name: str, outputs: int, length: int = 7) -> _Step:
    return _Step(name, outputs, (length, 1), (length // 2, 0))


def _block_a(inputs: int, pooled: int) -> _Mixed:
    """Figure 5: 5 x 5 and twice 3 x 3."""
    five = _chain(_Step("branch5x5_1", 48), _Step("branch5x5_2", 64, 5, 2))
    three = _chain(_Step("branch3x3dbl_1", 64), _Step("branch3x3dbl_2", 96, 3, 1), _Step("branch3x3dbl_3", 96, 3, 1))
    return _Mixed(inputs, [_chain(_Step("branch1x1", 64)), five, three], _average, pooled)


def _block_b(inputs: int) -> _Mixed:
    """Halves the grid, figure 10."""
    double = _chain(
        _Step("branch3x3dbl_1", 64), _Step("branch3x3dbl_2", 96, 3, 1), _Step("branch3x3dbl_3", 96, 3, 0, 2)
    )
    return _Mixed(inputs, [_chain(_Step("branch3x3", 384, 3, 0, 2)), double], _halving)


def _block_c(inputs: int, width: int) -> _Mixed:
    """Figure 6: 7 x 7 taken apart."""
    single = _chain(_Step("branch7x7_1", width), _wide("branch7x7_2", width), _tall("branch7x7_3", 192))
    double = _chain(
        _Step("branch7x7dbl_1", width),
        _tall("branch7x7dbl_2", width),
        _wide("branch7x7dbl_3", width),
        _tall("branch7x7dbl_4", width),
        _wide("branch7x7dbl_5", 192),
    )
    return _Mixed(inputs, [_chain(_Step("branch1x1", 192)), single, double], _average, 192)


def _block_d(inputs: int) -> _Mixed:
    """Halves the grid again."""
    three = _chain(_Step("branch3x3_1", 192), _Step("branch3x3_2", 320, 3, 0, 2))
    seven = _chain(
        _Step("branch7x7x3_1", 192),
        _wide("branch7x7x3_2", 192),
        _tall("branch7x7x3_3", 192),
        _Step("branch7x7x3_4", 192, 3, 0, 2),
    )
    return _Mixed(inputs, [three, seven], _halving)


def _block_e(inputs: int, pool: Callable[[Tensor], Tensor]) -> _Mixed:
    """Figure 7: 3 x 3 taken apart and joined side by side."""
    single: _Branch = [
        (_Step("branch3x3_1", 384),),
        (_wide("branch3x3_2a", 384, 3), _tall("branch3x3_2b", 384, 3)),
    ]
    double: _Branch = [
        (_Step("branch3x3dbl_1", 448),),
        (_Step("branch3x3dbl_2", 384, 3, 1),),
        (_wide("branch3x3dbl_3a", 384, 3), _tall("branch3x3dbl_3b", 384, 3)),
    ]
    return _Mixed(inputs, [_chain(_Step("branch1x1", 320)), single, double], pool, 192)


class InceptionFeatures(nn.Module):
    """From (N, 3, 299, 299) in [-1, 1] to the 2,048 features of the last average pooling."""

    def __init__(self) -> None:
        super().__init__()
        stem = {
            "Conv2d_1a_3x3": (3, _Step("", 32, 3, 0, 2)),
            "Conv2d_2a_3x3": (32, _Step("", 32, 3)),
            "Conv2d_2b_3x3": (32, _Step("", 64, 3, 1)),
            "Conv2d_3b_1x1": (64, _Step("", 80)),
            "Conv2d_4a_3x3": (80, _Step("", 192, 3)),
        }
        self.stem = list(stem)
        for name, (inputs, step) in stem.items():
            self.add_module(name, _Conv(inputs, step))
        mixed = {
            "Mixed_5b": _block_a(192, 32),
            "Mixed_5c": _block_a(256, 64),
            "Mixed_5d": _block_a(288, 64),
            "Mixed_6a": _block_b(288),
            "Mixed_6b": _block_c(768, 128),
            "Mixed_6c": _block_c(768, 160),
            "Mixed_6d": _block_c(768, 160),
            "Mixed_6e": _block_c(768, 192),
            "Mixed_7a": _block_d(768),
            "Mixed_7b": _block_e(1280, _average),
            "Mixed_7c": _block_e(2048, _maximum),
        }
        self.mixed = list(mixed)
        for name, block in mixed.items():
            self.add_module(name, block)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.stem:
            x = self.get_submodule(name)(x)
            if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
                x = _halving(x)
        for name in self.mixed:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


class Inception:
    """The network that judges sets of images, with the weights that were loaded.

    Args:
        path: a TorchScript module that takes (N, 3, 299, 299) float32 in [-1, 1] and gives (N, features), or a state
            dict in the layout of `pt_inception-2015-12-05` (its classifier is not needed).
        device: where it runs.

    Raises:
        InputError: the file is missing, unreadable, or of another layout.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.device, self.path = device, path
        self.network: Callable[[Tensor], Tensor]
        if path.is_file() and is_torchscript(path):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # torch would like other formats
                    self.network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
            except (RuntimeError, ValueError, OSError) as error:
                raise InputError(f"{path}: cannot be read as TorchScript; fetch it again or save it anew") from error
        else:
            state, network = read_tensors(path), InceptionFeatures()
            fill(network, state, path, "Inception in the layout of pt_inception-2015-12-05")
            self.network = network.to(device)
        self.features(torch.zeros(1, 3, SIDE, SIDE))

    def features(self, image: Tensor) -> Tensor:
        """(N, features) float32 on the CPU, of (N, 3 or more, H, W) in DN; bands 1 to 3 are red, green, blue.

        Values are clipped to 0..255; the image is resized to 299 x 299 (bilinear, pixel areas aligned).
        """
        if image.shape[1] < 3:
            raise InputError(f"FID needs red, green and blue: the images have {image.shape[1]} bands")
        x = image[:, :3].to(self.device, torch.float32).clamp(0.0, 255.0)
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False) / 127.5 - 1.0
        try:
            found = self.network(x)
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{self.path}: does not take (N, 3, {SIDE}, {SIDE}) float images in [-1, 1]") from error
        if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[0] != x.shape[0]:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"{self.path}: gives {shape} for {x.shape[0]} images, not (N, features)")
        return found.to("cpu", torch.float32)
