"""Strided convolution with a kernel of its own for each image, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.kernels import Taps

Factors = tuple[Taps, Taps]
"""rows and cols, each (rank, scale + 2 reach): a kernel as a sum of separable ones, see `kernels.oriented`."""


def reduce_images(hr: Tensor, kernels: Sequence[Factors], scale: int) -> Tensor:
    """Each image convolved with its kernel, one value an LR pixel; the border is replicated.

    Both passes are matrix products, so that a batch costs two calls for its separable and two for its other kernels.

    Args:
        hr: (N, C, H, W) float; H and W multiples of `scale`.
        kernels: N of them.
        scale: HR pixels along an LR pixel.

    Returns:
        (N, C, H / scale, W / scale), same dtype and device.

    Raises:
        OptionError: a size that is no multiple of the scale, or another number of kernels than of images.
    """
    n, c, height, width = hr.shape
    if height % scale or width % scale:
        raise OptionError(f"an image of {height} x {width} px is no multiple of the scale {scale}")
    if len(kernels) != n:
        raise OptionError(f"{n} images need {n} kernels, got {len(kernels)}")
    out = hr.new_empty(n, c, height // scale, width // scale)
    simple = [i for i, (rows, _) in enumerate(kernels) if len(rows) == 1]
    other = [i for i in range(n) if i not in set(simple)]
    for group in (simple, other):
        if len(group) == n:
            return _reduced(hr, [kernels[i] for i in group], scale)
        if group:
            out[group] = _reduced(hr[group], [kernels[i] for i in group], scale)
    return out


def _reduced(hr: Tensor, kernels: Sequence[Factors], scale: int) -> Tensor:
    n, c, height, width = hr.shape
    rank = max(len(rows) for rows, _ in kernels)
    length = max(rows.shape[1] for rows, _ in kernels)
    stacked = np.zeros((2, n, rank, length))
    for i, factors in enumerate(kernels):
        for axis, taps in enumerate(factors):
            beyond = (length - taps.shape[1]) // 2
            stacked[axis, i, : len(taps), beyond : length - beyond] = taps
    rows, cols = torch.from_numpy(stacked).to(device=hr.device, dtype=hr.dtype)
    h, w = height // scale, width // scale
    across = _matrix(cols, width, scale).reshape(n, rank * w, width)
    down = _matrix(rows, height, scale).permute(0, 2, 3, 1).reshape(n, 1, h, height * rank)
    narrow = torch.bmm(hr.reshape(n, c * height, width), across.transpose(1, 2))
    return torch.matmul(down, narrow.reshape(n, c, height * rank, w))


def _matrix(taps: Tensor, size: int, scale: int) -> Tensor:
    """(N, rank, L) taps as (N, rank, size / scale, size) matrices; weights beyond the border fall on its pixels."""
    reach = (taps.shape[-1] - scale) // 2
    at = torch.arange(-reach, size + reach, device=taps.device)
    tap = at[None] - torch.arange(0, size, scale, device=taps.device)[:, None] + reach
    tap = torch.where((tap < 0) | (tap >= taps.shape[-1]), taps.shape[-1], tap)
    full = torch.nn.functional.pad(taps, (0, 1))[..., tap]
    matrix = full[..., reach : reach + size].clone()
    if reach:
        matrix[..., 0] += full[..., :reach].sum(dim=-1)
        matrix[..., -1] += full[..., reach + size :].sum(dim=-1)
    return matrix
