"""The lattice does not depend on how a scene is cut."""

from __future__ import annotations

from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geo_refdiff.raster.geobox import apply, compose, crop, lattice_origin, output_geobox, starts, translated
from geo_refdiff.raster.window import Window

affines = st.builds(
    lambda a, e, b, d, c, f: Affine(a, b, c, d, e, f),
    st.sampled_from([0.6, 5.0, 10.0, 30.0, 1 / 3600]),
    st.sampled_from([-0.6, -5.0, 10.0, -30.0, -1 / 3600]),
    st.sampled_from([0.0, 0.0, 0.1]),
    st.sampled_from([0.0, 0.0, 0.07]),
    st.sampled_from([0.0, 15.0, 485900.0, 399960.0, -2301052.25]),
    st.sampled_from([0.0, -15.0, 5209245.0, 4100040.0, -1958391.5]),
)


@settings(max_examples=100)
@given(affines, st.integers(0, 20000), st.integers(0, 20000))
def test_a_file_cut_out_keeps_its_lattice_coordinates(affine: Affine, row: int, col: int) -> None:
    whole, cut = lattice_origin(affine), lattice_origin(translated(affine, row, col))
    assert (cut[0] - whole[0], cut[1] - whole[1]) == (row, col)


def test_half_pixel_grids_do_not_flip() -> None:
    # Landsat: corners at odd multiples of 15 m with 30 m pixels; float noise of a nanometre either way
    for noise in (-1e-9, 0.0, 1e-9):
        assert lattice_origin(Affine(30, 0, 399885.0 + noise, 0, -30, 4100115.0 - noise)) == (-136671, 13329)


def test_the_first_pixel_of_a_grid_at_the_origin() -> None:
    assert lattice_origin(Affine(10, 0, 0, 0, -10, 0)) == (0, 0)
    assert lattice_origin(Affine(10, 0, -20, 0, -10, 30)) == (-3, -2)


@settings(max_examples=50)
@given(st.integers(-300, 300), st.integers(0, 300), st.integers(1, 70))
def test_starts_are_on_the_lattice_and_cover(lo: int, length: int, stride: int) -> None:
    result = starts(lo, lo + length, stride)
    covered = {p for s in result for p in range(s, s + stride)}
    assert set(range(lo, lo + length)) <= covered
    assert all(s % stride == 0 for s in result)
    assert all(s < lo + length and s + stride > lo for s in result)


def test_output_grid_has_the_same_corner_and_extent() -> None:
    scene = GeoBox((91, 117), Affine(8.0, 0.5, 485900.0, -0.3, 8.0, 5209245.0), "EPSG:26914")  # rotated, south-up
    output = output_geobox(scene, 8)
    assert output.shape == (728, 936)
    assert (output.affine.c, output.affine.f) == (485900.0, 5209245.0)
    assert compose(output.affine, Affine.scale(8)) == scene.affine
    assert output.extent.boundingbox == scene.extent.boundingbox
    assert output.crs == scene.crs


def test_crop_and_affine_arithmetic() -> None:
    scene = GeoBox((50, 60), Affine(10, 0, 500000, 0, -10, 4600000), "EPSG:32631")
    part = crop(scene, Window(-1, 2, 5, 6))
    assert part.shape == (5, 6)
    assert (part.affine.c, part.affine.f) == (500020, 4600010)
    import numpy as np

    x, y = apply(scene.affine, np.array([2.0]), np.array([-1.0]))
    assert (x[0], y[0]) == (part.affine.c, part.affine.f)
