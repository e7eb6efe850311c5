"""Seams at the borders of scene pixels: gradients across borders against gradients inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite, isnan, nan

import numpy as np
from numpy.typing import NDArray

PROMISED = 0.02
"""Relative difference allowed between gradients across borders and inside."""

DETAIL = 3.0
"""Gradient inside scene pixels, relative to the interpolated scene, from which on seams are judged: any smooth
interpolation is steepest at the borders, halfway between its samples."""

BLOCKS = 1.5
"""Largest ratio of border to inside gradients relative to that of the interpolated scene, whatever the detail."""

_FINEST = 4
"""Smallest scale that is judged: below it there are too few positions inside a scene pixel to measure scatter."""

_DEVIATIONS = 3.0


@dataclass
class Gradients:
    """Absolute differences of neighbouring pixels by their position within scene pixels.

    Attributes:
        scale: output pixels along a scene pixel, 2 or more.
    """

    scale: int
    _sums: NDArray[np.float64] = field(init=False)
    _counts: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._sums, self._counts = np.zeros(self.scale), np.zeros(self.scale)

    def feed(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add a tile of whole scene pixels, (C, height, width); differences of two valid pixels are counted."""
        for image, ok in ((pixels, valid), (pixels.swapaxes(1, 2), valid.swapaxes(1, 2))):
            good = ok[:, :, 1:] & ok[:, :, :-1]
            step = np.where(good, np.abs(np.diff(np.where(ok, image, 0), axis=2)), 0)
            self._sums += [step[:, :, p :: self.scale].sum(dtype=np.float64) for p in range(self.scale)]
            self._counts += [good[:, :, p :: self.scale].sum() for p in range(self.scale)]

    @property
    def places(self) -> NDArray[np.float64]:
        """(scale,) mean at each position within a scene pixel, the last across its border; NaN without data."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self._sums / self._counts)

    @property
    def inside(self) -> float:
        """Mean inside scene pixels; NaN where nothing was counted."""
        return float(self.places[:-1].mean())

    @property
    def ratio(self) -> float:
        """Gradient across borders over inside; infinite if flat inside, NaN if flat everywhere."""
        border = float(self.places[-1])
        if self.inside == 0:
            return inf if border > 0 else nan
        return border / self.inside

    @property
    def scatter(self) -> float:
        """Relative standard deviation of the positions inside; NaN below a scale of 4."""
        if self.scale < _FINEST or not self.inside:
            return nan
        return float(self.places[:-1].std(ddof=1)) / self.inside


@dataclass(frozen=True, slots=True)
class Seams:
    """Gradients across borders of scene pixels, compared.

    Attributes:
        ratio: across borders of scene pixels over inside; 1: no seams, infinite: nothing but blocks, NaN: flat.
        scatter: relative standard deviation of the positions inside; NaN if unknown.
        interpolated: the ratio of the interpolated scene, in the output's data type.
        detail: gradient inside scene pixels over that of the interpolated scene; NaN where that is flat.
    """

    ratio: float = nan
    scatter: float = nan
    interpolated: float = nan
    detail: float = nan

    @classmethod
    def of(cls, output: Gradients, interpolated: Gradients) -> Seams:
        """From the gradients of an output and of the interpolated scene over the same pixels."""
        detail = output.inside / interpolated.inside if interpolated.inside else nan
        return cls(output.ratio, output.scatter, interpolated.ratio, detail)

    @property
    def judged(self) -> bool:
        """Whether the output has enough detail of its own for the limit to be meaningful."""
        return isfinite(self.ratio) and isfinite(self.scatter) and self.detail >= DETAIL

    @property
    def blocks(self) -> bool:
        """Whether scene pixels show as blocks, beyond the effect of rounding."""
        return self.ratio > BLOCKS * max(self.interpolated, 1.0)

    @property
    def limit(self) -> float:
        """Allowed distance of the ratio from 1: the promise plus the scatter of the positions inside."""
        return PROMISED + _DEVIATIONS * self.scatter

    @property
    def broken(self) -> str:
        """One line that says what is wrong; empty if nothing is."""
        if self.blocks:
            return (
                f"seams: gradients across borders of scene pixels are {self.ratio:.4g} times those inside, "
                f"{self.interpolated:.4g} times in the interpolated scene: scene pixels show as blocks"
            )
        if self.judged and abs(self.ratio - 1) > self.limit:
            return (
                f"seams: gradients across borders of scene pixels differ by {self.ratio - 1:+.2%} from those inside, "
                f"more than the {PROMISED:.0%} that are promised and the {self.limit - PROMISED:.2%} of scatter inside"
            )
        return ""

    def to_dict(self) -> dict[str, float | bool | str | None]:
        """JSON-ready; an infinite ratio is text."""
        numbers = {"ratio": self.ratio, "scatter": self.scatter, "detail": self.detail}
        values = {k: None if isnan(v) else v if isfinite(v) else "infinite" for k, v in numbers.items()}
        return {**values, "judged": self.judged}

    @property
    def unjudged(self) -> str:
        """Why they are not judged; empty if they are."""
        if isnan(self.ratio):
            return "a flat image"
        if self.judged or self.blocks:
            return ""
        if isnan(self.scatter) and isfinite(self.ratio):
            return "too few positions inside a scene pixel"
        return f"hardly any detail ({self.detail:.2g} times the interpolated scene's gradient)"

    def __str__(self) -> str:
        if isnan(self.ratio):
            return f"none: {self.unjudged}"
        text = f"{self.ratio:.4f} (gradient across borders of scene pixels over inside"
        text += f", where it scatters by {self.scatter:.4f})" if isfinite(self.scatter) else ")"
        return f"{text}; not judged: {self.unjudged}" if self.unjudged else text
