"""Scene and reference at one placement, described over the same pixels."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from geo_refdiff.registration.features import (
    FILL,
    LOCAL,
    Complex,
    Gradient,
    Image,
    Mask,
    agreement,
    edges,
    gradients,
    likeness,
    local_power,
    orientation,
    shares,
    structure,
    taper,
    usable,
)
from geo_refdiff.registration.view import Placement, View

Shift = tuple[float, float]

_LEAST_STRUCTURE = 0.1


class Frame:
    """What does not change with the placement as long as the same pixels are known: the scene's side of a pair.

    Attributes:
        image: (C, h, w), the scene.
        both: (h, w), pixels that both images know.
        used: (h, w), pixels that are compared.
        pixels: LR pixels that both images know.
        gradients: of the scene, a band each.
    """

    def __init__(self, image: Image, both: Mask) -> None:
        self.image, self.both = image, both
        self.used = usable(both)
        self.pixels = int(both.sum())
        self._spread = shares(both, FILL)
        self.gradients = self.described(image)

    def described(self, image: Image) -> list[Gradient]:
        """Gradients of either image (C, h, w) over the frame's pixels."""
        return gradients(image, self.both, self.used, self._spread)

    def edges_of(self, bands: list[Gradient]) -> Image:
        """Edge strengths of either image."""
        return edges(bands, self.used, self._local)

    @cached_property
    def _local(self) -> Image | None:
        return shares(self.used, LOCAL)

    @cached_property
    def orientation(self) -> Complex:
        """Of the scene."""
        return orientation(self.gradients, self.used)

    @cached_property
    def edges(self) -> Image:
        """Of the scene."""
        return self.edges_of(self.gradients)

    @cached_property
    def power(self) -> Image:
        """Local power of the scene's orientation."""
        return local_power(self.orientation)

    @cached_property
    def taper(self) -> Image:
        """Weights of the pixels, (h, w)."""
        return taper(self.used)

    @cached_property
    def solid(self) -> Mask:
        """Pixels all around which is compared, too."""
        return usable(self.used)


class Pair:
    """Scene and reference at one placement.

    Attributes:
        view, placement: as given.
        frame: the scene's side.
        reference: gradients of the reference, a band each.
    """

    def __init__(self, view: View, placement: Placement, like: Pair | None = None) -> None:
        """Look at the reference where it is placed; `like`: a pair of the same view, whose frame may do here, too."""
        self.view, self.placement = view, placement
        self._image, seen = view.render(placement)
        both = view.valid & seen
        same = like is not None and like.view is view and np.array_equal(like.frame.both, both)
        self.frame: Frame = like.frame if like is not None and same else Frame(view.scene, both)
        self.reference = self.frame.described(self._image)

    @property
    def pixels(self) -> int:
        """LR pixels that both images know."""
        return self.frame.pixels

    @property
    def featureless(self) -> bool:
        """Whether either image has no contrast at all."""
        return not (self.frame.gradients and self.reference)

    @cached_property
    def orientations(self) -> tuple[Complex, Complex]:
        """Of scene and reference."""
        return self.frame.orientation, orientation(self.reference, self.frame.used)

    @cached_property
    def edges(self) -> tuple[Image, Image]:
        """Of scene and reference."""
        return self.frame.edges, self.frame.edges_of(self.reference)

    @cached_property
    def agreement(self) -> Image:
        """Weights (h, w) by how far the orientations agree around each pixel."""
        return agreement(*self.orientations, self.frame.power)

    @property
    def likeness(self) -> float:
        """How far the contrasts of the images run alike, -1..1."""
        return likeness(self.frame.image, self._image, self.frame.both)

    @property
    def structured(self) -> bool:
        """Whether both images show more than noise."""
        return all(structure(x, self.frame.both) > _LEAST_STRUCTURE for x in (self.frame.image, self._image))

    @property
    def shift(self) -> Shift:
        """The placement, of a pair that is placed by one shift."""
        row, col = self.placement
        return float(row), float(col)

    def moved(self, step: Shift) -> Pair:
        """The pair with the reference placed elsewhere, by one shift."""
        return self.placed((self.shift[0] + step[0], self.shift[1] + step[1]))

    def placed(self, placement: Placement) -> Pair:
        """The pair with the reference placed anywhere."""
        return Pair(self.view, placement, self)
