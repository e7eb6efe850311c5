"""Where two dates differ in land cover, by rules: pseudo-labels of change where no labels exist."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geo_refdiff.classes import BARE, BUILT, CLASSES, LOW, NO_CHANGE, TREE, WATER
from geo_refdiff.data.cover import F32, U8, Mask, Tone, edge_share, measure_tone, opened, shaded

REACH = 48
"""Pixels around a pixel that its label can depend on, beyond what its classes depend on."""

MIN_AREA = 32
"""Pixels; smaller changes are not told."""

_AROUND = 5
_FLOOR = 18.0
_FLOOR_WITHIN_GROUP = 30.0
_FLOOR_OF_CONTENT = 45.0
_MORE_EDGES, _TIMES_EDGES = 0.3, 2.5
_GROUPS = {WATER: 1, BARE: 2, BUILT: 2, LOW: 3, TREE: 3}
"""Classes that the rules confuse belong to one group."""


def change_mask(new: U8, ref: U8, new_classes: U8, ref_classes: U8, tone: Tone | None = None) -> U8:
    """Change between two matched dates.

    A pixel changed where all of this holds:

    - Its class now was nowhere in the 5 x 5 pixels around it before, nor its class before there now; and the pixels
      differ by at least 18 DN, by 30 DN where the two classes are often confused (bare ground and built-up, low
      vegetation and tree). Or the pixels differ by 45 DN, whatever the classes. Or bare ground and built-up have
      edges in 2.5 times, and in 30 % more, of the 21 x 21 pixels around at one of the dates: building sites.
    - Differences are those to the range of values in 5 x 5 pixels of the other date, both ways, so that a shift of
      up to 2 pixels and the lean of buildings do not count. They are absolute, so that a large change cannot hide.
    - Neither date lies in shadow there; dark water is none.
    - What is left holds squares of 4 pixels and has at least 32 pixels.

    Args:
        new, ref: (4, H, W) uint8 red, green, blue, nir, registered and in one radiometry.
        new_classes, ref_classes: (H, W) uint8, 1..5, 0 = not known.
        tone: of the new date; None = measured on `new`.

    Returns:
        (H, W) uint8: 0 no change, else the class now.
    """
    tone = tone or measure_tone([new])
    step = np.minimum(_beyond(_views(new), _views(ref)), _beyond(_views(ref), _views(new)))
    differ = _absent(new_classes, ref_classes) & _absent(ref_classes, new_classes)
    groups = np.zeros(len(CLASSES), np.uint8)
    groups[list(_GROUPS)] = list(_GROUPS.values())
    floor = np.where(groups[new_classes] == groups[ref_classes], _FLOOR_WITHIN_GROUP, _FLOOR)
    known = (new_classes != NO_CHANGE) & (ref_classes != NO_CHANGE)
    ground = (groups[new_classes] == _GROUPS[BUILT]) & (groups[ref_classes] == _GROUPS[BUILT])
    changed = known & ((differ & (step > floor)) | (step > _FLOOR_OF_CONTENT) | (ground & _built_over(new, ref)))
    changed &= ~(shaded(new, tone) & (new_classes != WATER) | shaded(ref, tone) & (ref_classes != WATER))
    changed = opened(changed, 4)
    labels, _ = ndimage.label(changed, np.ones((3, 3)))
    large = np.bincount(labels.ravel()) >= MIN_AREA
    large[0] = False
    return np.where(large[labels], new_classes, NO_CHANGE).astype(np.uint8)


def _built_over(new: U8, ref: U8) -> Mask:
    """Where one date has far more edges around than the other."""
    edges = [
        edge_share(ndimage.uniform_filter(image[:3].mean(axis=0, dtype=np.float32), 3), 21) for image in (new, ref)
    ]
    more, less = np.maximum(*edges), np.minimum(*edges)
    return np.asarray((more - less > _MORE_EDGES) & (more > _TIMES_EDGES * less))


def _views(image: U8) -> F32:
    """(3, H, W) float32: brightness, near infrared, red above blue; smoothed over 3 x 3 pixels."""
    red, green, blue, nir = image.astype(np.float32)
    views = np.stack([(red + green + blue) / 3.0, nir, red - blue])
    smooth: F32 = ndimage.uniform_filter(views, (0, 3, 3))
    return smooth


def _beyond(values: F32, others: F32) -> F32:
    """How far values lie outside the range that the other date has around them; the most of all views, (H, W)."""
    size = (1, _AROUND, _AROUND)
    above = values - ndimage.maximum_filter(others, size)
    below = ndimage.minimum_filter(others, size) - values
    beyond: F32 = np.maximum(above, below).max(axis=0)
    return beyond


def _absent(classes: U8, others: U8) -> Mask:
    """Where a pixel's class is nowhere around it at the other date."""
    absent: NDArray[np.bool_] = np.ones(classes.shape, np.bool_)
    for index in np.unique(classes):
        here = classes == index
        absent[here] = ~ndimage.maximum_filter(others == index, _AROUND)[here]
    return absent
