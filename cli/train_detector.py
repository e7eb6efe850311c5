"""geo-refdiff train-detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geo_refdiff.cli.console import message_options, say
from geo_refdiff.cli.options import debug_option, record_options
from geo_refdiff.options import DetectorOptions


@click.command(context_settings={"show_default": True})
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Model folder to write."
)
@click.option(
    "--data",
    "sources",
    required=True,
    multiple=True,
    type=(str, click.IntRange(min=1)),
    metavar="SOURCE SAMPLES",
    help="Index of pairs, and how many samples to draw of it; may be given again. One pair in ten is not learned from; "
    "on those of the first index the threshold is chosen.",
)
@record_options(DetectorOptions)
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Threads to compute with.")
@message_options
@debug_option
def train_detector(out: Path, sources: tuple[tuple[str, int], ...], threads: int, debug: bool, **options: Any) -> None:
    """Train a change detector from pairs of dates, and write its folder.

    Change is taken from the masks that an index names, by rules where it names none.

    \b
    geo-refdiff train-detector --data landscapes.csv 8000 --data pairs.csv 300 -o detector
    """
    import torch

    from geo_refdiff.change.detector import BANDS
    from geo_refdiff.data import open_dataset
    from geo_refdiff.train.detector import DetectorData
    from geo_refdiff.train.detector import train_detector as run

    torch.set_num_threads(threads)
    data = []
    for source, samples in sources:
        dataset = open_dataset(source, bands=BANDS, pseudo_change=True, resident=False)
        data.append(DetectorData(Path(source).name, dataset, samples))
    run(out, data, log=say, **options)
