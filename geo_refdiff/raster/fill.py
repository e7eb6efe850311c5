"""Filling missing LR pixels from their neighbours, the same values whatever window asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def fill_missing(
    values: NDArray[np.float32], valid: NDArray[np.bool_], rounds: int, beyond: Sequence[float]
) -> NDArray[np.float32]:
    """Grow the valid pixels into the missing ones, a pixel a round: the mean of the known among the 8 neighbours.

    A filled pixel depends on no pixel further than `rounds` away, so with `rounds` pixels of margin the
    result inside does not depend on where the array was cut.

    Args:
        values: (C, height, width).
        valid: the same shape, True = valid, band by band.
        rounds: how far valid pixels grow, and the margin that is cut off.
        beyond: (C,) value of the pixels that are further from any valid one.

    Returns:
        (C, height - 2 rounds, width - 2 rounds).
    """
    inner = (slice(rounds, values.shape[1] - rounds), slice(rounds, values.shape[2] - rounds))
    out = np.empty((values.shape[0], inner[0].stop - rounds, inner[1].stop - rounds), dtype=np.float32)
    for band in range(values.shape[0]):
        known = valid[band]
        if known[inner].all():
            out[band] = values[band][inner]
        elif not known.any():
            out[band] = beyond[band]
        else:
            out[band] = _grown(values[band], known, rounds, beyond[band])[inner]
    return out


def _grown(values: NDArray[np.float32], known: NDArray[np.bool_], rounds: int, beyond: float) -> NDArray[np.float32]:
    values = np.where(known, values, np.float32(0))
    for _ in range(rounds):
        if known.all():
            return values
        total, count = np.zeros_like(values), np.zeros_like(values)
        padded, weights = np.pad(values, 1), np.pad(known, 1).astype(np.float32)
        height, width = values.shape
        for row, col in _NEIGHBOURS:
            at = (slice(1 + row, 1 + row + height), slice(1 + col, 1 + col + width))
            total += padded[at]
            count += weights[at]
        reached = ~known & (count > 0)
        values[reached] = total[reached] / count[reached]
        known = known | reached
    values[~known] = beyond
    return values
