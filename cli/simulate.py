"""geo-refdiff simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import report_options
from geo_refdiff.cli.progress import counted


@click.command(context_settings={"show_default": True})
@click.argument("hr", type=click.Path(path_type=str))
@click.option("-o", "--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="GeoTIFF to write.")
@click.option("--scale", type=int, required=True, help="Input pixels along an output pixel, 1 to 64.")
@click.option("--preset", metavar="NAME", help="bicubic, area, default, sentinel-2 or landsat.  [default: default]")
@click.option(
    "--recipe",
    metavar="NAME|FILE.json",
    help="Instead of a preset, drawn once by --seed: sensor, published, a preset's name or a JSON file.",
)
@click.option("--seed", type=int, default=0, help="Seed of the draw and of the noise.")
@click.option("--noise", type=float, metavar="DN", help="Standard deviation of the noise.  [default: the recipe's]")
@click.option(
    "--range",
    "value_range",
    type=(float, float),
    metavar="LOW HIGH",
    help="Values that a recipe's noise and JPEG take for 0 and 255.  [default: 0 255]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@message_options
@report_options
def simulate(hr: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Write the coarse scene that a sensor would have taken of the fine raster HR.

    \b
    geo-refdiff simulate aerial.tif -o lr.tif --scale 8
    geo-refdiff simulate aerial.tif -o lr.tif --scale 16 --preset sentinel-2 --noise 1.5
    """
    from geo_refdiff.commands.simulate import simulate as run
    from geo_refdiff.raster.process import steady_heap

    steady_heap()
    with counted("block") as progress:
        result = run(hr, progress=progress, **options)
    show(result, as_json)
