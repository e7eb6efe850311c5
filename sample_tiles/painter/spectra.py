"""Spectra of surfaces as an aerial camera delivers them: red, green, blue, near infrared in sunlit 8-bit DN.

The figures are of the kind seen in summer NAIP imagery: dark, slightly blue-green canopies with bright near infrared,
soils that rise from blue to near infrared, grey paving, nearly black near infrared over water.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sample_tiles.painter.texture import F32

Spectrum = tuple[float, float, float, float]

MATERIALS: Final[dict[str, Spectrum]] = {
    "lush": (78, 108, 74, 186),
    "grass": (104, 121, 86, 170),
    "dry grass": (154, 143, 113, 160),
    "straw": (186, 169, 128, 178),
    "residue": (168, 152, 122, 162),
    "corn": (60, 92, 68, 196),
    "wheat": (84, 116, 74, 188),
    "ripe wheat": (196, 170, 116, 184),
    "rape": (182, 178, 74, 196),
    "beet": (72, 112, 62, 204),
    "brown soil": (134, 112, 94, 134),
    "dark soil": (98, 84, 74, 98),
    "pale soil": (178, 158, 132, 176),
    "red soil": (160, 116, 88, 150),
    "gravel": (178, 168, 152, 174),
    "sand": (204, 188, 158, 200),
    "forest floor": (66, 68, 56, 96),
    "scrub": (120, 112, 86, 132),
    "asphalt": (118, 119, 116, 112),
    "dark asphalt": (84, 86, 88, 80),
    "pale asphalt": (150, 147, 141, 143),
    "concrete": (194, 191, 184, 188),
    "paint": (226, 226, 222, 218),
    "terracotta": (162, 114, 95, 144),
    "brown roof": (118, 98, 86, 112),
    "grey roof": (134, 130, 128, 126),
    "slate": (88, 90, 94, 86),
    "white roof": (226, 226, 224, 216),
    "metal": (170, 178, 186, 172),
    "blue metal": (104, 130, 160, 128),
    "glass": (186, 200, 202, 170),
    "panel": (52, 62, 92, 60),
    "pool": (104, 186, 202, 84),
    "river": (56, 72, 66, 30),
    "pond": (62, 80, 58, 34),
    "clear water": (36, 56, 66, 16),
    "court": (92, 124, 108, 104),
    "clay court": (176, 110, 84, 140),
    "car white": (222, 222, 222, 214),
    "car dark": (48, 50, 56, 50),
    "car red": (150, 52, 48, 120),
    "car grey": (140, 142, 146, 136),
    "broadleaf": (84, 108, 70, 186),
    "dark broadleaf": (64, 90, 62, 166),
    "olive": (92, 102, 76, 150),
    "conifer": (54, 74, 60, 130),
    "autumn": (138, 106, 62, 168),
    "young tree": (88, 116, 72, 190),
}


def spectrum(name: str) -> F32:
    """DN of a material, float32 (4,); KeyError for an unknown name."""
    return np.array(MATERIALS[name], np.float32)


@dataclass(frozen=True)
class Season:
    """Light, vegetation and camera of one date."""

    azimuth: float
    """Direction of the sun, radians clockwise from north (grid north, rows run south)."""
    elevation: float
    """Height of the sun above the horizon, radians."""
    green: float
    """0 = dried-out grass, 1 = lush."""
    autumn: float
    """Share of broad-leaved trees that have turned, 0..1."""
    gain: F32
    """Gain of each band (4,)."""
    offset: F32
    """Haze of each band in DN (4,)."""
    shade: F32
    """Light left in a cast shadow, each band (4,), 0..1."""
    psf: float
    """Gaussian blur of optics and resampling, metres."""
    noise: float
    """Camera noise, DN (standard deviation at mid-grey)."""

    @property
    def towards_sun(self) -> tuple[float, float]:
        """Unit vector (x east, y south) on the ground pointing at the sun."""
        return float(np.sin(self.azimuth)), float(-np.cos(self.azimuth))

    def grass(self, lushness: float) -> F32:
        """Spectrum (4,) of grass: `lushness` -1..1 on top of the season's."""
        level = float(np.clip(self.green + 0.5 * lushness, 0.0, 1.0)) * 2
        names = ("dry grass", "grass", "lush")
        low = min(int(level), 1)
        f = np.float32(level - low)
        return np.asarray(spectrum(names[low]) * (1 - f) + spectrum(names[low + 1]) * f, dtype=np.float32)


def draw_season(rng: np.random.Generator, dry: float, like: Season | None = None) -> Season:
    """A random date; `dry` 0..1 is the climate. `like`: an earlier flight, whose hour the new one roughly keeps."""
    haze = rng.uniform(0, 12)
    azimuth, elevation = np.deg2rad(rng.uniform(110, 235)), np.deg2rad(rng.uniform(36, 62))
    if like is not None:
        azimuth = like.azimuth + np.deg2rad(rng.normal(0, 13))
        elevation = np.clip(like.elevation + np.deg2rad(rng.normal(0, 6)), np.deg2rad(33), np.deg2rad(66))
    return Season(
        azimuth=float(azimuth),
        elevation=float(elevation),
        green=float(np.clip(rng.normal(0.75 - 0.55 * dry, 0.2), 0, 1)),
        autumn=float(rng.uniform(0.3, 0.9)) if rng.random() < 0.12 else 0.0,
        gain=(rng.uniform(0.86, 1.1) * rng.normal(1, 0.018, 4)).astype(np.float32),
        offset=(haze * np.array([0.85, 0.95, 1.1, 0.3]) + rng.normal(0, 1, 4)).astype(np.float32),
        shade=(np.array([0.34, 0.41, 0.52, 0.28]) * rng.uniform(0.85, 1.15)).astype(np.float32),
        psf=float(rng.uniform(0.42, 0.58)),
        noise=float(rng.uniform(0.8, 2.2)),
    )
