"""Sample scenes that the project draws itself: small rasters with a known truth, and the painter behind them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from geo_refdiff.errors import InputError

SAMPLES: Final = ("valley",)
"""Names of the bundled samples."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Paths of one bundled sample; its README.md describes the files."""

    name: str
    folder: Path
    scene: Path
    """8 m image of the new date, red, green, blue, nir, uint8, nodata 0."""
    reference: Path
    """1 m image of the old date in another CRS, slightly shifted, uint8, nodata 0."""
    mask: Path
    """1 m change mask: 0 = no change, otherwise the land cover that the pixel has now."""
    truth: Path
    """1 m image of the new date."""
    classes: Path
    """JSON table of the mask's classes."""
    facts: Path
    """JSON with the seed, the grids, the sensor and the reference's shift."""


def sample(name: str = "valley") -> Sample:
    """The bundled sample `name`; raises InputError for a name that is not in `SAMPLES`."""
    if name not in SAMPLES:
        raise InputError(f"unknown sample {name!r}; there is {', '.join(SAMPLES)}")
    folder = Path(str(files(__name__).joinpath(name)))
    return Sample(
        name,
        folder,
        scene=folder / "scene.tif",
        reference=folder / "reference.tif",
        mask=folder / "mask.tif",
        truth=folder / "truth.tif",
        classes=folder / "classes.json",
        facts=folder / f"{name}.json",
    )


__all__ = ["SAMPLES", "Sample", "sample"]
