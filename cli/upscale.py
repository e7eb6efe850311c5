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
from geo_refdiff.cli.options import (
    CLUSTER,
    GroupedCommand,
    cluster_options,
    given,
    report_options,
    shared,
)
from geo_refdiff.cli.progress import as_lines, is_shown, show

if TYPE_CHECKING:
    from geo_refdiff.engine.run import Progress


@click.command(cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("scene", type=click.Path(path_type=str))
@click.option("--ref", metavar="FILE", help="Older, finer reference image, any CRS.")
@shared("mask")
@click.option(
    "-o", "--out", metavar="FILE", help="GeoTIFF to write, or VRT.  [default: SCENE_<scale>x.tif beside the scene]"
)
@shared(without=["mask"])
@cluster_options
@click.option("--resume", is_flag=True, help="Go on with an unfinished run.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output or unfinished run.")
@click.option("--plan-only", is_flag=True, help="Check everything and write the plan, compute nothing.")
@click.option("--keep", is_flag=True, help="Keep the folder with plan and blocks.")
@report_options
def upscale(scene: str, out: str | None, as_json: bool, debug: bool, **options: Any) -> None:
    """Turn the coarse SCENE into a sharp GeoTIFF on a grid --scale times finer.

    \b
    geo-refdiff upscale scene.tif --ref old_sharp.tif --mask change.tif
    geo-refdiff upscale scene.tif --model bicubic --scale 4 --aoi field.gpkg -o field.tif
    geo-refdiff upscale country.tif --ref archive.vrt --scheduler-file scheduler.json --shard-size 16384
    """
    from geo_refdiff.batch.cluster import block_runner, options_here
    from geo_refdiff.commands.upscale import Interrupted
    from geo_refdiff.commands.upscale import upscale as run
    from geo_refdiff.raster.memory import steady_heap

    meter = _Meter()
    steady_heap()
    cluster = {name: options.pop(name) for name in CLUSTER}
    options = given(options)
    try:
        runner = block_runner(**cluster, options=options, say=meter.say)
        result = run(
            scene,
            out=None if out is None else Path(out),
            progress=meter,
            runner=runner,
            **options_here(options, **cluster),
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

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        click.echo(text, err=True)

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
