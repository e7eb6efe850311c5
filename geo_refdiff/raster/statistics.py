"""Statistics of bands, added up block by block."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HISTOGRAM = ("uint8", "uint16")
_CHUNK = 2**20


@dataclass(frozen=True)
class BandStatistics:
    """Statistics of one band over its valid pixels, in the file's digital numbers."""

    minimum: float
    maximum: float
    mean: float
    stddev: float
    valid_percent: float

    def tags(self) -> dict[str, str]:
        """GDAL's metadata items."""
        return {
            "STATISTICS_MAXIMUM": repr(float(self.maximum)),
            "STATISTICS_MEAN": repr(float(self.mean)),
            "STATISTICS_MINIMUM": repr(float(self.minimum)),
            "STATISTICS_STDDEV": repr(float(self.stddev)),
            "STATISTICS_VALID_PERCENT": f"{self.valid_percent:.4g}",
        }


@dataclass(frozen=True, slots=True)
class BandSums:
    """Sums over one band's valid pixels that can be added up: count, minimum, maximum, sum, sum of squares."""

    count: int
    minimum: float
    maximum: float
    total: float
    squares: float

    @staticmethod
    def of(band: NDArray[Any], valid: NDArray[np.bool_] | None) -> BandSums:
        """The sums of a band (height, width); not finite values do not count."""
        values = band.ravel() if valid is None else band[valid]
        if values.dtype.name in _HISTOGRAM:
            return _from_histogram(values)
        wide = values.astype(np.float64)
        wide = wide[np.isfinite(wide)]
        if not wide.size:
            return EMPTY
        return BandSums(
            int(wide.size), float(wide.min()), float(wide.max()), float(wide.sum()), float(np.square(wide).sum())
        )

    def plus(self, other: BandSums) -> BandSums:
        """Both together."""
        if not other.count:
            return self
        if not self.count:
            return other
        return BandSums(
            self.count + other.count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.total + other.total,
            self.squares + other.squares,
        )

    def statistics(self, pixels: int) -> BandStatistics:
        """The statistics of a band of so many pixels, of which at least one is valid."""
        mean = self.total / self.count
        variance = max(0.0, self.squares / self.count - mean * mean)
        return BandStatistics(self.minimum, self.maximum, mean, sqrt(variance), 100.0 * self.count / pixels)


EMPTY = BandSums(0, 0.0, 0.0, 0.0, 0.0)


def _from_histogram(values: NDArray[Any]) -> BandSums:
    counts = np.zeros(int(np.iinfo(values.dtype).max) + 1, dtype=np.int64)
    for start in range(0, values.size, _CHUNK):
        counts += np.bincount(values[start : start + _CHUNK], minlength=counts.size)
    present = np.flatnonzero(counts)
    if not present.size:
        return EMPTY
    hits = counts[present].astype(np.float64)
    level = present.astype(np.float64)
    return BandSums(
        int(values.size), float(level[0]), float(level[-1]), float((hits * level).sum()), float((hits * level**2).sum())
    )


def dump_sums(sums: Sequence[BandSums]) -> str:
    """As text for a block file's metadata; lossless."""
    return json.dumps([[s.count, s.minimum, s.maximum, s.total, s.squares] for s in sums])


def load_sums(text: str) -> list[BandSums]:
    """The inverse of `dump_sums`."""
    return [BandSums(int(row[0]), *(float(v) for v in row[1:])) for row in json.loads(text)]
