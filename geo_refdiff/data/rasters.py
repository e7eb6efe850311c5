"""The rasters of one pair, read by window on the new date's grid."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.data.matching import (
    TAPS_AFTER,
    TAPS_BEFORE,
    interpolate,
    interpolate_valid,
    whole_and_part,
)
from geo_refdiff.errors import InputError
from geo_refdiff.raster.affine import translated
from geo_refdiff.raster.crs import find_overlap
from geo_refdiff.raster.geobox import scene_geobox
from geo_refdiff.raster.reader import RasterInfo, RasterReader
from geo_refdiff.raster.sampling import spread_tiles
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window

Pixels = tuple[NDArray[Any], NDArray[np.bool_]]
_READERS = 4
_WHOLE, _VIEW, _VIEWS = 1024, 512, 3
_BANDS = ("red", "green", "blue", "nir")


class Reader(Protocol):
    """Reads windows of one raster on a grid: values (C, h, w), valid (h, w)."""

    def read(self, window: Window) -> Pixels:
        """The pixels of a window, in pixels of the grid; it may reach outside."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


class PlainReader:
    """A raster on its own grid; `offset`: (row, col) of its corner on the grid that windows are counted on."""

    def __init__(self, info: RasterInfo, bands: Sequence[int], offset: tuple[int, int] = (0, 0)) -> None:
        self._reader, self._offset = RasterReader(info, bands), offset

    def read(self, window: Window) -> Pixels:
        """Values in the file's dtype, 0 where not valid."""
        values, ok = self._reader.read(window.shift(-self._offset[0], -self._offset[1]))
        valid = np.asarray(ok.all(axis=0))
        values[:, ~valid] = 0
        return values, valid

    def close(self) -> None:
        """Closes the file."""
        self._reader.close()


class MovedReader:
    """A raster moved by a sub-pixel shift, by cubic interpolation; the pixels do not depend on the windows.

    Args:
        reader: what is moved.
        shift: (rows, cols), pixels of its grid.
    """

    def __init__(self, reader: Reader, shift: tuple[float, float]) -> None:
        self._reader = reader
        rows, cols = whole_and_part(shift[0]), whole_and_part(shift[1])
        self._whole, self._parts = (rows[0], cols[0]), (rows[1], cols[1])

    def read(self, window: Window) -> Pixels:
        """Values as float32, or in the file's dtype where the shift is whole."""
        if self._parts == (0.0, 0.0):
            return self._reader.read(window.shift(*self._whole))
        extra = TAPS_BEFORE + TAPS_AFTER
        top, left = window.row + self._whole[0] - TAPS_BEFORE, window.col + self._whole[1] - TAPS_BEFORE
        values, ok = self._reader.read(Window(top, left, window.height + extra, window.width + extra))
        moved, valid = interpolate(values, self._parts), interpolate_valid(ok, self._parts)
        moved[:, ~valid] = 0
        return moved, valid

    def close(self) -> None:
        """Closes the file."""
        self._reader.close()


def on_grid(info: RasterInfo, bands: Sequence[int], target: RasterInfo, shift: tuple[float, float]) -> Reader:
    """A reader of a raster on another raster's grid, moved by `shift` (rows, cols) pixels of that grid.

    A raster on the same grid (but for whole pixels) is interpolated by a shift, any other is warped once, shift
    included.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is known.
        InputError: a band that the file does not have.
    """
    grid = scene_geobox(target)
    offset = _offset(info, target, grid)
    if offset is None:
        return WarpedReader(info, bands, shifted(grid, shift), "cubic")
    plain = PlainReader(info, bands, offset)
    return plain if shift == (0.0, 0.0) else MovedReader(plain, shift)


def shifted(grid: GeoBox, shift: tuple[float, float]) -> GeoBox:
    """The grid on which an image must be read to come out moved by `shift` (rows, cols) pixels."""
    return GeoBox(grid.shape, translated(grid.affine, -shift[0], -shift[1]), grid.crs)


def _offset(info: RasterInfo, target: RasterInfo, grid: GeoBox) -> tuple[int, int] | None:
    if info.crs_wkt == target.crs_wkt and info.transform == target.transform:
        return 0, 0
    return find_overlap(info, grid).offset


def views_of(height: int, width: int) -> list[Window]:
    """The windows over which statistics of an image are taken: all of a small one, else nine spread over it."""
    if max(height, width) <= _WHOLE:
        return [Window(0, 0, height, width)]
    return spread_tiles(Window(0, 0, height, width), _VIEW, _VIEWS, _VIEWS)


def named_bands(info: RasterInfo) -> tuple[str, ...]:
    """The names of a raster's image bands, lower case; unnamed ones are red, green, blue, nir in this order."""
    names = [(info.descriptions[band - 1] or "").strip().lower() for band in info.data_bands]
    if all(names) and len(set(names)) == len(names):
        return tuple(names)
    return tuple(_BANDS[i] if i < len(_BANDS) else f"band {i + 1}" for i in range(len(names)))


def pick_bands(info: RasterInfo, wanted: Sequence[str]) -> tuple[int, ...]:
    """1-based indices of the wanted bands.

    Raises:
        InputError: one is missing.
    """
    have = named_bands(info)
    missing = [name for name in wanted if name not in have]
    if missing:
        raise InputError(
            f"{info.path}: has no band {missing[0]}, only {', '.join(have)}; name its bands, or ask for less"
        )
    return tuple(info.data_bands[have.index(name)] for name in wanted)


T = TypeVar("T")


class OpenFiles:
    """A few readers a thread, the ones last used; safe in any thread, after a fork, and in a pickle."""

    def __init__(self, limit: int = _READERS) -> None:
        self._limit = limit
        self._local = threading.local()

    def get(self, key: object, make: Callable[[], T], close: Callable[[T], None]) -> T:
        """What `make` returned for this key in this thread; the least used is closed to make room."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.process, self._local.held = os.getpid(), OrderedDict()
        held: OrderedDict[object, tuple[T, Callable[[T], None]]] = self._local.held
        found = held.pop(key, None) or (make(), close)
        held[key] = found
        while len(held) > self._limit:
            old, shut = held.popitem(last=False)[1]
            shut(old)
        return found[0]

    def __getstate__(self) -> int:
        return self._limit

    def __setstate__(self, limit: int) -> None:
        self.__init__(limit)  # type: ignore[misc]
