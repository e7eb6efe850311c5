"""Options that several commands share, each said once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def names(context: click.Context, parameter: click.Parameter, text: str | None) -> list[str] | None:
    """What stands between commas."""
    return None if text is None else [name for name in text.split(",") if name.strip()]


mask_options = together(
    click.option(
        "--no-change", type=int, metavar="VALUE", help="Value of the mask that means no change.  [default: 0]"
    ),
    click.option("--class-map", metavar="FILE", help="JSON or CSV: values, colours or names of the mask to classes."),
    click.option("--mask-field", metavar="NAME", help="Field of a vector mask that tells the class."),
    click.option(
        "--mask-lies-on",
        default="auto",
        metavar="auto|scene|ref",
        help="Where a mask is right: on the scene, or where the reference lies, and is moved with it; auto: by its "
        "grid; polygons are moved.",
    ),
)

confidence_options = together(
    click.option("--mask-confidence", metavar="FILE", help="Raster of 0 to 1: how sure the mask is."),
    click.option(
        "--min-confidence",
        type=float,
        metavar="0..1",
        help="Where the mask is less sure, it is unknown.  [default: 0.5, with auto 0.7]",
    ),
)

uncertainty_option = click.option(
    "--uncertainty",
    type=int,
    metavar="RUNS",
    help="Also write NAME.uncertainty.tif beside the output, from so many runs with other noise: half-widths of 90 "
    "% intervals.",
)

model_options = together(
    click.option("--scale", type=int, help="Output pixels along a scene pixel.  [default: from the reference, else 8]"),
    click.option(
        "--model",
        default="default",
        metavar="NAME|DIR",
        help="A bundled model, a model folder, bicubic, bicubic-ibp or matched-ref.",
    ),
    click.option("--steps", type=int, help="Sampling steps.  [default: the model's]"),
    click.option(
        "--detail",
        type=float,
        metavar="0..1",
        help="0 = conditional mean: soft and safe; 1 = a full sample: crisp and partly invented.  "
        "[default: the model's]",
    ),
    click.option("--sampler", help="better-start, heun, euler, dpmpp-2m or published.  [default: the model's]"),
    click.option("--seed", type=int, default=0, help="Seed of the noise."),
    click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where the model runs."),
    click.option("--dtype", default="float32", metavar="float32|bfloat16", help="In which the network runs."),
    click.option("--window", type=int, help="Window side, output pixels.  [default: the model's]"),
    click.option("--overlap", type=int, help="Cross-fade between windows, output pixels.  [default: the model's]"),
    click.option("--batch-size", type=int, help="Windows computed together.  [default: 1 on a CPU, 8 on a GPU]"),
    click.option("--block-size", type=int, help="Side of the blocks that are finished one by one.  [default: 2048]"),
    click.option(
        "--bands", metavar="B,B,...", callback=names, help="Bands to use, names or numbers, in the model's order."
    ),
    click.option(
        "--scene-range",
        type=(float, float),
        metavar="LOW HIGH",
        help="Values of the scene that the model sees as black and white.",
    ),
    click.option(
        "--psf",
        metavar="NAME|SIGMA",
        help="The scene's sensor: sentinel-2, landsat, area, default, bicubic, or the width of its PSF in scene "
        "pixels.  [default: the model's]",
    ),
    click.option(
        "--consistency",
        metavar="strict|standard|off",
        help="How closely the output, seen by that sensor, is the scene: strict means half a digital number in the "
        "file, saturated pixels included.  [default: standard; off for bicubic]",
    ),
    click.option(
        "--other-bands",
        metavar="transfer|drop",
        help="Bands that the model does not know.  [default: transfer, without --bands]",
    ),
    click.option(
        "--products",
        default="source,style,stac,quicklook",
        metavar="P,P,...|all|none",
        help="What is written beside the output: source (where each pixel's detail comes from), style (for QGIS), "
        "stac, quicklook.",
    ),
)

registration_options = together(
    click.option(
        "--coregister",
        default="auto",
        metavar="auto|global|local|off",
        help="How reference and mask are moved onto the scene: by one shift, or by a field of shifts.",
    ),
    click.option(
        "--max-residual", type=float, default=1.0, metavar="PIXELS", help="What may be left after that, scene pixels."
    ),
    click.option(
        "--on-misregistration",
        default="stop",
        metavar="stop|no-ref",
        help="Where more is left, or the reference does not match the scene: stop, or go on without it there.",
    ),
)

CLUSTER = ("workers", "scheduler", "scheduler_file", "resources", "worker_wait")
"""Names of what `cluster_options` give."""

cluster_options = together(
    click.option("--workers", type=int, metavar="N", help="Do the work in N processes of this machine (needs dask)."),
    click.option("--scheduler", metavar="tcp://HOST:PORT", help="Do the work on an existing dask cluster."),
    click.option("--scheduler-file", metavar="FILE", help="The same, with the address from a file."),
    click.option(
        "--resource", "resources", multiple=True, metavar="NAME=N", help="What a worker must have for a task: GPU=1."
    ),
    click.option(
        "--worker-wait",
        type=float,
        default=60.0,
        metavar="MINUTES",
        help="How long to wait while the cluster has no worker for the work.",
    ),
)

debug_option = click.option("--debug", is_flag=True, help="Show the traceback of an error.")

report_options = together(
    click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary on stdout."),
    debug_option,
)
