"""Upscale one scene, from files to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from geo_refdiff.change.polygons import mask_name
from geo_refdiff.commands.products import product_files, write_products
from geo_refdiff.engine.estimate import CostEstimate, Speeds, estimate, kind_of
from geo_refdiff.engine.publish import publish, published_digest, published_tags
from geo_refdiff.engine.rasters import UNCERTAINTY, unreached
from geo_refdiff.engine.run import (
    BlockRunner,
    Progress,
    ProgressCallback,
    RunCounts,
    run_blocks,
)
from geo_refdiff.engine.shards import check_shards, publish_shards, published_size, shards_of
from geo_refdiff.engine.workdir import Workdir, check_geotiff, check_output, workdir_of
from geo_refdiff.errors import GeoRefDiffError, OptionError, OutputError, ResumeError
from geo_refdiff.nn.device import torch_settings
from geo_refdiff.options import FIELDS, RunOptions, UpscaleOptions, fields_of, takes_options
from geo_refdiff.plan.planning import Planned, check_space, make_plan
from geo_refdiff.plan.records import Plan
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.files import check_free, is_filled
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.location import Raster, name_of
from geo_refdiff.raster.vector import is_wkt, layer_source
from geo_refdiff.restore.models import default_batch

__all__ = ["Interrupted", "UpscaleResult", "upscale"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; what is finished is kept, and the message says how to continue."""


@takes_options({**fields_of(RunOptions), **FIELDS})
def upscale(
    scene: Raster,
    *,
    ref: Raster | None = None,
    mask: Any = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
    runner: BlockRunner = run_blocks,
    **options: Any,
) -> UpscaleResult:
    """Turn a coarse scene into a sharp one on a grid `scale` times finer, as a cloud-optimised GeoTIFF.

    Args:
        scene: raster with affine and CRS, a path or an open rasterio dataset; any number of bands for classical models.
        ref: older, finer reference, any CRS, as the scene; None: plain super-resolution.
        out: GeoTIFF to write, or VRT with `shard_size`; default `<scene>_<scale>x.tif` (.vrt) beside the scene.
        progress: called now and then with a `Progress`.
        runner: who computes the blocks: this process, or workers.
        mask, options: as listed below (`geo_refdiff.options`); `mask` and `aoi` may also be polygons of shapely (in
            the scene's CRS), a GeoSeries or a GeoDataFrame; other files also open rasterio datasets; `model` also an
            open model or a function that makes a restorer.

    Raises:
        GeoRefDiffError: one line that says what is wrong and what to do; nothing half-written remains as `out`, and
            finished blocks are kept for `resume`.
        Interrupted: Ctrl-C; finished blocks are kept for `resume`.
    """
    started = perf_counter()
    scene, ref = name_of(scene), None if ref is None else name_of(ref)
    run = RunOptions.among(options)
    replaceable = run.resume or run.overwrite
    asked = UpscaleOptions.among({**options, "mask": mask_name(mask, lambda: inspect(scene, "scene").crs_wkt)})
    products, shard_size = asked.output.products, asked.output.shard_size
    if out is not None:
        _check_out(Path(out).absolute(), shard_size, replaceable)
    wanted = (*products, *(() if asked.output.uncertainty is None else (UNCERTAINTY,)))
    with gdal_env(), torch_settings(asked.compute.threads or 0):  # the plan notes their number, for all who compute
        planned = make_plan(scene, ref, asked)
    plan = planned.plan
    final = _default_out(plan, shard_size) if out is None else Path(out).absolute()
    _check_out(final, shard_size, replaceable)
    if shard_size is not None:
        check_shards(final, shard_size, plan, replace=replaceable)
    beside = product_files(final, wanted)
    inputs = _inputs(scene, ref, asked)
    for file in (final, *beside):
        _check_not_an_input(file, inputs)
    for file in beside:
        check_output(file, replaceable)
    check_space(plan, final.parent)
    timings = {"plan": perf_counter() - started}
    if run.resume and _complete(plan, final, shard_size) and all(map(is_filled, beside)):
        planned = replace(planned, notes=("everything was finished already", *planned.notes, *_left(plan, final)))
        return _result(final, None, planned, {**timings, "total": timings["plan"]}, None)
    check_free(final, run.overwrite or (run.resume and published_digest(final) == plan.digest))
    replaces = final.exists()
    workdir = Workdir(workdir_of(final))
    with workdir.locked() as existed:
        try:
            planned = replace(planned, plan=workdir.prepare(plan, resume=run.resume, overwrite=run.overwrite))
            if run.plan_only:
                return _result(final, workdir.plan, planned, {**timings, "total": timings["plan"]}, None)
            counts = _run(planned, workdir, final, asked, replaces, timings, progress, runner)
            planned = replace(planned, notes=(*planned.notes, *_left(plan, final)))
            write_products(plan, workdir, final, wanted, planned.notes, asked.output.scene_date)
            if not run.keep:
                workdir.remove()
            if runner is run_blocks and not counts.resumed:
                Speeds.load().add(kind_of(plan), plan.shape[0] * plan.shape[1] / 1e6, perf_counter() - started)
        except KeyboardInterrupt as stop:
            done_blocks = len(workdir.done(plan.blocks))
            raise Interrupted(
                f"interrupted: {done_blocks} of {plan.blocks.count} blocks are finished in {workdir.path}; continue "
                f"with --resume"
            ) from stop
        except ResumeError:
            if not existed:
                workdir.remove()
            raise
        except GeoRefDiffError as error:
            kept = _tidy(workdir, plan, resume=run.resume and existed)
            if not kept:
                raise
            again = "the same command continues with them" if run.resume else "continue with --resume"
            raise type(error)(
                f"{error}; {kept} of {plan.blocks.count} blocks are finished in {workdir.path}; {again}"
            ) from error
        except Exception:
            _tidy(workdir, plan, resume=run.resume and existed)
            raise
    timings["total"] = perf_counter() - started
    return _result(final, workdir.plan if run.keep else None, planned, timings, counts)


def _run(
    planned: Planned,
    workdir: Workdir,
    final: Path,
    options: UpscaleOptions,
    overwrite: bool,
    timings: dict[str, float],
    progress: ProgressCallback | None,
    runner: BlockRunner,
) -> RunCounts:
    plan, shard_size = planned.plan, options.output.shard_size
    batch = options.compute.batch_size or default_batch(plan.device)
    if progress:
        progress(Progress("plan", 0, plan.blocks.count, planned.notes, str(estimate(plan))))
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
    note = unreached(published_tags(out), plan.output.dtype)
    return () if note is None else (note,)


def _tidy(workdir: Workdir, plan: Plan, *, resume: bool) -> int:
    """After an error all that can be resumed stays; a run that has begun nothing leaves nothing.

    Args:
        workdir: of the run, which is locked.
        plan: of the run.
        resume: whether the run continued with what was there, which stays in any case.

    Returns:
        finished blocks.
    """
    try:
        done = len(workdir.done(plan.blocks))
    except (OSError, OutputError):  # cannot be read: stays as it is
        return 0
    if done or resume:
        workdir.clean()
    else:
        workdir.remove()
    return done


def _default_out(plan: Plan, shard_size: int | None) -> Path:
    scene = Path(plan.scene.path)
    folder = scene.parent if scene.exists() else Path.cwd()
    stem = Path(plan.scene.name).stem.removesuffix(".SAFE")
    return folder / f"{stem}_{plan.grid.scale}x.{'tif' if shard_size is None else 'vrt'}"


def _check_out(out: Path, shard_size: int | None, replace: bool) -> None:
    is_vrt = out.suffix.lower() == ".vrt"
    if shard_size is not None and not is_vrt:
        raise OptionError(f"{out}: with --shard-size the output is a VRT; call it {out.with_suffix('.vrt').name}")
    if shard_size is None and is_vrt:
        raise OptionError(f"{out}: a GeoTIFF is written; call it {out.with_suffix('.tif').name}, or give --shard-size")
    (check_output if is_vrt else check_geotiff)(out, replace)


def _inputs(scene: str | Path, ref: str | Path | None, options: UpscaleOptions) -> list[Path]:
    """All files that are read and there."""
    aoi = options.grid.aoi
    given = (
        scene,
        ref,
        options.grid.like,
        *options.mask.files,
        options.clouds.file,
        None if aoi is None or is_wkt(aoi) else layer_source(aoi).path,
    )
    return [Path(name) for name in given if name is not None and Path(name).exists()]


def _check_not_an_input(out: Path, inputs: Sequence[Path]) -> None:
    """Overwriting is for outputs: never what is being read."""
    for given in inputs:
        if (out.exists() and out.samefile(given)) or shards_of(out) in given.resolve().parents:
            raise OutputError(f"{out}: is one of the inputs; choose another name for the output")
        if Path(given).is_dir() and Path(given).resolve() in out.resolve().parents:
            raise OutputError(f"{out}: is in one of the inputs, {given}; choose another folder for the output")


def _complete(plan: Plan, out: Path, shard_size: int | None) -> bool:
    """Whether `out` is this plan's result: killed after its last step, or resumed once too often."""
    if not out.exists() or Workdir(workdir_of(out)).plan.exists():
        return False
    if shard_size is not None and published_size(out) != shard_size:
        return False
    layers = [info.clouds for info in (plan.scene, plan.reference) if info is not None]
    newest = max((info.mtime_ns for info in (plan.scene, plan.reference, plan.mask, *layers) if info), default=0)
    return out.stat().st_mtime_ns >= newest and published_digest(out) == plan.digest


def _result(
    out: Path, plan_path: Path | None, planned: Planned, timings: dict[str, float], counts: RunCounts | None
) -> UpscaleResult:
    plan = planned.plan
    height, width = plan.shape
    numbers = {"blocks": plan.blocks.count, "pixels": height * width}
    if counts is not None:
        numbers |= {"blocks_resumed": counts.resumed, "windows": counts.windows, "batch_size": counts.batch_size}
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
        pairs=plan.bands.pairs(plan.model.bands),
        estimate=estimate(plan) if counts is None else None,
    )


@dataclass(frozen=True)
class UpscaleResult:
    """A finished (or only planned) run.

    Attributes:
        out: the GeoTIFF; it does not exist after `plan_only`.
        plan_path: plan.json of a run that is only planned, or kept; None once the run's folder is gone.
        crs: of the output.
        transform: pixel (col, row) to CRS units, (a, b, c, d, e, f).
        shape: (height, width), pixels.
        bands: names.
        config_path: TOML file of the settings, where the command has planned a run and no more.
        pairs: which bands of scene, reference and model belong together, as of `plan.records.Bands.pairs`.
        scale: output pixels along a scene pixel.
        model, model_sha256: the model.
        device: where it ran.
        timings: seconds: "plan", "blocks", "restore" (part of "blocks" spent in the model), "publish", "total".
        counts: "blocks", "blocks_resumed" (finished before), "windows", "batch_size", "pixels".
        estimate: what the run will take, where it is only planned.
        notes: what was decided without being asked, and what deserves a look.
    """

    out: Path
    plan_path: Path | None
    crs: str
    transform: tuple[float, ...]
    shape: tuple[int, int]
    bands: tuple[str, ...]
    scale: int
    model: str
    model_sha256: str
    device: str
    timings: Mapping[str, float]
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()
    pairs: Sequence[Mapping[str, Any]] = ()
    config_path: Path | None = None
    estimate: CostEstimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "out": str(self.out),
            "plan": None if self.plan_path is None else str(self.plan_path),
            "config": None if self.config_path is None else str(self.config_path),
            "grid": {
                "crs": self.crs,
                "transform": list(self.transform),
                "shape": list(self.shape),
                "scale": self.scale,
            },
            "bands": list(self.bands),
            "pairs": [dict(pair) for pair in self.pairs],
            "model": {"name": self.model, "sha256": self.model_sha256},
            "device": self.device,
            "timings": {k: round(v, 3) for k, v in self.timings.items()},
            "counts": dict(self.counts),
            "estimate": None if self.estimate is None else self.estimate.to_dict(),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return self.words()

    __repr__ = __str__

    def words(self, said: Sequence[str] = ()) -> str:
        """For people.

        Args:
            said: notes that they have read already.
        """
        from geo_refdiff.raster.crs import unit_of

        height, width = self.shape
        pixel = (self.transform[0] ** 2 + self.transform[3] ** 2) ** 0.5
        size = f"{width} x {height} pixels of {pixel:.6g} {unit_of(self.crs)} in {_short(self.crs)}"
        bands = f"{len(self.bands)} band{'s' * (len(self.bands) != 1)} ({', '.join(self.bands)})"
        head = f"{self.out}: {size}, {bands}, {self.scale}x ({self.model} model)"
        notes = [f"  note: {note}" for note in self.notes if note not in said]
        if self.plan_path is not None and "blocks" not in self.timings:
            plan = f"  plan: {self.plan_path}; run it with the same command without --plan-only"
            if self.config_path is not None:
                plan = f"{plan}, or with --config {self.config_path}"
            costs = [] if self.estimate is None else [f"  {self.estimate}"]
            return "\n".join([f"planned: {head}", *costs, plan, *notes])
        total = self.timings.get("total", 0.0)
        megapixels = self.counts.get("pixels", 0) / 1e6
        speed = f", {total / megapixels:.3g} s a megapixel" if megapixels else ""
        resumed = self.counts.get("blocks_resumed", 0)
        count = self.counts.get("blocks", 0)
        done = f"{count} block{'s' * (count != 1)}" + (f" ({resumed} from before)" if resumed else "")
        return "\n".join([head, f"  {total:.1f} s on {self.device}, {done}{speed}", *notes])


def _short(crs: str) -> str:
    return crs if len(crs) < 40 else crs[:37] + "..."
