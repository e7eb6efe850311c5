"""Back-projection: the smallest smooth correction after which an image, seen by the sensor, is the LR scene.

Iterative back-projection (Irani and Peleg 1991) repeats x <- x + U (lr - A x), with A the sensor and U an
up-sampling. Both are shift-invariant on the LR grid, so k rounds of it are one: x + U G (lr - A x), where G is the
LR-grid filter with the frequency response (1 - (1 - t)^k) / t and t that of A U. One pass costs what a single round
costs, and its reach is known.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.sensor.resize import CONTEXT, upsample
from geo_refdiff.sensor.sensor import SensorModel

ROUNDS = 20
"""Rounds of iterative back-projection that one pass stands for."""

RADIUS = 5
"""LR pixels to which the filter G is cut; what lies beyond is below 1e-3 of its centre for the PSFs in use."""

_GRID = 64


@lru_cache(maxsize=32)
def _filter(sensor: SensorModel) -> NDArray[np.float32]:
    impulse = torch.zeros(1, 1, _GRID, _GRID, dtype=torch.float64)
    impulse[..., _GRID // 2, _GRID // 2] = 1.0
    seen = sensor.observe(upsample(impulse, sensor.scale))[0, 0].numpy()
    response = np.fft.fft2(np.fft.ifftshift(seen)).real
    gain = (1.0 - (1.0 - response) ** ROUNDS) / np.where(np.abs(response) < 1e-9, 1e-9, response)
    kernel = np.fft.fftshift(np.fft.ifft2(gain).real)
    mid = _GRID // 2
    cut = kernel[mid - RADIUS : mid + RADIUS + 1, mid - RADIUS : mid + RADIUS + 1]
    return np.ascontiguousarray(cut * (kernel.sum() / cut.sum()), dtype=np.float32)


def reach(sensor: SensorModel) -> int:
    """HR pixels on each side that a back-projected pixel depends on."""
    return (RADIUS + CONTEXT + 1) * sensor.scale + sensor.reach


def project(x: Tensor, lr: Tensor, sensor: SensorModel) -> Tensor:
    """Correct an HR image so that the sensor would have seen the LR scene.

    Args:
        x: (N, C, H, W) float, HR image.
        lr: (N, C, H / scale, W / scale), the scene over the same area, same units.
        sensor: the declared operator.

    Returns:
        (N, C, H, W). Away from the border (`reach`), `sensor.observe` of it equals `lr` up to what the cubic kernel
        cannot express (the highest diagonal frequencies of the LR grid).
    """
    residual = lr - sensor.observe(x)
    n, c, h, w = residual.shape
    kernel = torch.from_numpy(_filter(sensor)).to(device=x.device, dtype=x.dtype)
    padded = F.pad(residual.reshape(n * c, 1, h, w), (RADIUS,) * 4, mode="replicate")
    correction = F.conv2d(padded, kernel[None, None]).reshape(n, c, h, w)
    return x + upsample(correction, sensor.scale)
