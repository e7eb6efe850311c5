"""Coarser images of the same places: squares of pixels averaged to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.data.dataset import Crop, Numbers, PairDataset


@dataclass(frozen=True, slots=True)
class AveragedDataset:
    """The pairs of another data set, coarser; a `PairDataset`.

    A pixel is valid where all that it is the mean of are; labels are those of its middle.

    Args:
        dataset: the pairs.
        side: of the squares, pixels.
    """

    dataset: PairDataset
    side: int

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return self.dataset.bands

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask's classes."""
        return self.dataset.classes

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        """What a message calls the pair."""
        return self.dataset.name(index)

    def files(self, index: int) -> tuple[str, ...]:
        """The images of both dates."""
        return self.dataset.files(index)

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width) of the new date, averaged pixels; what is left over at the end is cut off."""
        height, width = self.dataset.shape(index)
        return height // self.side, width // self.side

    def numbers(self, index: int) -> Numbers:
        """The digital numbers of the pair's files."""
        return self.dataset.numbers(index)

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        """One window of a pair, averaged pixels; images in float32."""
        n = self.side
        crop = self.dataset.read(index, top * n, left * n, height * n, width * n)
        middle = (slice(n // 2, None, n),) * 2
        return Crop(
            _means(crop.new, n),
            _means(crop.ref, n),
            np.asarray(_squares(crop.new_valid, n).all(axis=(1, 3))),
            np.asarray(_squares(crop.ref_valid, n).all(axis=(1, 3))),
            crop.classes[middle].copy(),
            crop.mask[middle].copy(),
        )

    def fingerprint(self) -> str:
        """That of the pairs, and the side."""
        return f"{self.dataset.fingerprint()}/{self.side}"


def coarser(dataset: PairDataset, side: int) -> PairDataset:
    """The data set, averaged where `side` is more than 1."""
    return dataset if side == 1 else AveragedDataset(dataset, side)


def _squares(values: NDArray[Any], n: int) -> NDArray[Any]:
    """(..., h n, w n) -> (..., h, n, w, n)."""
    *bands, height, width = values.shape
    return values.reshape(*bands, height // n, n, width // n, n)


def _means(values: NDArray[Any], n: int) -> NDArray[np.generic]:
    means: NDArray[np.float32] = _squares(values, n).mean(axis=(-3, -1), dtype=np.float32)
    return means
