"""Declared sensors: their modulation at Nyquist is what was published."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.presets import PRESETS, psf_sigma_from_mtf
from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA, SensorModel


def modulation(sensor: SensorModel, cycles: float = 0.5) -> float:
    """Response of the sampled operator to a wave of `cycles` a scene pixel."""
    taps = np.array(sensor.taps)
    at = (np.arange(len(taps)) - (len(taps) - 1) / 2) / sensor.scale
    return float((taps * np.cos(2 * np.pi * cycles * at)).sum())


@pytest.mark.parametrize(
    ("band", "mtf"), [("B02", 0.26), ("B3", 0.28), ("red", 0.24), ("NIR", 0.26), ("b8a", 0.33), ("B12", 0.23)]
)
def test_sentinel_2_has_its_published_modulation_at_nyquist(band: str, mtf: float) -> None:
    assert modulation(PRESETS["sentinel-2"].sensor(16, band)) == pytest.approx(mtf, abs=0.005)


def test_a_band_without_a_name_gets_the_sensor_s_own_width() -> None:
    preset = PRESETS["sentinel-2"]
    assert preset.sensor(8) == preset.sensor(8, "thermal") == SensorModel(8, preset.psf_sigma)
    assert min(preset.bands.values()) < preset.psf_sigma < max(preset.bands.values())


def test_landsat_has_the_edge_slope_of_its_specification() -> None:
    scale = 32
    taps = np.array(PRESETS["landsat"].sensor(scale).taps)
    assert float(taps.max()) * scale == pytest.approx(0.81, abs=0.01)  # the edge's slope is the line spread's peak


def test_the_plain_presets() -> None:
    assert PRESETS["default"].sensor(8) == SensorModel(8, DEFAULT_PSF_SIGMA)
    assert PRESETS["area"].sensor(8) == SensorModel(8, 0.0)
    assert PRESETS["bicubic"].sensor(8).kernel == "bicubic"


@given(st.floats(0.02, 0.63))
def test_width_and_modulation_are_inverse(mtf: float) -> None:
    sigma = psf_sigma_from_mtf(mtf)
    assert math.exp(-2 * (math.pi * sigma / 2) ** 2) * 2 / math.pi == pytest.approx(mtf)
    alone = psf_sigma_from_mtf(mtf, with_area=False)
    assert math.exp(-2 * (math.pi * alone / 2) ** 2) == pytest.approx(mtf)


def test_modulations_that_cannot_be() -> None:
    assert psf_sigma_from_mtf(0.7) == 0.0
    for wrong in (0.0, 1.0, -0.2, 30):
        with pytest.raises(OptionError, match="between 0 and 1"):
            psf_sigma_from_mtf(wrong)
