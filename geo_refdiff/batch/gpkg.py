"""Rows of a GeoPackage by SQLite alone: geometries as it stores them, and the functions that its triggers call."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable

import shapely
from shapely.geometry.base import BaseGeometry

_ENVELOPE_BYTES = (0, 32, 48, 48, 64)
"""By the code in the flags."""


def geometry_blob(geometry: BaseGeometry, srs: int = 4326) -> bytes:
    """A polygon as a MultiPolygon in a GeoPackage's binary form, with its bounds; Z is dropped.

    Sources: OGC GeoPackage 1.3, clause 2.1.3.
    """
    flat = shapely.force_2d(geometry)
    parts = [part for part in shapely.get_parts(flat) if not part.is_empty]
    multi = shapely.MultiPolygon(parts)
    if not parts:
        return struct.pack("<2sBBi", b"GP", 0, 0b10001, srs) + bytes(shapely.to_wkb(multi, byte_order=1))
    xmin, ymin, xmax, ymax = multi.bounds
    head = struct.pack("<2sBBi4d", b"GP", 0, 0b00011, srs, xmin, xmax, ymin, ymax)
    return head + bytes(shapely.to_wkb(multi, byte_order=1))


def know_geometries(base: sqlite3.Connection) -> None:
    """Give a connection the functions in the triggers of a spatial index; without them no row can be written."""
    for place, function in enumerate(("ST_MinX", "ST_MinY", "ST_MaxX", "ST_MaxY")):
        base.create_function(function, 1, _bound(place), deterministic=True)
    base.create_function("ST_IsEmpty", 1, lambda blob: None if blob is None else _parsed(blob).is_empty)


def _bound(place: int) -> Callable[[bytes | None], float | None]:
    return lambda blob: None if blob is None else float(_parsed(blob).bounds[place])


def _parsed(blob: bytes) -> BaseGeometry:
    return shapely.from_wkb(blob[8 + _ENVELOPE_BYTES[blob[3] >> 1 & 7] :])
