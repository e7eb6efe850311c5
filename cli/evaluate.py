"""geo-refdiff evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, show_text
from geo_refdiff.cli.options import GroupedCommand, debug_option, given, record_options, shared
from geo_refdiff.cli.progress import counted
from geo_refdiff.evaluate.options import DATASET, SHARED, DataOptions, MethodOptions, ReportOptions, SceneOptions
from geo_refdiff.options import DatasetOptions, fields_of


@click.command(cls=GroupedCommand, context_settings={"show_default": True})
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--data", required=True, metavar="SOURCE", help="Index of pairs or of triplets, or folder of PNG pairs.")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the report."
)
@shared(*DATASET, fields=fields_of(DatasetOptions))
@record_options(SceneOptions, DataOptions, MethodOptions, ReportOptions)
@shared(*SHARED, texts={"seed": "Of noise, pasted change and the tiles shown."})
@message_options
@debug_option
def evaluate(models: tuple[str, ...], data: str, out: Path, debug: bool, **options: Any) -> None:
    """Measure each MODEL on pairs with a known truth, beside classical baselines and results of other methods.

    An index with columns lr, ref and truth holds triplets of real scenes: the whole scenes are upscaled and compared.

    \b
    geo-refdiff evaluate default --data test.csv --scale 8 --scale 16 -o report
    geo-refdiff evaluate default my/model --data test.csv --outputs TTSR=results/ttsr -o report
    """
    from geo_refdiff.evaluate.run import evaluate as run

    with counted("image") as progress:
        report = run(data, models, out=out, progress=progress, **given(options))
    show_text("\n".join([report.text, *(f"written: {path}" for path in report.summary())]))
