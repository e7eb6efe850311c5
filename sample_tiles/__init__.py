"""The sample scene of the project: small rasters with a known truth, drawn by the painter beside this package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """Paths of the bundled sample; its README.md describes the files."""

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


def sample() -> Sample:
    """The bundled sample, the valley."""
    folder = Path(str(files(__name__))) / "valley"
    return Sample(
        folder,
        scene=folder / "scene.tif",
        reference=folder / "reference.tif",
        mask=folder / "mask.tif",
        truth=folder / "truth.tif",
        classes=folder / "classes.json",
        facts=folder / "valley.json",
    )
