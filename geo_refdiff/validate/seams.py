"""Whether borders of scene pixels can be seen in an output: gradients across them beside gradients inside."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isfinite, isnan, nan

import numpy as np
from numpy.typing import NDArray

PROMISED = 0.02
"""How far gradients across borders may be from those inside, as a share of these."""

DETAIL = 3.0
"""How many times steeper than the interpolated scene an output must be inside scene pixels for that to be judged: any
smooth interpolation is steepest at the borders, halfway between its samples."""

BLOCKS = 1.5
"""How many times the ratio of the interpolated scene an output's own may be, however little detail it has."""

_FINEST = 4
"""Least scale that is judged: below it there are too few places inside a scene pixel to tell how they scatter."""

_DEVIATIONS = 3.0


@dataclass
class Gradients:
    """Absolute differences of neighbouring pixels, by their place within scene pixels.

    Attributes:
        scale: HR pixels along an LR pixel, 2 or more.
    """

    scale: int
    _sums: NDArray[np.float64] = field(init=False)
    _counts: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._sums, self._counts = np.zeros(self.scale), np.zeros(self.scale)

    def feed(self, pixels: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add a tile of whole scene pixels, (C, height, width); differences between two valid pixels count."""
        for image, known in ((pixels, valid), (pixels.swapaxes(1, 2), valid.swapaxes(1, 2))):
            good = known[:, :, 1:] & known[:, :, :-1]
            step = np.where(good, np.abs(np.diff(np.where(known, image, 0), axis=2)), 0)
            self._sums += [step[:, :, p :: self.scale].sum(dtype=np.float64) for p in range(self.scale)]
            self._counts += [good[:, :, p :: self.scale].sum() for p in range(self.scale)]

    @property
    def places(self) -> NDArray[np.float64]:
        """(scale,) means at each place within a scene pixel, the last one across its border; NaN where unknown."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self._sums / self._counts)

    @property
    def inside(self) -> float:
        """Mean inside scene pixels; NaN where nothing was counted."""
        return float(self.places[:-1].mean())

    @property
    def ratio(self) -> float:
        """Across borders over inside; infinite where there is nothing inside, NaN where there is nothing at all."""
        border = float(self.places[-1])
        if self.inside == 0:
            return inf if border > 0 else nan
        return border / self.inside

    @property
    def scatter(self) -> float:
        """Standard deviation of the places inside, as a share of their mean; NaN below a scale of 4."""
        if self.scale < _FINEST or not self.inside:
            return nan
        return float(self.places[:-1].std(ddof=1)) / self.inside


@dataclass(frozen=True, slots=True)
class Seams:
    """What the gradients say.

    Attributes:
        ratio: across borders of scene pixels over inside; 1: no seams, infinite: nothing but blocks, NaN: flat.
        scatter: standard deviation of the same among the places inside; NaN where unknown.
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
        """Whether the output has enough detail of its own for the 2 % to mean something."""
        return isfinite(self.ratio) and isfinite(self.scatter) and self.detail >= DETAIL

    @property
    def blocks(self) -> bool:
        """Whether scene pixels show as blocks, beyond what rounding makes of an interpolation."""
        return self.ratio > BLOCKS * max(self.interpolated, 1.0)

    @property
    def limit(self) -> float:
        """How far the ratio may be from 1: what is promised, and what places inside differ by among each other."""
        return PROMISED + _DEVIATIONS * self.scatter

    @property
    def broken(self) -> str:
        """One line that says what is wrong; empty where nothing is."""
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
        told = {k: None if isnan(v) else v if isfinite(v) else "infinite" for k, v in numbers.items()}
        return {**told, "judged": self.judged}

    def __str__(self) -> str:
        if isnan(self.ratio):
            return "none: a flat image"
        told = f"{self.ratio:.4f} (gradient across borders of scene pixels over inside"
        told += f", where it scatters by {self.scatter:.4f})" if isfinite(self.scatter) else ")"
        if self.judged or self.blocks:
            return told
        if isnan(self.scatter) and isfinite(self.ratio):
            return f"{told}; not judged: too few places inside a scene pixel"
        return f"{told}; not judged: hardly any detail ({self.detail:.2g} times the interpolated scene's gradient)"
