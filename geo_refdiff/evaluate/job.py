"""One tile as every method sees it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from geo_refdiff.evaluate.tiles import Tile
from geo_refdiff.sensor.sensor import SensorModel


@dataclass(frozen=True, slots=True)
class Job:
    """One tile as a method sees it; images (1, C, ...) float32 in DN.

    Attributes:
        tile: with the truth, which methods leave alone.
        lr: as the sensor saw the truth.
        sensor: the operator as the methods are told.
        other: the reference of another place in the radiometry of the LR, where a method asks for it.
        consistency: "window", "wiener", or how the product corrects the whole; see `Request`.
        noise: standard deviation of the noise of `lr`, DN.
    """

    tile: Tile
    lr: Tensor
    sensor: SensorModel
    other: Tensor | None = None
    consistency: str = "window"
    noise: float = 0.0
