"""Tiles of a data set of pairs: truth, reference, true or assumed change, on a regular lattice of each pair."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.data.dataset import Crop, Numbers, PairDataset
from geo_refdiff.data.synthetic_change import paste_change, random_region
from geo_refdiff.errors import GeoRefDiffError, InputError, OptionError
from geo_refdiff.raster.gdal import gdal_threads
from geo_refdiff.raster.window import Window

UINT8 = Numbers()
"""Of files in uint8 that are taken as they are."""

_AHEAD = 3
_LATTICE = 1 << 20
_DIFFERENCE = 40.0
_SPAN = 9
_PASTES = 3


@dataclass(frozen=True, slots=True)
class TileSpec:
    """The place of a tile.

    Attributes:
        name: file stem; the pair's, with row and column where a pair gives several tiles.
        pair: the pair's name in the data set.
        index: of the pair.
        window: in the pair's pixels.
        shape: (height, width) of the pair.
        aliases: file stems of images of the tile, and those of images of the whole pair.
        numbers: the digital numbers of the pair's files.
    """

    name: str
    pair: str
    index: int
    window: Window
    shape: tuple[int, int]
    aliases: tuple[str, ...]
    numbers: Numbers = UINT8

    @property
    def place(self) -> str:
        """The pair's name without its dates."""
        return self.pair.rsplit(" ", 1)[0]

    @property
    def lattice(self) -> Window:
        """The window with noise of its own: every pair has a part of the lattice for itself."""
        return self.window.shift(self.index * _LATTICE, 0)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile; images (1, C, H, W) float32, in which 0..255 is the range of the pair's `Numbers`, masks (1, 1, H, W).

    Attributes:
        spec: its place.
        truth: the new date.
        ref: the old date, registered and in the radiometry of the new one; NaN in all bands = missing.
        raw: the old date as the files hold it; NaN = missing.
        mask: uint8, the data set's change classes, 255 = unknown.
        changed, unchanged: bool; a pixel may be neither (unknown).
        labelled: whether these come from `mask`; else from `changed_pixels`.
    """

    spec: TileSpec
    truth: Tensor
    ref: Tensor
    raw: Tensor
    mask: Tensor
    changed: Tensor
    unchanged: Tensor
    labelled: bool


def file_stem(name: str) -> str:
    """A pair's name as a file stem: "city/place 2016->2020" is city_place_2016_2020, "test/00003.png" test_00003."""
    plain = re.sub(r"\.(png|tiff?)$", "", name, flags=re.IGNORECASE).replace("->", "_")
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", plain).strip("_") or "pair"


def _last(name: str) -> str:
    return file_stem(name.rsplit("/", 1)[-1])


def changed_pixels(truth: Tensor, ref: Tensor) -> Tensor:
    """Pseudo-label of change, (1, 1, H, W) bool: the mean difference over 9 x 9 px exceeds 40 DN in some band."""
    far = F.avg_pool2d((truth - ref).abs(), _SPAN, stride=1, padding=_SPAN // 2)
    return far.amax(dim=1, keepdim=True) > _DIFFERENCE


@dataclass(slots=True)
class TileSource:
    """Cuts tiles out of a data set.

    Args:
        dataset: pairs with the reference matched.
        raw: the same pairs with the reference as it is; None: taken from `dataset`.
        size: side of a tile, output pixels.
        bands: names of those to take, in this order; empty: all.
        paste: paste other places into the reference; the mask is then exact and comes from the land cover of the truth.
        seed: of what is pasted.
    """

    dataset: PairDataset
    raw: PairDataset | None = None
    size: int = 256
    bands: tuple[str, ...] = ()
    paste: bool = False
    seed: int = 0
    specs: list[TileSpec] = field(init=False)

    def __post_init__(self) -> None:
        if self.size < 32:
            raise OptionError(f"tile {self.size}: give at least 32 pixels")
        unknown = [band for band in self.bands if band not in self.dataset.bands]
        if unknown:
            raise OptionError(f"band '{unknown[0]}': the data set has {', '.join(self.dataset.bands)}")
        self.bands = self.bands or self.dataset.bands
        lasts = Counter(_last(self.dataset.name(index)) for index in range(len(self.dataset)))
        self.specs = [spec for index in range(len(self.dataset)) for spec in self._cut(index, lasts)]
        if not self.specs:
            largest = max(min(self.dataset.shape(i)) for i in range(len(self.dataset)))
            raise OptionError(f"tile {self.size}: the largest pair has {largest} px; give a smaller --tile")
        names = [spec.name for spec in self.specs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"two tiles would be called {twice}; give the pairs of the data set names that differ")

    def _cut(self, index: int, lasts: Counter[str]) -> Iterator[TileSpec]:
        shape, pair, side = self.dataset.shape(index), self.dataset.name(index), self.size
        stems = [file_stem(pair)] + ([_last(pair)] if lasts[_last(pair)] == 1 else [])
        windows = [tile for tile in Window(0, 0, *shape).tiles(side) if tile.shape == (side, side)]
        for window in windows:
            suffix = f"_r{window.row}_c{window.col}" if len(windows) > 1 else ""
            aliases = dict.fromkeys([*(stem + suffix for stem in stems), *stems])
            yield TileSpec(stems[0] + suffix, pair, index, window, shape, tuple(aliases), self.dataset.numbers(index))

    def first_places(self, number: int | None) -> list[TileSpec]:
        """The tiles of the first `number` places, all for None."""
        places = list(dict.fromkeys(spec.place for spec in self.specs))
        kept = set(places[:number])
        return [spec for spec in self.specs if spec.place in kept]

    def other_place(self, spec: TileSpec, step: int = 0) -> TileSpec:
        """A tile of another place: always the same for the same step."""
        others = [other for other in self.specs if other.place != spec.place]
        if not others:
            raise OptionError("the data set has one place alone: there is no other to take a reference from")
        draw = np.random.default_rng((self.seed, spec.index, spec.window.row, spec.window.col, step))
        return others[int(draw.integers(len(others)))]

    def read(self, spec: TileSpec) -> Tile:
        """One tile.

        Raises:
            InputError: a file cannot be read, or the truth has missing pixels.
        """
        crop = self._crop(self.dataset, spec)
        if not crop.new_valid.all():
            raise InputError(f"{spec.name}: {1 - crop.new_valid.mean():.1%} of the truth's pixels are missing")
        truth, ref = _image(crop.new), _reference(crop)
        raw = ref if self.raw is None else _reference(self._crop(self.raw, spec))
        mask = torch.from_numpy(crop.mask)[None, None]
        if self.paste:
            ref, raw, mask = self._pasted(spec, ref, torch.from_numpy(crop.classes)[None, None])
        labelled = bool((mask != UNKNOWN_CLASS).any())
        if labelled:
            changed, unchanged = (mask > 0) & (mask != UNKNOWN_CLASS), mask == 0
        else:
            present = torch.isfinite(ref).all(dim=1, keepdim=True)
            differs = changed_pixels(truth, torch.where(present, ref, truth))
            changed, unchanged = differs & present, ~differs & present
        return Tile(spec, truth, ref, raw, mask, changed, unchanged, labelled)

    def _crop(self, dataset: PairDataset, spec: TileSpec) -> Crop:
        w = spec.window
        crop = dataset.read(spec.index, w.row, w.col, w.height, w.width)
        if self.bands == dataset.bands:
            return crop
        chosen = [dataset.bands.index(band) for band in self.bands]
        return crop._replace(new=crop.new[chosen], ref=crop.ref[chosen])

    def _pasted(self, spec: TileSpec, ref: Tensor, cover: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reference with regions of other places, and the exact change mask: the truth's land cover there, else 0."""
        rng = np.random.default_rng((self.seed, spec.index, spec.window.row, spec.window.col))
        mask = torch.zeros_like(cover)
        for step in range(_PASTES):
            other = _reference(self._crop(self.dataset, self.other_place(spec, step)))
            where = random_region(self.size, rng, cover.device)[None, None]
            ref, mask = paste_change(ref, mask, cover, other, where)
        return ref, ref, mask


def read_ahead(source: TileSource, specs: Sequence[TileSpec]) -> Iterator[tuple[TileSpec, Tile | GeoRefDiffError]]:
    """Reads tiles in order, some of them ahead in a thread; one that cannot be read comes as its error."""

    def read(spec: TileSpec) -> Tile | GeoRefDiffError:
        try:
            return source.read(spec)
        except InputError as error:
            return error

    with gdal_threads(1, "tiles") as pool:
        queue = [pool.submit(read, spec) for spec in specs[:_AHEAD]]
        for number, spec in enumerate(specs):
            tile = queue.pop(0).result()
            if number + _AHEAD < len(specs):
                queue.append(pool.submit(read, specs[number + _AHEAD]))
            yield spec, tile


def _image(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[None]


def _reference(crop: Crop) -> Tensor:
    image = _image(crop.ref)
    return torch.where(torch.from_numpy(crop.ref_valid)[None, None], image, torch.nan)
