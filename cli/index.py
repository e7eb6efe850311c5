"""geo-refdiff index."""

from __future__ import annotations

from pathlib import Path

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import report_options
from geo_refdiff.cli.progress import counted


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Index: .csv, .parquet or .gpkg.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder that the paths in the index are relative to.  [default: the index's own]",
)
@click.option(
    "--pattern",
    metavar="TEMPLATE",
    help="Path of a date, e.g. '<city>/<place>/<year>' or '<date>/<place>'.  [default: a folder is a place]",
)
@click.option("--only", multiple=True, metavar="NAME", help="Take these places, or parts of their paths, alone.")
@click.option("--exclude", multiple=True, metavar="NAME", help="Leave these places, or parts of their paths, out.")
@click.option("--split", default="", metavar="NAME", show_default=False, help="Split to write, e.g. train.")
@click.option("--register/--no-register", default=True, help="Look for the shift between dates.")
@click.option("--on-error", type=click.Choice(["skip", "stop"]), default="skip", help="What unreadable files do.")
@click.option("--overwrite", is_flag=True, help="Replace an existing index.")
@message_options
@report_options
def index(
    folder: Path,
    out: Path,
    root: Path | None,
    pattern: str | None,
    only: tuple[str, ...],
    exclude: tuple[str, ...],
    split: str,
    register: bool,
    on_error: str,
    overwrite: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Pair all dates of every place under FOLDER and write an index for training and evaluation.

    \b
    geo-refdiff index naip-ca -o train.csv --exclude santa_monica
    geo-refdiff index scenes -o pairs.gpkg --pattern '<date>/<place>'
    """
    from geo_refdiff.data.make_index import make_index

    with counted("pair") as progress:
        made = make_index(
            folder,
            out,
            root=root,
            pattern=pattern,
            only=only,
            exclude=exclude,
            split=split,
            register=register,
            on_error=on_error,
            overwrite=overwrite,
            progress=progress,
        )
    show(made, as_json)
