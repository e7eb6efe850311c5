"""The classes that data sets and bundled models share, and what other data sets call them."""

from __future__ import annotations

from geo_refdiff.change.taxonomy import BARE, BUILT, CLASS_MAP, CLASSES, LOW, NO_CHANGE, TREE, WATER
from geo_refdiff.diffusion.denoiser import UNKNOWN_CLASS

__all__ = ["BANDS", "BARE", "BUILT", "CLASSES", "CLASS_MAP", "LOW", "NO_CHANGE", "TREE", "UNKNOWN_CHANGE", "WATER"]

BANDS = ("red", "green", "blue", "nir")
"""Names of the bands of files that do not name them, in this order."""

UNKNOWN_CHANGE = UNKNOWN_CLASS
"""Mask value: whether this pixel changed is not known."""
