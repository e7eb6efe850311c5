"""Images computed in strips of rows, by functions that look at near rows alone.

On a CPU the layers of a network are bound by memory: what one writes for a whole window the next has to fetch again,
and buffers that are too large to be kept cost page faults on top. A strip's memory serves the next strip, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_NUMBERS = 2**22
"""Of all images in a strip."""


def in_strips(compute: Callable[..., tuple[Tensor, ...]], *images: Tensor, rows: int, reach: int) -> tuple[Tensor, ...]:
    """`compute(*images)`, in strips where that saves something: of one image on a CPU, without gradients.

    Args:
        compute: images (1, C, rows a, W), each with a whole factor `a` of its own, to others, (1, C, rows b, W).
        images: its arguments.
        rows: of the coarsest of all these images.
        reach: how many of these rows away a result depends on.
    """
    first = images[0]
    count = -(-sum(image.numel() for image in images) // _NUMBERS)
    if count < 2 or len(first) > 1 or first.device.type != "cpu" or torch.is_grad_enabled():
        return compute(*images)
    each = max(-(-rows // count), 2 * reach)
    results: list[Tensor] = []
    for start in range(0, rows, each):
        stop = min(start + each, rows)
        low, high = max(start - reach, 0), min(stop + reach, rows)
        parts = compute(*(_rows(image, rows, low, high) for image in images))
        if not results:
            results = [_empty(part, part.shape[-2] // (high - low) * rows) for part in parts]
        for result, part in zip(results, parts, strict=True):
            _rows(result, rows, start, stop).copy_(_rows(part, high - low, start - low, stop - low))
    return tuple(results)


def _rows(image: Tensor, rows: int, start: int, stop: int) -> Tensor:
    """Of an image cut into `rows` of one height those from `start` to `stop`."""
    factor = image.shape[-2] // rows
    return image[:, :, start * factor : stop * factor]


def _empty(part: Tensor, height: int) -> Tensor:
    """Like a strip, of another height, in its layout."""
    across = part.is_contiguous(memory_format=torch.channels_last) and not part.is_contiguous()
    order = torch.channels_last if across else torch.contiguous_format
    shape = (*part.shape[:2], height, part.shape[-1])
    return torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=order)
