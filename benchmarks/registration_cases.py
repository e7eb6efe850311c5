"""Pairs with an exact shift, for the registration benchmark: real scenes of two years, degraded, changed and displaced.

The truth is what is injected here, on top of an alignment of the two years with each other that is made at full
resolution by another method (the median of OpenCV's ECC over bands and smoothings); it is good to some 0.15 output px.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.private import DATA, observed, read_float
from geo_refdiff.registration.view import OVERSAMPLING, View, make_view
from geo_refdiff.sensor.sensor import SensorModel

YEARS = (2009, 2012, 2015, 2018)
CITIES = ("claremont", "long_beach", "palm_springs")
CITY_YEARS = (2016, 2018, 2020)
PAD = 16
GUTTER = 4
PLACES = 36
"""Of a city; aligning them takes its time."""

Image = NDArray[np.float32]
Field = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]


@dataclass(frozen=True)
class Case:
    """What a case is made of.

    Attributes:
        side: of the scene grid, pixels.
        scale: output pixels along a scene pixel, a multiple of 4.
        place: "knox" (mirror-tiled) or one of the cities (a mosaic of places with gaps between them).
        years: of the scene and of the reference.
        bands: of the scene and of the reference.
        shift: injected, output pixels, whole numbers: nothing is interpolated.
        nodata: part of the LR scene that is missing, in blobs.
        changed: part of the reference that shows another place, in blobs.
        gain: of the scene's sensor.
        noise: its standard deviation, DN.
        unrelated: whether the whole reference shows another place.
        seed: of all that is random.
    """

    side: int
    scale: int
    place: str
    years: tuple[int, int]
    bands: tuple[tuple[int, ...], tuple[int, ...]]
    shift: tuple[int, int]
    nodata: float = 0.3
    changed: float = 0.2
    gain: float = 1.0
    noise: float = 2.0
    unrelated: bool = False
    seed: int = 0

    @property
    def truth(self) -> tuple[float, float]:
        """The shift in scene pixels."""
        return self.shift[0] / self.scale, self.shift[1] / self.scale


def make_case(case: Case, field: Field | None = None) -> View:
    """Scene and reference as the registration gets them, the reference with PAD scene pixels around.

    Args:
        case: what to make.
        field: displacement in scene px at (rows, cols) in scene px from the scene's corner, instead of the shift.
    """
    rng = np.random.default_rng(case.seed)
    margin, side = PAD * case.scale, case.side * case.scale
    full = side + 2 * margin
    now, valid_pixels = _ground(case, case.years[0], case.bands[0], full)
    old, old_known = _ground(case, case.years[1], case.bands[1], full)
    other = np.roll(old.transpose(0, 2, 1)[:, ::-1], (full // 3, full // 5), (1, 2))
    if case.unrelated:
        old, old_known = other, np.ones_like(old_known)
    elif case.changed:
        old = np.where(blobs((full, full), case.changed, 12 * case.scale, rng), other, old)
    sensor = SensorModel(case.scale)
    inner = (..., slice(margin, margin + side), slice(margin, margin + side))
    scene = observed(now[inner] * case.gain, sensor)
    scene += rng.standard_normal(scene.shape).astype(np.float32) * case.noise
    scene = np.clip(np.rint(scene), 0, 255 * max(1.0, case.gain))
    valid = observed(valid_pixels[inner][None].astype(np.float32), sensor)[0] > 0.999
    valid &= ~blobs(valid.shape, case.nodata, max(4.0, case.side / 16), rng)
    if field is not None:
        old = _bent(old, field, case.scale, margin)
    old, old_known = np.roll(old, case.shift, (1, 2)), np.roll(old_known, case.shift, (0, 1))
    step = case.scale // OVERSAMPLING
    fine = np.asarray(old_known.reshape(full // step, step, full // step, step).all(axis=(1, 3)))
    return make_view(scene, valid, block_mean(old, step), fine, sensor)


def block_mean(image: Image, size: int) -> Image:
    """(C, H, W) -> (C, H / size, W / size)."""
    count, height, width = image.shape
    shape = (count, height // size, size, width // size, size)
    return np.asarray(image.reshape(shape).mean(axis=(2, 4)), dtype=np.float32)


def blobs(shape: tuple[int, ...], part: float, size: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Smooth patches of about `size` pixels that cover `part` of an image."""
    if part <= 0:
        return np.zeros(shape, dtype=bool)
    step = max(1, int(size // 4))
    small = ndimage.gaussian_filter(rng.standard_normal([n // step + 2 for n in shape]), size / step)
    noise = cv2.resize(small, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(noise > np.quantile(noise, 1 - part))


def bump(side: int, amplitude: float, width: float, base: tuple[float, float] = (0.6, -0.4)) -> Field:
    """A Gaussian bump in the middle on top of a constant, scene pixels."""

    def field(rows: NDArray[np.float64], cols: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        height = amplitude * np.exp(-((rows - side / 2) ** 2 + (cols - side / 2) ** 2) / (2 * width**2))
        return base[0] + 0.8 * height, base[1] - 0.6 * height

    return field


def _bent(image: Image, field: Field, scale: int, margin: int) -> Image:
    """The image whose content at p has moved to p + field(p)."""
    at = (np.arange(image.shape[1]) + 0.5 - margin) / scale
    to_row, to_col = np.meshgrid(at, at, indexing="ij")
    row, col = to_row, to_col
    for _ in range(8):
        drow, dcol = field(row, col)
        row, col = to_row - drow, to_col - dcol
    rows, cols = ((v * scale + margin - 0.5).astype(np.float32) for v in (row, col))
    return np.stack([cv2.remap(b, cols, rows, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101) for b in image])


def _ground(case: Case, year: int, bands: tuple[int, ...], side: int) -> tuple[Image, NDArray[np.bool_]]:
    """`year`, aligned with the scene's year, over `side` x `side` output pixels."""
    rng = np.random.default_rng(case.seed + 1)
    onto = case.years[0]
    if case.place == "knox":
        image = _knox_on(onto, year)[list(bands)]
        rows, cols = (_mirrored(int(rng.integers(2 * n)), side, n) for n in image.shape[1:])
        return np.ascontiguousarray(image[:, rows[:, None], cols[None]]), np.ones((side, side), dtype=bool)
    count = -(-side // 256)
    names = _places(case.place, case.years)
    chosen = rng.permutation(len(names))[np.arange(count * count) % len(names)]
    out = np.zeros((len(bands), count * 256, count * 256), dtype=np.float32)
    valid = np.zeros(out.shape[1:], dtype=bool)
    for k, index in enumerate(chosen):
        row, col = (256 * v for v in divmod(k, count))
        out[:, row : row + 256, col : col + 256] = _place_on(case.place, names[index], onto, year)[list(bands)]
        valid[row + GUTTER : row + 256 - GUTTER, col + GUTTER : col + 256 - GUTTER] = True
    return out[:, :side, :side], valid[:side, :side]


def _mirrored(start: int, count: int, size: int) -> NDArray[np.int64]:
    at = (np.arange(count) + start) % (2 * size)
    return np.where(at < size, at, 2 * size - 1 - at)


@lru_cache(maxsize=16)
def _knox_on(onto: int, year: int) -> Image:
    own = read_float(DATA / "naip-knox" / f"{year}.tif")[:, :720, :928]
    if year == onto:
        return own
    return _shifted(own, _base(read_float(DATA / "naip-knox" / f"{onto}.tif")[:, :720, :928], own))


@lru_cache(maxsize=8)
def _places(city: str, years: tuple[int, int]) -> tuple[str, ...]:
    """Places of a city that both years show and whose two years can be aligned to within 6 pixels."""
    folders = sorted((DATA / "naip-ca" / city).iterdir())[:PLACES]
    return tuple(
        f.name
        for f in folders
        if all((f / f"{y}.tif").exists() for y in years) and np.hypot(*_place_base(city, f.name, *years)) < 6
    )


@lru_cache(maxsize=2048)
def _place_base(city: str, name: str, onto: int, year: int) -> tuple[float, float]:
    folder = DATA / "naip-ca" / city / name
    return _base(read_float(folder / f"{onto}.tif"), read_float(folder / f"{year}.tif")) if year != onto else (0.0, 0.0)


@lru_cache(maxsize=256)
def _place_on(city: str, name: str, onto: int, year: int) -> Image:
    own = read_float(DATA / "naip-ca" / city / name / f"{year}.tif")
    return own if year == onto else _shifted(own, _place_base(city, name, onto, year))


def _shifted(image: Image, base: tuple[float, float]) -> Image:
    away = (-base[0], -base[1])
    return np.stack([ndimage.shift(b, away, order=3, mode="reflect") for b in image]).astype(np.float32)


def _base(first: Image, second: Image) -> tuple[float, float]:
    """Shift of the second image against the first at full resolution, (rows, columns); (99, 99) if there is none."""
    mask = np.zeros(first.shape[1:], dtype=np.uint8)
    mask[12:-12, 12:-12] = 255
    shifts = []
    for a, b in zip(first, second, strict=True):
        for sigma in (1.0, 1.5, 2.0):
            edges = [ndimage.gaussian_gradient_magnitude(x, sigma).astype(np.float32) for x in (a, b)]
            matrix = np.eye(2, 3, dtype=np.float32)
            try:
                cv2.findTransformECC(edges[0], edges[1], matrix, cv2.MOTION_TRANSLATION, (3, 60, 1e-7), mask, 1)
            except cv2.error:
                continue
            shifts.append((float(matrix[1, 2]), float(matrix[0, 2])))
    if len(shifts) < 6 or np.std(shifts, axis=0).max() > 1.0:
        return 99.0, 99.0
    row, col = np.median(shifts, axis=0)
    return float(row), float(col)
