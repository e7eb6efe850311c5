"""Reads windows of a raster with a mask of what is valid."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RioWindow

from geo_refdiff.errors import InputError
from geo_refdiff.raster.gdal import GDAL_ERRORS, one_line, unreadable
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.nodata import equals_nodata, is_sentinel
from geo_refdiff.raster.window import Window


class ThreadHandles:
    """One open dataset for each thread: GDAL's handles must not be shared between threads."""

    def __init__(self, info: RasterInfo) -> None:
        self.info = info
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[Any] = []

    def open(self) -> list[Any]:
        """Opens the dataset for this thread; the first is read from, all are closed, last first."""
        return [rasterio.open(self.info.source)]

    def get(self) -> Any:
        """This thread's dataset.

        Raises:
            InputError: it cannot be opened (any more).
        """
        handle = getattr(self._local, "handle", None)
        if handle is None:
            try:
                opened = self.open()
            except GDAL_ERRORS as error:
                text = one_line(error, 160)
                raise InputError(f"{self.info.path}: cannot be opened ({text}); check it with gdalinfo") from error
            with self._lock:
                self._open.append(opened)
            handle = self._local.handle = opened[0]
        return handle

    def close(self) -> None:
        """Closes the datasets of all threads; call it when no thread reads any more."""
        with self._lock:
            opened, self._open = self._open, []
            self._local = threading.local()
        for group in opened:
            for dataset in group:
                dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RasterReader(ThreadHandles):
    """Reads pixels of a raster on its own grid, from any thread.

    Args:
        info: from `inspect`.
        bands: 1-based band indices, in the order wanted.

    Raises:
        InputError: a band that the file does not have.
    """

    def __init__(self, info: RasterInfo, bands: Sequence[int]) -> None:
        super().__init__(info)
        self.bands = check_bands(info, bands)
        self._window = info.window
        self._clear = None if info.clouds is None else ClearReader(info)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The pixels of `window`, in the raster's own pixel coordinates; it may reach outside the raster.

        A pixel is missing (valid = False) in every band outside the raster, where the mask band or alpha is 0, where
        it is cloudy (`RasterInfo.clouds`), and where all data bands of the file hold their nodata value; in one band
        where that band is NaN, infinite or a nodata value that cannot be measured (`is_sentinel`).

        Returns:
            The values (C, height, width) in the file's dtype, 0 outside the raster, and valid (C, height, width),
            True = valid.

        Raises:
            InputError: the file cannot be read there.
        """
        values = np.zeros((len(self.bands), *window.shape), dtype=self.info.dtype)
        valid = np.zeros(values.shape, dtype=np.bool_)
        inside = window.intersect(self._window)
        if inside is None:
            return values, valid
        dataset = self.get()
        try:
            part, ok = self._read_inside(dataset, RioWindow(inside.col, inside.row, inside.width, inside.height))
        except GDAL_ERRORS as error:
            raise InputError(
                f"{self.info.path}: cannot be read in {inside} ({one_line(error, 160)}); {unreadable(self.info.path)}"
            ) from error
        if inside == window:
            return part, ok
        rows, cols = inside.within(window)
        values[:, rows, cols] = part
        valid[:, rows, cols] = ok
        return values, valid

    def known_places(self, most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where the raster has valid pixels at all, from a thin sample of it: rows and columns (n,) of pixels' centres.

        Args:
            most: pixels along a side that are looked at, evenly spread; overviews are used where there are any.

        Raises:
            InputError: the file cannot be read.
        """
        shape = min(most, self.info.height), min(most, self.info.width)
        whole = RioWindow(0, 0, self.info.width, self.info.height)
        try:
            _, ok = self._read_inside(self.get(), whole, shape)
        except GDAL_ERRORS as error:
            raise InputError(
                f"{self.info.path}: cannot be read ({one_line(error, 160)}); {unreadable(self.info.path)}"
            ) from error
        rows, cols = np.nonzero(ok.all(axis=0))
        return (rows + 0.5) * self.info.height / shape[0], (cols + 0.5) * self.info.width / shape[1]

    def _read_inside(
        self, dataset: Any, window: RioWindow, shape: tuple[int, int] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A window within the raster; `shape`: (rows, columns) to thin it out to, by taking the nearest pixels."""
        part = {"window": window, "out_shape": shape}
        values = dataset.read(list(self.bands), window=window, out_shape=shape and (len(self.bands), *shape))
        ok: NDArray[np.bool_] = np.ones(values.shape, dtype=np.bool_)
        missing = self._all_nodata(dataset, values, part)
        if missing is not None:
            ok &= ~missing
        if self.info.validity == "mask":
            ok &= dataset.read_masks(1, **part) != 0
        for alpha in set(range(1, self.info.count + 1)) - set(self.info.data_bands):
            ok &= dataset.read(alpha, **part) != 0
        if values.dtype.kind == "f":
            ok &= np.isfinite(values)
        for index, band in enumerate(self.bands):
            nodata = dataset.nodatavals[band - 1]
            if is_sentinel(values.dtype, nodata, self.info.offsets[band - 1]):
                ok[index] &= ~equals_nodata(values[index], nodata)
        if self._clear is not None:
            ok &= self._clear.inside(window, shape)
        return values, ok

    def close(self) -> None:
        """Closes the datasets of all threads; call it when no thread reads any more."""
        super().close()
        if self._clear is not None:
            self._clear.close()

    def _all_nodata(self, dataset: Any, values: NDArray[Any], part: dict[str, Any]) -> NDArray[np.bool_] | None:
        """Where all data bands that declare a nodata value hold it; bands not asked for are read only if needed."""
        nodata = {b: dataset.nodatavals[b - 1] for b in self.info.data_bands}
        nodata = {b: v for b, v in nodata.items() if v is not None and not np.isnan(v)}
        missing: NDArray[np.bool_] | None = None
        asked = {b: i for i, b in enumerate(self.bands)}
        for band in sorted(nodata, key=lambda b: b not in asked):
            band_values = values[asked[band]] if band in asked else dataset.read(band, **part)
            equal = equals_nodata(band_values, nodata[band])
            missing = equal if missing is None else missing & equal
            if not missing.any():
                break
        return missing


class ClearReader(ThreadHandles):
    """Reads where a raster is free of clouds, on its own grid, from any thread.

    Args:
        info: with clouds.
    """

    def open(self) -> list[Any]:
        """Opens the layer for this thread."""
        assert self.info.clouds is not None
        return [rasterio.open(self.info.clouds.vrt)]

    def read(self, window: Window) -> NDArray[np.bool_]:
        """(height, width) of a window in the raster's pixel coordinates, True = no cloud; so is all outside.

        Raises:
            InputError: the layer cannot be read there.
        """
        clear = np.ones(window.shape, dtype=np.bool_)
        part = window.intersect(self.info.window)
        if part is not None:
            clear[part.within(window)] = self.inside(RioWindow(part.col, part.row, part.width, part.height))
        return clear

    def share(self, most: int) -> float:
        """Part of the raster that is clear, 0..1, from `most` pixels along a side at most."""
        shape = min(most, self.info.height), min(most, self.info.width)
        return float(self.inside(RioWindow(0, 0, self.info.width, self.info.height), shape).mean())

    def inside(self, window: RioWindow, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
        """Of a window within the raster; `shape`: (rows, columns) to thin it out to, by taking the nearest pixels."""
        layer = self.info.clouds
        assert layer is not None
        try:
            return np.asarray(self.get().read(1, window=window, out_shape=shape) != 0)
        except GDAL_ERRORS as error:
            raise InputError(
                f"{layer.path}: cannot be read ({one_line(error, 160)}); {unreadable(layer.path)}"
            ) from error


def check_bands(info: RasterInfo, bands: Sequence[int]) -> tuple[int, ...]:
    """`bands` as a tuple.

    Raises:
        InputError: none given, or one that is not a data band of the file.
    """
    wrong = [b for b in bands if b not in info.data_bands]
    if wrong or not bands:
        have = ", ".join(map(str, info.data_bands[:16]))
        raise InputError(f"{info.path}: has no image band {wrong or list(bands)}; its bands are {have}")
    return tuple(bands)
