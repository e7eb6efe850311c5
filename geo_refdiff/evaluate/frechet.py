"""The Frechet distance between two sets of features, each taken as a Gaussian.

Dowson and Landau 1982; as a measure of images Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule
Converge to a Local Nash Equilibrium", equation 6 (FID).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with means and (n - 1) covariances of the rows.

    The trace of the root is computed from the features themselves: with S = X'X / (n - 1) it is the nuclear norm of
    X1 X2' / sqrt((n1 - 1)(n2 - 1)), which is exact also where there are fewer images than features and S has no
    usable matrix root.

    Args:
        first, second: (n1, features) and (n2, features), at least two rows each.

    Raises:
        ValueError: fewer than two rows, or features that do not fit.
    """
    if min(len(first), len(second)) < 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features of shape {first.shape} and {second.shape}: need two rows and equal columns")
    a, b = (np.asarray(x, dtype=np.float64) for x in (first, second))
    shift = a.mean(axis=0) - b.mean(axis=0)
    a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b))
    spread = np.square(a).sum() + np.square(b).sum()
    root = np.linalg.svd(_short(a) @ _short(b).T, compute_uv=False).sum()
    return float(shift @ shift + spread - 2.0 * root)


LEAST_TILES = 4
_GROUPS = 20


def jackknifed(first: NDArray[np.floating], second: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
    """The Frechet distance, and what it is without each of at most 20 groups of rows of both.

    Args:
        first, second: rows of the same images, at least `LEAST_TILES`.
    """
    groups = np.array_split(np.arange(len(first)), min(_GROUPS, len(first)))
    parts = [frechet_distance(np.delete(first, g, axis=0), np.delete(second, g, axis=0)) for g in groups]
    return frechet_distance(first, second), np.array(parts)


def jackknife_error(parts: NDArray[np.float64]) -> float:
    """Standard error of what takes these values without each group (Efron and Stein 1981); of a difference, of its
    values."""
    return float(np.sqrt((len(parts) - 1) * np.var(parts)))


def _short(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with the same X'X, no more of them than columns."""
    if len(rows) <= rows.shape[1]:
        return rows
    return np.asarray(np.linalg.qr(rows, mode="r"), dtype=np.float64)
