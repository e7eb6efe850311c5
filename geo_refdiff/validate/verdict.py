"""A verdict for people: which promises an output keeps, and its figures beside those of bicubic interpolation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["kept", "broken", "not judged"]

PROMISES: dict[str, str] = {
    "grid": "it is on the scene's grid divided by the scale, and holds the part that its tags name",
    "numbers": "data type, nodata, band names, scales, offsets and units are those of the scene",
    "missing pixels": "a pixel is valid where the scene is valid, and nowhere else",
    "consistency": "seen by the declared sensor it is the scene, as closely as its tags say",
    "statistics": "its pixels are those that were written",
    "seams": "scene pixels do not show as blocks or lines",
}
"""What an output promises, by name."""

_FINER = 1.1


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise and what became of it.

    Attributes:
        name: one of `PROMISES`.
        broken: what does not hold, one line each; none: it is kept, or not judged.
        unjudged: why it was not judged; empty: it was.
    """

    name: str
    broken: tuple[str, ...] = ()
    unjudged: str = ""

    @property
    def state(self) -> State:
        """What became of it."""
        return "broken" if self.broken else "not judged" if self.unjudged else "kept"

    @property
    def text(self) -> str:
        """What is promised, or what is wrong with it."""
        return "; ".join(self.broken) or self.unjudged or PROMISES[self.name]


@dataclass(frozen=True, slots=True)
class ComparedFigure:
    """A figure of an output beside that of its scene enlarged by bicubic interpolation.

    Attributes:
        name: "PSNR", "SSIM", "HaarPSI", "scene residual", "sharpness" or "detail shared".
        own, bicubic: the output's, and bicubic's.
        unit: of both.
    """

    name: str
    own: float
    bicubic: float
    unit: str = ""

    def __str__(self) -> str:
        own, other = f"{self.own:.4g}{self.unit}", f"{self.bicubic:.4g}{self.unit}"
        if self.name == "scene residual":
            return f"Seen by the declared sensor it differs from the scene by {own} (rms), bicubic by {other}."
        if self.name == "sharpness":
            how = "hardly sharper" if self.own < _FINER * self.bicubic else "sharper"
            return f"It is {how} than bicubic: gradients inside scene pixels are {self.own:.2f} times as steep."
        if self.name == "detail shared":
            return f"Its detail correlates with the reference's by {self.own:.3f}, bicubic's by {self.bicubic:.3f}."
        digits = 2 if self.name == "PSNR" else 4
        own, other = (f"{v:.{digits}f}{self.unit}" for v in (self.own, self.bicubic))
        gain = round(self.own, digits) - round(self.bicubic, digits)
        closer = (
            "as close to the truth" if not gain else "closer to the truth" if gain > 0 else "FARTHER from the truth"
        )
        return f"{self.name} is {own}, bicubic's {other}: {closer}."


@dataclass(frozen=True, slots=True)
class Verdict:
    """Promises in the order of `PROMISES`, and figures."""

    promises: tuple[Promise, ...]
    figures: tuple[ComparedFigure, ...]

    @property
    def ok(self) -> bool:
        """Whether no promise is broken."""
        return not any(p.broken for p in self.promises)

    @property
    def summary(self) -> str:
        """One sentence."""
        states = [p.state for p in self.promises]
        unjudged = states.count("not judged")
        rest = f"; {unjudged} could not be judged" if unjudged else ""
        if self.ok:
            return f"The file keeps {_counted(states.count('kept'), len(states))} promises{rest}."
        broken = ", ".join(p.name for p in self.promises if p.broken)
        return (
            f"The file BREAKS {states.count('broken')} of {len(states)} promises ({broken}){rest}: do not rely on it."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "summary": self.summary,
            "promises": [{"name": p.name, "state": p.state, "text": p.text} for p in self.promises],
            "quality": [{"name": f.name, "own": f.own, "bicubic": f.bicubic, "text": str(f)} for f in self.figures],
        }

    def __str__(self) -> str:
        width = max(len(state) for state in ("kept", "BROKEN", "not judged")) + 2
        marks = {"kept": "kept", "broken": "BROKEN", "not judged": "not judged"}
        lines = [f"  {marks[p.state]:{width}}{p.name}: {p.text}" for p in self.promises]
        return "\n".join([f"verdict: {self.summary}", *lines, *(f"  {figure}" for figure in self.figures)])


def verdict_of(promises: Iterable[Promise], figures: Iterable[ComparedFigure], unjudged: str) -> Verdict:
    """The verdict on promises in any order; of those that are not among them it says that they were not judged."""
    by_name = {p.name: p for p in promises}
    return Verdict(tuple(by_name.get(name, Promise(name, unjudged=unjudged)) for name in PROMISES), tuple(figures))


def _counted(kept: int, total: int) -> str:
    return f"all {total}" if kept == total else f"{kept} of {total}"
