"""What training and evaluation ask of a data set: ordered pairs of dates, read by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=Any)

UNKNOWN_COVER = 0
"""Land-cover value for "not known" in `Crop.classes`; in `Crop.mask` 0 means no change and 255 no change known."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The digital numbers of a pair's files, of which `Crop` makes 0..255.

    Attributes:
        dtype: numpy name, the new date's.
        low, high: what becomes 0 and 255.
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
    """One window of one ordered pair of dates; all arrays lie on the HR grid of the new date, (h, w) pixels.

    Attributes:
        new: (C, h, w) uint8 or float32, the new date, 0..255; also beyond where the data set was opened without clip.
        ref: (C, h, w) same dtype, the old date, registered and in the new date's radiometry, 0..255.
        new_valid, ref_valid: (h, w) bool, False where that date has no data.
        classes: (h, w) uint8 land cover of the new date, 1..K - 1, 0 = not known.
        mask: (h, w) uint8 change: 0 none, 1..K - 1 the class that a changed pixel has now, 255 = not known.
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
        """What a message calls the pair: "city/place old->new"."""
        ...

    def files(self, index: int) -> tuple[str, ...]:
        """The images of both dates, as the source names them."""
        ...

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width) of the pair's common grid, HR pixels."""
        ...

    def numbers(self, index: int) -> Numbers:
        """The digital numbers of the pair's files."""
        ...

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        """One window; it lies inside `shape`. Raises ReadError where a file cannot be read."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 of what the data are (files with size, windows, rules): equal for equal data, stable over runs."""
        ...
