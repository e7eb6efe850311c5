"""Rough land cover of one date, by rules on its bands: pseudo-classes where no labels exist.

The rules were tuned on hand-labelled points of aerial images of 0.6 m; docs/data.md says how well they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geo_refdiff.classes import BARE, BUILT, LOW, TREE, WATER

REACH = 40
"""Pixels around a pixel that its class can depend on, at most."""

NEEDED_BANDS = ("red", "green", "blue", "nir")

_MIN_GREY = 0.03
_SLOPE, _OFFSET = (0.8, 1.25), (-45.0, 15.0)
_DEFAULT_NIR = (0.95, -5.0)
_DARK_SHARE, _DARKEST_LIGHT = 0.1, 75.0
_TREE_BRIGHTNESS = 100

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tone:
    """What the rules must know of a date as a whole; aerial images are stretched differently each time.

    Attributes:
        slope, offset: grey surfaces (concrete, asphalt) show nir ~ slope * red + offset, DN of 0..255.
        dark: brightness (mean of red, green, blue, DN) below which a pixel is taken to lie in shadow.
    """

    slope: float
    offset: float
    dark: float


def measure_tone(views: Sequence[U8]) -> Tone:
    """The tone of a date from its valid pixels, or some: arrays (4, ...) uint8 red, green, blue, nir."""
    pixels = np.concatenate([view.reshape(4, -1)[:, :: max(1, view[0].size // 65_536)] for view in views], axis=1)
    if pixels.size == 0:
        return Tone(*_DEFAULT_NIR, 0.0)
    red, green, blue, nir = pixels.astype(np.float32)
    brightness = (red + green + blue) / 3.0
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    grey = (spread < 0.2 * brightness) & (brightness > 60) & (brightness < 245) & (nir < 1.35 * red)
    low, high = (float(q) for q in np.quantile(brightness, (0.005, 0.995)))
    slope, offset = _grey_line(red[grey], nir[grey]) if grey.mean() > _MIN_GREY else _DEFAULT_NIR
    return Tone(slope, offset, min(low + _DARK_SHARE * (high - low), _DARKEST_LIGHT))


def _grey_line(red: F32, nir: F32) -> tuple[float, float]:
    """Slope and offset of nir over red, through the medians of the darker and the brighter third of the range."""
    low, high = (float(q) for q in np.quantile(red, (0.05, 0.95)))
    dark, bright = red <= low + 0.3 * (high - low), red >= high - 0.3 * (high - low)
    run = float(np.median(red[bright]) - np.median(red[dark]))
    rise = float(np.median(nir[bright]) - np.median(nir[dark]))
    slope = float(np.clip(rise / run, *_SLOPE)) if run > 30 else _DEFAULT_NIR[0]
    return slope, float(np.clip(np.median(nir - np.float32(slope) * red), *_OFFSET))


class _Signs(NamedTuple):
    """What the rules look at, each (H, W) float32."""

    ndvi: F32
    ndwi: F32
    brightness: F32
    warmth: F32
    roughness: F32
    edges: F32


def _signs(image: U8, tone: Tone) -> _Signs:
    red, green, blue = (_smooth(band.astype(np.float32)) for band in image[:3])
    levelled = np.maximum((image[3] - np.float32(tone.offset)) / np.float32(tone.slope), np.float32(0.0))
    nir = _smooth(levelled)
    brightness = (red + green + blue) / np.float32(3.0)
    mean = ndimage.uniform_filter(levelled, 7)
    rough = np.sqrt(np.maximum(ndimage.uniform_filter(levelled**2, 7) - mean**2, 0.0))
    return _Signs(
        ndvi=(nir - red) / np.maximum(nir + red, 1.0),
        ndwi=(green - nir) / np.maximum(green + nir, 1.0),
        brightness=brightness,
        warmth=(red - blue) / np.maximum(brightness, 1.0),
        roughness=ndimage.minimum_filter(rough, 5),
        edges=edge_share(brightness, 31),
    )


def land_cover(image: U8, tone: Tone | None = None) -> U8:
    """Rough land cover of one date from red, green, blue and near infrared.

    Rules, in order (a later one overrules): built-up; bare ground where it is warm (red above blue), not dark and
    has few edges around; vegetation by NDVI (Rouse 1974) and not bright, trees where near infrared is rough; water
    by NDWI (McFeeters 1996), wide, or bright and blue (pools); shadow takes the class around it, shaded
    vegetation is tree; then majorities.

    Args:
        image: (4, H, W) uint8 red, green, blue, nir.
        tone: of the date; None = measured on this image.

    Returns:
        (H, W) uint8: 1 water, 2 bare ground, 3 low vegetation, 4 tree, 5 built-up.
    """
    tone = tone or measure_tone([image])
    signs = _signs(image, tone)
    classes = np.full(image.shape[1:], BUILT, np.uint8)
    warm = (signs.warmth > 0.054) & (signs.ndvi > -0.016)
    classes[warm & (signs.brightness > 100) & (signs.edges < 0.3)] = BARE
    shade = signs.brightness < tone.dark
    green = (signs.ndvi > np.where(shade, 0.35, 0.2)) & (signs.brightness < 165)
    classes[green] = LOW
    rough = green & (((signs.roughness > 4.5) & (signs.brightness < _TREE_BRIGHTNESS)) | shade)
    classes[green & (2.0 * _share(rough, 11) > _share(green, 11))] = TREE
    wet = (signs.ndwi > 0.3) & (signs.brightness < 130)
    black = _smooth(image[3].astype(np.float32)) < 30.0
    water = opened(wet & black, 7) | opened(wet, 25)  # narrow, it could be a road
    water |= opened((signs.ndwi > 0.25) & (signs.warmth < -0.2) & (signs.brightness > tone.dark + 25), 4)
    classes[water] = WATER
    shade &= ~green & ~water
    if shade.any():
        around, votes = _most(classes, ~shade, 15)
        classes = np.where(shade & (votes > 0.02), around, classes)
    return _most(classes, None, 5)[0]


def _most(classes: U8, counted: Mask | None, side: int) -> tuple[U8, F32]:
    """The most frequent class of the counted pixels in a square around each pixel, and its share of the square."""
    best = np.full(classes.shape, BUILT, np.uint8)
    share = np.zeros(classes.shape, np.float32)
    for index in np.unique(classes):
        votes = _share(classes == index if counted is None else (classes == index) & counted, side)
        more = votes > share
        best[more] = index
        share[more] = votes[more]
    return best, share


def edge_share(brightness: F32, side: int) -> F32:
    """The part of a square around each pixel where brightness (H, W), DN, steps by more than 8 % a pixel."""
    steps = np.hypot(ndimage.sobel(brightness, 0), ndimage.sobel(brightness, 1)) / 8.0
    return _share(steps > 0.08 * np.maximum(brightness, 30.0), side)


def shaded(image: U8, tone: Tone) -> Mask:
    """Where a date lies in shadow, with a rim of one pixel; image (4, H, W) uint8 -> (H, W) bool."""
    brightness = _smooth(image[:3].mean(axis=0, dtype=np.float32))
    return np.asarray(ndimage.maximum_filter(brightness < tone.dark, 3))


def _smooth(band: F32) -> F32:
    smooth: F32 = ndimage.uniform_filter(band, 3)
    return smooth


def _share(mask: Mask, side: int) -> F32:
    """The part of the pixels of a square around each pixel that are True."""
    share: F32 = ndimage.uniform_filter(mask.astype(np.float32), side)
    return share


def opened(mask: Mask, side: int) -> Mask:
    """What of a mask squares of `side` pixels fit into."""
    eroded = ndimage.minimum_filter(mask, side)
    return np.asarray(ndimage.maximum_filter(eroded, side, origin=-1 if side % 2 == 0 else 0))
