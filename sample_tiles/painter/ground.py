"""The ground of every parcel at one date: crops in rows with tramlines and headlands, grass, soil, gravel, paving."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.classes import BARE, BUILT, LOW, WATER
from sample_tiles.painter.canvas import Canvas
from sample_tiles.painter.landcover import Edge, Use
from sample_tiles.painter.parcels import Parcel, Survey
from sample_tiles.painter.planning import Character
from sample_tiles.painter.spectra import Season, spectrum
from sample_tiles.painter.texture import F32, fractal, smooth_field

CROP_STAGES: tuple[tuple[str, str, float, float, float], ...] = (
    # vegetation, what shows between it, cover, strength of the rows, strength of patches
    ("corn", "soil", 0.95, 0.05, 0.10),
    ("corn", "soil", 0.55, 0.28, 0.25),
    ("wheat", "soil", 0.92, 0.06, 0.14),
    ("wheat", "soil", 0.45, 0.20, 0.22),
    ("ripe wheat", "soil", 0.95, 0.06, 0.10),
    ("rape", "soil", 0.90, 0.08, 0.16),
    ("beet", "soil", 0.75, 0.22, 0.20),
    ("straw", "soil", 0.75, 0.22, 0.15),
    ("residue", "soil", 0.55, 0.22, 0.20),
    ("residue", "soil", 0.10, 0.12, 0.12),
    ("grass", "soil", 0.60, 0.12, 0.30),
)


@dataclass
class Fields:
    """Random fields (H, W) shared by both dates, about unit variance."""

    relief: F32
    soil: F32
    patches: F32
    clumps: F32
    grain: F32
    blades: F32


def draw_fields(rng: np.random.Generator, shape: tuple[int, int], gsd: float) -> Fields:
    """Draw the fields at wavelengths in metres."""

    def at(*metres: float) -> tuple[float, ...]:
        return tuple(m / gsd for m in metres)

    relief = fractal(rng, shape, at(260, 120, 60), 0.55)
    soil = fractal(rng, shape, at(70, 34, 15, 7), 0.65)
    return Fields(
        relief=relief,
        soil=soil,
        patches=fractal(rng, shape, at(45, 20, 9), 0.7),
        clumps=fractal(rng, shape, at(6, 3), 0.8),
        grain=fractal(rng, shape, at(2.2, 1.2), 0.8),
        blades=smooth_field(rng, shape, 1.0),
    )


@dataclass(frozen=True)
class Land:
    """What both dates share.

    Attributes:
        survey: of the pixels.
        leaves: all parcels.
        uv: plan metres of the pixels, (H, W) each.
        fields: random ones.
        char: of the landscape.
        gsd: metres a pixel.
    """

    survey: Survey
    leaves: list[Parcel]
    uv: tuple[F32, F32]
    fields: Fields
    char: Character
    gsd: float


@dataclass
class _Looks:
    """Lookup tables over leaves; index = leaf number."""

    veg: F32
    base: F32
    cover: F32
    rows: F32
    patch: F32
    tram: F32
    rough: F32
    pitch: F32
    stain: F32
    land: NDArray[np.uint8]

    @classmethod
    def blank(cls, n: int) -> _Looks:
        cover, rows, patch, tram, rough, pitch, stain = (np.zeros(n, np.float32) for _ in range(7))
        veg, base = (np.zeros((4, n), np.float32) for _ in range(2))
        return cls(veg, base, cover, rows, patch, tram, rough, pitch, stain, np.full(n, LOW, np.uint8))


def _crop(rng: np.random.Generator) -> tuple[str, str, float, float, float]:
    return CROP_STAGES[int(rng.integers(len(CROP_STAGES)))]


def _looks(leaves: list[Parcel], date: int, season: Season, soils: tuple[str, ...]) -> _Looks:
    out = _Looks.blank(len(leaves))
    for i, leaf in enumerate(leaves):
        use = leaf.uses[date]
        rng = np.random.default_rng([leaf.style, date])
        own = np.random.default_rng([leaf.style, 7])
        soil = spectrum(soils[int(own.integers(len(soils)))]) * np.float32(own.uniform(0.88, 1.1))
        wet = np.float32(rng.uniform(0.82, 1.08))
        lush = float(own.normal(0, 0.45))
        veg, base = season.grass(lush), soil * wet
        cover, rows, patch, tram, rough, land, stain = 0.9, 0.0, 0.12, 0.0, 6.0, LOW, 1.0
        pitch = float(own.uniform(1.8, 4.5))
        if use == Use.CROP:
            name, _, cover, rows, patch = _crop(rng)
            patch *= 0.7
            veg = spectrum(name)
            tram = float(own.choice([0.0, 18.0, 21.0, 24.0, 27.0]))
            rough = 4.0 if cover > 0.8 else 6.0
        elif use in (Use.MEADOW, Use.POND):
            cover, patch, rough = 0.93, 0.2, 6.0
            if rng.random() < 0.4:
                rows, pitch = 0.22, float(own.uniform(3, 7))
        elif use in (Use.FOREST, Use.CONIFER):
            veg, cover, patch, rough = spectrum("forest floor"), 0.8, 0.3, 7.0
        elif use == Use.CLEARCUT:
            veg, cover, patch, rough, rows = season.grass(lush - 0.5), 0.45, 0.5, 15.0, 0.12
            base, land = spectrum("brown soil") * np.float32(0.95), BARE
        elif use == Use.ORCHARD:
            cover, patch = 0.7, 0.25
        elif use == Use.LOTS:
            cover, patch = 0.85, 0.25
        elif use == Use.INDUSTRY:
            names = ("asphalt", "pale asphalt", "dark asphalt", "concrete", "asphalt")
            base, cover, land, rough = spectrum(names[int(own.integers(len(names)))]), 0.0, BUILT, 3.0
            stain, rows, pitch = 0.3, 0.01, 6.0
        elif use == Use.FARMYARD:
            base, cover, patch, land, rough = spectrum("gravel"), 0.25, 0.5, BARE, 6.0
        elif use == Use.GRAVEL:
            base = spectrum(str(own.choice(["gravel", "sand", "pale soil", "brown soil"])))
            cover, patch, land, rough = 0.10, 0.28, BARE, 7.0
        elif use == Use.SCRUB:
            base = spectrum(str(own.choice(["pale soil", "sand", "brown soil"]))) * np.float32(0.95)
            veg, cover, patch, rough, land = spectrum("scrub"), 0.4, 0.45, 8.0, BARE
        jitter = rng.normal(1, 0.035, 4).astype(np.float32) * np.float32(rng.normal(1, 0.06))
        out.veg[:, i], out.base[:, i] = veg * jitter, base
        out.cover[i], out.rows[i], out.patch[i], out.tram[i] = cover, rows, patch, tram
        out.rough[i], out.pitch[i], out.land[i], out.stain[i] = rough, pitch, land, stain
    return out


def paint_ground(canvas: Canvas, land: Land, season: Season, soils: tuple[str, ...], date: int) -> None:
    """Fill the canvas with the ground of each pixel's parcel."""
    survey, leaves, uv, fields = land.survey, land.leaves, land.uv, land.fields
    looks = _looks(leaves, date, season, soils)
    leaf = survey.leaf
    angle = np.array([p.angle for p in leaves], np.float32)
    phase = np.array([p.style % 977 for p in leaves], np.float32)
    across = uv[1] * np.cos(angle)[leaf] - uv[0] * np.sin(angle)[leaf]
    rows = looks.rows[leaf]
    tilled = (rows > 0.01) | (looks.tram[leaf] > 0)
    headland = tilled & (survey.edge[date] < 9)
    across = np.where(headland, survey.edge[date] + 3, across)
    table = np.random.default_rng(91 + date).standard_normal(4096).astype(np.float32)
    at = across / looks.pitch[leaf] + phase[leaf] + 500
    cell = np.floor(at).astype(np.int32)
    f = (at - cell).astype(np.float32)
    stripe = table[cell & 4095] * (1 - f) + table[(cell + 1) & 4095] * f
    stripe += 0.7 * table[(cell // 5 + 2048) & 4095]
    mix = looks.cover[leaf] + looks.patch[leaf] * (0.8 * fields.patches - 0.35 * fields.relief + 0.35 * fields.clumps)
    mix += 1.3 * rows * stripe * (1 + 0.3 * fields.clumps)
    tram = looks.tram[leaf]
    lines = np.abs(np.mod(across + phase[leaf], np.maximum(tram, 1.0)) - 2.5)
    track = np.clip(1.35 - np.abs(lines - 1.0) / 0.55, 0, 1) * (tram > 0) * (looks.cover[leaf] > 0.3)
    mix -= 0.38 * track
    mix = np.clip(mix, 0, 1).astype(np.float32)
    knolls = np.clip(fields.relief + 0.35 * fields.patches - 0.9, 0, 1)
    tone = 1 + looks.stain[leaf] * (0.07 * fields.soil + 0.03 * fields.relief + 0.22 * knolls)
    texture = looks.rough[leaf] * (0.55 * fields.grain + 0.4 * fields.clumps + 0.35 * fields.blades)
    light = 1 + 0.028 * np.clip(stripe, -2, 2) * tilled
    for band in range(4):
        soil = looks.base[band][leaf] * tone
        canvas.image[band] = (soil + mix * (looks.veg[band][leaf] - soil)) * light + texture
    canvas.classes[:] = looks.land[leaf]
    _paint_margins(canvas, land, season, date)


def _paint_margins(canvas: Canvas, land: Land, season: Season, date: int) -> None:
    """Grass strips along field edges, verges along lanes, pavements along streets."""
    survey, fields = land.survey, land.fields
    edge, kind = survey.edge[date], survey.edge_kind[date]
    width = np.array([0, 0.9, 2.2, 1.2, 2.5, 1.3, 3.0], np.float32)[kind] * (1 + 0.35 * fields.patches)
    strip = np.clip((width - edge) / canvas.gsd + 0.5, 0, 1) * (kind > 0)
    green = season.grass(-0.25)[:, None, None] * (1 + 0.07 * fields.clumps)[None]
    rural = strip * (kind != Edge.STREET)
    canvas.cover(rural.astype(np.float32), green, None)
    canvas.classes[(rural >= 0.5)] = LOW
    urban = strip * (kind == Edge.STREET)
    if urban.any():
        canvas.cover((0.8 * urban).astype(np.float32), spectrum("concrete") * np.float32(0.88), BUILT)


def paint_roads(canvas: Canvas, land: Land, date: int) -> None:
    """Carriageways: worn wheel tracks, lane markings on the main road, pale dirt on tracks with a green middle."""
    survey, fields = land.survey, land.fields
    distance, kind, along = survey.road[date], survey.road_kind[date], survey.along[date]
    on = np.clip(0.5 - distance / canvas.gsd, 0, 1)
    if not on.any():
        return
    half = np.array([0, 0, 0, 1.6, 2.6, 3.9, 5.6], np.float32)[kind]
    centre = distance + half
    grain = 1 + 0.018 * fields.grain + 0.02 * fields.soil
    grain += 0.035 * np.cos(centre * np.float32(2 * np.pi / 1.9)) - 0.10 * (fields.clumps > 1.9)
    for edge, name in (
        (Edge.TRACK, "sand"),
        (Edge.LANE, "pale asphalt"),
        (Edge.STREET, "asphalt"),
        (Edge.MAIN, "asphalt"),
    ):
        alpha = (on * (kind == edge)).astype(np.float32)
        if not alpha.any():
            continue
        surface = spectrum(name)[:, None, None] * grain[None]
        if edge == Edge.TRACK:
            surface = surface * (0.86 + 0.05 * fields.soil)
            alpha = alpha * np.clip(0.55 + 0.5 * np.abs(centre) + 0.2 * fields.clumps, 0.35, 1).astype(np.float32)
        canvas.cover(alpha, surface.astype(np.float32), BARE if edge == Edge.TRACK else BUILT)
        if edge == Edge.TRACK:
            canvas.classes[(on >= 0.5) & (kind == edge)] = BARE
        if edge == Edge.MAIN:
            dash = (np.mod(along, 12.0) < 5.0) | (np.mod(along, 400.0) < 60)
            middle = np.clip((0.35 - centre) / canvas.gsd + 0.5, 0, 1) * dash * 0.75
            rim = np.clip((0.30 - np.abs(distance + 0.55)) / canvas.gsd + 0.5, 0, 1) * 0.55
            marks = (np.maximum(middle, rim) * (kind == edge) * (distance < 0)).astype(np.float32)
            canvas.cover(marks, spectrum("paint"), None)


def paint_water(canvas: Canvas, signed: F32, name: str, fields: Fields, bank: float, beach: F32 | None = None) -> None:
    """Water where `signed` metres to the shore is negative: darker with depth, a wet bank of `bank` metres outside."""
    shore = signed + 1.2 * fields.clumps
    if beach is not None:
        wet = np.clip((bank - shore) / max(bank, canvas.gsd), 0, 1) * (shore < bank)
        canvas.cover((0.85 * wet).astype(np.float32), beach, None)
        canvas.classes[(shore < 0.6 * bank)] = BARE
    depth = np.clip(-shore / 9.0, 0, 1)
    tone = 1.28 - 0.34 * depth + 0.025 * fields.patches
    colour = spectrum(name)[:, None, None] * tone[None].astype(np.float32)
    colour = colour + (1.1 * fields.grain).astype(np.float32)
    canvas.cover(np.clip(0.5 - shore / (1.5 * canvas.gsd), 0, 1).astype(np.float32), colour, WATER)


def paint_solar(canvas: Canvas, land: Land, shore: F32, date: int) -> None:
    """Paint the module rows of each solar park at `date`, 5 m clear of any `shore`; they stand 1.6 m high."""
    survey, uv = land.survey, land.uv
    for leaf in land.leaves:
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
