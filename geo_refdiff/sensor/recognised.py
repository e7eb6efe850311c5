"""Which instrument has taken a scene: given by its product, by its file's name, or by its bands' names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import cos, hypot, radians, sqrt

import rasterio

from geo_refdiff.products.record import SENSOR_TAG
from geo_refdiff.raster.band_names import instrument, meaning
from geo_refdiff.raster.crs import horizontal_crs, in_degrees
from geo_refdiff.raster.gdal import GDAL_ERRORS
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.sensor.presets import PRESETS

WIDEST = 0.6
"""Scene pixels: the widest PSF that is taken, as of MAX_PSF_SIGMA."""

_IN_METADATA = (("sentinel-2", r"sentinel-?2"), ("landsat", r"landsat(-?[89]| hls l30)"))
_OF_NUMBERS = {"msi": "sentinel-2", "oli": "landsat"}
_OWN_PIXEL = 0.95
"""Part of its own pixel below which a scene's pixel is no instrument's: it was resampled to finer ones."""

_DEGREE = 111_320.0
"""Metres, on the equator."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """What has taken a scene.

    Attributes:
        preset: its name among `PRESETS`.
        named: for people: "Sentinel-2A L2A".
        source: of that: "metadata", "file name" or "band names".
        pixel: side of the scene's pixels, metres.
    """

    preset: str
    named: str
    source: str
    pixel: float

    def width(self, band: str | None = None) -> float:
        """Standard deviation of the PSF in scene pixels.

        Pixels that are larger than the band's own are taken for their means; smaller ones for resampled, so that the
        PSF holds the area of the band's own pixel, too, as far as `WIDEST`.

        Args:
            band: by name; None or unknown: of the instrument as a whole.
        """
        preset = PRESETS[self.preset]
        name = preset_band(self.preset, band)
        own = preset.pixels.get(name, preset.pixel) / self.pixel
        width = preset.bands.get(name, preset.psf_sigma) * own
        if own <= 1 / _OWN_PIXEL:
            return width
        return min(WIDEST, sqrt(width**2 + (own**2 - 1) / 12))

    def noise(self, band: str) -> float | None:
        """Usual noise, reflectance; None where it is not known. Means of several pixels have less."""
        preset = PRESETS[self.preset]
        name = preset_band(self.preset, band)
        if name not in preset.noise:
            return None
        return preset.noise[name] * min(1.0, preset.pixels.get(name, preset.pixel) / self.pixel)

    def note(self, names: tuple[str, ...]) -> str:
        """What was recognised, and what follows for bands of these names."""
        widths = sorted({round(self.width(name), 2) for name in names})
        range_ = f"{widths[0]:g}" if len(widths) == 1 else f"{widths[0]:g} to {widths[-1]:g}"
        return (
            f"sensor: {self.named}, by the scene's {self.source}: PSF of {range_} scene pixels ({self.preset}); say "
            f"otherwise with --psf"
        )


def recognised(info: RasterInfo) -> Instrument | None:
    """The instrument that has taken a scene, where it is known and the scene's pixels are not finer than its own."""
    match = _in_metadata(info) or _in_names(info)
    if match is None:
        return None
    preset, named, source = match
    pixel = pixel_metres(info)
    return None if pixel < _OWN_PIXEL * PRESETS[preset].pixel else Instrument(preset, named, source, pixel)


def pixel_metres(info: RasterInfo) -> float:
    """Side of a pixel at the raster's centre: the root of its area."""
    a, b, _, d, e, f = info.transform
    crs = horizontal_crs(info.crs_wkt)
    side = sqrt(hypot(a, d) * hypot(b, e))
    if in_degrees(crs):
        return side * _DEGREE * sqrt(max(cos(radians(f + d * info.width / 2 + e * info.height / 2)), 0.0))
    return side * float(crs.axis_info[0].unit_conversion_factor)


def preset_band(preset: str, band: str | None) -> str:
    """What a preset calls a band, as far as its name is understood."""
    table, name = PRESETS[preset].bands or PRESETS[preset].noise, (band or "").strip().lower()
    if name in table:
        return name
    return meaning(name, "msi" if preset == "sentinel-2" else "oli") or name


def _in_metadata(info: RasterInfo) -> tuple[str, str, str] | None:
    try:
        with rasterio.open(info.source) as dataset:
            named = str(dataset.tags().get(SENSOR_TAG, ""))
    except GDAL_ERRORS:
        return None
    for preset, pattern in _IN_METADATA:
        if re.match(pattern, named.lower()):
            return preset, named, "metadata"
    return None


def _in_names(info: RasterInfo) -> tuple[str, str, str] | None:
    numbers, source = instrument(info)
    preset = _OF_NUMBERS.get(numbers or "")
    return (
        None if preset is None else (preset, {"sentinel-2": "Sentinel-2", "landsat": "Landsat 8 or 9"}[preset], source)
    )
