"""Windows computed together on a device: batches of one shape, smaller ones where its memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geo_refdiff.engine.conditions import Inputs
from geo_refdiff.errors import OptionError


def in_batches(call: Callable[[Inputs], Tensor], inputs: Inputs, size: int) -> tuple[Tensor, int]:
    """Computes all windows, at most `size` together; halves that where the device's memory does not suffice.

    Returns:
        what `call` gives, (N, C, H, W), and the size that worked.

    Raises:
        OptionError: the memory does not suffice for one window.
    """
    count = len(inputs.windows)
    while True:
        try:
            parts = [call(inputs.take(start, size))[: count - start] for start in range(0, count, size)]
            return (parts[0] if len(parts) == 1 else torch.cat(parts)), size
        except torch.OutOfMemoryError as error:
            if size == 1:
                side = max(inputs.windows[0].shape)
                raise OptionError(
                    f"the device has not enough memory for one window of {side} pixels; give a smaller --window"
                ) from error
        size = max(1, size // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
