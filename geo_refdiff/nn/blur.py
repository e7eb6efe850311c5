"""Gaussian blur as matrix products and means of squares as sums: a convolution by few channels, and torch's pooling,
are slow as such, on a CPU most of all."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

_TILE = 32
"""Pixels along an axis that one product gives."""


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """An image (N, C, H, W) convolved with a Gaussian that is cut at 3 sigma (output pixels); the border is replicated.

    Computed in float32 or better, whatever autocast says.
    """
    taps, reach = _toeplitz(sigma, image.dtype, image.device), blur_reach(sigma)
    n, c, height, width = image.shape
    rows, cols = -(-height // _TILE), -(-width // _TILE)
    around = (reach, reach + cols * _TILE - width, reach, reach + rows * _TILE - height)
    x = F.pad(image, around, mode="replicate").flatten(0, 1)
    with torch.autocast(image.device.type, enabled=False):
        down = [(taps @ each.unfold(0, taps.shape[1], _TILE).mT).flatten(0, 1) for each in x]  # (H, W + 2 reach)
        across = taps.T.expand(cols, *taps.T.shape)
        tiles = [each.unfold(1, taps.shape[1], _TILE).transpose(0, 1) @ across for each in down]  # (cols, H, _TILE)
        done = [each.transpose(0, 1).flatten(1) for each in tiles]
    return torch.stack(done)[:, :height, :width].reshape(n, c, height, width)


def box_mean(image: Tensor, side: int) -> Tensor:
    """Means over `side` x `side` pixels, odd, of an image (N, C, H, W); beyond its border there are none."""
    for dim in (-1, -2):
        size, reach = image.shape[dim], side // 2
        around = F.pad(image, (reach, reach) if dim == -1 else (0, 0, reach, reach))
        total = around.narrow(dim, 0, size) + around.narrow(dim, 1, size)
        for start in range(2, side):
            total += around.narrow(dim, start, size)
        at = torch.arange(size, device=image.device)
        count = (at.clamp(max=reach) + (size - 1 - at).clamp(max=reach) + 1).to(image.dtype)
        image = total.div_(count if dim == -1 else count[:, None])
    return image


def blur_reach(sigma: float) -> int:
    """Pixels to each side that a blurred pixel depends on."""
    return max(1, round(3 * sigma))


@lru_cache(maxsize=16)
def _toeplitz(sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(_TILE, _TILE + 2 reach): row i holds the taps from column i on."""
    reach = blur_reach(sigma)
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    matrix = torch.zeros(_TILE, _TILE + 2 * reach, dtype=torch.float64)
    for row in range(_TILE):
        matrix[row, row : row + len(taps)] = torch.tensor(taps, dtype=torch.float64)
    with torch.inference_mode(False):
        return (matrix / sum(taps)).to(device=device, dtype=dtype)
