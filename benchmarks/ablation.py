"""The six rows of the paper's ablation, judged on the same tiles: `python -m benchmarks.ablation [MODEL x 6]`.

Two data sets: an index of pairs of a city that nothing was trained on, with other places pasted into the references
(exact masks), and generated landscapes of seeds that were not trained on, with masks of their own. All rows are given
the true mask and the reference; those without the switch do not look at it. docs/ablation.md says what each output can
show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.private import INDEX, markdown, need_index, paired, plus_minus, skip, verdict
from geo_refdiff.diffusion.denoiser import GuidedDenoiser
from geo_refdiff.diffusion.noise import lattice_noise
from geo_refdiff.errors import ModelError
from geo_refdiff.evaluate.figures import mean_and_error
from geo_refdiff.evaluate.methods import ModelRun, Observation
from geo_refdiff.evaluate.metrics import mean_where
from geo_refdiff.evaluate.opening import open_all
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.evaluate.run import evaluate
from geo_refdiff.raster.files import write_bytes_atomic
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.restore.diffusion import DiffusionRestorer
from geo_refdiff.restore.restorers import LR_MARGIN
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.units import BYTES

ROWS = {
    "ablation-lr": "LR",
    "ablation-ref": "+ Ref",
    "ablation-mask": "+ mask",
    "ablation-ref-sft": "+ Ref SFT",
    "ablation-semantic-sft": "+ semantic SFT",
    "ablation-both": "both SFT",
}
"""Preset -> row of the paper's table 2, in its order; the fourth and the fifth each add to the third."""

STEPS = ((1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (5, 4))
"""(row, the row that it adds one thing to)."""

LANDSCAPES = "build/landscapes-9000-9023.csv"

OUTPUTS = {0.0: "mean", 0.5: "start", 1.0: "sample"}
"""Amount of detail -> what it gives."""

FIGURES = {
    "efflp": ("effLP", 4),
    "efflp_changed": ("effLP changed", 4),
    "efflp_unchanged": ("effLP unchanged", 4),
    "fd": ("FD", 0),
    "lpips": ("LPIPS", 4),
    "haarpsi": ("HaarPSI", 4),
    "psnr": ("PSNR", 2),
    "chroma": ("chroma", 3),
    "energy": ("gradient energy", 3),
}
"""Figure of `evaluate` -> title and digits. HaarPSI is close to a term of the loss, the first five are not."""

LOWER_IS_BETTER = ("efflp", "lpips")
COMPARED = ("efflp", "efflp_changed", "efflp_unchanged", "lpips", "haarpsi")
SIGMAS = (0.05, 0.15, 0.4, 1.2)
"""Noise levels of `denoising_errors`, model units."""

BASELINES = ("bicubic-ibp", "matched-ref")


class Judged:
    """What an evaluation says of the six rows.

    Args:
        metrics: of an `Evaluation` of the six models in the order of `ROWS`, with the amounts of detail of `OUTPUTS`,
            at one scale.
    """

    def __init__(self, metrics: dict[str, Any]) -> None:
        (scale,) = metrics["scales"].values()
        self.methods, self.differences, self.tiles = scale["methods"], scale["differences"], len(scale["tiles"])
        names = list(metrics["models"])
        if len(names) != len(ROWS) * len(OUTPUTS):
            raise ValueError(f"{len(names)} runs of models, {len(ROWS) * len(OUTPUTS)} are needed")
        self.names = [names[at : at + len(OUTPUTS)] for at in range(0, len(names), len(OUTPUTS))]
        self.figures = [key for key in FIGURES if _figure(self.methods[names[0]], key) is not None]

    def means(self, output: int) -> str:
        """Table of the six rows, and of the baselines, for one of `OUTPUTS` by its number."""
        rows = [(title, names[output]) for title, names in zip(ROWS.values(), self.names, strict=True)]
        return markdown(
            ["", *(FIGURES[key][0] for key in self.figures)],
            [
                [title, *(self._mean(name, key) for key in self.figures)]
                for title, name in [*rows, *((name, name) for name in BASELINES)]
            ],
        )

    def steps(self, output: int) -> str:
        """Table of paired differences between rows that differ in one thing."""
        titles = list(ROWS.values())
        keys = [key for key in COMPARED if key in self.figures]
        return markdown(
            ["", *(FIGURES[key][0] for key in keys)],
            [
                [
                    f"{titles[row]}, less {titles[before]}",
                    *(plus_minus(*self.difference(output, row, before, key)) for key in keys),
                ]
                for row, before in STEPS
            ],
        )

    def order(self, output: int) -> list[str]:
        """Whether each row from the third on is better than the first two, in sentences."""
        titles, sentences = list(ROWS.values()), []
        for key in (k for k in ("efflp", "lpips", "haarpsi") if k in self.figures):
            for row in range(2, len(ROWS)):
                for before in (0, 1):
                    mean, error = self.difference(output, row, before, key)
                    better = verdict(-mean if key in LOWER_IS_BETTER else mean, error)
                    sentences.append(
                        f"{titles[row]} better than {titles[before]} in {FIGURES[key][0]}: {better} "
                        f"({plus_minus(mean, error)})"
                    )
        return sentences

    def difference(self, output: int, row: int, before: int, key: str) -> tuple[float, float]:
        """Mean over the tiles of (row - before), and its standard error."""
        entry = self.differences[self.names[row][output]][self.names[before][output]][key]
        return _number(entry["mean"]), _number(entry["standard_error"])

    def _mean(self, name: str, key: str) -> str:
        mean, error = _figure(self.methods[name], key) or (None, None)
        return plus_minus(_number(mean), _number(error), FIGURES[key][1], signed=False)


def _figure(method: dict[str, Any], key: str) -> tuple[float | None, float | None] | None:
    """Mean and standard error of a figure; None where it was not measured."""
    if key == "fd":
        return None if method.get("fd") is None else (method["fd"], method["fd_standard_error"])
    return (method["means"][key], method["standard_errors"][key]) if key in method["means"] else None


def _number(value: float | None) -> float:
    """Reports hold null for what is not finite, as the standard error of one tile."""
    return math.nan if value is None else value


def denoising_errors(run: ModelRun, seen: Observation) -> dict[str, float]:
    """How far D(truth + sigma n; sigma) is from the truth, root mean square in DN, at each of `SIGMAS`.

    The denoiser alone, without start, sampler and back-projection: what the SFT modules act on, and little noise in
    the figure, since all rows see the same n. Beside it the mean estimate ("mean"), which is the limit that a denoiser
    without anything of its own would reach at high noise.

    Returns:
        "mean changed", "0.05 changed", ... for changed and unchanged pixels; NaN where there are none.
    """
    restorer, given = run.restorer(seen.sensor), run.conditions(seen)
    denoiser = restorer.denoiser if isinstance(restorer, DiffusionRestorer) else None
    if not isinstance(denoiser, GuidedDenoiser):
        raise ModelError(f"{run.name}: has no mean estimate; the ablation is of the compact network")
    lr, truth, mask = upsample(given.lr, seen.sensor.scale, LR_MARGIN), seen.tile.truth, given.mask
    if given.ref is None or mask is None:
        raise ValueError("the rows are judged with reference and mask")
    conditions = (lr, given.ref, mask)
    noise = torch.stack([lattice_noise(window, lr.shape[1], given.seed, 0) for window in given.windows])
    guidance = denoiser.guidance(*conditions)
    images = {"mean": denoiser.base(guidance, lr)}
    for sigma in SIGMAS:
        noisy = BYTES.to_model(truth) + sigma * noise
        images[f"{sigma:g}"] = denoiser(noisy, torch.tensor(sigma), *conditions, guidance=guidance)
    errors = {}
    for name, image in images.items():
        error = (BYTES.to_numbers(image) - truth).square()
        for region in ("changed", "unchanged"):
            errors[f"{name} {region}"] = float(mean_where(error, getattr(seen.tile, region)).sqrt())
    return errors


def denoising_tables(errors: Sequence[dict[str, list[float]]]) -> str:
    """Tables of `denoising_errors`: means of the six rows, and paired differences.

    Args:
        errors: for each row: figure -> a value for each tile.
    """
    titles, keys = list(ROWS.values()), list(errors[0])
    means = [
        [title, *(plus_minus(*mean_and_error(row[key])[:2], 2, signed=False) for key in keys)]
        for title, row in zip(titles, errors, strict=True)
    ]
    steps = [
        [
            f"{titles[row]}, less {titles[before]}",
            *(plus_minus(*paired(errors[row][key], errors[before][key]), 3) for key in keys),
        ]
        for row, before in STEPS
    ]
    return f"{markdown(['', *keys], means)}\n\n{markdown(['', *keys], steps)}"


def judge(data: str, models: Sequence[str], out: Path, **options: Any) -> str:
    """Evaluate the six rows on one data set: report in `out`, tables as text."""
    asked = EvaluateOptions.of(**options)
    judged = Judged(evaluate(data, models, out=out, **options).metrics)
    parts = [f"## {data}, {judged.tiles} tiles, {asked.scene.scales[0]}x"]
    for number, (detail, output) in enumerate(OUTPUTS.items()):
        order = "\n".join(f"- {line}" for line in judged.order(number))
        parts += [f"### {output} (detail {detail:g})", judged.means(number), judged.steps(number), order]
    return "\n\n".join([*parts, "### error of the denoiser, DN", denoising_tables(_denoised(data, models, asked))])


def _denoised(data: str, models: Sequence[str], options: EvaluateOptions) -> list[dict[str, list[float]]]:
    """For each row: figure of `denoising_errors` -> a value for each tile."""
    errors: list[dict[str, list[float]]] = [{} for _ in ROWS]
    with torch.inference_mode(), gdal_env():
        setup = open_all(data, models, options)
        sensor = options.scene.sensor(options.scene.scales[0])
        samplers = setup.runs[len(OUTPUTS) - 1 :: len(OUTPUTS)]  # those with noise
        for spec in setup.specs:
            tile = setup.source.read(spec)
            seen = Observation(tile, sensor.observe(tile.truth), sensor)
            for run, values in zip(samplers, errors, strict=True):
                for key, value in denoising_errors(run, seen).items():
                    values.setdefault(key, []).append(value)
    return errors


@click.command()
@click.argument("models", nargs=-1, type=click.Path(path_type=Path))
@click.option("-o", "--out", default="runs/ablation", show_default=True, type=click.Path(path_type=Path))
@click.option("--data", default=INDEX, show_default=True, help="Index of pairs to paste into.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of its files.  [default: GEO_REFDIFF_DATA]")
@click.option("--places", default=24, show_default=True, help="Of the index, both directions in time.")
@click.option("--landscapes", default=LANDSCAPES, show_default=True, help="Index of seeds never trained on.")
@click.option("--tile", default=256, show_default=True, help="Side of a tile, output pixels.")
@click.option("--alexnet", type=click.Path(path_type=Path), help="Weights for LPIPS, as for geo-refdiff evaluate.")
@click.option("--lpips", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Of noise and pasted change.")
def main(
    models: tuple[Path, ...], out: Path, data: str, root: Path | None, places: int, landscapes: str, **own: Any
) -> None:
    """Write OUT/tables.md and print it. MODELS are six folders in the order of the rows, or those of `runs/`."""
    folders = models or tuple(Path("runs") / name / "model" for name in ROWS)
    if len(folders) != len(ROWS):
        raise click.UsageError(f"{len(folders)} model folders: give {len(ROWS)}, in the order {', '.join(ROWS)}")
    missing = [str(folder) for folder in folders if not (folder / "config.json").is_file()]
    if missing and not models:
        raise skip(f"{missing[0]} is not there; geo-refdiff train {folders[0].parent.name}, and so on")
    need_index(data)
    need_index(landscapes, LANDSCAPES)
    common: dict[str, Any] = own | {
        "models": [str(folder) for folder in folders], "detail": tuple(OUTPUTS), "mask": ("true",), "grid": 3,
        "overwrite": True,
    }  # fmt: skip
    parts = [
        judge(data, out=out / "pasted", root=root, paste=True, places=places, **common),
        judge(landscapes, out=out / "landscapes", **common),
    ]
    text = "\n\n".join(parts) + "\n"
    write_bytes_atomic(out / "tables.md", text.encode())
    click.echo(text)


if __name__ == "__main__":
    main()
