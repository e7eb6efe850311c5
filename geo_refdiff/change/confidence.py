"""How sure a change prior is: where it is not sure enough, the class becomes unknown."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.errors import InputError
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader, WarpResampling, gsd_ratio
from geo_refdiff.raster.window import Window

MIN_CONFIDENCE = 0.5
"""Where a confidence is given and no limit."""

_SCAN = 1024
_SLACK = 1e-6


class Prior(Protocol):
    """A change mask on the output grid, read window by window; a value depends on its place alone."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices, 255 = unknown; `window` in pixels of the target, may reach outside."""
        ...

    def close(self) -> None:
        """Closes the files."""
        ...


class ConfidentPrior:
    """A prior, unknown where a raster of confidence is below a limit or missing.

    Args:
        prior: the classes.
        confidence: from `inspect(path, "mask")`, values 0 to 1 after its scale and offset; a coarser one is taken by
            the nearest pixel, a finer one is averaged.
        target: the whole scene's output grid.
        least: the limit, 0 to 1.
        displacement: of the confidence, as for `WarpedReader`.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is known.
    """

    def __init__(
        self,
        prior: Prior,
        confidence: RasterInfo,
        target: GeoBox,
        least: float,
        displacement: Displacement | None = None,
    ) -> None:
        self._prior, self._least = prior, least
        how: WarpResampling = "average" if gsd_ratio(confidence, target) < 1 - 1e-6 else "nearest"
        band = confidence.data_bands[0]
        self._reader = WarpedReader(confidence, [band], target, how, displacement)
        self._scale, self._offset = confidence.scales[band - 1], confidence.offsets[band - 1]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """As `Prior.read`."""
        values, valid = self._reader.read(window)
        sure = valid & (values[0].astype(np.float64) * self._scale + self._offset >= self._least - _SLACK)
        return np.where(sure, self._prior.read(window), UNKNOWN_CLASS).astype(np.uint8)

    def close(self) -> None:
        """Closes the files of both."""
        self._prior.close()
        self._reader.close()


def check_confidence(info: RasterInfo) -> None:
    """Look through a raster of confidence, window by window, for values that are none.

    Raises:
        InputError: a value outside of 0 to 1.
    """
    band = info.data_bands[0]
    with RasterReader(info, [band]) as reader:
        for window in Window(0, 0, info.height, info.width).tiles(_SCAN):
            values, valid = reader.read(window)
            seen = values[valid].astype(np.float64) * info.scales[band - 1] + info.offsets[band - 1]
            if seen.size and (seen.min() < -_SLACK or seen.max() > 1 + _SLACK):
                worst = seen.max() if seen.max() > 1 + _SLACK else seen.min()
                raise InputError(
                    f"{info.path}: the confidence holds {worst:g}, but must lie between 0 and 1; declare the "
                    f"file's scale, e.g. gdal_edit.py -scale 0.01 for percent"
                )
