"""Checkpoints: from a model folder to a denoiser, and back.

Weights are numbers and config.json is data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geo_refdiff.diffusion.config import CompactConfig, ModelConfig, decode_config
from geo_refdiff.diffusion.denoiser import Denoiser, wrap_network
from geo_refdiff.diffusion.model_folder import (
    bundled_models,
    model_digest,
    read_config,
    read_weights,
    resolve_model,
    save_model,
    weight_files,
)
from geo_refdiff.errors import ModelError
from geo_refdiff.nn.compact import CompactNet
from geo_refdiff.nn.published import PublishedUNet
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.records import plain

__all__ = [
    "build_denoiser",
    "bundled_models",
    "decode_config",
    "describe_model",
    "load_denoiser",
    "match_weights",
    "model_digest",
    "read_config",
    "read_weights",
    "resolve_model",
    "save_model",
]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def load_denoiser(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Denoiser:
    """Load a model as a denoiser in eval mode, called as ``denoiser(x, sigma, lr, ref, mask)``, all (N, C, H, W).

    Args:
        folder: name of a bundled model, or a folder with config.json and weights.safetensors, model.safetensors or
            model-0000i-of-0000n.safetensors.
        device: where the network runs.
        dtype: in which the network's layers compute (float32, bfloat16); weights, images and preconditioning stay in
            float32 at least.

    Raises:
        ModelError: in one line, on a missing, damaged or mismatching file.
    """
    path = resolve_model(folder)
    if dtype not in _DTYPES:
        raise ModelError(f"a model cannot run in {dtype}: choose float32 or bfloat16")
    config = read_config(path)
    kept = torch.promote_types(dtype, torch.float32)
    state = {key: _number_like(value, key, path).to(kept) for key, value in read_weights(path).items()}
    with torch.device("meta"):  # without memory: a wrong config may ask for any amount
        denoiser = build_denoiser(config)
    match_weights(denoiser.network, state, path)
    if any(True for _ in denoiser.network.buffers()):  # numbers that are no weights
        with torch.random.fork_rng(devices=[]):  # fresh weights draw some; the caller's generator stays as it is
            denoiser = build_denoiser(config)
    denoiser.network.load_state_dict(state, strict=True, assign=True)
    denoiser.compute_dtype = None if dtype == kept else dtype
    return denoiser.to(device).eval().requires_grad_(False)


def _number_like(value: Tensor, key: str, folder: Path) -> Tensor:
    if value.is_complex() or (value.is_floating_point() and not bool(torch.isfinite(value.float()).all())):
        raise ModelError(f"the weights in {folder} are damaged: {key} holds NaN or worse; fetch them again")
    return value


def build_denoiser(config: ModelConfig) -> Denoiser:
    """The denoiser that a config describes, with fresh weights.

    Raises:
        ModelError: no network can be made of its sizes.
    """
    try:
        return wrap_network(_build_network(config), config)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        reason = f"no {config.architecture} network can be made from the model's config"
        raise ModelError(f"{reason}: {type(error).__name__} {one_line(error)}") from error


def _build_network(config: ModelConfig) -> nn.Module:
    if isinstance(config, CompactConfig):
        return CompactNet(
            len(config.bands),
            len(config.classes),
            config.network,
            copy_exponent=config.copy_exponent,
            receptive_field=config.receptive_field,
        )
    return PublishedUNet(
        config.img_resolution,
        config.img_channels,
        config.model_channels,
        config.channel_mult,
        config.num_blocks,
        config.attn_resolutions,
        config.dropout,
    )


def describe_model(folder: str | Path) -> dict[str, Any]:
    """What a model folder holds, without loading its weights: JSON-ready facts in reading order.

    Raises:
        ModelError: it is unknown or damaged.
    """
    path = resolve_model(folder)
    config = read_config(path)
    with torch.device("meta"):
        denoiser = build_denoiser(config)
    files = weight_files(path)
    return {
        "name": path.name,
        "folder": str(path),
        "architecture": config.architecture,
        "bands": list(config.bands),
        "classes": list(config.classes),
        "parameters": sum(value.numel() for value in denoiser.network.parameters()),
        "receptive_field": denoiser.receptive_field,
        "halo": denoiser.halo,
        "multiple": denoiser.multiple,
        "sampler": plain(config.sampler),
        "weights_bytes": sum(file.stat().st_size for file in files),
        "sha256": model_digest(path),
    }


def match_weights(network: nn.Module, state: Mapping[str, Tensor], folder: Path) -> None:
    """Check names and shapes of weights against the network's (ModelError names the first that do not fit)."""
    expected = network.state_dict()
    missing = [key for key in expected if key not in state]
    if missing:
        raise ModelError(f"the weights in {folder} do not fit the network: missing {_some(missing)}")
    unexpected = [key for key in state if key not in expected]
    if unexpected:
        raise ModelError(f"the weights in {folder} do not fit the network: unexpected {_some(unexpected)}")
    for key, value in expected.items():
        shape, needed = tuple(state[key].shape), tuple(value.shape)
        if shape != needed:
            raise ModelError(f"the weights in {folder} do not fit the network: {key} is {shape}, not {needed}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
