"""The change detector's network, and its folder on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geo_refdiff.change.features import CHANNELS
from geo_refdiff.diffusion.model_folder import model_digest, read_config, read_weights, resolve_model
from geo_refdiff.errors import ModelError

ARCHITECTURE = "change-detector"
"""Value of "architecture" in config.json."""

BUNDLED = "detectors/change"
"""The detector that comes with the package: a folder within its models."""

_DILATIONS = (1, 1, 2, 4, 1)


class ChangeNetwork(nn.Module):
    """Dilated 3 x 3 convolutions without padding: the answer depends on `reach` LR pixels around, and on no more.

    Args:
        width: channels.
        classes: K, class 0 ("no change") included.
    """

    reach = sum(_DILATIONS)

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        inputs = [CHANNELS] + [width] * (len(_DILATIONS) - 1)
        self.layers = nn.ModuleList(nn.Conv2d(n, width, 3, dilation=d) for n, d in zip(inputs, _DILATIONS, strict=True))
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, CHANNELS, h + 2 reach, w + 2 reach) -> class logits (N, K, h, w)."""
        x = features
        for layer, dilation in zip(self.layers, _DILATIONS, strict=True):
            fresh = torch.relu(layer(x))
            x = fresh if x.shape[1] != fresh.shape[1] else fresh + x[..., dilation:-dilation, dilation:-dilation]
        logits: Tensor = self.last(x)
        return logits


@dataclass(frozen=True)
class Detector:
    """A detector, loaded.

    Attributes:
        network: in float64, ready to be called; its answers agree to some 13 digits whatever computes them.
        classes: names, class 0 is "no change".
        threshold: probability of change from which a pixel counts as changed.
        psf_sigma: of the sensor that it was trained for, LR pixels.
        sha256: of its files.
    """

    network: ChangeNetwork
    classes: tuple[str, ...]
    threshold: float
    psf_sigma: float
    sha256: str


def load_detector(folder: str | Path | None = None) -> Detector:
    """A detector from its folder; None: the bundled one.

    Raises:
        ModelError: no model folder, damaged, or no change detector.
    """
    folder = resolve_model(Path(str(resources.files("geo_refdiff.models"))) / BUNDLED if folder is None else folder)
    config = read_config(folder)
    if config.get("architecture") != ARCHITECTURE:
        raise ModelError(f"{folder}: is a '{config.get('architecture')}' model, not a {ARCHITECTURE}; name another one")
    try:
        network = ChangeNetwork(int(config["width"]), len(config["classes"]))
        network.load_state_dict(read_weights(folder))
        classes, threshold = tuple(str(c) for c in config["classes"]), float(config["threshold"])
        psf_sigma = float(config["psf_sigma"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: config.json and weights do not fit ({error}); fetch the model again") from error
    network.double().eval().requires_grad_(False)
    return Detector(network, classes, threshold, psf_sigma, model_digest(folder))


def detector_config(width: int, classes: Sequence[str], threshold: float, **more: Any) -> Mapping[str, Any]:
    """config.json of a detector."""
    return {
        "architecture": ARCHITECTURE,
        "width": width,
        "classes": list(classes),
        "threshold": threshold,
        "reach": ChangeNetwork.reach,
        **more,
    }
