"""Upscale one scene, from files to a file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from geo_refdiff.engine.plan import Plan
from geo_refdiff.engine.publish import publish, published_digest
from geo_refdiff.engine.run import Progress, ProgressCallback, RunCounts, run_blocks
from geo_refdiff.engine.workdir import Workdir, check_output_path, workdir_of
from geo_refdiff.errors import GeoRefDiffError, OptionError, OutputError, ResumeError
from geo_refdiff.io.gdal import gdal_env
from geo_refdiff.pipeline.models import RestorerFactory
from geo_refdiff.pipeline.planning import Planned, Request, check_space, make_plan
from geo_refdiff.pipeline.result import UpscaleResult

__all__ = ["Interrupted", "UpscaleResult", "upscale"]

_BATCH = {"cpu": 1, "cuda": 8}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; what is finished is kept, and the message says how to go on."""


def upscale(
    scene: str | Path,
    *,
    ref: str | Path | None = None,
    mask: str | Path | None = None,
    out: str | Path | None = None,
    aoi: str | None = None,
    scale: int | None = None,
    model: str | Path | RestorerFactory = "default",
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    window: int | None = None,
    overlap: int | None = None,
    batch_size: int | None = None,
    block_size: int | None = None,
    bands: Sequence[str | int] | None = None,
    scene_range: tuple[float, float] | None = None,
    psf_sigma: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    plan_only: bool = False,
    keep: bool = False,
    progress: ProgressCallback | None = None,
) -> UpscaleResult:
    """Turn a coarse scene into a sharp one on a grid `scale` times finer, as a cloud-optimised GeoTIFF.

    Args:
        scene: raster with affine and CRS; any number of bands for classical models.
        ref: older, finer reference, any CRS; None: plain super-resolution.
        mask: change mask, one band of class indices (0 = no change), any CRS; None: no change known.
        out: GeoTIFF to write; default `<scene>_<scale>x.tif` beside the scene.
        aoi: "xmin,ymin,xmax,ymax" in the scene's CRS, snapped outwards to its pixels, or a vector file in any CRS.
        scale: whole factor; default from the reference's pixel size, else 8.
        model: a bundled model, a model folder, "bicubic", "bicubic-ibp" or "matched-ref".
        steps, sampler: of the diffusion; default as the model says.
        seed: of the noise.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "float32" or "bfloat16", in which the network runs.
        window, overlap: HR pixels, rounded up to what fits.
        batch_size: windows restored together; changes no pixel on the CPU.
        block_size: side of the blocks that are written one by one, a multiple of 16; changes no pixel.
        bands: names or 1-based numbers, in the order of the model's channels.
        scene_range: digital numbers that become -1 and 1 for the model.
        psf_sigma: of the declared sensor, LR pixels.
        resume: go on with an unfinished run of the same inputs and options.
        overwrite: replace a finished output and drop an unfinished run.
        plan_only: write plan.json, compute nothing.
        keep: keep the run's folder with plan and blocks.
        progress: called now and then with a `Progress`.

    Raises:
        GeoRefDiffError: one line that says what is wrong and what to do; nothing half-written is left as `out`.
        Interrupted: Ctrl-C; finished blocks are kept for `resume`.
    """
    started = perf_counter()
    if batch_size is not None and batch_size < 1:
        raise OptionError(f"batch size {batch_size}: give 1 or more")
    if out is not None:
        _check_out(Path(out).absolute(), resume=resume, overwrite=overwrite)
    request = Request(
        scene, ref, mask, aoi, scale, model, steps, sampler, seed, device, dtype,
        window, overlap, block_size, bands, scene_range, psf_sigma,
    )  # fmt: skip
    with gdal_env():
        planned = make_plan(request)
    plan = planned.plan
    final = _default_out(plan) if out is None else Path(out).absolute()
    _check_out(final, resume=resume, overwrite=overwrite)
    _check_not_an_input(final, request)
    check_space(plan, final.parent)
    timings = {"plan": perf_counter() - started}
    if resume and _complete(plan, final):
        done = ("everything was finished already", *planned.notes)
        return _result(final, None, Planned(plan, planned.restorer, done), {**timings, "total": timings["plan"]}, None)
    if final.exists() and not overwrite:
        raise OutputError(f"{final}: exists already; choose another name or say --overwrite")
    workdir = Workdir(workdir_of(final))
    with workdir.locked() as existed:
        try:
            planned = replace(planned, plan=workdir.prepare(plan, resume=resume, overwrite=overwrite))
            if plan_only:
                return _result(final, workdir.plan, planned, {**timings, "total": timings["plan"]}, None)
            counts = _run(planned, workdir, final, batch_size, overwrite, keep, timings, progress)
        except KeyboardInterrupt as stop:
            done_blocks = len(workdir.done(plan.blocks))
            raise Interrupted(
                f"interrupted: {done_blocks} of {plan.blocks.count} blocks are finished in {workdir.path}; go on "
                f"with --resume"
            ) from stop
        except GeoRefDiffError as error:
            if not isinstance(error, ResumeError):
                _tidy(workdir, plan, error)
            elif not existed:
                workdir.remove()
            raise
    timings["total"] = perf_counter() - started
    return _result(final, workdir.plan if keep else None, planned, timings, counts)


def _run(
    planned: Planned,
    workdir: Workdir,
    final: Path,
    batch_size: int | None,
    overwrite: bool,
    keep: bool,
    timings: dict[str, float],
    progress: ProgressCallback | None,
) -> RunCounts:
    plan = planned.plan
    batch = batch_size or _BATCH[plan.device.partition(":")[0]]
    counts = run_blocks(plan, workdir, planned.restorer, batch_size=batch, progress=progress)
    timings["blocks"], timings["restore"] = counts.seconds, counts.restore_seconds
    before = perf_counter()
    if progress:
        progress(Progress("publish", plan.blocks.count, plan.blocks.count))
    publish(plan, workdir, final, overwrite=overwrite)
    timings["publish"] = perf_counter() - before
    if not keep:
        workdir.remove()
    return counts


def _tidy(workdir: Workdir, plan: Plan, error: GeoRefDiffError) -> None:
    """After an error only what can be resumed stays: finished blocks, if it was the disk and not the input."""
    with suppress(OSError):
        if isinstance(error, OutputError) and workdir.done(plan.blocks):
            workdir.clean()
        else:
            workdir.remove()


def _default_out(plan: Plan) -> Path:
    scene = Path(plan.scene.path)
    folder = scene.parent if scene.is_file() else Path.cwd()
    return folder / f"{scene.stem}_{plan.grid.scale}x.tif"


def _check_out(out: Path, *, resume: bool, overwrite: bool) -> None:
    check_output_path(out)
    if out.exists() and not (overwrite or resume):
        raise OutputError(f"{out}: exists already; choose another name or say --overwrite")


def _check_not_an_input(out: Path, request: Request) -> None:
    """Overwriting is for outputs: never what is being read."""
    aoi = None if request.aoi is None else request.aoi.partition("|layername=")[0]
    for given in (request.scene, request.ref, request.mask, aoi):
        if given is not None and out.exists() and Path(given).exists() and out.samefile(given):
            raise OutputError(f"{out}: is one of the inputs; choose another name for the output")


def _complete(plan: Plan, out: Path) -> bool:
    """Whether `out` is this plan's result: killed after its last step, or resumed once too often."""
    if not out.exists() or Workdir(workdir_of(out)).plan.exists():
        return False
    newest = max((info.mtime_ns for info in (plan.scene, plan.reference, plan.mask) if info), default=0)
    return out.stat().st_mtime_ns >= newest and published_digest(out) == plan.digest()


def _result(
    out: Path, plan_path: Path | None, planned: Planned, timings: dict[str, float], counts: RunCounts | None
) -> UpscaleResult:
    plan = planned.plan
    height, width = plan.shape
    numbers = {"blocks": plan.blocks.count, "pixels": height * width}
    if counts is not None:
        numbers |= {"blocks_found": counts.found, "windows": counts.windows, "batch_size": counts.batch_size}
    return UpscaleResult(
        out=out,
        plan_path=plan_path,
        crs=plan.crs_name,
        transform=tuple(float(v) for v in plan.geobox.affine[:6]),
        shape=plan.shape,
        bands=plan.bands.names,
        scale=plan.grid.scale,
        model=plan.model.name,
        model_sha256=plan.model.sha256,
        device=plan.device,
        timings=timings,
        counts=numbers,
        notes=planned.notes,
    )
