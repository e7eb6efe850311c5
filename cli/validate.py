"""geo-refdiff validate."""

from __future__ import annotations

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import report_options, shared
from geo_refdiff.cli.progress import counted


@click.command(context_settings={"show_default": True})
@click.argument("out", type=click.Path(path_type=str))
@click.option("--scene", required=True, metavar="FILE", help="The scene that OUT was made of.")
@click.option("--ref", metavar="FILE", help="The reference, for its registration and how much of its detail is used.")
@click.option("--truth", metavar="FILE", help="A fine image of the same time: PSNR, SSIM, HaarPSI, hallucinations.")
@shared("cloud_mask", texts={"cloud_mask": "As given to upscale with --clouds nodata."})
@message_options
@report_options
def validate(
    out: str, scene: str, ref: str | None, truth: str | None, cloud_mask: str, as_json: bool, debug: bool
) -> None:
    """Check that OUT keeps what it promises; exit with 1 where it does not.

    \b
    geo-refdiff validate scene_8x.tif --scene scene.tif --ref old.tif
    """
    from geo_refdiff.validate.validation import validate_product

    with counted("tile") as progress:
        result = validate_product(out, scene, truth, ref, cloud_mask, progress)
    show(result, as_json)
    if result.broken:
        raise click.exceptions.Exit(1)
