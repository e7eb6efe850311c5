"""Which sensor the user declares, and how strictly the output is to keep to the scene."""

from __future__ import annotations

from geo_refdiff.errors import OptionError
from geo_refdiff.options import Consistency, RadiometryOptions
from geo_refdiff.plan.records import Bands, SensorRecord
from geo_refdiff.plan.survey import Noise
from geo_refdiff.sensor.presets import PRESETS
from geo_refdiff.sensor.recognised import WIDEST, Instrument
from geo_refdiff.sensor.sensor import SensorModel

MAX_PSF_SIGMA = WIDEST
"""Scene pixels; beyond it back-projection would have to restore what the PSF has destroyed."""


def declared_sensor(
    psf: str | float | None, model_sigma: float, scale: int, instrument: Instrument | None = None
) -> tuple[str, SensorModel]:
    """The sensor as a whole, and what it is called in the plan.

    Args:
        psf: a preset's name, or the PSF's width in scene pixels; None: that of the instrument, else what the model was
            made for.
        model_sigma: the latter.
        scale: output pixels along a scene pixel.
        instrument: that has taken the scene, if it is known.

    Raises:
        OptionError: neither a preset nor a number from 0 to 0.6.
    """
    if psf is None and instrument is not None:
        return instrument.preset, SensorModel(scale, instrument.width(), PRESETS[instrument.preset].kernel)
    if psf is None:
        return "model", SensorModel(scale, model_sigma)
    name = str(psf).strip().lower()
    if name in PRESETS:
        return name, PRESETS[name].sensor(scale)
    try:
        sigma = float(name)
    except ValueError:
        presets = ", ".join(PRESETS)
        raise OptionError(f"psf '{psf}': give 0 to {MAX_PSF_SIGMA} scene pixels, or one of {presets}") from None
    if not 0 <= sigma <= MAX_PSF_SIGMA:
        raise OptionError(f"PSF sigma {sigma:g}: give 0 to {MAX_PSF_SIGMA} scene pixels")
    return f"{sigma:g}", SensorModel(scale, sigma)


def sensor_record(
    name: str,
    sensor: SensorModel,
    bands: Bands,
    consistency: Consistency,
    noise: Noise,
    instrument: Instrument | None = None,
) -> SensorRecord:
    """For the plan: the width of a preset, or of the instrument that has taken the scene, for each band by its name."""
    preset, names = PRESETS.get(name), bands.names + bands.other_names
    if instrument is not None:
        sigmas = tuple(instrument.width(band) for band in names)
    elif preset is not None:
        sigmas = tuple(preset.sensor(sensor.scale, band).psf_sigma for band in names)
    else:
        sigmas = (sensor.psf_sigma,) * len(names)
    return SensorRecord(name, sensor.kernel, sigmas, consistency, noise.sigmas, noise.components)


def chosen_consistency(asked: RadiometryOptions, consistent: bool) -> Consistency:
    """The mode asked for; by default "standard" for restorers that keep to the scene, "off" for others."""
    return asked.consistency or ("standard" if consistent else "off")


def transfers(asked: RadiometryOptions) -> bool:
    """Whether bands that the model does not know come along; by default unless the user chose the bands."""
    return asked.bands is None if asked.other_bands is None else asked.other_bands == "transfer"
