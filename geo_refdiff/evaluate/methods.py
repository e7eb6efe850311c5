"""What is compared: models run as the product runs them, classical baselines, results of other methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from msgspec.structs import replace as replace_options
from torch import Tensor

from geo_refdiff import options as upscale_options
from geo_refdiff.classes import UNKNOWN_CLASS, class_index
from geo_refdiff.engine.consistency import LrConsistency
from geo_refdiff.errors import ModelError, OptionError
from geo_refdiff.evaluate.image_folder import ImageFolder
from geo_refdiff.evaluate.masks import MaskSource
from geo_refdiff.evaluate.options import Consistency, EvaluateOptions, Reference
from geo_refdiff.evaluate.tiles import Tile
from geo_refdiff.nn.device import chosen_device
from geo_refdiff.restore.models import Model, open_model
from geo_refdiff.restore.restorers import CLASSICAL, LR_MARGIN, Conditions, Restorer
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.sensor.wiener import NoiseFilter, components


@dataclass(frozen=True, slots=True)
class Observation:
    """One tile as a method sees it: its LR, and what is declared of it; images (1, C, ...) float32 in DN.

    Attributes:
        tile: with the truth, which methods leave alone.
        lr: as the sensor saw the truth.
        sensor: the operator as it is declared to the methods.
        other: the reference of another place in the radiometry of the LR, where a method asks for it.
        consistency: "window", or how the product corrects the whole; see `MethodOptions`.
        noise: standard deviation of the noise of `lr`, DN.
    """

    tile: Tile
    lr: Tensor
    sensor: SensorModel
    other: Tensor | None = None
    consistency: Consistency = "standard"
    noise: float = 0.0


Kind = Literal["model", "baseline", "outputs"]


@dataclass(frozen=True, slots=True)
class Variant:
    """A model and what it is given.

    Attributes:
        name: in tables: the model's label, and what differs between its variants.
        model: opened.
        mask: as the option `mask` names it; None: the data's own where they have one, else "auto".
        reference: as the option `reference` names it.
        kind: what it is.
    """

    name: str
    model: Model
    mask: str | None = None
    reference: Reference = "given"
    kind: Kind = "model"


def variants(models: Sequence[str], options: EvaluateOptions, masks: Sequence[str | None]) -> list[Variant]:
    """Each model with each mask, reference and amount of detail.

    Raises:
        ModelError, OptionError: an unknown or damaged model, one that is named twice, or options that make no sense.
    """
    asked, device = options.methods, chosen_device(options.compute.device)
    details, made = asked.detail or (None,), []
    names_of_masks = dict(zip(masks, labels([str(mask) for mask in masks], "mask"), strict=True))
    for name, label in zip(models, labels(models, "model"), strict=True):
        settings = (replace_options(options.sampling, model=name, detail=detail) for detail in details)
        opened = [open_model(sampling, device=device, dtype=asked.dtype) for sampling in settings]
        for mask, reference, (detail, model) in product(masks, asked.reference, zip(details, opened, strict=True)):
            parts = [label]
            parts += [f"mask {names_of_masks[mask]}"] if len(masks) > 1 else []
            parts += [f"ref {reference}"] if len(asked.reference) > 1 else []
            parts += [f"detail {detail:g}"] if len(details) > 1 else []
            made.append(Variant(", ".join(parts), model, mask, reference))
    return made


def labels(names: Sequence[str], what: str) -> list[str]:
    """Last parts of the paths, as many as make them differ.

    Raises:
        OptionError: one is named twice, of models (`what`) or masks.
    """
    paths = [Path(name).expanduser().resolve() if Path(name).exists() else Path(name) for name in names]
    if len(set(paths)) < len(paths):
        raise OptionError(f"a {what} is named twice among {', '.join(names)}; name each once")
    parts, count = [path.name for path in paths], 1
    while len(set(parts)) < len(parts):
        count += 1
        parts = ["/".join(path.parts[-count:]) for path in paths]
    return parts


def model_channels(model: Model, bands: Sequence[str]) -> tuple[int | None, ...]:
    """For each band of the model that of the data set, None where it lacks an optional one.

    Raises:
        ModelError: the data set lacks one, or has others.
    """
    lowered, wanted = [band.lower() for band in bands], [band.lower() for band in model.bands or bands]
    optional = [band.lower() for band in model.optional_bands]
    if set(wanted) - set(lowered) - set(optional) or set(lowered) - set(wanted):
        raise ModelError(
            f"model '{model.name}' takes the bands {', '.join(model.bands)}, the data set has {', '.join(bands)}; "
            f"choose among them with --bands"
        )
    return tuple(lowered.index(band) if band in lowered else None for band in wanted)


def class_map(own: Sequence[str], classes: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """From class indices to those of a model, by name where the model names its classes, else as they are.

    Args:
        own: names of the model's classes.
        classes: names of the classes that are to be mapped.

    Returns:
        (256,) uint8, and the names that the model lacks, which become 255.
    """
    table = torch.arange(256, dtype=torch.uint8)
    if not own:
        return table, ()
    indices = {name: class_index(name, own) for name in classes[1:]}
    table[1:] = UNKNOWN_CLASS
    for place, index in enumerate(indices.values(), 1):
        table[place] = UNKNOWN_CLASS if index is None else index
    return table, tuple(name for name, index in indices.items() if index is None)


_MODES: dict[Consistency, upscale_options.Consistency] = {"standard": "standard", "strict": "strict"}


class Method(Protocol):
    """Something that gives an HR image for an observation."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...

    def restore(self, seen: Observation) -> Tensor:
        """(1, C, H, W) float32, DN, neither rounded nor clipped."""
        ...


@dataclass(frozen=True, slots=True)
class Baseline:
    """A classical restorer of the engine, or "ref": the reference as the files hold it, bicubic where it is missing."""

    name: str
    kind: Kind = "baseline"

    def restore(self, seen: Observation) -> Tensor:
        """(1, C, H, W), DN."""
        if self.name == "ref":
            up = upsample(seen.lr, seen.sensor.scale)
            return torch.where(torch.isnan(seen.tile.raw).any(dim=1, keepdim=True), up, seen.tile.raw)
        batch = Conditions((seen.tile.spec.lattice,), _padded(seen.lr, LR_MARGIN), seen.tile.ref)
        return _restored(CLASSICAL[self.name](seen.sensor), batch, seen)


BASELINES = ("bicubic", "bicubic-ibp", "ref", "matched-ref")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Result images of another method."""

    name: str
    folder: ImageFolder
    kind: Kind = "outputs"

    def restore(self, seen: Observation) -> Tensor:
        """(1, C, H, W), DN."""
        return self.folder.read(seen.tile.spec)


@dataclass(frozen=True)
class ModelRun:
    """A variant of a model on tiles of pairs.

    Attributes:
        variant: with its name.
        masks: what it is given.
        channels: for each band of the model that of the data set, None where it lacks it.
        classes: of the data set's masks.
        seed: of the noise.
    """

    variant: Variant
    masks: MaskSource
    channels: tuple[int | None, ...]
    classes: tuple[str, ...]
    seed: int
    kind: Kind = "model"
    _restorers: dict[SensorModel, Restorer] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """That of the variant."""
        return self.variant.name

    @property
    def model(self) -> Model:
        """That of the variant."""
        return self.variant.model

    @cached_property
    def class_map(self) -> tuple[Tensor, tuple[str, ...]]:
        """From the data set's classes to the model's, see `class_map`."""
        return class_map(self.model.classes, self.classes)

    def restore(self, seen: Observation) -> Tensor:
        """(1, C, H, W), DN."""
        return _restored(self.restorer(seen.sensor), self.conditions(seen), seen)

    def restorer(self, sensor: SensorModel) -> Restorer:
        """The model for a sensor, as the engine runs it."""
        if sensor not in self._restorers:
            self._restorers[sensor] = self.model.make(sensor, self.channels)
        return self._restorers[sensor]

    def conditions(self, seen: Observation) -> Conditions:
        """What the model is given of a tile, model units; the tile is a scene of its own, with noise of its own."""
        tile = seen.tile
        ref = {"given": tile.ref, "raw": tile.raw, "none": None, "other": seen.other}[self.variant.reference]
        mask = self._mask(seen, ref)
        return Conditions(
            (tile.spec.lattice,),
            BYTES.to_model(_padded(seen.lr, LR_MARGIN)),
            None if ref is None else BYTES.to_model(ref),
            mask,
            seed=self.seed,
        ).to(self.model.device)

    def _mask(self, seen: Observation, ref: Tensor | None) -> Tensor | None:
        if self.masks.detector is not None:
            if ref is None:
                return None
            table, _ = class_map(self.model.classes, self.masks.detector.classes)
            return table[self.masks.detector.detect(seen.lr, ref, seen.sensor).long()]
        mask = self.masks.of(seen.tile, len(self.classes))
        return None if mask is None else self.class_map[0][mask.long()]


def _restored(restorer: Restorer, batch: Conditions, seen: Observation) -> Tensor:
    """What a restorer gives, in DN: back-projected by itself, or corrected as the product corrects the whole."""
    by_itself = seen.consistency == "window" or not restorer.consistent
    image = restorer.restore(replace(batch, project=by_itself)).to("cpu", torch.float32)
    image = BYTES.to_numbers(image) if restorer.model_units else image
    if by_itself:
        return image
    numbers = seen.tile.spec.numbers
    values, lr = (numbers.own(x).to(torch.float32) for x in (image, seen.lr))
    mode = _MODES[seen.consistency]
    noise = (seen.noise * (numbers.high - numbers.low) / 255.0,) * lr.shape[1]
    filtered = NoiseFilter(noise, components(list(lr.numpy()), noise)) if seen.noise else None
    correction = LrConsistency((seen.sensor,) * lr.shape[1], mode, np.dtype(numbers.dtype), noise=filtered)
    values = correction.correct(values, lr, None)
    return numbers.scaled(correction.finish(values, lr, None) if mode == "strict" else values)


def _padded(lr: Tensor, margin: int) -> Tensor:
    return torch.nn.functional.pad(lr, (margin,) * 4, mode="replicate")
