"""Pictures of an evaluation: LR, reference, change, results, truth and error of some tiles."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.errors import OptionError
from geo_refdiff.evaluate.tiles import Tile, TileSpec
from geo_refdiff.raster.picture import Panel, stretch, write_panels

ERROR_GAIN = 4
"""The error is shown this many times as bright as it is."""

_COLOURS = (
    (70, 110, 220),
    (222, 184, 120),
    (170, 220, 120),
    (20, 120, 40),
    (200, 60, 60),
    (240, 140, 220),
    (120, 120, 120),
)
_CALM, _CHANGED, _UNKNOWN = (255, 255, 255), (200, 60, 60), (150, 150, 150)
_ROW = 4


def choose(specs: Sequence[TileSpec], named: Sequence[str], number: int, seed: int) -> list[str]:
    """Names of the tiles to show, in order: those named (tile or pair), else `number` drawn by the seed.

    With the same seed a larger number shows the same tiles and more.

    Raises:
        OptionError: a name that is no tile's.
    """
    by_pair = [spec.name for spec in specs if spec.pair in named]
    others = [name for name in named if not any(spec.pair == name for spec in specs)]
    if by_pair and not others:
        return by_pair
    return choose_names([spec.name for spec in specs], (*others, *by_pair), number, seed)


def choose_names(names: Sequence[str], named: Sequence[str], number: int, seed: int) -> list[str]:
    """Names of what is shown, in order: those named, else `number` drawn by the seed.

    Raises:
        OptionError: a name that is not among them.
    """
    unknown = [name for name in named if name not in names]
    if unknown:
        raise OptionError(f"'{unknown[0]}' is no tile of this evaluation; its tiles are called like {names[0]}")
    if named:
        return [name for name in names if name in named]
    order = random.Random(seed).sample(list(names), len(names))
    return [name for name in names if name in order[:number]]


def panels(tile: Tile, lr: Tensor, images: Mapping[str, Tensor], judged: str) -> list[Panel]:
    """One tile: LR, Ref, change, results, truth, error of the method `judged`.

    Args:
        tile, lr: DN.
        images: method -> (1, C, H, W) DN, in the order wanted.
        judged: one of them.
    """
    low, high = _range(tile.truth)

    def shown(image: Tensor) -> NDArray[np.uint8]:
        return stretch(rgb(image), low, high)

    error = np.abs(rgb(images[judged]) - rgb(tile.truth)).mean(axis=0, keepdims=True)
    bright = np.rint(np.clip(error * ERROR_GAIN, 0, 255)).astype(np.uint8)
    return [
        Panel(f"LR, {tile.spec.name}", shown(lr)),
        Panel("Ref", shown(tile.ref)),
        Panel("change mask" if tile.labelled else "change, pseudo-label", _change(tile)),
        *(Panel(name, shown(image)) for name, image in images.items()),
        Panel("truth", shown(tile.truth)),
        Panel(f"error x {ERROR_GAIN}", np.repeat(bright, 3, axis=0)),
    ]


def write_full(path: Path, row: Sequence[Panel], side: int) -> None:
    """One tile at twice its size, four panels a row; makes the folder.

    Raises:
        OutputError: it cannot be written.
    """
    write_panels(path, [row[at : at + _ROW] for at in range(0, len(row), _ROW)], 2 * side)


def rgb(image: Tensor) -> NDArray[np.float32]:
    """(3, h, w) DN of (1, C, h, w), one band as grey; what is missing becomes 0."""
    bands = image[0, :3] if image.shape[1] >= 3 else image[0, :1].expand(3, -1, -1)
    values: NDArray[np.float32] = bands.nan_to_num().numpy()
    return values


def _range(truth: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What becomes black and white: the same for all bands, so that colours stay."""
    low, high = (float(np.percentile(rgb(truth), q)) for q in (0.5, 99.5))
    return np.full(3, low), np.full(3, high)


def _change(tile: Tile) -> NDArray[np.uint8]:
    picture = np.full((*tile.truth.shape[-2:], 3), _UNKNOWN, np.uint8)
    picture[tile.unchanged[0, 0].numpy()] = _CALM
    changed, classes = tile.changed[0, 0].numpy(), tile.mask[0, 0].numpy()
    picture[changed] = _CHANGED
    for index in np.unique(classes[changed]) if tile.labelled else ():
        picture[changed & (classes == index)] = _COLOURS[(int(index) - 1) % len(_COLOURS)]
    return np.ascontiguousarray(picture.transpose(2, 0, 1))
