"""Training samples: aligned crops of truth, reference, mask and LR, with synthetic change and the users' faults.

Every sample is a function of (seed, step, its number in the step), and its LR of those it shares a part of the batch
with: in whatever order, thread or process it is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.data.base import PairDataset
from geo_refdiff.errors import GeoRefDiffError, InputError, OptionError
from geo_refdiff.sensor.recipe import RECIPES, draw
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.train.config import SamplesConfig
from geo_refdiff.train.faults import Sample, spoil, turn
from geo_refdiff.train.pixels import PixelSource, Planes, Room

_LR_CONTEXT = 3
_LEAST_VALID = 0.7
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch on the HR grid, model units.

    Attributes:
        truth: (N, C, H, W).
        lr: (N, C, H, W), up-sampled.
        ref: (N, C, H, W), NaN = missing.
        mask: (N, 1, H, W) uint8 class indices, 255 = no change known.
        weight: (N, C, H, W), 0 where the truth has no data and in a band that the sample does without.
        scale: the factor of this batch.
        names: of the N pairs.
        files: of the N pairs: their images' names.
    """

    truth: Tensor
    lr: Tensor
    ref: Tensor
    mask: Tensor
    weight: Tensor
    scale: int
    names: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]

    def first(self, n: int) -> Batch:
        """The first n samples."""
        parts = {f.name: getattr(self, f.name)[:n] for f in fields(self) if f.name != "scale"}
        return Batch(**parts, scale=self.scale)

    def pairs(self) -> list[str]:
        """Names and files of its pairs, for messages."""
        return [f"{n} ({', '.join(f)})" if f else n for n, f in zip(self.names, self.files, strict=True)]

    def tensors(self) -> list[Tensor]:
        """All its tensors."""
        return [self.truth, self.lr, self.ref, self.mask, self.weight]


class Source(NamedTuple):
    """A data set and how often it is drawn from."""

    dataset: PairDataset
    weight: float


def crop_size(scale: int, multiple: int, target: int) -> int:
    """The crop nearest to `target` that both the scale and the network's multiple divide."""
    step = math.lcm(scale, multiple)
    return max(step, round(target / step) * step)


class SampleMaker:
    """Makes any batch of any step; safe to use from several threads.

    Args:
        sources: what to draw from; all with the same bands and classes.
        config: crops, scales, degradation and faults.
        multiple: window multiple of the network.
        seed: of everything drawn.
        device: where the pixels are worked on.
        on_error: "skip" draws another pair for one that cannot be read or is smaller than a crop, "stop" raises.
        room: device memory for pairs that stay there, bytes.

    Attributes:
        unusable: name and reason of the pairs that were passed over so far.

    Raises:
        OptionError: sources that do not fit each other, an unknown degradation.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: SamplesConfig,
        multiple: int,
        seed: int,
        device: str = "cpu",
        *,
        on_error: str = "skip",
        room: int = 0,
    ) -> None:
        self.sources, self.config, self.multiple, self.seed = sources, config, multiple, seed
        self.on_error = on_error
        first = sources[0].dataset
        for dataset, _ in sources[1:]:
            if (dataset.bands, dataset.classes) != (first.bands, first.classes):
                raise OptionError(
                    f"the sources differ: bands {_list(first.bands)} and {_list(dataset.bands)}, classes "
                    f"{_list(first.classes)} and {_list(dataset.classes)}; train on sources that are alike"
                )
        if config.degradation not in RECIPES:
            raise OptionError(f"samples.degradation is '{config.degradation}': choose {', '.join(RECIPES)}")
        self.classes = len(first.classes)
        self.recipe = RECIPES[config.degradation]
        self.scales = sorted(int(s) for s in config.scales)
        self._scale_weights = _shares([config.scales[str(s)] for s in self.scales])
        self._source_weights = _shares([s.weight for s in sources])
        shared = Room(room)
        self._pixels = [PixelSource(s.dataset, torch.device(device), shared) for s in sources]
        self.unusable: dict[str, str] = {}

    def scale(self, step: int) -> int:
        """The factor of a step's batch; one for all processes."""
        rng = np.random.default_rng((self.seed, step))
        return int(rng.choice(self.scales, p=self._scale_weights))

    def crop(self, scale: int) -> int:
        """The side of a crop at a factor, HR pixels."""
        return crop_size(scale, self.multiple, self.config.crop)

    def small_pairs(self) -> list[str]:
        """Names, with sizes, of the pairs that are smaller than a crop at any factor."""
        widest = max(self.crop(scale) for scale in self.config.factors())
        found = []
        for dataset, _ in self.sources:
            sizes = ((index, *dataset.shape(index)) for index in range(len(dataset)))
            found += [f"{dataset.name(i)}: {_too_small(h, w, widest)}" for i, h, w in sizes if min(h, w) < widest]
        return found

    def batch(self, step: int, numbers: Sequence[int]) -> Batch:
        """The samples with these numbers of a step.

        Raises:
            InputError: too many pairs in a row cannot be used, or one, with on_error "stop".
        """
        scale = self.scale(step)
        crop = self.crop(scale)
        samples, names, files = [], [], []
        for number in numbers:
            rng = np.random.default_rng((self.seed, step, number + 1))
            sample, dataset, index = self._sample(rng, crop, scale)
            samples.append(sample)
            names.append(dataset.name(index))
            files.append(dataset.files(index))
        truth, ref, mask, weight = (torch.stack(parts) for parts in zip(*samples, strict=True))
        context = (truth.shape[-1] - crop) // 2
        degradation = draw(self.recipe, np.random.default_rng((self.seed, step, 0, numbers[0])), len(samples), scale)
        seen = degradation.apply(truth)
        inner = (..., slice(context, context + crop), slice(context, context + crop))
        truth, ref, mask, weight = truth[inner], ref[inner], mask[inner], weight[inner]
        present = weight.amax(dim=(2, 3), keepdim=True) > 0
        return Batch(
            truth=(_units(truth) * (weight > 0)).contiguous(),
            lr=(upsample(_units(seen), scale, margin=context // scale) * present).contiguous(),
            ref=(_units(ref) * present).contiguous(),
            mask=mask.contiguous(),
            weight=weight.contiguous(),
            scale=scale,
            names=tuple(names),
            files=tuple(files),
        )

    def _sample(self, rng: np.random.Generator, crop: int, scale: int) -> tuple[Sample, PairDataset, int]:
        planes, dataset, index = self._crop(rng, crop, scale)
        sample = Sample.of(planes)
        area = sample.truth.shape[-1]
        sample = spoil(sample, planes.classes, self.config.faults, self.classes, rng, lambda: self._other(rng, area))
        return turn(sample, int(rng.integers(4)), bool(rng.integers(2))), dataset, index

    def _pick(self, rng: np.random.Generator) -> tuple[PixelSource, int]:
        pixels = self._pixels[int(rng.choice(len(self._pixels), p=self._source_weights))]
        return pixels, int(rng.integers(len(pixels.dataset)))

    def _crop(self, rng: np.random.Generator, crop: int, scale: int) -> tuple[Planes, PairDataset, int]:
        """A crop with context for the LR, mostly valid; another pair where one cannot be read."""
        found = None
        for _ in range(_TRIES):
            pixels, index = self._pick(rng)
            name = pixels.dataset.name(index)
            height, width = pixels.dataset.shape(index)
            side = min(height, width)
            context = max(0, min(_LR_CONTEXT, (side - crop) // (2 * scale)))
            area = crop + 2 * context * scale
            if area > side:
                self._pass_over(name, InputError(_too_small(height, width, area)))
                continue
            planes = self._cut(rng, pixels, index, area)
            if planes is None:
                continue
            found = planes, pixels.dataset, index
            if planes.filled >= _LEAST_VALID:
                return found
        if found is None:
            raise self._exhausted()
        return found

    def _other(self, rng: np.random.Generator, area: int) -> tuple[Tensor, Tensor]:
        """(C, area, area) of another place, DN, and its land cover (area, area) uint8."""
        for _ in range(_TRIES):
            pixels, index = self._pick(rng)
            if min(pixels.dataset.shape(index)) < area:
                continue
            planes = self._cut(rng, pixels, index, area)
            if planes is not None:
                return Sample.of(planes).truth, planes.classes
        raise self._exhausted()

    def _cut(self, rng: np.random.Generator, pixels: PixelSource, index: int, area: int) -> Planes | None:
        """A window anywhere in a pair; None where it cannot be read."""
        height, width = pixels.dataset.shape(index)
        top, left = int(rng.integers(height - area + 1)), int(rng.integers(width - area + 1))
        try:
            return pixels.crop(index, top, left, area)
        except GeoRefDiffError as error:
            self._pass_over(pixels.dataset.name(index), error)
            return None

    def _pass_over(self, name: str, error: GeoRefDiffError) -> None:
        why = reason(name, error)
        if self.on_error == "stop":
            raise InputError(f'{name}: {why}; mend it, leave it out, or give data.on_error = "skip"') from error
        self.unusable[name] = why

    def _exhausted(self) -> InputError:
        some = "; ".join(f"{name}: {why}" for name, why in list(self.unusable.items())[:3])
        return InputError(f"{_TRIES} pairs in a row cannot be used ({some or 'all too small'}); check the data")


def reason(name: str, error: GeoRefDiffError) -> str:
    """Why a pair cannot be used, without its name."""
    return str(error).removeprefix(f"{name}: ")


def _too_small(height: int, width: int, crop: int) -> str:
    return f"{height} x {width} px, smaller than a crop of {crop}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _units(dn: Tensor) -> Tensor:
    return dn / 127.5 - 1.0


def _shares(weights: Sequence[float]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.array(weights, dtype=np.float64)
    return np.asarray(values / values.sum())
