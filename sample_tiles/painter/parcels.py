"""Parcels: a landscape cut again and again by lines (binary space partition), as farmers, heirs and towns do.

The plan lives in warped plan metres (u, v), so the straight cuts become gently curved lanes and field edges on the
map. Each cut may carry another kind of edge at the old and at the new date.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sample_tiles.painter.landcover import HALF_WIDTH, ROADS, Edge, Use
from sample_tiles.painter.texture import F32

Polygon = NDArray[np.float64]
"""Corners of a convex polygon, shape (n, 2), plan metres."""

FAR = 999.0


@dataclass
class Parcel:
    """A node of the partition: a leaf with a use for each date or, once `cut`, two halves along a line."""

    polygon: Polygon
    uses: tuple[Use, Use]
    style: int
    """Seed of everything that gives the parcel its looks; halves of one old field share it."""
    angle: float = 0.0
    """Direction of the crop rows or of the house rows, plan radians."""
    edges: tuple[Edge, Edge] = (Edge.NONE, Edge.NONE)
    point: tuple[float, float] = (0.0, 0.0)
    normal: tuple[float, float] = (1.0, 0.0)
    halves: tuple[Parcel, Parcel] | None = None
    index: int = -1

    @property
    def area(self) -> float:
        """Area in square metres."""
        x, y = self.polygon[:, 0], self.polygon[:, 1]
        return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)

    def extent(self, angle: float) -> tuple[float, float, float, float]:
        """Least and greatest coordinate along `angle` and across it: (s0, s1, t0, t1), metres."""
        c, s = np.cos(angle), np.sin(angle)
        along = self.polygon @ np.array([c, s])
        across = self.polygon @ np.array([-s, c])
        return float(along.min()), float(along.max()), float(across.min()), float(across.max())

    def chord(self, angle: float, along: float) -> tuple[float, float] | None:
        """Where the line across `angle` at the coordinate `along` enters and leaves the polygon, or None."""
        c, s = np.cos(angle), np.sin(angle)
        a = self.polygon @ np.array([c, s]) - along
        b = self.polygon @ np.array([-s, c])
        hits = []
        for i in range(len(a)):
            j = (i + 1) % len(a)
            if (a[i] < 0) != (a[j] < 0):
                hits.append(float(b[i] + (b[j] - b[i]) * a[i] / (a[i] - a[j])))
        return (min(hits), max(hits)) if len(hits) == 2 else None

    def cut(self, angle: float, offset: float, edges: tuple[Edge, Edge]) -> bool:
        """Cut along direction `angle` at the coordinate `offset` across it; False if the line misses the parcel."""
        normal = np.array([-np.sin(angle), np.cos(angle)])
        d = self.polygon @ normal - offset
        if d.min() > -1 or d.max() < 1:
            return False
        sides: tuple[list[Polygon], list[Polygon]] = ([], [])
        for i in range(len(d)):
            j = (i + 1) % len(d)
            p, q = self.polygon[i], self.polygon[j]
            sides[int(d[i] >= 0)].append(p)
            if (d[i] < 0) != (d[j] < 0):
                crossing = p + (q - p) * (d[i] / (d[i] - d[j]))
                sides[0].append(crossing)
                sides[1].append(crossing)
        low, high = (Parcel(np.array(side), self.uses, self.style, self.angle) for side in (sides[0], sides[1]))
        self.halves = (low, high)
        self.edges = edges
        self.normal = (float(normal[0]), float(normal[1]))
        self.point = (float(normal[0] * offset), float(normal[1] * offset))
        return True

    def leaves(self) -> Iterator[Parcel]:
        """The parcels that are not cut any further, in a fixed order."""
        if self.halves is None:
            yield self
        else:
            yield from self.halves[0].leaves()
            yield from self.halves[1].leaves()


@dataclass
class Survey:
    """What the partition says of each pixel, shape (H, W); lists hold (old date, new date)."""

    leaf: NDArray[np.int32]
    """Index of the pixel's leaf parcel."""
    edge: list[F32] = field(default_factory=list)
    """Metres to the nearest visible edge, counted from the carriageway's border where it has one."""
    edge_kind: list[NDArray[np.uint8]] = field(default_factory=list)
    road: list[F32] = field(default_factory=list)
    """Signed metres to the nearest carriageway, negative on it."""
    road_kind: list[NDArray[np.uint8]] = field(default_factory=list)
    along: list[F32] = field(default_factory=list)
    """Metres along the nearest road."""


def survey(root: Parcel, u: NDArray[np.float64], v: NDArray[np.float64]) -> Survey:
    """Descend the partition for pixels at plan metres u, v (H, W); numbers the leaves on the way."""
    for index, leaf in enumerate(root.leaves()):
        leaf.index = index
    out = Survey(np.zeros(u.shape, np.int32))
    for date in (0, 1):
        edge, road, along = (np.full(u.size, FAR, np.float32) for _ in range(3))
        layers = _Layers(
            date, out.leaf.reshape(-1), edge, np.zeros(u.size, np.uint8), road, np.zeros(u.size, np.uint8), along
        )
        layers.walk(root, np.arange(u.size), u.ravel().astype(np.float32), v.ravel().astype(np.float32))
        for name in ("edge", "edge_kind", "road", "road_kind", "along"):
            getattr(out, name).append(getattr(layers, name).reshape(u.shape))
    return out


@dataclass
class _Layers:
    """Flat layers of one date while the partition is descended, see `Survey`."""

    date: int
    leaf: NDArray[np.int32]
    edge: F32
    edge_kind: NDArray[np.uint8]
    road: F32
    road_kind: NDArray[np.uint8]
    along: F32

    def walk(self, node: Parcel, at: NDArray[np.intp], u: F32, v: F32) -> None:
        """Descend with the pixels `at`, which lie at plan metres u, v."""
        if node.halves is None:
            self.leaf[at] = node.index
            return
        nu, nv = np.float32(node.normal[0]), np.float32(node.normal[1])
        d = (u - np.float32(node.point[0])) * nu + (v - np.float32(node.point[1])) * nv
        kind = node.edges[self.date]
        if kind != Edge.NONE:
            gap = np.abs(d) - np.float32(HALF_WIDTH[kind])
            near = gap < self.edge[at]
            self.edge[at[near]], self.edge_kind[at[near]] = gap[near], kind
            if kind in ROADS:
                near = gap < self.road[at]
                spot = at[near]
                self.road[spot], self.road_kind[spot] = gap[near], kind
                self.along[spot] = u[near] * nv - v[near] * nu
        low = d < 0
        for half, side in zip(node.halves, (low, ~low), strict=True):
            if side.any():
                self.walk(half, at[side], u[side], v[side])
