"""From files and options to a plan; everything that can be checked is checked here, before anything is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from affine import Affine

from geo_refdiff import __version__
from geo_refdiff.change.deciding import MaskRequest, decide_mask
from geo_refdiff.change.record import MaskRecord
from geo_refdiff.errors import OptionError, OutputError
from geo_refdiff.plan.aligning import (
    MAX_RESIDUAL,
    AlignRequest,
    align_reference,
    note_reference,
    undecided,
    unfit,
)
from geo_refdiff.plan.declared import chosen_consistency, declared_sensor, sensor_record
from geo_refdiff.plan.layout import WindowLayout, plan_windows
from geo_refdiff.plan.outline import check_options, make_outline
from geo_refdiff.plan.priors import automatic_mask
from geo_refdiff.plan.records import THREADS, Bands, Grid, ModelRecord, Plan
from geo_refdiff.plan.survey import fit_reference, survey_others, survey_scene
from geo_refdiff.plan.uncertainty import uncertainty_record
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.lattice import lattice_origin
from geo_refdiff.restore.models import Model, RestorerFactory
from geo_refdiff.restore.restorers import Restorer

_LEAST_BYTES = 0.25


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
    uncertainty: int | None = None
    no_change: int | None = None
    class_map: str | Path | None = None
    mask_field: str | None = None
    mask_confidence: str | Path | None = None
    min_confidence: float | None = None
    mask_lies_on: str = "auto"
    coregister: str = "auto"
    max_residual: float = MAX_RESIDUAL
    on_misregistration: str = "stop"

    @property
    def alignment(self) -> AlignRequest:
        """What is said of co-registration."""
        return AlignRequest(
            mode=self.coregister, max_residual=self.max_residual, on_misregistration=self.on_misregistration
        )

    @property
    def prior(self) -> MaskRequest:
        """What is said of the mask."""
        return MaskRequest(
            mask=self.mask,
            no_change=self.no_change,
            class_map=self.class_map,
            field=self.mask_field,
            confidence=self.mask_confidence,
            least=self.min_confidence,
            lies_on=self.mask_lies_on,
        )


@dataclass(frozen=True)
class Planned:
    """A plan, the restorer made for it, and what the user should know about it.

    Attributes:
        plan: the plan.
        restorer: made for it.
        notes: what was decided without being asked, and what deserves a look.
        dropped: of these the one that says why a reference that was given is used nowhere.
    """

    plan: Plan
    restorer: Restorer
    notes: tuple[str, ...] = field(default=())
    dropped: str | None = None


def make_plan(request: Request) -> Planned:
    """Inspect the inputs, open the model and decide everything.

    Raises:
        InputError, GridError, ModelError, OptionError: one line each.
    """
    check_options(request)
    scene = inspect(request.scene, "scene")
    found = make_outline(request, scene, None if request.ref is None else inspect(request.ref, "reference"))
    reference, model, bands, scale, notes = found.reference, found.model, found.bands, found.scale, list(found.notes)
    psf, sensor = declared_sensor(request.psf, model.psf_sigma, scale)
    restorer = model.make(sensor, bands.channels)
    crop, target = found.crop, found.target
    placed = align_reference(request.alignment, scene, reference, bands, sensor, restorer, notes)
    dropped: str | None = None
    if placed.unused:
        reference, dropped = None, notes[-1]
    radiometry = survey_scene(scene, bands.scene, model_units=restorer.model_units, scene_range=request.scene_range)
    if reference is not None and restorer.uses_reference:
        fitted = fit_reference(
            radiometry, scene, bands.scene, reference, bands.reference, target, sensor, placed.on_target(scale)
        )
        told = unfit(fitted, placed, scene, reference)
        if told is not None and (model.bands or not fitted.pixels):
            notes.append(told)
            reference, dropped, placed = None, told, replace(placed, unused=True)
        else:
            note_reference(reference, scene, target, fitted, notes)
            radiometry = fitted
    if undecided(placed):
        notes.append("the reference is taken where it says it lies")
    if placed.unused:
        bands = replace(bands, reference=())
    if reference is None and restorer.uses_reference and not model.bands:
        raise OptionError(f"{model.name} needs a reference{_because(dropped)}: give --ref, or use --model bicubic-ibp")
    mask = decide_mask(request.prior, model.classes, target, reference)
    if mask is None:
        mask = automatic_mask(request.prior, model, restorer, bands, reference is not None, dropped, notes)
    elif mask.hides_no_change:
        notes.append(
            "0 is the mask's nodata value, so it means not known instead of no change; if that is wrong, take it off: "
            "gdal_edit.py -unsetnodata"
        )
    if mask is not None and mask.kind != "auto" and restorer.uses_mask and not placed.displacement.is_zero:
        where, other = ("lies on the scene", "ref") if mask.on_scene else ("is moved with the reference", "scene")
        notes.append(f"the mask {where}; say --mask-lies-on {other} if that is wrong")
    bands, radiometry = survey_others(scene, bands, radiometry)
    _note_unused(restorer, reference, mask, bands, scene, notes)
    origin = lattice_origin(Affine(*scene.transform))
    windows = _windows(request, restorer, scale, notes)
    plan = Plan(
        scene=scene,
        reference=reference,
        mask=mask,
        grid=Grid(scale, origin, crop, found.polygon),
        bands=bands,
        windows=windows,
        blocks=found.blocks,
        radiometry=radiometry,
        psf_sigma=sensor.psf_sigma,
        sensor=sensor_record(psf, sensor, bands, chosen_consistency(request.consistency, restorer.consistent)),
        model=ModelRecord(model.name, model.sha256, model.bands, model.classes, model.sampler),
        seed=request.seed,
        device=found.device,
        dtype=found.dtype,
        output=found.output,
        coregistration=placed,
        source_map=request.source_map,
        uncertainty=uncertainty_record(request.uncertainty, model, restorer, bands, scale, notes),
        software=software_versions(),
    )
    return Planned(plan, restorer, tuple(notes), dropped)


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


def _because(dropped: str | None) -> str:
    return "" if dropped is None else f", but {dropped}"


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


def software_versions() -> dict[str, str]:
    """Versions of what computes pixels, and how torch does it (`nn.device.torch_settings`)."""
    import rasterio
    import torch

    return {
        "geo-refdiff": __version__,
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "rasterio": str(rasterio.__version__),
        "gdal": str(rasterio.__gdal_version__),
        "torch_tf32": "off",
        THREADS: str(torch.get_num_threads()),
    }
