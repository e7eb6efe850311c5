"""Loads model folders for the bands, classes and scales of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from geo_refdiff.classes import UNKNOWN_CLASS, class_index
from geo_refdiff.diffusion.checkpoint import load_denoiser, model_digest
from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.errors import ModelError, OptionError


@dataclass(frozen=True)
class LoadedModel:
    """A model folder, ready for a data set.

    Attributes:
        label: what the report calls it.
        denoiser, digest: as loaded, and the SHA-256 of its files.
        channels: for each band of the model that of the data set, None where it lacks it.
        classes: names of the model's own, empty where it has none.
        class_map: (256,) uint8, class index of the data set -> of the model.
        strangers: classes of the data set that the model does not know; they are given as 255, not known.
    """

    label: str
    denoiser: Denoiser
    digest: str
    channels: tuple[int | None, ...]
    classes: tuple[str, ...]
    class_map: Tensor
    strangers: tuple[str, ...]


def load_models(
    names: Sequence[str],
    bands: Sequence[str],
    classes: Sequence[str],
    scales: Sequence[int],
    device: str,
    dtype: torch.dtype,
) -> list[LoadedModel]:
    """Models for a data set with these bands and classes.

    Raises:
        ModelError: unknown or damaged, or bands or a scale that it cannot do.
    """
    loaded = []
    for name, label in zip(names, _labels(names), strict=True):
        denoiser = load_denoiser(name, device, dtype)
        config = denoiser.config
        known = config.scales or tuple(scales)
        for scale in scales:
            if scale not in known:
                told = ", ".join(str(s) for s in known)
                raise ModelError(f"model '{label}' does not know scale {scale}; its scales are {told}")
        channels = _channels(label, denoiser.bands, config.optional_bands, bands)
        table, strangers = class_map(config.classes, classes)
        loaded.append(LoadedModel(label, denoiser, model_digest(name), channels, config.classes, table, strangers))
    return loaded


def _labels(names: Sequence[str]) -> list[str]:
    """Last parts of the paths, as many as are needed to tell them apart."""
    paths = [Path(name).expanduser().resolve() if Path(name).exists() else Path(name) for name in names]
    if len(set(paths)) < len(paths):
        raise OptionError(f"a model is named twice among {', '.join(names)}; name each once")
    labels, count = [path.name for path in paths], 1
    while len(set(labels)) < len(labels):
        count += 1
        labels = ["/".join(path.parts[-count:]) for path in paths]
    return labels


def _channels(
    label: str, wanted: Sequence[str], optional: Sequence[str], bands: Sequence[str]
) -> tuple[int | None, ...]:
    lowered = [band.lower() for band in bands]
    missing = [band for band in wanted if band.lower() not in (*lowered, *(o.lower() for o in optional))]
    strange = [band for band in lowered if band not in [w.lower() for w in wanted]]
    if missing or strange:
        raise ModelError(
            f"model '{label}' takes the bands {', '.join(wanted)}, the data set has {', '.join(bands)}; "
            f"choose among them with --bands"
        )
    return tuple(lowered.index(band.lower()) if band.lower() in lowered else None for band in wanted)


def class_map(known: Sequence[str], classes: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """From class indices to those of a model, by name where the model names its classes, else as they are.

    Args:
        known: names of the model's classes.
        classes: names of the classes that are to be mapped.

    Returns:
        (256,) uint8, and the names that the model does not know, which become 255.
    """
    table = torch.arange(256, dtype=torch.uint8)
    if not known:
        return table, ()
    table[1:] = UNKNOWN_CLASS
    strangers = []
    for index, name in enumerate(classes[1:], 1):
        own = class_index(name, known)
        if own is None:
            strangers.append(name)
        else:
            table[index] = own
    return table, tuple(strangers)
