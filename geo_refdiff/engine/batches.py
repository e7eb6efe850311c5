"""Windows restored together on a device: batches of one shape, smaller ones where its memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geo_refdiff.errors import OptionError
from geo_refdiff.restore.restorers import Conditions


def in_batches(call: Callable[[Conditions], Tensor], conditions: Conditions, size: int) -> tuple[Tensor, int]:
    """Restores all windows, at most `size` together; halves that where the device's memory does not suffice.

    Returns:
        the images, (N, C, H, W), and the size that worked.

    Raises:
        OptionError: the memory does not suffice for one window.
    """
    count = len(conditions.windows)
    while True:
        try:
            parts = []
            for start in range(0, count, size):
                part, wanted = _padded(conditions, start, size)
                parts.append(call(part)[:wanted])
            return (parts[0] if len(parts) == 1 else torch.cat(parts)), size
        except torch.OutOfMemoryError as error:
            if size == 1:
                side = conditions.windows[0].width
                raise OptionError(
                    f"the device has not enough memory for one window of {side} pixels; give a smaller --window"
                ) from error
        size = max(1, size // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _padded(batch: Conditions, start: int, size: int) -> tuple[Conditions, int]:
    """`size` windows from `start`; a short batch is filled up with its last window: the shape stays the same."""
    chosen = list(range(start, min(start + size, len(batch.windows))))
    if start == 0 and len(chosen) == size == len(batch.windows):
        return batch, size
    return batch.take(chosen + chosen[-1:] * (size - len(chosen))), len(chosen)
