"""geo-refdiff coregister."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import GroupedCommand, given, record_options, report_options, shared
from geo_refdiff.cli.progress import counted
from geo_refdiff.options import FIELDS, CoregisterOptions

_HELP = {
    "scale": "Pixels of the aligned reference along a scene pixel.  [default: from the reference's pixel size]",
    "bands": "Bands of the scene to compare, names or numbers from 1.  [default: those that both have]",
    "clouds": "Whether cloudy pixels of the reference's product, which are not compared, are kept in the aligned one.",
    "psf": f"{FIELDS['psf'].option.help}  [default: 0.35]",
}


@click.command(cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("scene", type=click.Path(path_type=str))
@click.argument("ref", type=click.Path(path_type=str))
@click.option("-o", "--out", metavar="FILE", type=click.Path(path_type=Path), help="Aligned reference to write.")
@record_options(CoregisterOptions)
@shared("scale", "bands", "psf", "cloud_mask", "clouds", texts=_HELP)
@message_options
@report_options
def coregister(scene: str, ref: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Measure how the fine REF is aligned with the coarse SCENE, and write it aligned.

    \b
    geo-refdiff coregister scene.tif old_sharp.tif
    geo-refdiff coregister scene.tif old_sharp.tif -o aligned.tif --report report.json --picture report.png
    """
    from geo_refdiff.commands.coregister import coregister as run
    from geo_refdiff.raster.process import steady_heap

    steady_heap()
    with counted("block") as progress:
        result = run(scene, ref, progress=progress, **given(options))
    show(result, as_json)
