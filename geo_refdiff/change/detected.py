"""The change prior that is found by comparing the scene with the reference, tile by tile on the LR grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from geo_refdiff.change.features import BANDS, change_features
from geo_refdiff.change.network import Detector
from geo_refdiff.classes import NO_CHANGE, UNKNOWN_CLASS
from geo_refdiff.raster.reduce import repeated
from geo_refdiff.raster.tile_cache import TileCache
from geo_refdiff.raster.window import Window
from geo_refdiff.sensor.sensor import SensorModel

ReadScene = Callable[[Window], tuple[NDArray[np.float32], NDArray[np.bool_]]]
"""LR window -> values (C, h, w) in model units and valid (C, h, w)."""

ReadReference = Callable[[Window], NDArray[np.float32]]
"""HR window -> (C, h, w) in the scene's radiometry, model units, NaN in every band where missing."""

SURE = 0.7
"""How sure a detected change has to be for a model to be told of it."""

TOLD = {NO_CHANGE: UNKNOWN_CLASS}
"""What a model is told of a detector's classes: changes, and nothing where none was found. To be told "no change" where
one was overlooked costs more than it brings elsewhere (docs/change-masks.md has the figures)."""

STEPS = 250
"""Confidence is told in steps of 1 / 250."""

_TILES_KEPT = 64
_HR_SIDE = 512
_LEAST_TILE = 16


class DetectedPrior:
    """Classes of change and how sure they are, from the scene and the reference.

    An LR pixel's answer is a function of the scene's pixels within `reach` LR pixels around it and of the reference's
    pixels that the sensor sees there. Tiles are counted from the lattice's origin and computed in float64; classes come
    from probabilities rounded to steps of 1 / 250: the mask is the same however it is cut, whatever computes it.

    Args:
        detector: the network.
        sensor: how the scene's sensor sees the reference.
        scene, reference: read windows of the LR and the HR lattice.
        channels: for red, green, blue, nir the position among the bands that `scene` and `reference` give; None for a
            missing nir.
        classes: class index of the detector -> of the model.
        least: confidence below which the class is unknown.
        origin: (row, col) of the target's corner on the LR lattice, for `read`.
    """

    def __init__(
        self,
        detector: Detector,
        sensor: SensorModel,
        scene: ReadScene,
        reference: ReadReference,
        channels: tuple[int | None, ...],
        classes: Mapping[int, int] | None = None,
        least: float = 0.0,
        origin: tuple[int, int] = (0, 0),
    ) -> None:
        self.detector, self.sensor, self.channels = detector, sensor, channels
        self._scene, self._reference, self._least, self._origin = scene, reference, least, origin
        self._classes = np.arange(256, dtype=np.uint8)
        for index, other in (classes or {}).items():
            self._classes[index] = other
        self.reach = detector.network.reach + -(-sensor.reach // sensor.scale)
        self._side = max(_LEAST_TILE, _HR_SIDE // sensor.scale)
        self._tiles: TileCache[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = TileCache(_TILES_KEPT)

    def detect(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Classes (h, w), 255 = unknown, and confidence (h, w) in steps of 1 / 250, 0 = unknown, of an LR window.

        Confidence is the network's probability of the class that is told. Unknown is where the scene or more than half
        of a pixel's reference is missing, and what is less sure than the limit.
        """
        classes, confidence = (np.empty(window.shape, dtype=np.uint8) for _ in range(2))
        for tile, part in window.cells(self._side):
            to, at = part.within(window), part.within(tile)
            found = self._tiles.get(tile, self._computed)
            classes[to], confidence[to] = found[0][at], found[1][at]
        return classes, confidence

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices, 255 = unknown; `window` in pixels of the target, may reach outside."""
        scale = self.sensor.scale
        window = window.shift(self._origin[0] * scale, self._origin[1] * scale)
        cover = window.divide(scale)
        fine = repeated(self.detect(cover)[0], scale)
        return np.ascontiguousarray(fine[window.within(cover.multiply(scale))])

    def close(self) -> None:
        """Forgets the tiles."""
        self._tiles.clear()

    def _computed(self, tile: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        reach, spare = self.detector.network.reach, self.reach - self.detector.network.reach
        wide = tile.pad(self.reach)
        values, valid = self._scene(wide)
        whole: NDArray[np.bool_] = np.logical_and.reduce(valid, axis=0)
        if not whole[tile.within(wide)].any():
            return np.full(tile.shape, UNKNOWN_CLASS, np.uint8), np.zeros(tile.shape, np.uint8)
        reference = self._reference(wide.multiply(self.sensor.scale))
        nir = self.channels[BANDS.index("nir")] is not None
        with torch.inference_mode():
            features = change_features(
                self._bands(values),
                torch.from_numpy(whole),
                self._bands(reference),
                self.sensor,
                nir=nir,
            )
            features = features[:, spare : features.shape[1] - spare, spare : features.shape[2] - spare]
            share = torch.softmax(self.detector.network(features[None]), 1)[0].numpy()
            known = (features[-2:] > 0).all(dim=0).numpy()[reach:-reach, reach:-reach]
        return self._told(share, known)

    def _told(
        self, share: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Classes and confidence of probabilities (K, h, w)."""
        steps = np.rint(share * STEPS).astype(np.uint8)
        changed = np.rint((1 - share[0]) * STEPS) >= round(self.detector.threshold * STEPS)
        now = np.argmax(steps[1:], axis=0) + 1
        sure = np.where(changed, np.take_along_axis(steps, now[None], axis=0)[0], steps[0]).astype(np.uint8)
        classes = self._classes[np.where(changed, now, 0)]
        hidden = ~known | (sure < round(self._least * STEPS))
        classes[hidden] = UNKNOWN_CLASS
        sure[~known] = 0
        return classes, sure

    def _bands(self, image: NDArray[np.float32]) -> torch.Tensor:
        """The detector's bands, zeros for a missing one (NaN where the reference is)."""
        zeros = np.where(np.isnan(image[:1]), np.nan, 0.0)
        parts = [zeros if at is None else image[at : at + 1] for at in self.channels]
        return torch.from_numpy(np.concatenate(parts).astype(np.float64))
