"""The pixels of a data set on the device where samples are made: held there whole, or streamed crop by crop."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.data.dataset import Crop, PairDataset


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


class Room:
    """Memory of a device for pairs that stay there, shared by the sources of a run.

    Args:
        nbytes: how much; 0 = nothing stays.
    """

    def __init__(self, nbytes: int) -> None:
        self.left = nbytes
        self._lock = threading.Lock()

    def take(self, nbytes: int) -> bool:
        """Take some of it, if there is so much left."""
        with self._lock:
            fits = nbytes <= self.left
            self.left -= nbytes if fits else 0
            return fits


class PixelSource:
    """Crops of a data set on a device; safe to use from several threads.

    A pair stays on the device whole once it was asked for, while there is room; what finds none is streamed.

    Args:
        dataset: what to read.
        device: where the pixels go.
        room: for pairs that stay there. On a CPU leave none: what the data set holds in memory is as near as it gets.
    """

    def __init__(self, dataset: PairDataset, device: torch.device, room: Room) -> None:
        self.dataset, self.device, self.room = dataset, device, room
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
        height, width = self.dataset.shape(index)
        if height * width * (2 * len(self.dataset.bands) + 4) > self.room.left:
            return None
        with self._lock:  # one thread at a time, so that no pair is read twice
            if index in self._held:
                return self._held[index]
            planes = Planes.of(self.dataset.read(index, 0, 0, height, width), self.device)
            if not self.room.take(planes.nbytes):
                return None
            if self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()  # other threads' streams may use it from here on
            self._held[index] = planes
            return planes
