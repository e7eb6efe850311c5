"""geo-refdiff demo."""

from __future__ import annotations

from pathlib import Path

import click

from geo_refdiff.cli.options import debug_option


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("demo_output"))
@click.option("--model", default="default", show_default=True, help="A bundled model or a model folder.")
@debug_option
def demo(folder: Path, model: str, debug: bool) -> None:
    """Upscale the bundled sample scene into FOLDER: a GeoTIFF and a before/after picture."""
    from geo_refdiff.commands.demo import run_demo

    click.echo(str(run_demo(folder.absolute(), model=model)))
