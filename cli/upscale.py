"""geo-refdiff upscale."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from geo_refdiff.cli.main import INTERRUPTED
from geo_refdiff.cli.progress import as_lines, is_shown, show

if TYPE_CHECKING:
    from geo_refdiff.engine.run import Progress


@click.command(context_settings={"show_default": True})
@click.argument("scene", type=click.Path(path_type=str))
@click.option("--ref", metavar="FILE", help="Older, finer reference image, any CRS.")
@click.option(
    "--mask",
    metavar="FILE|auto|none",
    help="Change mask in any CRS: a raster of classes (0 = no change) or colours, or polygons; auto compares the scene "
    "with the reference.  [default: none]",
)
@click.option("--no-change", type=int, metavar="VALUE", help="Value of the mask that means no change.  [default: 0]")
@click.option("--class-map", metavar="FILE", help="JSON or CSV: values, colours or names of the mask to classes.")
@click.option("--mask-field", metavar="NAME", help="Field of a vector mask that tells the class.")
@click.option("--mask-confidence", metavar="FILE", help="Raster of 0 to 1: how sure the mask is.")
@click.option(
    "--min-confidence",
    type=float,
    metavar="0..1",
    help="Where the mask is less sure, it is unknown.  [default: 0.5 with --mask-confidence]",
)
@click.option("-o", "--out", metavar="FILE", help="GeoTIFF to write.  [default: SCENE_<scale>x.tif beside the scene]")
@click.option(
    "--aoi",
    metavar="FILE|XMIN,YMIN,XMAX,YMAX",
    help="Area of interest: a vector file (any CRS), or a box in the scene's CRS, or XMIN,YMIN,XMAX,YMAX,EPSG:4326.",
)
@click.option("--scale", type=int, help="Output pixels along a scene pixel.  [default: from the reference, else 8]")
@click.option(
    "--model",
    default="default",
    metavar="NAME|DIR",
    help="A bundled model, a model folder, bicubic, bicubic-ibp or matched-ref.",
)
@click.option("--steps", type=int, help="Sampling steps.  [default: the model's]")
@click.option(
    "--detail",
    type=float,
    metavar="0..1",
    help="0 = conditional mean: soft and safe; 1 = a full sample: crisp and partly invented.  [default: the model's]",
)
@click.option("--sampler", help="better-start, heun, euler, dpmpp-2m or published.  [default: the model's]")
@click.option("--seed", type=int, default=0, help="Seed of the noise.")
@click.option("--device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where the model runs.")
@click.option("--dtype", default="float32", metavar="float32|bfloat16", help="In which the network runs.")
@click.option("--window", type=int, help="Window side, output pixels.  [default: the model's]")
@click.option("--overlap", type=int, help="Cross-fade between windows, output pixels.  [default: the model's]")
@click.option("--batch-size", type=int, help="Windows computed together.  [default: 1 on a CPU, 8 on a GPU]")
@click.option("--block-size", type=int, help="Side of the blocks that are finished one by one.  [default: 2048]")
@click.option("--bands", metavar="B,B,...", help="Bands to use, names or numbers, in the model's order.")
@click.option(
    "--scene-range",
    type=(float, float),
    metavar="LOW HIGH",
    help="Values of the scene that the model sees as black and white.",
)
@click.option(
    "--psf",
    metavar="NAME|SIGMA",
    help="The scene's sensor: sentinel-2, landsat, area, default, bicubic, or the width of its PSF in scene pixels.  "
    "[default: the model's]",
)
@click.option(
    "--consistency",
    metavar="strict|standard|off",
    help="How closely the output, seen by that sensor, is the scene: strict means half a digital number in the file, "
    "saturated pixels included.  [default: standard; off for bicubic]",
)
@click.option(
    "--other-bands",
    metavar="transfer|drop",
    help="Bands that the model does not know.  [default: transfer, without --bands]",
)
@click.option(
    "--products",
    default="source,style,stac,quicklook",
    metavar="P,P,...|all|none",
    help="What is written beside the output: source (where each pixel's detail comes from), style (for QGIS), stac, "
    "quicklook.",
)
@click.option(
    "--uncertainty",
    type=int,
    metavar="RUNS",
    help="Also write out.uncertainty.tif, from so many runs with other noise: half-widths of 90 % intervals.",
)
@click.option(
    "--coregister",
    default="auto",
    metavar="auto|global|local|off",
    help="How reference and mask are moved onto the scene: by one shift, or by a field of shifts.",
)
@click.option(
    "--max-residual", type=float, default=1.0, metavar="PIXELS", help="What may be left after that, scene pixels."
)
@click.option(
    "--on-misregistration",
    default="stop",
    metavar="stop|no-ref",
    help="Where more is left, or the reference does not match the scene: stop, or go on without it there.",
)
@click.option("--resume", is_flag=True, help="Go on with an unfinished run.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output or unfinished run.")
@click.option("--plan-only", is_flag=True, help="Check everything and write the plan, compute nothing.")
@click.option("--keep", is_flag=True, help="Keep the folder with plan and blocks.")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable summary on stdout.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def upscale(scene: str, out: str | None, bands: str | None, as_json: bool, debug: bool, **options: Any) -> None:
    """Turn the coarse SCENE into a sharp GeoTIFF on a grid --scale times finer.

    \b
    geo-refdiff upscale scene.tif --ref old_sharp.tif --mask change.tif
    geo-refdiff upscale scene.tif --model bicubic --scale 4 --aoi field.gpkg -o field.tif
    """
    from geo_refdiff.io.memory import steady_heap
    from geo_refdiff.pipeline.upscale import Interrupted
    from geo_refdiff.pipeline.upscale import upscale as run

    meter = _Meter()
    steady_heap()
    try:
        result = run(
            scene,
            out=None if out is None else Path(out),
            bands=None if bands is None else [b for b in bands.split(",") if b.strip()],
            progress=meter,
            **options,
        )
    except Interrupted as stop:
        meter.clear()
        click.echo(f"{str(stop).removesuffix('--resume')}{_again()}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from stop
    finally:
        meter.clear()
    if as_json:
        click.echo(json.dumps(result.to_dict(), allow_nan=False))
    else:
        click.echo(str(result))


def _again() -> str:
    """The same command line, resumed."""
    args = [a for a in sys.argv[1:] if a != "--resume"]
    return shlex.join(["geo-refdiff", *args, "--resume"])


class _Meter:
    """One line on stderr that says how far a run is, where there is a terminal."""

    def __init__(self) -> None:
        self.shown = False
        self.started = self.last = monotonic()
        self.first: float | None = None

    def __call__(self, progress: Progress) -> None:
        now = monotonic()
        if not is_shown() or (now - self.last < 0.2 and progress.stage == "blocks"):
            return
        self.last = now
        if progress.stage == "publish":
            text = "writing the GeoTIFF ..."
        else:
            if self.first is None:
                self.first, self.started = progress.done, now
            share = progress.done / progress.total
            made = progress.done - self.first
            left = (now - self.started) / made * (progress.total - progress.done) if made > 0 else None
            text = f"block {min(int(progress.done) + 1, progress.total)} of {progress.total} ({share:.0%})"
            text += "" if left is None else f", {duration(left)} left"
        show(text)
        self.shown = not as_lines()

    def clear(self) -> None:
        """Remove the line."""
        if self.shown:
            click.echo("\r\033[K", nl=False, err=True)
            self.shown = False


def duration(seconds: float) -> str:
    """Seconds in words: "1 h 02 min", "3 min 20 s", "12 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
