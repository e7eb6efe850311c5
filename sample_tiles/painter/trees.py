"""Trees: a crown is a lumpy dome (or a cone) in a z-buffer, lit from one side, so that woods close up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.classes import TREE
from sample_tiles.painter.canvas import Canvas
from sample_tiles.painter.spectra import Season, spectrum
from sample_tiles.painter.texture import F32

KINDS: Final = ("broadleaf", "dark broadleaf", "conifer", "olive", "young tree")


@dataclass
class Grove:
    """Trees as arrays of length n, metres on the map; `alive` is (n, 2) for the old and the new date."""

    x: F32
    y: F32
    radius: F32
    height: F32
    kind: NDArray[np.int8]
    """Index into KINDS."""
    tint: F32
    """About normal(0, 1): each tree's own shade."""
    alive: NDArray[np.bool_]

    @staticmethod
    def join(groves: list[Grove]) -> Grove:
        """All trees of several groves."""
        return Grove(*(np.concatenate([getattr(g, f) for g in groves]) for f in Grove.__dataclass_fields__))


def grow(
    rng: np.random.Generator,
    x: F32,
    y: F32,
    kind: str | NDArray[np.int8],
    radius: tuple[float, float],
    alive: NDArray[np.bool_] | None = None,
) -> Grove:
    """Trees at the given places with log-normal radii: `radius` = (median m, sigma of the log)."""
    n = len(x)
    r = radius[0] * np.exp(rng.normal(0, radius[1], n))
    kinds = np.full(n, KINDS.index(kind), np.int8) if isinstance(kind, str) else kind
    conifer = kinds == KINDS.index("conifer")
    r = np.where(conifer, 0.75 * r, r)
    tall = np.where(conifer, 4.2 * r + 3, 1.9 * r + 2.2) * np.exp(rng.normal(0, 0.12, n))
    return Grove(
        np.asarray(x, np.float32),
        np.asarray(y, np.float32),
        r.astype(np.float32),
        np.clip(tall, 1.2, 26).astype(np.float32),
        kinds,
        rng.standard_normal(n).astype(np.float32),
        np.ones((n, 2), np.bool_) if alive is None else alive,
    )


def _profile(kind: NDArray[np.int8], ratio: F32) -> F32:
    """Height of the crown's surface as a share of the tree's, at `ratio` = distance / radius (0..1)."""
    dome = 0.35 + 0.65 * np.sqrt(np.maximum(1 - ratio * ratio, 0))
    return np.where(kind == KINDS.index("conifer"), 1 - 0.8 * ratio, dome).astype(np.float32)


def _z_buffer(
    grove: Grove, which: NDArray[np.intp], shape: tuple[int, int], gsd: float, lumps: tuple[F32, F32]
) -> NDArray[np.int64]:
    """(height in cm) << 32 | tree number of the highest crown at each pixel, (H, W); 0 where there is none."""
    rows, cols = shape
    buffer = np.zeros(rows * cols, np.int64)
    reach = np.ceil(grove.radius[which] * 1.15 / gsd).astype(np.intp)
    lump_x, lump_y = lumps[0].ravel(), lumps[1].ravel()
    for size in np.unique(reach):
        ids = which[reach == size]
        offset = np.arange(-size, size + 1)
        col0, row0 = np.floor(grove.x[ids] / gsd).astype(np.intp), np.floor(grove.y[ids] / gsd).astype(np.intp)
        col, row = np.broadcast_arrays(
            col0[:, None, None] + offset[None, None, :], row0[:, None, None] + offset[None, :, None]
        )
        inside = (col >= 0) & (col < cols) & (row >= 0) & (row < rows)
        owner = np.broadcast_to(ids[:, None, None], col.shape)[inside]
        flat = (row * cols + col)[inside]
        dx = (col[inside] + np.float32(0.5)) * np.float32(gsd) - grove.x[owner] + lump_x[flat]
        dy = (row[inside] + np.float32(0.5)) * np.float32(gsd) - grove.y[owner] + lump_y[flat]
        ratio = (np.hypot(dx, dy) / grove.radius[owner]).astype(np.float32)
        hit = ratio < 1 + 0.5 * gsd / grove.radius[owner]
        owner, flat, ratio = owner[hit], flat[hit], ratio[hit]
        top = grove.height[owner] * _profile(grove.kind[owner], np.minimum(ratio, 1))
        np.maximum.at(buffer, flat, ((top * 100).astype(np.int64) << 32) | owner)
    return buffer.reshape(shape)


def paint_trees(canvas: Canvas, grove: Grove, season: Season, date: int, lumps: tuple[F32, F32], grain: F32) -> None:
    """Paint the crowns that are alive at `date` (0 old, 1 new): light, leaf clumps, class and height."""
    which = np.flatnonzero(grove.alive[:, date])
    if which.size == 0:
        return
    shape = canvas.height.shape
    buffer = _z_buffer(grove, which, shape, canvas.gsd, lumps)
    row, col = np.nonzero(buffer)
    if row.size == 0:
        return
    key = buffer[row, col]
    owner = (key & 0xFFFFFFFF).astype(np.intp)
    top = (key >> 32).astype(np.float32) / 100
    gsd = np.float32(canvas.gsd)
    r = grove.radius[owner]
    dx = (col + np.float32(0.5)) * gsd - grove.x[owner] + lumps[0][row, col]
    dy = (row + np.float32(0.5)) * gsd - grove.y[owner] + lumps[1][row, col]
    ratio = np.hypot(dx, dy) / r
    alpha = np.clip((1 - ratio) * r / gsd + 0.5, 0, 1)
    sx, sy = season.towards_sun
    lift = np.float32(np.tan(season.elevation))
    lean = 1 / np.sqrt(1 + 1.0 * np.minimum(ratio, 1) ** 2)
    side = (lift + (dx * np.float32(sx) + dy * np.float32(sy)) / r * np.float32(1.15)) * lean / lift
    light = 0.36 + 0.70 * np.clip(side, 0, 1.75)
    light *= 1 + 0.15 * grain[row, col]
    light *= 0.80 + 0.22 * np.clip(top / np.maximum(grove.height[owner], 0.1), 0, 1)
    palette = np.stack([spectrum(k) for k in KINDS])
    kind = grove.kind[owner]
    colour = palette[kind].T.copy()
    tint = grove.tint[owner]
    colour *= (1 + np.array([0.10, 0.07, 0.08, 0.08], np.float32)[:, None] * tint[None]).astype(np.float32)
    turned = season.autumn * np.clip(0.5 + 0.6 * tint, 0, 1) * (kind != KINDS.index("conifer"))
    colour += turned[None].astype(np.float32) * (spectrum("autumn")[:, None] - colour)
    colour *= light[None]
    under = canvas.image[:, row, col]
    canvas.image[:, row, col] = under + alpha[None] * (colour - under)
    solid = alpha >= 0.5
    canvas.classes[row[solid], col[solid]] = TREE
    ground = canvas.height[row, col]
    canvas.height[row, col] = np.maximum(ground, top * alpha)
