"""How far off each pixel may be: half-widths of intervals, from what is known while a block is computed.

Runs with other noise differ much less than they are wrong where a model starts near its mean, so that their spread
alone is no measure of error. Therefore the variance of the error is taken for a sum of non-negative shares of local
energies (`PREDICTORS`), the spread over runs among them. The shares are fitted to pairs whose truth is known; the
half-width is the root of that variance times the factor that covers what it promises on pairs kept apart: locally
weighted split conformal prediction (Lei, G'Sell, Rinaldo, Tibshirani and Wasserman 2018, "Distribution-free predictive
inference for regression", section 5.2).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.nn.blur import box_mean
from geo_refdiff.plan.records import UncertaintyRecord
from geo_refdiff.restore.sources import NOTICEABLE
from geo_refdiff.sensor.fill import fill_missing
from geo_refdiff.sensor.resize import repeat_pixels, upsample

SIDE = 9
"""output pixels of the local means."""

_FILL = 2
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


class Spread:
    """Takes the images of several runs, one by one; holds sums of differences to the first."""

    def __init__(self, first: Tensor) -> None:
        self.first, self.count = first, 1
        self._sums, self._squares = torch.zeros_like(first), torch.zeros_like(first)

    def feed(self, image: Tensor) -> None:
        """Adds a run."""
        difference = image - self.first
        self.count += 1
        self._sums += difference
        self._squares += difference.square()

    def variance(self) -> Tensor:
        """Between the runs, unbiased; 0 for a single one."""
        if self.count == 1:
            return torch.zeros_like(self.first)
        return ((self._squares - self._sums.square() / self.count) / (self.count - 1)).clamp(min=0)


def predictors(
    image: Tensor, variance: Tensor, traces: Tensor, lr: Tensor, valid: Tensor, half_range: float, scale: int
) -> Tensor:
    """What `PREDICTORS` names, (N, P C, H, W), model units squared: all bands of one after the other.

    Args:
        image: (N, C, h scale, w scale) of the first run, digital numbers.
        variance: the same shape, between runs, digital numbers squared.
        traces: (N, TRACES, h scale, w scale), as of `sources.trace`.
        lr: (N, C, h, w) float32 the scene, digital numbers.
        valid: (N, C, h, w), True = valid.
        half_range: digital numbers to a model unit.
        scale: output pixels along a scene pixel.
    """
    unit = 1.0 / half_range**2
    fine_valid = repeat_pixels(valid, scale)
    reference, generated = (part.expand_as(image) * NOTICEABLE**2 for part in (traces[:, :1], traces[:, 1:2]))
    energies = [
        torch.ones_like(image),
        _mean(variance, fine_valid) * unit,
        reference,
        generated,
        _mean(_steps(image, fine_valid), fine_valid) * unit,
        _scene_contrast(lr, valid, scale) * unit,
    ]
    return torch.cat(energies, dim=1)


def half_widths(energies: Tensor, traces: Tensor, record: UncertaintyRecord, half_range: float) -> Tensor:
    """Half-widths (N, C, H, W), digital numbers.

    Args:
        energies: as `predictors` gives them.
        traces: (N, TRACES, H, W).
        record: of the plan.
        half_range: digital numbers to a model unit.
    """
    informed = (traces[:, :1] > 0)[:, None]  # by the reference
    parts = torch.unflatten(energies, 1, (len(record.with_reference), -1))
    own, other = (torch.tensor(v, device=energies.device) for v in (record.with_reference, record.without_reference))
    shares = torch.where(informed, own[:, None, None, None], other[:, None, None, None])
    factors = torch.tensor(record.factors, device=energies.device)[..., None, None] * half_range
    widths: Tensor = (shares * parts).sum(dim=1).sqrt() * torch.where(informed[:, 0], factors[:, 0], factors[:, 1])
    return widths


def _steps(image: Tensor, valid: Tensor) -> Tensor:
    """Squared differences to the next pixel in the row and in the column, those to missing pixels left out."""
    total = torch.zeros_like(image)
    for dim in (-2, -1):
        here, there = slice(None, -1), slice(1, None)
        a, b = ((..., at, slice(None)) if dim == -2 else (..., at) for at in (here, there))
        total[a] += torch.where(valid[a] & valid[b], image[b] - image[a], 0).square()
    return total


def _scene_contrast(lr: Tensor, valid: Tensor, scale: int) -> Tensor:
    total, count = torch.zeros_like(lr), torch.zeros_like(lr)
    values, there = F.pad(lr, (1, 1, 1, 1)), F.pad(valid, (1, 1, 1, 1))
    height, width = lr.shape[-2:]
    for row, col in _NEIGHBOURS:
        at = (..., slice(1 + row, 1 + row + height), slice(1 + col, 1 + col + width))
        total += torch.where(valid & there[at], values[at] - lr, 0).square()
        count += there[at]
    total /= count.clamp(min=1)
    wide = (_FILL,) * 4
    filled = fill_missing(F.pad(total, wide), F.pad(valid, wide), _FILL, (0.0,) * lr.shape[1])
    return upsample(filled, scale).clamp(min=0)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Local means over valid pixels; 0 where there are none."""
    if bool(valid.all()):
        return box_mean(values, SIDE)
    total, share = (box_mean(x, SIDE) for x in (torch.where(valid, values, 0), valid.to(values.dtype)))
    return total / share.clamp(min=1 / SIDE**2)
