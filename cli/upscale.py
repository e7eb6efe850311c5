"""geo-refdiff upscale."""

from __future__ import annotations

import logging
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geo_refdiff.cli.config_file import config_option, model_name, write_config
from geo_refdiff.cli.console import message_options, say, show
from geo_refdiff.cli.main import INTERRUPTED
from geo_refdiff.cli.options import GroupedCommand, given, record_options, report_options, shared
from geo_refdiff.cli.progress import RunMeter
from geo_refdiff.options import ClusterOptions, RunOptions, fields_of

if TYPE_CHECKING:
    from geo_refdiff.commands.upscale import UpscaleResult


@click.command(cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("scene", type=click.Path(path_type=str))
@click.option("--ref", metavar="FILE", help="Older, finer reference image, any CRS.")
@shared("mask")
@click.option(
    "-o", "--out", metavar="FILE", help="GeoTIFF to write, or VRT.  [default: SCENE_<scale>x.tif beside the scene]"
)
@shared(without=["mask"])
@record_options(ClusterOptions)
@config_option
@record_options(RunOptions)
@message_options
@report_options
def upscale(scene: str, out: str | None, as_json: bool, debug: bool, **options: Any) -> None:
    """Turn the coarse SCENE into a sharp GeoTIFF on a grid --scale times finer.

    \b
    geo-refdiff upscale scene.tif --ref old_sharp.tif --mask change.tif
    geo-refdiff upscale scene.tif --model bicubic --scale 4 --aoi field.gpkg -o field.tif
    geo-refdiff upscale country.tif --ref archive.vrt --scheduler-file scheduler.json --shard-size 16384
    """
    from geo_refdiff.commands.upscale import Interrupted
    from geo_refdiff.commands.upscale import upscale as run
    from geo_refdiff.raster.process import steady_heap

    steady_heap()
    cluster = ClusterOptions.among(options)
    options = {name: value for name, value in given(options).items() if name not in fields_of(ClusterOptions)}
    try:
        with RunMeter() as meter:
            where = _on_workers(cluster, options, meter) if cluster.used else options
            result = run(scene, out=None if out is None else Path(out), progress=meter, **where)
    except Interrupted as stop:
        say(f"{str(stop).removesuffix('--resume')}{_again()}", logging.ERROR)
        raise click.exceptions.Exit(INTERRUPTED) from stop
    if options["plan_only"] and result.plan_path is not None:
        result = _with_settings(result, result.plan_path, options["model"])
    for note in result.notes if as_json else ():
        if note not in meter.said:
            say(f"note: {note}")
    show(result, as_json, result.words(meter.said))


def _on_workers(cluster: ClusterOptions, options: dict[str, Any], meter: RunMeter) -> dict[str, Any]:
    """Options of a run whose blocks workers compute."""
    from geo_refdiff.batch.workers import block_runner, options_here

    return {**options_here(options, cluster), "runner": block_runner(cluster, options, meter.message)}


def _with_settings(result: UpscaleResult, plan_path: Path, model: str) -> UpscaleResult:
    """A run that is only planned, with a file of its settings, those that move pixels as the plan has them."""
    from geo_refdiff.plan.file import read_plan
    from geo_refdiff.plan.records import THREADS

    plan = read_plan(plan_path)
    decided = {
        "out": str(result.out),
        "scale": plan.grid.scale,
        "model": plan.model.source or model_name(model),
        "device": plan.device,
        "dtype": plan.dtype,
        "threads": int(plan.software[THREADS]),
    }
    return replace(result, config_path=write_config(result.out, click.get_current_context(), decided))


def _again() -> str:
    """The same command line, resumed."""
    args = [a for a in sys.argv[1:] if a != "--resume"]
    return shlex.join(["geo-refdiff", *args, "--resume"])
