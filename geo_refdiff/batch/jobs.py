"""Jobs: what is to be done for each area, written down once; a worker gets a line's place and its SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from geo_refdiff.batch.manifest import as_json
from geo_refdiff.commands.products import product_path
from geo_refdiff.engine.run import UNCERTAINTY
from geo_refdiff.engine.shards import published_size
from geo_refdiff.errors import GeoRefDiffError, InputError, ResumeError
from geo_refdiff.options import OutputOptions
from geo_refdiff.raster.atomic import is_filled, write_bytes_atomic
from geo_refdiff.raster.gdal import is_gdal_name
from geo_refdiff.raster.layer_source import layer_source

VERSION = 1
KEPT = "batch"
"""Folder, within that of the outputs, of what the batch itself needs."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FILES = ("class_map", "mask_confidence")
_ONLY = {"mask": ("auto", "none")}


class UnfitError(GeoRefDiffError):
    """A worker cannot do what others could: it does not see the inputs or the folder, or has another model."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all jobs of a batch share.

    Attributes:
        options: of `upscale`: scale, model and so on.
        threads: that torch computes with; they move the last bits of convolutions.
        model_sha256: of the model's files, "" for a classical one.
        software: versions of what computes pixels; workers must have the same.
        replace: whether outputs that are there, of other inputs or options, are replaced.
    """

    options: Mapping[str, Any]
    threads: int
    model_sha256: str
    software: Mapping[str, str]
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One area.

    Attributes:
        name: of the area; the output is called so, in the batch's folder.
        area: as `upscale --aoi` takes it.
        scene, reference, mask: files, GDAL names or, for the mask, "auto" and "none".
        stamps: (file, bytes, time of change in ns) of the local files among them.
        taken: date of the scene, as `upscale --scene-date` takes it; None: unknown.
        without: options of the batch that do not go for this area.
    """

    name: str
    area: str
    scene: str
    reference: str | None
    mask: str | None
    stamps: tuple[tuple[str, int, int], ...]
    taken: str | None = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ticket:
    """Where a job stands, and what it must be: all that a worker is sent.

    Attributes:
        folder: of the outputs.
        part: number of the file of jobs.
        head: SHA-256 of the settings' line.
        start, length: bytes of the job's line.
        sha256: of it.
    """

    folder: str
    part: int
    head: str
    start: int
    length: int
    sha256: str


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
    return {k: v for k, v in plain.items() if v is not None}


def files_of(options: Mapping[str, Any]) -> list[str]:
    """The local files that options name."""
    plain = plain_options(options)
    return [plain[key] for key in _FILES if key in plain and Path(plain[key]).is_absolute()]


def stamps_of(files: Sequence[str | None]) -> tuple[tuple[str, int, int], ...]:
    """Size and time of the local files among some names.

    Raises:
        InputError: one that was there is gone.
    """
    found = []
    for file in dict.fromkeys(f for f in files if f):
        name = layer_source(file).path
        if is_gdal_name(name) or name in _ONLY["mask"]:
            continue
        try:
            state = os.stat(name)
        except OSError as error:
            raise InputError(f"{name}: {error.strerror}; fetch it again, or leave it out") from error
        found.append((name, state.st_size, state.st_mtime_ns))
    return tuple(found)


def jobs_file(folder: str | Path, part: int) -> Path:
    """A file of jobs."""
    return Path(folder) / KEPT / f"jobs-{int(part):06d}.jsonl"


def write_jobs(folder: Path, part: int, settings: Settings, jobs: Sequence[Job]) -> list[Ticket]:
    """Write some of the jobs of a batch, whole or not at all.

    Raises:
        OutputError: they cannot be written.
    """
    head = as_json({"version": VERSION, **asdict(settings)}).encode()
    lines = [head, *(as_json(asdict(job)).encode() for job in jobs)]
    write_bytes_atomic(jobs_file(folder, part), b"\n".join(lines) + b"\n")
    tickets, start = [], len(head) + 1
    for line in lines[1:]:
        tickets.append(Ticket(str(folder.absolute()), part, _sha(head), start, len(line), _sha(line)))
        start += len(line) + 1
    return tickets


def read_job(ticket: Ticket) -> tuple[Settings, Job]:
    """The settings and the job of a ticket, exactly as its client wrote them.

    Raises:
        UnfitError: the folder is not to be seen here.
        ResumeError: the file is not the one that the ticket is of: begun anew, or tampered with.
    """
    path = jobs_file(ticket.folder, ticket.part)
    try:
        with path.open("rb") as stream:
            first = stream.readline().rstrip(b"\n")
            stream.seek(ticket.start)
            line = stream.read(ticket.length)
    except OSError as error:
        raise UnfitError(
            f"{path}: cannot be read here ({error.strerror}); all workers need the output folder"
        ) from error
    if _sha(first) != ticket.head or _sha(line) != ticket.sha256:
        raise ResumeError(f"{path}: is not what the batch wrote; run the same command again")
    job = json.loads(line)
    stamps, without = tuple(tuple(s) for s in job["stamps"]), tuple(job["without"])
    return _settings(first), Job(**(job | {"stamps": stamps, "without": without}))


@lru_cache(4)
def _settings(line: bytes) -> Settings:
    data = json.loads(line)
    if data.pop("version") != VERSION:
        raise UnfitError(f"this worker knows jobs of version {VERSION} only; give all workers the same geo-refdiff")
    return Settings(**data)


def output_of(folder: str | Path, name: str, options: Mapping[str, Any]) -> Path:
    """Where the output of an area lies: in the batch's folder, whatever the name; a VRT where it is cut into shards.

    Args:
        folder: of the batch.
        name: of the area.
        options: of `upscale`.

    Raises:
        ResumeError: the name is no plain file name.
    """
    if not _NAME.fullmatch(name):
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


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
