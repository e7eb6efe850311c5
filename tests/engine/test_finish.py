import numpy as np
import pytest
import torch

from geo_refdiff.engine.finish import (
    as_array,
    avoid_nodata_collision,
    delivered,
    rounded,
    write_nodata,
)
from geo_refdiff.sensor.units import BYTES


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [-3, 0.5, 1.5, 254.6, 999], [0, 0, 2, 255, 255]),
        ("int16", [-40_000, -0.5, 7.5], [-32_768, 0, 8]),
        ("uint16", [-1, 65_534.6, 70_000], [0, 65_535, 65_535]),
        ("uint32", [-1, 5e9, 3], [0, 4_294_967_295, 3]),
        ("int64", [-1e30, 1e30, 3], [-(2**63), 2**63 - 1024, 3]),
        ("float32", [0.1, -7.25], [np.float32(0.1), -7.25]),
    ],
)
def test_rounding_and_clipping(dtype: str, values: list[float], expected: list[float]) -> None:
    image = torch.tensor(values, dtype=torch.float32).reshape(1, 1, -1)
    out = as_array(rounded(image, np.dtype(dtype)), np.dtype(dtype))
    assert out.dtype == dtype
    assert out.ravel().tolist() == expected


def test_model_units_of_bytes_come_back_exactly() -> None:
    numbers = torch.arange(256, dtype=torch.float32).reshape(1, 16, 16)
    units = BYTES.to_model(numbers)
    assert units.min() == -1
    assert units.max() == 1
    assert torch.equal(rounded(BYTES.to_numbers(units), np.dtype("uint8")), numbers)


def test_missing_pixels() -> None:
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    valid[:, 0, 0] = False
    valid[1, 1, 1] = False
    five = torch.full((2, 2, 2), 5.0)
    assert write_nodata(five, valid, 9, np.dtype("uint8"))[:, 0, 0].tolist() == [9, 9]
    floats = write_nodata(five, valid, -9999.0, np.dtype("float32"))
    assert floats[:, 0, 0].tolist() == [-9999, -9999]
    assert floats[0, 1, 1] == 5
    assert floats[1, 1, 1] == -9999
    for measured in (0.0, None):
        floats = write_nodata(five, valid, measured, np.dtype("float32"))
        assert floats[:, 0, 0].tolist() == [0, 0]
        assert torch.isnan(floats[1, 1, 1])


@pytest.mark.parametrize(
    ("dtype", "nodata", "moved"), [("uint8", 0, 1), ("uint8", 255, 254), ("int16", -32768, -32767)]
)
def test_valid_pixels_never_look_missing(dtype: str, nodata: float, moved: float) -> None:
    pixels = torch.full((2, 1, 3), float(nodata))
    valid = torch.tensor([[[True, True, False]]] * 2)
    dark = torch.zeros_like(valid)
    dark[0, 0, 1] = True
    pixels = avoid_nodata_collision(pixels, valid, dark, nodata, np.dtype(dtype))
    assert pixels[:, 0, 0].tolist() == [moved, moved]
    assert pixels[:, 0, 1].tolist() == [nodata, moved]
    assert pixels[:, 0, 2].tolist() == [nodata, nodata]


def test_floating_nodata_moves_as_far_as_gdal_can_tell() -> None:
    pixels = avoid_nodata_collision(torch.full((1, 1, 1), -9999.0), None, None, -9999.0, np.dtype("float32"))
    assert 0.005 < abs(float(pixels) + 9999) < 0.02


def test_what_is_delivered_is_rounded_and_valid_pixels_stay_apart_from_nodata() -> None:
    values = torch.tensor([[[0.2, 0.2, 3.6]], [[0.4, 7.0, 5.0]]])
    valid = torch.tensor([[[True, True, False]], [[True, True, False]]])
    found = delivered(values, valid, np.dtype("uint8"), 0)
    assert found.dtype == np.uint8
    assert found.tolist() == [[[1, 0, 0]], [[1, 7, 0]]]  # 0 in one band only is dark, in all it would be missing
