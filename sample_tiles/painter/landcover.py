"""Land uses and boundaries, which the painter gives land cover."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


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
