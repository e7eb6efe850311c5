"""Which sensor the user declares, and how strictly the output is to keep to the scene."""

from __future__ import annotations

from geo_refdiff.errors import OptionError
from geo_refdiff.options import Consistency, RadiometryOptions
from geo_refdiff.plan.records import Bands, SensorRecord
from geo_refdiff.plan.survey import Noise
from geo_refdiff.sensor.presets import PRESETS
from geo_refdiff.sensor.sensor import SensorModel

MAX_PSF_SIGMA = 0.6
"""Scene pixels; beyond it back-projection would have to restore what the PSF has destroyed."""


def declared_sensor(psf: str | float | None, model_sigma: float, scale: int) -> tuple[str, SensorModel]:
    """The sensor as a whole, and what it is called in the plan.

    Args:
        psf: a preset's name, or the PSF's width in scene pixels; None: what the model was made for.
        model_sigma: the latter.
        scale: output pixels along a scene pixel.

    Raises:
        OptionError: neither a preset nor a number from 0 to 0.6.
    """
    if psf is None:
        return "model", SensorModel(scale, model_sigma)
    name = str(psf).strip().lower()
    if name in PRESETS:
        return name, PRESETS[name].sensor(scale)
    try:
        sigma = float(name)
    except ValueError:
        known = ", ".join(PRESETS)
        raise OptionError(f"psf '{psf}': give 0 to {MAX_PSF_SIGMA} scene pixels, or one of {known}") from None
    if not 0 <= sigma <= MAX_PSF_SIGMA:
        raise OptionError(f"PSF sigma {sigma:g}: give 0 to {MAX_PSF_SIGMA} scene pixels")
    return f"{sigma:g}", SensorModel(scale, sigma)


def sensor_record(name: str, sensor: SensorModel, bands: Bands, consistency: Consistency, noise: Noise) -> SensorRecord:
    """For the plan: a preset's own width for each band that it knows by name."""
    preset = PRESETS.get(name)
    sigmas = tuple(
        sensor.psf_sigma if preset is None else preset.sensor(sensor.scale, band).psf_sigma
        for band in bands.names + bands.other_names
    )
    return SensorRecord(name, sensor.kernel, sigmas, consistency, noise.sigmas, noise.components)


def chosen_consistency(asked: RadiometryOptions, consistent: bool) -> Consistency:
    """The mode asked for; by default "standard" for restorers that keep to the scene, "off" for others."""
    return asked.consistency or ("standard" if consistent else "off")


def transfers(asked: RadiometryOptions) -> bool:
    """Whether bands that the model does not know come along; by default unless the user chose the bands."""
    return asked.bands is None if asked.other_bands is None else asked.other_bands == "transfer"
