"""Any grid, pattern of missing pixels and area: a plan that holds together, or one line that says why not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geo_refdiff.errors import GeoRefDiffError
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan import layout
from geo_refdiff.plan.file import parsed
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import Classical, Conditions

EUROPE = (15.0, 52.35)
PLACES = {
    "EPSG:32633": EUROPE,
    "EPSG:4326": EUROPE,
    "EPSG:3857": EUROPE,
    "EPSG:3035": EUROPE,
    "EPSG:32633+5773": EUROPE,
    "EPSG:4979": EUROPE,
    "EPSG:32733": (13.0, -18.0),
    "EPSG:2193": (173.0, -41.0),
    "EPSG:3413": (-45.0, 75.0),
    "EPSG:2263": (-74.0, 40.7),
}
"""Longitude and latitude of the rasters' corners in each CRS."""


@cache
def corner(crs: str) -> tuple[float, float, float]:
    """A corner in that CRS, and units to a metre."""
    system = pyproj.CRS.from_user_input(crs)
    x, y = pyproj.Transformer.from_crs("EPSG:4326", system.to_2d(), always_xy=True).transform(*PLACES[crs])
    return x, y, 1e-5 if system.is_geographic else 1.0


class Windowed(Classical):
    """A restorer that is only planned with."""

    name = "windowed"
    halo = 13
    overlap = 10
    window = 64

    def restore(self, batch: Conditions) -> torch.Tensor:
        raise AssertionError("nothing is restored here")


@st.composite
def affines(draw: st.DrawFn, crs: str) -> Affine:
    """Any pixel size, proportion, rotation, shear, direction and offset; now and then none that can be."""
    x, y, unit = corner(crs)
    pixel = draw(st.sampled_from((0.3, 1.0, 10.0, 30.0, 40.0 / 3.0, 463.3127)) | st.floats(0.05, 2000.0)) * unit
    offsets = st.sampled_from((0.0, 0.5, 1 / 3)) | st.floats(-50.0, 50.0)
    kind = draw(st.sampled_from(("north-up", "north-up", "south-up", "turned", "sheared", "mirrored", "odd")))
    shape = Affine.scale(pixel, -pixel * draw(st.sampled_from((1.0, 1.0, 0.5, 1.7))))
    if kind == "south-up":
        shape = Affine.scale(pixel, pixel)
    elif kind == "mirrored":
        shape = Affine.scale(-pixel, -pixel)
    elif kind == "turned":
        shape = Affine.rotation(draw(st.floats(-180.0, 180.0))) @ shape
    elif kind == "sheared":
        shape = Affine.shear(draw(st.floats(-60.0, 60.0)), draw(st.floats(-20.0, 20.0))) @ shape
    elif kind == "odd":
        shape = draw(
            st.sampled_from(
                (Affine.scale(0.0, pixel), Affine.scale(pixel * 1e12), Affine.scale(1e-13), Affine(1, 1, 0, 1, 1, 0))
            )
        )
    return Affine.translation(x + draw(offsets) * pixel, y + draw(offsets) * pixel) @ shape


@st.composite
def rasters(draw: st.DrawFn, side: int = 40) -> dict[str, Any]:
    """A profile, and where pixels are missing."""
    crs = draw(st.sampled_from(list(PLACES)))
    return {
        "crs": crs,
        "transform": draw(affines(crs)),
        "height": draw(st.integers(1, side)),
        "width": draw(st.integers(1, side)),
        "dtype": draw(st.sampled_from(("uint8", "uint16", "int16", "float32"))),
        "nodata": draw(st.sampled_from((None, 0, 255, "nan"))),
        "missing": draw(st.sampled_from(("none", "none", "some", "rows", "all"))),
    }


def write(path: Path, raster: dict[str, Any], count: int = 1, top: int = 200) -> Path:
    """A file of such a raster, values 1 to `top`."""
    profile = dict(raster)
    missing, nodata = profile.pop("missing"), profile["nodata"]
    if nodata == "nan":
        profile["nodata"] = float("nan") if profile["dtype"] == "float32" else None
    rng = np.random.default_rng(0)
    values = rng.integers(1, top + 1, (count, profile["height"], profile["width"])).astype(profile["dtype"])
    if profile["nodata"] is not None:
        hole = {"none": np.zeros, "all": np.ones}.get(missing, np.zeros)(values.shape[1:], bool)
        hole[:: 2 if missing == "rows" else 10**6] |= missing == "rows"
        if missing == "some":
            hole = rng.random(hole.shape) < 0.4
        values[:, hole] = profile["nodata"]
    with rasterio.open(path, "w", driver="GTiff", count=count, photometric="minisblack", **profile) as dataset:
        dataset.write(values)
    return path


AREAS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(("none", "box", "polygon", "degrees", "nonsense")),
        "corners": st.tuples(*[st.floats(-0.5, 1.5)] * 4)
        | st.sampled_from([(0.0, 0.0, 1.0, 1.0), (0.5, 0.5, 0.5, 0.7)]),
    }
)


def area_of(area: dict[str, Any], raster: dict[str, Any]) -> tuple[str | None, shapely.Geometry | None]:
    """(as text, as polygon in the scene's CRS if easy to write); corners are shares of the raster's sides."""
    u0, v0, u1, v1 = area["corners"]
    place = raster["transform"] @ Affine.scale(raster["width"], raster["height"])
    ring = [place @ at for at in ((u0, v0), (u1, v0), (u1, v1), (u0, v1))]
    xs, ys = zip(*ring, strict=True)
    box = (min(xs), min(ys), max(xs), max(ys))
    if area["kind"] == "none":
        return None, None
    if area["kind"] == "nonsense":
        return "1,2,3", None
    if area["kind"] == "box":
        return ",".join(repr(float(v)) for v in box), shapely.box(*box)
    text = shapely.to_wkt(shapely.Polygon(ring), rounding_precision=-1)
    if area["kind"] == "polygon":
        return f"{raster['crs']};{text}", shapely.Polygon(ring)
    return "14.99,52.3,15.01,52.4,EPSG:4326", None


def planned(scene: Path, **options: Any) -> Plan | str:
    """A plan, or why there is none."""
    try:
        with gdal_env():
            plan = make_plan(scene, options.pop("ref", None), UpscaleOptions.of(device="cpu", **options)).plan
    except GeoRefDiffError as error:
        text = str(error)
        assert text.isprintable()
        assert 10 < len(text) < 1500
        return text
    again = parsed(json.dumps(plan.to_dict(), allow_nan=False))
    assert again.to_dict() == plan.to_dict()
    assert again.digest == plan.digest
    return plan


def blocks(plan: Plan) -> Iterator[Window]:
    return (plan.block(index) for index in range(plan.blocks.count))


def check_blocks(plan: Plan) -> None:
    """Blocks partition the output; windows cover every block, each pixel once or twice along an axis."""
    painted = np.zeros(plan.shape, np.uint8)
    for block in blocks(plan):
        assert Window(0, 0, *plan.shape).contains(block)
        painted[block.row : block.stop_row, block.col : block.stop_col] += 1
        place = plan.on_lattice(block)
        seen = np.zeros(place.shape, np.uint8)
        scene = plan.scene_on_lattice.multiply(plan.grid.scale)
        for row, col in product(*plan.windows.windows(place, scene)):
            assert layout.seen(row, col).contains(layout.kept(row, col))
            part = layout.kept(row, col).intersect(place)
            assert part is not None
            seen[part.within(place)] += 1
        assert seen.min() >= 1
        assert seen.max() <= 4
    assert (painted == 1).all()


def corners(gbox: GeoBox) -> np.ndarray:
    height, width = gbox.shape
    return np.array([gbox.affine @ at for at in ((0, 0), (width, 0), (0, height), (width, height))])


def check_grid(plan: Plan, raster: dict[str, Any]) -> None:
    """The output is on the scene's grid divided by the scale, within it."""
    scale, crop, own = plan.grid.scale, plan.grid.crop, raster["transform"]
    assert Window(0, 0, raster["height"], raster["width"]).contains(crop)
    assert plan.shape == plan.geobox.shape == (crop.height * scale, crop.width * scale)
    pixel = max(abs(v) for v in (own.a, own.b, own.d, own.e))
    close = 1e-6 * pixel + 1e-12 * max(abs(own.c), abs(own.f))
    wanted = [own @ at for at in (
        (crop.col, crop.row), (crop.stop_col, crop.row), (crop.col, crop.stop_row), (crop.stop_col, crop.stop_row)
    )]  # fmt: skip
    np.testing.assert_allclose(corners(plan.geobox), wanted, rtol=0, atol=close)


OPTIONS = st.fixed_dictionaries(
    {
        "scale": st.integers(1, 9),
        "block_size": st.sampled_from((16, 32, 48, 128)),
        "window": st.sampled_from((None, 1, 33, 80)),
        "overlap": st.sampled_from((None, 0, 7, 64)),
        "model": st.sampled_from((Windowed, "bicubic", "bicubic-ibp")),
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grids")


@settings(max_examples=120, derandomize=True)
@given(raster=rasters(), options=OPTIONS, area=AREAS)
def test_plan_holds_together(
    folder: Path, raster: dict[str, Any], options: dict[str, Any], area: dict[str, Any]
) -> None:
    scene = write(folder / "scene.tif", raster)
    text, polygon = area_of(area, raster)
    result = planned(scene=scene, aoi=text, **options)
    if isinstance(result, str):
        return
    check_grid(result, raster)
    check_blocks(result)
    if text is None:
        return
    whole = planned(scene=scene, **options)
    assert isinstance(whole, Plan)
    crop, scale = result.grid.crop, result.grid.scale
    moved = Window(0, 0, *result.shape).shift(crop.row * scale, crop.col * scale)
    assert result.on_lattice(Window(0, 0, *result.shape)) == whole.on_lattice(moved)
    assert (result.windows, result.radiometry, result.output.dtype) == (
        whole.windows,
        whole.radiometry,
        whole.output.dtype,
    )
    if polygon is None:
        return
    cols, rows = np.array([~raster["transform"] @ at for at in shapely.get_coordinates(polygon)]).T
    top, left = max(0, int(np.floor(rows.min()))), max(0, int(np.floor(cols.min())))
    bottom, right = min(raster["height"], int(np.ceil(rows.max()))), min(raster["width"], int(np.ceil(cols.max())))
    for got, want in zip((crop.row, crop.col, crop.stop_row, crop.stop_col), (top, left, bottom, right), strict=True):
        assert abs(got - want) <= 1  # a pixel's edge that is met up to rounding
    assert crop.row - 1e-5 <= max(rows.min(), 0) + 1
    assert crop.stop_row + 1e-5 >= min(rows.max(), raster["height"]) - 1e-5


@settings(max_examples=40, derandomize=True)
@given(scene=rasters(12), ref=rasters(90), mask=rasters(60), model=st.sampled_from(("matched-ref", "bicubic")))
def test_any_three_rasters(
    folder: Path, scene: dict[str, Any], ref: dict[str, Any], mask: dict[str, Any], model: str
) -> None:
    files = {
        "scene": write(folder / "a.tif", scene),
        "ref": write(folder / "b.tif", ref),
        "mask": write(folder / "c.tif", mask | {"dtype": "uint8"}, top=3),
    }
    result = planned(model=model, coregister="off", block_size=64, **files)
    if isinstance(result, Plan):
        check_grid(result, scene)
        check_blocks(result)


def test_most_grids_are_planned(folder: Path) -> None:
    """The tests above are about plans, not about refusals."""
    counted = {"plan": 0, "refused": 0}

    @settings(max_examples=60, derandomize=True, database=None)
    @given(raster=rasters(), options=OPTIONS)
    def count(raster: dict[str, Any], options: dict[str, Any]) -> None:
        result = planned(scene=write(folder / "s.tif", raster), **options)
        counted["plan" if isinstance(result, Plan) else "refused"] += 1

    count()
    assert counted["plan"] > 2 * counted["refused"]
