"""geo-refdiff batch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.config_file import config_option, model_name, write_config
from geo_refdiff.cli.console import message_options, say, show
from geo_refdiff.cli.main import INTERRUPTED
from geo_refdiff.cli.options import GroupedCommand, given, record_options, report_options, shared
from geo_refdiff.options import FIELDS, BatchClusterOptions, BatchOptions, Sources, fields_of


@click.command(cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("areas", type=click.Path(path_type=str))
@click.option("-o", "--out", required=True, metavar="DIR", help="Folder for the outputs and the manifest.")
@record_options(Sources)
@shared(without=["mask", "aoi", "scene_date", "threads"])
@record_options(BatchClusterOptions, BatchOptions)
@config_option
@click.option("--plan-only", is_flag=True, help="Print what would run and its cost, compute nothing.")
@message_options
@report_options
def batch(areas: str, out: str, plan_only: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """Upscale every area of AREAS into a GeoTIFF of its own; the same command continues where it stopped.

    \b
    geo-refdiff batch aois.gpkg --scene scenes/ --ref archive.csv --mask auto --out sharp/
    geo-refdiff batch "aois.gpkg|layername=fields" --scene items.json --out sharp/ --plan-only
    """
    from geo_refdiff.batch.run import BatchInterrupted, plan_batch
    from geo_refdiff.batch.run import batch as run
    from geo_refdiff.batch.workers import batch_runner
    from geo_refdiff.raster.process import steady_heap

    steady_heap()
    cluster = BatchClusterOptions.among(options)
    sources = Sources.among(options)
    settings = {name: options.pop(name) for name in fields_of(BatchOptions)}
    common: dict[str, Any] = {
        "options": given({name: options[name] for name in FIELDS if name in options}),
        "elsewhere": cluster.elsewhere,
        **settings,
    }
    if plan_only:
        table = plan_batch(areas, sources, out, **common)
        decided = {"out": str(Path(out).absolute()), "model": model_name(common["options"]["model"])}
        config = write_config(Path(out).absolute(), click.get_current_context(), decided)
        show(table, as_json, f"{table}\nsettings: {config}; run them with --config {config}")
        raise click.exceptions.Exit(0 if table.possible else 1)
    from geo_refdiff.cli.progress import BatchMeter

    with BatchMeter() as meter:
        try:
            runner = batch_runner(cluster, cluster.split)
            result = run(areas, sources, out, runner=runner, listener=meter, **common)
        except BatchInterrupted as stop:
            meter.close()
            say(str(stop), logging.ERROR)
            raise click.exceptions.Exit(INTERRUPTED) from stop
    show(result, as_json)
    if not result.complete:
        raise click.exceptions.Exit(1)
