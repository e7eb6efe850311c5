"""Cross-fading windows into one region, without seams and without a change where they agree."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.plan.layout import WindowLayout
from geo_refdiff.raster.window import Window


@lru_cache(maxsize=16)
def raised_cosine(overlap: int) -> NDArray[np.float32]:
    """Weights (overlap,) of the later window across a cross-fade, rising from 0 to 1 at pixel centres."""
    position = (np.arange(overlap, dtype=np.float64) + 0.5) / max(overlap, 1)
    return (0.5 - 0.5 * np.cos(np.pi * position)).astype(np.float32)


class Blender:
    """Takes the windows that contribute to a region, row by row, and gives the region.

    At a pixel at most two windows an axis meet. They are mixed as `a + w (b - a)`, along the columns first
    and then along the rows: where windows agree the result is what they say, to the last digit, and it does
    not depend on how regions are cut.

    Args:
        region: on the lattice.
        layout: the windows.
        channels: C.
    """

    def __init__(self, region: Window, layout: WindowLayout, channels: int) -> None:
        self.region, self.layout = region, layout
        self.data: NDArray[np.float32] = np.zeros((channels, *region.shape), dtype=np.float32)
        self._strip: NDArray[np.float32] | None = None
        self._row = 0

    def feed(self, row: int, col: int, kept: NDArray[np.float32] | None) -> None:
        """Adds window (row, col).

        Args:
            row, col: indices of the layout, in the order of `WindowLayout.meeting`.
            kept: (C, kept size, kept size) what the window contributes; None: nothing of it is wanted in this region.
        """
        if self._strip is None or row != self._row:
            self._flush()
            self._row = row
            part = self._rows(row)
            self._strip = np.zeros((self.data.shape[0], part[1] - part[0], self.region.width), dtype=np.float32)
        if kept is None:
            return
        window = self.layout.kept(row, col)
        top, bottom = self._rows(row)
        left, right = max(window.col, self.region.col), min(window.stop_col, self.region.stop_col)
        tile = kept[:, top - window.row : bottom - window.row, left - window.col : right - window.col]
        first = col == self.layout.cols(self.region).start
        fade = 0 if first else self._fade(left, right, window.col)
        target = self._strip[:, :, left - self.region.col : right - self.region.col]
        if fade:
            offset = left - window.col
            weight = raised_cosine(self.layout.overlap)[offset : offset + fade]
            _mix(target[:, :, :fade], tile[:, :, :fade], weight)
        target[:, :, fade:] = tile[:, :, fade:]

    def result(self) -> NDArray[np.float32]:
        """The region, (C, height, width); call it when every window has been fed."""
        self._flush()
        self._strip = None
        return self.data

    def _rows(self, row: int) -> tuple[int, int]:
        window = self.layout.kept(row, 0)
        return max(window.row, self.region.row), min(window.stop_row, self.region.stop_row)

    def _fade(self, lo: int, hi: int, start: int) -> int:
        """How many pixels of [lo, hi) lie in the cross-fade at the start of a window."""
        return max(0, min(hi, start + self.layout.overlap) - lo)

    def _flush(self) -> None:
        if self._strip is None:
            return
        top, bottom = self._rows(self._row)
        start = self.layout.kept(self._row, 0).row
        first = self._row == self.layout.rows(self.region).start
        fade = 0 if first else self._fade(top, bottom, start)
        target = self.data[:, top - self.region.row : bottom - self.region.row]
        if fade:
            offset = top - start
            weight = raised_cosine(self.layout.overlap)[offset : offset + fade, None]
            _mix(target[:, :fade], self._strip[:, :fade], weight)
        target[:, fade:] = self._strip[:, fade:]


def _mix(target: NDArray[np.float32], later: NDArray[np.float32], weight: NDArray[np.float32]) -> None:
    """target <- target + weight (later - target), in place."""
    difference = later - target
    difference *= weight
    target += difference
