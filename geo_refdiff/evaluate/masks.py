"""Change masks that a model is given: none, the data set's, a wrong one, the product's own, or images in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.change.detector import AUTO_MIN_CONFIDENCE, BANDS, CLASSES_FOR_MODEL, DetectedMask, Detector
from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.errors import OptionError
from geo_refdiff.evaluate.image_folder import ImageFolder
from geo_refdiff.evaluate.tiles import Tile
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
        """Names of its classes."""
        return self.detector.classes

    def detect(self, lr: Tensor, ref: Tensor, sensor: SensorModel) -> Tensor:
        """(1, 1, H, W) uint8 in the detector's classes, 255 = unknown: as in a product, sure changes alone.

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
    part = torch.full((image.shape[0], *window.shape), torch.nan)
    whole = Window(0, 0, image.shape[1], image.shape[2])
    inside = window.intersect(whole)
    if inside is not None:
        part[:, *inside.within(window)] = image[:, *inside.within(whole)]
    return part


WRONG_SHARE = 0.3
"""Share of the changed area that the mask "wrong" misses, and invents elsewhere."""

GIVEN_MASKS = ("none", "true", "wrong", "auto")
"""What else is a folder."""

_PATCH = 16


@dataclass(frozen=True, slots=True)
class MaskSource:
    """Which change mask a model is given.

    Attributes:
        name: "none", "true", "wrong" (see `corrupted_mask`), "auto", or a folder's name.
        folder: of class indices by the tile's name; 255 = unknown.
        detector: of the mask "auto".
    """

    name: str
    folder: ImageFolder | None = None
    detector: TileDetector | None = None

    def of(self, tile: Tile, classes: int) -> Tensor | None:
        """(1, 1, H, W) uint8 in the data set's classes, None = no mask; not for "auto".

        Args:
            tile: with the true mask.
            classes: number of the data set's classes, class 0 included.
        """
        if self.folder is not None:
            return self.folder.read(tile.spec)
        if self.name == "none":
            return None
        return corrupted_mask(tile.mask, classes, tile.spec.index) if self.name == "wrong" else tile.mask


def corrupted_mask(mask: Tensor, classes: int, seed: int, share: float = WRONG_SHARE) -> Tensor:
    """A mask of which `share` is wrong: that much of the changed area is missed, and as much is invented elsewhere.

    Args:
        mask: (1, 1, H, W) uint8, 255 = unknown.
        classes: number of classes, class 0 included.
        seed: of the places of the errors, patches of some 16 px.
    """
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand((1, 1, *(max(2, -(-n // _PATCH)) for n in mask.shape[-2:])), generator=draw)
    order = F.interpolate(coarse, size=mask.shape[-2:], mode="bicubic", align_corners=False)
    changed, calm = (mask > 0) & (mask != UNKNOWN_CLASS), mask == 0
    wrong = round(share * int(changed.sum()))
    result = mask.clone()
    if wrong == 0:
        return result
    result[changed & (order <= _lowest(order[changed], wrong))] = 0
    invented = torch.randint(1, max(2, classes), (1,), generator=draw, dtype=torch.uint8)
    result[calm & (order <= _lowest(order[calm], wrong))] = invented
    return result


def _lowest(values: Tensor, count: int) -> float:
    return float(values.sort().values[min(count, len(values)) - 1]) if len(values) else -1e9
