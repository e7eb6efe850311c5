"""Filling missing scene pixels from their neighbours, the same values whatever window asks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def fill_missing(values: Tensor, valid: Tensor, rounds: int, beyond: Sequence[float]) -> Tensor:
    """Grow the valid pixels into the missing ones, a pixel a round: the mean of the valid ones among the 8 neighbours.

    A filled pixel depends on no pixel further than `rounds` away, so with `rounds` pixels of margin the
    result inside does not depend on where the array was cut.

    Args:
        values: (..., C, height, width), real numbers.
        valid: bool, the same shape, True = valid, band by band.
        rounds: how far valid pixels grow, and the margin that is cut off.
        beyond: (C,) value of the pixels that are further from any valid one.

    Returns:
        (..., C, height - 2 rounds, width - 2 rounds).
    """
    inner = (..., slice(rounds, values.shape[-2] - rounds), slice(rounds, values.shape[-1] - rounds))
    if bool(valid[inner].all()):
        return values[inner]
    filled, grown = valid, torch.where(valid, values, 0)
    for _ in range(rounds):
        if bool(filled.all()):
            break
        count = _sum_of_neighbours(filled.to(values.dtype))
        grown = torch.where(filled, grown, _sum_of_neighbours(grown) / count.clamp(min=1))
        filled = filled | (count > 0.5)
    far = torch.tensor(beyond, dtype=values.dtype, device=values.device)[:, None, None]
    return torch.where(filled, grown, far)[inner]


def _sum_of_neighbours(x: Tensor) -> Tensor:
    """Of each pixel's 3 x 3, itself included (where it is asked for, it is 0); zeros beyond the border."""
    height, width = x.shape[-2:]
    around = F.pad(x, (1, 1, 1, 1))
    rows = around[..., :height, :] + around[..., 1 : height + 1, :] + around[..., 2:, :]
    return rows[..., :width] + rows[..., 1 : width + 1] + rows[..., 2:]
