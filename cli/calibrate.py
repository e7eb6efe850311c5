"""geo-refdiff calibrate."""

from __future__ import annotations

from typing import Any

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import record_options, report_options
from geo_refdiff.cli.progress import counted
from geo_refdiff.options import CalibrateOptions


@click.command(context_settings={"show_default": True})
@click.argument("model")
@click.option(
    "--data",
    required=True,
    metavar="INDEX",
    help="Pairs as geo-refdiff index makes them; must not be pairs you evaluate on.",
)
@record_options(CalibrateOptions)
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
