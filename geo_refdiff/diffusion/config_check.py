"""Whether a model's config.json says what can be: numbers within bounds, names that can be printed, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from geo_refdiff.errors import ModelError

_MOST_PIXELS = 8192
_MOST_CHANNELS = 1 << 16

_WHOLE = {"halo": 0, "window": 1, "overlap": 0, "img_channels": 1, "img_resolution": 1}
"""Least value of each; the most is a window's or a layer's."""

_NUMBERS = {"psf_sigma": (0.0, 4.0), "detail": (0.0, 1.0), "gate_gain": (0.0, 1e3), "sharpen": (0.0, 1e3)}

_LEVELS = ("sigma_min", "sigma_max", "sigma_start", "sigma_full", "rho")

_SIZES = {"unshuffle": 64, "full_width": _MOST_CHANNELS, "hidden": _MOST_CHANNELS, "embedding": _MOST_CHANNELS}
"""Largest value of each of a compact network's sizes."""

_FLAGS = ("texture", "ref", "mask", "ref_sft", "semantic_sft")
_MOST_LEVELS = 8
_MOST_SCALE = 64
_LONGEST = 40


def check_config(config: Mapping[str, Any]) -> None:
    """Check what is there; what is absent has a default, or is asked for by what needs it.

    Raises:
        ModelError: names the key and its value.
    """
    for key, least in _WHOLE.items():
        if key in config:
            _claim(_whole(config[key], least, max(_MOST_PIXELS, _MOST_CHANNELS)), key, config[key], "a whole number")
    if config.get("receptive_field") is not None:
        _claim(_whole(config["receptive_field"], 0, 1 << 20), "receptive_field", config["receptive_field"], "pixels")
    for key, (low, high) in _NUMBERS.items():
        if key in config:
            _claim(_number(config[key], low, high), key, config[key], f"a number from {low:g} to {high:g}")
    for key in ("bands", "classes", "optional_bands"):
        _claim(_names(config.get(key) or []), key, config.get(key), "a list of different names")
    if config.get("architecture") == "compact":
        for key in ("bands", "classes"):
            _claim(key not in config or bool(config[key]), key, config.get(key), "a list of one name or more")
    if "sigma_data" in config:
        _claim(_positive(config["sigma_data"]), "sigma_data", config["sigma_data"], "a positive number")
    scales = config.get("scales") or []
    sound = isinstance(scales, list | tuple) and all(_whole(s, 1, _MOST_SCALE) for s in scales)
    _claim(sound, "scales", scales, f"a list of whole numbers from 1 to {_MOST_SCALE}")
    _check_sampler(config.get("sampler") or {})
    if config.get("architecture") == "compact" and isinstance(config.get("network"), Mapping):
        _check_sizes(config["network"])


def _check_sampler(block: Any) -> None:
    _claim(isinstance(block, Mapping), "sampler", block, "an object")
    name = block.get("name") or ""
    _claim(isinstance(name, str) and len(name) <= _LONGEST and name.isprintable(), "sampler.name", name, "a name")
    for key in _LEVELS:
        if key in block:
            _claim(_positive(block[key]), f"sampler.{key}", block[key], "a positive number")
    for key in ("S_churn", "S_min", "S_max", "S_noise"):
        if key in block:
            _claim(_number(block[key], 0.0, inf), f"sampler.{key}", block[key], "a number of 0 or more")
    if block.get("steps") is not None:
        _claim(_whole(block["steps"], 0, 1000), "sampler.steps", block["steps"], "a whole number from 0 to 1000")


def _check_sizes(network: Mapping[str, Any]) -> None:
    if "widths" in network:
        widths = network["widths"]
        sound = isinstance(widths, list | tuple) and all(_whole(w, 1, _MOST_CHANNELS) for w in widths)
        _claim(sound and 1 <= len(widths) <= _MOST_LEVELS, "network.widths", widths, "a list of whole numbers")
    for key, most in _SIZES.items():
        if key in network:
            _claim(_whole(network[key], 1, most), f"network.{key}", network[key], f"a whole number from 1 to {most}")
    for key in _FLAGS:
        if key in network:
            _claim(isinstance(network[key], bool), f"network.{key}", network[key], "true or false")


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _positive(value: Any) -> bool:
    return _number(value, 0.0, 1e6) and value > 0


def _names(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v and v.isprintable() for v in value):
        return False
    return len(set(value)) == len(value) <= _MOST_CHANNELS


def _claim(holds: bool, key: str, value: Any, wanted: str) -> None:
    if not holds:
        text = repr(value)
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise ModelError(f"the model's config has {key} = {shown}; it must be {wanted}")
