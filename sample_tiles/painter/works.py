"""Works: halls on yards, car parks, containers; and farmyards with barns and silos."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from geo_refdiff.classes import LOW
from sample_tiles.painter.buildings import BOTH, Building, Built, Dates, Frame, Slab, car, dates_of
from sample_tiles.painter.landcover import Use
from sample_tiles.painter.parcels import Parcel
from sample_tiles.painter.texture import Warp


def _rows_of_cars(out: Built, rng: np.random.Generator, frame: Frame, half: tuple[float, float], dates: Dates) -> None:
    """A car park: rows of bays, each date with its own cars."""
    for across in np.arange(-half[1] + 3, half[1] - 2, 8.5):
        x, y = frame.at(0, float(across))
        out.slabs.append(Slab(x, y, frame.angle, (half[0], 0.12), "paint", None, 0.9, dates=dates))
        for along in np.arange(-half[0] + 1.5, half[0] - 1, 2.7):
            for date in (0, 1):
                if dates[date] and rng.random() < 0.5:
                    cx, cy = frame.at(float(along), float(across) + 2.7)
                    out.cars.append(car(rng, cx, cy, frame.angle + np.pi / 2, (date == 0, date == 1)))


def industry(out: Built, leaf: Parcel, warp: Warp) -> None:
    """Halls on a grid of cells, with a car park in some."""
    rng = np.random.default_rng([leaf.style, 13])
    dates = dates_of(leaf, Use.INDUSTRY)
    s0, s1, _, _ = leaf.extent(leaf.angle)
    before = len(out.buildings)
    for s_lo, s_hi in _cells(s0 + 6, s1 - 6, rng, 46):
        chords = [c for c in (leaf.chord(leaf.angle, s) for s in (s_lo + 2, (s_lo + s_hi) / 2, s_hi - 2)) if c]
        if len(chords) < 3:
            continue
        low, high = max(c[0] for c in chords) + 8, min(c[1] for c in chords) - 8
        for t_lo, t_hi in _cells(low, high, rng, 38) if high - low > 18 else ():
            hl, hw = (s_hi - s_lo) / 2 - 4.5, (t_hi - t_lo) / 2 - 4.5
            if min(hl, hw) < 4.5:
                continue
            frame = Frame(warp, leaf.angle, (s_lo + s_hi) / 2, (t_lo + t_hi) / 2)
            draw = rng.random()
            if draw < 0.2:
                _rows_of_cars(out, rng, frame, (hl, hw), dates)
            elif draw < 0.86:
                when = dates
                if dates == BOTH and rng.random() < 0.12:
                    when = (True, False) if rng.random() < 0.5 else (False, True)
                    out.slabs.append(
                        Slab(
                            frame.x,
                            frame.y,
                            frame.angle,
                            (hl + 2, hw + 2),
                            "grass",
                            LOW,
                            lush=-0.3,
                            dates=(not when[0], not when[1]),
                        )
                    )
                roof = str(rng.choice(["flat", "flat", "gable", "bays"]))
                name = str(rng.choice(["white roof", "grey roof", "metal", "metal", "blue metal", "brown roof"]))
                half, angle = ((hl, hw), frame.angle) if hl >= hw else ((hw, hl), frame.angle + np.pi / 2)
                out.buildings.append(
                    Building(
                        frame.x,
                        frame.y,
                        angle,
                        half,
                        roof,
                        name,
                        float(rng.normal(0.98, 0.06)),
                        float(rng.uniform(5.5, 11)),
                        0.16,
                        int(rng.integers(1 << 31)),
                        when,
                    )
                )
            else:
                _stores(out, rng, frame, (hl, hw), dates)
            for _ in range(int(rng.integers(0, 4))):
                cx, cy = frame.at(float(rng.uniform(-hl, hl)), (hw + 2.4) * float(rng.choice([-1, 1])))
                out.cars.append(
                    Slab(cx, cy, frame.angle, (5.5, 1.25), "car white", None, float(rng.normal(0.9, 0.1)), 3.2, dates)
                )

    if len(out.buildings) == before:
        _lone_hall(out, leaf, warp, rng, dates)


def _lone_hall(out: Built, leaf: Parcel, warp: Warp, rng: np.random.Generator, dates: Dates) -> None:
    """One hall in the middle of a parcel of awkward shape, as large as fits, and cars beside it."""
    c, sn = np.cos(leaf.angle), np.sin(leaf.angle)
    u, v = leaf.polygon.mean(axis=0)
    s, t = float(u * c + v * sn), float(v * c - u * sn)
    for half in ((34.0, 19.0), (26.0, 15.0), (19.0, 11.0), (12.0, 8.0), (7.0, 5.0)):
        chords = [leaf.chord(leaf.angle, s + d * (half[0] + 9)) for d in (-1, 0, 1)]
        if all(k is not None and k[0] < t - half[1] - 8 and k[1] > t + half[1] + 8 for k in chords):
            frame = Frame(warp, leaf.angle, s, t)
            name = str(rng.choice(["white roof", "grey roof", "metal", "blue metal"]))
            roof = str(rng.choice(["flat", "gable", "bays"]))
            seed = int(rng.integers(1 << 31))
            hall = Building(frame.x, frame.y, frame.angle, half, roof, name, 0.97, 7.5, 0.16, seed, dates)
            out.buildings.append(hall)
            for along in np.arange(-half[0], half[0], 2.8):
                if rng.random() < 0.5:
                    x, y = frame.at(float(along), half[1] + 4.5)
                    out.cars.append(car(rng, x, y, frame.angle + np.pi / 2, dates))
            return


def _stores(out: Built, rng: np.random.Generator, frame: Frame, half: tuple[float, float], dates: Dates) -> None:
    """Containers and stacks in rows on a yard."""
    for across in np.arange(-half[1], half[1], 6.5):
        for along in np.arange(-half[0], half[0], 7.0):
            if rng.random() < 0.55:
                x, y = frame.at(float(along), float(across))
                name = str(rng.choice(["blue metal", "terracotta", "metal", "white roof", "brown soil", "car red"]))
                size = (float(rng.choice([3.0, 3.0, 2.0])), float(rng.uniform(1.1, 2.0)))
                out.cars.append(Slab(x, y, frame.angle, size, name, None, float(rng.normal(0.85, 0.1)), 2.6, dates))


def _cells(low: float, high: float, rng: np.random.Generator, size: float) -> list[tuple[float, float]]:
    n = max(1, int((high - low) / (size * rng.uniform(0.75, 1.3))))
    cuts = np.linspace(low, high, n + 1)
    cuts[1:-1] += rng.uniform(-0.15, 0.15, n - 1) * (high - low) / n
    return [(float(a), float(b)) for a, b in pairwise(cuts)]


def farmyard(out: Built, leaf: Parcel, warp: Warp) -> None:
    """Barns around a yard, silos, a dwelling house, a greenhouse now and then."""
    rng = np.random.default_rng([leaf.style, 17])
    dates = dates_of(leaf, Use.FARMYARD)
    s0, s1, t0, t1 = leaf.extent(leaf.angle)
    sm, tm = (s0 + s1) / 2, (t0 + t1) / 2
    frame = Frame(warp, leaf.angle, sm, tm)
    for k, (ds, dt) in enumerate(((-17, -13), (17, -14), (-18, 14), (18, 15))):
        if abs(ds) + 14 > (s1 - s0) / 2 or abs(dt) + 9 > (t1 - t0) / 2 or rng.random() < 0.12:
            continue
        x, y = frame.at(ds + float(rng.normal(0, 1.5)), dt + float(rng.normal(0, 1.5)))
        name = str(rng.choice(["terracotta", "grey roof", "metal", "brown roof", "slate"]))
        half = (float(rng.uniform(8, 14)), float(rng.uniform(5, 8))) if k else (6.5, 5.0)
        if k == 3 and rng.random() < 0.35:
            name, roof, half = "glass", "bays", (14.0, 9.0)
        else:
            roof = "gable"
        out.buildings.append(
            Building(
                x,
                y,
                frame.angle,
                half,
                roof,
                name,
                float(rng.normal(1, 0.07)),
                float(rng.uniform(3.5, 6)),
                0.4,
                int(rng.integers(1 << 31)),
                dates,
            )
        )
    for k in range(int(rng.integers(0, 4))):
        x, y = frame.at(-3.0 + 7.5 * k, -2.0)
        out.buildings.append(Building(x, y, 0.0, (3.1, 3.1), "dome", "metal", 1.05, 9.0, 0.35, k, dates))
    for _ in range(int(rng.integers(4, 12))):
        turn, reach = rng.uniform(0, 2 * np.pi), rng.uniform(24, 40)
        x, y = frame.at(float(reach * np.cos(turn)), float(reach * np.sin(turn)))
        out.trees.append((x, y, float(rng.lognormal(1.2, 0.3)), dates))
