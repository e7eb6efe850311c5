"""Registration of a reference on a scene: no displacement, one shift, an affine or a smooth field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import hypot, isfinite, nan
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geo_refdiff.options import RegistrationMode
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.geobox import apply, apply_linear
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.estimate import (
    MIN_SCENE,
    RADIUS,
    ShiftEstimate,
    Site,
    Verdict,
    estimate_pair,
    estimate_shift,
    measure_sites,
)
from geo_refdiff.registration.features import Pair, Shift
from geo_refdiff.registration.field import FittedDisplacement, fit_affine, fit_constant, fit_field
from geo_refdiff.registration.view import View

Kind = Literal["none", "global", "local", "affine"]

TOO_SMALL = "the scene is too small to measure what remains"
"""Said of shifts in place of their residual."""

_MAX_BEYOND = 0.05
"""Part of the sites that may exceed a limit: so many are measured wrongly, or have truly moved."""


NEGLIGIBLE = 0.03
"""Displacements below this are within the method's error and are not applied, scene pixels."""

_SITE_RADIUS = 4
_PASSES = 3
_MIN_GAIN = 10.0
"""Log likelihood (natural) that a field must gain over one shift to be preferred."""

_MIN_FIRST_GAIN = 3.0
"""The same after the first pass, for further passes to be made."""

_MIN_VARIATION = 0.3
"""Root mean square by which a field must differ from one shift to be preferred, scene px: lakes whose shores rise and
fall from year to year alone make one of 0.2."""

_MIN_PEAK_VARIATION = 0.7
"""Difference from one shift at a single site that suffices as well, scene pixels."""

_MIN_SITES = 6
_MIN_TO_VARY = 12
"""Sites that are needed to prefer a field to one shift in mode auto."""

_MIN_TILES = 3
_MIN_PART = 0.3
"""Part of the measured sites that must be accepted."""

_COHERENT = 0.6
"""Part that must agree with each other: of all sites, where the view as a whole is not registered; of the accepted
tiles."""

_SCATTERED = 0.3
"""Standard error above which tiles have no common shift, scene pixels."""

_NODES = 13
_NODE_DISTANCE = 32.0


@dataclass(frozen=True, slots=True)
class Registration:
    """The displacement of a reference against a scene, and its quality. Lengths are in scene pixels.

    Attributes:
        verdict: "registered", or why not.
        reason: the verdict in words.
        kind: of the displacement; "none" = zero to within the error, or not registered.
        displacement: scene position p is found in the reference at p + displacement; scene pixels from the scene's
            corner.
        shift: (rows, columns), its mean over the scene.
        sigma: standard error: of the shift; of a field, the median over its nodes.
        score: of phase correlation, standard deviations above chance; the median over sites if only they were compared.
        correlation: of edge strengths, -1..1.
        disagreement: distance between the two estimates.
        before, after: root mean square of the shifts at the accepted sites, without and with the displacement; where
            there are none, `before` is the length of the shift, and `after` NaN unless nothing is moved.
        sites: where shifts were measured; `residual` is the shift less the displacement; empty for a small scene.
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
        """Sites at which both estimators agree."""
        return tuple(s for s in self.sites if s.accepted)

    def beyond(self, limit: float) -> tuple[Site, ...]:
        """Accepted sites whose residual exceeds `limit` scene pixels."""
        return tuple(s for s in self.accepted if hypot(*s.residual) > limit)

    def exceeds(self, limit: float) -> bool:
        """Whether residuals exceed `limit` scene px: their root mean square, or more of them than chance explains."""
        many = len(self.beyond(limit)) > _MAX_BEYOND * max(len(self.accepted), 1 / _MAX_BEYOND)
        return self.registered and (self.after > limit or many)

    def residual_text(self, digits: int = 2) -> str:
        """What is left of the shifts, for people."""
        if not isfinite(self.after):
            return TOO_SMALL
        return f"{self.before:.{digits}f} scene pixels before, {self.after:.{digits}f} after"

    def lengths(self, scale: int, affine: Affine) -> dict[str, list[float]]:
        """The shift in scene pixels and output pixels (rows, columns) and in units of the CRS (x, y), JSON-ready.

        Args:
            scale: output pixels along a scene pixel.
            affine: of the scene, pixel (col, row) to CRS units.
        """
        row, col = self.shift
        x, y = apply_linear(affine, col, row)
        return {
            "scene_pixels": [round(row, 4), round(col, 4)],
            "output_pixels": [round(row * scale, 3), round(col * scale, 3)],
            "crs_units": [float(f"{float(x):.6g}"), float(f"{float(y):.6g}")],
        }

    def to_dict(self, scale: int, affine: Affine) -> dict[str, Any]:
        """JSON-ready report; infinite numbers become None."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "kind": self.kind,
            "shift": self.lengths(scale, affine),
            "standard_error_scene_pixels": _number(self.sigma),
            "phase_score": _number(self.score),
            "edge_correlation": _number(self.correlation),
            "estimators_apart_scene_pixels": _number(self.disagreement),
            "residual_scene_pixels": {"before": _number(self.before), "after": _number(self.after)},
            "displacement_scene_pixels": msgspec.to_builtins(self.displacement),
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


def register_view(view: View, mode: RegistrationMode = "auto", radius: int = RADIUS) -> Registration:
    """Register a scene that is compared as a whole.

    Args:
        view: scene and reference.
        mode: "global": one shift. "affine", "local": fitted to windows over the scene. "auto": one shift, or a local
            field where the windows show clearly that one shift does not suffice.
        radius: search radius along each axis, scene pixels.
    """
    pair = Pair(view, (0.0, 0.0))
    whole = estimate_pair(pair, radius)
    if whole.verdict in ("too small", "featureless"):
        return _not_registered(whole)
    roomy = min(view.shape) >= MIN_SCENE
    if not (roomy and (whole.registered or mode != "global")):
        return _by_one_shift(whole, (), mode) if whole.registered else _not_registered(whole)
    sites = measure_sites(pair.placed(whole.candidate), _SITE_RADIUS)
    area = Window(*view.origin, *view.shape)
    smooth = None if mode == "global" else _fitted(sites, area, mode)
    if smooth is None or (mode == "auto" and whole.registered and not _is_better(smooth, sites, _MIN_FIRST_GAIN)):
        return _by_one_shift(whole, sites, mode) if whole.registered else _not_registered(whole)
    if not whole.registered and smooth.inlier.sum() < _COHERENT * len(sites):
        return _not_registered(whole)
    for _ in range(_PASSES - 1):
        sites = measure_sites(_bent(pair, smooth.displacement), None)
        smooth = _fitted(sites, area, mode) or smooth
    sites = measure_sites(_bent(pair, smooth.displacement), None)
    if mode == "auto" and not _is_better(smooth, sites):  # after refinement, one shift suffices
        return _by_one_shift(whole if whole.registered else _by_sites(sites, whole.pixels), sites, mode)
    return _by_field(smooth, sites, area, "affine" if mode == "affine" else "local")


def register_tiles(views: Iterable[View], area: Window, mode: RegistrationMode = "auto") -> Registration:
    """Register a large scene from tiles, each of which is one site; one tile is held in memory at a time.

    Args:
        views: the tiles.
        area: part of the scene that they sample, scene pixels.
        mode: as for `register_view`.
    """
    estimates: list[ShiftEstimate] = []
    sites: list[Site] = []
    for view in views:
        estimate = estimate_shift(view)
        estimates.append(estimate)
        if estimate.verdict in ("registered", "mismatch"):
            sites.append(_as_site(estimate, view))
    good = [s for s in sites if s.accepted]
    summary = _summary(estimates)
    if len(good) < max(_MIN_TILES, _MIN_PART * len(sites)):
        return _tiles_refused(estimates, len(good), summary)
    smooth = _constant(sites)
    if mode != "global":
        fitted = _fitted(sites, area, mode)
        if fitted is not None and (mode != "auto" or _is_better(fitted, sites)):
            with_residuals = _with_residuals(sites, fitted.displacement)
            return _by_field(fitted, with_residuals, area, "affine" if mode == "affine" else "local")
    if smooth.inlier.mean() < _COHERENT or smooth.sigma.max() > _SCATTERED:
        reason = f"tiles disagree: {int(smooth.inlier.sum())} of {len(good)} show the same shift"
        return _not_registered(summary, "mismatch", reason)
    return _by_one_shift(_by_sites(sites, summary.pixels), sites, mode)


_FALLBACK = {
    "affine": "; too few sites for an affine: one shift",
    "local": "; too few sites for a local field: one shift",
}


class _Good(NamedTuple):
    points: NDArray[np.float64]
    shifts: NDArray[np.float64]
    sigma: NDArray[np.float64]


def _arrays(sites: Sequence[Site]) -> _Good:
    good = [s for s in sites if s.accepted]
    points = np.array([(s.row, s.col) for s in good], dtype=np.float64).reshape(-1, 2)
    shifts = np.array([s.shift for s in good], dtype=np.float64).reshape(-1, 2)
    return _Good(points, shifts, np.array([s.sigma for s in good], dtype=np.float64))


def _constant(sites: Sequence[Site]) -> FittedDisplacement:
    good = _arrays(sites)
    return fit_constant(good.shifts, good.sigma)


def _fitted(sites: Sequence[Site], area: Window, mode: RegistrationMode) -> FittedDisplacement | None:
    """A field or affine through the accepted sites; None if too few are."""
    good = _arrays(sites)
    if len(good.points) < max(_MIN_SITES, _MIN_PART * len(sites)):
        return None
    if mode == "affine":
        return fit_affine(*good)
    return fit_field(*good, _nodes(area.row, area.height), _nodes(area.col, area.width))


def _nodes(first: int, length: int) -> NDArray[np.float64]:
    return np.linspace(first, first + length, int(np.clip(round(length / _NODE_DISTANCE) + 1, 4, _NODES)))


def _is_better(smooth: FittedDisplacement, sites: Sequence[Site], least: float = _MIN_GAIN) -> bool:
    """Whether a field is clearly likelier than one shift, and differs enough from it."""
    good = _arrays(sites)
    if len(good.points) < _MIN_TO_VARY:
        return False
    d = np.stack(smooth.displacement.at(good.points[:, 0], good.points[:, 1]), axis=1)
    peak = float(np.hypot(*(d - np.median(d, axis=0)).T).max())
    return smooth.gain > least and (rms(d - d.mean(axis=0)) > _MIN_VARIATION or peak > _MIN_PEAK_VARIATION)


def _bent(pair: Pair, displacement: Displacement) -> Pair:
    return pair.placed(displacement.on_pixels(pair.view.shape, pair.view.origin))


def _by_sites(sites: Sequence[Site], pixels: int) -> ShiftEstimate:
    """One shift from the accepted sites."""
    smooth, good = _constant(sites), [s for s in sites if s.accepted]
    score, correlation, apart = (
        float(np.median([getattr(s, name) for s in good])) for name in ("score", "correlation", "disagreement")
    )
    matrix, sigma = smooth.displacement.matrix, float(smooth.sigma[0, 0])
    return ShiftEstimate("registered", (matrix[2], matrix[5]), sigma, score, correlation, apart, pixels)


def _by_one_shift(whole: ShiftEstimate, sites: Sequence[Site], mode: RegistrationMode) -> Registration:
    shift = whole.candidate
    small = hypot(*shift) <= max(NEGLIGIBLE, whole.sigma)
    displacement = Displacement() if small else Displacement.constant(*shift).rounded()
    with_residuals = _with_residuals(sites, displacement)
    good = [s for s in with_residuals if s.accepted]
    matrix = displacement.matrix
    return Registration(
        verdict="registered",
        reason=whole.reason + _FALLBACK.get(mode, ""),
        kind="none" if small else "global",
        displacement=displacement,
        shift=(matrix[2], matrix[5]),
        sigma=whole.sigma,
        score=whole.score,
        correlation=whole.correlation,
        disagreement=whole.disagreement,
        before=rms(s.shift for s in good) if good else hypot(*shift),
        after=rms(s.residual for s in good) if good else hypot(*shift) if small else nan,
        sites=with_residuals,
    )


def _by_field(smooth: FittedDisplacement, sites: Sequence[Site], area: Window, kind: Kind) -> Registration:
    displacement = smooth.displacement.rounded()
    good = [s for s in sites if s.accepted]
    rows, cols = np.linspace(area.row, area.stop_row, 33), np.linspace(area.col, area.stop_col, 33)
    d = displacement.at(rows[:, None], cols[None])
    mean = float(np.mean(d[0])), float(np.mean(d[1]))
    return Registration(
        verdict="registered",
        reason=f"two independent estimators agree at {len(good)} of {len(sites)} sites",
        kind=kind,
        displacement=displacement,
        shift=mean,
        sigma=float(np.median(smooth.sigma)),
        score=float(np.median([s.score for s in good])),
        correlation=float(np.median([s.correlation for s in good])),
        disagreement=float(np.median([s.disagreement for s in good])),
        before=rms(s.shift for s in good),
        after=rms(s.residual for s in good),
        sites=tuple(sites),
    )


def _not_registered(whole: ShiftEstimate, verdict: Verdict | None = None, reason: str | None = None) -> Registration:
    return Registration(
        verdict=verdict or whole.verdict,
        reason=reason or whole.reason,
        kind="none",
        displacement=Displacement(),
        shift=(0.0, 0.0),
        sigma=float("inf"),
        score=whole.score,
        correlation=whole.correlation,
        disagreement=whole.disagreement,
        before=float("inf"),
        after=float("inf"),
    )


def _with_residuals(sites: Sequence[Site], displacement: Displacement) -> tuple[Site, ...]:
    """The sites with the residuals of a displacement."""
    return tuple(replace(s, residual=_residual(s, displacement)) for s in sites)


def _residual(site: Site, displacement: Displacement) -> Shift:
    row, col = displacement.at(np.array(site.row), np.array(site.col))
    return site.shift[0] - float(row), site.shift[1] - float(col)


def _as_site(estimate: ShiftEstimate, view: View) -> Site:
    """A tile's shift as a site at its centre."""
    return Site(
        row=view.origin[0] + view.shape[0] / 2,
        col=view.origin[1] + view.shape[1] / 2,
        shift=estimate.candidate,
        residual=estimate.candidate,
        sigma=estimate.sigma,
        score=estimate.score,
        correlation=estimate.correlation,
        disagreement=estimate.disagreement,
        accepted=estimate.registered,
    )


def _summary(estimates: Sequence[ShiftEstimate]) -> ShiftEstimate:
    """Medians over the tiles that are registered, else over all."""
    chosen = [e for e in estimates if e.registered] or list(estimates)
    if not chosen:
        return ShiftEstimate("too small", (0.0, 0.0), float("inf"), 0.0, 0.0, float("inf"), 0)
    score, correlation, apart = (
        float(np.median([getattr(e, name) for e in chosen])) for name in ("score", "correlation", "disagreement")
    )
    pixels = sum(e.pixels for e in chosen)
    return ShiftEstimate("mismatch", (0.0, 0.0), float("inf"), score, correlation, apart, pixels)


def _tiles_refused(estimates: Sequence[ShiftEstimate], good: int, summary: ShiftEstimate) -> Registration:
    """Why too few tiles agree, by the verdict of most of them."""
    verdicts: list[Verdict] = [e.verdict for e in estimates]
    if verdicts.count("mismatch") >= _MIN_TILES:
        reason = f"only {good} of {len(estimates)} tiles match ({summary.reason})"
        return _not_registered(summary, "mismatch", reason)
    if verdicts.count("featureless") > verdicts.count("too small"):
        return _not_registered(summary, "featureless", "there are no edges to compare in any tile")
    reason = f"only {good} of {len(estimates)} tiles have enough in common with the reference"
    return _not_registered(summary, "too small", reason)
