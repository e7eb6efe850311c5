"""What is compared: models run as the product runs them, classical baselines, results of other methods."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from geo_refdiff.engine.consistency import LrConsistency
from geo_refdiff.evaluate.image_folder import ImageFolder
from geo_refdiff.evaluate.job import Job
from geo_refdiff.evaluate.loading import LoadedModel, class_map
from geo_refdiff.evaluate.masks import Masks
from geo_refdiff.options import Consistency
from geo_refdiff.restore.diffusion import DiffusionRestorer, SamplerSettings
from geo_refdiff.restore.restorers import CLASSICAL, LR_MARGIN, Conditions, Restorer
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.sensor.wiener import wiener_project

Kind = Literal["model", "baseline", "outputs"]
_MODES: dict[str, Consistency] = {"standard": "standard", "strict": "strict"}


class Method(Protocol):
    """Something that gives an HR image for a job."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...

    def restore(self, job: Job) -> Tensor:
        """(1, C, H, W) float32, DN, neither rounded nor clipped."""
        ...


@dataclass(frozen=True, slots=True)
class Baseline:
    """A classical restorer of the engine, or "ref": the reference as the files hold it, bicubic where it is missing."""

    name: str
    kind: Kind = "baseline"

    def restore(self, job: Job) -> Tensor:
        """(1, C, H, W), DN."""
        if self.name == "ref":
            up = upsample(job.lr, job.sensor.scale)
            return torch.where(torch.isnan(job.tile.raw).any(dim=1, keepdim=True), up, job.tile.raw)
        batch = Conditions((job.tile.spec.lattice,), _with_margin(job.lr), job.tile.ref)
        return _restored(CLASSICAL[self.name](job.sensor), batch, job)


BASELINES = ("bicubic", "bicubic-ibp", "ref", "matched-ref")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Result images of another method."""

    name: str
    folder: ImageFolder
    kind: Kind = "outputs"

    def restore(self, job: Job) -> Tensor:
        """(1, C, H, W), DN."""
        return self.folder.read(job.tile.spec)


@dataclass(frozen=True)
class ModelRun:
    """A model with the conditions that it is given.

    Attributes:
        name: label, and what differs between the runs of this evaluation.
        model: loaded.
        settings: of the sampler.
        masks, reference: what it is given; see `Request`.
        classes: number of mask classes of the data set.
        seed: of the noise.
    """

    name: str
    model: LoadedModel
    settings: SamplerSettings
    masks: Masks
    reference: str
    classes: int
    seed: int
    kind: Kind = "model"
    _restorers: dict[SensorModel, DiffusionRestorer] = field(default_factory=dict, repr=False)

    def restore(self, job: Job) -> Tensor:
        """(1, C, H, W), DN."""
        return _restored(self.restorer(job.sensor), self.conditions(job), job)

    def restorer(self, sensor: SensorModel) -> DiffusionRestorer:
        """The model for a sensor, as the engine runs it."""
        if sensor not in self._restorers:
            model = self.model
            self._restorers[sensor] = DiffusionRestorer(
                model.denoiser, self.settings, sensor, model.channels, model.label
            )
        return self._restorers[sensor]

    def conditions(self, job: Job) -> Conditions:
        """What the model is told of a tile, model units; the tile is a scene of its own, with noise of its own."""
        ref = {"given": job.tile.ref, "raw": job.tile.raw, "none": None, "other": job.other}[self.reference]
        mask = self._mask(job, ref)
        return Conditions(
            (job.tile.spec.lattice,),
            BYTES.to_model(_with_margin(job.lr)),
            None if ref is None else BYTES.to_model(ref),
            mask,
            seed=self.seed,
        ).to(self.model.denoiser.device)

    def _mask(self, job: Job, ref: Tensor | None) -> Tensor | None:
        if self.masks.detector is not None:
            if ref is None:
                return None
            table, _ = class_map(self.model.classes, self.masks.detector.classes)
            return table[self.masks.detector.find(job.lr, ref, job.sensor).long()]
        mask = self.masks.of(job.tile, self.classes)
        return None if mask is None else self.model.class_map[mask.long()]


def _restored(restorer: Restorer, batch: Conditions, job: Job) -> Tensor:
    """What a restorer gives, in DN: back-projected by itself, or corrected as the product corrects the whole."""
    by_itself = job.consistency == "window" or not restorer.consistent
    image = restorer.restore(replace(batch, project=by_itself)).to("cpu", torch.float32)
    image = BYTES.to_numbers(image) if restorer.model_units else image
    if by_itself:
        return image
    if job.consistency == "wiener":
        return wiener_project(image, job.lr, (job.sensor,), torch.tensor([job.noise]))
    numbers = job.tile.spec.numbers
    values, lr = (numbers.own(x).to(torch.float32) for x in (image, job.lr))
    mode = _MODES[job.consistency]
    noise = (job.noise * (numbers.high - numbers.low) / 255.0,) * lr.shape[1]
    correction = LrConsistency((job.sensor,) * lr.shape[1], mode, np.dtype(numbers.dtype), noise=noise)
    values = correction.correct(values, lr, None)
    return numbers.scaled(correction.finish(values, lr, None) if mode == "strict" else values)


def _with_margin(lr: Tensor) -> Tensor:
    return torch.nn.functional.pad(lr, (LR_MARGIN,) * 4, mode="replicate")
