"""How sure each pixel is: from the calibration in the model's folder to what the plan says of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

from geo_refdiff.errors import ModelError, OptionError
from geo_refdiff.plan.records import PREDICTORS, Bands, UncertaintyRecord
from geo_refdiff.restore.models import Model
from geo_refdiff.restore.restorers import Restorer

FILE = "uncertainty.json"
"""In a model's folder; `geo-refdiff calibrate` writes it."""

FORMAT = 1
_SPREAD_ALONE = tuple(float(name == "spread") for name in PREDICTORS)


@dataclass(frozen=True)
class Calibration:
    """The result of `calibrate`.

    Attributes:
        model_sha256, sampler: the model, and the settings that it ran with.
        coverage: share of pixels that the intervals are to hold.
        runs: with other noise.
        bands: of the model.
        tables: for each scale, as text, "known" and "unknown" (where the reference says something, and elsewhere): each
            with "shares", one for each of `PREDICTORS`, and "factors", one for each band.
        origin: what it was fitted to, for people.
    """

    model_sha256: str
    sampler: Mapping[str, Any]
    coverage: float
    runs: int
    bands: tuple[str, ...]
    tables: Mapping[str, Mapping[str, Mapping[str, list[float]]]]
    origin: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": FORMAT,
            "predictors": list(PREDICTORS),
            "model_sha256": self.model_sha256,
            "sampler": dict(self.sampler),
            "coverage": self.coverage,
            "runs": self.runs,
            "bands": list(self.bands),
            "tables": {scale: {k: dict(v) for k, v in table.items()} for scale, table in self.tables.items()},
            "origin": dict(self.origin),
        }

    def __str__(self) -> str:
        rows = [f"half-widths of {self.coverage:.0%} intervals; shares of the variance of the error"]
        for scale, table in self.tables.items():
            for part, fit in table.items():
                shares = ", ".join(f"{n} {s:.3g}" for n, s in zip(PREDICTORS, fit["shares"], strict=True) if s)
                factors = ", ".join(f"{b} {f:.2f}" for b, f in zip(self.bands, fit["factors"], strict=True))
                rows.append(f"  {scale}x, reference {part}: {shares}; factors: {factors}")
        return "\n".join(rows)

    def nearest(self, scale: int) -> str:
        """The scale among those fitted that is nearest to another, by their ratio."""
        return min(self.tables, key=lambda s: abs(log(int(s) / scale)))


def read_calibration(folder: Path) -> Calibration | None:
    """That of a model's folder; None where there is none.

    Raises:
        ModelError: it is damaged, or of another format.
    """
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); make it again with geo-refdiff calibrate") from error
    try:
        if data["format"] != FORMAT or tuple(data["predictors"]) != PREDICTORS:
            raise ValueError("another format")
        bands, tables = tuple(data["bands"]), data["tables"]
        for table in tables.values():
            for part in ("known", "unknown"):
                if (len(table[part]["shares"]), len(table[part]["factors"])) != (len(PREDICTORS), len(bands)):
                    raise ValueError("shares or factors are missing")
        if not tables:
            raise ValueError("no scale")
        return Calibration(
            data["model_sha256"], data["sampler"], float(data["coverage"]), int(data["runs"]), bands, tables,
            data["origin"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: is no calibration ({error}); make it again with geo-refdiff calibrate") from error


def uncertainty_record(
    runs: int | None,
    model: Model,
    restorer: Restorer,
    bands: Bands,
    scale: int,
) -> tuple[UncertaintyRecord | None, list[str]]:
    """What the plan says of uncertainty, and what deserves a look about it.

    Args:
        runs: asked for; None: no map.
        model, restorer, bands, scale: of the plan.

    Raises:
        OptionError: there is nothing that the restorer's uncertainty could be estimated from.
        ModelError: the model's calibration is damaged.
    """
    if runs is None:
        return None, []
    notes: list[str] = []
    calibration = None if model.folder is None else read_calibration(model.folder)
    count = runs if restorer.stochastic else 1
    if calibration is None:
        if count == 1:
            raise OptionError(
                f"uncertainty: {model.name} draws no noise, so its runs do not differ, and it has no calibration; "
                f"leave out --uncertainty, choose a diffusion model, or calibrate it (geo-refdiff calibrate)"
            )
        notes.append(
            f"{model.name} has no calibration: the map of uncertainty is the plain spread over {count} runs, which is "
            f"usually much less than the error; make one with geo-refdiff calibrate"
        )
        shares = (_SPREAD_ALONE, _SPREAD_ALONE)
        return UncertaintyRecord(count, 0.0, False, *shares, ((1.0, 1.0),) * len(bands.scene)), notes
    mismatch = _differs(calibration, model, scale)
    if mismatch:
        notes.append(
            f"the calibration of uncertainty was made for {mismatch}: coverage of {calibration.coverage:.0%} is not "
            f"assured"
        )
    if count == 1:
        notes.append(f"{model.name} draws no noise with these settings: uncertainty is estimated without a spread")
    table = calibration.tables[calibration.nearest(scale)]
    known, unknown = (table[part] for part in ("known", "unknown"))
    channels = [_channel(bands, position) for position in range(len(bands.scene))]
    record = UncertaintyRecord(
        count,
        calibration.coverage,
        not mismatch,
        tuple(known["shares"]),
        tuple(unknown["shares"]),
        tuple((known["factors"][c], unknown["factors"][c]) for c in channels),
    )
    return record, notes


def _differs(calibration: Calibration, model: Model, scale: int) -> str:
    """In what a calibration is not for this run; empty if it is."""
    if calibration.model_sha256 != model.sha256:
        return "other weights"
    if dict(calibration.sampler) != dict(model.sampler):
        return "other settings of the sampler"
    return "" if str(scale) in calibration.tables else f"scales {', '.join(calibration.tables)}"


def _channel(bands: Bands, position: int) -> int:
    return bands.channels.index(position) if bands.channels else position
