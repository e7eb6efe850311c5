"""Pairs of dates with a known shift: parcels whose colours change from date to date, seen by a coarse sensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from geo_refdiff.registration.view import OVERSAMPLING, View, make_view
from geo_refdiff.sensor.sensor import SensorModel

PAD = 20
"""scene pixels by which the reference reaches beyond the scene: a shift of 16, and the sensor's reach."""

MakePair = Callable[..., View]
Field = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def land(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(parcel numbers, texture 0..1), both (side, side); at eight pixels to a scene pixel."""
    rng = np.random.default_rng(seed)
    parcels = np.zeros((side, side), np.int64)
    for size in (56.0, 20.0):
        noise = smooth_noise(side, size, rng)
        parcels = parcels * 5 + np.digitize(noise, np.quantile(noise, (0.2, 0.4, 0.6, 0.8)))
    fine = smooth_noise(side, 1.2, rng)
    return parcels, np.clip(0.5 + 0.2 * fine / fine.std(), 0, 1)


def smooth_noise(side: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """(side, side) float32, correlated over `size` pixels; wide noise is enlarged from narrow noise."""
    step = max(1, int(size // 2.5))
    small = rng.standard_normal((side // step + 1, side // step + 1), dtype=np.float32)
    blurred = cv2.GaussianBlur(small, (0, 0), size / step)
    return np.asarray(cv2.resize(blurred, (side, side), interpolation=cv2.INTER_CUBIC))


def colours(parcels: np.ndarray, texture: np.ndarray, seed: int, bands: int = 3) -> np.ndarray:
    """(bands, side, side) float32, 0..255: what a date makes of the land; contrasts may turn round between dates."""
    table = np.random.default_rng(seed).uniform(30, 220, (bands, int(parcels.max()) + 1))
    return (table[:, parcels] * 0.85 + texture * 38).astype(np.float32)


def holes(side: int, part: float, size: float, rng: np.random.Generator) -> np.ndarray:
    """(side, side) True in smooth patches that cover `part`."""
    if part <= 0:
        return np.zeros((side, side), bool)
    noise = smooth_noise(side, size, rng)
    return np.asarray(noise > np.quantile(noise, 1 - part))


def make_pair(
    side: int = 96,
    shift: tuple[float, float] = (0.0, 0.0),
    *,
    seed: int = 0,
    other_date: bool = False,
    bands: int = 3,
    psf: float = 0.35,
    gain: float = 1.0,
    noise: float = 0.0,
    nodata: float = 0.0,
    changed: float = 0.0,
    unrelated: bool = False,
    field: Field | None = None,
) -> View:
    """What the scene shows at p the reference shows at p + shift; in steps of an eighth of a scene pixel nothing is
    interpolated. `field` instead of a shift: displacement in scene pixels at (rows, cols) in scene pixels."""
    fine = 2 * OVERSAMPLING  # the land is painted twice as fine as the view needs it
    full = (side + 2 * PAD) * fine
    rng = np.random.default_rng(seed + 1000)
    parcels, texture = land(full, seed)
    now = colours(parcels, texture, seed + 1, bands)
    old = colours(parcels, texture, seed + (2 if other_date else 1), bands)
    if unrelated or changed:
        elsewhere = colours(*land(full, seed + 7), seed + 3, bands)
        old = np.where(holes(full, changed, 6.0 * fine, rng) | unrelated, elsewhere, old)
    old = np.roll(old, [round(s * fine) for s in shift], (1, 2)) if field is None else bent(old, field, fine)
    sensor = SensorModel(fine, psf)
    inner = slice(PAD * fine, (PAD + side) * fine)
    scene = np.array(sensor.observe(torch.from_numpy(now[:, inner, inner][None].copy()))[0].numpy())
    scene = np.rint(gain * scene + rng.normal(0, max(noise, 1e-6), scene.shape)).astype(np.float32)
    valid = ~holes(side, nodata, side / 12, rng)
    reference = old.reshape(bands, full // 2, 2, full // 2, 2).mean(axis=(2, 4))
    return make_view(scene, valid, reference, np.ones(reference.shape[1:], bool), sensor)


def bent(image: np.ndarray, field: Field, fine: int) -> np.ndarray:
    """The image whose content at p has moved to p + field(p)."""
    at = (np.arange(image.shape[1]) + 0.5) / fine - PAD
    to = np.meshgrid(at, at, indexing="ij")
    row, col = to
    for _ in range(8):
        drow, dcol = field(row, col)
        row, col = to[0] - drow, to[1] - dcol
    where = [(v + PAD) * fine - 0.5 for v in (row, col)]
    return np.stack([ndimage.map_coordinates(b, where, order=1, mode="reflect") for b in image])


@pytest.fixture(scope="session")
def pair() -> MakePair:
    """`make_pair`."""
    return make_pair


@pytest.fixture(scope="session")
def bump() -> Callable[..., Field]:
    """bump(side, amplitude, width): a Gaussian in the middle on top of a constant, scene pixels."""

    def make(side: int, amplitude: float, width: float, base: tuple[float, float] = (0.6, -0.4)) -> Field:
        def field(rows: np.ndarray, cols: np.ndarray) -> tuple[Any, Any]:
            height = amplitude * np.exp(-((rows - side / 2) ** 2 + (cols - side / 2) ** 2) / (2 * width**2))
            return base[0] + 0.8 * height, base[1] - 0.6 * height

        return field

    return make
