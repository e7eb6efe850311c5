"""The land-cover classes that data sets, masks and bundled models share, and what others call and colour them.

In a land-cover raster a value says what covers the pixel. In a change mask 0 says "no change", any other value says
what covers the pixel NOW. A swimming pool is water; arable land is low vegetation at every stage, ploughed or not;
gravel, sand, dirt tracks and building sites are bare ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NO_CHANGE: Final = 0
WATER: Final = 1
BARE: Final = 2
LOW: Final = 3
TREE: Final = 4
BUILT: Final = 5

UNKNOWN_CLASS: Final = 255
"""Mask value: whether this pixel changed, or to what, is not known."""

CLASSES: Final[tuple[str, ...]] = ("no change", "water", "bare ground", "low vegetation", "tree", "built-up")
"""Names by index."""

COLOURS: Final = ((0, 0, 0), (40, 110, 220), (205, 170, 120), (150, 205, 90), (20, 110, 50), (215, 50, 50))
"""Red, green, blue of each class, 0..255."""

CLASS_MAP: dict[str, int] = {
    "no change": NO_CHANGE,
    "unchanged": NO_CHANGE,
    "background": NO_CHANGE,
    "water": WATER,
    "water bodies": WATER,
    "non-vegetated ground": BARE,
    "non-vegetated ground surface": BARE,
    "n.v.g. surface": BARE,
    "ground": BARE,
    "bare ground": BARE,
    "bare land": BARE,
    "bareland": BARE,
    "soil": BARE,
    "low vegetation": LOW,
    "vegetation": LOW,
    "grass": LOW,
    "tree": TREE,
    "trees": TREE,
    "forest": TREE,
    "building": BUILT,
    "buildings": BUILT,
    "built-up": BUILT,
    "impervious": BUILT,
    "impervious surface": BUILT,
    "playground": BUILT,
    "playgrounds": BUILT,
    "road": BUILT,
    "others": UNKNOWN_CLASS,
    "other": UNKNOWN_CLASS,
    "unknown": UNKNOWN_CLASS,
}
"""Class names of other data sets (lower case) -> index in CLASSES; 255: changed to what has no class here."""

SECOND_COLOURS: dict[tuple[int, int, int], str] = {
    (255, 255, 255): "unchanged",
    (0, 0, 255): "water",
    (128, 128, 128): "non-vegetated ground",
    (0, 128, 0): "low vegetation",
    (0, 255, 0): "tree",
    (128, 0, 0): "building",
    (255, 0, 0): "playground",
}
"""Label colours of the data set SECOND (Yang et al. 2020), red, green, blue."""


def class_index(name: str, classes: Sequence[str]) -> int | None:
    """What a class is called -> its index among a model's classes, 255 for "unknown"; None: no such class.

    Args:
        name: one of `classes` or of the names in CLASS_MAP, in any case, or a number: an index or 255.
        classes: the model's class names; empty: any index from 0 to 254 will do. Of those that mean the same
            (CLASS_MAP) the first counts.
    """
    text = name.strip().casefold()
    if text.isdecimal():
        index = int(text)
        return index if index < (len(classes) or UNKNOWN_CLASS) or index == UNKNOWN_CLASS else None
    own = [c.strip().casefold() for c in classes]
    if text in own:
        return own.index(text)
    shared = CLASS_MAP.get(text)
    if shared in (None, UNKNOWN_CLASS, NO_CHANGE):
        return shared
    return next((index for index, c in enumerate(own) if CLASS_MAP.get(c) == shared), None)
