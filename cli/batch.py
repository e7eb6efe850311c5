"""geo-refdiff batch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.config_file import config_option, model_name, write_config
from geo_refdiff.cli.console import message_options, say, show
from geo_refdiff.cli.main import INTERRUPTED
from geo_refdiff.cli.options import (
    CLUSTER,
    GroupedCommand,
    Option,
    cluster_option,
    cluster_options,
    report_options,
    shared,
)


@click.command(cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("areas", type=click.Path(path_type=str))
@click.option(
    "--scene",
    "scenes",
    multiple=True,
    required=True,
    metavar="SOURCE",
    help="Scenes to choose from: files, a folder, an index (CSV, GeoPackage) or STAC (path or URL). Repeatable.",
)
@click.option("--ref", "references", multiple=True, metavar="SOURCE", help="References, named as scenes are.")
@click.option(
    "--mask",
    "masks",
    multiple=True,
    metavar="SOURCE|auto|none",
    help="Change masks, named as scenes are; or one file of polygons; auto compares scene and reference.  "
    "[default: auto where there is a reference]",
)
@click.option("-o", "--out", required=True, metavar="DIR", help="Folder for the outputs and the manifest.")
@click.option("--name-field", metavar="NAME", help="Field of the areas that names the outputs.")
@click.option(
    "--date",
    metavar="DATE|FIRST/LAST",
    help="The scene nearest to a date, or only those within.  [default: the latest]",
)
@click.option(
    "--ref-before",
    metavar="DATE",
    help="Only references older than this.  [default: the latest before the scene, else the nearest]",
)
@click.option("--scene-asset", metavar="KEY,...", help="STAC assets of the scenes; several are stacked as bands.")
@click.option("--ref-asset", metavar="KEY,...", help="STAC assets of the references.")
@click.option("--mask-asset", metavar="KEY,...", help="STAC assets of the masks.")
@shared(without=["mask", "aoi", "scene_date", "threads"])
@click.option(
    "--threads",
    type=int,
    cls=Option,
    group="Compute",
    metavar="N",
    help="CPU threads for one area; kept for the whole batch.  [default: all; 1 for workers]",
)
@cluster_options
@cluster_option(
    "--split", type=int, default=16, metavar="N", help="Areas of more blocks are shared by all workers; 0 = never."
)
@config_option
@click.option("--retry-failed", is_flag=True, help="Try areas that failed before once more.")
@click.option("--overwrite", is_flag=True, help="Begin anew; replace outputs that are there.")
@click.option("--plan-only", is_flag=True, help="Print what would run and its cost, compute nothing.")
@click.option("--report", metavar="FILE", help="HTML page to write: map, thumbnails, figures; replaces its own.")
@message_options
@report_options
def batch(areas: str, out: str, plan_only: bool, as_json: bool, debug: bool, **given: Any) -> None:
    """Upscale every area of AREAS into a GeoTIFF of its own; the same command goes on where it stopped.

    \b
    geo-refdiff batch aois.gpkg --scene scenes/ --ref archive.csv --mask auto --out sharp/
    geo-refdiff batch "aois.gpkg|layername=fields" --scene items.json --out sharp/ --plan-only
    """
    from geo_refdiff.batch.jobs import Sources
    from geo_refdiff.batch.run import BatchInterrupted, plan_batch
    from geo_refdiff.batch.run import batch as run
    from geo_refdiff.batch.workers import batch_runner
    from geo_refdiff.raster.process import steady_heap

    steady_heap()
    cluster = {name: given.pop(name) for name in (*CLUSTER, "split")}
    kept = {name: given.pop(name) for name in ("threads", "retry_failed", "overwrite", "report")}
    assets = {role: given.pop(f"{key}_asset") for role, key in _ASSETS.items()}
    sources = Sources(
        scenes=given.pop("scenes"),
        references=given.pop("references"),
        masks=given.pop("masks"),
        date=given.pop("date"),
        ref_before=given.pop("ref_before"),
        assets=assets,
    )
    name_field = given.pop("name_field")
    options = {key: value for key, value in given.items() if value is not None}
    runner = batch_runner(**cluster)
    elsewhere = runner is not None and cluster["workers"] is None
    if plan_only:
        again = {name: kept[name] for name in ("retry_failed", "overwrite")}
        table = plan_batch(areas, sources, out, options=options, name_field=name_field, elsewhere=elsewhere, **again)
        decided = {"out": str(Path(out).absolute()), "model": model_name(options["model"])}
        config = write_config(Path(out).absolute(), click.get_current_context(), decided)
        show(table, as_json, f"{table}\nsettings: {config}; run them with --config {config}")
        raise click.exceptions.Exit(0 if table.possible else 1)
    from geo_refdiff.cli.batch_meter import BatchMeter

    with BatchMeter() as meter:
        try:
            result = run(
                areas,
                sources,
                Path(out),
                options=options,
                name_field=name_field,
                runner=runner,
                listener=meter,
                elsewhere=elsewhere,
                **kept,
            )
        except BatchInterrupted as stop:
            meter.close()
            say(str(stop), logging.ERROR)
            raise click.exceptions.Exit(INTERRUPTED) from stop
    show(result, as_json)
    if not result.complete:
        raise click.exceptions.Exit(1)


_ASSETS = {"scene": "scene", "reference": "ref", "mask": "mask"}
