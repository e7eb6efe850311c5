"""Peaks between samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def vertex(values: NDArray[np.floating[Any]], at: int) -> float:
    """Where the parabola through sample `at` and its neighbours is highest, in samples from it; 0 at the ends."""
    if not 0 < at < len(values) - 1:
        return 0.0
    below, here, above = (float(v) for v in values[at - 1 : at + 2])
    bend = below - 2 * here + above
    return float(np.clip(0.5 * (below - above) / bend, -0.5, 0.5)) if bend < 0 else 0.0
