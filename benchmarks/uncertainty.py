"""How well the map of uncertainty predicts the error, on places that neither model nor calibration learned from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.private import INDEX, markdown, need_index
from geo_refdiff.commands.calibrate import Trial, run_trial
from geo_refdiff.data import open_dataset
from geo_refdiff.evaluate.tiles import TileSource
from geo_refdiff.options import SamplingOptions
from geo_refdiff.restore.models import open_model

_BORDER = 8


@dataclass(frozen=True, slots=True)
class IntervalScore:
    """How well half-widths predict errors.

    Attributes:
        pixels: how many.
        spearman: rank correlation of half-widths and absolute errors, pixel by pixel.
        spearman_local: the same of root mean squares over 8 x 8 pixels.
        coverage: share of errors within the half-widths.
        mean_width: mean half-width.
    """

    pixels: int
    spearman: float
    spearman_local: float
    coverage: float
    mean_width: float


def judge_intervals(errors: NDArray[np.floating], widths: NDArray[np.floating]) -> IntervalScore:
    """Compare half-widths with errors.

    Args:
        errors: (N, C, H, W), truth - output; H and W multiples of 8.
        widths: the same shape and unit.
    """
    from scipy.stats import spearmanr

    local = [_local_rms(a) for a in (errors, widths)]
    far = np.abs(errors)
    return IntervalScore(
        far.size,
        float(spearmanr(far.ravel(), widths.ravel()).statistic),
        float(spearmanr(local[0].ravel(), local[1].ravel()).statistic),
        float((far <= widths).mean()),
        float(widths.mean()),
    )


def _local_rms(values: NDArray[np.floating]) -> NDArray[np.floating]:
    n, c, h, w = values.shape
    return np.asarray(np.sqrt(np.square(values).reshape(n, c, h // 8, 8, w // 8, 8).mean(axis=(3, 5))))


def scores(trials: list[Trial]) -> list[str]:
    """A row of the table: half-widths of the map, and for comparison the plain spread."""
    inner = (slice(None), slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
    errors = np.stack([t.errors[inner] for t in trials])
    widths = np.stack([t.widths[inner] for t in trials])
    spread = np.stack([np.sqrt(t.energies[1][inner]) * t.half_range for t in trials])
    ours, plain = judge_intervals(errors, widths), judge_intervals(errors, 1.645 * spread)
    return [
        str(len(trials)), f"{ours.spearman:.3f}", f"{ours.spearman_local:.3f}", f"{ours.coverage:.3f}",
        f"{ours.mean_width:.1f}", f"{plain.spearman:.3f}", f"{plain.coverage:.3f}",
    ]  # fmt: skip


@click.command()
@click.argument("model", default="default")
@click.option("--data", default=INDEX, show_default=True, help="Index of pairs that the model never learned from.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of its files.  [default: GEO_REFDIFF_DATA]")
@click.option("--places", default=20, show_default=True, help="So many places, spread over the data, one direction.")
@click.option("--runs", default=2, show_default=True)
def main(model: str, data: str, root: Path | None, places: int, runs: int) -> None:
    """Print rank correlation and coverage, with a reference and without, at 8x and 16x."""
    need_index(data)
    opened = open_model(SamplingOptions(model=model))
    dataset = open_dataset(data, root=root, resident=False, pseudo_classes=False, match=False)
    source = TileSource(dataset, bands=opened.bands)
    first = list({spec.place: spec for spec in source.specs}.values())
    chosen = [first[k * len(first) // places] for k in range(min(places, len(first)))]
    rows = []
    for scale in (8, 16):
        for reference in (True, False):
            trials = [
                run_trial(source.read(spec), opened, scale, runs, reference=reference, plain=False) for spec in chosen
            ]
            rows.append([f"{scale}x, {'reference' if reference else 'no reference'}", *scores(trials)])
            click.echo(" | ".join(rows[-1]), err=True)
    head = [
        "", "places", "Spearman", "Spearman, 8 x 8 px", "coverage of 90 %", "mean half-width, DN", "spread: Spearman",
        "spread: coverage",
    ]  # fmt: skip
    click.echo(f"{opened.name} (sha256 {opened.sha256[:12]}), {runs} runs, {data}\n\n{markdown(head, rows)}")


if __name__ == "__main__":
    main()
