"""Which trees grow where: woods, orchards, hedges, banks, meadows, gardens, and those felled between the dates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sample_tiles.painter.buildings import Built
from sample_tiles.painter.ground import Land
from sample_tiles.painter.landcover import Edge, Use
from sample_tiles.painter.texture import F32, Warp
from sample_tiles.painter.trees import KINDS, Grove, grow

Bools = NDArray[np.bool_]

DENSITY: dict[Use, float] = {
    Use.FOREST: 0.97, Use.CONIFER: 0.97, Use.MEADOW: 0.004, Use.SCRUB: 0.10, Use.CLEARCUT: 0.02,
    Use.PARK: 0.0, Use.FARMYARD: 0.01, Use.GRAVEL: 0.002, Use.POND: 0.01,
}  # fmt: skip
"""Chance of a tree at a place of the 4 m candidate grid."""


def _lattice(rng: np.random.Generator, size: tuple[float, float], step: float) -> tuple[F32, F32]:
    """A jittered grid of places over (height, width) metres: x, y of length n."""
    rows, cols = int(size[0] / step) + 1, int(size[1] / step) + 1
    y, x = np.mgrid[:rows, :cols].astype(np.float32)
    x = (x + 0.5 * (np.arange(rows)[:, None] % 2) + rng.uniform(-0.36, 0.36, x.shape)) * step
    y = (y + rng.uniform(-0.36, 0.36, y.shape)) * step
    return x.ravel().astype(np.float32), y.ravel().astype(np.float32)


def _lookup(x: F32, y: F32, shape: tuple[int, int], gsd: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    row = np.clip((y / gsd).astype(np.intp), 0, shape[0] - 1)
    col = np.clip((x / gsd).astype(np.intp), 0, shape[1] - 1)
    return row, col


def _wild(rng: np.random.Generator, land: Land, shore: list[F32]) -> Grove:
    survey, leaves, patches, gsd, char = land.survey, land.leaves, land.fields.patches, land.gsd, land.char
    shape = survey.leaf.shape
    step = 3.9
    x, y = _lattice(rng, (shape[0] * gsd, shape[1] * gsd), step)
    at = _lookup(x, y, (shape[0], shape[1]), gsd)
    leaf = survey.leaf[at]
    draw, lots = rng.random(len(x)), rng.random(len(x))
    clump = patches[at]
    alive = np.zeros((len(x), 2), np.bool_)
    woods = np.zeros(len(x), np.bool_)
    riverside = (np.abs(np.maximum(shore[0][at], shore[1][at]) - 7.0) < 4.5) & (
        np.abs(shore[0][at] - shore[1][at]) < 0.1
    )
    for date in (0, 1):
        chance = np.array([DENSITY.get(p.uses[date], 0.0) for p in leaves], np.float32)[leaf]
        wood = chance > 0.9
        woods |= wood
        chance = np.where(wood, chance - 0.25 * (clump < -1.3), chance * np.clip(1 + 1.2 * clump, 0, 4))
        clear = np.where(wood, 1.6, 3.0)
        here = (draw < chance) & (survey.edge[date][at] > 0.6) & (survey.road[date][at] > clear)
        hedge = (survey.edge_kind[date][at] == Edge.HEDGE) & (survey.edge[date][at] < 2.3) & (draw < 0.80)
        verge = (survey.road_kind[date][at] >= Edge.LANE) & (np.abs(survey.road[date][at] - 3.6) < 1.4)
        verge &= (draw < 0.10 + 0.25 * (clump > 0.8)) & (survey.road_kind[date][at] != Edge.STREET)
        bank = riverside & (draw < 0.25 + 0.35 * np.clip(clump, -1, 1)) & (survey.road[date][at] > 2)
        alive[:, date] = (here | hedge | verge | bank) & (shore[date][at] > 2.5)
    style = np.array([p.style % 5 for p in leaves])[leaf]
    conifer = np.array([p.uses[0] == Use.CONIFER or p.uses[1] == Use.CONIFER for p in leaves])[leaf]
    kind = np.where(lots < 0.35, KINDS.index("dark broadleaf"), KINDS.index("broadleaf"))
    kind = np.where((lots > 0.9 - 0.25 * (style == 1)) & woods, KINDS.index("conifer"), kind)
    kind = np.where(conifer & (lots < 0.92), KINDS.index("conifer"), kind)
    kind = np.where(lots < 0.55 * char.dry, KINDS.index("olive"), kind)
    keep = alive.any(axis=1)
    grove = grow(rng, x[keep], y[keep], kind[keep].astype(np.int8), (2.75, 0.32), alive[keep])
    grove.radius *= np.where(woods[keep], 1.1, 0.85).astype(np.float32) * (1 + 0.12 * np.clip(clump[keep], -1.5, 1.5))
    small = np.array([p.uses[1] == Use.SCRUB for p in leaves])[leaf][keep]
    grove.radius[small] *= 0.5
    grove.height[small] *= 0.45
    lone = rng.random(len(grove.x)) < 0.012
    grove.alive[lone & ~woods[keep], int(rng.integers(2))] = False
    return grove


def _orchards(rng: np.random.Generator, land: Land, warp: Warp) -> list[Grove]:
    out: list[Grove] = []
    survey, gsd = land.survey, land.gsd
    shape = (survey.leaf.shape[0], survey.leaf.shape[1])
    for leaf in land.leaves:
        if Use.ORCHARD not in leaf.uses or not (survey.leaf == leaf.index).any():
            continue
        own = np.random.default_rng([leaf.style, 23])
        row_step = float(own.uniform(4.5, 7.5))
        step = float(row_step * own.uniform(0.55, 1.0))
        s0, s1, t0, t1 = leaf.extent(leaf.angle)
        s, t = np.meshgrid(np.arange(s0 + 3, s1 - 3, step), np.arange(t0 + 3, t1 - 3, row_step))
        s = s.ravel() + own.normal(0, 0.15, s.size)
        t = t.ravel() + own.normal(0, 0.15, t.size)
        c, sn = np.cos(leaf.angle), np.sin(leaf.angle)
        x, y = warp.inverse(s * c - t * sn, s * sn + t * c)
        keep = (x > 0) & (y > 0) & (x < shape[1] * gsd) & (y < shape[0] * gsd) & (own.random(len(x)) > 0.03)
        x, y = x[keep].astype(np.float32), y[keep].astype(np.float32)
        at = _lookup(x, y, shape, gsd)
        keep = survey.leaf[at] == leaf.index
        alive = np.zeros((len(x), 2), np.bool_)
        for date in (0, 1):
            alive[:, date] = (leaf.uses[date] == Use.ORCHARD) & (survey.edge[date][at] > 4.0)
        keep &= alive.any(axis=1)
        young = leaf.uses[0] != Use.ORCHARD
        radius = min(0.46 * row_step, 2.9) * float(own.uniform(0.55, 0.8) if young else own.uniform(0.7, 1.0))
        kind = "young tree" if young else str(own.choice(["broadleaf", "olive", "dark broadleaf"]))
        grove = grow(rng, x[keep], y[keep], kind, (radius, 0.10), alive[keep])
        grove.height *= np.float32(0.62)
        out.append(grove)
    return out


def plant(rng: np.random.Generator, land: Land, warp: Warp, built: Built, shore: list[F32]) -> Grove:
    """All trees of both dates."""
    survey, gsd, char = land.survey, land.gsd, land.char
    groves = [_wild(rng, land, shore), *_orchards(rng, land, warp)]
    if built.trees:
        table = np.array([(x, y, r, *d) for x, y, r, d in built.trees], np.float32)
        at = _lookup(table[:, 0], table[:, 1], (survey.leaf.shape[0], survey.leaf.shape[1]), gsd)
        clear = np.minimum(survey.road[0][at], survey.road[1][at]) > 1.0
        table = table[clear]
        lots = rng.random(len(table))
        kind = np.where(lots < 0.3, KINDS.index("dark broadleaf"), KINDS.index("broadleaf"))
        kind = np.where(lots > 0.9, KINDS.index("conifer"), kind)
        kind = np.where(lots < 0.3 * char.dry, KINDS.index("olive"), kind)
        garden = grow(rng, table[:, 0], table[:, 1], kind.astype(np.int8), (1.0, 0.0), table[:, 3:] > 0.5)
        garden.radius[:] = np.clip(table[:, 2], 0.8, 6.0)
        garden.height[:] = np.clip(1.7 * garden.radius + 1.5, 1.5, 14)
        felled = rng.random(len(table)) < 0.02
        garden.alive[felled & garden.alive.all(axis=1), int(rng.integers(2))] = False
        groves.append(garden)
    return Grove.join(groves)
