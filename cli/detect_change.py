"""geo-refdiff detect-change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import GroupedCommand, given, record_options, report_options, shared
from geo_refdiff.cli.progress import counted
from geo_refdiff.options import FIELDS, DetectChangeOptions

_HELP = {
    "scale": "Reference pixels along a scene pixel.  [default: from the reference's pixel size]",
    "bands": "Red, green, blue and, if there, near infrared: names or numbers from 1.  [default: by their names]",
    "psf": f"{FIELDS['psf'].option.help}  [default: 0.35]",
    "min_confidence": "What is less sure than this becomes unknown.  [default: 0]",
}


@click.command(name="detect-change", cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("scene", type=click.Path(path_type=str))
@click.argument("ref", type=click.Path(path_type=str))
@click.option("-o", "--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="Mask to write.")
@record_options(DetectChangeOptions)
@shared("scale", "bands", "scene_range", "psf", "min_confidence", "cloud_mask", texts=_HELP)
@message_options
@report_options
def detect_change(scene: str, ref: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Write where and to what the coarse SCENE has changed since the fine REF was taken.

    \b
    geo-refdiff detect-change scene.tif old_sharp.tif -o change.tif
    geo-refdiff upscale scene.tif --ref old_sharp.tif --mask change.tif --mask-confidence change.confidence.tif
    """
    from geo_refdiff.commands.detect_change import detect_change as run
    from geo_refdiff.raster.process import steady_heap

    steady_heap()
    with counted("block") as progress:
        result = run(scene, ref, progress=progress, **given(options))
    show(result, as_json)
