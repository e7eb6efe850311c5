"""The change mask that the product finds by itself, for a tile."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geo_refdiff.change.detector import AUTO_MIN_CONFIDENCE, BANDS, CLASSES_FOR_MODEL, DetectedMask, Detector
from geo_refdiff.errors import OptionError
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES


class TileDetector:
    """Compares the LR of a tile with a reference; the tile is a scene of its own.

    Args:
        detector: loaded.
        bands: of the data set.

    Raises:
        OptionError: red, green or blue is missing.
    """

    def __init__(self, detector: Detector, bands: Sequence[str]) -> None:
        named = [band.lower() for band in bands]
        self.detector = detector
        self.channels = tuple(named.index(band) if band in named else None for band in BANDS)
        if None in self.channels[:3]:
            raise OptionError(f"mask auto needs the bands {', '.join(BANDS[:3])}; the data set has {', '.join(bands)}")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what it tells apart."""
        return self.detector.classes

    def find(self, lr: Tensor, ref: Tensor, sensor: SensorModel) -> Tensor:
        """(1, 1, H, W) uint8 in the detector's classes, 255 = not known: as in a product, only sure changes are told.

        Args:
            lr: (1, C, h, w) DN.
            ref: (1, C, H, W) DN in the radiometry of the LR, NaN = missing.
            sensor: the true operator.
        """
        scene, reference = (BYTES.to_model(x)[0] for x in (lr, ref))

        def read_scene(window: Window) -> tuple[Tensor, Tensor]:
            values = _cut(scene, window)
            return torch.nan_to_num(values), torch.isfinite(values)

        mask = DetectedMask(
            self.detector,
            sensor,
            read_scene,
            lambda window: _cut(reference, window),
            self.channels,
            CLASSES_FOR_MODEL,
            AUTO_MIN_CONFIDENCE,
        )
        height, width = ref.shape[-2:]
        return torch.from_numpy(mask.read(Window(0, 0, height, width)))[None, None]


def _cut(image: Tensor, window: Window) -> Tensor:
    """A window of (C, h, w); NaN outside."""
    found = torch.full((image.shape[0], *window.shape), torch.nan)
    whole = Window(0, 0, image.shape[1], image.shape[2])
    inside = window.intersect(whole)
    if inside is not None:
        found[:, *inside.within(window)] = image[:, *inside.within(whole)]
    return found
