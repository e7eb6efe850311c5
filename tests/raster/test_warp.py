"""The warp: the right place, the same pixels however it is cut, and nothing missing bleeds."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.errors import GridError, InputError
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.geobox import apply
from geo_refdiff.raster.info import RasterInfo, inspect
from geo_refdiff.raster.warp import MARGIN, WarpedReader, _WarpHandles, gsd_ratio, overlap_fraction
from geo_refdiff.raster.window import Window

UTM14 = "EPSG:26914"
CORNER = (485900.0, 5209245.0)
NORTH_UP = GeoBox((300, 320), Affine(5, 0, CORNER[0], 0, -5, CORNER[1]), UTM14)
SOUTH_UP = GeoBox((300, 320), Affine(5, 0, CORNER[0], 0, 5, CORNER[1] - 1500), UTM14)
ROTATED = GeoBox((300, 320), Affine(4.8, 1.2, CORNER[0], 1.2, -4.8, CORNER[1]), UTM14)
TARGETS = {"north-up": NORTH_UP, "south-up": SOUTH_UP, "rotated": ROTATED}


def pattern(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth picture given by the place in UTM 14: what every warp must show again."""
    u, v = (x - CORNER[0]) / 150, (y - CORNER[1]) / 150
    return np.asarray(120 + 60 * np.sin(u + 0.3 * v) + 40 * np.cos(0.7 * v - 0.2 * u))


def centres(affine: Affine, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    cols, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return apply(affine, cols, rows)


def write_source(
    path: Path, crs: str, pixel: float, *, dtype: str = "uint8", hole: Any = None, nodata: float | None = None
) -> Path:
    """The pattern on a grid of its own in `crs` around the target; pixels of about `pixel` metres, 3 bands."""
    import pyproj

    to_crs = pyproj.Transformer.from_crs(UTM14, crs, always_xy=True)
    xmin, ymin, xmax, ymax = to_crs.transform_bounds(
        CORNER[0] - 400, CORNER[1] - 1900, CORNER[0] + 2100, CORNER[1] + 800
    )
    step_x = pixel * (xmax - xmin) / 2500
    step_y = pixel * (ymax - ymin) / 2700
    height, width = int((ymax - ymin) / step_y), int((xmax - xmin) / step_x)
    affine = Affine(step_x, 0, xmin, 0, -step_y, ymax)
    x, y = centres(affine, height, width)
    x, y = to_crs.transform(x, y, direction="INVERSE")
    bands = np.stack([pattern(x, y), pattern(x, y) * 0.8 + 10, 255 - pattern(x, y)])
    if hole is not None:
        bands[:, hole[0], hole[1]] = nodata
    values = bands if dtype.startswith("float") else np.rint(bands)
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=3, dtype=dtype, crs=crs, transform=affine,
        nodata=nodata, tiled=True, blockxsize=128, blockysize=128,
    ) as out:  # fmt: skip
        out.write(values.astype(dtype))
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        "same CRS, finer": write_source(folder / "finer.tif", UTM14, 1.7),
        "same CRS, coarser": write_source(folder / "coarser.tif", UTM14, 12.0),
        "other zone": write_source(folder / "zone.tif", "EPSG:26913", 5.1),
        "degrees": write_source(folder / "degrees.tif", "EPSG:4269", 4.0),
        "uint16": write_source(folder / "uint16.tif", "EPSG:26913", 4.9, dtype="uint16"),
        "float32 with NaN": write_source(
            folder / "nan.tif", "EPSG:26913", 5.0, dtype="float32", hole=np.s_[150:200, 150:220], nodata=np.nan
        ),
        "nodata": write_source(folder / "nodata.tif", "EPSG:26913", 5.0, hole=np.s_[150:200, 150:220], nodata=0),
    }


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["same CRS, finer", "same CRS, coarser", "other zone", "degrees", "uint16"])
def test_every_pixel_shows_its_own_place(sources: dict[str, Path], target: str, kind: str) -> None:
    grid = TARGETS[target]
    with WarpedReader(inspect(sources[kind], "reference"), (1, 2, 3), grid) as reader:
        values, valid = reader.read(Window(0, 0, *grid.shape))
    assert values.dtype == np.float32
    assert valid.all()
    expected = pattern(*centres(grid.affine, *grid.shape))
    # half a digital number of rounding in the source, and the kernel's own error on a wave of 30 pixels
    assert np.abs(values[0] - expected).max() < 1.0
    assert np.abs((values[0] - expected).mean()) < 0.02
    gradient = np.stack(np.gradient(expected))
    shift = [(values[0] - expected)[1:-1, 1:-1].ravel() @ g[1:-1, 1:-1].ravel() / (g**2).sum() for g in gradient]
    assert np.abs(shift).max() < 0.005  # pixels


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_windows_are_cut_from_one_picture(sources: dict[str, Path], data: st.DataObject) -> None:
    grid = TARGETS[data.draw(st.sampled_from(sorted(TARGETS)))]
    info = inspect(sources[data.draw(st.sampled_from(sorted(sources)))], "reference")
    resampling = data.draw(st.sampled_from(["cubic", "nearest", "mode", "bilinear"]))
    whole = Window(-40, -40, grid.shape[0] + 80, grid.shape[1] + 80)
    with WarpedReader(info, (3, 1), grid, resampling) as reader:
        values, valid = reader.read(whole)
    with WarpedReader(info, (3, 1), grid, resampling) as reader:
        for _ in range(4):
            height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150))
            row = data.draw(st.integers(-40, grid.shape[0] + 40 - height))
            col = data.draw(st.integers(-40, grid.shape[1] + 40 - width))
            window = Window(row, col, height, width)
            part, ok = reader.read(window)
            at = window.within(whole)
            np.testing.assert_array_equal(part, values[:, at[0], at[1]])
            np.testing.assert_array_equal(ok, valid[at])


@pytest.mark.parametrize("kind", ["nodata", "float32 with NaN"])
def test_missing_pixels_do_not_bleed(sources: dict[str, Path], kind: str) -> None:
    with WarpedReader(inspect(sources[kind], "reference"), (1, 2, 3), NORTH_UP) as reader:
        values, valid = reader.read(Window(0, 0, *NORTH_UP.shape))
    expected = pattern(*centres(NORTH_UP.affine, *NORTH_UP.shape))
    in_hole = nearest_is_in_hole(sources[kind])
    assert 1500 < in_hole.sum() < 5000
    assert (valid == in_hole).sum() <= 5  # centres on a pixel's edge
    assert not values[:, ~valid].any()
    assert np.abs(values[0] - expected)[valid].max() < 8  # next to a hole the kernel is one-sided, but sees no 0
    inner = valid.copy()
    for axis in (0, 1):
        for step in (-1, 1, -2, 2, -3, 3):
            inner &= np.roll(valid, step, axis)
    assert np.abs(values[0] - expected)[inner].max() < 1.0


def nearest_is_in_hole(path: Path) -> NDArray[np.bool_]:
    """Where the source pixel under the centre of a target pixel is missing."""
    import pyproj

    x, y = centres(NORTH_UP.affine, *NORTH_UP.shape)
    with rasterio.open(path) as dataset:
        x, y = pyproj.Transformer.from_crs(UTM14, dataset.crs.to_wkt(), always_xy=True).transform(x, y)
        cols, rows = (np.floor(v).astype(int) for v in apply(~dataset.transform, x, y))
        band = dataset.read(1)[rows, cols]
        return np.asarray(np.isnan(band) if np.isnan(dataset.nodata) else band == dataset.nodata)


@pytest.mark.parametrize("kind", ["alpha", "mask"])
def test_alpha_and_mask_bands_are_heard(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in.tif"
    image = np.full((3, 200, 200), 200, np.uint8)
    seen = np.full((200, 200), 255, np.uint8)
    seen[80:120, 60:100] = 0
    image[:, seen == 0] = 7
    profile = {"driver": "GTiff", "height": 200, "width": 200, "dtype": "uint8", "crs": UTM14,
               "transform": Affine(7, 0, CORNER[0] + 2, 0, -7, CORNER[1] - 3)}  # fmt: skip
    if kind == "alpha":
        with rasterio.open(path, "w", count=4, photometric="rgb", alpha="yes", **profile) as out:
            out.write(np.concatenate([image, seen[None]]))
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", count=3, **profile) as out:
            out.write(image)
            out.write_mask(seen)
    info = inspect(path, "reference")
    assert info.validity == kind
    with WarpedReader(info, (1, 2, 3), NORTH_UP) as reader:
        values, valid = reader.read(Window(2, 2, 200, 200))
    assert np.unique(values[:, valid]).tolist() == [200]
    assert abs((~valid).sum() - 1600 * 49 / 25) < 120


@pytest.mark.parametrize("output", ["nan", "nodata", "mask", "alpha"])
@pytest.mark.parametrize("bands", [(0, 1, 2), (2,)])
def test_nan_spoils_nothing_however_else_pixels_are_missing(
    tmp_path: Path, output: str, bands: tuple[int, ...]
) -> None:
    """NaN or a nodata value in all bands or in one, or a mask: missing is what is on them, and no more."""
    path = tmp_path / "in.tif"
    image = np.full((3, 200, 200), 0.2, np.float32)
    gone, hole = np.zeros((2, 200, 200), np.bool_)
    gone[20:180:16, 20:180:16] = True
    hole[90:110, 60:100] = output != "nan"
    for band in bands:
        image[band, hole] = -9999.0
        image[band, gone] = np.nan
    profile = {"driver": "GTiff", "height": 200, "width": 200, "dtype": "float32", "crs": UTM14,
               "transform": Affine(7, 0, CORNER[0] + 2, 0, -7, CORNER[1] - 3)}  # fmt: skip
    seen = np.where(hole, 0, 255)
    if output == "alpha":
        with rasterio.open(path, "w", count=4, photometric="rgb", alpha="yes", **profile) as out:
            out.write(np.concatenate([image, seen[None].astype(np.float32)]))
    else:
        nodata = -9999.0 if output == "nodata" else None
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", count=3, nodata=nodata, **profile) as out,
        ):
            out.write(image)
            if output == "mask":
                out.write_mask(seen.astype(np.uint8))
    info = inspect(path, "reference")
    assert info.validity == output
    with WarpedReader(info, (1, 2, 3), NORTH_UP) as reader:
        values, valid = reader.read(Window(2, 2, 270, 270))
    assert np.ptp(values[:, valid]) < 1e-6
    x, y = centres(NORTH_UP.affine, 272, 272)
    cols, rows = (np.floor(v[2:, 2:]).astype(int) for v in apply(~Affine(*info.transform), x, y))
    assert ((~valid) != (gone | hole)[rows, cols]).sum() <= 5  # centres on a pixel's edge


def test_a_source_on_the_grid_itself_comes_through_bit_exact(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((3, 150, 140), dtype=np.float32) * 1e4
    path = tmp_path / "aligned.tif"
    corner = (CORNER[0] + 5 * 17, CORNER[1] - 5 * 11)
    with rasterio.open(path, "w", driver="GTiff", height=150, width=140, count=3, dtype="float32", crs=UTM14,
                       transform=Affine(5, 0, corner[0], 0, -5, corner[1])) as out:  # fmt: skip
        out.write(noise)
    with WarpedReader(inspect(path, "reference"), (1, 2, 3), NORTH_UP) as reader:
        values, valid = reader.read(Window(1, 7, 200, 200))
    np.testing.assert_array_equal(values[:, 10:160, 10:150], noise)
    assert valid.sum() == 150 * 140
    assert valid[10:160, 10:150].all()


def test_a_finer_source_is_averaged_not_aliased(tmp_path: Path) -> None:
    path = tmp_path / "stripes.tif"
    stripes = np.where(np.arange(1600) % 2 == 0, 0, 200).astype(np.uint8)
    with rasterio.open(path, "w", driver="GTiff", height=1500, width=1600, count=1, dtype="uint8", crs=UTM14,
                       transform=Affine(1, 0, CORNER[0], 0, -1, CORNER[1])) as out:  # fmt: skip
        out.write(np.broadcast_to(stripes, (1, 1500, 1600)))
    info = inspect(path, "reference")
    assert gsd_ratio(info, NORTH_UP) == pytest.approx(0.2)
    with WarpedReader(info, (1,), NORTH_UP) as reader:
        values, _ = reader.read(Window(20, 20, 200, 200))
    assert np.abs(values - 100).max() < 8


def test_classes_keep_their_values_and_mode_wins(tmp_path: Path) -> None:
    path = tmp_path / "classes.tif"
    classes = np.random.default_rng(1).choice([0, 3, 7], p=[0.1, 0.8, 0.1], size=(1, 600, 640)).astype(np.uint8)
    with rasterio.open(path, "w", driver="GTiff", height=600, width=640, count=1, dtype="uint8", crs=UTM14,
                       transform=Affine(2.5, 0, CORNER[0], 0, -2.5, CORNER[1])) as out:  # fmt: skip
        out.write(classes)
    info = inspect(path, "mask")
    with WarpedReader(info, (1,), NORTH_UP, "nearest") as reader:
        values, valid = reader.read(Window(0, 0, 300, 320))
    assert values.dtype == np.uint8
    assert set(np.unique(values)) == {0, 3, 7}
    assert valid.all()
    with WarpedReader(info, (1,), NORTH_UP, "mode") as reader:
        mode, _ = reader.read(Window(0, 0, 300, 320))
    assert (mode == 3).mean() > 0.9
    assert set(np.unique(mode)) <= {0, 3, 7}


def test_ratio_overlap_and_reach(sources: dict[str, Path]) -> None:
    finer = inspect(sources["same CRS, finer"], "reference")
    assert gsd_ratio(finer, NORTH_UP) == pytest.approx(1.7 / 5, rel=1e-6)
    assert overlap_fraction(finer, NORTH_UP) == 1.0
    half = GeoBox((300, 320), Affine(5, 0, finer.transform[2] - 800, 0, -5, CORNER[1]), UTM14)
    assert overlap_fraction(finer, half) == pytest.approx(0.5)
    assert gsd_ratio(inspect(sources["degrees"], "reference"), ROTATED) == pytest.approx(4 / 4.95, rel=0.05)
    with WarpedReader(finer, (1,), NORTH_UP) as reader:
        values, valid = reader.read(Window(-MARGIN - 300, 0, 200, 10))
    assert not valid.any()
    assert not values.any()


def test_no_overlap_and_unknown_datums_are_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    far = GeoBox((300, 320), Affine(5, 0, 600000, 0, -5, CORNER[1]), UTM14)
    with pytest.raises(GridError, match=r"does not overlap.*x 600000"):
        overlap_fraction(inspect(sources["other zone"], "reference"), far)
    with pytest.raises(GridError, match="does not overlap"):
        WarpedReader(inspect(sources["same CRS, finer"], "reference"), (1,), far)
    unknown = tmp_path / "unknown.tif"
    with rasterio.open(unknown, "w", driver="GTiff", height=9, width=9, count=1, dtype="uint8",
                       crs="+proj=utm +zone=14 +ellps=bessel",
                       transform=Affine(50, 0, CORNER[0], 0, -50, CORNER[1])) as out:  # fmt: skip
        out.write(np.ones((1, 9, 9), np.uint8))
    with pytest.raises(GridError, match="no exact transformation"):
        WarpedReader(inspect(unknown, "reference"), (1,), NORTH_UP)


def test_a_band_that_is_not_there(sources: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="no image band"):
        WarpedReader(inspect(sources["degrees"], "reference"), (1, 4), NORTH_UP)


def test_threads_read_the_same(sources: dict[str, Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    windows = [Window(r, c, 90, 90) for r in range(-20, 280, 60) for c in range(-20, 280, 60)]
    info = replace(inspect(sources["other zone"], "reference"), mtime_ns=0)  # each reader has tiles of its own then
    with WarpedReader(info, (1, 2), NORTH_UP) as one, WarpedReader(info, (1, 2), NORTH_UP) as many:
        with ThreadPoolExecutor(4) as pool:
            parallel = list(pool.map(many.read, windows))
        for window, (values, valid) in zip(windows, parallel, strict=True):
            expected = one.read(window)
            np.testing.assert_array_equal(values, expected[0])
            np.testing.assert_array_equal(valid, expected[1])


def test_readers_of_one_warp_share_its_tiles(sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a survey has warped is there for the blocks, but not for another file or where a file's time is unknown."""
    warped: list[Window] = []
    read = _WarpHandles.read
    monkeypatch.setattr(_WarpHandles, "read", lambda self, tile: warped.append(tile) or read(self, tile))
    info = inspect(sources["degrees"], "reference")
    window = Window(0, 0, 100, 300)

    def pixels(info: RasterInfo, *warp: Any) -> NDArray[Any]:
        with WarpedReader(info, *warp) as reader:
            return reader.read(window)[0]

    first = pixels(info, (2, 3), NORTH_UP)
    assert len(warped) == 2
    np.testing.assert_array_equal(pixels(info, (2, 3), NORTH_UP), first)
    assert len(warped) == 2
    moved = pixels(info, (2, 3), NORTH_UP, "cubic", Displacement.constant(0.4, 0.0))
    assert len(warped) == 4
    assert not np.array_equal(moved, first)
    for other in (replace(info, mtime_ns=info.mtime_ns + 1), *[replace(info, mtime_ns=0)] * 2):
        before = len(warped)
        np.testing.assert_array_equal(pixels(other, (2, 3), NORTH_UP), first)
        assert len(warped) == before + 2


def test_a_forked_process_reads_while_a_thread_of_its_parent_held_the_tiles(sources: dict[str, Path]) -> None:
    info = inspect(sources["degrees"], "reference")

    def read() -> None:
        with WarpedReader(info, (2, 3), NORTH_UP) as reader:
            reader.read(Window(0, 0, 8, 8))

    with WarpedReader(info, (2, 3), NORTH_UP) as held, held._tiles._lock:
        child = get_context("fork").Process(target=read)
        child.start()
        child.join(20)
        try:
            assert child.exitcode == 0
        finally:
            child.kill()
