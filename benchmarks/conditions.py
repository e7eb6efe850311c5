"""How models hold under the conditions of users: `python -m benchmarks.conditions MODEL... [--places N]`.

Each condition is one evaluation of all models, with and without their diffusion, beside bicubic-ibp and matched-ref:
noise and PSF of the scene, declared and not, other factors and pixel sizes, 16 bits, a reference that is not
registered, masks with pasted changes, real scenes. Declared, models and baselines get the PSF and are corrected by
a filter that knows the noise; not declared, they take the PSF for .35 and the scene for free of noise.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio

from benchmarks.private import DATA, INDEX, lacking, need_index
from benchmarks.real_scenes import write_index as write_triplets
from benchmarks.tables import markdown
from geo_refdiff.data.index import read_index, write_index
from geo_refdiff.data.opening import data_root
from geo_refdiff.errors import ModelError
from geo_refdiff.evaluate.run import evaluate

_PERCENT = 2.55
"""DN of a hundredth of the range."""
_ASSUMED = 0.35
"""PSF that is taken where none is declared."""
UINT16, REAL = "8x, uint16", "real scenes"
LOW, HIGH = 600.0, 10_800.0
"""What 0 and 255 become in 16 bits, 40 digital numbers each, as of reflectances."""


def _noisy() -> dict[str, dict[str, Any]]:
    conditions: dict[str, dict[str, Any]] = {}
    for percent, psf, declared in product((0.0, 0.5, 1.0, 2.0), (_ASSUMED, 0.48), (True, False)):
        if not percent and (psf == _ASSUMED):
            continue  # nothing to declare
        name = f"8x, noise {percent:g} %, PSF {psf:g}".replace(" noise 0 %,", "")
        options: dict[str, Any] = {"noise": percent * _PERCENT, "psf_sigma": psf}
        if not declared and psf != _ASSUMED:
            options["declared_psf"] = _ASSUMED
        conditions[name if declared else f"{name}, not declared"] = options
    return conditions


CONDITIONS: dict[str, dict[str, Any]] = {
    "8x": {},
    **_noisy(),
    "16x": {"scale": (16,)},
    "3x": {"scale": (3,), "tile": 240},
    "8x, pixels of 1.2 m": {"average": 2, "tile": 128},
    "8x, pixels of 2.4 m": {"average": 4, "tile": 64},
    UINT16: {},
    "8x, reference not registered": {"reference": ("raw",)},
    "8x, no reference": {"reference": ("none",)},
    "8x, detected mask": {"mask": ("auto",)},
    "8x, changes pasted, no mask": {"paste": True},
    "8x, changes pasted, detected mask": {"paste": True, "mask": ("auto",)},
    "8x, changes pasted, true mask": {"paste": True, "mask": ("true",)},
    "8x, changes pasted, wrong mask": {"paste": True, "mask": ("wrong",)},
    REAL: {},
}
"""Name -> options of `evaluate`."""
FIGURES = ("psnr", "haarpsi", "efflp", "efflp_changed", "chroma", "flat_noise", "lattice")
_COMPARED = ("bicubic-ibp", "matched-ref")


def measured(models: tuple[str, ...], data: str | Path, **options: Any) -> dict[str, Any]:
    """What metrics.json holds of an evaluation; models that do not know the factor are left out, and that is said."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return evaluate(data, models, out=Path(folder) / "out", grid=0, **options).metrics
        except ModelError as error:
            click.echo(f"without models: {error}", err=True)
            return evaluate(data, (), out=Path(folder) / "out", grid=0, **options).metrics


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """Method -> what was measured of it: at the one scale of tiles, or over the real scenes that all were run on."""
    measurements = [metrics["common"]] if "common" in metrics else list(metrics["scales"].values())
    methods: dict[str, Any] = measurements[0]["methods"]
    return methods


def rows_of(condition: str, models: tuple[str, ...], data: str | Path, **options: Any) -> list[list[str]]:
    """Lines of the table for a condition: baselines, and each model with and without its steps."""
    rows = []
    metrics = measured(models, data, **options)
    for name, method in figures(metrics).items():
        if method["kind"] == "model" or name in _COMPARED:
            rows.append(row(condition, f"**{name}**" if method["kind"] == "model" else name, method))
    stepped = tuple(
        model for model, used in zip(models, metrics["models"].values(), strict=False) if used["sampler"]["steps"]
    )
    if stepped:
        without = measured(stepped, data, **{**options, "steps": 0})
        for name, method in figures(without).items():
            if method["kind"] == "model":
                rows.append(row(condition, f"{name}, --steps 0", method))
    return rows


def in_16_bits(data: str | Path, root: Path | None, places: int, folder: Path) -> Path:
    """An index of the first places, with copies of its files in uint16."""
    pairs = read_index(data)
    source = data_root(Path(data), [pair.new for pair in pairs], root)
    chosen = list(dict.fromkeys(pair.place for pair in pairs))[:places]
    kept = [pair for pair in pairs if pair.place in chosen]
    for number, name in enumerate(dict.fromkeys(name for pair in kept for name in (pair.new, pair.ref))):
        with rasterio.open(source / name) as file:
            profile, values, bands = file.profile, file.read(), file.descriptions
        scaled = np.rint(LOW + values * ((HIGH - LOW) / 255.0)).astype(np.uint16)
        copy = f"{number}.tif"
        with rasterio.open(folder / copy, "w", **(profile | {"dtype": "uint16", "nodata": None})) as file:
            file.write(scaled)
            file.descriptions = bands
        kept = [
            replace(pair, new=copy if pair.new == name else pair.new, ref=copy if pair.ref == name else pair.ref)
            for pair in kept
        ]
    labels = ("mask", "new_classes", "ref_classes")
    kept = [
        replace(
            pair, low=LOW, high=HIGH, **{k: str((source / v).absolute()) for k in labels if (v := getattr(pair, k))}
        )
        for pair in kept
    ]
    write_index(folder / "pairs.csv", kept)
    return folder / "pairs.csv"


def row(condition: str, name: str, method: dict[str, Any]) -> list[str]:
    """One line of the table."""
    means, errors = method["means"], method["standard_errors"]
    cells = []
    for key in FIGURES:
        mean, error = means.get(key), errors.get(key)
        digits = 2 if key in ("psnr", "chroma", "flat_noise", "lattice") else 3
        shown = "-" if mean is None else f"{mean:.{digits}f}"
        cells.append(f"{shown} ± {error:.3f}" if mean is not None and error is not None and "efflp" in key else shown)
    fd = method["fd"]
    return [condition, name, *cells, "-" if fd is None else f"{fd:.0f} ± {method['fd_standard_error']:.0f}"]


@click.command()
@click.argument("models", nargs=-1)
@click.option("--data", default=INDEX, show_default=True, help="Index of pairs that nothing was trained on.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder to which its paths are relative.")
@click.option("--places", type=int, default=12, show_default=True, help="The first N places.")
@click.option("--only", "names", multiple=True, help="Conditions to take alone.")
def main(models: tuple[str, ...], data: str, root: Path | None, places: int, names: tuple[str, ...]) -> None:
    """Measure MODELS (default: the bundled one) under each condition."""
    need_index(data)
    unknown = set(names) - set(CONDITIONS)
    if unknown:
        raise click.UsageError(f"no condition '{min(unknown)}'; choose of: {'; '.join(CONDITIONS)}")
    models = models or ("default",)
    rows = []
    for condition, options in CONDITIONS.items():
        if names and condition not in names:
            continue
        if condition == REAL:
            if reason := lacking("real"):
                click.echo(f"left out: {condition}: {reason}", err=True)
                continue
            with tempfile.TemporaryDirectory() as folder:
                write_triplets(DATA / "real", Path(folder) / "real.csv")
                rows += rows_of(condition, models, Path(folder) / "real.csv", root=DATA / "real")
        elif condition == UINT16:
            with tempfile.TemporaryDirectory() as folder:
                index = in_16_bits(data, root, places, Path(folder))
                rows += rows_of(condition, models, index, root=Path(folder), **options)
        else:
            rows += rows_of(condition, models, data, root=root, places=places, **options)
        click.echo(f"done: {condition}", err=True)
    head = ["", "", "PSNR", "HaarPSI", "effLP", "effLP changed", "chroma", "flat noise", "lattice", "FD"]
    click.echo(markdown(head, rows))


if __name__ == "__main__":
    main()
