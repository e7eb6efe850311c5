"""Settlements: everything that people have built on the parcels, at both dates."""

from __future__ import annotations

import numpy as np

from geo_refdiff.classes import BUILT, LOW
from sample_tiles.painter.buildings import Built, Frame, Slab, dates_of
from sample_tiles.painter.houses import lots
from sample_tiles.painter.landcover import Use
from sample_tiles.painter.parcels import Parcel
from sample_tiles.painter.planning import Character
from sample_tiles.painter.texture import Warp
from sample_tiles.painter.works import farmyard, industry


def park(out: Built, leaf: Parcel, warp: Warp) -> None:
    """A sports field with mown stripes and lines, courts, a pavilion, and trees around."""
    rng = np.random.default_rng([leaf.style, 19])
    dates = dates_of(leaf, Use.PARK)
    s0, s1, t0, t1 = leaf.extent(leaf.angle)
    frame = Frame(warp, leaf.angle, (s0 + s1) / 2, (t0 + t1) / 2)
    hl, hw = min(48.0, (s1 - s0) / 2 - 16), min(30.0, (t1 - t0) / 2 - 14)
    if hl > 18 and hw > 12 and rng.random() < 0.75:
        for k in range(8):
            x, y = frame.at(hl * (-0.875 + 0.25 * k), 0)
            out.slabs.append(
                Slab(x, y, frame.angle, (hl / 8, hw), "lush", LOW, 0.97 + 0.06 * (k % 2), lush=0.6, dates=dates)
            )
        for ds, dt, a, b in (
            (0, hw - 1, hl - 1, 0.12),
            (0, 1 - hw, hl - 1, 0.12),
            (hl - 1, 0, 0.12, hw - 1),
            (1 - hl, 0, 0.12, hw - 1),
            (0, 0, 0.12, hw - 1),
        ):
            x, y = frame.at(ds, dt)
            out.slabs.append(Slab(x, y, frame.angle, (a, b), "paint", None, 0.95, dates=dates))
    elif hl > 18 and hw > 12:
        for k in range(3):
            x, y = frame.at(-24 + 20.0 * k, 0)
            out.slabs.append(
                Slab(x, y, frame.angle, (9.0, 17.0), str(rng.choice(["court", "clay court"])), BUILT, dates=dates)
            )
            out.slabs.append(Slab(x, y, frame.angle, (4.1, 0.1), "paint", None, dates=dates))
    for _ in range(int(leaf.area / 260)):
        s, t = float(rng.uniform(s0, s1)), float(rng.uniform(t0, t1))
        chord = leaf.chord(leaf.angle, s)
        if (
            chord
            and chord[0] + 5 < t < chord[1] - 5
            and (abs(s - (s0 + s1) / 2) > hl + 4 or abs(t - (t0 + t1) / 2) > hw + 4)
        ):
            place = Frame(warp, leaf.angle, s, t)
            out.trees.append((place.x, place.y, float(rng.lognormal(1.25, 0.35)), dates))


def settle(leaves: list[Parcel], warp: Warp, char: Character) -> Built:
    """Everything built on the given leaves, at both dates."""
    out = Built()
    for leaf in leaves:
        for use in dict.fromkeys(leaf.uses):
            if use == Use.LOTS:
                lots(out, leaf, warp, char)
            elif use == Use.INDUSTRY:
                industry(out, leaf, warp)
            elif use == Use.FARMYARD:
                farmyard(out, leaf, warp)
            elif use == Use.PARK:
                park(out, leaf, warp)
    return out
