"""Pairs kept in memory up to a number of bytes, the ones last used."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from geo_refdiff.data.base import Crop


class KeptPairs:
    """Whole pairs by number; safe in any thread, and in a pickle, where it is empty again.

    Args:
        budget: bytes; one pair is kept in any case.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._bytes = 0
        self._pairs: OrderedDict[int, Crop] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, index: int, make: Callable[[int], Crop]) -> Crop:
        """The pair of this number, made now if it is not kept."""
        with self._lock:
            found = self._pairs.get(index)
            if found is not None:
                self._pairs.move_to_end(index)
                return found
        made = make(index)
        with self._lock:
            if index not in self._pairs:
                self._pairs[index] = made
                self._bytes += _nbytes(made)
            while self._bytes > self._budget and len(self._pairs) > 1:
                self._bytes -= _nbytes(self._pairs.popitem(last=False)[1])
        return made

    def __getstate__(self) -> int:
        return self._budget

    def __setstate__(self, budget: Any) -> None:
        self.__init__(budget)  # type: ignore[misc]


def _nbytes(crop: Crop) -> int:
    return sum(part.nbytes for part in crop)


def cut(whole: Crop, rows: slice, cols: slice) -> Crop:
    """A window of a whole pair, as arrays of the caller's own."""
    new, ref, new_valid, ref_valid, classes, mask = whole
    at = (slice(None), rows, cols)
    return Crop(
        new[at].copy(),
        ref[at].copy(),
        new_valid[rows, cols].copy(),
        ref_valid[rows, cols].copy(),
        classes[rows, cols].copy(),
        mask[rows, cols].copy(),
    )
