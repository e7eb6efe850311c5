"""Pairs of dates held whole, as the first trainer draws from them; `train.datasets` is what they are made by."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from geo_refdiff.errors import InputError
from geo_refdiff.train.datasets.cover import land_cover
from geo_refdiff.train.datasets.generated import LandscapeDataset
from geo_refdiff.train.datasets.matching import match, moved


@dataclass(frozen=True, slots=True)
class Pair:
    """Two dates of one place on one grid, the reference registered and in the new date's radiometry.

    Attributes:
        name: "city/place old->new".
        new: (C, H, W) uint8, the truth.
        ref: (C, H, W) uint8, the old date.
        ref_valid: (H, W) bool, False where registration moved in pixels from outside.
        new_classes: (H, W) uint8 land cover of the new date, 1..5, 0 = not known.
        mask: (H, W) uint8 change class, 255 = no change known.
    """

    name: str
    new: NDArray[np.uint8]
    ref: NDArray[np.uint8]
    ref_valid: NDArray[np.bool_]
    new_classes: NDArray[np.uint8]
    mask: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.new.shape != self.ref.shape or self.new.shape[1:] != self.mask.shape:
            raise InputError(f"pair {self.name}: shapes {self.new.shape}, {self.ref.shape}, {self.mask.shape} differ")


def matched_pair(
    name: str, new: NDArray[np.uint8], old: NDArray[np.uint8], classes: NDArray[np.uint8], register: bool = True
) -> Pair:
    """A pair from two images on one grid: the old one shifted onto the new one (if asked), its radiometry fitted."""
    everywhere = np.ones(new.shape[1:], np.bool_)
    found = match([(new, everywhere, old, everywhere)], register)
    ref, inside = moved(old, found.shift)
    gain, offset = (np.array(v)[:, None, None] for v in (found.gain, found.offset))
    matched = np.clip(np.rint(gain * ref + offset), 0, 255).astype(np.uint8)
    return Pair(name, new, matched, inside, classes, np.full(classes.shape, 255, np.uint8))


def aerial_pairs(
    folder: Path, exclude: Iterable[str] = (), only: Iterable[str] = (), register: bool = True
) -> Iterator[Pair]:
    """All ordered pairs of years of every place under `folder/<city>/<place>/<year>.tif` (uint8, 4 bands).

    Cities in `exclude` are left out; with `only`, all but those are. Raises InputError where no image is left.
    """
    cities = {path.name for path in folder.iterdir()} & (set(only) or {path.name for path in folder.iterdir()})
    cities -= set(exclude)
    places = sorted({path.parent for path in folder.glob("*/*/*.tif") if path.parent.parent.name in cities})
    if not places:
        raise InputError(f"{folder} holds no <city>/<place>/<year>.tif to train on")
    for place in places:
        years = {}
        for path in sorted(place.glob("*.tif")):
            with rasterio.open(path) as source:
                years[path.stem] = source.read()
        cover = {year: land_cover(image) for year, image in years.items()}
        for new, old in itertools.permutations(years, 2):
            name = f"{place.parent.name}/{place.name} {old}->{new}"
            yield matched_pair(name, years[new], years[old], cover[new], register)


def generated_pairs(seeds: Iterable[int], size: int = 256) -> Iterator[Pair]:
    """The generated landscape, both directions in time alternating, with exact change masks."""
    for seed in seeds:
        dataset = LandscapeDataset(seed, seed, size)
        new, ref, _, ref_valid, classes, mask = dataset.read(0, 0, 0, size, size)
        yield Pair(dataset.name(0), new, ref, ref_valid, classes, mask)  # type: ignore[arg-type]
