"""What bands measure, from their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rasterio.enums import ColorInterp

from geo_refdiff.raster.band_names import Sensor, band_keys, meaning
from geo_refdiff.raster.info import inspect

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@pytest.mark.parametrize(
    ("text", "sensor", "output"),
    [
        ("B04", "msi", "red"),
        ("B04", None, None),
        ("B8A", "msi", "nir08"),
        ("T33UUP_20210503T102021_B08_10m", "msi", "nir"),
        ("B4", "tm", "nir08"),
        ("B5", "oli", "nir08"),
        ("SR_B4", "oli", "red"),
        ("sr_band4", "oli", "red"),
        ("B4, central wavelength 665 nm", None, "red"),
        ("B4, central wavelength 665 nm", "tm", "red"),
        ("red (0.655 micrometers)", None, "red"),
        ("458-523 nm", None, "blue"),
        ("band 5 (865.0 Nanometers)", None, "nir08"),
        ("NIR_Narrow", None, "nir08"),
        ("nir08", None, "nir08"),
        ("Near Infrared", None, "nir"),
        ("NIR Broad", None, "nir"),
        ("Band 1: B04 (Gray)", "msi", "red"),
        ("Band 1 (Red)", None, "red"),
        ("Red_Edge 1", None, "rededge071"),
        ("coastal_blue", None, "coastal"),
        ("green_i", None, "green05"),
        ("nir_median", None, "nir"),
        ("B4 (red)", "tm", "red"),
        ("SWIR 1", None, "swir16"),
        ("VV", "msi", None),
        ("band 3", "msi", None),
        ("", "msi", None),
    ],
)
def test_a_name_means_its_wavelengths(text: str, sensor: Sensor | None, output: str | None) -> None:
    assert meaning(text, sensor) == output


@pytest.fixture
def keys_of(make_raster: Any) -> Any:
    def keys(*names: str, file: str = "a.tif", **options: Any) -> tuple[str, ...]:
        path = make_raster(file, np.ones((len(names), 4, 4), np.uint16), names=names, **options)
        return band_keys(inspect(path, "scene")).keys

    return keys


def test_numbers_are_those_of_the_sensor(keys_of: Any) -> None:
    assert keys_of("SR_B2", "SR_B3", "SR_B4", "SR_B5") == ("blue", "green", "red", "nir")
    assert keys_of("SR_B1", "SR_B2", "SR_B3", "SR_B4") == ("blue", "green", "red", "nir")
    assert keys_of("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7")[3:] == ("nir", "swir16", "swir22")
    assert keys_of(*(f"SR_B{k}" for k in range(1, 8)))[3:5] == ("red", "nir")
    assert keys_of("B1", "B2", "B3", "B4", file="LE07_x.tif") == ("blue", "green", "red", "nir")
    assert keys_of("B2", "B3", "B4", "B5", file="LC08_L1TP_191025.tif") == ("blue", "green", "red", "nir")
    assert keys_of("B05", file="HLS.L30.T33UUP.2022123T102021.v2.0.stack.tif") == ("nir",)
    assert keys_of("B02", "B8A") == ("blue", "nir")
    assert keys_of("B8", "B8A") == ("nir", "nir08")
    assert keys_of("B2", "B3", "B4", "B5") == ("blue", "green", "red", "b5")  # Sentinel-2's or Landsat 8's
    assert keys_of("B1", "B2", "B3", "B4") == ("b1", "b2", "b3", "b4")


def test_colour_interpretation_tells_what_names_do_not(keys_of: Any, make_raster: Any) -> None:
    assert keys_of("B1", "B2", "B3", colorinterp=RGB, photometric="rgb") == ("red", "green", "blue")
    assert keys_of("vv", "vh", "ratio", colorinterp=RGB, photometric="rgb") == ("vv", "vh", "ratio")
    path = make_raster(
        "n.tif", np.ones((4, 4, 4), np.uint8), colorinterp=(*RGB, ColorInterp.undefined), photometric="rgb"
    )
    result = band_keys(inspect(path, "reference"))
    assert (result.keys, result.assumed) == (("red", "green", "blue", "nir"), (3,))


@pytest.mark.parametrize(("count", "assumed"), [(2, ()), (3, (0, 1, 2)), (4, (0, 1, 2, 3)), (5, ())])
def test_three_or_four_bands_without_names_are_colours(make_raster: Any, count: int, assumed: tuple[int, ...]) -> None:
    result = band_keys(inspect(make_raster("u.tif", np.ones((count, 4, 4), np.uint8)), "scene"))
    assert result.assumed == assumed
    assert result.keys == (
        ("red", "green", "blue", "nir")[:count] if assumed else tuple(f"band {k + 1}" for k in range(count))
    )
