"""Images and weights from formulas: the same anywhere, so that values of other programs can be written down."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def image_pair(bands: int = 3, height: int = 64, width: int = 80) -> tuple[Tensor, Tensor]:
    """(image, truth), (1, bands, height, width) float64 in DN."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )

    def grain(k: int) -> Tensor:
        return torch.frac(torch.sin(12.9898 * x + 78.233 * y + k) * 43758.5453).abs()

    truth, image = [], []
    for b in range(bands):
        waves = 60 * torch.sin(x / (3 + b)) * torch.cos(y / (5 + b))
        truth.append(103 + waves + 50 * ((x // 16 + y // 12 + b) % 2) + 8 * grain(b))
        spoilt = 0.9 * truth[-1].roll(1, 0) + 12 * torch.sin(x * y / 200 + b) + 10
        image.append(spoilt + 30 * (grain(b + 9) - 0.5))
    return torch.stack(image)[None].clamp(0, 255), torch.stack(truth)[None].clamp(0, 255)


def fill_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the shapes of `state`, of a size that keeps activations alive; variances are positive."""
    filled = {}
    for number, (key, value) in enumerate(state.items()):
        wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * 0.7131 + number).reshape(value.shape)
        if key.endswith("num_batches_tracked"):
            filled[key] = torch.zeros_like(value)
            continue
        if key.endswith("running_var"):
            wave = 1 + 0.5 * wave.square()
        elif value.ndim == 4:
            wave = wave * (6 / value[0].numel()) ** 0.5
        elif key.endswith("bn.weight"):
            wave = 1 + 0.2 * wave
        else:
            wave = 0.2 * wave
        filled[key] = wave.to(torch.float32)
    return filled
