"""Where things are: zones, blocks, fields and their edges, and what becomes of them between the two dates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sample_tiles.painter.landcover import Edge, Use
from sample_tiles.painter.parcels import Parcel

THEMES: dict[str, dict[str, float]] = {
    "farmland": {"farm": 8, "forest": 1.5, "village": 1.2, "farmyard": 1, "orchard": 0.6},
    "suburb": {"village": 8, "park": 1.2, "industry": 1.0, "forest": 0.7, "farm": 0.8},
    "forest": {"forest": 6, "farm": 2, "village": 0.8, "scrub": 0.8},
    "industry": {"industry": 5, "village": 2, "farm": 1, "gravel": 1, "park": 0.6},
    "orchards": {"orchard": 4, "farm": 3, "village": 1, "farmyard": 1},
    "dryland": {"scrub": 5, "village": 2, "gravel": 1, "farm": 1, "orchard": 0.5},
    "valley": {"farm": 5, "village": 2.6, "forest": 2.4, "industry": 0.9, "orchard": 0.8, "farmyard": 0.6, "park": 0.5},
}
"""Weights of the zones of each theme."""

CROPLIKE = frozenset({Use.CROP, Use.MEADOW})


@dataclass(frozen=True)
class Character:
    """What a whole landscape has in common."""

    theme: str
    dry: float
    """Climate, 0 = temperate, 1 = semi-arid."""
    block: float
    """Depth of a housing block between two streets, metres."""
    field: float
    """Typical side of a field, metres."""
    hedges: float
    """Share of field edges that carry a hedge."""
    leafy: float
    """Trees in a garden."""


def draw_character(rng: np.random.Generator, theme: str | None = None) -> Character:
    """A random character; `theme` fixes the mix of zones."""
    names = [name for name in THEMES if name != "valley"]
    weights = np.array([3.0, 3.5, 1.6, 1.4, 0.9, 1.0])
    chosen = theme or str(rng.choice(names, p=weights / weights.sum()))
    dry = float(np.clip(rng.beta(1.2, 1.8) + (0.4 if chosen == "dryland" else 0.0), 0, 1))
    return Character(
        chosen,
        dry,
        block=float(rng.uniform(50, 70)),
        field=float(rng.uniform(75, 210)),
        hedges=float(rng.uniform(0.1, 0.6) * (1 - dry)),
        leafy=float(rng.uniform(2.0, 8.0) * (1 - 0.4 * dry)),
    )


def _style(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 31))


def _split(
    node: Parcel, rng: np.random.Generator, edges: tuple[Edge, Edge], jitter: float, slack: float = 0.14
) -> bool:
    """Cut a parcel across its longer side, `jitter` radians askew, within `slack` of the middle."""
    s0, s1, t0, t1 = node.extent(node.angle)
    turn = np.pi / 2 if (s1 - s0) >= (t1 - t0) else 0.0
    angle = node.angle + turn + float(rng.normal(0, jitter))
    _, _, low, high = node.extent(angle)
    done = node.cut(angle, low + (high - low) * float(rng.uniform(0.5 - slack, 0.5 + slack)), edges)
    if done and node.halves:
        for half in node.halves:
            half.style = _style(rng)
    return done


def _both(edge: Edge) -> tuple[Edge, Edge]:
    return (edge, edge)


def _farm(node: Parcel, rng: np.random.Generator, char: Character) -> None:
    target = (char.field * float(np.exp(rng.normal(0, 0.35)))) ** 2
    if node.area > 1.7 * target:
        draw = rng.random()
        if draw < char.hedges:
            edge = Edge.HEDGE
        elif draw < char.hedges + 0.16:
            edge = Edge.TRACK
        else:
            edge = Edge.MARGIN
        if _split(node, rng, _both(edge), 0.07) and node.halves:
            for half in node.halves:
                half.angle = node.angle + float(rng.normal(0, 0.03)) + (np.pi / 2 if rng.random() < 0.2 else 0)
                _farm(half, rng, char)
            return
    use = Use.CROP if rng.random() < 0.72 - 0.2 * char.dry else Use.MEADOW
    node.uses = (use, use)


def _village(node: Parcel, rng: np.random.Generator, char: Character) -> None:
    s0, s1, t0, t1 = node.extent(node.angle)
    short, long = sorted((s1 - s0, t1 - t0))
    large = short > 1.4 * char.block or long > 3.2 * char.block
    if large and _split(node, rng, _both(Edge.STREET), 0.03, 0.05):
        for half in node.halves or ():
            _village(half, rng, char)
        return
    if t1 - t0 > s1 - s0:
        node.angle += np.pi / 2
    draw = rng.random()
    use = Use.LOTS if draw < 0.9 else (Use.PARK if draw < 0.96 else Use.MEADOW)
    node.uses = (use, use)


def _stands(node: Parcel, rng: np.random.Generator, uses: tuple[tuple[Use, float], ...], size: float) -> None:
    """Cut into stands of one use each (woods, orchards, works), along tracks or with nothing between."""
    if node.area > 1.8 * size * size and _split(
        node, rng, _both(Edge.TRACK if rng.random() < 0.4 else Edge.NONE), 0.15
    ):
        for half in node.halves or ():
            half.angle = node.angle if rng.random() < 0.7 else node.angle + np.pi / 2
            _stands(half, rng, uses, size)
        return
    weights = np.array([w for _, w in uses])
    use = uses[int(rng.choice(len(uses), p=weights / weights.sum()))][0]
    node.uses = (use, use)


def _zone(node: Parcel, rng: np.random.Generator, char: Character) -> None:
    weights = THEMES[char.theme]
    names = list(weights)
    p = np.array(list(weights.values()))
    zone = names[int(rng.choice(len(names), p=p / p.sum()))]
    if zone == "farm":
        _farm(node, rng, char)
    elif zone == "village":
        _village(node, rng, char)
    elif zone == "forest":
        _stands(node, rng, ((Use.FOREST, 5), (Use.CONIFER, 2), (Use.CLEARCUT, 0.7)), 130)
    elif zone == "orchard":
        _stands(node, rng, ((Use.ORCHARD, 4), (Use.CROP, 1), (Use.MEADOW, 0.5)), 95)
    elif zone == "industry":
        _stands(node, rng, ((Use.INDUSTRY, 6), (Use.GRAVEL, 0.8), (Use.MEADOW, 0.7)), 105)
    elif zone == "scrub":
        _stands(node, rng, ((Use.SCRUB, 6), (Use.GRAVEL, 0.6)), 150)
    elif zone == "park":
        _stands(node, rng, ((Use.PARK, 1),), 120)
    else:
        use = Use.FARMYARD if zone == "farmyard" else Use.GRAVEL
        if node.area > 1.6 * 80 * 80 and _split(node, rng, _both(Edge.MARGIN), 0.05):
            near, far = node.halves or (node, node)
            _farm(near, rng, char)
            if far.area > 1.6 * 80 * 80 and _split(far, rng, _both(Edge.MARGIN), 0.05) and far.halves:
                _farm(far.halves[0], rng, char)
                far = far.halves[1]
            node = far
        node.uses = (use, use)


def lay_out(root: Parcel, rng: np.random.Generator, char: Character, zone_size: float) -> None:
    """Cut `root` into zones about `zone_size` metres across, joined by roads, and the zones into parcels."""

    def recurse(node: Parcel, depth: int) -> None:
        if node.area > 1.5 * zone_size**2:
            road = Edge.MAIN if depth == 0 else (Edge.LANE if rng.random() < 0.75 else Edge.TRACK)
            if depth and char.theme in ("suburb", "industry"):
                road = Edge.STREET
            if _split(node, rng, _both(road), 0.16) and node.halves:
                for half in node.halves:
                    half.angle += float(rng.normal(0, 0.12))
                    recurse(half, depth + 1)
                return
        _zone(node, rng, char)

    recurse(root, 0)


BECOMES: dict[Use, tuple[tuple[Use, float], ...]] = {
    Use.CROP: (
        (Use.LOTS, 5),
        (Use.POND, 2),
        (Use.ORCHARD, 1.5),
        (Use.SOLAR, 1.5),
        (Use.GRAVEL, 1.5),
        (Use.INDUSTRY, 2),
    ),
    Use.MEADOW: (
        (Use.LOTS, 5),
        (Use.POND, 2.5),
        (Use.SOLAR, 1),
        (Use.GRAVEL, 1.5),
        (Use.INDUSTRY, 2),
        (Use.FOREST, 0.3),
    ),
    Use.FOREST: ((Use.CLEARCUT, 4), (Use.GRAVEL, 1), (Use.LOTS, 1)),
    Use.CONIFER: ((Use.CLEARCUT, 4), (Use.GRAVEL, 0.7)),
    Use.ORCHARD: ((Use.CROP, 3), (Use.GRAVEL, 1), (Use.LOTS, 2)),
    Use.INDUSTRY: ((Use.MEADOW, 1), (Use.GRAVEL, 1)),
    Use.GRAVEL: ((Use.LOTS, 2), (Use.INDUSTRY, 3), (Use.MEADOW, 1)),
    Use.SCRUB: ((Use.LOTS, 3), (Use.GRAVEL, 2), (Use.INDUSTRY, 1), (Use.SOLAR, 1)),
    Use.FARMYARD: ((Use.GRAVEL, 1),),
    Use.PARK: ((Use.GRAVEL, 1), (Use.INDUSTRY, 1), (Use.LOTS, 1)),
}
"""What a parcel may turn into between the dates, with weights."""


def change(leaf: Parcel, rng: np.random.Generator, becomes: Use | None = None) -> bool:
    """Turn a leaf, or the part of it that a line cuts off, into another use at the new date; False if it cannot be."""
    options = BECOMES.get(leaf.uses[0])
    if options is None or leaf.uses[0] != leaf.uses[1]:
        return False
    p = np.array([w for _, w in options])
    use = becomes or options[int(rng.choice(len(options), p=p / p.sum()))][0]
    part = leaf
    for limit in (1.2e4, 0.9e4):
        if part.area < limit * 1.5:
            break
        s0, s1, t0, t1 = part.extent(part.angle)
        turn = np.pi / 2 if s1 - s0 > t1 - t0 else 0.0
        angle = part.angle + turn
        _, _, low, high = part.extent(angle)
        edge = Edge.STREET if use == Use.LOTS else (Edge.TRACK if use in (Use.SOLAR, Use.INDUSTRY) else Edge.NONE)
        if not part.cut(angle, low + (high - low) * float(rng.uniform(0.4, 0.6)), (Edge.NONE, edge)):
            break
        part = (part.halves or (part, part))[int(rng.integers(2))]
    part.uses = (part.uses[0], use)
    if use == Use.LOTS:
        s0, s1, t0, t1 = part.extent(part.angle)
        if t1 - t0 > s1 - s0 and leaf.uses[0] not in CROPLIKE:
            part.angle += np.pi / 2
    return True


def new_road(leaf: Parcel, rng: np.random.Generator) -> bool:
    """Drive a new lane through a leaf, both sides of which stay what they are; False if it is too small."""
    if leaf.area < 9000 or leaf.uses[0] not in CROPLIKE | {Use.FOREST, Use.SCRUB}:
        return False
    angle = leaf.angle + float(rng.choice([0.0, np.pi / 2])) + float(rng.normal(0, 0.25))
    _, _, low, high = leaf.extent(angle)
    return leaf.cut(angle, low + (high - low) * float(rng.uniform(0.4, 0.6)), (Edge.NONE, Edge.LANE))


Wanted = tuple[Use | Edge, ...]
"""Changes asked for by name: what some parcel becomes, or Edge.LANE for a new road."""


def alter(root: Parcel, rng: np.random.Generator, area: float, wanted: Wanted = ()) -> None:
    """Change about five parcels in ten hectares of a landscape of `area` square metres (one in six changes none).

    With `wanted`, these changes happen, in parcels near the middle, and no others but those of single houses and trees.
    """
    if wanted:
        _on_demand(root, rng, wanted)
        return
    if rng.random() < 0.16:
        return
    leaves = [leaf for leaf in root.leaves() if leaf.uses[0] != Use.LOTS]
    target = max(1, int(rng.poisson(4.5 * area / 1e5)))
    done = 0
    for i in rng.permutation(len(leaves)):
        if done >= target:
            break
        leaf = leaves[int(i)]
        if (rng.random() < 0.15 and new_road(leaf, rng)) or change(leaf, rng):
            done += 1


def _on_demand(root: Parcel, rng: np.random.Generator, wanted: Wanted) -> None:
    middle = root.polygon.mean(axis=0)
    reach = 0.36 * float(np.min(root.polygon.max(axis=0) - root.polygon.min(axis=0)))
    for wish in wanted:
        near = [
            leaf
            for leaf in root.leaves()
            if leaf.uses[0] == leaf.uses[1] and float(np.abs(leaf.polygon.mean(axis=0) - middle).max()) < reach
        ]
        for i in rng.permutation(len(near)):
            leaf = near[int(i)]
            if isinstance(wish, Edge):
                if new_road(leaf, rng):
                    break
            elif wish in (use for use, _ in BECOMES.get(leaf.uses[0], ())) and change(leaf, rng, wish):
                break
