"""Pairs of dates to learn from: aerial images of a folder tree, and the generated landscape."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

from geo_refdiff.align.radiometry import fit_radiometry
from geo_refdiff.errors import InputError

_MAX_SHIFT = 8.0
_MIN_PEAK = 7.0
_COARSE = 8


@dataclass(frozen=True, slots=True)
class Pair:
    """Two dates of one place on one grid, the reference registered and in the new date's radiometry.

    Attributes:
        name: "city/place old->new".
        new: (C, H, W) uint8, the truth.
        ref: (C, H, W) uint8, the old date.
        ref_valid: (H, W) bool, False where registration moved in pixels from outside.
        new_classes: (H, W) uint8 land cover of the new date, 1..5, 0 = not known.
        mask: (H, W) uint8 change class, 255 = no change known.
    """

    name: str
    new: NDArray[np.uint8]
    ref: NDArray[np.uint8]
    ref_valid: NDArray[np.bool_]
    new_classes: NDArray[np.uint8]
    mask: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.new.shape != self.ref.shape or self.new.shape[1:] != self.mask.shape:
            raise InputError(f"pair {self.name}: shapes {self.new.shape}, {self.ref.shape}, {self.mask.shape} differ")


def estimate_shift(fixed: NDArray[np.uint8], moving: NDArray[np.uint8]) -> tuple[float, float]:
    """(rows, cols) by which `moving` must be moved to lie on `fixed`; (0, 0) where no clear peak is found.

    Normalised phase correlation (Kuglin and Hines 1975) of gradient magnitudes, peak refined by parabolas.
    """
    spectra = []
    for image in (fixed, moving):
        grey = image.astype(np.float32).mean(axis=0)
        gradient = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
        window = np.hanning(grey.shape[0])[:, None] * np.hanning(grey.shape[1])[None]
        spectra.append(np.fft.rfft2((gradient - gradient.mean()) * window))
    cross = spectra[0] * np.conj(spectra[1])
    surface = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), s=fixed.shape[1:])
    surface = ndimage.gaussian_filter(np.fft.fftshift(surface), 1.0)
    row, col = np.unravel_index(int(np.argmax(surface)), surface.shape)
    middle = np.array(surface.shape) // 2
    if surface[row, col] < _MIN_PEAK * surface.std() or np.abs(np.array([row, col]) - middle).max() > _MAX_SHIFT:
        return 0.0, 0.0
    return (
        float(row - middle[0]) + _parabola(*surface[row - 1 : row + 2, col].tolist()),
        float(col - middle[1]) + _parabola(*surface[row, col - 1 : col + 2].tolist()),
    )


def _parabola(left: float, mid: float, right: float) -> float:
    bend = left - 2 * mid + right
    return 0.0 if bend == 0 else 0.5 * (left - right) / bend


def matched_pair(
    name: str, new: NDArray[np.uint8], old: NDArray[np.uint8], classes: NDArray[np.uint8], register: bool = True
) -> Pair:
    """A pair from two images on one grid: the old one shifted onto the new one (if asked), its radiometry fitted."""
    shift = estimate_shift(new, old) if register else (0.0, 0.0)
    moved = ndimage.shift(old.astype(np.float32), (0.0, *shift), order=3, mode="nearest")
    inside = ndimage.shift(np.ones(old.shape[1:], np.float32), shift, order=1, mode="constant") > 0.999
    fit = fit_radiometry(_coarse(moved), _coarse(new), np.ones(_coarse(new).shape[1], dtype=bool))
    matched = np.array(fit.gain)[:, None, None] * moved + np.array(fit.offset)[:, None, None]
    ref = np.clip(np.rint(matched), 0, 255).astype(np.uint8)
    return Pair(name, new, ref, inside, classes, np.full(classes.shape, 255, np.uint8))


def _coarse(image: NDArray[np.generic]) -> NDArray[np.float64]:
    c, h, w = image.shape
    h, w = h - h % _COARSE, w - w % _COARSE
    cells = image[:, :h, :w].astype(np.float64).reshape(c, h // _COARSE, _COARSE, w // _COARSE, _COARSE)
    means: NDArray[np.float64] = cells.mean(axis=(2, 4)).reshape(c, -1)
    return means


def land_cover(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Rough land cover of one date from red, green, blue and near infrared.

    Rules on smoothed bands: normalised difference vegetation index (Rouse 1974) and water index (McFeeters 1996),
    brightness, local contrast and warmth (red against blue).

    Args:
        image: (4, H, W) uint8 red, green, blue, nir.

    Returns:
        (H, W) uint8: 1 water, 2 bare ground, 3 low vegetation, 4 tree, 5 built-up.
    """
    red, green, blue, nir = (ndimage.uniform_filter(band.astype(np.float32), 3) for band in image)
    ndvi = (nir - red) / np.maximum(nir + red, 1.0)
    ndwi = (green - nir) / np.maximum(green + nir, 1.0)
    brightness = (red + green + blue) / 3.0
    grey = image[:3].astype(np.float32).mean(axis=0)
    mean = ndimage.uniform_filter(grey, 9)
    contrast = np.sqrt(np.maximum(ndimage.uniform_filter(grey**2, 9) - mean**2, 0.0))
    classes = np.full(red.shape, 5, np.uint8)
    classes[(red - blue > 18) & (brightness > 90)] = 2
    classes[ndvi > 0.12] = 3
    classes[(ndvi > 0.18) & ((brightness < 85) | (contrast > 22))] = 4
    classes[(ndwi > 0.15) & (brightness < 110) & (contrast < 8)] = 1
    # the majority within 5 x 5 pixels
    votes = [ndimage.uniform_filter((classes == k).astype(np.float32), 5) for k in range(1, 6)]
    winners: NDArray[np.uint8] = (np.argmax(votes, axis=0) + 1).astype(np.uint8)
    return winners


def aerial_pairs(
    folder: Path, exclude: Iterable[str] = (), only: Iterable[str] = (), register: bool = True
) -> Iterator[Pair]:
    """All ordered pairs of years of every place under `folder/<city>/<place>/<year>.tif` (uint8, 4 bands).

    Cities in `exclude` are left out; with `only`, all but those are. Raises InputError where no image is left.
    """
    cities = {path.name for path in folder.iterdir()} & (set(only) or {path.name for path in folder.iterdir()})
    cities -= set(exclude)
    places = sorted({path.parent for path in folder.glob("*/*/*.tif") if path.parent.parent.name in cities})
    if not places:
        raise InputError(f"{folder} holds no <city>/<place>/<year>.tif to train on")
    for place in places:
        years = {}
        for path in sorted(place.glob("*.tif")):
            with rasterio.open(path) as source:
                years[path.stem] = source.read()
        cover = {year: land_cover(image) for year, image in years.items()}
        for new, old in itertools.permutations(years, 2):
            name = f"{place.parent.name}/{place.name} {old}->{new}"
            yield matched_pair(name, years[new], years[old], cover[new], register)


def generated_pairs(seeds: Iterable[int], size: int = 256) -> Iterator[Pair]:
    """The generated landscape, both directions in time alternating, with exact change masks."""
    from geo_refdiff.sample_tiles.landscape import render_pair

    for seed in seeds:
        scene = render_pair(seed, (size, size))
        changed = scene.old_classes != scene.new_classes
        back = seed % 2 == 1
        new, old = (scene.old, scene.new) if back else (scene.new, scene.old)
        classes = scene.old_classes if back else scene.new_classes
        mask = np.where(changed, classes, 0).astype(np.uint8)
        pair = matched_pair(f"landscape {seed}{' reversed' if back else ''}", new, old, classes)
        yield replace(pair, mask=mask)
