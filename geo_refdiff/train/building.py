"""From the configuration to the network, and to the config.json of its model folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
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
from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.errors import ModelError
from geo_refdiff.nn.compact import CompactSize
from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA
from geo_refdiff.train.config import INFERENCE_KEYS, TrainConfig, merged

_NETWORK = tuple(asdict(CompactSize()))
_INFERENCE: dict[str, Any] = {
    "halo": 48,
    "window": 512,
    "overlap": 32,
    "back_project": True,
    "psf_sigma": DEFAULT_PSF_SIGMA,
    "detail": 0.5,
    "gate_gain": 1.0,
    "sharpen": 1.0,
    "sampler": {
        "name": "better-start",
        "steps": 2,
        "sigma_start": 0.02,
        "sigma_full": 0.3,
        "sigma_min": 0.006,
        "sigma_max": 20.0,
        "rho": 7.0,
    },
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
        denoiser = build_denoiser(merged(described, config.inference))
    else:
        folder = resolve_model(config.model.init)
        before = read_config(folder)
        _check_same(folder, before, described)
        use = {key: before[key] for key in INFERENCE_KEYS if key in before and key != "scales"}
        denoiser = build_denoiser(merged(described | use, config.inference))
        state = {name: value.float() for name, value in read_weights(folder).items()}
        match_weights(denoiser.network, state, folder)
        denoiser.network.load_state_dict(state)
        denoiser.config["init"] = {"model": str(config.model.init), "sha256": model_digest(folder)}
    return denoiser.requires_grad_(True)


def _described(config: TrainConfig, bands: tuple[str, ...], classes: tuple[str, ...]) -> dict[str, Any]:
    model = config.model
    shared = {"architecture": model.architecture, "bands": list(bands), "classes": list(classes)}
    if model.architecture == "published":
        return {**shared, "img_channels": len(bands), "sigma_data": model.sigma_data, **model.published}
    scales = config.samples.factors()
    return {
        **shared,
        "optional_bands": [band for band in bands if band == "nir"],
        "network": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(model).items()
            if key in _NETWORK
        },
        "scales": list(range(scales[0], scales[-1] + 1)),
        "sigma_data": model.sigma_data,
        **(merged(_INFERENCE, _as_looked_at(config)) if config.perception.active else _INFERENCE),
    }


def _as_looked_at(config: TrainConfig) -> dict[str, Any]:
    """How a model is used whose starts, or samples by one evaluation, were trained for what they look like."""
    sampler = {"steps": 1, "sigma_start": config.perception.sigma} if config.perception.sample else {"steps": 0}
    return {"gate_gain": 0.0, "sharpen": 0.0, "sampler": sampler}


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Whether a model can be trained on under a configuration."""
    old, new = _shape_of(before), _shape_of(now)
    differing = [key for key in new if old.get(key, new[key]) != new[key]]
    if not differing:
        return
    fits = ", ".join(f"{key} = {old[key]!r} (not {new[key]!r})" for key in differing)
    raise ModelError(f"{folder} cannot be trained on here: it has {fits}; give a config and data that fit it")


def _shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two models' weights exchangeable, by the names that a training config gives it."""
    architecture = config.get("architecture", "published")
    found = {"model.architecture": architecture, "bands": config.get("bands"), "classes": config.get("classes")}
    found["model.sigma_data"] = float(config.get("sigma_data", 0.5))
    if architecture == "compact":
        size = asdict(CompactSize()) | dict(config["network"])
        found |= {f"model.{key}": list(v) if isinstance(v, list | tuple) else v for key, v in size.items()}
    else:
        found |= {f"model.published.{k}": config[k] for k in ("img_resolution", "model_channels") if k in config}
    return {key: value for key, value in found.items() if value is not None}
