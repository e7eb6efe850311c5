import numpy as np
import pytest

from geo_refdiff.engine.finish import expand, rounded, to_digital_numbers
from geo_refdiff.plan.records import Radiometry
from geo_refdiff.raster.nodata import avoid_nodata_collision, write_nodata
from geo_refdiff.raster.statistics import EMPTY, BandSums, dump_sums, load_sums
from geo_refdiff.raster.window import Window

PLAIN = Radiometry(0.0, 1.0, (0.0,))
BYTES = Radiometry(127.5, 127.5, (0.0,))


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [-3, 0.5, 1.5, 254.6, 999], [0, 0, 2, 255, 255]),
        ("int16", [-40_000, -0.5, 7.5], [-32_768, 0, 8]),
        ("uint32", [-1, 5e9, 3], [0, 4_294_967_295, 3]),
        ("int64", [-1e30, 1e30, 3], [-(2**63), 2**63 - 1024, 3]),
        ("float32", [0.1, -7.25], [np.float32(0.1), -7.25]),
    ],
)
def test_rounding_and_clipping(dtype: str, values: list[float], expected: list[float]) -> None:
    image = np.array(values, np.float32).reshape(1, 1, -1)
    out = rounded(to_digital_numbers(image, PLAIN), np.dtype(dtype))
    assert out.dtype == dtype
    assert out.ravel().tolist() == expected


def test_model_units_of_bytes_come_back_exactly() -> None:
    numbers = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    units = (numbers - np.float32(127.5)) / np.float32(127.5)
    assert units.min() == -1
    assert units.max() == 1
    np.testing.assert_array_equal(rounded(to_digital_numbers(units, BYTES), np.dtype("uint8")), numbers)


def test_expand_covers_lr_pixels_cut_by_the_block() -> None:
    lr = np.arange(6).reshape(1, 2, 3)
    out = expand(lr, Window(-1, 4, 2, 3), Window(-2, 13, 4, 7), 3)
    assert out.shape == (1, 4, 7)
    assert out[0].tolist() == [[0, 0, 1, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 4, 5, 5]] * 2


def test_missing_pixels() -> None:
    valid = np.ones((2, 2, 2), bool)
    valid[:, 0, 0] = False
    valid[1, 1, 1] = False
    numbers = np.full((2, 2, 2), 5, np.uint8)
    write_nodata(numbers, valid, 9)
    assert numbers[:, 0, 0].tolist() == [9, 9]
    floats = np.full((2, 2, 2), 5, np.float32)
    write_nodata(floats, valid, -9999.0)
    assert floats[:, 0, 0].tolist() == [-9999, -9999]
    assert floats[0, 1, 1] == 5
    assert floats[1, 1, 1] == -9999
    for measured in (0.0, None):
        floats = np.full((2, 2, 2), 5, np.float32)
        write_nodata(floats, valid, measured)
        assert floats[:, 0, 0].tolist() == [0, 0]
        assert np.isnan(floats[1, 1, 1])


@pytest.mark.parametrize(
    ("dtype", "nodata", "moved"), [("uint8", 0, 1), ("uint8", 255, 254), ("int16", -32768, -32767)]
)
def test_valid_pixels_never_look_missing(dtype: str, nodata: float, moved: float) -> None:
    pixels = np.full((2, 1, 3), nodata, dtype)
    valid = np.array([[[True, True, False]]] * 2)
    dark = np.zeros_like(valid)
    dark[0, 0, 1] = True
    avoid_nodata_collision(pixels, valid, dark, nodata)
    assert pixels[:, 0, 0].tolist() == [moved, moved]
    assert pixels[:, 0, 1].tolist() == [nodata, moved]
    assert pixels[:, 0, 2].tolist() == [nodata, nodata]


def test_floating_nodata_moves_as_far_as_gdal_can_tell() -> None:
    pixels = np.full((1, 1, 1), -9999, np.float32)
    avoid_nodata_collision(pixels, None, None, -9999.0)
    assert pixels[0, 0, 0] != -9999
    assert 0.005 < abs(pixels[0, 0, 0] + 9999) < 0.02


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_sums_of_parts_are_the_sums_of_the_whole(dtype: str) -> None:
    rng = np.random.default_rng(0)
    band = rng.uniform(1, 200, (40, 50)).astype(dtype)
    valid = rng.uniform(size=band.shape) > 0.3
    parts = EMPTY
    for part in (slice(0, 7), slice(7, 40)):
        parts = parts.plus(load_sums(dump_sums([BandSums.of(band[part], valid[part])]))[0])
    values = band[valid].astype(float)
    assert parts.count == values.size
    assert (parts.minimum, parts.maximum) == (values.min(), values.max())
    assert parts.total == pytest.approx(values.sum())
    assert parts.squares == pytest.approx((values**2).sum())
    assert BandSums.of(band, np.zeros_like(valid)) == EMPTY
