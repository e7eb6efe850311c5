"""Whether a mask is the scene's or the reference's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geo_refdiff.change.mask_files import TAG, _share_lattice, lies_on_scene
from geo_refdiff.errors import OptionError
from geo_refdiff.options import MaskOptions
from geo_refdiff.raster.geobox import scene_geobox
from geo_refdiff.raster.info import inspect

Make = Callable[..., Path]
AFFINE = Affine(5, 0, 485_904, 0, -5, 5_209_248)


def target() -> GeoBox:
    return GeoBox((64, 64), AFFINE, "EPSG:26914")


def test_by_grid_and_by_tag(make_raster: Make, reprojected: Callable[[Path, str], Path]) -> None:
    values = np.zeros((1, 64, 64), np.uint8)

    def mask(name: str, affine: Affine) -> Path:
        return make_raster(name, values, transform=affine)

    ref = inspect(mask("ref.tif", AFFINE @ Affine.translation(0.3, 0.4)), "reference")
    cases = {
        "output grid": (AFFINE, True),
        "scene's grid": (AFFINE @ Affine.scale(8), True),
        "a part of it": (AFFINE @ Affine.translation(16, 8) @ Affine.scale(8), True),
        "finer": (AFFINE @ Affine.scale(0.5), True),
        "the reference's grid": (AFFINE @ Affine.translation(7.3, -2.6), False),
        "some other": (AFFINE @ Affine.translation(0.5, 0.5), False),
        "turned": (AFFINE @ Affine.rotation(1), False),
    }
    for number, (name, (affine, want)) in enumerate(cases.items()):
        info = inspect(mask(f"m{number}.tif", affine), "mask")
        assert lies_on_scene(info, target(), ref) is want, name
    assert not lies_on_scene(inspect(reprojected(mask("o.tif", AFFINE), "EPSG:3857"), "mask"), target(), ref)
    same = inspect(mask("same.tif", AFFINE), "reference")
    assert not lies_on_scene(inspect(mask("m.tif", AFFINE), "mask"), target(), same), "both lie so: the reference's"
    tagged = mask("t.tif", AFFINE)
    with rasterio.open(tagged, "r+") as dataset:
        dataset.update_tags(**{TAG: "scene"})
    assert lies_on_scene(inspect(tagged, "mask"), target(), same)


@given(st.integers(-5000, 5000), st.integers(-5000, 5000), st.integers(1, 20), st.floats(0.02, 0.98), st.booleans())
def test_a_lattice_is_shared_by_whole_pixels_alone(row: int, col: int, factor: int, part: float, finer: bool) -> None:
    scale = Affine.scale(1 / factor) if finer else Affine.scale(factor)
    step = 1.0 if finer else 1.0 / factor
    whole = GeoBox((30, 40), AFFINE @ Affine.translation(col, row) @ scale, "EPSG:26914")
    assert _share_lattice(whole, target())
    assert _share_lattice(target(), whole)
    off = GeoBox((30, 40), whole.affine @ Affine.translation(part * step, 0), "EPSG:26914")
    assert not _share_lattice(off, target())


def test_what_a_mask_can_lie_on() -> None:
    with pytest.raises(OptionError, match="mask lies on 'moon': choose auto, scene, ref"):
        MaskOptions(mask="m.tif", mask_lies_on="moon")
    with pytest.raises(OptionError, match="--mask-lies-on goes with a mask from a file"):
        MaskOptions(mask="auto", mask_lies_on="scene")


def test_grids_of_rasters_have_their_affine(make_raster: Make) -> None:
    info = inspect(make_raster("g.tif", np.zeros((1, 8, 8), np.uint8), transform=AFFINE), "mask")
    assert scene_geobox(info).affine == AFFINE
