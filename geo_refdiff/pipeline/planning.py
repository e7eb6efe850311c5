"""From files and options to a plan; everything that can be checked is checked here, before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine

from geo_refdiff import __version__
from geo_refdiff.engine.layout import WindowLayout, plan_blocks, plan_windows
from geo_refdiff.engine.plan import THREADS, Bands, Grid, ModelRecord, Output, Plan, Radiometry
from geo_refdiff.engine.restorers import Restorer
from geo_refdiff.engine.survey import fit_reference, survey_others, survey_scene
from geo_refdiff.errors import GridError, InputError, OptionError, OutputError
from geo_refdiff.grid.geobox import output_geobox, scene_geobox
from geo_refdiff.grid.lattice import lattice_origin
from geo_refdiff.grid.window import Window
from geo_refdiff.io.raster import inspect
from geo_refdiff.io.raster_info import RasterInfo
from geo_refdiff.io.vector import is_box, read_aoi
from geo_refdiff.io.warp import gsd_ratio, overlap_fraction
from geo_refdiff.pipeline.bands import choose_bands
from geo_refdiff.pipeline.declared import chosen_consistency, declared_sensor, sensor_record, transfers
from geo_refdiff.pipeline.models import Model, RestorerFactory, open_model
from geo_refdiff.pipeline.priors import automatic_mask
from geo_refdiff.prior.deciding import MaskRequest, decide_mask
from geo_refdiff.prior.record import MaskRecord

DEFAULT_SCALE = 8
"""Where there is no reference to tell."""

_BLOCK = 2048
_EDGE = 1e-6
_SHARPER = 1.5
_LEAST_BYTES = 0.25
_DTYPES = {"float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Request:
    """What the user asks for; the fields are the options of `upscale`."""

    scene: str | Path
    ref: str | Path | None = None
    mask: str | Path | None = None
    aoi: str | None = None
    scale: int | None = None
    model: str | Path | RestorerFactory | Model = "default"
    steps: int | None = None
    detail: float | None = None
    sampler: str | None = None
    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    window: int | None = None
    overlap: int | None = None
    block_size: int | None = None
    bands: Sequence[str | int] | None = None
    scene_range: tuple[float, float] | None = None
    psf: str | float | None = None
    consistency: str | None = None
    other_bands: str | None = None
    source_map: bool = False
    no_change: int | None = None
    class_map: str | Path | None = None
    mask_field: str | None = None
    mask_confidence: str | Path | None = None
    min_confidence: float | None = None

    @property
    def prior(self) -> MaskRequest:
        """What is said of the mask."""
        return MaskRequest(
            self.mask, self.no_change, self.class_map, self.mask_field, self.mask_confidence, self.min_confidence
        )


@dataclass(frozen=True)
class Planned:
    """A plan, the restorer made for it, and what the user should know about it."""

    plan: Plan
    restorer: Restorer
    notes: tuple[str, ...] = field(default=())


def make_plan(request: Request) -> Planned:
    """Inspect the inputs, open the model and decide everything.

    Raises:
        InputError, GridError, ModelError, OptionError: one line each.
    """
    notes: list[str] = []
    _check_options(request)
    device, dtype = _device(request.device), _dtype(request.dtype)
    scene = inspect(request.scene, "scene")
    reference = None if request.ref is None else inspect(request.ref, "reference")
    gbox = scene_geobox(scene)
    ratio = None if reference is None else _reference_ratio(reference, gbox)
    model = open_model(
        request.model,
        sampler=request.sampler,
        steps=request.steps,
        detail=request.detail,
        device=device,
        dtype=dtype,
    )
    others = transfers(request.other_bands, request.bands is not None)
    bands = choose_bands(scene, reference, request.bands, model.bands, model.optional_bands, others)
    scale = _scale(request.scale, ratio, model, notes)
    psf, sensor = declared_sensor(request.psf, model.psf_sigma, scale)
    restorer = model.make(sensor, bands.channels, request.seed)
    if reference is None and restorer.uses_reference and not model.bands:
        raise OptionError(f"{model.name} needs a reference: give --ref, or use --model bicubic-ibp")
    crop, polygon = _area(request.aoi, scene)
    target = output_geobox(gbox, scale)
    mask = decide_mask(request.prior, model.classes, target)
    if mask is None:
        mask = automatic_mask(request.prior, model, restorer, bands, reference is not None, notes)
    radiometry = survey_scene(scene, bands.scene, model_units=restorer.model_units, scene_range=request.scene_range)
    if reference is not None and restorer.uses_reference:
        radiometry = fit_reference(radiometry, scene, bands.scene, reference, bands.reference, target, sensor)
        _note_reference(reference, target, radiometry, notes)
    bands, radiometry = survey_others(scene, bands, radiometry)
    _note_unused(restorer, reference, mask, bands, scene, notes)
    origin = lattice_origin(Affine(*scene.transform))
    shape = (crop.height * scale, crop.width * scale)
    windows = _windows(request, restorer, scale, notes)
    plan = Plan(
        scene=scene,
        reference=reference,
        mask=mask,
        grid=Grid(scale, origin, crop, polygon),
        bands=bands,
        windows=windows,
        blocks=plan_blocks(request.block_size or _BLOCK, shape),
        radiometry=radiometry,
        psf_sigma=sensor.psf_sigma,
        sensor=sensor_record(psf, sensor, bands, chosen_consistency(request.consistency, restorer.consistent)),
        model=ModelRecord(model.name, model.sha256, model.bands, model.classes, model.sampler),
        seed=request.seed,
        device=device,
        dtype=dtype,
        output=output_of(scene, polygon is not None),
        source_map=request.source_map,
        software=_software(),
    )
    return Planned(plan, restorer, tuple(notes))


def check_space(plan: Plan, folder: Path) -> None:
    """Refuse what cannot fit on the disk, by the least that blocks and output take: a quarter of the raw pixels.

    Raises:
        OutputError: says how much is needed and how much is free.
    """
    height, width = plan.shape
    raw = height * width * len(plan.bands.output) * np.dtype(plan.output.dtype).itemsize
    free = shutil.disk_usage(folder).free
    if raw * _LEAST_BYTES > free:
        raise OutputError(
            f"{folder}: the disk is too full: {width} x {height} pixels need at least "
            f"{raw * _LEAST_BYTES / 2**20:.0f} MiB, "
            f"{free / 2**20:.0f} MiB are free; free some space, write elsewhere or choose a smaller --aoi"
        )


def _check_options(request: Request) -> None:
    request.prior.check()
    for name in ("scale", "steps", "window", "overlap", "block_size", "seed"):
        value: Any = getattr(request, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise OptionError(f"{name} {value!r}: give a whole number")
    if request.scene_range is not None:
        low, high = request.scene_range
        if not (np.isfinite([low, high]).all() and low < high):
            raise OptionError(f"scene range {low}, {high}: give two numbers, the lower one first")
    if request.window is not None and request.window < 1:
        raise OptionError(f"window {request.window}: give at least 1 pixel")


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not (kind == "cuda" and number.isdecimal())):
        raise OptionError(f"device '{name}': give auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= count:
            raise OptionError(f"device '{name}': this machine has {count} CUDA devices; give --device cpu or auto")
    return name


def _dtype(name: str) -> str:
    if name not in _DTYPES:
        raise OptionError(f"dtype '{name}': give float32 or bfloat16")
    return _DTYPES[name]


def _reference_ratio(reference: RasterInfo, gbox: Any) -> float:
    """GSD of the reference in scene pixels."""
    ratio = gsd_ratio(reference, gbox)
    if ratio > 1 + 1e-3:
        raise InputError(
            f"{reference.path}: the reference is coarser than the scene ({ratio:.3g} scene pixels a pixel); "
            f"give a finer one, or swap scene and reference"
        )
    return ratio


def _scale(wanted: int | None, ratio: float | None, model: Model, notes: list[str]) -> int:
    if wanted is not None:
        model.check_scale(wanted)
        return wanted
    if ratio is None:
        scale = model.nearest_scale(DEFAULT_SCALE)
        notes.append(f"scale {scale} by default; choose it with --scale")
    elif 1 / ratio < _SHARPER:
        raise OptionError(
            f"the reference's pixels are only {1 / ratio:.3g} times finer than the scene's: say which --scale is wanted"
        )
    else:
        scale = model.nearest_scale(1 / ratio)
        notes.append(
            f"scale {scale} from the reference, whose pixels are {1 / ratio:.3g} times finer; choose it with --scale"
        )
    return scale


def _area(aoi: str | None, scene: RasterInfo) -> tuple[Window, str | None]:
    """The crop in pixels of the scene, snapped outwards, and the polygon if the area is not just a box."""
    whole = Window(0, 0, scene.height, scene.width)
    if aoi is None:
        return whole, None
    import shapely

    gbox = scene_geobox(scene)
    geometry = read_aoi(aoi, gbox.crs)
    a, b, c, d, e, f = (~gbox.affine)[:6]
    xy = shapely.get_coordinates(geometry)
    cols, rows = a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f
    left, top = floor(cols.min() + _EDGE), floor(rows.min() + _EDGE)
    right, bottom = ceil(cols.max() - _EDGE), ceil(rows.max() - _EDGE)
    snapped = Window(top, left, max(1, bottom - top), max(1, right - left))
    crop = snapped.intersect(whole)
    if crop is None:
        xmin, ymin, xmax, ymax = gbox.extent.boundingbox.bbox
        raise GridError(
            f"area of interest '{aoi}' lies outside of {scene.path}, which covers x {xmin:.10g} to {xmax:.10g}, y "
            f"{ymin:.10g} to {ymax:.10g} in its own CRS; a vector file may be in any CRS"
        )
    return crop, None if is_box(aoi) else shapely.to_wkt(geometry, rounding_precision=-1)


def _windows(request: Request, restorer: Restorer, scale: int, notes: list[str]) -> WindowLayout | None:
    if restorer.local:
        return None
    size = restorer.window if request.window is None else request.window
    overlap = restorer.overlap if request.overlap is None else request.overlap
    layout = plan_windows(size, overlap, restorer.halo, scale, restorer.multiple)
    asked = [
        (n, w, g)
        for n, w, g in (("window", request.window, layout.size), ("overlap", request.overlap, layout.overlap))
        if w not in (None, g)
    ]
    for name, want, got in asked:
        notes.append(f"{name} {want} was rounded up to {got} pixels to fit scale, halo and network")
    return layout


def output_of(scene: RasterInfo, polygon: bool) -> Output:
    """How an output with the scene's data type tells its missing pixels; `polygon`: there are some of an AOI."""
    if scene.validity == "nodata" and scene.nodata is not None and _representable(scene.nodata, scene.dtype):
        return Output(scene.dtype, scene.nodata, False)
    if np.dtype(scene.dtype).kind == "f" and scene.validity in ("nodata", "nan", "none"):
        return Output(scene.dtype, float("nan"), False)
    return Output(scene.dtype, None, scene.validity in ("alpha", "mask") or polygon)


def _representable(value: float, dtype: str) -> bool:
    if not np.isfinite(value):
        return False
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return True
    bounds = np.iinfo(kind)
    return value == int(value) and bounds.min <= value <= bounds.max


def _note_reference(reference: RasterInfo, target: Any, radiometry: Radiometry, notes: list[str]) -> None:
    share = overlap_fraction(reference, target)
    if share < 0.999:
        notes.append(f"the reference covers {share:.1%} of the scene; elsewhere there is none")
    if radiometry.pixels == 0:
        notes.append("too few common pixels to match the reference's radiometry: it is taken as it is")
    elif min(radiometry.correlation) < 0.3:
        notes.append(
            f"the reference agrees poorly with the scene (correlation {min(radiometry.correlation):.2f}): "
            f"check its place, bands and date"
        )


def _note_unused(
    restorer: Restorer,
    reference: RasterInfo | None,
    mask: MaskRecord | None,
    bands: Bands,
    scene: RasterInfo,
    notes: list[str],
) -> None:
    if reference is None and restorer.uses_reference:
        notes.append("no reference: plain conditional super-resolution, detail is generated")
    if reference is not None and not restorer.uses_reference:
        notes.append(f"{restorer.name} does not use the reference")
    if mask is not None and not restorer.uses_mask:
        notes.append(f"{restorer.name} does not use the mask")
    if bands.other:
        told = ", ".join(f"{n} ({r:.2f})" for n, r in zip(bands.other_names, bands.fitness, strict=True))
        notes.append(
            f"detail is transferred to bands that the model does not know, as far as they depend on the others "
            f"(correlation): {told}; leave them out with --other-bands drop"
        )
    elif len(bands.names) < len(scene.data_bands):
        notes.append(f"bands {', '.join(bands.names)} of {len(scene.data_bands)} are used; choose them with --bands")


def _software() -> dict[str, str]:
    import rasterio
    import torch

    return {
        "geo-refdiff": __version__,
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "rasterio": str(rasterio.__version__),
        "gdal": str(rasterio.__gdal_version__),
        THREADS: str(torch.get_num_threads()),
    }
