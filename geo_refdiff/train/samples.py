"""Training samples: aligned crops of truth, reference, mask and LR, with synthetic change and the users' faults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from geo_refdiff.degrade.resize import upsample
from geo_refdiff.degrade.sensor import SensorModel
from geo_refdiff.diffusion.denoiser import UNKNOWN_CLASS
from geo_refdiff.train.pairs import Pair

_LR_CONTEXT = 3
_NIR = 3
_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Faults:
    """How often a sample carries which fault; probabilities unless said otherwise."""

    paste: float = 0.6
    mask_unknown: float = 0.4
    mask_wrong: float = 0.3
    no_reference: float = 0.08
    part_reference: float = 0.08
    wrong_place: float = 0.08
    no_nir: float = 0.2
    shift_sigma: float = 0.8
    """standard deviation of the misregistration, HR pixels"""
    ref_gain_sigma: float = 0.06
    ref_offset_sigma: float = 4.0
    """DN"""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch on the HR grid, model units.

    Attributes:
        truth: (N, C, H, W).
        lr: (N, C, H, W), up-sampled.
        ref: (N, C, H, W), NaN = missing.
        mask: (N, 1, H, W) uint8 class indices, 255 = no change known.
        weight: (N, C, 1, 1), 0 for a band that the sample does without.
        scale: the factor of this batch.
    """

    truth: Tensor
    lr: Tensor
    ref: Tensor
    mask: Tensor
    weight: Tensor
    scale: int

    def to(self, device: str) -> Batch:
        """The same batch on another device."""
        truth, lr, ref = self.truth.to(device), self.lr.to(device), self.ref.to(device)
        return Batch(truth, lr, ref, self.mask.to(device), self.weight.to(device), self.scale)


def crop_size(scale: int, multiple: int, target: int) -> int:
    """The crop nearest to `target` that both the scale and the network's multiple divide."""
    step = math.lcm(scale, multiple)
    return max(step, round(target / step) * step)


class SampleMaker:
    """Draws batches without end; the same seed draws the same batches.

    Args:
        pairs: what to draw from.
        scales: factor -> weight.
        multiple: window multiple of the network.
        target: crop size to aim at, HR pixels.
        classes: number of mask classes, class 0 included.
        seed: of the generator.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        scales: dict[int, float],
        multiple: int,
        target: int,
        classes: int,
        seed: int,
        faults: Faults | None = None,
    ) -> None:
        self.pairs, self.multiple, self.target, self.classes = pairs, multiple, target, classes
        self.scales = list(scales)
        weights = np.array([scales[s] for s in self.scales], dtype=float)
        self.weights = weights / weights.sum()
        self.faults = faults or Faults()
        self.rng = np.random.default_rng(seed)

    def batch(self, n: int) -> Batch:
        """n samples of one scale."""
        scale = int(self.rng.choice(self.scales, p=self.weights))
        samples = [self._sample(scale) for _ in range(n)]
        truth, lr, ref, mask, weight = (torch.stack(parts) for parts in zip(*samples, strict=True))
        return Batch(truth, lr, ref, mask, weight, scale)

    def _sample(self, scale: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        rng, f = self.rng, self.faults
        pair = self.pairs[int(rng.integers(len(self.pairs)))]
        crop = crop_size(scale, self.multiple, self.target)
        context = _LR_CONTEXT * scale
        area = crop + 2 * context
        height, width = pair.mask.shape
        if area > min(height, width):
            context = (min(height, width) - crop) // (2 * scale) * scale
            area = crop + 2 * context
        top, left = int(rng.integers(height - area + 1)), int(rng.integers(width - area + 1))
        roi = (slice(top, top + area), slice(left, left + area))
        new = pair.new[:, *roi].astype(np.float32)
        classes, mask = pair.new_classes[roi], pair.mask[roi].copy()
        ref, valid = pair.ref[:, *roi].astype(np.float32), pair.ref_valid[roi].copy()
        if rng.random() < f.wrong_place:
            ref, mask = self._other_place(area), np.full_like(mask, UNKNOWN_CLASS)
        elif rng.random() < f.paste:
            ref, mask = self._paste(ref, mask, classes)
        ref, valid = self._misregister(ref, valid)
        new, ref = self._jitter(new, ref)
        mask = self._spoil_mask(mask)
        if (chance := rng.random()) < f.no_reference:
            valid[:] = False
        elif chance < f.no_reference + f.part_reference:
            valid &= ~self._region(area)
        ref[:, ~valid] = np.nan
        turn, flip = int(rng.integers(4)), bool(rng.integers(2))
        new, ref, mask = _turn(new, turn, flip), _turn(ref, turn, flip), _turn(mask, turn, flip)
        return self._finish(new, ref, mask, scale, context)

    def _finish(
        self,
        new: NDArray[np.float32],
        ref: NDArray[np.float32],
        mask: NDArray[np.uint8],
        scale: int,
        context: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        rng = self.rng
        truth = torch.from_numpy(new / 127.5 - 1.0)
        sigma = 0.0 if rng.random() < 0.1 else float(np.round(rng.uniform(0.25, 0.5), 2))
        seen = SensorModel(scale, sigma).observe(truth[None])
        noise = rng.uniform(0.0, 1.5) / 127.5
        seen = seen + noise * torch.from_numpy(rng.standard_normal(seen.shape, dtype=np.float32))
        lr = upsample(seen, scale, margin=context // scale)[0]
        inner = (..., slice(context, truth.shape[-2] - context), slice(context, truth.shape[-1] - context))
        truth, reference = truth[inner], torch.from_numpy(ref / 127.5 - 1.0)[inner]
        weight = torch.ones(truth.shape[0], 1, 1)
        if truth.shape[0] > _NIR and rng.random() < self.faults.no_nir:
            lr = lr.clone()
            truth, reference = truth.clone(), reference.clone()
            missing = torch.isnan(reference[_NIR])
            for image in (lr, truth, reference):
                image[_NIR] = 0.0
            reference[_NIR, missing] = torch.nan
            weight[_NIR] = 0.0
        labels = torch.from_numpy(np.ascontiguousarray(mask))[None][inner]
        return truth.contiguous(), lr.contiguous(), reference.contiguous(), labels.contiguous(), weight

    def _other_place(self, area: int) -> NDArray[np.float32]:
        other = self.pairs[int(self.rng.integers(len(self.pairs)))].ref
        top = int(self.rng.integers(other.shape[1] - area + 1))
        left = int(self.rng.integers(other.shape[2] - area + 1))
        return other[:, top : top + area, left : left + area].astype(np.float32)

    def _paste(
        self, ref: NDArray[np.float32], mask: NDArray[np.uint8], classes: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Wrong content in the reference, labelled with what is there now: change with an exact mask."""
        mask = np.where(mask == UNKNOWN_CLASS, 0, mask).astype(np.uint8)
        for _ in range(int(self.rng.integers(1, 4))):
            region = self._region(ref.shape[-1])
            if self.rng.random() < 0.4:
                present = np.unique(classes)
                region &= classes == int(self.rng.choice(present))
            ref = np.where(region, self._other_place(ref.shape[-1]), ref)
            mask = np.where(region, classes, mask).astype(np.uint8)
        return ref, mask

    def _region(self, area: int) -> NDArray[np.bool_]:
        """A blob or a rotated rectangle, 2 to 40 % of the area."""
        rng = self.rng
        if rng.random() < 0.5:
            field = rng.standard_normal((area // 4 + 1, area // 4 + 1)).astype(np.float32)
            field = ndimage.zoom(ndimage.gaussian_filter(field, rng.uniform(2, 8)), 4, order=1)[:area, :area]
            blob: NDArray[np.bool_] = field > np.quantile(field, rng.uniform(0.65, 0.97))
            return blob
        y, x = np.mgrid[:area, :area].astype(np.float32)
        angle = rng.uniform(0, np.pi)
        u = (x - rng.uniform(0, area)) * np.cos(angle) + (y - rng.uniform(0, area)) * np.sin(angle)
        v = (y - rng.uniform(0, area)) * np.cos(angle) - (x - rng.uniform(0, area)) * np.sin(angle)
        box: NDArray[np.bool_] = (np.abs(u) < rng.uniform(6, area / 3)) & (np.abs(v) < rng.uniform(6, area / 3))
        return box

    def _misregister(
        self, ref: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        rows, cols = (int(v) for v in np.clip(np.rint(self.rng.normal(0, self.faults.shift_sigma, 2)), -4, 4))
        moved, inside = np.roll(ref, (rows, cols), (1, 2)), np.roll(valid, (rows, cols), (0, 1))
        height, width = valid.shape
        inside[: max(rows, 0)] = inside[height + min(rows, 0) :] = False
        inside[:, : max(cols, 0)] = inside[:, width + min(cols, 0) :] = False
        return moved, inside

    def _jitter(
        self, new: NDArray[np.float32], ref: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rng, bands = self.rng, new.shape[0]
        gain = rng.uniform(0.75, 1.3) * rng.uniform(0.92, 1.08, (bands, 1, 1))
        offset = rng.uniform(-20, 20) + rng.uniform(-6, 6, (bands, 1, 1))
        ref_gain = rng.normal(1, self.faults.ref_gain_sigma, (bands, 1, 1))
        ref_offset = rng.normal(0, self.faults.ref_offset_sigma, (bands, 1, 1))
        middle = ref.mean(axis=(1, 2), keepdims=True)
        ref = (ref - middle) * ref_gain + middle + ref_offset
        return (
            np.clip(new * gain + offset, 0, 255).astype(np.float32),
            np.clip(ref * gain + offset, 0, 255).astype(np.float32),
        )

    def _spoil_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rng, f = self.rng, self.faults
        chance = rng.random()
        if chance < f.mask_unknown:
            return np.full_like(mask, UNKNOWN_CLASS)
        if chance > f.mask_unknown + (1 - f.mask_unknown) * f.mask_wrong:
            return mask
        wrong = mask.copy()
        known = mask != UNKNOWN_CLASS
        kind = int(rng.integers(4))
        if kind == 0:  # missed changes
            wrong[known & self._region(mask.shape[-1])] = 0
        elif kind == 1:  # invented changes
            wrong[known & self._region(mask.shape[-1])] = int(rng.integers(1, self.classes))
        elif kind == 2:  # shifted borders
            rows, cols = (int(v) for v in rng.integers(-5, 6, 2))
            wrong = np.roll(mask, (rows, cols), (0, 1))
        else:  # whole classes wrong
            order = np.arange(256)
            order[1 : self.classes] = rng.permutation(np.arange(1, self.classes))
            wrong = order[mask].astype(np.uint8)
        return wrong


def _turn(array: NDArray[_T], turn: int, flip: bool) -> NDArray[_T]:
    turned = np.rot90(array, turn, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if flip else turned)
