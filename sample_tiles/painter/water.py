"""Rivers and ponds as signed distances to the shore, each with the dates at which the water is there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sample_tiles.painter.landcover import Use
from sample_tiles.painter.parcels import FAR, Parcel
from sample_tiles.painter.planning import Character
from sample_tiles.painter.texture import F32, Warp


@dataclass(frozen=True)
class Water:
    """One body of water: `signed` metres to the shore (H, W), negative in the water."""

    signed: F32
    name: str
    bank: float
    raw: bool
    """A fresh bank of bare earth instead of grass."""
    dates: tuple[bool, bool]


@dataclass
class Waters:
    """All bodies of water and, for each date, the metres to the nearest shore (H, W)."""

    bodies: list[Water] = field(default_factory=list)
    shore: list[F32] = field(default_factory=list)


def _blob(
    x: F32, y: F32, centre: tuple[float, float], radii: tuple[float, float], angle: float, rng: np.random.Generator
) -> F32:
    """Signed distance (about, in metres) to a rounded irregular shore."""
    c, s = np.cos(angle), np.sin(angle)
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    p, q = (dx * c + dy * s) / radii[0], (dy * c - dx * s) / radii[1]
    theta = np.arctan2(q, p)
    rim = np.ones_like(theta)
    for k in (2, 3, 5):
        rim += np.float32(rng.uniform(0.04, 0.22) / k * 2) * np.cos(k * theta + np.float32(rng.uniform(0, 6.28)))
    return np.asarray((np.hypot(p, q) - rim) * min(radii) * 0.9, dtype=np.float32)


def _river(x: F32, y: F32, rng: np.random.Generator, size: tuple[float, float], width: float) -> F32:
    """Signed distance to the banks of a meandering river through the canvas."""
    angle = rng.uniform(0, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    dx, dy = x - np.float32(size[1] * rng.uniform(0.25, 0.75)), y - np.float32(size[0] * rng.uniform(0.25, 0.75))
    along, across = dx * c + dy * s, dy * c - dx * s
    middle, slope = np.zeros_like(along), np.zeros_like(along)
    for length in (420.0, 230.0, 120.0):
        k = 2 * np.pi / (length * rng.uniform(0.8, 1.25))
        amplitude, phase = 0.075 * length * rng.uniform(0.6, 1.3), rng.uniform(0, 6.28)
        middle += np.float32(amplitude) * np.sin(k * along + phase)
        slope += np.float32(amplitude * k) * np.cos(k * along + phase)
    breadth = width * (1 + 0.2 * np.sin(along * np.float32(2 * np.pi / 170)))
    return np.asarray(np.abs(across - middle) / np.sqrt(1 + slope**2) - breadth, dtype=np.float32)


def draw_waters(
    rng: np.random.Generator, leaves: list[Parcel], warp: Warp, full: tuple[int, int], gsd: float, char: Character
) -> Waters:
    """A river in some landscapes, a pond in some meadows, and one in every parcel whose use is POND."""
    y, x = np.mgrid[: full[0], : full[1]].astype(np.float32)
    x, y = (x + np.float32(0.5)) * np.float32(gsd), (y + np.float32(0.5)) * np.float32(gsd)
    size = (full[0] * gsd, full[1] * gsd)
    out = Waters()
    if rng.random() < (1.0 if char.theme == "valley" else 0.16):
        width = float(rng.uniform(5, 13))
        out.bodies.append(Water(_river(x, y, rng, size, width), "river", float(rng.uniform(2, 4)), False, (True, True)))
    for leaf in leaves:
        own = np.random.default_rng([leaf.style, 29])
        still = leaf.uses[0] == leaf.uses[1] == Use.MEADOW and own.random() < 0.10 * (1 - 0.5 * char.dry)
        if Use.POND not in leaf.uses and not still:
            continue
        s0, s1, t0, t1 = leaf.extent(leaf.angle)
        share = 0.5 if still else 0.72
        radii = ((s1 - s0) / 2 * share * float(own.uniform(0.7, 1)), (t1 - t0) / 2 * share * float(own.uniform(0.7, 1)))
        if min(radii) < 6:
            continue
        middle = leaf.polygon.mean(axis=0)
        cx, cy = warp.inverse(middle[:1], middle[1:])
        signed = _blob(x, y, (float(cx[0]), float(cy[0])), radii, leaf.angle + warp.angle, own)
        dates = (True, True) if still else (leaf.uses[0] == Use.POND, leaf.uses[1] == Use.POND)
        name = str(own.choice(["pond", "clear water", "river"]))
        out.bodies.append(Water(signed, name, float(own.uniform(2.5, 6)), not still, dates))
    for date in (0, 1):
        shore = np.full(full, FAR, np.float32)
        for body in out.bodies:
            if body.dates[date]:
                np.minimum(shore, body.signed, out=shore)
        out.shore.append(shore)
    return out
