"""Declared sensors by name.

Modulation transfer functions (MTF) at the Nyquist frequency are the system's, as published or specified for images, so
they hold the detector's area: the Gaussian PSF here is what remains of them when the area mean (0.637 at Nyquist) is
taken out, since the operator applies both.

- "sentinel-2": Sentinel-2 MSI, a figure for each band: B1 .32, B2 .26, B3 .28, B4 .24, B5 .38, B6 .34, B7 .34, B8 .26,
  B8A .33, B9 .26, B11 .22, B12 .23. They stand so, as those of the bands, in the public programs of Lanaras,
  Bioucas-Dias, Baltsavias and Schindler, "Super-resolution of multispectral multiresolution images from a single
  sensor", CVPRW 2017 (SupReME), and of Ulfarsson, Palsson, Dalla Mura and Sveinsson, "Sentinel-2 sharpening using a
  reduced-rank method", IEEE TGRS 57(9), 2019 (S2Sharp), which take them from an older source; that one, and which of
  the satellites was measured along which axis, was not looked up. Widths 0.32 to 0.46 scene pixels; a band without a
  known name gets the mean of B2, B3, B4 and B8, the bands of 10 m.
- "landsat": Landsat-8 OLI, one typical figure for all its bands of 30 m, which is not a measurement: an edge response
  of 0.027 a metre, 0.81 a pixel, as the least that was asked of the instrument (Knight and Kvaran, "Landsat-8
  Operational Land Imager design, characterization and performance", Remote Sensing 6(11), 2014; cited without the
  document at hand). A Gaussian and an area mean with that slope at an edge, erf(1 / (2 sqrt(2) s)) = 0.81, have s =
  0.38 scene pixels and 0.31 at Nyquist. An upper limit of the blur of an instrument that keeps to it.
- Noise: as reflectance at a radiance L, pi L / E / SNR, with the sun overhead. Sentinel-2: what was required of the
  instrument at its reference radiances (it is better: an upper limit), and the irradiance that its products tell.
  Landsat 8: ratios as measured in orbit at typical radiances. Figures as they are commonly cited; the documents were
  not at hand. They stand in only where a scene is too small to measure its own noise.
- "area": the mean over each scene px, no PSF. "default": what `upscale` assumes where nothing is said. "bicubic": the
  test protocol of the Ref-Diff paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA, Kernel, SensorModel

_AREA_AT_NYQUIST = 2.0 / math.pi


def psf_sigma_from_mtf(mtf_at_nyquist: float, *, with_area: bool = True) -> float:
    """Width of the Gaussian PSF of a sensor whose modulation at the scene grid's Nyquist frequency is known.

    A Gaussian of standard deviation s scene px has exp(-2 (pi s / 2)^2) at half a cycle a pixel, the mean over a pixel
    sin(pi / 2) / (pi / 2) = 0.637; the system has the product of both.

    Args:
        mtf_at_nyquist: between 0 and 1.
        with_area: the figure is the system's, the detector's area included, as edges in images show it; else that of
            the PSF alone.

    Returns:
        Standard deviation in scene pixels; 0 where the area alone blurs that much (0.637 and up).

    Raises:
        OptionError: not between 0 and 1.
    """
    if not 0.0 < mtf_at_nyquist < 1.0:
        raise OptionError(f"MTF at Nyquist {mtf_at_nyquist}: need a number between 0 and 1, e.g. 0.3")
    gauss = mtf_at_nyquist / _AREA_AT_NYQUIST if with_area else mtf_at_nyquist
    return math.sqrt(-2.0 * math.log(gauss)) / math.pi if gauss < 1.0 else 0.0


@dataclass(frozen=True, slots=True)
class Preset:
    """A sensor.

    Attributes:
        kernel: as of `SensorModel`.
        psf_sigma: scene pixels, for a band that `bands` does not know.
        bands: band name in lower case -> scene pixels.
        pixel: side of the instrument's own pixels, metres; 0 where it is no instrument.
        pixels: the same of bands that have others.
        noise: band name -> standard deviation of its usual noise, reflectance.
    """

    kernel: Kernel
    psf_sigma: float
    bands: dict[str, float] = field(default_factory=dict)
    pixel: float = 0.0
    pixels: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def sensor(self, scale: int, band: str | None = None) -> SensorModel:
        """The operator for a band, by its name; without one (or an unknown one) that of the sensor as a whole."""
        return SensorModel(scale, self.bands.get((band or "").strip().lower(), self.psf_sigma), self.kernel)


def _sentinel_2() -> Preset:
    mtf = {
        "b1": 0.32, "b2": 0.26, "b3": 0.28, "b4": 0.24, "b5": 0.38, "b6": 0.34,
        "b7": 0.34, "b8": 0.26, "b8a": 0.33, "b9": 0.26, "b11": 0.22, "b12": 0.23,
    }  # fmt: skip
    bands = {name: psf_sigma_from_mtf(value) for name, value in mtf.items()}
    bands |= {f"b0{name[1:]}": sigma for name, sigma in bands.items() if len(name) == 2}
    spoken = {"blue": "b2", "green": "b3", "red": "b4", "nir": "b8", "swir1": "b11", "swir2": "b12"}
    spoken |= {"coastal": "b1", "rededge071": "b5", "rededge075": "b6", "rededge078": "b7", "nir08": "b8a"}
    spoken |= {"nir09": "b9", "swir16": "b11", "swir22": "b12"}
    bands |= {name: bands[band] for name, band in spoken.items()}
    coarse = {"b1": 60, "b5": 20, "b6": 20, "b7": 20, "b8a": 20, "b9": 60, "b11": 20, "b12": 20}
    pixels = {name: float(coarse[band]) for name, band in spoken.items() if band in coarse}
    pixels |= {band: float(metres) for band, metres in coarse.items()}
    noise = {name: math.pi * radiance / sun / ratio for name, (ratio, radiance, sun) in _MSI_NOISE.items()}
    for table in (pixels, noise):
        table |= {f"b0{name[1:]}": value for name, value in table.items() if re.fullmatch(r"b\d", name)}
    noise |= {name: noise[band] for name, band in spoken.items()}
    return Preset("psf", _mean([bands[b] for b in ("b2", "b3", "b4", "b8")]), bands, 10.0, pixels, noise)


_MSI_NOISE = {
    "b1": (129, 129, 1884.69), "b2": (154, 128, 1959.66), "b3": (168, 128, 1823.24), "b4": (142, 108, 1512.06),
    "b5": (117, 74.5, 1424.64), "b6": (89, 68, 1287.61), "b7": (105, 67, 1162.08), "b8": (174, 103, 1041.63),
    "b8a": (72, 52.5, 955.32), "b9": (114, 9, 812.92), "b11": (100, 4, 245.59), "b12": (100, 1.5, 85.25),
}  # fmt: skip
_OLI_NOISE = {
    "coastal": (238, 40, 1895.33), "blue": (364, 40, 2004.57), "green": (302, 30, 1820.75), "red": (227, 22, 1549.49),
    "nir08": (204, 14, 951.76), "nir": (204, 14, 951.76), "swir16": (265, 4, 247.55), "swir22": (334, 1.7, 85.46),
}  # fmt: skip
"""Ratio of signal to noise at a radiance (W / m2 sr um), and the sun's irradiance (W / m2 um)."""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


PRESETS: dict[str, Preset] = {
    "bicubic": Preset("bicubic", 0.0),
    "area": Preset("psf", 0.0),
    "default": Preset("psf", DEFAULT_PSF_SIGMA),
    "sentinel-2": _sentinel_2(),
    "landsat": Preset(
        "psf",
        psf_sigma_from_mtf(0.31),
        pixel=30.0,
        noise={name: math.pi * radiance / sun / ratio for name, (ratio, radiance, sun) in _OLI_NOISE.items()},
    ),
}
"""By name; sources and figures are in the module's docstring."""
