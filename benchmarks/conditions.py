"""How models hold under the conditions of users: `python -m benchmarks.conditions MODEL... [--places N]`.

Each condition is one evaluation of all models, with and without their diffusion, beside bicubic-ibp and matched-ref:
noise in the scene, a PSF that is declared rightly and wrongly, other factors, a reference that is not registered, masks
with pasted changes. Models and baselines are corrected by a filter that knows the noise where there is noise.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.private import INDEX, need_index
from benchmarks.tables import markdown
from geo_refdiff.evaluate.run import evaluate

_PERCENT = 2.55
"""DN of a hundredth of the range."""
CONDITIONS: dict[str, dict[str, Any]] = {
    "8x": {},
    "8x, noise 0.5 %": {"noise": 0.5 * _PERCENT},
    "8x, noise 1 %": {"noise": _PERCENT},
    "8x, noise 2 %": {"noise": 2 * _PERCENT},
    "8x, noise 1 %, PSF .48": {"noise": _PERCENT, "psf_sigma": 0.48},
    "8x, noise 2 %, PSF .48": {"noise": 2 * _PERCENT, "psf_sigma": 0.48},
    "8x, PSF .48, declared as .35": {"psf_sigma": 0.48, "declared_psf": 0.35},
    "16x": {"scale": (16,)},
    "3x": {"scale": (3,), "tile": 240},
    "8x, pixels of 1.2 m": {"average": 2, "tile": 128},
    "8x, pixels of 2.4 m": {"average": 4, "tile": 64},
    "8x, reference not registered": {"reference": ("raw",)},
    "8x, no reference": {"reference": ("none",)},
    "8x, changes pasted, no mask": {"paste": True},
    "8x, changes pasted, true mask": {"paste": True, "mask": ("true",)},
    "8x, changes pasted, wrong mask": {"paste": True, "mask": ("wrong",)},
}
FIGURES = ("psnr", "haarpsi", "efflp", "efflp_changed", "chroma", "flat_noise", "lattice")
_COMPARED = ("bicubic-ibp", "matched-ref")


def measured(models: tuple[str, ...], condition: dict[str, Any], steps: int | None, **data: Any) -> dict[str, Any]:
    """What metrics.json holds of the methods under a condition."""
    consistency = "wiener" if condition.get("noise") else "window"
    options = condition | data | {"steps": steps, "consistency": consistency, "grid": 0}
    with tempfile.TemporaryDirectory() as folder:
        metrics = evaluate(options.pop("data"), models, out=Path(folder), **options).metrics
    (scale,) = metrics["scales"].values()
    methods: dict[str, Any] = scale["methods"]
    return methods


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
    models = models or ("default",)
    rows = []
    for condition, settings in CONDITIONS.items():
        if names and condition not in names:
            continue
        for steps in (None, 0):
            methods = measured(models, settings, steps, data=data, root=root, places=places)
            for name, method in methods.items():
                if method["kind"] == "model":
                    rows.append(row(condition, f"**{name}**" if steps is None else f"{name}, --steps 0", method))
                elif name in _COMPARED and steps is None:
                    rows.append(row(condition, name, method))
        click.echo(f"done: {condition}", err=True)
    head = ["", "", "PSNR", "HaarPSI", "effLP", "effLP changed", "chroma", "flat noise", "lattice", "FD"]
    click.echo(markdown(head, rows))


if __name__ == "__main__":
    main()
