"""What is known about how a reference lies on a scene."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Any, Literal

import msgspec
import numpy as np
from affine import Affine

from geo_refdiff.raster.affine import apply, apply_linear
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.registration.estimate import Verdict
from geo_refdiff.registration.pair import Shift
from geo_refdiff.registration.sites import Site

Mode = Literal["auto", "global", "local", "affine"]
Kind = Literal["none", "global", "local", "affine"]

_TOO_MANY = 0.05
"""Part of the sites that may lie beyond a limit: that many are wrong by themselves, or have truly moved."""


@dataclass(frozen=True, slots=True)
class Registration:
    """How a reference lies on a scene, and how well that is known. Lengths are in LR pixels.

    Attributes:
        verdict: "registered", or why not.
        reason: the same for people.
        kind: of the displacement: "none" = the reference lies right to within the error, or is not registered.
        displacement: what the scene shows at p the reference shows at p + displacement; LR pixels from the scene's
            corner.
        shift: (rows, columns), its mean over the scene.
        sigma: standard error: of the shift; of a field, the median over its nodes.
        score: of phase correlation, standard deviations above chance; the median over sites if only they were compared.
        correlation: of edge strengths, -1..1.
        disagreement: distance between the two witnesses.
        before, after: root mean square of the shifts at the sites that count, as they were and as they are left.
        sites: where shifts were measured; `residual` is what the displacement leaves; empty for a small scene.
    """

    verdict: Verdict
    reason: str
    kind: Kind
    displacement: Displacement
    shift: Shift
    sigma: float
    score: float
    correlation: float
    disagreement: float
    before: float
    after: float
    sites: tuple[Site, ...] = ()

    @property
    def registered(self) -> bool:
        """Whether the displacement may be used."""
        return self.verdict == "registered"

    @property
    def accepted(self) -> tuple[Site, ...]:
        """Sites at which both witnesses agree."""
        return tuple(s for s in self.sites if s.accepted)

    def beyond(self, limit: float) -> tuple[Site, ...]:
        """Accepted sites at which more than `limit` LR pixels are left."""
        return tuple(s for s in self.accepted if hypot(*s.residual) > limit)

    def exceeds(self, limit: float) -> bool:
        """Whether more than `limit` LR pixels are left on the whole, or in more places than chance explains."""
        many = len(self.beyond(limit)) > _TOO_MANY * max(len(self.accepted), 1 / _TOO_MANY)
        return self.registered and (self.after > limit or many)

    def lengths(self, scale: int, affine: Affine) -> dict[str, list[float]]:
        """The shift in LR pixels and HR pixels (rows, columns) and in units of the CRS (x, y).

        Args:
            scale: HR pixels along an LR pixel.
            affine: of the scene, pixel (col, row) to CRS units.
        """
        row, col = self.shift
        x, y = apply_linear(affine, col, row)
        return {
            "lr_pixels": [round(row, 4), round(col, 4)],
            "hr_pixels": [round(row * scale, 3), round(col * scale, 3)],
            "crs_units": [float(f"{float(x):.6g}"), float(f"{float(y):.6g}")],
        }

    def to_dict(self, scale: int, affine: Affine) -> dict[str, Any]:
        """JSON-ready report; infinite numbers become None."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "kind": self.kind,
            "shift": self.lengths(scale, affine),
            "standard_error_lr_pixels": _number(self.sigma),
            "phase_score": _number(self.score),
            "edge_correlation": _number(self.correlation),
            "witnesses_apart_lr_pixels": _number(self.disagreement),
            "residual_lr_pixels": {"before": _number(self.before), "after": _number(self.after)},
            "displacement_lr_pixels": msgspec.to_builtins(self.displacement),
            "sites": [_site(s, affine) for s in self.sites],
        }


def rms(shifts: Any) -> float:
    """Root mean square length of shifts (n, 2); 0 of none."""
    array = np.asarray(list(shifts), dtype=np.float64).reshape(-1, 2)
    return float(np.sqrt((array**2).sum(axis=1).mean())) if len(array) else 0.0


def _site(site: Site, affine: Affine) -> dict[str, Any]:
    x, y = apply(affine, np.array(site.col), np.array(site.row))
    return {
        "row": round(site.row, 2),
        "col": round(site.col, 2),
        "x": round(float(x), 3) if abs(float(x)) > 1000 else float(x),
        "y": round(float(y), 3) if abs(float(y)) > 1000 else float(y),
        "shift": [round(v, 4) for v in site.shift],
        "residual": [round(v, 4) for v in site.residual],
        "standard_error": _number(site.sigma),
        "phase_score": _number(site.score),
        "edge_correlation": _number(site.correlation),
        "accepted": site.accepted,
    }


def _number(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
