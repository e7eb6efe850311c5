"""Upscale one scene, from files to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from geo_refdiff.commands.products import chosen_products, product_files, write_products
from geo_refdiff.commands.result import UpscaleResult
from geo_refdiff.engine.publish import publish, published_digest, published_tags
from geo_refdiff.engine.run import (
    UNCERTAINTY,
    BlockRunner,
    Progress,
    ProgressCallback,
    RunCounts,
    run_blocks,
)
from geo_refdiff.engine.shards import check_shards, publish_shards, published_size, shards_of
from geo_refdiff.engine.tags import unreached
from geo_refdiff.engine.workdir import Workdir, check_geotiff, check_output, workdir_of
from geo_refdiff.errors import GeoRefDiffError, OptionError, OutputError, ResumeError
from geo_refdiff.nn.device import torch_settings
from geo_refdiff.plan.aligning import MAX_RESIDUAL
from geo_refdiff.plan.planning import Planned, Request, check_space, make_plan
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.atomic import check_free, is_filled
from geo_refdiff.raster.dates import asked_span
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.layer_source import layer_source
from geo_refdiff.raster.vector import is_wkt
from geo_refdiff.restore.models import Model, RestorerFactory, default_batch

__all__ = ["Interrupted", "UpscaleResult", "upscale"]


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
    model: str | Path | RestorerFactory | Model = "default",
    steps: int | None = None,
    detail: float | None = None,
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
    psf: str | float | None = None,
    consistency: str | None = None,
    other_bands: str | None = None,
    products: str | Sequence[str] | None = None,
    uncertainty: int | None = None,
    scene_date: str | None = None,
    no_change: int | None = None,
    class_map: str | Path | None = None,
    mask_field: str | None = None,
    mask_confidence: str | Path | None = None,
    min_confidence: float | None = None,
    mask_lies_on: str = "auto",
    coregister: str = "auto",
    max_residual: float = MAX_RESIDUAL,
    on_misregistration: str = "stop",
    threads: int | None = None,
    shard_size: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    plan_only: bool = False,
    keep: bool = False,
    progress: ProgressCallback | None = None,
    runner: BlockRunner = run_blocks,
) -> UpscaleResult:
    """Turn a coarse scene into a sharp one on a grid `scale` times finer, as a cloud-optimised GeoTIFF.

    Args:
        scene: raster with affine and CRS; any number of bands for classical models.
        ref: older, finer reference, any CRS; None: plain super-resolution.
        mask: change mask in any CRS: a raster of class indices (0 = no change), of other values (see `class_map`) or
            of colours (SECOND's by default), or polygons, `FILE|layername=NAME` for one layer of several; "auto": found
            by comparing scene and reference, as with None where that is possible; "none": no change known.
        out: GeoTIFF to write, or VRT with `shard_size`; default `<scene>_<scale>x.tif` (.vrt) beside the scene.
        aoi: "xmin,ymin,xmax,ymax" in the scene's CRS, snapped outwards to its pixels, or a vector file in any CRS.
        scale: whole factor; default from the reference's pixel size, else 8.
        model: an open model, a bundled one, a model folder, "bicubic", "bicubic-ibp" or "matched-ref".
        steps, sampler: of the diffusion; default as the model says.
        detail: 0 (the conditional mean) to 1 (a full sample); default as the model says.
        seed: of the noise.
        device: "auto", "cpu", "cuda" or "cuda:N".
        dtype: "float32" or "bfloat16", in which the network runs.
        window, overlap: HR pixels, rounded up to what fits.
        batch_size: windows restored together; changes no pixel on the CPU.
        block_size: side of the blocks that are written one by one, a multiple of 16; changes no pixel.
        bands: names or 1-based numbers, in the order of the model's channels.
        scene_range: digital numbers that become -1 and 1 for the model.
        psf: the declared sensor: "sentinel-2", "landsat", "area", "default", "bicubic", or the width of its Gaussian
            PSF in LR pixels; default what the model was made for.
        consistency: "standard": the output seen by that sensor is the scene, before values are clipped and rounded;
            "strict": to half a digital number in the file, too; "off". Default "standard", but for plain "bicubic".
        other_bands: "transfer" or "drop" bands that the model does not know; default "transfer", unless `bands` says
            which are wanted.
        products: what is written beside the output, of "source" (where each pixel's detail comes from), "style"
            (.qml for QGIS), "stac" and "quicklook", or "all"; None or "none": nothing.
        uncertainty: runs with other noise, 2 to 64, for `out.uncertainty.tif`: half-widths of 90 % intervals.
        scene_date: when the scene was taken, for the STAC item: "2021-05-03", "2021-05-03T10:30:21Z", "2021-05",
            "2021", or "FIRST/LAST"; default from its metadata, its name, the file's time.
        no_change: value of a raster mask that means "no change".
        class_map: JSON or CSV file from values, colours or names in the mask to the model's classes.
        mask_field: of polygons, whose values tell the class; None: polygons are changes to an unknown class.
        mask_confidence: raster of 0 to 1 that says how sure the mask is.
        min_confidence: below it the mask is taken for unknown; default 0.5 with `mask_confidence`, 0.7 with "auto".
        mask_lies_on: "scene": a mask from a file is right there; "ref": it lies where the reference does, and is moved
            with it; "auto": by its tag (`detect_change` writes one) or its grid; polygons are moved.
        coregister: "auto", "global", "local" or "off": whether and how the reference is moved onto the scene
            before they are used; "auto" finds out which it takes, and leaves alone what is too small or too plain.
        max_residual: what may be left of the shifts after that, LR pixels.
        on_misregistration: what happens where more is left, or where the reference does not match the scene at all:
            "stop", or "no-ref": go on without the reference there.
        threads: CPU threads of each process that computes; their number moves last bits of convolutions; default as
            torch is set, which is all cores. An unfinished run keeps its own.
        shard_size: side of the GeoTIFFs, output pixels, that are written into `out.shards`, with `out` a VRT that names
            them; a multiple of the blocks; default: one GeoTIFF.
        resume: go on with an unfinished run of the same inputs and options.
        overwrite: replace a finished output and drop an unfinished run.
        plan_only: write plan.json, compute nothing.
        keep: keep the run's folder with plan and blocks.
        progress: called now and then with a `Progress`.
        runner: who computes the blocks: this process, or workers.

    Raises:
        GeoRefDiffError: one line that says what is wrong and what to do; nothing half-written is left as `out`, and
            finished blocks are kept for `resume`.
        Interrupted: Ctrl-C; finished blocks are kept for `resume`.
    """
    started = perf_counter()
    if batch_size is not None and batch_size < 1:
        raise OptionError(f"batch size {batch_size}: give 1 or more")
    if threads is not None and threads < 1:
        raise OptionError(f"threads {threads}: give 1 or more")
    if out is not None:
        _check_out(Path(out).absolute(), shard_size, resume or overwrite)
    taken = None if scene_date is None else asked_span("--scene-date", scene_date)
    wanted = chosen_products(products) + (() if uncertainty is None else (UNCERTAINTY,))
    request = Request(
        scene=scene, ref=ref, mask=mask, aoi=aoi, scale=scale, model=model, steps=steps, detail=detail,
        sampler=sampler, seed=seed, device=device, dtype=dtype, window=window, overlap=overlap, block_size=block_size,
        bands=bands, scene_range=scene_range, psf=psf, consistency=consistency, other_bands=other_bands,
        source_map="source" in wanted, uncertainty=uncertainty, no_change=no_change, class_map=class_map,
        mask_field=mask_field, mask_confidence=mask_confidence, min_confidence=min_confidence,
        mask_lies_on=mask_lies_on, coregister=coregister, max_residual=max_residual,
        on_misregistration=on_misregistration,
    )  # fmt: skip
    with gdal_env(), torch_settings(threads or 0):  # the plan notes their number, for all who compute
        planned = make_plan(request)
    plan = planned.plan
    final = _default_out(plan, shard_size) if out is None else Path(out).absolute()
    _check_out(final, shard_size, resume or overwrite)
    if shard_size is not None:
        check_shards(final, shard_size, plan, replace=resume or overwrite)
    beside = product_files(final, wanted)
    for file in (final, *beside):
        _check_not_an_input(file, request)
    for file in beside:
        check_output(file, resume or overwrite)
    check_space(plan, final.parent)
    timings = {"plan": perf_counter() - started}
    if resume and _complete(plan, final, shard_size) and all(map(is_filled, beside)):
        planned = replace(planned, notes=("everything was finished already", *planned.notes, *_left(plan, final)))
        return _result(final, None, planned, {**timings, "total": timings["plan"]}, None)
    check_free(final, overwrite or (resume and published_digest(final) == plan.digest()))
    replaces = final.exists()
    workdir = Workdir(workdir_of(final))
    with workdir.locked() as existed:
        try:
            planned = replace(planned, plan=workdir.prepare(plan, resume=resume, overwrite=overwrite))
            if plan_only:
                return _result(final, workdir.plan, planned, {**timings, "total": timings["plan"]}, None)
            counts = _run(planned, workdir, final, batch_size, replaces, timings, progress, runner, shard_size)
            planned = replace(planned, notes=(*planned.notes, *_left(plan, final)))
            write_products(plan, workdir, final, wanted, planned.notes, taken)
            if not keep:
                workdir.remove()
        except KeyboardInterrupt as stop:
            done_blocks = len(workdir.done(plan.blocks))
            raise Interrupted(
                f"interrupted: {done_blocks} of {plan.blocks.count} blocks are finished in {workdir.path}; go on "
                f"with --resume"
            ) from stop
        except ResumeError:
            if not existed:
                workdir.remove()
            raise
        except GeoRefDiffError as error:
            kept = _tidy(workdir, plan, resume=resume and existed)
            if not kept:
                raise
            again = "the same once more goes on with them" if resume else "go on with --resume"
            raise type(error)(
                f"{error}; {kept} of {plan.blocks.count} blocks are finished in {workdir.path}; {again}"
            ) from error
        except Exception:
            _tidy(workdir, plan, resume=resume and existed)
            raise
    timings["total"] = perf_counter() - started
    return _result(final, workdir.plan if keep else None, planned, timings, counts)


def _run(
    planned: Planned,
    workdir: Workdir,
    final: Path,
    batch_size: int | None,
    overwrite: bool,
    timings: dict[str, float],
    progress: ProgressCallback | None,
    runner: BlockRunner,
    shard_size: int | None,
) -> RunCounts:
    plan = planned.plan
    batch = batch_size or default_batch(plan.device)
    counts = runner(plan, workdir, planned.restorer, batch_size=batch, progress=progress)
    timings["blocks"], timings["restore"] = counts.seconds, counts.restore_seconds
    before = perf_counter()
    if progress:
        progress(Progress("publish", plan.blocks.count, plan.blocks.count))
    if shard_size is None:
        publish(plan, workdir, final, overwrite=overwrite)
    else:
        publish_shards(plan, workdir, final, shard_size, overwrite=overwrite)
    timings["publish"] = perf_counter() - before
    return counts


def _left(plan: Plan, out: Path) -> tuple[str, ...]:
    """A note of what strict mode could not reach in the finished output."""
    told = unreached(published_tags(out), plan.output.dtype)
    return () if told is None else (told,)


def _tidy(workdir: Workdir, plan: Plan, *, resume: bool) -> int:
    """After an error all that can be resumed stays; a run that has begun nothing leaves nothing.

    Args:
        workdir: of the run, which is locked.
        plan: of the run.
        resume: whether the run went on with what was there, which stays in any case.

    Returns:
        finished blocks.
    """
    try:
        done = len(workdir.done(plan.blocks))
    except (OSError, OutputError):  # nobody can tell: left as it is
        return 0
    if done or resume:
        workdir.clean()
    else:
        workdir.remove()
    return done


def _default_out(plan: Plan, shard_size: int | None) -> Path:
    scene = Path(plan.scene.path)
    folder = scene.parent if scene.exists() else Path.cwd()
    return folder / f"{scene.stem.removesuffix('.SAFE')}_{plan.grid.scale}x.{'tif' if shard_size is None else 'vrt'}"


def _check_out(out: Path, shard_size: int | None, replace: bool) -> None:
    is_vrt = out.suffix.lower() == ".vrt"
    if shard_size is not None and not is_vrt:
        raise OptionError(f"{out}: with --shard-size the output is a VRT; call it {out.with_suffix('.vrt').name}")
    if shard_size is None and is_vrt:
        raise OptionError(f"{out}: a GeoTIFF is written; call it {out.with_suffix('.tif').name}, or give --shard-size")
    (check_output if is_vrt else check_geotiff)(out, replace)


def _check_not_an_input(out: Path, request: Request) -> None:
    """Overwriting is for outputs: never what is being read."""
    aoi = None if request.aoi is None or is_wkt(request.aoi) else layer_source(request.aoi).path
    for given in (request.scene, request.ref, *request.prior.files, aoi):
        if given is None or not Path(given).exists():
            continue
        if (out.exists() and out.samefile(given)) or shards_of(out) in Path(given).resolve().parents:
            raise OutputError(f"{out}: is one of the inputs; choose another name for the output")
        if Path(given).is_dir() and Path(given).resolve() in out.resolve().parents:
            raise OutputError(f"{out}: lies in one of the inputs, {given}; choose another folder for the output")


def _complete(plan: Plan, out: Path, shard_size: int | None) -> bool:
    """Whether `out` is this plan's result: killed after its last step, or resumed once too often."""
    if not out.exists() or Workdir(workdir_of(out)).plan.exists():
        return False
    if shard_size is not None and published_size(out) != shard_size:
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
        bands=plan.bands.output_names,
        scale=plan.grid.scale,
        model=plan.model.name,
        model_sha256=plan.model.sha256,
        device=plan.device,
        timings=timings,
        counts=numbers,
        notes=planned.notes,
    )
