"""geo-refdiff simulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import record_options, report_options
from geo_refdiff.cli.progress import counted
from geo_refdiff.options import SimulateOptions


@click.command(context_settings={"show_default": True})
@click.argument("fine", type=click.Path(path_type=str))
@click.option("-o", "--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="GeoTIFF to write.")
@record_options(SimulateOptions)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@message_options
@report_options
def simulate(fine: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Write the coarse scene that a sensor would have taken of the raster FINE.

    \b
    geo-refdiff simulate aerial.tif -o lr.tif --scale 8
    geo-refdiff simulate aerial.tif -o lr.tif --scale 16 --preset sentinel-2 --noise 1.5
    """
    from geo_refdiff.commands.simulate import simulate as run
    from geo_refdiff.raster.process import steady_heap

    steady_heap()
    with counted("block") as progress:
        result = run(fine, progress=progress, **options)
    show(result, as_json)
