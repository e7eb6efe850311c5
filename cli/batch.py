"""geo-refdiff batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.main import INTERRUPTED

_CLUSTER = ("workers", "scheduler", "scheduler_file", "resources", "split")


@click.command(context_settings={"show_default": True})
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
    help="Change masks, named as scenes are; or one file of polygons; auto compares scene and reference.",
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
@click.option("--scale", type=int, help="Output pixels along a scene pixel.  [default: from the reference, else 8]")
@click.option("--model", default="default", metavar="NAME|DIR", help="As for upscale.")
@click.option("--steps", type=int, help="Sampling steps.  [default: the model's]")
@click.option("--detail", type=float, metavar="0..1", help="As for upscale.  [default: the model's]")
@click.option("--sampler", help="As for upscale.  [default: the model's]")
@click.option("--seed", type=int, default=0, help="Seed of the noise.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where the model runs.")
@click.option("--dtype", default="float32", metavar="float32|bfloat16", help="In which the network runs.")
@click.option("--window", type=int, help="Window side, output pixels.  [default: the model's]")
@click.option("--overlap", type=int, help="Cross-fade between windows, output pixels.  [default: the model's]")
@click.option("--batch-size", type=int, help="Windows computed together.  [default: 1 on a CPU, 8 on a GPU]")
@click.option("--block-size", type=int, help="Side of the blocks that are finished one by one.  [default: 2048]")
@click.option("--bands", metavar="B,B,...", help="Bands to use, names or numbers, in the model's order.")
@click.option("--scene-range", type=(float, float), metavar="LOW HIGH", help="As for upscale.")
@click.option("--psf", metavar="NAME|SIGMA", help="The scenes' sensor, as for upscale.  [default: the model's]")
@click.option(
    "--consistency", metavar="strict|standard|off", help="As for upscale.  [default: standard; off for bicubic]"
)
@click.option("--other-bands", metavar="transfer|drop", help="As for upscale.  [default: transfer, without --bands]")
@click.option(
    "--products",
    default="source,style,stac,quicklook",
    metavar="P,P,...|all|none",
    help="What is written beside each output.",
)
@click.option("--no-change", type=int, metavar="VALUE", help="Value of the masks that means no change.  [default: 0]")
@click.option("--class-map", metavar="FILE", help="JSON or CSV: values, colours or names of the masks to classes.")
@click.option("--mask-field", metavar="NAME", help="Field of a vector mask that tells the class.")
@click.option("--min-confidence", type=float, metavar="0..1", help="Where --mask auto is less sure, it is unknown.")
@click.option("--coregister", default="auto", metavar="auto|global|local|off", help="As for upscale.")
@click.option("--max-residual", type=float, default=1.0, metavar="PIXELS", help="As for upscale, scene pixels.")
@click.option("--on-misregistration", default="stop", metavar="stop|no-ref", help="As for upscale.")
@click.option(
    "--threads", type=int, help="CPU threads for one area; kept for the whole batch.  [default: all; 1 for workers]"
)
@click.option("--workers", type=int, metavar="N", help="Do the work in N processes of this machine (needs dask).")
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Do the work on an existing dask cluster.")
@click.option("--scheduler-file", metavar="FILE", help="The same, with the address from a file.")
@click.option(
    "--resource", "resources", multiple=True, metavar="NAME=N", help="What a worker must have for a task: GPU=1."
)
@click.option(
    "--split", type=int, default=16, metavar="N", help="Areas of more blocks are shared by all workers; 0 = never."
)
@click.option("--retry-failed", is_flag=True, help="Try areas that failed before once more.")
@click.option("--overwrite", is_flag=True, help="Begin anew; replace outputs that are there.")
@click.option("--plan-only", is_flag=True, help="Print what would run and its cost, compute nothing.")
@click.option("--report", metavar="FILE", help="HTML page to write: map, thumbnails, figures.")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary on stdout.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def batch(areas: str, out: str, plan_only: bool, as_json: bool, debug: bool, **given: Any) -> None:
    """Upscale every area of AREAS into a GeoTIFF of its own; the same command goes on where it stopped.

    \b
    geo-refdiff batch aois.gpkg --scene scenes/ --ref archive.csv --mask auto --out sharp/
    geo-refdiff batch "aois.gpkg|layername=fields" --scene items.json --out sharp/ --plan-only
    """
    from geo_refdiff.io.memory import steady_heap
    from geo_refdiff.pipeline.batch.batch import BatchInterrupted, plan_batch
    from geo_refdiff.pipeline.batch.batch import batch as run
    from geo_refdiff.pipeline.batch.inputs import Sources

    steady_heap()
    cluster = {name: given.pop(name) for name in _CLUSTER}
    kept = {name: given.pop(name) for name in ("threads", "retry_failed", "overwrite", "report")}
    assets = {role: given.pop(f"{key}_asset") for role, key in _ASSETS.items()}
    sources = Sources(
        given.pop("scenes"),
        given.pop("references"),
        given.pop("masks"),
        given.pop("date"),
        given.pop("ref_before"),
        assets,
    )
    name_field = given.pop("name_field")
    given["bands"] = None if given["bands"] is None else [b for b in given["bands"].split(",") if b.strip()]
    options = {key: value for key, value in given.items() if value is not None}
    if plan_only:
        table = plan_batch(areas, sources, out, options=options, name_field=name_field)
        click.echo(json.dumps(table.to_dict(), allow_nan=False) if as_json else str(table))
        raise click.exceptions.Exit(0 if table.possible else 1)
    from geo_refdiff.cli.batch_meter import BatchMeter
    from geo_refdiff.pipeline.batch.cluster import runner_for

    with BatchMeter() as meter:
        try:
            result = run(
                areas,
                sources,
                Path(out),
                options=options,
                name_field=name_field,
                runner=runner_for(**cluster),
                watch=meter,
                **kept,
            )
        except BatchInterrupted as stop:
            meter.clear()
            click.echo(str(stop), err=True)
            raise click.exceptions.Exit(INTERRUPTED) from stop
    click.echo(json.dumps(result.to_dict(), allow_nan=False) if as_json else str(result))
    if not result.complete:
        raise click.exceptions.Exit(1)


_ASSETS = {"scene": "scene", "reference": "ref", "mask": "mask"}
