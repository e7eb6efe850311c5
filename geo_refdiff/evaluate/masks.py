"""Change masks that a model is given: none, the data set's, a wrong one, the product's own, or images in a folder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.evaluate.detection import TileDetector
from geo_refdiff.evaluate.image_folder import ImageFolder
from geo_refdiff.evaluate.tiles import Tile

WRONG_SHARE = 0.3
"""Share of the changed area that the mask "wrong" misses, and invents elsewhere."""

GIVEN_MASKS = ("none", "true", "wrong", "auto")
"""What else is a folder."""

_PATCH = 16


@dataclass(frozen=True, slots=True)
class Masks:
    """Which change mask a model is given.

    Attributes:
        name: "none", "true", "wrong" (see `spoilt_mask`), "auto", or a folder's name.
        folder: of class indices by the tile's name; 255 = not known.
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
        return spoilt_mask(tile.mask, classes, tile.spec.index) if self.name == "wrong" else tile.mask


def spoilt_mask(mask: Tensor, classes: int, seed: int, share: float = WRONG_SHARE) -> Tensor:
    """A mask of which `share` is wrong: that much of the changed area is missed, and as much is invented elsewhere.

    Args:
        mask: (1, 1, H, W) uint8, 255 = not known.
        classes: number of classes, class 0 included.
        seed: of where the errors lie, which come in patches of some 16 px.
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
