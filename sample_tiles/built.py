"""What stands on the parcels: the lists that the settlement fills, and local frames to place things in."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from geo_refdiff.sample_tiles.buildings import Building, Slab
from geo_refdiff.sample_tiles.landcover import Use
from geo_refdiff.sample_tiles.parcels import Parcel
from geo_refdiff.sample_tiles.texture import F32, Warp

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
