"""From the configuration to the network, and to the config.json of its model folder."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from geo_refdiff.diffusion.checkpoint import (
    build_denoiser,
    match_weights,
    model_digest,
    read_config,
    read_weights,
    resolve_model,
)
from geo_refdiff.diffusion.config import CompactConfig, Init, ModelConfig, SamplerConfig, decode_config
from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.errors import ModelError
from geo_refdiff.nn.compact import CompactSize
from geo_refdiff.records import plain
from geo_refdiff.train.config import INFERENCE_KEYS, Inference, Sampler, TrainConfig

_UNMEASURED = {
    "halo": 48,
    "window": 512,
    "back_project": True,
    "gate_gain": 1.0,
    "sharpen": 1.0,
    "sampler": SamplerConfig(
        "better-start", steps=2, sigma_start=0.02, sigma_full=0.3, sigma_min=0.006, sigma_max=20.0, rho=7.0
    ),
}
"""How a compact model is used unless [inference] says otherwise: to be measured again on each trained model."""


def new_denoiser(config: TrainConfig, bands: tuple[str, ...], classes: tuple[str, ...]) -> Denoiser:
    """A denoiser in float32 on the CPU: fresh weights drawn from the seed, or those of [model] init.

    Its ``config`` is what config.json of the trained model says; what `init` says of its use is taken over.

    Raises:
        ModelError: options that make no network; an `init` that is unknown or made otherwise, with the settings that
            would fit it.
    """
    torch.manual_seed(config.training.seed)
    described = _described(config, bands, classes)
    if not config.model.init:
        return build_denoiser(_used_as(described, config.inference)).requires_grad_(True)
    folder = resolve_model(config.model.init)
    before = read_config(folder)
    _check_same(folder, before, described)
    use = {key: getattr(before, key) for key in INFERENCE_KEYS if key != "scales" and hasattr(before, key)}
    init = Init(str(config.model.init), model_digest(folder))
    denoiser = build_denoiser(_used_as(replace(described, **use, init=init), config.inference))
    state = {name: value.float() for name, value in read_weights(folder).items()}
    match_weights(denoiser.network, state, folder)
    denoiser.network.load_state_dict(state)
    return denoiser.requires_grad_(True)


def _described(config: TrainConfig, bands: tuple[str, ...], classes: tuple[str, ...]) -> ModelConfig:
    """The model that a configuration asks for, used as one that nobody has measured yet."""
    model = config.model
    shared: dict[str, Any] = {"bands": bands, "classes": classes, "sigma_data": model.sigma_data}
    if model.architecture == "published":
        return decode_config({"img_channels": len(bands), **shared, **model.published}, "model.published")
    scales = config.samples.factors()
    fresh = CompactConfig(
        **shared,
        optional_bands=tuple(band for band in bands if band == "nir"),
        network=CompactSize(**{item.name: getattr(model, item.name) for item in fields(CompactSize)}),
        scales=tuple(range(scales[0], scales[-1] + 1)),
        **_UNMEASURED,
    )
    return _used_as(fresh, _as_looked_at(config)) if config.perception.active else fresh


def _as_looked_at(config: TrainConfig) -> Inference:
    """How a model is used whose starts, or samples by one evaluation, were trained for what they look like."""
    sampler: Sampler = {"steps": 0}
    if config.perception.sample:
        sampler = {"steps": 1, "sigma_start": config.perception.sigma}
    return {"gate_gain": 0.0, "sharpen": 0.0, "sampler": sampler}


def _used_as(described: ModelConfig, use: Inference) -> ModelConfig:
    """A model's config with what is said of its use.

    Raises:
        ModelError: a setting that models of its architecture do not have.
    """
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in use.items() if key != "sampler"}
    strange = sorted(given.keys() - {item.name for item in fields(described)})
    if strange:
        raise ModelError(f"inference.{strange[0]}: a {described.architecture} model has no such setting")
    return replace(described, sampler=replace(described.sampler, **use.get("sampler", {})), **given)


def _check_same(folder: Path, before: ModelConfig, now: ModelConfig) -> None:
    """Whether a model can be trained on under a configuration."""
    old, new = _shape_of(before), _shape_of(now)
    differing = [key for key in new if old.get(key, new[key]) != new[key]]
    if not differing:
        return
    fits = ", ".join(f"{key} = {old[key]!r} (not {new[key]!r})" for key in differing)
    raise ModelError(f"{folder} cannot be trained on here: it has {fits}; give a config and data that fit it")


def _shape_of(config: ModelConfig) -> dict[str, Any]:
    """What makes two models' weights exchangeable, by the names that a training config gives it."""
    shape: dict[str, Any] = {"model.architecture": config.architecture, "bands": list(config.bands)}
    if config.classes:
        shape["classes"] = list(config.classes)
    shape["model.sigma_data"] = config.sigma_data
    if isinstance(config, CompactConfig):
        return shape | {f"model.{key}": value for key, value in plain(config.network).items()}
    return shape | {f"model.published.{key}": getattr(config, key) for key in ("img_resolution", "model_channels")}
