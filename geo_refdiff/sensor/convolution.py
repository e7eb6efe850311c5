"""Strided convolution by separable kernels, the step from the output to the scene grid, with a kernel for each image.

Along an axis the image is cut into cells of `stride` pixels. One matrix product gives what each cell adds to the scene
pixels that see it, so that every output pixel is read once; the rest are sums of the scene's size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.sensor.kernels import Factors


def convolve_along(x: Tensor, taps: Tensor, stride: int, dim: int) -> Tensor:
    """One axis convolved and thinned out.

    Args:
        x: (N, C, H, W), float.
        taps: (1, L), one kernel for all images, or (N, L).
        stride: pixels between two results.
        dim: -1 or -2.

    Returns:
        the same with n = (length - L) // stride + 1 along `dim`.
    """
    length = taps.shape[-1]
    if stride == 1:
        count = x.shape[dim] - length + 1
        each = taps.T[:, :, None, None, None]
        total = x.narrow(dim, 0, count) * each[0]
        for k in range(1, length):
            total += x.narrow(dim, k, count) * each[k]
        return total
    cells = -(-length // stride)
    count = (x.shape[dim] - length) // stride + 1
    size = (count + cells - 1) * stride
    spare = size - x.shape[dim]
    if spare > 0:
        x = F.pad(x, (0, spare) if dim == -1 else (0, 0, 0, spare))
    elif spare < 0:
        x = x.narrow(dim, 0, size)
    weights = F.pad(taps, (0, cells * stride - length)).reshape(-1, 1, 1, cells, stride)
    with torch.autocast(x.device.type, enabled=False):
        if dim == -1:
            parts = torch.unflatten(x, -1, (-1, stride)) @ weights.mT  # (N, C, H, n + cells - 1, cells)
            return _sum([parts[..., i : i + count, i] for i in range(cells)])
        parts = weights @ torch.unflatten(x, -2, (-1, stride))  # (N, C, n + cells - 1, cells, W)
        return _sum([parts[..., i : i + count, i, :] for i in range(cells)])


def convolve(x: Tensor, kernels: Sequence[Factors], stride: int) -> Tensor:
    """Images convolved with kernels that are sums of separable ones.

    Args:
        x: (N, C, H, W), float, with the kernels' context, which is used up.
        kernels: one for all images, or N of them; shorter ones are centred in the longest.
        stride: pixels between two results.

    Returns:
        (N, C, (H - L) // stride + 1, (W - L) // stride + 1), L the longest kernel's length.
    """
    length = max(rows.shape[1] for rows, _ in kernels)
    ranks = [len(rows) for rows, _ in kernels]
    out: Tensor | None = None
    for rank in range(max(ranks)):
        taking = [i for i, r in enumerate(ranks) if r > rank]
        taps = np.zeros((2, len(taking), length))
        for place, i in enumerate(taking):
            for axis, factor in enumerate(kernels[i]):
                beyond = (length - factor.shape[1]) // 2
                taps[axis, place, beyond : length - beyond] = factor[rank]
        rows, cols = torch.from_numpy(taps).to(device=x.device, dtype=x.dtype)
        part = x if len(kernels) == 1 or len(taking) == len(x) else x[taking]
        part = convolve_along(convolve_along(part, rows, stride, -2), cols, stride, -1)
        if out is None:
            out = part
        elif len(part) == len(out):
            out = out + part
        else:
            out = out.index_add(0, torch.tensor(taking, device=x.device), part)
    assert out is not None
    return out


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
