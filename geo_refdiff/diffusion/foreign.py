"""Import of a published checkpoint: a torch.save file of pickled modules, read without running anything in it.

A published file holds {'ema': module, 'net': module, 'step': ...}, each module pickled as a call of
``torch_utils.persistence._reconstruct_persistent_obj`` with {type, version, module_src, class_name, state}.
module_src is source code that a plain unpickle would execute. Here ``torch.load(weights_only=True)`` reads the file,
which knows tensors and plain containers; every other name is an inert stand-in that keeps its arguments. Tensors
come from walking `state`.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geo_refdiff.diffusion.checkpoint import build_denoiser, match_weights, save_model
from geo_refdiff.diffusion.config import ImportSource, PublishedConfig, decode_config
from geo_refdiff.errors import ModelError, OutputError
from geo_refdiff.raster.gdal import one_line

_PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
_BRANCHES = ("ema", "net", "model", "state_dict")
_EXPECTED = (
    "expected is a file of torch.save (1.6 or newer) with the published Ref-Diff network, as a module or as a "
    "dictionary of its tensors (map_layer0.weight, enc.256x256_conv.weight, ...), by itself or under one of the keys "
    + ", ".join(_BRANCHES)
)
_STACK = 256 * 2**20
"""Bytes, of which the system gives what is used."""

_MAX_DEPTH = 32
_MAX_MODULES = 100_000
_FIXED = {"skip_scale": math.sqrt(0.5), "num_heads": 1, "adaptive_scale": False}
"""Block settings that leave no trace in a tensor's shape, and the values that the published network has."""


class Inert:
    """Stands for what a file asks for by a name that torch does not know: keeps arguments and state, does nothing."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Inert:
        """Whether the file calls the name or makes an object of it."""
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a torch.save file holds: tensors, plain containers and `Inert` stand-ins.

    Attributes:
        path: of the file.
        content: its object.
        unsafe_globals: names that it refers to beside those that torch takes for harmless.
    """

    path: Path
    content: Any
    unsafe_globals: tuple[str, ...]


def load_inert(path: str | Path) -> Foreign:
    """Read a file of torch.save; nothing in it is imported or called.

    Raises:
        ModelError: missing, damaged, or not of torch.save (1.6 or newer); names what it would have called.
    """
    path = Path(path)
    if path.is_dir():
        raise ModelError(f"{path}: is a folder; a model folder needs no import, give it to --model as it is")
    unsafe_globals: tuple[str, ...] = ()
    try:
        _check_archive(path)
        unsafe_globals = tuple(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
        return Foreign(path, _load(path, unsafe_globals), unsafe_globals)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    except ModelError:
        raise
    except Exception as error:  # whatever bytes make torch and zipfile stumble over
        reason = _not_executed(unsafe_globals) or f": {one_line(error)}"
        raise ModelError(f"{path} is damaged, or no model file{reason}") from error


def _check_archive(path: Path) -> None:
    """Whether it is a zip file as torch.save writes it, stored as it is: nothing grows when it is read."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            raise ModelError(
                f"{path}: not a file from torch.save, or one of torch before 1.6 (which has to be saved again)"
            )
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if not any(info.filename.endswith("data.pkl") for info in members):
            raise ModelError(f"{path}: a zip file, but not one from torch.save: it has no data.pkl")
        for info in members:
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
                raise ModelError(f"{path}: its member {info.filename!r} is compressed or larger than the file")


def _load(path: Path, unsafe_globals: tuple[str, ...]) -> Any:
    """The file's object; on a thread whose stack outlasts tuples that are nested as deeply as the file is long."""
    stand_ins: list[Any] = [(type("Inert", (Inert,), {"name": name}), name) for name in unsafe_globals]
    outcome: list[Any] = []

    def run() -> None:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
                warnings.simplefilter("ignore")
                outcome.append((torch.load(path, map_location="cpu", weights_only=True), None))
        except Exception as error:
            outcome.append((None, error))

    before = threading.stack_size(_STACK)
    try:
        thread = threading.Thread(target=run, name="torch.load")
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    content, error = outcome[0]
    if error is not None:
        raise error
    return content


def read_foreign(path: str | Path) -> tuple[dict[str, Tensor], PublishedConfig]:
    """The network in a published file: its tensors by name (``model.enc....``), and a config that describes it.

    Raises:
        ModelError: the file is damaged, or holds no published network; says what is expected, what the file holds
            and what it would have called.
    """
    try:
        return _read(load_inert(path))
    except ModelError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise ModelError(f"{error}; {_EXPECTED}") from error


def _read(file: Foreign) -> tuple[dict[str, Tensor], PublishedConfig]:
    branch, root = _branch(file.content)
    tensors = dict(_tensors(root))
    anchor = [name for name in tensors if name.endswith("map_layer0.weight")]
    if len(anchor) != 1:
        raise ModelError(
            f"{file.path} holds no published network, but {_contents(file.content)}{_not_executed(file.unsafe_globals)}"
        )
    prefix = anchor[0].removesuffix("map_layer0.weight")
    state = {
        "model." + name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > 4 * file.path.stat().st_size:
        raise ModelError(f"{file.path}: its tensors are larger together than the file itself")
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    step = file.content.get("step") if isinstance(file.content, dict) else None
    provenance = ImportSource(file.path.name, _sha256(file.path), branch, step if isinstance(step, int) else None)
    return state, replace(_config(state, root, file.path), provenance=provenance)


def import_published(path: str | Path, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model folder (config.json, model.safetensors, README.md) from a published file; the folder's path.

    Raises:
        ModelError: see `read_foreign`.
        OutputError: the folder holds something already and `overwrite` is not set, or cannot be written.
    """
    target = Path(folder)
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists already: choose another folder, or say --overwrite")
    state, config = read_foreign(path)
    return save_model(target, config, state, _card(config, state), shard_bytes=None)


def _branch(content: Any) -> tuple[str, Any]:
    """The part of the file that holds the network, averaged weights first."""
    if isinstance(content, dict):
        for name in _BRANCHES:
            if isinstance(content.get(name), dict | Inert):
                return name, content[name]
    return "", content


def _state(pickled: Any) -> dict[Any, Any]:
    """The attributes that a pickled object would have been given; {} for anything else."""
    if not isinstance(pickled, Inert):
        return {}
    if getattr(pickled, "name", "") == _PERSISTENT and pickled.args:
        meta = pickled.args[0]
        state = meta.get("state") if isinstance(meta, dict) else None
    else:
        state = pickled.state
    return state if isinstance(state, dict) else {}


def _modules(root: Any) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Name prefix and attributes of each module below `root`, itself first."""
    waiting: list[tuple[str, int, Any]] = [("", 0, root)]
    for _ in range(_MAX_MODULES):
        if not waiting:
            return
        prefix, depth, pickled = waiting.pop()
        state = _state(pickled)
        yield prefix, state
        children = state.get("_modules")
        if isinstance(children, dict):
            if depth >= _MAX_DEPTH:
                raise ModelError("its modules are nested too deeply for a network")
            named = [(key, child) for key, child in children.items() if isinstance(key, str)]
            waiting.extend((f"{prefix}{key}.", depth + 1, child) for key, child in reversed(named))
    raise ModelError("it holds too many modules for a network")


def _tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by their dotted names, from pickled modules or from a plain state dict."""
    if isinstance(root, dict):
        yield from ((key, value) for key, value in root.items() if isinstance(key, str) and isinstance(value, Tensor))
        return
    for prefix, state in _modules(root):
        for kind in ("_parameters", "_buffers"):
            tensors = state.get(kind)
            if isinstance(tensors, dict):
                for key, value in tensors.items():
                    if isinstance(key, str) and isinstance(value, Tensor):
                        yield prefix + key, value


def _config(state: Mapping[str, Tensor], root: Any, path: Path) -> PublishedConfig:
    """From the tensors' names and shapes; what these do not determine comes from the modules' attributes."""
    attributes = {} if isinstance(root, dict) else dict(_modules(root))
    try:
        config = decode_config(_sizes(state), "its sizes")
        with torch.device("meta"):  # names and shapes alone
            network = build_denoiser(config).network
    except (ModelError, KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ModelError(f"{path} holds a network of another kind: {one_line(error)}") from error
    assert isinstance(config, PublishedConfig)
    match_weights(network, state, path)
    for name, value in state.items():
        if name.endswith("resample_filter") and not bool((value == 0.25).all()):
            raise ModelError(f"{path} holds a network of another kind: {name} is no box filter")
    for prefix, settings in attributes.items():
        for key, published in _FIXED.items():
            value = settings.get(key, published)
            if (
                "affine" in (settings.get("_modules") or {})
                and value != published
                and not (key == "num_heads" and value == 0)
            ):
                raise ModelError(f"{path} holds a network of another kind: {prefix}{key} is {_plain(value)}")
        if isinstance(rate := settings.get("dropout"), float) and 0.0 <= rate < 1.0:
            config = replace(config, dropout=rate)
    sigma = attributes.get("", {}).get("sigma_data")
    if isinstance(sigma, int | float) and not isinstance(sigma, bool) and 0 < sigma <= 1e6:
        config = replace(config, sigma_data=float(sigma))
    return config


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The published settings that follow from the tensors' names and shapes."""
    entry = re.compile(r"model\.enc\.(\d{1,5})x\1_(conv|block(\d{1,3})\.conv0)\.weight")
    parts = [(match, tensor) for name, tensor in state.items() if (match := entry.fullmatch(name))]
    stem = [(int(match[1]), tensor) for match, tensor in parts if match[2] == "conv"]
    blocks = {(int(match[1]), int(match[3])): tensor for match, tensor in parts if match[3]}
    if len(stem) != 1 or not blocks:
        raise ValueError("its encoder has no first convolution or no blocks")
    resolution, width = stem[0][0], stem[0][1].shape[0]
    sizes = sorted({size for size, _ in blocks}, reverse=True)
    attention = [size for size in sizes if f"model.enc.{size}x{size}_block0.qkv.weight" in state]
    return {
        "img_resolution": resolution,
        "img_channels": state[f"model.dec.{resolution}x{resolution}_aux_conv.weight"].shape[0],
        "model_channels": width,
        "channel_mult": [blocks[size, 0].shape[0] // width for size in sizes],
        "num_blocks": 1 + max(index for _, index in blocks),
        "attn_resolutions": attention,
    }


def _contents(content: Any) -> str:
    """What a file holds, for the error message."""
    if isinstance(content, Inert):
        return f"an object of {_plain(getattr(content, 'name', 'a class'))}"
    if not isinstance(content, dict):
        return _plain(content)
    keys = [_plain(key) for key in list(content)[:4]] + (["..."] if len(content) > 4 else [])
    return f"a dictionary of {', '.join(keys)}" if keys else "an empty dictionary"


def _not_executed(unsafe_globals: tuple[str, ...]) -> str:
    """What the file would have called, for the error message."""
    names = [name for name in unsafe_globals if name != _PERSISTENT]
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" (it refers to {', '.join(_plain(name) for name in names[:3])}{more}; nothing in it was executed)"


def _plain(value: Any) -> str:
    """A short printable form of a foreign value."""
    if isinstance(value, str | int | float):
        return "".join(char if char.isprintable() else "?" for char in str(value)[:80])
    return f"a {type(value).__name__}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _card(config: PublishedConfig, state: Mapping[str, Tensor]) -> str:
    count = sum(value.numel() for name, value in state.items() if not name.endswith("resample_filter"))
    source = config.provenance
    assert source is not None
    dtypes = ", ".join(
        sorted({str(value.dtype).removeprefix("torch.") for value in state.values()} - {"", str(torch.bool)})
    )
    return f"""# {source.file}, imported

The published Ref-Diff network (Dong et al., CVPR 2024), read from `{source.file}` without running anything in it.

- SHA-256 of the source: `{source.sha256}`; part: `{source.branch or "whole file"}`
- {count:,} parameters, {dtypes}
- Bands: {", ".join(config.bands)}, trained on windows of {config.img_resolution} pixels
- The change mask goes in as class index / 255, 0 = no change
- The weights stay under the terms of whoever published them; importing changes nothing about that.
"""
