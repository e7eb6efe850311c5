"""Registration of a reference against a scene: one shift, an affine or a smooth field."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import hypot
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.estimate import RADIUS, Estimate, Verdict, estimate_pair, estimate_shift
from geo_refdiff.registration.field import Smooth, fit_affine, fit_constant, fit_field
from geo_refdiff.registration.pair import Pair, Shift
from geo_refdiff.registration.registration import Kind, Mode, Registration, rms
from geo_refdiff.registration.sites import LEAST_SCENE, Site, measure_sites
from geo_refdiff.registration.view import View

NEGLIGIBLE = 0.03
"""LR pixels: a displacement this small is within the method's error, and the reference is left where it is."""

_SITE_RADIUS = 4
_PASSES = 3
_EVIDENT = 10.0
"""Natural logarithm of how much likelier a field must make the measurements than one shift."""

_POSSIBLE = 3.0
"""The same for a first look, which is worth a closer one."""

_VISIBLE = 0.3
"""LR pixels, root mean square, by which a field must differ from one shift to be worth it: the shores of lakes that
rise and fall from year to year alone make one of 0.2."""

_STEEP = 0.7
"""LR pixels by which a field may differ from one shift in a single place to be worth it, too."""

_LEAST_SITES = 6
_LEAST_TO_VARY = 12
"""Sites from which on a field may be preferred to one shift without being asked for."""

_LEAST_TILES = 3
_LEAST_PART = 0.3
"""Of the places with something to see that must agree."""

_COHERENT = 0.6
"""Of the places that must agree with each other: of all with something to see, where the whole is not registered; of
the tiles that agree by themselves."""

_SCATTERED = 0.3
"""Standard error of tiles' common shift, LR pixels, from which on they have none."""

_NODES = 13
_NODE_DISTANCE = 32.0


def register_view(view: View, mode: Mode = "auto", radius: int = RADIUS) -> Registration:
    """Register a scene that is compared as a whole.

    Args:
        view: scene and reference.
        mode: "global": one shift. "affine", "local": refined by windows all over the scene. "auto": one shift, or a
            local field where the windows leave no doubt that one shift does not do.
        radius: greatest shift along an axis that is looked for, LR pixels.
    """
    pair = Pair(view, (0.0, 0.0))
    whole = estimate_pair(pair, radius)
    if whole.verdict in ("too small", "featureless"):
        return _not_registered(whole)
    roomy = min(view.shape) >= LEAST_SCENE
    if not (roomy and (whole.registered or mode != "global")):
        return _by_one_shift(whole, (), mode) if whole.registered else _not_registered(whole)
    sites = measure_sites(pair.placed(whole.candidate), _SITE_RADIUS)
    area = Window(*view.origin, *view.shape)
    smooth = None if mode == "global" else _fitted(sites, area, mode)
    if smooth is None or (mode == "auto" and whole.registered and not _worth(smooth, sites, _POSSIBLE)):
        return _by_one_shift(whole, sites, mode) if whole.registered else _not_registered(whole)
    if not whole.registered and smooth.inlier.sum() < _COHERENT * len(sites):
        return _not_registered(whole)
    for _ in range(_PASSES - 1):
        sites = measure_sites(_bent(pair, smooth.displacement), None)
        smooth = _fitted(sites, area, mode) or smooth
    sites = measure_sites(_bent(pair, smooth.displacement), None)
    if mode == "auto" and not _worth(smooth, sites):  # seen closely, it is one shift after all
        return _by_one_shift(whole if whole.registered else _by_places(sites, whole.pixels), sites, mode)
    return _by_field(smooth, sites, area, "affine" if mode == "affine" else "local", whole)


def register_tiles(views: Iterable[View], area: Window, mode: Mode = "auto") -> Registration:
    """Register a large scene from tiles, each of which is one measurement; one tile is held at a time.

    Args:
        views: the tiles.
        area: of the scene that they stand for, LR pixels.
        mode: as for `register_view`.
    """
    estimates: list[Estimate] = []
    sites: list[Site] = []
    for view in views:
        estimate = estimate_shift(view)
        estimates.append(estimate)
        if estimate.verdict in ("registered", "mismatch"):
            sites.append(_as_site(estimate, view))
    good = [s for s in sites if s.accepted]
    summary = _summary(estimates)
    if len(good) < max(_LEAST_TILES, _LEAST_PART * len(sites)):
        return _tiles_refused(estimates, len(good), summary)
    smooth = _constant(sites)
    if mode != "global":
        fitted = _fitted(sites, area, mode)
        if fitted is not None and (mode != "auto" or _worth(fitted, sites)):
            left = _with_residuals(sites, fitted.displacement)
            return _by_field(fitted, left, area, "affine" if mode == "affine" else "local", summary)
    if smooth.inlier.mean() < _COHERENT or smooth.sigma.max() > _SCATTERED:
        why = f"tiles disagree: {int(smooth.inlier.sum())} of {len(good)} show the same shift"
        return _not_registered(summary, "mismatch", why)
    return _by_one_shift(_by_places(sites, summary.pixels), sites, mode)


_INSTEAD = {
    "affine": "; too few places can be compared for an affine: one shift",
    "local": "; too few places can be compared for a local field: one shift",
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


def _constant(sites: Sequence[Site]) -> Smooth:
    good = _arrays(sites)
    return fit_constant(good.shifts, good.sigma)


def _fitted(sites: Sequence[Site], area: Window, mode: Mode) -> Smooth | None:
    """A field or affine through the accepted sites; None if too few are."""
    good = _arrays(sites)
    if len(good.points) < max(_LEAST_SITES, _LEAST_PART * len(sites)):
        return None
    if mode == "affine":
        return fit_affine(*good)
    return fit_field(*good, _nodes(area.row, area.height), _nodes(area.col, area.width))


def _nodes(first: int, length: int) -> NDArray[np.float64]:
    return np.linspace(first, first + length, int(np.clip(round(length / _NODE_DISTANCE) + 1, 4, _NODES)))


def _worth(smooth: Smooth, sites: Sequence[Site], least: float = _EVIDENT) -> bool:
    """Whether a field says clearly and visibly more than one shift."""
    good = _arrays(sites)
    if len(good.points) < _LEAST_TO_VARY:
        return False
    d = np.stack(smooth.displacement.at(good.points[:, 0], good.points[:, 1]), axis=1)
    steepest = float(np.hypot(*(d - np.median(d, axis=0)).T).max())
    return smooth.gain > least and (rms(d - d.mean(axis=0)) > _VISIBLE or steepest > _STEEP)


def _bent(pair: Pair, displacement: Displacement) -> Pair:
    return pair.placed(displacement.on_pixels(pair.view.shape, pair.view.origin))


def _by_places(sites: Sequence[Site], pixels: int) -> Estimate:
    """One shift from places that agree on it."""
    smooth, good = _constant(sites), [s for s in sites if s.accepted]
    score, correlation, apart = (
        float(np.median([getattr(s, name) for s in good])) for name in ("score", "correlation", "disagreement")
    )
    matrix, sigma = smooth.displacement.matrix, float(smooth.sigma[0, 0])
    return Estimate("registered", (matrix[2], matrix[5]), sigma, score, correlation, apart, pixels)


def _by_one_shift(whole: Estimate, sites: Sequence[Site], mode: Mode) -> Registration:
    shift = whole.candidate
    small = hypot(*shift) <= max(NEGLIGIBLE, whole.sigma)
    displacement = Displacement() if small else Displacement.constant(*shift).rounded()
    left = _with_residuals(sites, displacement)
    good = [s for s in left if s.accepted]
    own = displacement.matrix
    return Registration(
        verdict="registered",
        reason=whole.reason + _INSTEAD.get(mode, ""),
        kind="none" if small else "global",
        displacement=displacement,
        shift=(own[2], own[5]),
        sigma=whole.sigma,
        score=whole.score,
        correlation=whole.correlation,
        disagreement=whole.disagreement,
        before=rms(s.shift for s in good) if good else hypot(*shift),
        after=rms(s.residual for s in good) if good else hypot(shift[0] - own[2], shift[1] - own[5]),
        sites=left,
    )


def _by_field(smooth: Smooth, sites: Sequence[Site], area: Window, kind: Kind, whole: Estimate) -> Registration:
    displacement = smooth.displacement.rounded()
    good = [s for s in sites if s.accepted]
    rows, cols = np.linspace(area.row, area.stop_row, 33), np.linspace(area.col, area.stop_col, 33)
    d = displacement.at(rows[:, None], cols[None])
    mean = float(np.mean(d[0])), float(np.mean(d[1]))
    return Registration(
        verdict="registered",
        reason=f"two witnesses agree in {len(good)} of {len(sites)} places",
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


def _not_registered(whole: Estimate, verdict: Verdict | None = None, reason: str | None = None) -> Registration:
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
    """The sites with what a displacement leaves of their shifts."""
    return tuple(replace(s, residual=_left(s, displacement)) for s in sites)


def _left(site: Site, displacement: Displacement) -> Shift:
    row, col = displacement.at(np.array(site.row), np.array(site.col))
    return site.shift[0] - float(row), site.shift[1] - float(col)


def _as_site(estimate: Estimate, view: View) -> Site:
    """A tile's shift, at the tile's centre."""
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


def _summary(estimates: Sequence[Estimate]) -> Estimate:
    """What the tiles say on the whole: medians over those that are registered, else over all."""
    chosen = [e for e in estimates if e.registered] or list(estimates)
    if not chosen:
        return Estimate("too small", (0.0, 0.0), float("inf"), 0.0, 0.0, float("inf"), 0)
    score, correlation, apart = (
        float(np.median([getattr(e, name) for e in chosen])) for name in ("score", "correlation", "disagreement")
    )
    pixels = sum(e.pixels for e in chosen)
    return Estimate("mismatch", (0.0, 0.0), float("inf"), score, correlation, apart, pixels)


def _tiles_refused(estimates: Sequence[Estimate], good: int, summary: Estimate) -> Registration:
    """Why too few tiles agree: what most of them say."""
    verdicts: list[Verdict] = [e.verdict for e in estimates]
    if verdicts.count("mismatch") >= _LEAST_TILES:
        why = f"only {good} of {len(estimates)} tiles match ({summary.reason})"
        return _not_registered(summary, "mismatch", why)
    if verdicts.count("featureless") > verdicts.count("too small"):
        return _not_registered(summary, "featureless", "there are no edges to go by in any tile")
    told = f"only {good} of {len(estimates)} tiles have enough in common with it to tell"
    return _not_registered(summary, "too small", told)
