"""Roofs, slabs and cars: what people put on a parcel, each with the dates at which it stands, and how it looks lit."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from geo_refdiff.classes import BUILT
from sample_tiles.painter.canvas import Canvas, Patch
from sample_tiles.painter.landcover import Use
from sample_tiles.painter.parcels import Parcel
from sample_tiles.painter.spectra import Season, spectrum
from sample_tiles.painter.texture import F32, Warp

BOTH = (True, True)


@dataclass(frozen=True)
class Slab:
    """Something flat on the ground: a lawn, a drive, a pool, a car. Metres and radians on the map."""

    x: float
    y: float
    angle: float
    half: tuple[float, float]
    material: str
    land_cover: int | None
    tint: float = 1.0
    height: float | None = None
    dates: tuple[bool, bool] = BOTH
    round: bool = False
    lush: float | None = None
    """For grass: lushness on top of the season's; then `material` is not used."""


@dataclass(frozen=True)
class Building:
    """A rectangular building; `roof` is gable, hip, flat, shed-rows (saw-tooth or greenhouse bays) or dome (round)."""

    x: float
    y: float
    angle: float
    half: tuple[float, float]
    roof: str
    material: str
    tint: float
    eaves: float
    pitch: float
    """Slope of the roof, rise over run."""
    seed: int
    dates: tuple[bool, bool] = BOTH


def paint_slab(canvas: Canvas, slab: Slab, season: Season, texture: F32) -> None:
    """Lay a slab; `texture` (H, W) of about unit variance roughens it by a few DN."""
    if slab.round:
        patch = canvas.disc(slab.x, slab.y, slab.half[0], slab.half[1] / slab.half[0], slab.angle)
    else:
        patch = canvas.rectangle(slab.x, slab.y, slab.angle, slab.half)
    if patch is None:
        return
    colour = season.grass(slab.lush) if slab.lush is not None else spectrum(slab.material)
    rough = (5.0 if slab.lush is not None else 2.2) * texture[patch.where]
    layer = colour[:, None, None] * np.float32(slab.tint) + rough[None]
    canvas.paint(patch, layer.astype(np.float32), slab.land_cover, slab.height)


def _facing(season: Season, slope_x: F32, slope_y: F32) -> F32:
    """Sunlight on a facet relative to flat ground, from its slopes along map x and y (rise over run)."""
    sx, sy = season.towards_sun
    tangent = np.float32(np.tan(season.elevation))
    facing = (tangent - slope_x * np.float32(sx) - slope_y * np.float32(sy)) / np.sqrt(1 + slope_x**2 + slope_y**2)
    return np.asarray(0.38 + 0.62 * np.maximum(facing, 0) / tangent, dtype=np.float32)


def _roof(b: Building, patch: Patch) -> tuple[F32, F32, F32]:
    """Height above the eaves and the roof's slopes along s and t, each (h, w)."""
    s, t = patch.s, patch.t
    hl, hw = b.half
    zero = np.zeros_like(s)
    pitch = np.float32(b.pitch)
    if b.roof == "gable":
        return ((hw - np.abs(t)) * pitch).astype(np.float32), zero, -np.sign(t) * pitch
    if b.roof == "hip":
        end = hl - np.abs(s) < hw - np.abs(t)
        rise = (np.minimum(hl - np.abs(s), hw - np.abs(t)) * pitch).astype(np.float32)
        slope_s, slope_t = -np.sign(s) * pitch, -np.sign(t) * pitch
        return rise, slope_s * end.astype(np.float32), slope_t * (~end).astype(np.float32)
    if b.roof == "bays":
        bay = np.float32(6.4)
        across = np.mod(s + 500 * bay, bay) - bay / 2
        return (bay / 2 - np.abs(across)) * pitch, -np.sign(across) * pitch, zero
    if b.roof == "dome":
        rise = np.maximum(hl - np.hypot(s, t), 0) * pitch
        reach = np.maximum(np.hypot(s, t), 0.3).astype(np.float32)
        return rise.astype(np.float32), -s / reach * pitch, -t / reach * pitch
    return zero, zero, zero


def paint_building(canvas: Canvas, b: Building, season: Season, texture: F32) -> None:
    """Lay a roof with lit and shaded facets, ridge, gutter shade and fittings; heights go to the height layer."""
    patch = canvas.disc(b.x, b.y, b.half[0]) if b.roof == "dome" else canvas.rectangle(b.x, b.y, b.angle, b.half)
    if patch is None:
        return
    rng = np.random.default_rng(b.seed)
    rise, slope_s, slope_t = _roof(b, patch)
    c, sn = np.float32(np.cos(b.angle)), np.float32(np.sin(b.angle))
    light = _facing(season, slope_s * c - slope_t * sn, slope_s * sn + slope_t * c)
    shade = light * (1 + 0.02 * texture[patch.where])
    if b.roof in ("gable", "hip"):
        ridge = np.clip(1 - np.abs(patch.t) / (0.6 * canvas.gsd), 0, 1)
        shade = shade * (1 + 0.07 * ridge)
    elif b.roof == "flat":
        rim = np.minimum(b.half[0] - np.abs(patch.s), b.half[1] - np.abs(patch.t))
        shade = shade * np.where(rim < 0.9, 1.07, 1.0)
        shade = shade * (1 + 0.03 * np.sign(np.sin(patch.s * np.float32(2 * np.pi / rng.uniform(9, 16)))))
    if b.material == "metal" or b.material == "blue metal":
        shade = shade * (1 + 0.03 * np.sin(patch.s * np.float32(2 * np.pi / 3.1)))
    colour = (spectrum(b.material) * np.float32(b.tint))[:, None, None] * shade[None]
    canvas.paint(patch, colour.astype(np.float32), BUILT, (b.eaves + rise).astype(np.float32))
    _fittings(canvas, b, rng, season)


def _fittings(canvas: Canvas, b: Building, rng: np.random.Generator, season: Season) -> None:
    """Skylights, chimneys, solar modules, roof plant."""
    hl, hw = b.half
    c, sn = np.cos(b.angle), np.sin(b.angle)

    def add(s: float, t: float, half: tuple[float, float], material: str, up: float) -> None:
        where = canvas.rectangle(b.x + s * c - t * sn, b.y + s * sn + t * c, b.angle, half)
        if where is not None:
            canvas.paint(where, spectrum(material), BUILT, b.eaves + up)

    if b.roof == "flat":
        for _ in range(int(min(10, hl * hw / 55 * rng.uniform(0.3, 1.3)))):
            half = (float(rng.uniform(0.6, 1.9)), float(rng.uniform(0.6, 1.4)))
            s, t = rng.uniform(-0.85, 0.85) * hl, rng.uniform(-0.8, 0.8) * hw
            add(float(s), float(t), half, str(rng.choice(["metal", "concrete", "grey roof", "glass"])), 1.3)
    elif b.roof in ("gable", "hip") and hw < 9:
        side = 1.0 if np.dot([-sn, c], season.towards_sun) > 0 else -1.0
        if rng.random() < 0.2:
            add(
                float(rng.uniform(-0.3, 0.3) * hl), side * hw * 0.5, (hl * 0.4, hw * 0.28), "panel", 0.55 * hw * b.pitch
            )
        if rng.random() < 0.5:
            add(
                float(rng.uniform(-0.6, 0.6) * hl),
                float(rng.uniform(-0.3, 0.3) * hw),
                (0.5, 0.5),
                "brown roof",
                hw * b.pitch + 0.8,
            )
    elif b.roof == "gable":
        for k in range(int(hl / 5)):
            if rng.random() < 0.6:
                for side in (-0.5, 0.5):
                    add(-hl + 5 + 10 * k, side * hw, (1.6, 0.7), "glass", 0.5 * hw * b.pitch)


Dates = tuple[bool, bool]
"""Is it there at the old date, at the new date?"""


@dataclass
class Built:
    """What stands on the parcels, in painting order, and the places of garden trees (x, y, radius, dates)."""

    slabs: list[Slab] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    cars: list[Slab] = field(default_factory=list)
    trees: list[tuple[float, float, float, Dates]] = field(default_factory=list)

    def on_land(self, shore: list[F32], gsd: float) -> Built:
        """The same without what would stand in water or on its bank; `shore` as in `water.Waters`."""
        nearest = np.minimum(shore[0], shore[1])
        rows, cols = nearest.shape

        def dry(x: float, y: float, reach: float) -> bool:
            row, col = min(max(int(y / gsd), 0), rows - 1), min(max(int(x / gsd), 0), cols - 1)
            return bool(nearest[row, col] > reach)

        return Built(
            [s for s in self.slabs if dry(s.x, s.y, 2.0)],
            [b for b in self.buildings if dry(b.x, b.y, b.half[0] + 2.0)],
            [c for c in self.cars if dry(c.x, c.y, 4.0)],
            [t for t in self.trees if dry(t[0], t[1], 2.5)],
        )


class Frame:
    """A local frame on the map: metres (along, across) around a place of a parcel's plan."""

    def __init__(self, warp: Warp, angle: float, s: float, t: float) -> None:
        c, sn = np.cos(angle), np.sin(angle)
        s2 = np.array([s, s + 1.0])
        x, y = warp.inverse(s2 * c - t * sn, s2 * sn + t * c)
        self.x, self.y = float(x[0]), float(y[0])
        self.angle = float(np.arctan2(y[1] - y[0], x[1] - x[0]))
        self._c, self._s = float(np.cos(self.angle)), float(np.sin(self.angle))

    def at(self, along: float, across: float) -> tuple[float, float]:
        """Map metres of a local place."""
        return self.x + along * self._c - across * self._s, self.y + along * self._s + across * self._c


def dates_of(leaf: Parcel, use: Use) -> Dates:
    """Whether the parcel has the use at the old and at the new date."""
    return (leaf.uses[0] == use, leaf.uses[1] == use)


def car(rng: np.random.Generator, x: float, y: float, angle: float, dates: Dates) -> Slab:
    """A car, 4.4 x 1.8 m."""
    name = str(rng.choice(["car white", "car white", "car dark", "car grey", "car grey", "car red"]))
    return Slab(x, y, angle, (2.2, 0.9), name, None, float(rng.normal(1, 0.06)), 1.4, dates)
