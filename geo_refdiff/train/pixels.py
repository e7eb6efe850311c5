"""The pixels of a data set on the device where samples are made: held there whole, or streamed crop by crop."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.data.dataset import Crop, PairDataset, pair_bytes


class Planes(NamedTuple):
    """A `Crop` as tensors on one device.

    Attributes:
        new, ref: (C, h, w), 0..255, in the data set's dtype.
        new_valid, ref_valid: (h, w) bool.
        classes, mask: (h, w) uint8.
        filled: share of the new date's pixels that have data.
    """

    new: Tensor
    ref: Tensor
    new_valid: Tensor
    ref_valid: Tensor
    classes: Tensor
    mask: Tensor
    filled: float

    @staticmethod
    def of(crop: Crop, device: torch.device) -> Planes:
        """The arrays on a device."""
        new, ref, new_valid, ref_valid, classes, mask = (to_device(array, device) for array in crop)
        return Planes(new, ref, new_valid, ref_valid, classes, mask, float(crop.new_valid.mean()))

    def part(self, top: int, left: int, side: int) -> Planes:
        """A square window of it, as views."""
        rows, cols = slice(top, top + side), slice(left, left + side)
        new, ref, new_valid, ref_valid, classes, mask = (tensor[..., rows, cols] for tensor in self[:-1])
        filled = self.filled
        if 0.0 < filled < 1.0:  # only then is the device asked and waited for
            filled = int(new_valid.sum()) / new_valid.numel()
        return Planes(new, ref, new_valid, ref_valid, classes, mask, filled)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(tensor.nbytes for tensor in self[:-1])


def to_device(array: NDArray[np.generic] | Tensor, device: torch.device) -> Tensor:
    """An array on a device; to a GPU from pinned memory, without waiting for the copy."""
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class MemoryBudget:
    """Memory of a device for pairs that stay there, shared by the sources of a run.

    Args:
        nbytes: how much; 0 = nothing stays.

    Attributes:
        remaining: bytes that are not reserved yet.
    """

    def __init__(self, nbytes: int) -> None:
        self.remaining = nbytes
        self._lock = threading.Lock()

    @classmethod
    def of_device(cls, gib: float, device: str) -> MemoryBudget:
        """So much of a GPU's memory, a quarter of what is free at most; nothing of a CPU's."""
        if not device.startswith("cuda"):
            return cls(0)
        free, _ = torch.cuda.mem_get_info(device)
        return cls(min(int(gib * 2**30), int(free) // 4))

    def reserve(self, nbytes: int) -> bool:
        """Reserve some of it; whether so much was left."""
        with self._lock:
            fits = nbytes <= self.remaining
            self.remaining -= nbytes if fits else 0
            return fits


class PixelSource:
    """Crops of a data set on a device; safe to use from several threads.

    A pair stays on the device whole once it was asked for, within the memory budget; the others are streamed.

    Args:
        dataset: what to read.
        device: where the pixels go.
        budget: for pairs that stay there.
    """

    def __init__(self, dataset: PairDataset, device: torch.device, budget: MemoryBudget) -> None:
        self.dataset, self.device, self.budget = dataset, device, budget
        self._held: dict[int, Planes] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Pairs that stay on the device by now."""
        return len(self._held)

    def crop(self, index: int, top: int, left: int, side: int) -> Planes:
        """A square window of a pair.

        Raises:
            ReadError: a file cannot be read.
        """
        held = self._held.get(index) or self._hold(index)
        if held is not None:
            return held.part(top, left, side)
        return Planes.of(self.dataset.read(index, top, left, side, side), self.device)

    def _hold(self, index: int) -> Planes | None:
        if pair_bytes(self.dataset, index) > self.budget.remaining:
            return None
        height, width = self.dataset.shape(index)
        with self._lock:  # one thread at a time, so that no pair is read twice
            if index in self._held:
                return self._held[index]
            planes = Planes.of(self.dataset.read(index, 0, 0, height, width), self.device)
            if not self.budget.reserve(planes.nbytes):
                return None
            if self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()  # other threads' streams may use it from here on
            self._held[index] = planes
            return planes
