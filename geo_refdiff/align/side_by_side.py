"""Parts of a registration that do not need each other, computed at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import cv2
import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What a function makes of each item, in their order: the same whatever the number of threads.

    Args:
        function: of one item, not touching what it does for others.
        items: done in as many threads as torch has here.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        return [function(item) for item in items]
    ipp = cv2.ipp.useIPP()  # OpenCV keeps this one for each thread, and its bits depend on it
    with ThreadPoolExecutor(threads, initializer=cv2.ipp.setUseIPP, initargs=(ipp,)) as pool:
        return list(pool.map(function, items))
