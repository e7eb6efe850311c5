"""geo-refdiff calibrate."""

from __future__ import annotations

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import report_options
from geo_refdiff.cli.progress import counted


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option(
    "--data",
    required=True,
    metavar="INDEX",
    help="Pairs as geo-refdiff index makes them; must not be pairs you evaluate on.",
)
@click.option("--root", metavar="DIR", help="Folder of their files.  [default: that of the index, or GEO_REFDIFF_DATA]")
@click.option("--scales", default="8,16", metavar="N,N,...", help="output pixels along a scene pixel.")
@click.option("--runs", default=2, help="Sampling runs for each tile, 2 to 64.")
@click.option("--places", default=48, help="Spread over the data; half serve for the fit, half for its factors.")
@click.option("--overwrite", is_flag=True, help="Replace a calibration that the folder holds.")
@message_options
@report_options
def calibrate(
    model: str,
    data: str,
    root: str | None,
    scales: str,
    runs: int,
    places: int,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Fit how sure MODEL is to pairs whose truth is known; writes uncertainty.json into its folder.

    \b
    geo-refdiff calibrate runs/mine/model --data pairs.csv
    """
    from geo_refdiff.commands.calibrate import calibrate as run
    from geo_refdiff.errors import OptionError

    try:
        numbers = [int(s) for s in scales.split(",")]
    except ValueError:
        raise OptionError(f"scales '{scales}': give whole numbers, as 8,16") from None
    with counted("tile") as progress:
        found = run(
            model,
            data,
            root=root,
            scales=numbers,
            runs=runs,
            places=places,
            overwrite=overwrite,
            progress=progress,
        )
    show(found, as_json)
