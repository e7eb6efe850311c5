"""Opens everything that an evaluation needs: data, models, judging networks, folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import lcm
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geo_refdiff.change.detector import load_detector
from geo_refdiff.data import OpenedDataset, open_dataset
from geo_refdiff.data.dataset import coarser
from geo_refdiff.data.published import PublishedDataset
from geo_refdiff.errors import InputError, ModelError, OptionError
from geo_refdiff.evaluate.image_folder import ImageFolder, Images, lacking
from geo_refdiff.evaluate.masks import GIVEN_MASKS, MaskSource, TileDetector
from geo_refdiff.evaluate.methods import (
    BASELINES,
    Baseline,
    Method,
    ModelRun,
    Outputs,
    labels,
    model_channels,
    variants,
)
from geo_refdiff.evaluate.options import DATASET, OWN_LR, EvaluateOptions, ReportOptions, folders_by_name
from geo_refdiff.evaluate.perceptual import STRIDE, EfficientNet, Inception, Lpips, Networks, efficientnet_weights
from geo_refdiff.evaluate.tiles import TileSource, TileSpec
from geo_refdiff.nn.device import chosen_device
from geo_refdiff.sensor.sensor import SensorModel


@dataclass(frozen=True)
class Setup:
    """An evaluation, opened.

    Attributes:
        data: as it was named.
        options: as asked.
        dataset: with what it left out.
        source: of tiles.
        specs: the tiles asked for.
        runs: each model with each mask, reference and amount of detail.
        masks: what `runs` are given.
        networks: those that judge images.
    """

    data: str
    options: EvaluateOptions
    dataset: OpenedDataset
    source: TileSource
    specs: list[TileSpec]
    runs: list[ModelRun]
    masks: list[MaskSource]
    networks: Networks


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


def open_all(data: str, models: Sequence[str], options: EvaluateOptions) -> Setup:
    """Everything but what belongs to one scale.

    Args:
        data: as `open_dataset` takes it.
        models: bundled names or model folders.
        options: as asked.

    Raises:
        InputError, ModelError, OptionError: a file or an option that will not do.
    """
    for scale in options.scene.scales:
        if options.data.tile % scale:
            raise OptionError(f"scale {scale}: give a --tile that is a multiple of it, not {options.data.tile}")
    device, tile, paste = chosen_device(options.compute.device), options.data.tile, options.methods.paste
    dataset, raw = (_open(data, options, match) for match in (True, False))
    _check_same(dataset, raw)
    matched, unmatched = (coarser(pairs, options.data.average) for pairs in (dataset, raw))
    source = TileSource(matched, unmatched, tile, options.data.bands, paste, options.sampling.seed)
    named = zip(options.methods.masks, labels(options.methods.masks, "mask"), strict=True)
    masks = {name: _masks(name, label, source) for name, label in named}
    runs = []
    given = [model for model in models if model not in BASELINES]  # which are compared anyway
    for variant in variants(given, options, options.methods.masks):
        model = variant.model
        for scale in options.scene.scales:
            if not model.knows(scale):
                raise ModelError(f"scale {scale}: {model.scales_in_words}; give one of these")
        channels = model_channels(model, source.bands)
        runs.append(ModelRun(variant, masks[str(variant.mask)], channels, dataset.classes, options.sampling.seed))
        multiples = [runs[-1].restorer(options.scene.sensor(scale)).multiple for scale in options.scene.scales]
        if tile % (step := lcm(*multiples, *options.scene.scales)):
            raise OptionError(f"tile {tile}: model '{model.name}' needs a multiple of {step}")
    networks = open_networks(options.report, device, efflp=len(source.bands) >= 3 and tile % STRIDE == 0)
    specs = source.first_places(options.data.places)
    return Setup(data, options, dataset, source, specs, runs, list(masks.values()), networks)


def open_networks(asked: ReportOptions, device: str, *, efflp: bool) -> Networks:
    """The networks whose weights are there.

    Args:
        asked: with the files that the user names.
        device: where they run.
        efflp: whether the images are such that effLP and FD can be measured.
    """
    weights = efficientnet_weights() if efflp else None
    return Networks(
        None if weights is None else EfficientNet(weights, device),
        None if asked.alexnet is None or asked.lpips is None else Lpips(Path(asked.alexnet), Path(asked.lpips), device),
        None if asked.inception is None else Inception(Path(asked.inception), device),
    )


def open_scale(setup: Setup, scale: int) -> ScaleSetup:
    """What belongs to one scale, and the tiles that can be compared at it.

    Raises:
        InputError: a folder is missing, or no tile remains.
        OptionError: two methods of one name.
    """
    options, bands = setup.options, len(setup.source.bands)
    folders = folders_by_name(options.methods.outputs)
    outputs = [Outputs(n, ImageFolder(_inner(options, f, scale), bands)) for n, f in folders.items()]
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
        first = min(without.values(), key=lambda reason: "has no image called" in reason)  # an unfit one says more
        raise InputError(f"no tile can be compared: {name} lacks {len(without)} of them; {first}")
    return ScaleSetup(options.scene.sensor(scale), methods, lr, specs, missing)


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
    lr, dataset = setup.options.scene.lr, setup.dataset
    if lr is None:
        return None
    if lr != OWN_LR:
        return ImageFolder(_inner(setup.options, Path(lr), scale), len(setup.source.bands), scale)
    if not isinstance(dataset, PublishedDataset):
        raise OptionError(f"lr {OWN_LR}: {setup.data} has no LR images; name a folder, or leave --lr out")
    if scale not in [s for _, s in dataset.lr_kinds()]:
        have = ", ".join(f"{kind} {s}x" for kind, s in dataset.lr_kinds()) or "none"
        raise OptionError(f"lr {OWN_LR}: {setup.data} has no LR images for {scale}x, only {have}")
    return _OwnLr(dataset, scale)


def _masks(name: str, label: str, source: TileSource) -> MaskSource:
    if name == "auto":
        return MaskSource(name, detector=TileDetector(load_detector(), source.bands))
    return MaskSource(name) if name in GIVEN_MASKS else MaskSource(label, ImageFolder(Path(name), None))


def _open(data: str, options: EvaluateOptions, match: bool) -> OpenedDataset:
    return open_dataset(
        data,
        **{name: getattr(options.dataset, name) for name in DATASET},
        resident=False,
        pseudo_classes=options.methods.paste,
        match=match,
        clip=False,
    )


def _check_same(dataset: OpenedDataset, raw: OpenedDataset) -> None:
    names = [[data.name(i) for i in range(len(data))] for data in (dataset, raw)]
    if names[0] != names[1]:
        raise InputError("the data set changed while it was being opened; start again")


def _inner(options: EvaluateOptions, folder: Path, scale: int) -> Path:
    """DIR/8x where it is there, else DIR itself if this is the only scale."""
    inner = folder / f"{scale}x"
    if inner.is_dir():
        return inner
    if len(options.scene.scales) > 1:
        raise InputError(f"{folder}: has no folder {scale}x; with several scales give each its own")
    return folder
