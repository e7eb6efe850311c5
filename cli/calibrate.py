"""geo-refdiff calibrate."""

from __future__ import annotations

from typing import Any

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import report_options
from geo_refdiff.cli.progress import counted
from geo_refdiff.errors import OptionError


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option(
    "--data",
    required=True,
    metavar="INDEX",
    help="Pairs as geo-refdiff index makes them; must not be pairs you evaluate on.",
)
@click.option("--root", metavar="DIR", help="Folder of their files.  [default: that of the index, or GEO_REFDIFF_DATA]")
@click.option("--scales", default="8,16", metavar="N,N,...", callback=lambda c, p, value: _numbers(value),
              help="output pixels along a scene pixel.")  # fmt: skip
@click.option("--runs", default=2, help="Sampling runs for each tile, 2 to 64.")
@click.option("--places", default=48, help="Spread over the data; half serve for the fit, half for its factors.")
@click.option("--overwrite", is_flag=True, help="Replace a calibration that the folder holds.")
@message_options
@report_options
def calibrate(model: str, data: str, as_json: bool, debug: bool, **options: Any) -> None:
    """Fit how sure MODEL is to pairs whose truth is known; writes uncertainty.json into its folder.

    \b
    geo-refdiff calibrate runs/mine/model --data pairs.csv
    """
    from geo_refdiff.commands.calibrate import calibrate as run

    with counted("tile") as progress:
        show(run(model, data, progress=progress, **options), as_json)


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise OptionError(f"scales '{text}': give whole numbers, as 8,16") from None
