"""Does one job, in whatever process; every error becomes part of the outcome."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from geo_refdiff.batch.folder import is_batch, output_of
from geo_refdiff.batch.jobs import Job, Kind, Outcome, Settings, UnfitError, changed_inputs
from geo_refdiff.batch.manifest import Figures
from geo_refdiff.commands.products import product_path
from geo_refdiff.commands.upscale import UpscaleResult, upscale
from geo_refdiff.engine.run import BlockRunner, ProgressCallback, run_blocks
from geo_refdiff.engine.shards import remove_output
from geo_refdiff.engine.workdir import Workdir, workdir_of
from geo_refdiff.errors import BusyError, GeoRefDiffError, OutputError, ResumeError
from geo_refdiff.nn.device import check_device, chosen_device, torch_settings
from geo_refdiff.options import ComputeOptions, SamplingOptions
from geo_refdiff.plan.planning import software_versions
from geo_refdiff.plan.records import THREADS
from geo_refdiff.raster.files import is_filled
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.restore.models import Model, open_model
from geo_refdiff.restore.sources import CLASSES

_MODEL_OPTIONS = ("sampler", "steps", "detail", "device", "dtype")
IN_THE_MODEL = ("sampler", "steps", "detail")
"""Options of `upscale` that go into an open model."""

_models: dict[str, Model] = {}
_one = threading.Lock()


def work(
    job: Job,
    progress: ProgressCallback | None = None,
    runner: BlockRunner = run_blocks,
    device: str | None = None,
) -> Outcome:
    """Upscale an area; continues where an interrupted run stopped.

    Args:
        job: of the area.
        progress: called now and then.
        runner: who computes the blocks.
        device: of those, if they are on other machines.

    Raises:
        KeyboardInterrupt: passed on.
    """
    started = perf_counter()

    def done() -> Outcome:
        if not is_batch(Path(job.folder)):
            raise UnfitError(f"{job.folder}: cannot be seen here; all workers need the output folder")
        wrong = "; ".join(changed_inputs(job))
        if wrong:
            raise UnfitError(f"{wrong}; all workers need the same inputs under the same paths")
        result = _upscaled(job, progress, runner, device)
        figures = figures_of(result.out, result.counts["pixels"] / 1e6, result.counts["blocks"])
        return Outcome("", "done", result=figures, notes=tuple(result.notes), worker=this_process())

    return replace(guarded(done), name=job.name, seconds=perf_counter() - started)


def guarded(done: Callable[[], Outcome]) -> Outcome:
    """The outcome of some work, whose errors become outcomes, too; one work at a time in a process."""
    kind: Kind = "area"
    try:
        with _one:  # the number of torch threads is the process's own
            return done()
    except BusyError as error:
        kind, text = "busy", str(error)
    except (UnfitError, OutputError) as error:
        kind, text = "worker", str(error)
    except GeoRefDiffError as error:
        text = str(error)
    except MemoryError:
        kind, text = "worker", "out of memory; give a smaller --window, --block-size or --batch-size, or fewer workers"
    except Exception as error:  # one area's failure never stops the others
        text = f"unexpected {type(error).__name__}: {one_line(error)}"
    return Outcome("", kind, " ".join(text.split()), worker=this_process())


def this_process() -> str:
    """Host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def model_for(settings: Settings, elsewhere: str | None = None) -> Model:
    """The model of a batch, opened once a process.

    Args:
        settings: of the batch.
        elsewhere: device of other machines that it runs on; None: it runs here.

    Raises:
        UnfitError: it cannot be opened here, it is not the one that the batch was begun with, or the software is not.
    """
    here = same_software()
    other = [f"{k} {here.get(k)} instead of {v}" for k, v in settings.software.items() if here.get(k) != v]
    if other:
        raise UnfitError(f"this worker has {', '.join(other)}; give all workers the same versions")
    options = settings.options
    used = [options.get(k) for k in _MODEL_OPTIONS]
    key = json.dumps([str(options.get("model")), settings.model_sha256, elsewhere, *used])
    if key not in _models:
        try:
            model = open_batch_model(options, elsewhere)
        except GeoRefDiffError as error:
            raise UnfitError(str(error)) from error
        if model.sha256 != settings.model_sha256:
            raise UnfitError(
                f"model '{options.get('model')}': is another one here (SHA-256 {model.sha256[:12]}..., the batch has "
                f"{settings.model_sha256[:12]}...); give all workers the same model"
            )
        _models.clear()
        _models[key] = model
    return _models[key]


def same_software() -> dict[str, str]:
    """Versions of what computes pixels, which must be the same for all who work on a batch."""
    return {key: value for key, value in software_versions().items() if key != THREADS}


def open_batch_model(options: Mapping[str, Any], elsewhere: str | None = None) -> Model:
    """The model that options of `upscale` name.

    Args:
        options: of `upscale`.
        elsewhere: device of other machines that it will run on; here it is opened on the CPU, to plan with.

    Raises:
        ModelError, OptionError: it cannot be opened.
    """
    compute = ComputeOptions.among(options)
    device = "cpu" if elsewhere else chosen_device(compute.device)
    model = open_model(SamplingOptions.among(options), device=device, dtype=compute.dtype)
    return replace(model, device=check_device(elsewhere)) if elsewhere else model


def _upscaled(job: Job, progress: ProgressCallback | None, runner: BlockRunner, device: str | None) -> UpscaleResult:
    settings = job.settings
    model, out = model_for(settings, device), output_of(job.folder, job.name, settings.options)
    options: dict[str, Any] = {
        **{k: v for k, v in settings.options.items() if k not in job.without},
        "ref": job.reference,
        "mask": job.mask,
        "aoi": job.area,
        "scene_date": job.taken,
        "out": out,
        "model": model,
        "progress": progress,
        "runner": runner,
    }
    for used in IN_THE_MODEL:
        options.pop(used, None)
    if out.is_file() and not is_filled(out):
        out.unlink()
    with torch_settings(settings.threads):
        try:
            result = upscale(job.scene, resume=True, overwrite=settings.replace, **options)
        except BusyError:
            raise
        except ResumeError:  # blocks of other inputs or another version: this area starts over
            result = upscale(job.scene, overwrite=True, **options)
    if settings.replace:
        _remove_other_form(out)
    return result


def _remove_other_form(out: Path) -> None:
    """Remove what a batch before made of the area: one file where there are shards now, or the reverse."""
    other = out.with_suffix(".vrt" if out.suffix == ".tif" else ".tif")
    remove_output(other)
    workdir = Workdir(workdir_of(other))
    if workdir.plan.exists():
        with workdir.locked():
            workdir.remove()


def figures_of(out: Path, megapixels: float, blocks: int) -> Figures:
    """What a finished output is like, from its tags and its STAC item."""
    import rasterio

    figures = Figures(megapixels=megapixels, blocks=blocks)
    with rasterio.open(out) as dataset:
        tags, band = dataset.tags(), dataset.tags(1)
    for name, source, tag in (
        ("scene_residual_rms", tags, "GEO_REFDIFF_SCENE_RESIDUAL_RMS"),
        ("scene_residual_max", tags, "GEO_REFDIFF_SCENE_RESIDUAL_MAX"),
        ("valid_percent", band, "STATISTICS_VALID_PERCENT"),
    ):
        if tag in source:
            setattr(figures, name, float(source[tag]))
    try:
        properties = json.loads(product_path(out, "stac").read_text(encoding="utf-8"))["properties"]
    except (OSError, ValueError, KeyError, TypeError):
        return figures
    correlation = properties.get("geo_refdiff:radiometry", {}).get("correlation") or []
    if correlation:
        figures.ref_correlation = round(fmean(correlation), 4)
    sources = properties.get("geo_refdiff:sources", {})
    pixels = [sources.get(name, 0) for name in CLASSES[1:]]
    if sum(pixels):
        figures.from_reference, figures.generated, figures.interpolated, figures.cloudy = (
            round(count / sum(pixels), 4) for count in pixels
        )
    return figures
