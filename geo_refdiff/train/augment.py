"""Augmentation: synthetic change, and the faults that users' references and masks have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data.synthetic_change import paste_change, random_region
from geo_refdiff.train.config import FaultsConfig
from geo_refdiff.train.pixels import Planes

_NIR = 3
_SEASON = torch.tensor([0.35, 0.1, 0.25, -0.3])
"""What drought does to red, green, blue and near infrared of vegetation, as a share."""
_FARTHEST = 4
Other = Callable[[], tuple[Tensor, Tensor]]


class Sample(NamedTuple):
    """One crop in DN 0..255: truth (C, A, A) float32, ref (C, A, A) with NaN = missing, mask (1, A, A) uint8, weight
    (C, A, A) float32."""

    truth: Tensor
    ref: Tensor
    mask: Tensor
    weight: Tensor

    @staticmethod
    def of(planes: Planes) -> Sample:
        """As it was read; what the truth lacks is filled with its band's mean and has weight 0."""
        new, valid = planes.new.float(), planes.new_valid
        if planes.filled < 1.0:
            middle = new[:, valid].mean(dim=1) if planes.filled > 0.0 else torch.zeros(len(new), device=new.device)
            new = torch.where(valid, new, middle[:, None, None])
        ref = torch.where(planes.ref_valid, planes.ref.float(), torch.nan)
        return Sample(new, ref, planes.mask[None], valid.float().expand_as(new))


def corrupt(
    sample: Sample, cover: Tensor, faults: FaultsConfig, classes: int, rng: np.random.Generator, other: Other
) -> Sample:
    """Synthetic change, misregistration, radiometry, mask errors, missing data; all drawn from `rng`.

    Args:
        sample: as read.
        cover: (A, A) uint8 land cover of the truth, 0 = unknown.
        faults: how often what happens.
        classes: K, class 0 included.
        rng: moved on.
        other: gives (C, A, A) DN of another place or date and its land cover.
    """
    truth, ref, mask, weight = sample
    area = truth.shape[-1]
    if rng.random() < faults.wrong_place:
        ref, mask = other()[0], torch.full_like(mask, UNKNOWN_CLASS)
    elif rng.random() < faults.paste:
        ref, mask = _paste(ref, mask, cover, rng, other)
    if faults.season and rng.random() < faults.season:
        ref = _season(ref, rng)
    if faults.coarse and rng.random() < faults.coarse:
        ref = _coarser(ref, float(rng.uniform(1, 2)))
    ref = _shift(ref, rng, faults.shift_sigma)
    truth, ref = _radiometry(truth, ref, faults, rng)
    mask = _corrupt_mask(mask, faults, classes, rng)
    if (chance := rng.random()) < faults.no_reference:
        ref = torch.full_like(ref, torch.nan)
    elif chance < faults.no_reference + faults.part_reference:
        ref = torch.where(random_region(area, rng, ref.device), torch.nan, ref)
    if truth.shape[0] > _NIR and rng.random() < faults.no_nir:
        weight = torch.cat([weight[:_NIR], torch.zeros_like(weight[_NIR:])])
    return Sample(truth, ref, mask, weight)


def _paste(ref: Tensor, mask: Tensor, cover: Tensor, rng: np.random.Generator, other: Other) -> tuple[Tensor, Tensor]:
    """Wrong content in the reference, labelled with what is there now: change with an exact mask.

    Shapes are blobs and boxes, whole classes of what is there now, or whole objects of the other place.
    """
    mask = torch.where(mask == UNKNOWN_CLASS, torch.zeros_like(mask), mask)
    for _ in range(int(rng.integers(1, 4))):
        image, there = other()
        where = random_region(ref.shape[-1], rng, ref.device)
        shapes = rng.random()
        if shapes < 0.35:
            where &= cover == int(rng.choice(torch.unique(cover).cpu().numpy()))
        elif shapes < 0.6:
            where &= there == int(rng.choice(torch.unique(there).cpu().numpy()))
        ref, mask = paste_change(ref, mask, cover, image, where)
    return ref, mask


def _shift(ref: Tensor, rng: np.random.Generator, sigma: float) -> Tensor:
    """Whole pixels; what comes in from outside is missing."""
    rows, cols = (int(v) for v in np.clip(np.rint(rng.normal(0, sigma, 2)), -_FARTHEST, _FARTHEST))
    if rows == 0 and cols == 0:
        return ref
    moved = torch.roll(ref, (rows, cols), (1, 2))
    height, width = ref.shape[1:]
    moved[:, slice(0, rows) if rows > 0 else slice(height + rows, height)] = torch.nan
    moved[:, :, slice(0, cols) if cols > 0 else slice(width + cols, width)] = torch.nan
    return moved


def _season(ref: Tensor, rng: np.random.Generator) -> Tensor:
    """Vegetation of another season, as far as a pixel looks like it: greener (up to -1) or drier (up to 1).

    Without near infrared, what is greener than it is red and blue looks like vegetation.
    """
    drier = float(rng.uniform(-1, 1)) * _SEASON.to(ref)[: len(ref), None, None]
    if ref.shape[0] > _NIR:
        red, infrared = ref[0], ref[_NIR]
        likeness = ((infrared - red) / (infrared + red + 1) - 0.1) / 0.3
    elif ref.shape[0] == _NIR:
        red, green, blue = ref
        likeness = ((2 * green - red - blue) / (red + green + blue + 1) - 0.05) / 0.15
    else:
        return ref
    return (ref * (1 + drier * likeness.clamp(0, 1))).clamp(0, 255)


def _coarser(ref: Tensor, factor: float) -> Tensor:
    """As from a sensor whose pixels are larger: antialiased to those and back; missing pixels stay so."""
    size = ref.shape[1:]
    missing = ref.isnan()
    filled = torch.where(missing, ref.nanmean(dim=(1, 2), keepdim=True).nan_to_num(), ref)[None]
    small = [max(1, round(n / factor)) for n in size]
    seen = F.interpolate(filled, small, mode="bilinear", antialias=True, align_corners=False)
    back = F.interpolate(seen, size, mode="bicubic", align_corners=False)[0]
    return torch.where(missing, torch.nan, back.clamp(0, 255))


def _radiometry(truth: Tensor, ref: Tensor, faults: FaultsConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One exposure for both dates, and what the radiometric fit leaves over for the reference."""
    bands = truth.shape[0]

    def bandwise(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(truth.device)[:, None, None]

    gain, offset = torch.ones(1, device=truth.device), torch.zeros(1, device=truth.device)
    if faults.exposure:
        gain = bandwise(rng.uniform(0.75, 1.3) * rng.uniform(0.92, 1.08, bands))
        offset = bandwise(rng.uniform(-20, 20) + rng.uniform(-6, 6, bands))
    ref_gain = bandwise(rng.normal(1, faults.ref_gain_sigma, bands))
    ref_offset = bandwise(rng.normal(0, faults.ref_offset_sigma, bands))
    middle = ref.nanmean(dim=(1, 2), keepdim=True).nan_to_num()
    ref = (ref - middle) * ref_gain + middle + ref_offset
    return (truth * gain + offset).clamp(0, 255), (ref * gain + offset).clamp(0, 255)


def _corrupt_mask(mask: Tensor, faults: FaultsConfig, classes: int, rng: np.random.Generator) -> Tensor:
    chance = rng.random()
    if chance < faults.mask_unknown:
        return torch.full_like(mask, UNKNOWN_CLASS)
    if chance > faults.mask_unknown + (1 - faults.mask_unknown) * faults.mask_wrong:
        return mask
    labelled, area = mask != UNKNOWN_CLASS, mask.shape[-1]
    kind = int(rng.integers(4))
    if kind == 0:  # missed changes
        return torch.where(labelled & random_region(area, rng, mask.device), 0, mask)
    if kind == 1:  # invented changes
        return torch.where(labelled & random_region(area, rng, mask.device), int(rng.integers(1, classes)), mask)
    if kind == 2:  # shifted borders
        return torch.roll(mask, tuple(int(v) for v in rng.integers(-5, 6, 2)), (1, 2))
    order = torch.arange(256, dtype=torch.uint8, device=mask.device)  # whole classes wrong
    order[1:classes] = torch.from_numpy(rng.permutation(np.arange(1, classes, dtype=np.uint8))).to(mask.device)
    return order[mask.long()]


def turn(sample: Sample, quarters: int, flip: bool) -> Sample:
    """Quarter turns and a mirror, all parts alike."""
    turned = (torch.rot90(part, quarters, (-2, -1)) for part in sample)
    return Sample(*(part.flip(-1) if flip else part for part in turned))
