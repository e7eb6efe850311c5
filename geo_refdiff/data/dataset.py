"""Data sets of ordered pairs of dates: what training and evaluation read of them, which pairs are left out, and coarser
images of the same places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.errors import InputError
from geo_refdiff.options import OnError
from geo_refdiff.raster.window import Window

T = TypeVar("T", bound=Any)

UNKNOWN_COVER = 0
"""Land cover "unknown" in `Crop.classes`; in `Crop.mask`, 0 is no change and 255 unknown."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The digital numbers of a pair's files, which `Crop` scales to 0..255.

    Attributes:
        dtype: numpy name, the new date's.
        low, high: digital numbers that become 0 and 255.
    """

    dtype: str = "uint8"
    low: float = 0.0
    high: float = 255.0

    def own(self, values: T) -> T:
        """0..255 -> digital numbers of the files; an array or a tensor."""
        own: T = values * ((self.high - self.low) / 255.0) + self.low
        return own

    def scaled(self, values: T) -> T:
        """The inverse of `own`."""
        scaled: T = (values - self.low) * (255.0 / (self.high - self.low))
        return scaled


class Crop(NamedTuple):
    """One window of one ordered pair of dates; all arrays are on the output grid of the new date, (h, w) pixels.

    Attributes:
        new: (C, h, w) uint8 or float32, the new date, 0..255; unbounded if the data set was opened without clip.
        ref: (C, h, w) same dtype, the old date, registered and in the new date's radiometry, 0..255.
        new_valid, ref_valid: (h, w) bool, True = valid.
        classes: (h, w) uint8 land cover of the new date, 1..K - 1, 0 = unknown.
        mask: (h, w) uint8 change: 0 none, 1..K - 1 the new class of a changed pixel, 255 = unknown.
    """

    new: NDArray[np.generic]
    ref: NDArray[np.generic]
    new_valid: NDArray[np.bool_]
    ref_valid: NDArray[np.bool_]
    classes: NDArray[np.uint8]
    mask: NDArray[np.uint8]


class PairDataset(Protocol):
    """Ordered pairs of dates; reading is safe from several threads.

    Attributes:
        bands: names of the C bands.
        classes: names of the K mask classes; class 0 is "no change".
    """

    @property
    def bands(self) -> tuple[str, ...]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Name of the pair in messages: "city/place old->new"."""
        ...

    def files(self, index: int) -> tuple[str, ...]:
        """The images of both dates, as named by the source."""
        ...

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width) of the pair's common grid, output pixels."""
        ...

    def numbers(self, index: int) -> Numbers:
        """The digital numbers of the pair's files."""
        ...

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        """Read one window inside `shape`. Raises ReadError where a file cannot be read."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of file names and sizes and of all options that change pixels or labels."""
        ...


def pair_bytes(dataset: PairDataset, index: int) -> int:
    """What a pair of uint8 takes in memory, about: both dates, where they are valid, and labels."""
    height, width = dataset.shape(index)
    return height * width * (2 * len(dataset.bands) + 4)


class ReadError(InputError):
    """A file of a data set is missing, damaged, or holds invalid values."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A pair that is left out.

    Attributes:
        name: of the pair.
        reason: one line with the file and what is wrong.
    """

    name: str
    reason: str


@dataclass(slots=True)
class Problems:
    """The pairs that a data set leaves out; `str` gives them as text.

    Attributes:
        total: number of pairs, used ones included.
        unusable: pairs whose files are missing or unreadable.
        flagged: pairs that the index marks as not valid.
    """

    total: int = 0
    unusable: list[Problem] = field(default_factory=list)
    flagged: list[Problem] = field(default_factory=list)

    def add(self, name: str, reason: str, on_error: OnError) -> None:
        """Add a pair that cannot be used.

        Raises:
            ReadError: with on_error "stop".
        """
        if on_error == "stop":
            raise ReadError(f"{name}: {reason}")
        self.unusable.append(Problem(name, reason))

    def flag(self, name: str, note: str) -> None:
        """Add a pair that the index marks as not valid."""
        self.flagged.append(Problem(name, note or "marked as not valid"))

    def __len__(self) -> int:
        return len(self.unusable)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.unusable)

    def summary(self) -> str:
        """One line: how many pairs are used, left out as unreadable, and flagged in the index."""
        used = self.total - len(self.unusable) - len(self.flagged)
        parts = [f"{used} of {self.total} pairs are used"]
        if self.unusable:
            parts.append(f"{len(self.unusable)} left out as missing or unreadable")
        if self.flagged:
            parts.append(f"{len(self.flagged)} flagged as not valid")
        return ", ".join(parts)

    def __str__(self) -> str:
        """The summary, then each unreadable pair with its reason, one a line."""
        return "\n".join([self.summary(), *(f"  {problem.name}: {problem.reason}" for problem in self.unusable)])


def check_window(name: str, shape: tuple[int, int], top: int, left: int, height: int, width: int) -> Window:
    """The window of a crop.

    Raises:
        ReadError: it reaches outside the pair.
    """
    if min(top, left) < 0 or min(height, width) < 1 or top + height > shape[0] or left + width > shape[1]:
        wanted = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        raise ReadError(f"{name}: {wanted} reach outside its {shape[0]} x {shape[1]} pixels; ask for less")
    return Window(top, left, height, width)


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
