"""How far two windows of a model disagree where both keep a pixel, at the halo that its config states."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, lcm

import torch
from torch import Tensor

from geo_refdiff.errors import OptionError
from geo_refdiff.evaluate.job import Job
from geo_refdiff.evaluate.methods import ModelRun
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions
from geo_refdiff.sensor.units import BYTES

_LEAST = 32
"""output pixels along a side that both windows keep, at least."""


def disagreement(run: ModelRun, job: Job) -> float:
    """99th percentile of the difference in DN of two windows of a tile that see the same noise at the same place.

    Raises:
        OptionError: the tile is too small for two windows with the model's halo.
    """
    restorer, scale = run.restorer(job.sensor), job.sensor.scale
    size, halo = job.tile.truth.shape[-1], restorer.halo
    step = lcm(scale, restorer.multiple)
    side = step * ceil((size + 2 * halo + _LEAST) / 2 / step)
    if side >= size:
        raise OptionError(
            f"tile {size}: too small for two windows of model '{run.name}', whose halo is {halo} px; "
            f"give --tile {step * ceil((2 * halo + _LEAST + 2 * step) / step)} or more"
        )
    apart = size - side
    whole = run.conditions(job)
    parts = [restorer.restore(_part(whole, at, side, scale)) for at in (0, apart)]
    first = parts[0][..., apart + halo : side - halo, apart + halo : side - halo]
    second = parts[1][..., halo : side - apart - halo, halo : side - apart - halo]
    return float(torch.quantile((first - second).abs().flatten(), 0.99)) * BYTES.half_range


def _part(whole: Conditions, at: int, side: int, scale: int) -> Conditions:
    """A window of `side` px that starts `at` px below and right of the tile's corner."""

    def cut(image: Tensor | None) -> Tensor | None:
        return None if image is None else image[..., at : at + side, at : at + side]

    corner = whole.windows[0]
    lr = slice(at // scale, (at + side) // scale + 2 * LR_MARGIN)
    window = Window(corner.row + at, corner.col + at, side, side)
    return replace(
        whole,
        windows=(window,),
        lr=whole.lr[..., lr, lr],
        ref=cut(whole.ref),
        mask=cut(whole.mask),
    )
