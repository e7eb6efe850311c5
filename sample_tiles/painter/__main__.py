"""The painter's command line: `python -m sample_tiles.painter --help`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from geo_refdiff.errors import GeoRefDiffError, OptionError
from sample_tiles.painter.pairs import write_pairs
from sample_tiles.painter.valley import generate

_SEEDS = re.compile(r"(\d+)(?:-(\d+))?")


def parse_seeds(text: str) -> range:
    """The seeds of "FIRST-LAST", both included, or of a single one.

    Raises:
        OptionError: no such range, or the first above the last.
    """
    parsed = _SEEDS.fullmatch(text.strip())
    if parsed is None or int(parsed[1]) > int(parsed[2] or parsed[1]):
        raise OptionError(f"seeds '{text}': give FIRST-LAST, the lower first, e.g. 10000-10149")
    return range(int(parsed[1]), int(parsed[2] or parsed[1]) + 1)


@click.group(context_settings={"show_default": True})
def painter() -> None:
    """Paint landscapes: pairs of dates with exact land cover and change, or the sample scene."""


@painter.command()
@click.argument("seeds", metavar="FIRST-LAST")
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="Index to write (.csv, .parquet, .gpkg)."
)
@click.option("--size", default=256, help="Side of a landscape, pixels.")
@click.option("--gsd", default=1.0, help="Metres a pixel.")
def pairs(seeds: str, out: Path, size: int, gsd: float) -> None:
    """Paint one pair of dates for each seed, and their index for train and evaluate.

    \b
    python -m sample_tiles.painter pairs 10000-10149 -o build/landscapes.csv
    """
    wanted = parse_seeds(seeds)
    with click.progressbar(wanted, file=sys.stderr) as coming:
        write_pairs(out, coming, size, gsd)
    click.echo(f"{out}: {len(wanted)} pairs")


@painter.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path(__file__).parents[1] / "valley")
def valley(folder: Path) -> None:
    """Draw the sample scene again."""
    generate(folder)
    click.echo(f"{folder}: {sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    try:
        painter(prog_name="python -m sample_tiles.painter")
    except GeoRefDiffError as error:
        sys.exit(f"error: {error}")
