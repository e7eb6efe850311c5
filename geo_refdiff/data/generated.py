"""The generated landscape as pairs of dates, painted on the fly, with exact change."""

from __future__ import annotations

import hashlib

import numpy as np

from geo_refdiff import __version__
from geo_refdiff.data.base import Crop, Numbers
from geo_refdiff.data.indexed import check_window
from geo_refdiff.data.kept import KeptPairs, cut
from geo_refdiff.data.matching import fitted
from geo_refdiff.data.problems import Problems
from geo_refdiff.data.taxonomy import BANDS, CLASSES
from geo_refdiff.errors import OptionError
from geo_refdiff.raster.window import Window

PREFIX = "landscape:"
_BUDGET = 2**30
_MAX_SEEDS = 10_000_000


class LandscapeDataset:
    """Landscapes of a range of seeds, each as one pair; odd seeds run back in time. A `PairDataset`.

    Args:
        first, last: seeds, both included.
        size: side of a landscape, HR pixels.
        gsd: metres.
        budget: bytes of painted landscapes that are kept; the least used is forgotten and painted again.

    Attributes:
        problems: none.
    """

    bands = BANDS
    classes = CLASSES

    def __init__(self, first: int, last: int, size: int = 256, gsd: float = 1.0, budget: int = _BUDGET) -> None:
        if not 0 <= first <= last < first + _MAX_SEEDS:
            raise OptionError(f"landscape seeds {first} to {last}: give the lower first, both 0 or more")
        self.first, self.size, self.gsd = first, size, gsd
        self._count = last - first + 1
        self.problems = Problems(total=self._count)
        self._kept = KeptPairs(budget)

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        """What a message calls the pair."""
        seed = self.first + index
        return f"landscape {seed} {'new->old' if seed % 2 else 'old->new'}"

    def files(self, index: int) -> tuple[str, ...]:
        """None."""
        return ()

    def shape(self, index: int) -> tuple[int, int]:
        """(height, width), HR pixels."""
        return self.size, self.size

    def numbers(self, index: int) -> Numbers:
        """uint8, as they are."""
        return Numbers()

    def read(self, index: int, top: int, left: int, height: int, width: int) -> Crop:
        """One window of a landscape, as arrays of the caller's own.

        Raises:
            ReadError: the window lies outside.
        """
        window = check_window(self.name(index), self.shape(index), top, left, height, width)
        rows, cols = window.within(Window(0, 0, self.size, self.size))
        return cut(self._kept.get(index, self._paint), rows, cols)

    def fingerprint(self) -> str:
        """SHA-256 over what is painted: seeds, size, GSD and the version of the painter."""
        told = (__version__, self.first, self._count, self.size, self.gsd)
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def _paint(self, index: int) -> Crop:
        from geo_refdiff.sample_tiles.landscape import render_pair

        seed = self.first + index
        scene = render_pair(seed, (self.size, self.size), self.gsd)
        dates = [(scene.old, scene.old_classes), (scene.new, scene.new_classes)]
        (old, _), (new, classes) = dates[::-1] if seed % 2 else dates
        mask = np.where(scene.old_classes != scene.new_classes, classes, 0).astype(np.uint8)
        everywhere = np.ones(mask.shape, np.bool_)
        return Crop(new, fitted(new, old, everywhere), everywhere, everywhere, classes, mask)
