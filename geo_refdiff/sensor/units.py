"""Digital numbers and model units: the one conversion between them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Units:
    """Model units are `(digital number - centre) / half_range`: -1..1 over the range of the scene.

    Attributes:
        centre, half_range: digital numbers.
    """

    centre: float
    half_range: float

    def to_model(self, numbers: Tensor) -> Tensor:
        """Digital numbers, real, to model units."""
        return (numbers - self.centre) / self.half_range if self != PLAIN else numbers

    def to_numbers(self, image: Tensor) -> Tensor:
        """Model units to digital numbers, neither rounded nor clipped."""
        return image * self.half_range + self.centre if self != PLAIN else image


PLAIN = Units(0.0, 1.0)
"""Of restorers that work in digital numbers."""

BYTES = Units(127.5, 127.5)
"""Of uint8: 0..255."""
