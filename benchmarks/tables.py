"""Small Markdown tables of means, standard errors and paired differences."""

from __future__ import annotations

from collections.abc import Sequence

from geo_refdiff.evaluate.figures import mean_and_error
from geo_refdiff.evaluate.report import markdown

__all__ = ["markdown", "paired", "plus_minus", "verdict"]


def paired(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Mean over the tiles of (one - other) and its standard error; tiles that lack a figure (NaN) are left out."""
    mean, error, _ = mean_and_error([a - b for a, b in zip(one, other, strict=True)])
    return mean, error


def plus_minus(mean: float, error: float, digits: int = 4, signed: bool = True) -> str:
    """ "+0.0123 ± 0.0012"."""
    return f"{mean:{'+' if signed else ''}.{digits}f} ± {error:.{digits}f}"


def verdict(mean: float, error: float) -> str:
    """Whether a difference is above 0: "yes" or "no" where two standard errors leave no doubt."""
    if abs(mean) > 2.0 * error:
        return "yes" if mean > 0 else "no"
    return f"{'yes' if mean >= 0 else 'no'} by the mean, not settled by two standard errors"
