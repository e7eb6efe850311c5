"""Opens everything that an evaluation needs: data, models, judging networks, folders of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import lcm
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geo_refdiff.change.detector import load_detector
from geo_refdiff.data import OpenedDataset, open_dataset
from geo_refdiff.data.dataset import coarser
from geo_refdiff.data.published import PublishedDataset
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.evaluate.detection import TileDetector
from geo_refdiff.evaluate.efficientnet import Judge, judge_weights
from geo_refdiff.evaluate.image_folder import ImageFolder, Images, lacking
from geo_refdiff.evaluate.inception import Inception
from geo_refdiff.evaluate.loading import LoadedModel, load_models
from geo_refdiff.evaluate.lpips import Lpips
from geo_refdiff.evaluate.masks import GIVEN_MASKS, Masks
from geo_refdiff.evaluate.methods import BASELINES, Baseline, Method, ModelRun, Outputs
from geo_refdiff.evaluate.request import OWN_LR, Request
from geo_refdiff.evaluate.tiles import TileSource, TileSpec
from geo_refdiff.nn.device import chosen_device
from geo_refdiff.options import SamplingOptions
from geo_refdiff.restore.diffusion import sampler_settings
from geo_refdiff.sensor.sensor import SensorModel


@dataclass(frozen=True)
class Setup:
    """An evaluation, opened.

    Attributes:
        request: as asked.
        dataset: with what it left out.
        source: of tiles.
        specs: the tiles asked for.
        models: loaded.
        runs: each model with each mask, reference and amount of detail.
        masks: what `runs` are given.
        perceptual, inception: None where no weights were named.
        judge: for effLP and FD; None where its package is not installed, or the images are not red, green, blue.
    """

    request: Request
    dataset: OpenedDataset
    source: TileSource
    specs: list[TileSpec]
    models: list[LoadedModel]
    runs: list[ModelRun]
    masks: list[Masks]
    perceptual: Lpips | None
    inception: Inception | None
    judge: Judge | None


@dataclass(frozen=True)
class ScaleSetup:
    """One scale of it.

    Attributes:
        sensor: the true operator.
        methods: all that is compared, in the order of the tables.
        lr: LR images, None = simulated.
        specs: tiles that every folder has an image for.
        missing: folder -> tile -> why it has none.
    """

    sensor: SensorModel
    methods: list[Method]
    lr: Images | None
    specs: list[TileSpec]
    missing: dict[str, dict[str, str]] = field(default_factory=dict)


def open_all(request: Request) -> Setup:
    """Everything but what belongs to one scale.

    Raises:
        InputError, ModelError, OptionError: a file or an option that will not do.
    """
    device = chosen_device(request.device)
    perceptual = None
    if request.alexnet is not None and request.lpips is not None:
        perceptual = Lpips(request.alexnet, request.lpips, device)
    inception = None if request.inception is None else Inception(request.inception, device)
    dataset, raw = (_open(request, match) for match in (True, False))
    _check_same(dataset, raw)
    matched, unmatched = (coarser(data, request.average) for data in (dataset, raw))
    source = TileSource(matched, unmatched, request.tile, request.bands, request.paste, request.seed)
    models = load_models(
        request.models, source.bands, dataset.classes, request.scales, device, getattr(torch, request.dtype)
    )
    for model in models:
        step = lcm(model.denoiser.multiple, *request.scales)
        if request.tile % step:
            raise OptionError(f"tile {request.tile}: model '{model.label}' needs a multiple of {step}")
    weights = judge_weights() if len(source.bands) >= 3 and request.tile % 16 == 0 else None
    judge = None if weights is None else Judge(weights, device)
    masks = [_masks(name, source) for name in request.masks]
    runs = list(_runs(request, models, masks, len(dataset.classes)))
    specs = source.first_places(request.places)
    return Setup(request, dataset, source, specs, models, runs, masks, perceptual, inception, judge)


def open_scale(setup: Setup, scale: int) -> ScaleSetup:
    """What belongs to one scale, and the tiles that can be compared at it.

    Raises:
        InputError: a folder is missing, or no tile is left.
        OptionError: two methods of one name.
    """
    request, bands = setup.request, len(setup.source.bands)
    outputs = [Outputs(n, ImageFolder(_inner(request, f, scale), bands)) for n, f in request.outputs.items()]
    lr = _lr(setup, scale)
    methods: list[Method] = [*(Baseline(name) for name in BASELINES), *setup.runs, *outputs]
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"two methods are called '{name}'; give the results of --outputs another name")
    sources: dict[str, Images] = {o.name: o.folder for o in outputs}
    sources |= {f"mask {m.name}": m.folder for m in setup.masks if m.folder} | ({} if lr is None else {"LR": lr})
    specs, missing = setup.specs, {}
    for name, images in sources.items():
        if without := lacking(images, setup.specs):
            missing[name] = without
            specs = [spec for spec in specs if spec.name not in without]
    if not specs:
        name, without = max(missing.items(), key=lambda item: len(item[1]))
        first = min(without.values(), key=lambda reason: "has no image called" in reason)  # an unfit one tells more
        raise InputError(f"no tile can be compared: {name} lacks {len(without)} of them; {first}")
    sensor = SensorModel(scale, request.psf_sigma, request.degradation)
    return ScaleSetup(sensor, methods, lr, specs, missing)


@dataclass(frozen=True, slots=True)
class _OwnLr:
    """The LR images that come with a data set."""

    dataset: PublishedDataset
    scale: int

    def read(self, spec: TileSpec) -> Tensor:
        at = spec.window.divide(self.scale)
        values = self.dataset.read_lr(spec.index, self.scale)[:, at.row : at.stop_row, at.col : at.stop_col]
        return torch.from_numpy(values.astype(np.float32))[None]


def _lr(setup: Setup, scale: int) -> Images | None:
    request, dataset = setup.request, setup.dataset
    if request.lr is None:
        return None
    if str(request.lr) != OWN_LR:
        return ImageFolder(_inner(request, request.lr, scale), len(setup.source.bands), scale)
    if not isinstance(dataset, PublishedDataset):
        raise OptionError(f"lr {OWN_LR}: {request.data} brings no LR images; name a folder, or leave --lr out")
    if scale not in [s for _, s in dataset.lr_kinds()]:
        have = ", ".join(f"{kind} {s}x" for kind, s in dataset.lr_kinds()) or "none"
        raise OptionError(f"lr {OWN_LR}: {request.data} brings no LR images for {scale}x, only {have}")
    return _OwnLr(dataset, scale)


def _masks(name: str, source: TileSource) -> Masks:
    if name == "auto":
        return Masks(name, detector=TileDetector(load_detector(), source.bands))
    return Masks(name) if name in GIVEN_MASKS else Masks(Path(name).name, ImageFolder(Path(name), None))


def _open(request: Request, match: bool) -> OpenedDataset:
    return open_dataset(
        request.data,
        root=request.root,
        split=request.split,
        only=request.only,
        exclude=request.exclude,
        resident=False,
        pseudo_classes=request.paste,
        match=match,
        clip=False,
    )


def _check_same(dataset: OpenedDataset, raw: OpenedDataset) -> None:
    names = [[data.name(i) for i in range(len(data))] for data in (dataset, raw)]
    if names[0] != names[1]:
        raise InputError("the data set changed while it was being opened; start again")


def _runs(request: Request, models: Sequence[LoadedModel], masks: Sequence[Masks], classes: int) -> Iterator[ModelRun]:
    for model in models:
        for mask, reference, detail in product(masks, request.references, request.details or (None,)):
            told = [model.label]
            told += [f"mask {mask.name}"] if len(masks) > 1 else []
            told += [f"ref {reference}"] if len(request.references) > 1 else []
            told += [f"detail {detail:g}"] if detail is not None and len(request.details) > 1 else []
            asked = SamplingOptions(sampler=request.sampler, steps=request.steps, detail=detail)
            settings = sampler_settings(model.denoiser, asked)
            yield ModelRun(", ".join(told), model, settings, mask, reference, classes, request.seed)


def _inner(request: Request, folder: Path, scale: int) -> Path:
    """DIR/8x where it is there, else DIR itself if this is the only scale."""
    inner = folder / f"{scale}x"
    if inner.is_dir():
        return inner
    if len(request.scales) > 1:
        raise InputError(f"{folder}: has no folder {scale}x; with several scales give each its own")
    return folder
