"""How far off each pixel may be: half-widths of intervals, from what is known while a block is computed.

Runs with other noise differ much less than they are wrong where a model starts near its mean, so that their spread
alone is no measure of error. Therefore the variance of the error is taken for a sum of non-negative shares of local
energies (`PREDICTORS`), the spread over runs among them. The shares are fitted to pairs whose truth is known; the
half-width is the root of that variance times the factor that covers what it promises on pairs kept apart: locally
weighted split conformal prediction (Lei, G'Sell, Rinaldo, Tibshirani and Wasserman 2018, "Distribution-free predictive
inference for regression", section 5.2). Sums and products are made one by one: any layout of blocks gives the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.plan.records import UncertaintyRecord
from geo_refdiff.raster.fill import fill_missing
from geo_refdiff.raster.window import repeated
from geo_refdiff.restore.sources import NOTICEABLE
from geo_refdiff.sensor.resampling import enlarged
from geo_refdiff.sensor.resize import CONTEXT

SIDE = 9
"""HR pixels of the local means."""

_FILL = 2
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Told = Callable[[list[NDArray[np.float32]]], None]


def margin(scale: int) -> int:
    """LR pixels beyond a region that its half-widths depend on, beside those that its pixels do."""
    return 1 + CONTEXT + _FILL - (-(SIDE // 2 + 1) // scale)


def region_half_widths(
    runs: Iterator[Image],
    traces: Image,
    lr: NDArray[Any],
    valid: Mask,
    record: UncertaintyRecord,
    half_range: float,
    scale: int,
    tell: Told | None = None,
) -> Image:
    """Half-widths (C, h scale, w scale), digital numbers, of a region.

    Args:
        runs: images (C, h scale, w scale), the output's own first.
        traces, lr, valid, half_range: as for `predictors`.
        record: of the plan.
        tell: gets the predictors before they are used.
    """
    spread = Spread(next(runs))
    for image in runs:
        spread.feed(image)
    values = lr.astype(np.float32)
    energies = predictors(spread.first, spread.variance(), traces, values, valid, half_range, scale)
    if tell is not None:
        tell(energies)
    return half_widths(energies, traces, record, half_range)


class Spread:
    """Takes the images of several runs, one by one; holds sums of differences to the first."""

    def __init__(self, first: Image) -> None:
        self.first, self.count = first, 1
        self._sums, self._squares = np.zeros_like(first), np.zeros_like(first)

    def feed(self, image: Image) -> None:
        """Adds a run."""
        difference = image - self.first
        self.count += 1
        self._sums += difference
        difference *= difference
        self._squares += difference

    def variance(self) -> Image:
        """Between the runs, unbiased; 0 for a single one."""
        if self.count == 1:
            return np.zeros_like(self.first)
        spare = self._sums * self._sums
        spare /= np.float32(self.count)
        return np.maximum((self._squares - spare) / np.float32(self.count - 1), np.float32(0))


def predictors(
    image: Image, variance: Image, traces: Image, lr: Image, valid: Mask, half_range: float, scale: int
) -> list[Image]:
    """What `PREDICTORS` names.

    Args:
        image: (C, h scale, w scale) of the first run, digital numbers.
        variance: the same shape, between runs, digital numbers squared.
        traces: (2, h scale, w scale), as of `sources.trace`.
        lr: (C, h, w) the scene, digital numbers.
        valid: (C, h, w), True = valid.
        half_range: digital numbers to a model unit.

    Returns:
        for each predictor an array that broadcasts to (C, h scale, w scale), model units squared.
    """
    unit = np.float32(1.0 / half_range**2)
    known = repeated(valid, scale)
    counts = _box(known.astype(np.float32))
    noticeable = np.float32(NOTICEABLE**2)
    return [
        np.ones((1, 1, 1), dtype=np.float32),
        _mean(variance, known, counts) * unit,
        traces[:1] * noticeable,
        traces[1:] * noticeable,
        _mean(*_steps(image, known), counts) * unit,
        _scene_contrast(lr, valid, scale) * unit,
    ]


def half_widths(energies: list[Image], traces: Image, record: UncertaintyRecord, half_range: float) -> Image:
    """Half-widths (C, height, width), digital numbers.

    Args:
        energies: as `predictors` gives them.
        traces: (2, height, width).
        record: of the plan.
        half_range: digital numbers to a model unit.
    """
    said = traces[:1] > 0
    total: Image = np.zeros((1, 1, 1), dtype=np.float32)
    for energy, known, unknown in zip(energies, record.known, record.unknown, strict=True):
        share = np.where(said, np.float32(known), np.float32(unknown)).astype(np.float32, copy=False)
        total = total + share * energy
    factors = np.array(record.factors, dtype=np.float32) * np.float32(half_range)
    widths: Image = np.sqrt(total) * np.where(said, factors[:, :1, None], factors[:, 1:, None])
    return widths


def _steps(image: Image, known: Mask) -> tuple[Image, Mask]:
    """Squared differences to the next pixel in the row and in the column, those to missing pixels left out."""
    total = np.zeros_like(image)
    for axis in (1, 2):
        here = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        there = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        step = np.where(known[here] & known[there], image[there] - image[here], np.float32(0))
        step *= step
        total[here] += step
    return total, known


def _scene_contrast(lr: Image, valid: Mask, scale: int) -> Image:
    total, count = np.zeros_like(lr), np.zeros_like(lr)
    values, there = np.pad(lr, ((0, 0), (1, 1), (1, 1))), np.pad(valid, ((0, 0), (1, 1), (1, 1)))
    height, width = lr.shape[1:]
    for row, col in _NEIGHBOURS:
        at = (slice(None), slice(1 + row, 1 + row + height), slice(1 + col, 1 + col + width))
        step = np.where(valid & there[at], values[at] - lr, np.float32(0))
        step *= step
        total += step
        count += there[at]
    total /= np.maximum(count, np.float32(1))
    wide = [(0, 0), (_FILL, _FILL), (_FILL, _FILL)]
    filled = fill_missing(np.pad(total, wide), np.pad(valid, wide), _FILL, (0.0,) * len(lr))
    return np.maximum(np.stack([enlarged(band, scale) for band in filled]), np.float32(0))


def _mean(values: Image, known: Mask, counts: Image) -> Image:
    """Local means over known pixels."""
    mean = np.divide(_box(np.where(known, values, np.float32(0))), np.maximum(counts, np.float32(1)), dtype=np.float32)
    return np.asarray(mean)


def _box(values: Image) -> Image:
    """Sums over SIDE x SIDE pixels, zeros beyond the border."""
    half = SIDE // 2
    for axis in (1, 2):
        length = values.shape[axis]
        padded = np.pad(values, [(half, half) if a == axis else (0, 0) for a in range(3)])
        total = np.zeros_like(values)
        for k in range(SIDE):
            total += padded[:, k : k + length] if axis == 1 else padded[:, :, k : k + length]
        values = total
    return values
