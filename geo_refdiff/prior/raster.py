"""The change prior from a raster of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.diffusion.denoiser import UNKNOWN_CLASS
from geo_refdiff.errors import InputError
from geo_refdiff.grid.window import Window
from geo_refdiff.io.raster import RasterReader
from geo_refdiff.io.raster_info import RasterInfo
from geo_refdiff.io.warp import WarpedReader, gsd_ratio

_SCAN = 1024


class MaskPrior:
    """Class indices on the output grid: nearest where the mask is coarser, the most frequent class where it is finer.

    Args:
        info: from `inspect(path, "mask")`.
        target: the whole scene's output grid.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is known.
    """

    def __init__(self, info: RasterInfo, target: GeoBox) -> None:
        finer = gsd_ratio(info, target) < 1 - 1e-6
        self._reader = WarpedReader(info, [info.data_bands[0]], target, "mode" if finer else "nearest")

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices, 255 = unknown: nodata, outside the mask, or 255 in the mask.

        Args:
            window: in pixels of the target; may reach outside.
        """
        values, valid = self._reader.read(window)
        return np.where(valid, values[0], UNKNOWN_CLASS).astype(np.uint8)

    def close(self) -> None:
        """Closes the files."""
        self._reader.close()


def check_classes(info: RasterInfo, classes: Sequence[str]) -> None:
    """Look through the whole mask, window by window, for values that are no class.

    Args:
        info: the mask.
        classes: the model's class names, index by index; empty: any value from 0 to 254 will do.

    Raises:
        InputError: names the value and the classes.
    """
    highest = len(classes) - 1 if classes else UNKNOWN_CLASS - 1
    with RasterReader(info, [info.data_bands[0]]) as reader:
        for row in range(0, info.height, _SCAN):
            for col in range(0, info.width, _SCAN):
                window = Window(row, col, min(_SCAN, info.height - row), min(_SCAN, info.width - col))
                values, valid = reader.read(window)
                _check(info, values[0][valid[0]], highest, classes)


def _check(info: RasterInfo, values: NDArray[np.generic], highest: int, classes: Sequence[str]) -> None:
    for value in np.unique(values).tolist():
        if value == UNKNOWN_CLASS or (0 <= value <= highest and value == int(value)):
            continue
        known = ", ".join(f"{i} {name}" for i, name in enumerate(classes)) or f"0 to {highest}"
        raise InputError(
            f"{info.path}: the mask holds {value:g}, which is no class of the model; known are {known}, and 255 "
            f"for unknown"
        )
