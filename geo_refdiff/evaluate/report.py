"""What an evaluation found: tables for people, JSON for machines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.evaluate.figures import Figure, columns, mean_and_error
from geo_refdiff.evaluate.frechet import jackknife_error
from geo_refdiff.evaluate.methods import Kind

AGAINST = ("bicubic-ibp", "matched-ref")
_DIFFERENCES = (
    "psnr", "ssim", "haarpsi", "haarpsi_changed", "haarpsi_unchanged", "gmsd", "efflp", "efflp_changed",
    "efflp_unchanged", "lpips",
)  # fmt: skip


@dataclass(slots=True)
class ScaleResult:
    """The figures at one scale.

    Attributes:
        scale: output pixels along a scene pixel.
        tiles: their names, in order.
        kinds: method -> what it is, in the order of the tables.
        values: method -> figure -> a value for each tile, NaN where it has none.
        fid: method -> Frechet inception distance over all tiles; empty where it is not measured.
        fd: method -> Frechet distance in the judge's features over all tiles, and without each group of them; empty
            where it is not measured.
        seconds: method -> for each tile.
    """

    scale: int
    tiles: list[str] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    fid: dict[str, float] = field(default_factory=dict)
    fd: dict[str, tuple[float, NDArray[np.float64]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def difference(self, method: str, other: str, key: str) -> tuple[float, float, int]:
        """Mean over the tiles of (method - other), its standard error, and the number of tiles."""
        pairs = zip(self.values[method][key], self.values[other][key], strict=True)
        return mean_and_error([a - b for a, b in pairs])

    def fd_difference(self, method: str, other: str) -> tuple[float, float]:
        """FD of the method less the other's, and its standard error."""
        (own, parts), (against, others) = self.fd[method], self.fd[other]
        return own - against, jackknife_error(parts - others)

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
            told = {key: mean_and_error(values) for key, values in figures.items()}
            methods[name] = {
                "kind": self.kinds[name],
                "means": {key: _number(mean) for key, (mean, _, _) in told.items()},
                "standard_errors": {key: _number(error) for key, (_, error, _) in told.items()},
                "tiles": {key: number for key, (_, _, number) in told.items()},
                "fid": _number(self.fid.get(name, math.nan)),
                "fd": _number(self.fd[name][0]) if name in self.fd else None,
                "fd_standard_error": _number(jackknife_error(self.fd[name][1])) if name in self.fd else None,
                "seconds_per_tile": _number(mean_and_error(self.seconds[name])[0]),
                "per_tile": {key: [_number(v) for v in values] for key, values in figures.items()},
            }
        return {"tiles": self.tiles, "methods": methods, "differences": self._differences()}

    def _differences(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self.compared:
            for other in (n for n in self.values if n != name):
                shared = [key for key in self.values[name] if key in self.values[other]]
                told = {key: self.difference(name, other, key) for key in shared}
                found.setdefault(name, {})[other] = {
                    key: {"mean": _number(mean), "standard_error": _number(error), "tiles": number}
                    for key, (mean, error, number) in told.items()
                }
        return found


def tables(result: ScaleResult) -> str:
    """Markdown tables of one scale: all pixels, changed and unchanged ones, paired differences."""
    present = result.measured()
    parts = [f"## {result.scale}x, {len(result.tiles)} tiles", "", _means(result, columns(present), True), ""]
    parts += ["Changed | unchanged pixels:", "", _means(result, columns(present, regions=True), False), ""]
    for other in (*AGAINST, *result.compared[:1]):
        rows = _difference_rows(result, other, [key for key in _DIFFERENCES if key in present])
        if rows:
            parts += [f"Difference to {other}, paired by tile, ± standard error:", "", rows, ""]
    return "\n".join(parts)


def _means(result: ScaleResult, shown: Sequence[tuple[Figure, str]], totals: bool) -> str:
    head = [""] + [f"{f.title}{_region(f, key)}" for f, key in shown]
    if totals:
        head += (["FD"] if result.fd else []) + (["FID"] if result.fid else []) + ["s/tile"]
    rows = [head]
    for name, figures in result.values.items():
        label = f"**{name}**" if result.kinds[name] != "baseline" else name
        row = [label] + [_cell(figures.get(key, []), figure.digits) for figure, key in shown]
        if totals:
            row += [f"{result.fd[name][0]:.0f} ± {jackknife_error(result.fd[name][1]):.0f}"] if result.fd else []
            row += [f"{result.fid[name]:.2f}" if name in result.fid else "-"] if result.fid else []
            row.append(f"{mean_and_error(result.seconds[name])[0]:.2f}")
        rows.append(row)
    return _markdown(rows)


def _difference_rows(result: ScaleResult, other: str, keys: Sequence[str]) -> str:
    names = [name for name in result.compared if other in result.values and name != other]
    if not names:
        return ""
    by_key = {key: figure for regions in (False, True) for figure, key in columns(keys, regions)}
    rows = [[""] + [f"{by_key[key].title}{_region(by_key[key], key)}" for key in keys] + ["FD"] * bool(result.fd)]
    for name in names:
        row = [f"**{name}**"]
        for key in keys:
            mean, error, number = result.difference(name, other, key)
            digits = by_key[key].digits
            row.append(f"{mean:+.{digits}f} ± {error:.{digits + 1}f}" if number else "-")
        if result.fd:
            row.append("{:+.0f} ± {:.0f}".format(*result.fd_difference(name, other)))
        rows.append(row)
    return _markdown(rows)


def _region(figure: Figure, key: str) -> str:
    return " " + key.removeprefix(f"{figure.key}_") if key != figure.key else ""


def _cell(values: Sequence[float], digits: int) -> str:
    mean, error, number = mean_and_error(values)
    if number == 0:
        return "-"
    return f"{mean:.{digits}f}" if number == 1 else f"{mean:.{digits}f} ± {error:.{digits}f}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, so that it reads well as plain text, too."""
    widths = [max(3, *(len(row[c]) for row in rows)) for c in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None
