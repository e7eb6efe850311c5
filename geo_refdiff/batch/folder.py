"""The folder of a batch: held by one client, started over or continued only as asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from geo_refdiff.batch.areas import is_file_name
from geo_refdiff.batch.jobs import VERSION, Settings
from geo_refdiff.commands.products import product_path
from geo_refdiff.engine.rasters import UNCERTAINTY
from geo_refdiff.engine.shards import published_size
from geo_refdiff.errors import OutputError, ResumeError
from geo_refdiff.options import OutputOptions
from geo_refdiff.raster.files import held, is_filled, output_error, write_bytes_atomic
from geo_refdiff.signed_urls import unsigned

KEPT = "batch"
"""Folder, within that of the outputs, of what the batch itself needs."""

_SETTINGS = "batch.json"
_SHOWN = 6


class _Version(msgspec.Struct):
    """The version of a file of settings, whatever else it holds."""

    version: int


def is_batch(folder: Path) -> bool:
    """Whether a folder is that of a batch's outputs."""
    return (folder / KEPT / _SETTINGS).is_file()


def check_folder(folder: Path) -> None:
    """Whether a folder is missing, empty or that of a batch.

    Raises:
        OutputError: it holds somebody else's files.
    """
    if folder.exists() and not (folder / KEPT).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: holds other files; give an empty or a new folder for the batch's outputs")


@contextmanager
def held_folder(folder: Path) -> Iterator[None]:
    """Make the folder of a batch and hold it for this process.

    Raises:
        BusyError: another client holds it; names host and process.
        OutputError: it cannot be made, or holds somebody else's files.
    """
    kept = folder / KEPT
    check_folder(folder)
    try:
        kept.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    with held(kept / "lock", str(folder), "wait for it or choose another --out"):
        yield


def save_settings(folder: Path, settings: Settings, *, overwrite: bool) -> Settings:
    """Write down the settings to run with, `settled`, in a folder that is held.

    Raises:
        ResumeError: the batch that is there has others, which are named.
        OutputError: they cannot be written.
    """
    new = settled(folder, settings, overwrite=overwrite)
    write_bytes_atomic(folder / KEPT / _SETTINGS, msgspec.json.format(_saved(new)) + b"\n")
    return new


def settled(folder: Path, settings: Settings, *, overwrite: bool) -> Settings:
    """The settings to run with: these, but threads and `replace` of the batch that is there.

    Args:
        folder: of the batch.
        settings: of this run.
        overwrite: start over.

    Raises:
        ResumeError: the batch that is there has others, which are named.
    """
    path = folder / KEPT / _SETTINGS
    if overwrite or not path.exists():
        return settings
    old, new = _read(path, folder), msgspec.json.decode(_saved(settings), type=Settings)
    changed = [
        f"{key}: {_change(before.get(key), now.get(key))}"
        for before, now in ((old.options, new.options), (old.rules, new.rules))
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if old.model_sha256 != settings.model_sha256:
        changed.append("the model's files")
    if changed:
        raise _other(folder, "; ".join(changed[:_SHOWN]))
    return msgspec.structs.replace(settings, threads=old.threads, replace=old.replace)


def _saved(settings: Settings) -> bytes:
    """JSON, in which URLs are without signatures."""
    return unsigned(msgspec.json.encode(settings, order="sorted").decode()).encode()


def _read(path: Path, folder: Path) -> Settings:
    try:
        text = path.read_bytes()
        version = msgspec.json.decode(text, type=_Version).version
        if version != VERSION:
            raise _other(folder, f"format version: {version} -> {VERSION}")
        return msgspec.json.decode(text, type=Settings)
    except (OSError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise ResumeError(
            f"{path}: is damaged ({error}); start over with --overwrite, or choose another --out"
        ) from error


def _other(folder: Path, what: str) -> ResumeError:
    return ResumeError(
        f"{folder}: holds a batch of other settings: {what}; give the same, another --out, or --overwrite to start over"
    )


def _change(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list):  # what they share tells nothing
        old, new = [v for v in old if v not in new] or old, [v for v in new if v not in old] or new
    return f"{_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:16]}...{text[-41:]}"


def output_of(folder: str | Path, name: str, options: Mapping[str, Any]) -> Path:
    """Where the output of an area is: in the batch's folder, whatever the name; a VRT where it is cut into shards.

    Args:
        folder: of the batch.
        name: of the area.
        options: of `upscale`.

    Raises:
        ResumeError: the name is no plain file name.
    """
    if not is_file_name(name):
        raise ResumeError(f"'{name}' is no name of an area; the batch's files were tampered with")
    return Path(folder) / f"{name}.{'tif' if options.get('shard_size') is None else 'vrt'}"


def is_there(out: Path, options: Mapping[str, Any]) -> bool:
    """Whether an output is there, with all its shards, if it is cut into such, and the products beside it.

    Raises:
        OptionError: unknown products.
    """
    size = options.get("shard_size")
    if not is_filled(out) or (size is not None and published_size(out) != size):
        return False
    wanted = OutputOptions.among(options)
    products = (*wanted.products, *([UNCERTAINTY] if wanted.uncertainty else []))
    return all(is_filled(product_path(out, product)) for product in products)
