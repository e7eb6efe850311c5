"""Images between the LR and the HR grid, with the same bits wherever they were cut: products and sums one by one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel

LOBES = 4
"""Of Lanczos' kernel: LR pixels on each side."""


def filtered(image: NDArray[np.float32], taps: tuple[float, ...], axis: int) -> NDArray[np.float32]:
    """One axis convolved, zeros beyond the border, products and sums one by one."""
    radius = len(taps) // 2
    width = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
    padded = np.pad(image, width)
    total = np.zeros_like(image)
    length = image.shape[axis]
    for k, weight in enumerate(taps):
        part = padded[k : k + length] if axis == 0 else padded[:, k : k + length]
        total += np.float32(weight) * part
    return total


def reduced(image: NDArray[np.float32], sensor: SensorModel) -> NDArray[np.float32]:
    """(h scale, w scale) -> (h, w) as the sensor sees it, zeros beyond the border, products and sums one by one."""
    return reduced_along(reduced_along(image, sensor, 0), sensor, 1)


def reduced_along(image: NDArray[np.float32], sensor: SensorModel, axis: int) -> NDArray[np.float32]:
    scale, reach = sensor.scale, sensor.reach
    length = image.shape[axis] // scale
    padded = np.pad(image, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)])
    total = np.zeros((length, image.shape[1]) if axis == 0 else (image.shape[0], length), dtype=np.float32)
    for k, weight in enumerate(sensor.taps):
        at = slice(k, k + (length - 1) * scale + 1, scale)
        total += np.float32(weight) * (padded[at] if axis == 0 else padded[:, at])
    return total


@lru_cache(maxsize=64)
def _lanczos_phases(scale: int) -> tuple[tuple[float, ...], ...]:
    """For each HR pixel inside an LR pixel the weights of the LR pixels `-LOBES .. LOBES` around it, sum 1."""
    phases = []
    for p in range(scale):
        distance = np.arange(-LOBES, LOBES + 1) - ((p + 0.5) / scale - 0.5)
        weights = np.sinc(distance) * np.sinc(distance / LOBES) * (np.abs(distance) < LOBES)
        phases.append(tuple(float(w) for w in weights / weights.sum()))
    return tuple(phases)


def lanczos_along(lr: NDArray[np.float32], scale: int, axis: int) -> NDArray[np.float32]:
    """One axis enlarged by Lanczos' kernel, the border replicated, products and sums one by one."""
    length = lr.shape[axis]
    padded = np.pad(lr, [(LOBES, LOBES) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
    shape = [n * scale if a == axis else n for a, n in enumerate(lr.shape)]
    out = np.zeros(shape, dtype=np.float32)
    for p, weights in enumerate(_lanczos_phases(scale)):
        part = out[p::scale] if axis == 0 else out[:, p::scale]
        for k, weight in enumerate(weights):
            part += np.float32(weight) * (padded[k : k + length] if axis == 0 else padded[:, k : k + length])
    return out


def enlarged(lr: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    """(h, w) -> (h scale, w scale) by Keys' cubic kernel."""
    return np.asarray(upsample(torch.from_numpy(np.ascontiguousarray(lr))[None, None], scale)[0, 0].numpy())


def cell_means(mask: NDArray[np.bool_], scale: int) -> NDArray[np.float32]:
    """The share of True in each LR pixel."""
    height, width = (n // scale for n in mask.shape)
    counts = mask.reshape(height, scale, width, scale).sum(axis=(1, 3), dtype=np.int32)
    return np.asarray(counts.astype(np.float32) / np.float32(scale * scale))
