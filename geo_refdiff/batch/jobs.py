"""Records of a batch: what it chooses from, its settings, one job an area, and what became of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from geo_refdiff.errors import GeoRefDiffError, InputError
from geo_refdiff.options import AUTO, Sources
from geo_refdiff.products.stac_item import item_file
from geo_refdiff.raster.clouds import NamedLayer
from geo_refdiff.raster.gdal import is_gdal_name
from geo_refdiff.raster.vector import layer_source

VERSION = 1

_FILES = ("class_map", "mask_confidence", "like")
_WORDS = ("auto", "none")
"""What a mask may be beside a file."""

Stamp = tuple[str, int, int]
"""A local file, its bytes, and its time of change in ns."""

Kind = Literal["done", "area", "worker", "busy"]


class UnfitError(GeoRefDiffError):
    """A worker cannot do what others could: it does not see the inputs or the folder, or has another model."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all jobs of a batch share; kept in batch/batch.json for as long as the batch lives.

    Attributes:
        options: of `upscale`: scale, model and so on.
        rules: how inputs are chosen, see `choice_rules`.
        model_sha256: of the model's files, "" for a classical one.
        threads: that torch computes with; they move the last bits of convolutions.
        software: versions of what computes pixels; workers must have the same.
        replace: whether outputs that are there, of other inputs or options, are replaced.
        version: of this record.
    """

    options: dict[str, Any]
    rules: dict[str, Any]
    model_sha256: str
    threads: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    software: dict[str, str] = {}
    replace: bool = False
    version: int = VERSION


class Job(msgspec.Struct, frozen=True):
    """One area: all that a worker is sent.

    Attributes:
        folder: of the outputs, absolute.
        settings: of the batch.
        name: of the area; the output is called so.
        area: as `upscale --aoi` takes it.
        scene, reference, mask: files, GDAL names or, for the mask, "auto" and "none".
        stamps: of the local files among them.
        blocks: of the output.
        taken: date of the scene, as `upscale --scene-date` takes it; None: unknown.
        without: options of the batch that do not go for this area.
    """

    folder: str
    settings: Settings
    name: str
    area: str
    scene: str
    reference: str | None
    mask: str | None
    stamps: tuple[Stamp, ...]
    blocks: int = 1
    taken: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of some work.

    Attributes:
        name: of the area.
        kind: "done"; "area": it cannot be done; "worker": it cannot be done here; "busy": another process is at it.
        error: one line, "" if done.
        seconds: it took here.
        result: `Figures` of an area, `RunCounts` of blocks.
        notes: of the run.
        worker: "host:pid".
    """

    name: str
    kind: Kind
    error: str = ""
    seconds: float = 0.0
    result: Any = None
    notes: tuple[str, ...] = ()
    worker: str = ""


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as JSON knows them; folders of models and files by their full path, which workers elsewhere need."""
    plain: dict[str, Any] = {
        k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for k, v in options.items()
    }
    model = plain.get("model")
    if isinstance(model, str) and Path(model).expanduser().is_dir():
        plain["model"] = str(Path(model).expanduser().absolute())
    for key in _FILES:
        file = plain.get(key)
        if isinstance(file, str) and Path(file).expanduser().exists():
            plain[key] = str(Path(file).expanduser().absolute())
    layer = NamedLayer.of(str(plain.get("cloud_mask", AUTO)))
    if Path(layer.path).expanduser().exists():
        plain["cloud_mask"] = str(replace(layer, path=str(Path(layer.path).expanduser().absolute())))
    return {k: v for k, v in plain.items() if v is not None}


def files_of(options: Mapping[str, Any]) -> list[str]:
    """The local files that options name."""
    plain = plain_options(options)
    named = [plain[key] for key in _FILES if key in plain] + [NamedLayer.of(plain.get("cloud_mask", AUTO)).path]
    return [name for name in named if Path(name).is_absolute() and not is_gdal_name(name)]


def stamps_of(files: Sequence[str | None]) -> tuple[Stamp, ...]:
    """Size and time of the local files among some names.

    Raises:
        InputError: one that was there is gone.
    """
    stamps = []
    for file in dict.fromkeys(f for f in files if f):
        name = item_file(layer_source(file).path)
        if is_gdal_name(name) or name in _WORDS:
            continue
        try:
            state = os.stat(name)
        except OSError as error:
            raise InputError(f"{name}: {error.strerror}; fetch it again, or leave it out") from error
        stamps.append((name, state.st_size, state.st_mtime_ns))
    return tuple(stamps)


def changed_inputs(job: Job) -> Iterator[str]:
    """What is wrong with the inputs as this process sees them, one line each."""
    for name, size, mtime in job.stamps:
        try:
            state = os.stat(name)
        except OSError as error:
            yield f"{name}: {error.strerror}"
            continue
        if (state.st_size, state.st_mtime_ns) != (size, mtime):
            yield f"{name}: was changed after the batch began"
        elif not os.access(name, os.R_OK):
            yield f"{name}: no permission to read it"


def choice_rules(sources: Sources) -> dict[str, Any]:
    """How a batch chooses, as arguments: files may join a folder or an index, but not another source."""
    named = {"scene": sources.scenes, "ref": sources.references, "mask": sources.masks}
    rest = msgspec.structs.asdict(sources)
    return {key: sorted({_absolute(v) for v in given}) for key, given in named.items()} | {
        key: rest[key] for key in ("scene_asset", "ref_asset", "mask_asset", "date", "ref_before")
    }


def _absolute(source: str) -> str:
    name, bar, layer = source.partition("|")
    path = Path(name).expanduser()
    return f"{path.absolute()}{bar}{layer}" if path.exists() else source
