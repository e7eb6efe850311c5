"""Cross-fading windows into one region, without seams and without a change where they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from geo_refdiff.plan.layout import WindowSpan
from geo_refdiff.raster.window import Window


def raised_cosine(overlap: int, device: torch.device | str = "cpu") -> Tensor:
    """Weights (overlap,) of the later window across a cross-fade, rising from 0 to 1 at pixel centres."""
    position = (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(overlap, 1)
    return (0.5 - 0.5 * torch.cos(math.pi * position)).to(torch.float32).to(device)


class Blender:
    """Takes the windows that make up a region, row by row, and gives the region.

    At a pixel at most two windows an axis meet. They are mixed as `a + w (b - a)`, along the columns first
    and then along the rows: where windows agree the result is what they say, to the last digit.

    Args:
        region: on the lattice.
        rows, cols: of the windows.
        channels: C.
        device: where it is done.
    """

    def __init__(
        self,
        region: Window,
        rows: Sequence[WindowSpan],
        cols: Sequence[WindowSpan],
        channels: int,
        device: torch.device | str,
    ) -> None:
        self.region, self.rows, self.cols = region, rows, cols
        self.data = torch.zeros(channels, *region.shape, device=device)
        self._strip: Tensor | None = None
        self._row = 0

    def feed(self, row: int, col: int, kept: Tensor | None) -> None:
        """Adds window (row, col), indices of the spans, in order.

        Args:
            kept: (C, height, width) what the window contributes; None: nothing of it is wanted in this region.
        """
        if self._strip is None or row != self._row:
            self._flush()
            self._row = row
            top, bottom = _clipped(self.rows[row], self.region.row, self.region.stop_row)
            self._strip = self.data.new_zeros(self.data.shape[0], bottom - top, self.region.width)
        if kept is not None:
            top, bottom = _clipped(self.rows[row], self.region.row, self.region.stop_row)
            start = self.rows[row].start
            part = kept[:, top - start : bottom - start]
            _paste(self._strip, part, self.cols, col, self.region.col, self.region.stop_col, -1)

    def result(self) -> Tensor:
        """The region, (C, height, width); call it when every window has been fed."""
        self._flush()
        self._strip = None
        return self.data

    def _flush(self) -> None:
        if self._strip is not None:
            top, _ = _clipped(self.rows[self._row], self.region.row, self.region.stop_row)
            before = top - self.rows[self._row].start  # of the window, which lie outside of the region
            _paste(self.data, self._strip, self.rows, self._row, self.region.row, self.region.stop_row, -2, before)


def _clipped(span: WindowSpan, lo: int, hi: int) -> tuple[int, int]:
    return max(span.start, lo), min(span.stop, hi)


def _paste(
    target: Tensor, tile: Tensor, spans: Sequence[WindowSpan], index: int, lo: int, hi: int, dim: int, before: int = 0
) -> None:
    """Puts a tile, whose first `before` pixels were cut off, into its place along an axis, faded in over the last."""
    span = spans[index]
    start, stop = _clipped(span, lo, hi)
    overlap = spans[index - 1].stop - span.start if index else 0
    fade = max(0, min(span.start + overlap, stop) - start)
    into = target.narrow(dim, start - lo, stop - start)
    part = tile.narrow(dim, start - span.start - before, stop - start)
    if fade:
        weight = raised_cosine(overlap, target.device)[start - span.start :][:fade]
        if dim == -2:
            weight = weight[:, None]
        earlier = into.narrow(dim, 0, fade)
        earlier += weight * (part.narrow(dim, 0, fade) - earlier)
    into.narrow(dim, fade, stop - start - fade).copy_(part.narrow(dim, fade, stop - start - fade))
