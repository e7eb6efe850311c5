"""The canvas of one date: reflected light, land cover and heights, and soft-edged painting of simple shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sample_tiles.painter.texture import F32


class Patch(NamedTuple):
    """A window of the canvas around a shape: slices, local coordinates in metres and coverage 0..1, all (h, w)."""

    where: tuple[slice, slice]
    s: F32
    t: F32
    alpha: F32


@dataclass
class Canvas:
    """Layers of one date. Map metres: x east from the left border, y south from the upper border."""

    image: F32
    """Sunlit DN, (4, H, W)."""
    classes: NDArray[np.uint8]
    """Land cover, (H, W)."""
    height: F32
    """Height above ground of what casts shadows, metres, (H, W)."""
    gsd: float

    @classmethod
    def blank(cls, shape: tuple[int, int], gsd: float) -> Canvas:
        """An empty canvas of (H, W) pixels of `gsd` metres."""
        return cls(np.zeros((4, *shape), np.float32), np.zeros(shape, np.uint8), np.zeros(shape, np.float32), gsd)

    def window(self, x: float, y: float, radius: float) -> tuple[slice, slice] | None:
        """Slices of the square of half-side `radius` around a place, or None if it is off the canvas."""
        rows, cols = self.height.shape
        c0, c1 = max(0, int((x - radius) / self.gsd)), min(cols, int((x + radius) / self.gsd) + 1)
        r0, r1 = max(0, int((y - radius) / self.gsd)), min(rows, int((y + radius) / self.gsd) + 1)
        return (slice(r0, r1), slice(c0, c1)) if c0 < c1 and r0 < r1 else None

    def _local(self, where: tuple[slice, slice], x: float, y: float) -> tuple[F32, F32]:
        px = ((np.arange(where[1].start, where[1].stop) + 0.5) * self.gsd - x).astype(np.float32)
        py = ((np.arange(where[0].start, where[0].stop) + 0.5) * self.gsd - y).astype(np.float32)
        return px[None, :], py[:, None]

    def rectangle(self, x: float, y: float, angle: float, half: tuple[float, float]) -> Patch | None:
        """Patch of a rectangle with half sides `half` (along, across `angle`), edges one pixel soft."""
        where = self.window(x, y, float(np.hypot(*half)) + self.gsd)
        if where is None:
            return None
        px, py = self._local(where, x, y)
        c, sn = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        s, t = px * c + py * sn, py * c - px * sn
        soft = np.float32(1 / self.gsd)
        alpha = np.clip((half[0] - np.abs(s)) * soft + 0.5, 0, 1) * np.clip((half[1] - np.abs(t)) * soft + 0.5, 0, 1)
        return Patch(where, s, t, alpha.astype(np.float32))

    def disc(self, x: float, y: float, radius: float, squash: float = 1.0, angle: float = 0.0) -> Patch | None:
        """Patch of an ellipse with axes `radius` and `radius * squash` metres."""
        where = self.window(x, y, radius + self.gsd)
        if where is None:
            return None
        px, py = self._local(where, x, y)
        c, sn = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        s, t = px * c + py * sn, (py * c - px * sn) / np.float32(squash)
        alpha = np.clip((radius - np.hypot(s, t)) / np.float32(self.gsd) + 0.5, 0, 1)
        return Patch(where, s, t.astype(np.float32), alpha.astype(np.float32))

    def paint(self, patch: Patch, colour: F32, land_cover: int | None, height: F32 | float | None = None) -> None:
        """Lay `colour`, (4,) or (4, h, w), over the patch; class where it covers half a pixel; height in metres."""
        layer = colour[:, None, None] if colour.ndim == 1 else colour
        view = self.image[:, patch.where[0], patch.where[1]]
        view += patch.alpha * (layer - view)
        if land_cover is not None:
            self.classes[patch.where][patch.alpha >= 0.5] = land_cover
        if height is not None:
            ground = self.height[patch.where]
            ground += patch.alpha * (height - ground)

    def cover(self, alpha: F32, colour: F32, land_cover: int | None, height: float | None = None) -> None:
        """Lay `colour` over the whole canvas with coverage `alpha` (H, W)."""
        if alpha.max() > 0:
            self.paint(Patch((slice(None), slice(None)), alpha, alpha, alpha), colour, land_cover, height)
