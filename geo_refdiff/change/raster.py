"""The change prior from a raster of classes, or of colours that stand for classes."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.change.class_map import Key, category_names, known_classes
from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.errors import InputError
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader, WarpResampling, gsd_ratio
from geo_refdiff.raster.window import Window

_SCAN = 1024


class MaskPrior:
    """Class indices on the output grid: nearest where the mask is coarser, the most frequent value where it is finer.

    Args:
        info: from `inspect(path, "mask")`.
        target: the whole scene's output grid.
        values: value in the mask -> class index; others are unknown. Empty: values are class indices.
        displacement: of the mask, as for `WarpedReader`.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is known.
    """

    def __init__(
        self,
        info: RasterInfo,
        target: GeoBox,
        values: Mapping[Key, int] | None = None,
        displacement: Displacement | None = None,
    ) -> None:
        how: WarpResampling = "mode" if gsd_ratio(info, target) < 1 - 1e-6 else "nearest"
        self._reader = WarpedReader(info, [info.data_bands[0]], target, how, displacement)
        self._values = {k: v for k, v in (values or {}).items() if isinstance(k, int)}

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices, 255 = unknown: nodata, outside the mask, or 255 in the mask.

        Args:
            window: in pixels of the target; may reach outside.
        """
        values, valid = self._reader.read(window)
        classes = _looked_up(values[0], self._values) if self._values else values[0]
        return np.where(valid, classes, UNKNOWN_CLASS).astype(np.uint8)

    def close(self) -> None:
        """Closes the files."""
        self._reader.close()


class ColourPrior:
    """Class indices on the output grid from a raster of colours, by the nearest pixel.

    Args:
        info: from `inspect(path, "mask")`, its first three bands are red, green and blue.
        target: the whole scene's output grid.
        values: colour -> class index; other colours are unknown.
        displacement: of the mask, as for `WarpedReader`.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is known.
    """

    def __init__(
        self, info: RasterInfo, target: GeoBox, values: Mapping[Key, int], displacement: Displacement | None = None
    ) -> None:
        self._reader = WarpedReader(info, info.data_bands[:3], target, "nearest", displacement)
        self._values = {_packed_key(k): v for k, v in values.items() if isinstance(k, tuple)}

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices, 255 = unknown; `window` as for `MaskPrior`."""
        values, valid = self._reader.read(window)
        return np.where(valid, _looked_up(packed(values), self._values), UNKNOWN_CLASS).astype(np.uint8)

    def close(self) -> None:
        """Closes the files."""
        self._reader.close()


def packed(bands: NDArray[np.generic]) -> NDArray[np.int64]:
    """(3, h, w) uint8 red, green, blue -> (h, w) one number a colour."""
    wide = bands.astype(np.int64)
    mixed: NDArray[np.int64] = (wide[0] << 16) | (wide[1] << 8) | wide[2]
    return mixed


def _packed_key(colour: tuple[int, int, int]) -> int:
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def _looked_up(values: NDArray[np.generic], table: Mapping[int, int]) -> NDArray[np.uint8]:
    keys = np.array(sorted(table), dtype=np.int64)
    found = np.array([table[int(k)] for k in keys], dtype=np.uint8)
    at = np.clip(np.searchsorted(keys, values), 0, len(keys) - 1)
    return np.where(keys[at] == values, found[at], UNKNOWN_CLASS).astype(np.uint8)


def check_classes(info: RasterInfo, classes: Sequence[str], values: Mapping[Key, int] | None = None) -> None:
    """Look through the whole mask, window by window, for values that are no class.

    Args:
        info: the mask.
        classes: the model's class names, index by index; empty: any value from 0 to 254 will do.
        values: value in the mask -> class index; None or empty: values are class indices.

    Raises:
        InputError: names the value and the classes.
    """
    highest = len(classes) - 1 if classes else UNKNOWN_CLASS - 1

    def known(value: float) -> bool:
        return value in values if values else value == UNKNOWN_CLASS or (0 <= value <= highest and value == int(value))

    names = dict(enumerate(category_names(info.path, info.data_bands[0])))
    for value in _strangers(info, info.data_bands[:1], lambda bands: bands[0], known):
        called = f" ('{names[int(value)]}')" if names.get(int(value)) else ""
        listed = f"known values are {', '.join(map(str, values))}; the model's classes are" if values else "known are"
        raise InputError(
            f"{info.path}: the mask holds {value:g}{called}, which is no class of the model; {listed} "
            f"{known_classes(classes)}, and 255 for unknown; say what it means with --class-map"
        )


def holds_only(info: RasterInfo, values: Container[float]) -> bool:
    """Whether all valid pixels of a mask hold one of the values; looked through window by window up to the first other.

    Raises:
        InputError: the file cannot be read.
    """
    return not any(True for _ in _strangers(info, info.data_bands[:1], lambda bands: bands[0], values.__contains__))


def check_colours(info: RasterInfo, values: Mapping[Key, int], classes: Sequence[str]) -> None:
    """Look through the whole mask, window by window, for colours that are no class.

    Raises:
        InputError: names the colour, the known ones and the classes.
    """
    table = {_packed_key(k) for k in values if isinstance(k, tuple)}
    for value in _strangers(info, info.data_bands[:3], packed, lambda v: int(v) in table):
        colour = f"#{int(value):06x}"
        listed = ", ".join(f"#{k:06x}" for k in sorted(table))
        raise InputError(
            f"{info.path}: the mask holds the colour {colour}, which stands for no class; known are {listed}; give a "
            f"--class-map from colours to {known_classes(classes)}"
        )


def _strangers(
    info: RasterInfo,
    bands: Sequence[int],
    merged: Callable[[NDArray[np.generic]], NDArray[np.generic]],
    known: Callable[[float], bool],
) -> Iterator[float]:
    """Values of valid pixels that are not known, window by window."""
    with RasterReader(info, bands) as reader:
        for window in Window(0, 0, info.height, info.width).tiles(_SCAN):
            values, valid = reader.read(window)
            for value in np.unique(merged(values)[valid.all(axis=0)]).tolist():
                if not known(value):
                    yield value
