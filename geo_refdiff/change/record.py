"""The change mask of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geo_refdiff.change.class_map import Key
from geo_refdiff.change.polygons import VectorInfo
from geo_refdiff.raster.info import RasterInfo

Kind = Literal["classes", "colours", "polygons", "auto"]


@dataclass(frozen=True)
class MaskRecord:
    """A change mask, inspected and mapped to the classes of the model.

    Attributes:
        kind: a raster of classes, one of colours, polygons, or found by comparing scene and reference.
        raster: of the first two kinds.
        polygons: of the third.
        values: (value, colour or text of the mask, class index of the model); empty: the mask holds class indices. With
            "auto": (class index of the detector, of the model).
        confidence: raster that says how sure the mask is.
        min_confidence: below it the class is unknown.
        channels: with "auto", for red, green, blue, nir the position among the plan's bands.
        detector: with "auto", SHA-256 of the detector.
        on_scene: whether it lies on the scene; else it is moved with the reference.
    """

    kind: Kind
    raster: RasterInfo | None = None
    polygons: VectorInfo | None = None
    values: tuple[tuple[Key, int], ...] = ()
    confidence: RasterInfo | None = None
    min_confidence: float = 0.0
    channels: tuple[int | None, ...] = ()
    detector: str = ""
    on_scene: bool = False

    @property
    def mtime_ns(self) -> int:
        """Time of last change of the newest file, 0 if unknown or none."""
        return max((part.mtime_ns for part in (self.raster, self.polygons, self.confidence) if part), default=0)

    @property
    def hides_no_change(self) -> bool:
        """Whether the class index 0, no change, is a raster's nodata value, and so means not known."""
        return self.kind == "classes" and not self.values and self.raster is not None and self.raster.nodata == 0

    @property
    def classes(self) -> dict[int, int]:
        """With "auto", class index of the detector -> of the model."""
        return {key: index for key, index in self.values if isinstance(key, int)}
