"""Housing: lots in rows along the streets, each with a house, a drive, a garden with beds, sheds, pools and trees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from geo_refdiff.classes import BARE, BUILT, LOW, WATER
from sample_tiles.painter.buildings import BOTH, Building, Built, Dates, Frame, Slab, car, dates_of
from sample_tiles.painter.landcover import Use
from sample_tiles.painter.parcels import Parcel
from sample_tiles.painter.planning import Character
from sample_tiles.painter.texture import Warp

ROOFS = {
    "temperate": ("terracotta", "terracotta", "brown roof", "slate", "grey roof"),
    "dry": ("grey roof", "brown roof", "terracotta", "white roof", "grey roof"),
}


@dataclass
class _Lot:
    """A lot in its own frame: metres along the street and across it, the street at across = face * depth / 2."""

    out: Built
    rng: np.random.Generator
    frame: Frame
    face: float
    width: float
    depth: float
    dates: Dates
    char: Character
    spanish: bool
    """Wide low houses, some with flat roofs."""

    @property
    def new(self) -> bool:
        return not self.dates[0]

    def draw(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def slab(self, s: float, t: float, half: tuple[float, float], material: str, land: int, **more: Any) -> None:
        x, y = self.frame.at(s, t)
        self.out.slabs.append(Slab(x, y, self.frame.angle, half, material, land, dates=self.dates, **more))

    def building(
        self,
        s: float,
        t: float,
        angle: float,
        half: tuple[float, float],
        roof: tuple[str, str],
        tint: float,
        eaves: float,
        pitch: float,
    ) -> None:
        x, y = self.frame.at(s, t)
        seed = int(self.rng.integers(1 << 31))
        where = (x, y, self.frame.angle + angle, half)
        self.out.buildings.append(Building(*where, *roof, tint, eaves, pitch, seed, self.dates))


def house(lot: _Lot) -> None:
    """Fill a lot: lawn first, then the house with its drive, then the garden."""
    rng = lot.rng
    lawn = rng.random() > 0.22 * lot.char.dry + (0.35 if lot.new else 0.0)
    material = str(rng.choice(["sand", "pale soil", "gravel"]))
    lush = float(rng.normal(-0.15 if lot.new else 0.1, 0.45))
    half = (lot.width / 2 - 0.35, lot.depth / 2 - 0.6)
    tint = float(rng.normal(0.97, 0.06))
    lot.slab(0, 0, half, material, LOW if lawn else BARE, tint=tint, lush=lush if lawn else None)
    dwelling = _dwelling(lot)
    _garden(lot, dwelling)
    _trees(lot, dwelling)


def _dwelling(lot: _Lot) -> tuple[float, float, float, float]:
    """The house, its wing and its drive; returns its middle (s, t) and half sides in the lot's frame, metres."""
    rng, face, width, depth = lot.rng, lot.face, lot.width, lot.depth
    bulk = 1.15 if lot.spanish else 0.98
    deep = float(np.clip(rng.normal(6.4 * bulk, 0.9), 4.6, 0.27 * depth + 1))
    wide = float(np.clip(rng.normal(0.40 * width * bulk, 0.8), 4.8, 0.5 * width - 0.9))
    setback = lot.draw(3.5, 6.5)
    t = face * (depth / 2 - setback - deep)
    s = lot.draw(-0.5, 0.5) * max(0.0, width / 2 - wide - 1.0)
    shape = "flat" if lot.spanish and rng.random() < 0.25 else str(rng.choice(["gable", "gable", "hip"]))
    names = ROOFS["dry" if lot.char.dry > 0.5 else "temperate"]
    roof = (shape, names[int(rng.integers(len(names)))] if rng.random() < 0.5 else names[round(width) % len(names)])
    tint, pitch = float(rng.normal(1, 0.08)), lot.draw(0.3, 0.75)
    half, turn = ((wide, deep), 0.0) if wide >= deep else ((deep, wide), np.pi / 2)
    side = -1.0 if s > 0 else 1.0
    drive = s + side * (wide + 1.6) * lot.draw(0.6, 0.95)
    paving = str(rng.choice(["concrete", "pale asphalt", "asphalt", "concrete"]))
    long = setback / 2 + 2.2
    lot.slab(
        drive,
        face * (depth / 2 - setback / 2 - 1.0),
        (lot.draw(1.5, 2.5), long),
        paving,
        BUILT,
        tint=lot.draw(0.9, 1.05),
    )
    if rng.random() < 0.6:
        lot.slab(s, t - face * (deep + 1.6), (wide * 0.6, 1.8), "concrete", BUILT, tint=0.92)
    lot.building(s, t, turn, half, roof, tint, lot.draw(2.8, 5.2), pitch)
    if rng.random() < 0.5:
        wing = (lot.draw(2.8, 3.6), lot.draw(2.6, 3.4))
        lot.building(
            s + side * (wide - 1.5), t + face * (deep + wing[0] * 0.4), np.pi / 2, wing, roof, tint, 2.8, pitch
        )
    if rng.random() < 0.4:
        x, y = lot.frame.at(drive, face * (depth / 2 - setback / 2))
        lot.out.cars.append(car(rng, x, y, lot.frame.angle + np.pi / 2, lot.dates))
    return s, t, wide, deep


def _garden(lot: _Lot, dwelling: tuple[float, float, float, float]) -> None:
    """Beds, a pool or a shed, hedges to the neighbours, a car in the street at one of the dates."""
    rng, face, width, depth = lot.rng, lot.face, lot.width, lot.depth
    for _ in range(int(rng.integers(1, 4))):
        bed = str(rng.choice(["brown soil", "lush", "gravel", "dry grass", "broadleaf", "forest floor"]))
        s, t = lot.draw(-0.42, 0.42) * width, -face * lot.draw(0.1, 0.46) * depth
        land = BARE if bed in ("brown soil", "gravel") else LOW
        if abs(t - dwelling[1]) > dwelling[3] + 1:
            lot.slab(s, t, (lot.draw(0.8, 3.5), lot.draw(0.7, 1.8)), bed, land, tint=float(rng.normal(0.95, 0.1)))
    back = -face * (depth / 2 - 4.0)
    if rng.random() < 0.12 + 0.25 * lot.char.dry:
        s, t = lot.draw(-0.25, 0.25) * width, back + face * 1.5
        size = (lot.draw(2.6, 4.2), lot.draw(1.5, 2.2))
        lot.slab(s, t, (size[0] + 1.2, size[1] + 1.2), "concrete", BUILT)
        lot.slab(s, t, size, "pool", WATER, tint=float(rng.normal(0.95, 0.06)), round=rng.random() < 0.3)
    elif rng.random() < 0.4:
        lot.building(
            float(rng.choice([-0.36, 0.36])) * width, back, 0.0, (1.8, 1.4), ("gable", "grey roof"), 1.0, 2.1, 0.3
        )
    for side in (-0.5, 0.5):
        if rng.random() < 0.35:
            lot.slab(side * width, -face * depth * 0.2, (0.55, depth * 0.28), "broadleaf", LOW, tint=0.85, height=1.5)
    if rng.random() < 0.3:
        x, y = lot.frame.at(lot.draw(-0.4, 0.4) * width, face * (depth / 2 + 4.3))
        date = int(rng.integers(2))
        if lot.dates[date]:
            lot.out.cars.append(car(rng, x, y, lot.frame.angle, (date == 0, date == 1)))


def _trees(lot: _Lot, dwelling: tuple[float, float, float, float]) -> None:
    """Garden trees around the house and now and then a street tree."""
    rng = lot.rng
    s, t, wide, deep = dwelling
    for _ in range(int(rng.poisson(0.8 if lot.new else lot.char.leafy))):
        ts, tt = lot.draw(-0.48, 0.48) * lot.width, -lot.face * lot.draw(-0.46, 0.49) * lot.depth
        if abs(ts - s) > 0.8 * wide + 1 or abs(tt - t) > 0.85 * deep + 1:
            radius = lot.draw(0.8, 1.5) if lot.new else float(rng.lognormal(0.85, 0.5))
            lot.out.trees.append((*lot.frame.at(ts, tt), radius, lot.dates))
    if rng.random() < 0.3:
        place = lot.frame.at(lot.draw(-0.4, 0.4) * lot.width, lot.face * (lot.depth / 2 + 0.8))
        lot.out.trees.append((*place, float(rng.lognormal(0.8, 0.3)), lot.dates))


def _when(rng: np.random.Generator, dates: Dates) -> Dates:
    """Dates of one house of a block: a few in a hundred of the old blocks' houses come or go."""
    if dates != BOTH:
        return dates
    draw = rng.random()
    return (False, True) if draw < 0.035 else ((True, False) if draw < 0.045 else BOTH)


def lots(out: Built, leaf: Parcel, warp: Warp, char: Character) -> None:
    """Rows of houses on both long sides of a block, or on one side of a shallow one."""
    rng = np.random.default_rng([leaf.style, 11])
    dates = dates_of(leaf, Use.LOTS)
    spanish = rng.random() < char.dry
    gap = 7.5
    s0, s1, _, _ = leaf.extent(leaf.angle)
    n = max(1, int((s1 - s0 - 2 * gap) / rng.uniform(13.5, 21)))
    width = (s1 - s0 - 2 * gap) / n
    for k in range(n):
        s = s0 + gap + (k + 0.5) * width
        spans = [c for c in (leaf.chord(leaf.angle, s + d * width / 2) for d in (-1, 0, 1)) if c]
        if len(spans) < 3:
            continue
        t0, t1 = max(c[0] for c in spans) + 7.2, min(c[1] for c in spans) - 7.2
        open_depth = spans[1][1] - spans[1][0] - 14.4
        if t1 - t0 < 14:
            continue
        double = open_depth > 36
        depth = min(open_depth / 2, 46.0) if double else t1 - t0
        for face in (-1.0, 1.0) if double else (float(rng.choice([-1, 1])),):
            frame = Frame(warp, leaf.angle, s, t0 + depth / 2 if face < 0 else t1 - depth / 2)
            when = _when(rng, dates)
            if when != dates and rng.random() < 0.5:
                half, without = (width / 2 - 0.4, depth / 2 - 0.6), (not when[0], not when[1])
                out.slabs.append(Slab(frame.x, frame.y, frame.angle, half, "pale soil", BARE, dates=without))
            if rng.random() < 0.95:
                house(_Lot(out, rng, frame, face, width, depth, when, char, spanish))
