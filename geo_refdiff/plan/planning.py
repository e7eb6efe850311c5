"""From files and options to a plan; everything that can be checked is checked here, before anything is written."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from affine import Affine
from msgspec.structs import replace as replace_options

from geo_refdiff import __version__
from geo_refdiff.change.detector import AUTO_MIN_CONFIDENCE, BANDS, CLASSES_FOR_MODEL, load_detector
from geo_refdiff.change.mask import MaskRecord, decide_mask, mask_notes
from geo_refdiff.classes import UNKNOWN_CLASS, class_index
from geo_refdiff.errors import OptionError, OutputError
from geo_refdiff.options import AUTO, ComputeOptions, MaskOptions, UpscaleOptions
from geo_refdiff.plan.aligning import align_reference, reference_notes, undecided, unfit
from geo_refdiff.plan.bands import coarser_note
from geo_refdiff.plan.clouds import cloudy_reference, cloudy_scene
from geo_refdiff.plan.declared import chosen_consistency, declared_sensor, sensor_record
from geo_refdiff.plan.layout import WindowLayout, plan_windows
from geo_refdiff.plan.outline import make_outline
from geo_refdiff.plan.records import THREADS, Bands, Grid, ModelRecord, Plan, SensorRecord, correction_halo
from geo_refdiff.plan.survey import (
    Noise,
    SeenReference,
    fill_note,
    fit_reference,
    survey_noise,
    survey_others,
    survey_scene,
    undeclared_fill_note,
)
from geo_refdiff.plan.uncertainty import uncertainty_record
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.geobox import lattice_origin
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.restore.models import Model
from geo_refdiff.restore.restorers import Restorer
from geo_refdiff.sensor.recognised import recognised

_LOG = logging.getLogger(__name__)

_LEAST_BYTES = 0.25

_WINDOW = {"cpu": 1280, "cuda": 2048}
"""Largest side of a window where nothing is said, output pixels: a window takes some 1.1 KB a pixel in float32."""


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


def make_plan(scene_file: str | Path, ref: str | Path | None, options: UpscaleOptions) -> Planned:
    """Inspect the inputs, open the model and decide everything.

    Args:
        scene_file: coarse raster.
        ref: finer one, if there is one.
        options: of the user, with the mask.

    Raises:
        InputError, GridError, ModelError, OptionError: one line each.
    """
    with_coarser = options.radiometry.other_bands == "transfer"
    scene = inspect(scene_file, "scene", coarser=with_coarser)
    scene, cloudy = cloudy_scene(scene, options.clouds.cloud_mask, options.clouds.clouds)
    _LOG.debug(
        "scene: %s, %d x %d pixels, %d bands, %s", scene.path, scene.width, scene.height, scene.count, scene.dtype
    )
    reference, hidden = None, None
    if ref is not None:
        reference, hidden = cloudy_reference(inspect(ref, "reference"), options.clouds.cloud_mask)
    outline = make_outline(options, scene, reference)
    model, bands = outline.model, outline.bands
    scale, notes = outline.scale, list(outline.notes)
    notes += [note for note in (cloudy, hidden, coarser_note(scene)) if note is not None]
    asked_psf = options.radiometry.psf
    taken_by = recognised(scene)
    instrument = taken_by if asked_psf is None else None
    psf, sensor = declared_sensor(asked_psf, model.psf_sigma, scale, instrument)
    notes += [] if instrument is None else [instrument.note(bands.names + bands.other_names)]
    restorer = model.make(sensor, bands.channels)
    crop, target = outline.crop, outline.target
    _LOG.debug("model %s on %s in %s, %dx", model.name, outline.device, outline.dtype, scale)
    if reference is not None:
        _LOG.debug("looking how the reference %s is aligned with the scene", reference.path)
    placed, note = align_reference(options.registration, scene, reference, bands, sensor, restorer)
    notes += [] if note is None else [note]
    dropped: str | None = None
    if placed.unused:
        reference, dropped = None, note
    _LOG.debug("looking at the scene's values")
    radiometry = survey_scene(
        scene, bands.scene, model_units=restorer.model_units, scene_range=options.radiometry.scene_range
    )
    note = fill_note(scene, bands.scene) or undeclared_fill_note(scene, bands.scene)
    notes += [] if note is None else [note]
    seen: SeenReference | None = None
    if reference is not None and restorer.uses_reference:
        _LOG.debug("fitting the reference's values to the scene's")
        seen = SeenReference(reference, bands.reference, target, sensor, placed.on_target(scale))
        fitted = fit_reference(radiometry, scene, bands.scene, seen)
        note = unfit(fitted, placed, scene, reference)
        if note is not None and (model.bands or not fitted.pixels):
            notes.append(note)
            reference, dropped, placed, seen = None, note, replace(placed, unused=True), None
        else:
            notes += reference_notes(reference, scene, target, fitted, bands.names)
            radiometry = fitted
    if undecided(placed):
        notes.append("the reference is taken by its own georeference")
    if placed.unused:
        bands = replace(bands, reference=(), reference_names=())
    if reference is None and restorer.uses_reference and not model.bands:
        raise OptionError(f"{model.name} needs a reference{_because(dropped)}: give --ref, or use --model bicubic-ibp")
    _LOG.debug("deciding the change mask")
    asked = options.mask
    if asked.mask_field is not None and not restorer.uses_mask:  # which knows no classes that the field could name
        asked = replace_options(asked, mask_field=None, class_map=None)
    mask = decide_mask(asked, model.classes, target, reference)
    if mask is None:
        mask, more = automatic_mask(options.mask, model, restorer, bands, reference is not None, dropped)
        notes += more
    elif restorer.uses_mask:
        notes += mask_notes(mask, model.classes)
    if mask is not None and mask.kind != "auto" and restorer.uses_mask and not placed.displacement.is_zero:
        where, other = (
            ("is aligned with the scene", "ref") if mask.on_scene else ("is moved with the reference", "scene")
        )
        notes.append(f"the mask {where}; say --mask-lies-on {other} if that is wrong")
    bands, radiometry = survey_others(scene, bands, radiometry)
    _LOG.debug("looking at the scene's noise")
    noise = survey_noise(scene, bands, radiometry, options.radiometry.noise, taken_by, seen)
    notes += _noise_notes(noise, bands, options.radiometry.noise)
    notes += _unused_notes(restorer, reference, mask, bands, scene)
    origin = lattice_origin(Affine(*scene.transform))
    consistency = chosen_consistency(options.radiometry, restorer.consistent)
    declared = sensor_record(psf, sensor, bands, consistency, noise, instrument)
    windows, rounded = _windows(options.compute, restorer, scale, declared, outline.device)
    uncertainty, doubts = uncertainty_record(options.output.uncertainty, model, restorer, bands, scale)
    notes += rounded + doubts
    plan = Plan(
        scene=scene,
        reference=reference,
        mask=mask,
        grid=Grid(scale, origin, crop, outline.polygon),
        bands=bands,
        windows=windows,
        blocks=outline.blocks,
        radiometry=radiometry,
        psf_sigma=sensor.psf_sigma,
        sensor=declared,
        model=ModelRecord(model.name, model.sha256, model.bands, model.classes, model.sampler, model.source),
        seed=options.sampling.seed,
        device=outline.device,
        dtype=outline.dtype,
        output=outline.output,
        coregistration=placed,
        clouds=options.clouds.clouds,
        source_map="source" in options.output.products,
        uncertainty=uncertainty,
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


def largest_window(device: str) -> int:
    """The largest side of a window where nothing is said, output pixels."""
    return _WINDOW["cpu" if device == "cpu" else "cuda"]


def _windows(
    asked: ComputeOptions, restorer: Restorer, scale: int, sensor: SensorRecord, device: str
) -> tuple[WindowLayout, list[str]]:
    """How regions are cut into windows, with notes of what was rounded."""
    size, halo = restorer.window, restorer.halo
    if restorer.finite:
        size = max(size, largest_window(device))
    if sensor.consistency != "off":
        halo = max(halo, correction_halo(sensor, scale))
    size = size if asked.window is None else asked.window
    overlap = restorer.overlap if asked.overlap is None else asked.overlap
    layout = plan_windows(size, overlap, halo, scale, restorer.multiple, fixed=not restorer.finite)
    notes = [
        f"{name} {wanted} was rounded up to {rounded} pixels to fit scale, halo and network"
        for name, wanted, rounded in (("window", asked.window, layout.size), ("overlap", asked.overlap, layout.overlap))
        if wanted not in (None, rounded)
    ]
    return layout, notes


def _noise_notes(noise: Noise, bands: Bands, asked: str | float) -> list[str]:
    """Notes of the noise, estimated or assumed."""
    names = bands.names + bands.other_names
    by_band = list(zip(names, noise.sigmas, noise.usual, strict=True))
    measured, usual = (
        ", ".join(f"{name} {sigma:.3g}" for name, sigma, of_sensor in by_band if sigma and of_sensor == wanted)
        for wanted in (False, True)
    )
    notes = []
    if asked == AUTO and measured:
        unsure = ", ".join(name for name, of_band in zip(names, noise.uncertain, strict=True) if of_band)
        doubt = (
            f" (uncertain in {unsure}, where the ground hides it: it may be off by a factor of two)" if unsure else ""
        )
        notes.append(
            f"noise of the scene, estimated, in digital numbers: {measured}{doubt}; "
            "give it with --noise if that is wrong"
        )
    if asked == AUTO and usual:
        notes.append(
            f"the scene is too small, or too cloudy, to measure its noise: what is usual for its sensor is taken, in "
            f"digital numbers: {usual}; give it with --noise if that is wrong"
        )
    return notes


def _unused_notes(
    restorer: Restorer, reference: RasterInfo | None, mask: MaskRecord | None, bands: Bands, scene: RasterInfo
) -> list[str]:
    """Notes of what is not used, or used in another way than the rest."""
    notes = []
    if reference is None and restorer.uses_reference:
        notes.append("no reference: plain conditional super-resolution, detail is generated")
    if reference is not None and not restorer.uses_reference:
        notes.append(f"{restorer.name} does not use the reference")
    if mask is not None and not restorer.uses_mask:
        notes.append(f"{restorer.name} does not use the mask")
    if bands.other:
        correlations = ", ".join(f"{n} ({r:.2f})" for n, r in zip(bands.other_names, bands.fitness, strict=True))
        notes.append(
            f"detail is transferred to bands that the model does not know, as far as they depend on the others "
            f"(correlation): {correlations}; leave them out with --other-bands drop"
        )
    elif len(bands.names) < len(scene.data_bands):
        notes.append(f"bands {', '.join(bands.names)} of {len(scene.data_bands)} are used; choose them with --bands")
    return notes


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


def automatic_mask(
    asked: MaskOptions,
    model: Model,
    restorer: Restorer,
    bands: Bands,
    reference: bool,
    dropped: str | None,
) -> tuple[MaskRecord | None, list[str]]:
    """The record of a detected mask if it is asked for, or if no mask is given and the model can use one; and notes.

    The mask holds changes of sufficient confidence and is unknown elsewhere.

    Args:
        asked: what the user says of masks.
        model, restorer, bands: of the plan.
        reference: whether there is one to compare with.
        dropped: why one that was given is not used.

    Raises:
        OptionError: there is no reference, or the model lacks the bands or the classes of the detector, and the mask is
            asked for; a confidence is limited where there is none.
        ModelError: the detector is damaged.
    """
    named = asked.mask == AUTO
    if not named and asked.mask is not None:
        return None, []
    channels = detector_channels(model.bands, bands.channels)
    if dropped is not None:
        return None, ["without a reference no change can be looked for"] if named else []
    if not (reference and restorer.uses_mask and model.classes) or channels is None:
        if named:
            return None, [_obstacle(model, restorer, reference)]
        if asked.min_confidence is not None:
            raise OptionError("--min-confidence needs a confidence: give --mask-confidence, or --mask auto")
        return None, []
    detector = load_detector()
    notes = [] if named else ["no mask was given: changes are looked for; --mask none leaves that out"]
    classes = [(index, class_index(name, model.classes)) for index, name in enumerate(detector.classes)]
    record = MaskRecord(
        "auto",
        values=tuple((i, CLASSES_FOR_MODEL.get(i, UNKNOWN_CLASS if own is None else own)) for i, own in classes),
        min_confidence=AUTO_MIN_CONFIDENCE if asked.min_confidence is None else asked.min_confidence,
        channels=channels,
        detector=detector.sha256,
    )
    return record, notes


def _obstacle(model: Model, restorer: Restorer, reference: bool) -> str:
    """The note why a mask that was asked for is not looked for, where the run continues without it."""
    if not reference:
        raise OptionError("--mask auto compares the scene with a reference: give --ref, or --mask none")
    if not restorer.uses_mask:
        return f"{restorer.name} does not use the mask"
    lacks = f"takes the bands {', '.join(model.bands)}" if model.classes else "names no classes"
    raise OptionError(
        f"--mask auto needs a model with classes and the bands {', '.join(BANDS[:3])}, but '{model.name}' {lacks}; "
        f"say --mask none"
    )


def detector_channels(names: Sequence[str], positions: Sequence[int | None]) -> tuple[int | None, ...] | None:
    """For the detector's bands the position among a plan's bands; None where red, green or blue is missing.

    Args:
        names: of the model's channels.
        positions: for each channel the position among the plan's bands, as `Bands.channels`; empty: one to one.
    """
    lowered = [name.strip().lower() for name in names]
    positions_of = list(positions) or list(range(len(lowered)))
    channels = tuple(positions_of[lowered.index(band)] if band in lowered else None for band in BANDS)
    return None if None in channels[:3] else channels
