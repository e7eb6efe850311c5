"""Where the detail of a pixel comes from, from what restorers say of their own detail.

A restorer that traces gives two more channels beside the image, which are cross-faded like it: the local energy of the
detail that it took from the reference, and of the detail that it generated, both in squares of the least detail that
counts (`NOTICEABLE`). The larger one names the class; where neither is noticeable the pixel is interpolated.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NOTHING, REFERENCE, GENERATED, INTERPOLATED = 0, 1, 2, 3
CLASSES: tuple[str, ...] = ("nodata", "reference", "generated", "interpolated")
"""Names by value; 0 = nodata."""

COLOURS: tuple[tuple[int, int, int], ...] = ((0, 0, 0), (27, 120, 55), (217, 95, 2), (189, 189, 189))
"""Red, green, blue by value."""

TRACES = 2
"""Channels of a trace: energy from the reference, energy generated."""

NOTICEABLE = 1.0 / 127.5
"""Root mean square of the least detail that counts, model units: one digital number of 256."""

_SIDE = 7


def trace(copied: Tensor, generated: Tensor) -> Tensor:
    """Energies of detail, averaged over bands and, twice, over 7 x 7 pixels.

    Args:
        copied: (N, K, H, W) detail taken from the reference, in bands of all kinds that add up, model units.
        generated: (N, C, H, W) detail from elsewhere, model units.

    Returns:
        (N, 2, H, W) float32, in squares of `NOTICEABLE`.
    """
    bands = generated.shape[1]
    energies = torch.cat(
        [copied.square().sum(dim=1, keepdim=True) / bands, generated.square().mean(dim=1, keepdim=True)], dim=1
    )
    for _ in range(2):
        energies = F.avg_pool2d(energies, _SIDE, stride=1, padding=_SIDE // 2, count_include_pad=False)
    return energies.to(torch.float32) / NOTICEABLE**2


def source_classes(traces: Tensor) -> Tensor:
    """(2, height, width) traces -> (height, width) classes, uint8."""
    reference, generated = traces
    classes = torch.where(reference >= generated, REFERENCE, GENERATED)
    return torch.where(torch.maximum(reference, generated) < 1.0, INTERPOLATED, classes).to(torch.uint8)
