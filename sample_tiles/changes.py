"""What happens between the two dates: how many parcels change, which, and where a new road is driven."""

from __future__ import annotations

import numpy as np

from geo_refdiff.sample_tiles.landcover import Edge, Use
from geo_refdiff.sample_tiles.parcels import Parcel
from geo_refdiff.sample_tiles.planning import BECOMES, change, new_road

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
