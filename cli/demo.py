"""geo-refdiff demo."""

from __future__ import annotations

from pathlib import Path

import click

from geo_refdiff.cli.console import message_options, show_text
from geo_refdiff.cli.options import debug_option
from geo_refdiff.cli.progress import RunMeter


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo_output"))
@click.option("--model", default="default", show_default=True, help="A bundled model or a model folder.")
@message_options
@debug_option
def demo(folder: Path, model: str, debug: bool) -> None:
    """Upscale the bundled sample scene into FOLDER: a GeoTIFF and a before/after picture."""
    from geo_refdiff.commands.demo import run_demo

    with RunMeter() as meter:
        made = run_demo(folder.absolute(), model=model, progress=meter)
    show_text(str(made))
