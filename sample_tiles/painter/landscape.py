"""A deterministic landscape at two dates: `render_pair` is the whole of the painter's face.

Everything is computed, nothing is copied: parcels by repeated cutting (parcels, planning), their ground (ground),
buildings (settlement, buildings), trees (planting, trees), sun, shadows and camera (spectra, light). One seed gives
one landscape, whatever machine it is drawn on (but for the last bit of the processor's sine).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.errors import OptionError
from sample_tiles.painter.buildings import Built, paint_building, paint_slab
from sample_tiles.painter.canvas import Canvas
from sample_tiles.painter.ground import Land, draw_fields, paint_ground, paint_roads, paint_solar, paint_water
from sample_tiles.painter.landcover import Edge, Use
from sample_tiles.painter.light import expose
from sample_tiles.painter.parcels import Parcel, survey
from sample_tiles.painter.planning import Character, Wanted, alter, draw_character, lay_out
from sample_tiles.painter.planting import plant
from sample_tiles.painter.settlement import settle
from sample_tiles.painter.spectra import Season, draw_season, spectrum
from sample_tiles.painter.texture import F32, Warp, smooth_field
from sample_tiles.painter.trees import Grove, paint_trees
from sample_tiles.painter.water import Waters, draw_waters

U8 = NDArray[np.uint8]
MARGIN = 14.0
"""Metres drawn beyond the border, so that shadows and blur come in from outside."""
SOILS = ("brown soil", "dark soil", "pale soil", "red soil")


@dataclass(frozen=True)
class LandscapePair:
    """One place at two dates.

    old, new: uint8 (4, H, W) red, green, blue, near infrared, DN 1..255.
    old_classes, new_classes: uint8 (H, W) land cover, see `geo_refdiff.classes`.
    mask: uint8 (H, W) change class: 0 = no change, otherwise the land cover that the pixel has now.
    """

    old: U8
    new: U8
    old_classes: U8
    new_classes: U8
    mask: U8
    seed: int
    gsd: float


def render_pair(
    seed: int, shape: tuple[int, int], gsd: float = 1.0, *, theme: str | None = None, changes: Wanted = ()
) -> LandscapePair:
    """Draw the landscape of `seed` on (H, W) pixels of `gsd` metres at two dates.

    `theme` fixes the mix of zones (`planning.THEMES`), `changes` what becomes of some parcels; by default the seed
    draws both. Raises OptionError for a shape below 16 x 16 or a GSD outside 0.3..4 m.
    """
    if min(shape) < 16:
        raise OptionError(f"a landscape needs at least 16 x 16 pixels, not {shape[0]} x {shape[1]}; ask for more")
    if not 0.3 <= gsd <= 4:
        raise OptionError(f"a landscape of GSD {gsd} m is not drawn; ask for 0.3 to 4 m")
    margin = int(np.ceil(MARGIN / gsd))
    full = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    rng = np.random.default_rng([seed, 20])
    char = draw_character(rng, theme)
    warp = Warp.random(rng, float(rng.uniform(0.2, 1.0)))
    root = _root(rng, warp, full, gsd, char)
    alter(root, rng, full[0] * full[1] * gsd * gsd, changes)
    y, x = np.mgrid[: full[0], : full[1]]
    u, v = warp.forward((x + 0.5) * gsd, (y + 0.5) * gsd)
    marks = survey(root, u, v)
    leaves, uv = list(root.leaves()), (u.astype(np.float32), v.astype(np.float32))
    land = Land(marks, leaves, uv, draw_fields(rng, full, gsd), char, gsd)
    waters = draw_waters(rng, leaves, warp, full, gsd, char)
    seen = [leaves[int(i)] for i in np.unique(marks.leaf)]
    built = settle(seen, warp, char).on_land(waters.shore, gsd)
    grove = plant(rng, land, warp, built, waters.shore)
    lumps = (0.75 * smooth_field(rng, full, 2.4 / gsd), 0.75 * smooth_field(rng, full, 2.4 / gsd))
    soils = tuple(str(s) for s in rng.choice(SOILS, 2, p=[0.45, 0.2, 0.2, 0.15]))
    scene = _Scene(land, waters, built, grove, lumps, soils)
    inner = (slice(margin, margin + shape[0]), slice(margin, margin + shape[1]))
    sky = np.random.default_rng([seed, 21])
    first = draw_season(sky, char.dry)
    second = draw_season(sky, char.dry, first)
    images, covers = [], []
    for date, season in enumerate((first, second)):
        canvas = Canvas.blank(full, gsd)
        _draw(canvas, scene, season, date)
        shot = np.random.default_rng([seed, 30 + date])
        images.append(expose(canvas, season, land.fields.relief, shot)[:, inner[0], inner[1]].copy())
        covers.append(canvas.classes[inner].copy())
    mask = np.where(covers[0] != covers[1], covers[1], 0).astype(np.uint8)
    return LandscapePair(images[0], images[1], covers[0], covers[1], mask, seed, gsd)


@dataclass(frozen=True)
class _Scene:
    land: Land
    waters: Waters
    built: Built
    grove: Grove
    lumps: tuple[F32, F32]
    soils: tuple[str, ...]


def _root(rng: np.random.Generator, warp: Warp, full: tuple[int, int], gsd: float, char: Character) -> Parcel:
    """The uncut plan: a rectangle in plan metres that holds the canvas with room to spare."""
    rows, cols = full[0] * gsd, full[1] * gsd
    rim = np.linspace(0, 1, 9)
    xs = np.concatenate([rim * cols, rim * cols, 0 * rim, 0 * rim + cols])
    ys = np.concatenate([0 * rim, 0 * rim + rows, rim * rows, rim * rows])
    u, v = warp.forward(xs, ys)
    spare = rng.uniform(15, 140, 4)
    u0, u1, v0, v1 = u.min() - spare[0], u.max() + spare[1], v.min() - spare[2], v.max() + spare[3]
    corners = np.array([[u0, v0], [u1, v0], [u1, v1], [u0, v1]])
    root = Parcel(corners, (Use.MEADOW, Use.MEADOW), int(rng.integers(1 << 31)))
    lay_out(root, rng, char, float(rng.uniform(190, 300)))
    return root


def _draw(canvas: Canvas, scene: _Scene, season: Season, date: int) -> None:
    """Paint one date, from the ground up."""
    land, fields = scene.land, scene.land.fields
    paint_ground(canvas, land, season, scene.soils, date)
    for slab in scene.built.slabs:
        if slab.dates[date]:
            paint_slab(canvas, slab, season, fields.clumps)
    for water in scene.waters.bodies:
        if water.dates[date]:
            beach = spectrum("pale soil") * np.float32(0.9) if water.raw else season.grass(-0.4)
            paint_water(canvas, water.signed, water.name, fields, water.bank, beach)
    paint_solar(canvas, land, scene.waters.shore[date], date)
    paint_roads(canvas, land, date)
    for car in scene.built.cars:
        if car.dates[date]:
            paint_slab(canvas, car, season, fields.grain)
    for building in scene.built.buildings:
        if building.dates[date]:
            paint_building(canvas, building, season, fields.clumps)
    paint_trees(canvas, scene.grove, season, date, scene.lumps, fields.grain)


__all__ = ["Edge", "LandscapePair", "render_pair"]
