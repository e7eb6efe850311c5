"""geo-refdiff detect-change."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.options import names, report_options
from geo_refdiff.cli.progress import cleared, show_count


@click.command(name="detect-change", context_settings={"show_default": True})
@click.argument("scene", type=click.Path(path_type=str))
@click.argument("ref", type=click.Path(path_type=str))
@click.option("-o", "--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="Mask to write.")
@click.option(
    "--grid", default="lr", metavar="lr|hr", help="Pixels of the scene, or those of the scene once it is upscaled."
)
@click.option("--scale", type=int, help="Reference pixels along a scene pixel.  [default: from the reference]")
@click.option(
    "--bands", metavar="B,B,...", callback=names, help="Bands of the scene: red, green, blue and, if there, nir."
)
@click.option(
    "--scene-range", type=(float, float), metavar="LOW HIGH", help="Values of the scene that are black and white."
)
@click.option("--psf", metavar="NAME|SIGMA", help="Sensor: a preset, or its PSF in scene pixels.  [default: 0.35]")
@click.option("--min-confidence", type=float, metavar="0..1", help="What is less sure becomes unknown.  [default: 0]")
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@report_options
def detect_change(scene: str, ref: str, bands: list[str] | None, as_json: bool, debug: bool, **options: Any) -> None:
    """Write where and to what the coarse SCENE has changed since the fine REF was taken.

    \b
    geo-refdiff detect-change scene.tif old_sharp.tif -o change.tif
    geo-refdiff upscale scene.tif --ref old_sharp.tif --mask change.tif --mask-confidence change.confidence.tif
    """
    from geo_refdiff.commands.detect_change import detect_change as run
    from geo_refdiff.raster.memory import steady_heap

    steady_heap()
    with cleared():
        result = run(scene, ref, bands=bands, progress=partial(show_count, "block"), **options)
    click.echo(json.dumps(result.to_dict(), allow_nan=False) if as_json else str(result))
