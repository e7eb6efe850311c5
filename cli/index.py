"""geo-refdiff index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, show
from geo_refdiff.cli.options import record_options, report_options
from geo_refdiff.cli.progress import counted
from geo_refdiff.options import IndexOptions


@click.command(context_settings={"show_default": True})
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Index: .csv, .parquet or .gpkg.")
@record_options(IndexOptions)
@click.option("--overwrite", is_flag=True, help="Replace an existing index.")
@message_options
@report_options
def index(folder: Path, out: Path, overwrite: bool, as_json: bool, debug: bool, **options: Any) -> None:
    """Pair all dates of every place under FOLDER and write an index for training and evaluation.

    FOLDER may also be SECOND or CNAM-CD as published.

    \b
    geo-refdiff index naip-ca -o train.csv --exclude santa_monica
    geo-refdiff index scenes -o pairs.gpkg --pattern '<date>/<place>'
    """
    from geo_refdiff.data.make_index import make_index

    with counted("pair") as progress:
        made = make_index(folder, out, overwrite=overwrite, progress=progress, **options)
    show(made, as_json)
