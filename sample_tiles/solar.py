"""Solar parks: tilted rows of dark modules on a meadow."""

from __future__ import annotations

import numpy as np

from geo_refdiff.sample_tiles.canvas import Canvas
from geo_refdiff.sample_tiles.landcover import BUILT, Use
from geo_refdiff.sample_tiles.parcels import Parcel, Survey
from geo_refdiff.sample_tiles.spectra import spectrum
from geo_refdiff.sample_tiles.texture import F32


def paint_solar(
    canvas: Canvas, survey: Survey, leaves: list[Parcel], uv: tuple[F32, F32], shore: F32, date: int
) -> None:
    """Paint the module rows of each solar park at `date`, 5 m clear of any `shore`; they stand 1.6 m high."""
    for leaf in leaves:
        if leaf.uses[date] != Use.SOLAR:
            continue
        where = survey.leaf == leaf.index
        if not where.any():
            continue
        c, s = np.float32(np.cos(leaf.angle)), np.float32(np.sin(leaf.angle))
        along, across = uv[0] * c + uv[1] * s, uv[1] * c - uv[0] * s
        pitch, width, table = np.float32(7.2), np.float32(3.6), np.float32(26.0)
        row = np.abs(np.mod(across, pitch) - pitch / 2)
        gap = np.abs(np.mod(along, table) - table / 2)
        alpha = np.clip((width / 2 - row) / canvas.gsd + 0.5, 0, 1)
        alpha *= np.clip((table / 2 - 1.0 - gap) / canvas.gsd + 0.5, 0, 1)
        alpha *= where & (survey.edge[date] > 7) & (shore > 5)
        tilt = (np.mod(across, pitch) - pitch / 2) / width
        colour = spectrum("panel")[:, None, None] * (1 + 0.12 * tilt)[None]
        canvas.cover(alpha.astype(np.float32), colour.astype(np.float32), BUILT)
        canvas.height[alpha > 0.5] = 1.6
