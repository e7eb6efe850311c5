"""Land-cover classes of the sample scenes: the project's own change-class table, and the land uses behind them.

In a land-cover raster a value says what covers the pixel. In a change mask 0 says "no change", any other value says
what covers the pixel NOW. A swimming pool is water; arable land is low vegetation at every stage, ploughed or not;
gravel, sand, dirt tracks and building sites are bare ground.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

NO_CHANGE: Final = 0
WATER: Final = 1
BARE: Final = 2
LOW: Final = 3
TREE: Final = 4
BUILT: Final = 5

CLASSES: Final[dict[int, str]] = {
    NO_CHANGE: "no change",
    WATER: "water",
    BARE: "bare ground",
    LOW: "low vegetation",
    TREE: "tree",
    BUILT: "built-up",
}

COLOURS: Final[dict[int, tuple[int, int, int]]] = {
    NO_CHANGE: (0, 0, 0),
    WATER: (40, 110, 220),
    BARE: (205, 170, 120),
    LOW: (150, 205, 90),
    TREE: (20, 110, 50),
    BUILT: (215, 50, 50),
}


class Use(IntEnum):
    """What people do with a parcel; decides its ground, its buildings and its trees."""

    CROP = 0
    MEADOW = 1
    FOREST = 2
    CONIFER = 3
    ORCHARD = 4
    LOTS = 5
    INDUSTRY = 6
    FARMYARD = 7
    SOLAR = 8
    PARK = 9
    CLEARCUT = 10
    GRAVEL = 11
    SCRUB = 12
    POND = 13


class Edge(IntEnum):
    """What runs along a boundary between parcels; NONE is a boundary that cannot be seen."""

    NONE = 0
    MARGIN = 1
    HEDGE = 2
    TRACK = 3
    LANE = 4
    STREET = 5
    MAIN = 6


HALF_WIDTH: Final[dict[Edge, float]] = {
    Edge.NONE: 0.0,
    Edge.MARGIN: 0.0,
    Edge.HEDGE: 0.0,
    Edge.TRACK: 1.6,
    Edge.LANE: 2.6,
    Edge.STREET: 3.9,
    Edge.MAIN: 5.6,
}
"""Half the width in metres of the carriageway along an edge (0: no carriageway)."""

ROADS: Final = frozenset({Edge.TRACK, Edge.LANE, Edge.STREET, Edge.MAIN})
