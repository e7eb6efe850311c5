"""Outlines across the 180th meridian and around a pole."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import affinity

from geo_refdiff.raster.globe import bounds_on_the_globe, on_the_globe, turned


def jumping(west: float, south: float, width: float, height: float) -> shapely.Polygon:
    """A box with longitudes as a transformation gives them, between -180 and 180."""
    box = shapely.segmentize(shapely.box(west, south, west + width, south + height), max(width, height) / 8)
    points = shapely.get_coordinates(box)
    points[:, 0] = (points[:, 0] + 180) % 360 - 180
    return shapely.Polygon(points)


@given(st.floats(-180, 179), st.floats(-80, 60, allow_subnormal=False), st.floats(0.01, 120), st.floats(0.01, 20))
def test_area_and_bounds_are_those_of_the_box(west: float, south: float, width: float, height: float) -> None:
    shape = on_the_globe(jumping(west, south, width, height))
    assert shape.is_valid
    assert shape.area == pytest.approx(width * height, rel=1e-6)
    assert shape.bounds[0] >= -180
    assert shape.bounds[2] <= 180
    left, low, right, high = bounds_on_the_globe(shape)
    assert (right - left) % 360 == pytest.approx(width, abs=1e-9)
    assert (low, high) == pytest.approx((south, south + height))
    assert (left > right) == (west + width > 180 + 1e-9 and width > 1e-9) or abs(west + width - 180) < 1e-6


def test_what_does_not_cross_is_left_as_it_is() -> None:
    box = shapely.box(-180, -10, 180, 10)
    assert on_the_globe(shapely.segmentize(box, 45)) == shapely.segmentize(box, 45)
    assert bounds_on_the_globe(box) == (-180, -10, 180, 10)
    two = shapely.MultiPolygon([shapely.box(-120, 0, -110, 5), shapely.box(130, 0, 140, 5)])
    assert on_the_globe(two) == two
    assert bounds_on_the_globe(two) == (-120, 0, 140, 5)
    assert on_the_globe(shapely.Polygon()).is_empty


def test_longitudes_beyond_180_and_holes() -> None:
    shape = shapely.box(178, 0, 184, 6) - shapely.box(181, 2, 182, 4)
    result = on_the_globe(shape)
    assert result.area == pytest.approx(34)
    assert result.contains(shapely.Point(-176.5, 3))
    assert not result.contains(shapely.Point(-178.5, 3))
    assert result.equals(on_the_globe(affinity.translate(shape, -360)))


def test_edges_of_a_whole_turn_are_long_and_others_are_short() -> None:
    world = shapely.box(-180, -10, 180, 10)
    assert on_the_globe(world).equals(world)
    assert on_the_globe(affinity.translate(world, 180)).equals(world)
    fiji = shapely.box(-180, 20, -179, 21) | shapely.box(179, 20, 180, 21)
    result = on_the_globe(shapely.MultiPolygon([world, shapely.box(-179, 20, 179, 21)]))
    assert result.equals(world | fiji)


def test_turned_to_where_the_longitudes_of_a_scene_are() -> None:
    fiji = shapely.box(-180, 0, -179, 1) | shapely.box(179, 0, 180, 1)
    assert turned(fiji, 178, 182).equals(shapely.box(179, 0, 181, 1))
    assert turned(fiji, -182, -178).equals(shapely.box(-181, 0, -179, 1))
    assert turned(shapely.box(-10, 0, 10, 1), 0, 360).equals(shapely.box(-10, 0, 10, 1) | shapely.box(350, 0, 370, 1))
    for west, east in ((-180, 180), (178, 179.5), (20, 30)):
        assert turned(fiji, west, east) == fiji


@pytest.mark.parametrize("south", [False, True])
def test_around_a_pole(south: bool) -> None:
    lon = (np.arange(0, 361, 30) + 190) % 360 - 180
    ring = np.stack([lon, np.full(13, -70.0 if south else 70.0)], axis=1)
    result = on_the_globe(shapely.Polygon(ring))
    assert result.is_valid
    assert result.area == pytest.approx(360 * 20)
    assert result.bounds == pytest.approx((-180, -90, 180, -70) if south else (-180, 70, 180, 90))
