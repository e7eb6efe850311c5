"""Training samples: aligned crops of truth, reference, mask and LR, with synthetic change and the users' faults.

Every sample is a function of (seed, step, its number in the step), and its LR of those it shares a part of the batch
with: in whatever order, thread or process it is made. `prefetch` makes batches ahead in threads; on a GPU beside the
network, in streams of their own.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.data.dataset import PairDataset, coarser
from geo_refdiff.errors import GeoRefDiffError, InputError, OptionError
from geo_refdiff.raster.gdal import gdal_threads
from geo_refdiff.sensor.recipe import RECIPES, Degradation, draw
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.sensor.wiener import without_noise
from geo_refdiff.train.augment import Sample, corrupt, turn
from geo_refdiff.train.config import SamplesConfig
from geo_refdiff.train.pixels import MemoryBudget, PixelSource, Planes

Job = tuple[int, Sequence[int]]
"""A step, and the numbers of its samples that make one batch."""

_AHEAD = 3
_LR_CONTEXT = 3
_LEAST_VALID = 0.7
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch on the output grid, model units.

    Attributes:
        truth: (N, C, H, W).
        lr: (N, C, H, W), up-sampled.
        ref: (N, C, H, W), NaN = missing.
        mask: (N, 1, H, W) uint8 class indices, 255 = change unknown.
        weight: (N, C, H, W), 0 where the truth has no data and in a band that the sample does without.
        target: (N, C, h, w), the LR less its noise, as corrections take it; 0 in a band that the sample does without.
        sensors: N operators as a user would declare them, not quite the true ones.
        scale: the factor of this batch.
        names: of the N pairs.
        files: of the N pairs: their images' names.
    """

    truth: Tensor
    lr: Tensor
    ref: Tensor
    mask: Tensor
    weight: Tensor
    target: Tensor
    sensors: tuple[SensorModel, ...]
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
        return [self.truth, self.lr, self.ref, self.mask, self.weight, self.target]


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
        budget: device memory for pairs that stay there.

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
        budget: MemoryBudget | None = None,
    ) -> None:
        self.sources, self.config, self.multiple, self.seed = sources, config, multiple, seed
        self.on_error = on_error
        first = sources[0].dataset
        for dataset, _ in sources[1:]:
            if (dataset.bands, dataset.classes) != (first.bands, first.classes):
                raise OptionError(
                    f"the sources differ: bands {', '.join(first.bands)} and {', '.join(dataset.bands)}, classes "
                    f"{', '.join(first.classes)} and {', '.join(dataset.classes)}; train on sources that are alike"
                )
        if config.degradation not in RECIPES:
            raise OptionError(f"samples.degradation is '{config.degradation}': choose {', '.join(RECIPES)}")
        self.classes = len(first.classes)
        self.recipe = RECIPES[config.degradation]
        self.scales = sorted(int(s) for s in config.scales)
        self._scale_weights = _shares([config.scales[str(s)] for s in self.scales])
        self._averaged = {int(side): weight for side, weight in config.averaged.items() if weight > 0}
        self._source_weights = _shares([s.weight for s in sources])
        budget = budget or MemoryBudget(0)
        self._pixels = {
            side: [PixelSource(coarser(s.dataset, side), torch.device(device), budget) for s in sources]
            for side in self._averaged
        }
        self._sides = sorted({min(d.shape(i)) for d, _ in sources for i in range(len(d))})
        self.unusable: dict[str, str] = {}

    def scale(self, step: int) -> int:
        """The factor of a step's batch; one for all processes."""
        rng = np.random.default_rng((self.seed, step))
        return int(rng.choice(self.scales, p=self._scale_weights))

    def averaged(self, step: int) -> int:
        """Side of the squares of pixels that are averaged to one in a step's batch; one for all processes.

        Those that leave less than a crop of the smallest pair at the step's factor are not drawn.
        """
        rng = np.random.default_rng((self.seed, step, 1))
        least = math.lcm(self.scale(step), self.multiple)
        weights = {n: w for n, w in self._averaged.items() if least * n <= self._sides[0]}
        return int(rng.choice(list(weights), p=_shares(list(weights.values())))) if weights else min(self._averaged)

    def crop(self, scale: int, averaged: int = 1) -> int:
        """The side of a crop at a factor, output px; of averaged images at most what the smallest pair still gives."""
        if averaged == 1:
            return crop_size(scale, self.multiple, self.config.crop)
        step = math.lcm(scale, self.multiple)
        largest = self._sides[0] // averaged // step * step
        return max(step, min(crop_size(scale, self.multiple, self.config.crop), largest))

    def small_pairs(self) -> list[str]:
        """Names, with sizes, of the pairs that are smaller than a crop at any factor."""
        widest = max(self.crop(scale) for scale in self.config.factors()) * min(self._averaged)
        small = []
        for dataset, _ in self.sources:
            sizes = ((index, *dataset.shape(index)) for index in range(len(dataset)))
            small += [f"{dataset.name(i)}: {_too_small(h, w, widest)}" for i, h, w in sizes if min(h, w) < widest]
        return small

    def batch(self, step: int, numbers: Sequence[int]) -> Batch:
        """The samples with these numbers of a step.

        Raises:
            InputError: too many pairs in a row cannot be used, or one, with on_error "stop".
        """
        scale, averaged = self.scale(step), self.averaged(step)
        crop = self.crop(scale, averaged)
        samples, names, files = [], [], []
        for number in numbers:
            rng = np.random.default_rng((self.seed, step, number + 1))
            sample, dataset, index = self._sample(rng, crop, scale, averaged)
            samples.append(sample)
            names.append(dataset.name(index))
            files.append(dataset.files(index))
        truth, ref, mask, weight = (torch.stack(parts) for parts in zip(*samples, strict=True))
        context = (truth.shape[-1] - crop) // 2
        rng = np.random.default_rng((self.seed, step, 0, numbers[0]))
        degradation = draw(self.recipe, rng, len(samples), scale)
        sensors, noise = self._declared(degradation, rng)
        seen = degradation.apply(truth)
        inner = (..., slice(context, context + crop), slice(context, context + crop))
        target = without_noise(seen, noise, context // scale)
        truth, ref, mask, weight = truth[inner], ref[inner], mask[inner], weight[inner]
        present = weight.amax(dim=(2, 3), keepdim=True) > 0
        return Batch(
            truth=(BYTES.to_model(truth) * (weight > 0)).contiguous(),
            lr=(upsample(BYTES.to_model(seen), scale, margin=context // scale) * present).contiguous(),
            ref=(BYTES.to_model(ref) * present).contiguous(),
            mask=mask.contiguous(),
            weight=weight.contiguous(),
            target=(BYTES.to_model(target) * present).contiguous(),
            sensors=sensors,
            scale=scale,
            names=tuple(names),
            files=tuple(files),
        )

    def _declared(
        self, degradation: Degradation, rng: np.random.Generator
    ) -> tuple[tuple[SensorModel, ...], list[float]]:
        """Sensors and noise (DN) as a user would declare them."""
        sensors, noise = [], []
        for index in range(len(degradation)):
            off, factor = rng.uniform(-1, 1), rng.normal()
            along, across = degradation.sigma[index]
            if degradation.resize[index] == "bicubic" and along == 0:
                sensors.append(SensorModel(degradation.scale, kernel="bicubic"))
            else:
                sigma = 0.5 * (along + across) + self.config.psf_error * off
                sensors.append(SensorModel(degradation.scale, round(min(max(sigma, 0.0), 4.0), 2)))
            noise.append(degradation.noise[index] * math.exp(self.config.noise_error * factor))
        return tuple(sensors), noise

    def _sample(
        self, rng: np.random.Generator, crop: int, scale: int, averaged: int
    ) -> tuple[Sample, PairDataset, int]:
        planes, dataset, index = self._crop(rng, crop, scale, averaged)
        sample = Sample.of(planes)
        area = sample.truth.shape[-1]
        sample = corrupt(
            sample, planes.classes, self.config.faults, self.classes, rng, lambda: self._other(rng, area, averaged)
        )
        return turn(sample, int(rng.integers(4)), bool(rng.integers(2))), dataset, index

    def _pick(self, rng: np.random.Generator, averaged: int) -> tuple[PixelSource, int]:
        pixels = self._pixels[averaged][int(rng.choice(len(self.sources), p=self._source_weights))]
        return pixels, int(rng.integers(len(pixels.dataset)))

    def _crop(self, rng: np.random.Generator, crop: int, scale: int, averaged: int) -> tuple[Planes, PairDataset, int]:
        """A crop with context for the LR, mostly valid; another pair where one cannot be read."""
        best = None
        for _ in range(_TRIES):
            pixels, index = self._pick(rng, averaged)
            name = pixels.dataset.name(index)
            height, width = pixels.dataset.shape(index)
            if crop > min(height, width):
                self._pass_over(name, InputError(_too_small(height, width, crop)))
                continue
            area = crop + 2 * self._context(crop, scale, averaged) * scale
            planes = self._cut(rng, pixels, index, area)
            if planes is None:
                continue
            best = planes, pixels.dataset, index
            if planes.filled >= _LEAST_VALID:
                return best
        if best is None:
            raise self._exhausted()
        return best

    def _context(self, crop: int, scale: int, averaged: int) -> int:
        """scene pixels around a crop that every pair large enough for the crop has: those of a batch are alike."""
        side = min((s // averaged for s in self._sides if s // averaged >= crop), default=crop)
        return min(_LR_CONTEXT, (side - crop) // (2 * scale))

    def _other(self, rng: np.random.Generator, area: int, averaged: int) -> tuple[Tensor, Tensor]:
        """(C, area, area) of another place, DN, and its land cover (area, area) uint8."""
        for _ in range(_TRIES):
            pixels, index = self._pick(rng, averaged)
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


def _shares(weights: Sequence[float]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.array(weights, dtype=np.float64)
    return np.asarray(values / values.sum())


class DeviceStream:
    """Where batches are made: on a GPU in a stream for each thread, so that the network's work does not hold them up.

    Args:
        device: where the batches are.
        cuda: torch.cuda, or what behaves like it.
    """

    def __init__(self, device: str, cuda: Any = torch.cuda) -> None:
        self.device, self.cuda = device, cuda
        self.asynchronous = device.startswith("cuda")
        self._own = threading.local()

    def make(self, maker: SampleMaker, job: Job) -> tuple[Batch, Any]:
        """A batch, and the event after which it is there (None: it is there)."""
        if not self.asynchronous:
            return maker.batch(*job), None
        if not hasattr(self._own, "stream"):
            self._own.stream = self.cuda.Stream(self.device)
        with self.cuda.stream(self._own.stream):
            batch = maker.batch(*job)
            return batch, self._own.stream.record_event()

    def take(self, made: tuple[Batch, Any]) -> Batch:
        """The batch, for work in the current stream."""
        batch, ready = made
        if ready is not None:
            stream = self.cuda.current_stream(self.device)
            stream.wait_event(ready)
            for tensor in batch.tensors():
                tensor.record_stream(stream)  # else its memory might be given to the next batch too soon
        return batch


def prefetch(
    maker: SampleMaker, jobs: Iterable[Job], workers: int, stream: DeviceStream
) -> Generator[tuple[Batch, float], None, None]:
    """The batches of the jobs in order, each with the seconds that it was waited for.

    Args:
        maker: of the batches.
        jobs: which ones.
        workers: threads.
        stream: where they are made.
    """
    remaining = iter(jobs)
    with gdal_threads(workers, "samples") as pool:
        pending: deque[Future[tuple[Batch, Any]]] = deque()
        try:
            while True:
                missing = _AHEAD * workers - len(pending)
                pending.extend(pool.submit(stream.make, maker, job) for job in islice(remaining, missing))
                if not pending:
                    return
                begun = time.perf_counter()
                batch = stream.take(pending.popleft().result())
                yield batch, time.perf_counter() - begun
        finally:
            for future in pending:
                future.cancel()
