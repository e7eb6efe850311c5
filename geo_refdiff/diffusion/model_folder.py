"""Model folders on disk: config.json, weights as safetensors in one file or in shards, README.md (model card).

No code in weights: a model is numbers and JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from geo_refdiff.diffusion.config import ModelConfig, decode_config
from geo_refdiff.diffusion.remote import INDEX, fetch_model, is_model_url
from geo_refdiff.errors import ModelError, OutputError
from geo_refdiff.raster.files import write_bytes_atomic, write_json_atomic
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.records import plain

SHARD_BYTES = 15_000_000
"""A saved weights file stays under 16 MB: larger models are cut into shards."""
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")


def resolve_model(name_or_path: str | Path) -> Path:
    """The folder of a bundled model's name, of a path to a model folder, or of a URL (see `remote`).

    Raises:
        ModelError: lists the bundled names; a URL: see `fetch_model`.
    """
    if is_model_url(name_or_path):
        return fetch_model(str(name_or_path)).folder
    bundled = bundled_models()
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    path = Path(name_or_path).expanduser()
    if (path / "config.json").is_file():
        return path
    if path.is_dir():
        of_run = path / "model"
        way_out = f"; give {of_run}" if (of_run / "config.json").is_file() else ""
        raise ModelError(f"{path} is no model folder: it has no config.json{way_out}")
    names = ", ".join(sorted(bundled)) or "none"
    raise ModelError(f"unknown model {str(name_or_path)!r}: give a model folder, a URL or a bundled name ({names})")


def bundled_models() -> dict[str, Path]:
    """Names and folders of the models that come with the package."""
    root = Path(str(resources.files("geo_refdiff.models")))
    return {entry.parent.name: entry.parent for entry in sorted(root.glob("*/config.json"))}


def read_config(folder: Path) -> ModelConfig:
    """config.json of a model folder.

    Raises:
        ModelError: missing, unreadable, or not the config of a model that this package knows.
    """
    return decode_config(read_json(folder), str(folder / "config.json"))


def read_json(folder: Path) -> dict[str, Any]:
    """config.json of a folder as it is written (ModelError where it is missing or no JSON object)."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder} is no model folder: it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds a {type(config).__name__}, not an object")
    return config


def weight_files(folder: Path) -> list[Path]:
    """The weights files of a model folder, in the order in which they are read (ModelError where one is missing)."""
    for name in ("weights.safetensors", "model.safetensors"):
        if (folder / name).is_file():
            return [folder / name]
    shards = [entry.name for entry in folder.glob("model-*.safetensors") if _SHARD.fullmatch(entry.name)]
    if not shards:
        raise ModelError(f"{folder} has no weights: no weights.safetensors, no model.safetensors and no shards of it")
    counts = {int(name[15:20]) for name in shards}
    if len(counts) > 1:
        raise ModelError(f"{folder} holds shards of different models: of {sorted(counts)} files")
    count = counts.pop()
    names = [f"model-{index:05d}-of-{count:05d}.safetensors" for index in range(1, count + 1)]
    for name in names:
        if name not in shards:
            raise ModelError(f"{folder} lacks the shard {name}")
    return [folder / name for name in names]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model folder, on the CPU, in the dtype in which they are stored."""
    state: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            state.update(load_file(path))
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise ModelError(f"{path} is no intact safetensors file: {one_line(error)}") from error
    return state


def model_digest(folder: str | Path) -> str:
    """SHA-256 of a model, hex, over config.json and the weights in order.

    The same as ``cat config.json model*.safetensors | sha256sum`` in its folder.
    """
    path = resolve_model(folder)
    digest = hashlib.sha256()
    for part in (path / "config.json", *weight_files(path)):
        try:
            with part.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise ModelError(f"{part} cannot be read: {one_line(error)}") from error
    return digest.hexdigest()


def save_model(
    folder: str | Path,
    config: Any,
    state_dict: Mapping[str, Tensor],
    card: str,
    *,
    shard_bytes: int | None = SHARD_BYTES,
) -> Path:
    """Write a model folder: weights, README.md, config.json, each file complete or not at all.

    Args:
        folder: made if it is missing; an earlier model in it is replaced.
        config: the record of a model, see `ModelConfig`, or a detector's.
        state_dict: the network's tensors (of ``denoiser.network``), kept in their dtypes.
        card: text of README.md.
        shard_bytes: weights larger than this are cut into several files; None = one file.

    Raises:
        OutputError: where the folder cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the model folder {path} cannot be made: {error.strerror or error}") from error
    state = {key: value.detach().cpu().contiguous().clone() for key, value in sorted(state_dict.items())}
    parts = _shards(state, shard_bytes)
    written = set()
    for index, part in enumerate(parts, start=1):
        single = len(parts) == 1
        name = "model.safetensors" if single else f"model-{index:05d}-of-{len(parts):05d}.safetensors"
        try:
            write_bytes_atomic(path / name, save(part, metadata={"format": "pt"}))
        except SafetensorError as error:
            raise OutputError(f"{path / name}: cannot be written: {one_line(error)}; check the disk") from error
        written.add(name)
    write_bytes_atomic(path / "README.md", card.encode())
    if len(parts) > 1:  # as others name the shards, so that a folder can be fetched by its URL
        files = {
            key: f"model-{n:05d}-of-{len(parts):05d}.safetensors" for n, part in enumerate(parts, 1) for key in part
        }
        write_json_atomic(path / INDEX, {"metadata": {}, "weight_map": files})
    write_json_atomic(path / "config.json", plain(config))
    stale_index = [] if len(parts) > 1 else [path / INDEX]
    for stale in (path / "weights.safetensors", *path.glob("model*.safetensors"), *stale_index):
        if stale.name not in written:
            stale.unlink(missing_ok=True)
    return path


def _shards(state: Mapping[str, Tensor], limit: int | None) -> list[dict[str, Tensor]]:
    parts: list[dict[str, Tensor]] = [{}]
    filled = 0
    for key, value in state.items():
        if parts[-1] and limit is not None and filled + value.nbytes > limit:
            parts.append({})
            filled = 0
        parts[-1][key] = value
        filled += value.nbytes
    return parts
