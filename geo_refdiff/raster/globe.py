"""Outlines in degrees that stay in one piece across the 180th meridian and around a pole."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry.base import BaseGeometry

_TURN = 360.0


def on_the_globe(shape: BaseGeometry) -> BaseGeometry:
    """A polygon or multipolygon between -180 and 180 degrees, cut at the 180th meridian (RFC 7946, 3.1.9).

    Args:
        shape: (longitude, latitude), degrees; longitudes may jump by a turn or go beyond 180. An edge longer than half
            a turn means the shorter way, but where it is a whole turn. An outline that goes around a pole holds the
            pole that is nearer.
    """
    parts = shapely.get_parts(shape)
    if all(_at_home(ring) for part in parts for ring in (part.exterior, *part.interiors)):
        return shape
    whole = shapely.union_all([_in_one_piece(part) for part in parts])
    if whole.is_empty:
        return whole
    west, _, east, _ = whole.bounds
    turns = range(floor((west + _TURN / 2) / _TURN), floor((east + _TURN / 2) / _TURN) + 1)
    pieces = [affinity.translate(_strip(whole, turn), -_TURN * turn) for turn in turns]
    return shapely.union_all([piece for piece in pieces if piece.area > 0])


def bounds_on_the_globe(shape: BaseGeometry) -> tuple[float, float, float, float]:
    """West, south, east and north of what `on_the_globe` gives; west > east where it crosses the 180th meridian."""
    west, south, east, north = shape.bounds
    spans = sorted((part.bounds[0], part.bounds[2]) for part in shapely.get_parts(shape))
    if west > -_TURN / 2 or east < _TURN / 2 or len(spans) < 2:
        return west, south, east, north
    widest, reached = 0.0, west
    for begin, end in spans:
        if begin - reached > widest:
            widest, west, east = begin - reached, begin, reached
        reached = max(reached, end)
    return west, south, east, north


def turned(shape: BaseGeometry, west: float, east: float) -> BaseGeometry:
    """A polygon or multipolygon where its parts meet a range of longitudes that may go beyond 180, whole turns away.

    Args:
        shape: (longitude, latitude), degrees.
        west, east: of the range; a shape that meets it as it is, or not at all, is kept as it is.
    """
    parts, moved = [], False
    for part in shapely.get_parts(shape):
        left, _, right, _ = part.bounds
        for turn in range(floor((west - right) / _TURN) + 1, ceil((east - left) / _TURN)):
            parts.append(affinity.translate(part, _TURN * turn))
            moved = moved or turn != 0
    return shapely.union_all(parts) if moved else shape


def _at_home(ring: BaseGeometry) -> bool:
    lon = shapely.get_coordinates(ring)[:, 0]
    return bool((np.abs(lon) <= _TURN / 2).all() and (np.abs(np.diff(lon)) <= _TURN / 2).all())


def _in_one_piece(polygon: shapely.Polygon) -> BaseGeometry:
    unrolled = _unrolled(polygon)
    if unrolled.area > 0:
        return unrolled
    return _unrolled(shapely.segmentize(polygon, _TURN / 4))  # nothing remains of edges from -180 to 180


def _unrolled(polygon: shapely.Polygon) -> BaseGeometry:
    """With longitudes that do not jump."""
    outer = _ring(shapely.get_coordinates(polygon.exterior))
    centre = outer[:, 0].mean()
    holes = []
    for ring in polygon.interiors:
        hole = _ring(shapely.get_coordinates(ring))
        hole[:, 0] += _TURN * np.round((centre - hole[:, 0].mean()) / _TURN)
        holes.append(hole)
    unrolled = shapely.Polygon(outer, holes)
    return unrolled if unrolled.is_valid else shapely.make_valid(unrolled, method="structure")


def _ring(points: NDArray[np.float64]) -> NDArray[np.float64]:
    points = points.copy()
    points[:, 0] = np.unwrap(points[:, 0], period=_TURN)
    if abs(points[-1, 0] - points[0, 0]) > _TURN / 2:
        pole = np.copysign(90.0, points[:, 1].mean())
        points = np.vstack([points, [(points[-1, 0], pole), (points[0, 0], pole)]])
    return points


def _strip(shape: BaseGeometry, turn: int) -> BaseGeometry:
    middle = _TURN * turn
    return shape.intersection(shapely.box(middle - _TURN / 2, -90.0, middle + _TURN / 2, 90.0))
