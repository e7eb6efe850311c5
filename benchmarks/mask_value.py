"""What a change mask brings and what a wrong reference costs: `python -m benchmarks.mask_value [MODEL]`.

The model runs as the product runs it: the engine's restorer with the model's own amount of detail and back-projection,
results rounded to whole DN. Changes are pasted: regions of other places lie in the reference, so that the true mask is
exact. All runs see the same tiles, LR and noise; differences are paired by tile. The wrong references are given to the
tiles without pasted change, without a mask, each in the radiometry of the new date.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks.private import INDEX, need_index
from benchmarks.tables import markdown, paired, plus_minus, verdict
from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data.matching import match_radiometry
from geo_refdiff.evaluate import metrics
from geo_refdiff.evaluate.figures import mean_and_error
from geo_refdiff.evaluate.image_folder import as_written
from geo_refdiff.evaluate.masks import WRONG_SHARE, corrupted_mask
from geo_refdiff.evaluate.methods import ModelRun, Observation
from geo_refdiff.evaluate.opening import open_all
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.evaluate.report import model_facts
from geo_refdiff.evaluate.tiles import Tile, TileSource, TileSpec
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.sensor.sensor import SensorModel

LEAST_GAIN, MOST_COST = 0.02, 0.01
"""HaarPSI that a true mask should bring in changed pixels, and that a wrong reference may cost."""

_SHARE = f"{WRONG_SHARE:.0%}"
TRUE, NONE, WRONG = "true mask", "no mask", f"{_SHARE} missed and {_SHARE} invented"
NO_REFERENCE, ELSEWHERE, BLACK, TURNED = "no reference", "another place", "black", "its own, turned by 90 degrees"
REGIONS = ("all", "changed", "unchanged")

Figures = dict[str, dict[str, list[float]]]
"""Run -> figure -> a value for each tile."""


def with_masks(tile: Tile, classes: int) -> dict[str, Tile]:
    """The tile with each of the masks; `classes` is the number of classes, "no change" included."""
    true = tile.mask
    wrong = corrupted_mask(true, classes, tile.spec.index)
    changed = (true > 0) & (true != UNKNOWN_CLASS)
    masks = {
        TRUE: true,
        NONE: torch.full_like(true, UNKNOWN_CLASS),
        WRONG: wrong,
        f"{_SHARE} missed": torch.where(changed, wrong, true),
        f"{_SHARE} invented": torch.where(changed, true, wrong),
        "no change said everywhere": torch.zeros_like(true),
    }
    told = {name: replace(tile, mask=mask) for name, mask in masks.items()}
    return told | {"no mask, no reference": _with_reference(tile, torch.full_like(tile.ref, torch.nan))}


def with_references(tile: Tile, elsewhere: Tile) -> dict[str, Tile]:
    """The tile with each of the references, all without a mask; `elsewhere` is a tile of another place."""
    references = {
        NO_REFERENCE: torch.full_like(tile.ref, torch.nan),
        "its own": tile.ref,
        ELSEWHERE: in_radiometry(elsewhere.ref, tile.truth),
        BLACK: in_radiometry(torch.zeros_like(tile.ref), tile.truth),
        TURNED: in_radiometry(torch.rot90(tile.ref, 1, (-2, -1)), tile.truth),
    }
    return {name: _with_reference(tile, ref) for name, ref in references.items()}


def _with_reference(tile: Tile, ref: Tensor) -> Tile:
    return replace(tile, ref=ref, mask=torch.full_like(tile.mask, UNKNOWN_CLASS))


def in_radiometry(ref: Tensor, truth: Tensor) -> Tensor:
    """A reference (1, C, H, W) DN, NaN = missing, fitted to another image as the index does for its own; whole DN."""
    valid = torch.isfinite(ref).all(dim=1)[0]
    new, old = (x[0].nan_to_num().clamp(0, 255).round().numpy().astype(np.uint8) for x in (truth, ref))
    image = torch.from_numpy(match_radiometry(new, old, valid.numpy()).astype(np.float32))[None]
    return torch.where(valid, image, torch.nan)


def compare(
    run: ModelRun, sensor: SensorModel, tiles: Sequence[TileSpec], read: Callable[[TileSpec], dict[str, Tile]]
) -> Figures:
    """Restore each tile under every condition that `read` gives; changed pixels are those of the first condition."""
    found: Figures = {}
    for spec in tiles:
        told = read(spec)
        tile = next(iter(told.values()))
        lr = sensor.observe(tile.truth)
        images = torch.cat([as_written(run.restore(Observation(t, lr, sensor))) for t in told.values()])
        for key, values in _figures(images, tile).items():
            for name, value in zip(told, values.tolist(), strict=True):
                found.setdefault(name, {}).setdefault(key, []).append(value)
    return found


def _figures(images: Tensor, tile: Tile) -> dict[str, Tensor]:
    maps = metrics.haarpsi_map(images, tile.truth)
    where = {"all": None, "changed": tile.changed, "unchanged": tile.unchanged}
    return {name: metrics.haarpsi_mean(*maps, pixels) for name, pixels in where.items()} | {
        "energy": metrics.gradient_energy_ratio(images, tile.truth)
    }


def table(found: Figures, base: str, regions: Sequence[str]) -> str:
    """Means of HaarPSI and gradient energy, and paired differences of HaarPSI to the run `base`."""
    head = ["", *(f"HaarPSI {r}" for r in regions), *(f"{r}, less {base}" for r in regions), "gradient energy"]
    rows = []
    for name, values in found.items():
        means = [plus_minus(*mean_and_error(values[r])[:2], signed=False) for r in regions]
        gains = ["-" if name == base else plus_minus(*paired(values[r], found[base][r])) for r in regions]
        rows.append([name, *means, *gains, f"{mean_and_error(values['energy'])[0]:.3f}"])
    return markdown(head, rows)


def mask_claims(found: Figures) -> list[str]:
    """Whether the true mask brings enough and a wrong one does no harm, in sentences."""
    told = [
        _claim(f"a true mask brings at least {LEAST_GAIN} in changed pixels", found, TRUE, NONE, "changed", LEAST_GAIN)
    ]
    for region in REGIONS:
        told.append(_claim(f"a {_SHARE} wrong mask is no worse than none, {region} pixels", found, WRONG, NONE, region))
    return told


def reference_claims(found: Figures) -> list[str]:
    """Whether each wrong reference costs little against none, in sentences."""
    return [
        _claim(f"{name}: costs at most {MOST_COST} against no reference", found, name, NO_REFERENCE, "all", -MOST_COST)
        for name in (ELSEWHERE, BLACK, TURNED)
    ]


def _claim(text: str, found: Figures, name: str, base: str, region: str, least: float = 0.0) -> str:
    difference = paired(found[name][region], found[base][region])
    return f"{text}: {verdict(*difference, least)} ({plus_minus(*difference)})"


@click.command()
@click.argument("model", default="default")
@click.option("--data", default=INDEX, show_default=True, help="Index of pairs that the model never learned from.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of its files.  [default: GEO_REFDIFF_DATA]")
@click.option("--places", default=20, show_default=True, help="The first so many places, both directions in time.")
@click.option("--tile", default=256, show_default=True, help="Side of a tile, output pixels.")
@click.option("--scale", default=8, show_default=True)
@click.option("--detail", type=float, help="0..1.  [default: the model's]")
def main(model: str, data: str, root: Path | None, places: int, tile: int, scale: int, detail: float | None) -> None:
    """Print both tables and say which of the claims hold."""
    need_index(data)
    details = () if detail is None else (detail,)
    options = EvaluateOptions.of(
        root=root, scale=(scale,), mask=("true",), detail=details, paste=True, places=places, tile=tile
    )
    with torch.inference_mode(), gdal_env():
        setup = open_all(data, (model,), options)
        run, pasted, classes = setup.runs[0], setup.source, len(setup.dataset.classes)
        plain = TileSource(setup.dataset, size=pasted.size, bands=pasted.bands)
        sensor = options.scene.sensor(scale)

        def plain_tile(spec: TileSpec) -> dict[str, Tile]:
            return with_references(plain.read(spec), plain.read(plain.other_place(spec)))

        click.echo(f"{run.name}, {model_facts(run.model)}, {len(setup.specs)} tiles of {data}, {scale}x\n")
        found = compare(run, sensor, setup.specs, lambda spec: with_masks(pasted.read(spec), classes))
        click.echo(f"{table(found, NONE, REGIONS)}\n")
        click.echo("\n".join(mask_claims(found)))
        wrong = compare(run, sensor, setup.specs, plain_tile)
        click.echo(f"\n{table(wrong, NO_REFERENCE, REGIONS[:1])}\n")
        click.echo("\n".join(reference_claims(wrong)))


if __name__ == "__main__":
    main()
