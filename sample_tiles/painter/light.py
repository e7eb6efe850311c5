"""Cast shadows and the camera: from sunlit surfaces to the 8-bit picture of one date."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from geo_refdiff.classes import TREE
from sample_tiles.painter.canvas import Canvas
from sample_tiles.painter.spectra import Season
from sample_tiles.painter.texture import F32

CANOPY_SHADE = 0.62
"""Strength of a cast shadow on a crown, whose own dark side is painted already and which scatters light."""


def cast_shadows(height: F32, season: Season, gsd: float) -> F32:
    """Share of each pixel (H, W) that is in the shadow of something higher, 0..1, by marching towards the sun.

    The march goes in whole pixels along the axis that the sun's direction follows most and interpolates along the
    other one.
    """
    sx, sy = season.towards_sun
    reach = max(abs(sx), abs(sy))
    drop = np.float32(gsd / reach * np.tan(season.elevation))
    steps = int(min(60, np.ceil(float(height.max()) / float(drop)))) if height.max() > 0 else 0
    rows, cols = height.shape
    pad = steps + 2
    tall = np.zeros((rows + 2 * pad, cols + 2 * pad), np.float32)
    tall[pad:-pad, pad:-pad] = height
    over = np.full((rows, cols), -1.0, np.float32)
    for k in range(1, steps + 1):
        dx, dy = k * sx / reach, k * sy / reach
        if abs(sx) >= abs(sy):
            c, r = round(dx), int(np.floor(dy))
            f, (r2, c2) = np.float32(dy - r), (r + 1, c)
        else:
            c, r = int(np.floor(dx)), round(dy)
            f, (r2, c2) = np.float32(dx - c), (r, c + 1)
        a = tall[pad + r : pad + r + rows, pad + c : pad + c + cols]
        b = tall[pad + r2 : pad + r2 + rows, pad + c2 : pad + c2 + cols]
        np.maximum(over, a + f * (b - a) - k * drop, out=over)
    return np.asarray(np.clip((over - height) / np.float32(0.9 * gsd), 0, 1), dtype=np.float32)


def expose(canvas: Canvas, season: Season, relief: F32, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture (4, H, W) uint8: shadows, relief shading, haze and gain, blur, noise; DN 1..255 (0 is no data)."""
    dark = cast_shadows(canvas.height, season, canvas.gsd)
    dark *= np.where(canvas.classes == TREE, np.float32(CANOPY_SHADE), np.float32(1))
    sx, sy = season.towards_sun
    gy, gx = np.gradient(relief, canvas.gsd)
    slope = np.clip(1 - 3.2 * (gx * sx + gy * sy), 0.8, 1.2).astype(np.float32)
    out = np.empty(canvas.image.shape, np.uint8)
    sigma = season.psf / canvas.gsd
    common = rng.standard_normal(dark.shape, dtype=np.float32)
    for band in range(4):
        light = slope * (1 - dark * (1 - season.shade[band]))
        dn = canvas.image[band] * light * season.gain[band] + season.offset[band]
        dn = gaussian_filter(dn, sigma, mode="nearest", truncate=3.0)
        own = rng.standard_normal(dn.shape, dtype=np.float32)
        dn += np.float32(season.noise) * np.sqrt(np.maximum(dn, 8) / 120) * (0.6 * common + 0.8 * own)
        # A film-like shoulder keeps white roofs from clipping in one flat value.
        dn = np.where(dn > 200, 200 + 50 * np.tanh((dn - 200) / 50), dn)
        out[band] = np.clip(np.rint(dn), 1, 255).astype(np.uint8)
    return out
