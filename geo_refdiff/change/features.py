"""What a change detector looks at, on the LR grid: the scene, the reference as the LR sensor would have seen it, and
the reference's texture and layout within each LR pixel."""

from __future__ import annotations

from math import log2

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.sensor.sensor import SensorModel

BANDS = ("red", "green", "blue", "nir")
"""Bands of the detector, in this order; near infrared may be missing."""

LAYOUT_SIDE = 4
"""Parts of an LR pixel along each axis, whose means tell how the reference is laid out within it."""

LAYOUT = len(BANDS) * LAYOUT_SIDE**2
"""Channels that tell the layout: bands, and within each the parts by rows, as of `pixel_unshuffle`."""

CHANNELS = LAYOUT + 20
"""Of the features: the layout, 4 scene, 1 its NDVI, 4 reference as seen, 4 texture, edges, share of vegetation, 1 NDVI
of the reference, 4 on what is known."""

_NIR = BANDS.index("nir")
_GREEN = 0.12  # NDVI above which a reference pixel counts as vegetation
_DARK = 0.05
_FLOOR = 0.01


def change_features(lr: Tensor, lr_valid: Tensor, ref: Tensor, sensor: SensorModel, *, nir: bool) -> Tensor:
    """Features of change, each a function of the LR pixel and of the HR pixels that the sensor sees there.

    Args:
        lr: (4, h, w) red, green, blue, nir of the scene in model units; what it holds where not valid does not matter.
        lr_valid: (h, w) bool, True = valid in all bands.
        ref: (4, h scale, w scale) the reference in the scene's radiometry, model units, NaN in every band where
            missing.
        sensor: how the scene's sensor sees the reference; the border is replicated.
        nir: whether near infrared is there.

    Returns:
        (CHANNELS, h, w) in the dtype of `lr`, 0 wherever what they rest on is missing. The second but last channel
        tells where the scene is valid, the last where the reference is: in at least half of the LR pixel's area.
    """
    known = ~torch.isnan(ref[:1])
    image = torch.where(known, ref, 0.0)
    share = _cell_mean(known.to(lr.dtype), sensor.scale)
    there = (share >= 0.5).to(lr.dtype)
    weight = sensor.observe(known.to(lr.dtype)[None])[0].clamp(min=1e-3)
    seen = sensor.observe(image[None])[0] / weight
    texture, edges, green = _within(image, known.to(lr.dtype), share.clamp(min=1e-3), sensor.scale, nir)
    valid = lr_valid[None].to(lr.dtype)
    scene = torch.where(valid > 0, lr, 0.0)
    bands = torch.ones(len(BANDS), 1, 1, dtype=lr.dtype)
    bands[_NIR] = float(nir)
    scene, seen, texture = scene * bands, seen * bands, texture * bands
    of_scene = torch.cat([scene, _ndvi(scene) * float(nir)])
    layout = _layout(image, known.to(lr.dtype), sensor.scale) * bands.repeat_interleave(LAYOUT_SIDE**2, 0)
    of_reference = torch.cat([seen, texture, edges, green * float(nir), _ndvi(seen) * float(nir)])
    constant = torch.tensor([float(nir), log2(sensor.scale / 8)], dtype=lr.dtype)[:, None, None].expand(
        2, *lr.shape[1:]
    )
    return torch.cat([layout * there, of_scene * valid, of_reference * there, constant * valid, valid, there])


def _layout(image: Tensor, known: Tensor, scale: int) -> Tensor:
    """Means of parts of each LR pixel, less the LR pixel's; 0 where nothing of a part is known. (LAYOUT, h, w)."""
    height, width = (
        n // scale * LAYOUT_SIDE for n in image.shape[-2:]
    )  # parts share HR pixels where the scale asks for it
    share = F.adaptive_avg_pool2d(known[None], (height, width))[0]
    parts = F.adaptive_avg_pool2d(image[None], (height, width))[0] / share.clamp(min=1e-3)
    whole = _cell_mean(image, scale) / _cell_mean(known, scale).clamp(min=1e-3)
    around = whole.repeat_interleave(LAYOUT_SIDE, -2).repeat_interleave(LAYOUT_SIDE, -1)
    return F.pixel_unshuffle(torch.where(share > 0, parts - around, 0.0), LAYOUT_SIDE)


def _within(image: Tensor, known: Tensor, share: Tensor, scale: int, nir: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Texture (4), edges (1) and share of vegetation (1) of the known HR pixels within each LR pixel, (., h, w)."""
    mean = _cell_mean(image, scale) / share
    variance = (_cell_mean(image**2, scale) / share - mean**2).clamp(min=0.0)
    texture = torch.log2(variance.sqrt() + _FLOOR) / 4 + 1
    grey = image[:3].mean(dim=0, keepdim=True)
    both = known[:, 1:, 1:] * known[:, :-1, 1:] * known[:, 1:, :-1]
    steps = ((grey[:, 1:, 1:] - grey[:, :-1, 1:]).abs() + (grey[:, 1:, 1:] - grey[:, 1:, :-1]).abs()) * both
    steps = F.pad(steps, (1, 0, 1, 0))
    rows = torch.arange(image.shape[1]) % scale != 0  # steps across LR borders belong to nobody
    cols = torch.arange(image.shape[2]) % scale != 0
    edges = _cell_mean(steps * rows[:, None] * cols, scale) / share
    vegetated = (_ndvi(image) > _GREEN).to(image.dtype) * known
    green = _cell_mean(vegetated, scale) / share if nir else torch.zeros_like(edges)
    return texture, 4 * edges, green


def _ndvi(image: Tensor) -> Tensor:
    """NDVI (Rouse 1974) of model units, of which -1 stands for no light; (1, ...)."""
    red, infra = image[:1].clamp(min=-1) + 1, image[_NIR:].clamp(min=-1) + 1
    return (infra - red) / (infra + red + _DARK)


def _cell_mean(image: Tensor, scale: int) -> Tensor:
    return F.avg_pool2d(image[None], scale)[0]
