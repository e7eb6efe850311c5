"""Where a plan reads its reference: the displacement that co-registration measured, as the plan keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.register import Registration


@dataclass(frozen=True, slots=True)
class Coregistration:
    """How the reference, and the mask with it, is laid on the scene.

    Attributes:
        mode: as asked for: "auto", "global", "local" or "off".
        verdict: "registered", "off", or why it is not registered (see `align.registration`).
        kind: of the displacement: "none", "global" or "local".
        displacement: what the scene shows at p the reference shows at p + displacement; scene pixels from the scene's
            corner.
        sigma, before, after: standard error, and root mean square of the shifts before and after, scene px; None where
            unknown.
        dropped: parts of the scene, scene pixels, where the reference is not used because it does not lie right.
        unused: whether it is used nowhere for that reason.
    """

    mode: str
    verdict: str
    kind: str = "none"
    displacement: Displacement = field(default_factory=Displacement)
    sigma: float | None = None
    before: float | None = None
    after: float | None = None
    dropped: tuple[Window, ...] = ()
    unused: bool = False

    @staticmethod
    def of(
        registration: Registration, mode: str, dropped: tuple[Window, ...] = (), unused: bool = False
    ) -> Coregistration:
        """From what was measured."""
        r = registration
        sigma, before, after = (round(v, 4) if np.isfinite(v) else None for v in (r.sigma, r.before, r.after))
        return Coregistration(mode, r.verdict, r.kind, r.displacement, sigma, before, after, dropped, unused)

    def on_target(self, scale: int) -> Displacement | None:
        """The displacement in output pixels; None if nothing is displaced."""
        return None if self.displacement.is_zero else self.displacement.scaled(scale)

    def kept(self, window: Window, scale: int) -> NDArray[np.bool_] | None:
        """(height, width) True = the reference may be used; None: everywhere.

        Args:
            window: output pixels of the whole scene.
            scale: output pixels along a scene pixel.
        """
        parts = [p for p in (d.multiply(scale).intersect(window) for d in self.dropped) if p is not None]
        if not parts:
            return None
        kept = np.ones(window.shape, dtype=np.bool_)
        for part in parts:
            kept[part.within(window)] = False
        return kept
