"""What a run will take: bytes on disk, memory, and seconds, by what runs took on this machine before.

Seconds of runs that differ in nothing but their place grow with their pixels, from what every run takes. Both are kept
in ``~/.cache/geo-refdiff/speed.json`` (``XDG_CACHE_HOME``), a few runs for each model, device and way of sampling.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geo_refdiff.engine.rasters import run_rasters
from geo_refdiff.plan.outline import Outline
from geo_refdiff.plan.planning import largest_window
from geo_refdiff.plan.records import THREADS, Plan
from geo_refdiff.raster.files import atomic_path, cache_folder

_LOG = logging.getLogger(__name__)

_PACKED = {"uint8": 0.65, "uint16": 0.75, "int16": 0.75}
"""Bytes of a GeoTIFF with its overviews over those of its pixels, by data type; measured on aerial images."""

_UNPACKED, _CLASSES = 0.95, 0.1
"""Of other types, and of classes."""

_RUN_BYTES = 500 * 10**6
"""Python, torch, GDAL and its caches."""

_WINDOW_BYTES, _BLOCK_BYTES = 650, 300
"""A pixel of a window and of a block; measured at 8x with four bands in bfloat16, planning included."""

_BEYOND = 256
"""Output pixels that windows see beyond a block, both sides together, at most."""

_RUNS = 8
"""Runs that are remembered for each way of running."""


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a run, or several, will take.

    Attributes:
        blocks: to be computed.
        megapixels: of the output.
        disk_bytes: of the output, overviews and maps included; while a run continues its blocks take as much again.
        memory_bytes: of a process at its height.
        seconds: None: nothing of the kind ran on this machine before.
    """

    blocks: int
    megapixels: float
    disk_bytes: int
    memory_bytes: int
    seconds: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "blocks": self.blocks,
            "megapixels": round(self.megapixels, 3),
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
        }

    def __str__(self) -> str:
        blocks = f"{self.megapixels:.3g} megapixels in {self.blocks} block{'s' * (self.blocks != 1)}"
        disk, memory = size(self.disk_bytes), size(self.memory_bytes)
        time = "time not known before the first block" if self.seconds is None else f"about {duration(self.seconds)}"
        return f"{blocks}: about {disk} on disk, as much again while it runs, {memory} of memory, {time}"


def estimate(plan: Plan) -> CostEstimate:
    """What a run of a plan will take."""
    height, width = plan.shape
    disk = 0.0
    for raster in run_rasters(plan):
        profile = raster.profile
        packed = _CLASSES if raster.overview_resampling == "mode" else _PACKED.get(profile.dtype, _UNPACKED)
        disk += height * width * profile.count * np.dtype(profile.dtype).itemsize * packed
    windows, sides = plan.windows, [min(plan.blocks.size, side) for side in plan.shape]
    beyond = 2 * windows.halo + windows.overlap
    seen = [windows.size if windows.fixed else min(windows.size, side + beyond) for side in sides]
    pixels = height * width / 1e6
    return CostEstimate(
        plan.blocks.count,
        pixels,
        int(disk),
        _memory(seen, sides),
        Speeds.load().seconds(kind_of(plan), pixels),
    )


def rough_estimate(outline: Outline, options: Mapping[str, Any], threads: int, speeds: Speeds) -> CostEstimate:
    """What a run will take, before its inputs' pixels are read.

    Args:
        outline: of the run.
        options: of `upscale`.
        threads: of its process.
        speeds: of earlier runs.
    """
    (height, width), model, dtype = outline.geobox.shape, outline.model, outline.output.dtype
    raw = height * width * len(outline.bands.output) * np.dtype(dtype).itemsize
    sides = [min(outline.blocks.size, side) for side in (height, width)]
    seen = [min(options.get("window") or largest_window(outline.device), side + _BEYOND) for side in sides]
    kind = _kind(
        model.sha256 or model.name,
        model.sampler,
        outline.device,
        outline.dtype,
        threads,
        _more(outline.scale, options.get("consistency"), options.get("uncertainty")),
    )
    pixels = height * width / 1e6
    disk = int(raw * _PACKED.get(dtype, _UNPACKED))
    return CostEstimate(outline.blocks.count, pixels, disk, _memory(seen, sides), speeds.seconds(kind, pixels))


def kind_of(plan: Plan) -> str:
    """What runs must have in common for one to tell of the other."""
    runs = 0 if plan.uncertainty is None else plan.uncertainty.runs
    return _kind(
        plan.model.sha256 or plan.model.name,
        plan.model.sampler,
        plan.device,
        plan.dtype,
        int(plan.software.get(THREADS, 0)),
        _more(plan.grid.scale, plan.sensor.consistency, runs),
    )


def _more(scale: int, consistency: str | None, runs: int | None) -> str:
    return f"{scale}x {'strict' if consistency == 'strict' else 'standard'} {runs or 0}"


def _kind(model: str, sampler: Mapping[str, Any], device: str, dtype: str, threads: int, more: str) -> str:
    steps = f"{sampler.get('name', '')} {sampler.get('steps', '')}"
    return f"{platform.node()} {device} {threads} {dtype} {model[:16]} {steps} {more}"


def _memory(seen: Sequence[int], block: Sequence[int]) -> int:
    """Of a process at its height, by the sides of its windows and of a block in output pixels."""
    return int(_RUN_BYTES + _WINDOW_BYTES * np.prod(seen) + _BLOCK_BYTES * np.prod(block))


class Speeds:
    """What runs took, by their kind; kept in the user's cache folder.

    Args:
        runs: (megapixels, seconds) of the last runs of each kind.
    """

    def __init__(self, runs: dict[str, list[tuple[float, float]]]) -> None:
        self._runs = runs

    @classmethod
    def load(cls) -> Speeds:
        """Those of this user; none where the file is not there or damaged."""
        try:
            held = json.loads(_file().read_text(encoding="utf-8"))
            runs = {str(k): [(float(p), float(s)) for p, s in v if p > 0 and s > 0] for k, v in held.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return cls({})
        return cls(runs)

    def seconds(self, kind: str, megapixels: float, runs: int = 1) -> float | None:
        """What runs of a kind will take together, None where none is known.

        Args:
            kind: as of `kind_of`.
            megapixels: of all together.
            runs: how many.
        """
        past = self._runs.get(kind)
        if not past:
            return None
        each, pixel = _line(past)
        return each * runs + pixel * megapixels

    def add(self, kind: str, megapixels: float, seconds: float) -> None:
        """Remember a run; where the folder cannot be written nothing is."""
        self._runs[kind] = [*self._runs.get(kind, []), (round(megapixels, 6), round(seconds, 3))][-_RUNS:]
        try:
            _file().parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(_file()) as path:
                path.write_text(json.dumps(self._runs, indent=0), encoding="utf-8")
        except Exception as error:  # a full or read-only home must never fail a run
            _LOG.debug("%s: %s", _file(), error)


def duration(seconds: float) -> str:
    """Seconds in words: "1 h 02 min", "3 min 20 s", "12 s"."""
    minutes, rest = divmod(max(1, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _line(runs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(seconds of every run, seconds a megapixel), neither below 0: least squares of relative errors."""
    pixels, seconds = (np.array(column) for column in zip(*runs, strict=True))
    through_zero = 0.0, float(seconds.sum() / pixels.sum())
    if pixels.max() < 1.5 * pixels.min():
        return through_zero
    slope, each = (float(v) for v in np.polyfit(pixels, seconds, 1, w=1 / seconds))
    return (each, slope) if slope > 0 and each >= 0 else through_zero


def _file() -> Path:
    return cache_folder() / "speed.json"


def size(count: int) -> str:
    """Bytes in words: "1.2 GB", "35 MB"."""
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{max(count / 1e6, 0.01):.3g} MB"
