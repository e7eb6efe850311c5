"""The infinite pixel lattice of a CRS and affine, counted from the CRS origin.

Windows, noise and everything that is tiled or random is addressed on the lattice, so that a cut-out of a
scene, by AOI or as a file of its own, sees the same windows and the same noise as the whole scene.
"""

from __future__ import annotations

from math import floor

from affine import Affine

# Grids sit at whole pixels or, Landsat's, at half a pixel from the CRS origin. A rounding border at 3/4 of a
# pixel is as far as can be from both, so that float noise in a file's corner never moves it by a pixel.
_PHASE = 0.25


def lattice_origin(transform: Affine) -> tuple[int, int]:
    """(row, col) of a raster's corner on the lattice of its own CRS and affine.

    With the affine's linear part L and corner (c, f) this is `floor(inv(L) @ (c, f) + 0.25)`: rasters cut
    from one another at whole pixels differ by exactly those whole pixels.

    Args:
        transform: pixel (col, row) to CRS units; any rotation, either vertical direction.
    """
    a, b, c, d, e, f = (float(v) for v in transform[:6])
    det = a * e - b * d
    col = (e * c - b * f) / det
    row = (a * f - d * c) / det
    return floor(row + _PHASE), floor(col + _PHASE)


def starts(lo: int, hi: int, stride: int) -> range:
    """The multiples of `stride` whose cells `[k, k + stride)` meet the half-open interval `[lo, hi)`.

    The cells lie on the lattice and do not depend on the interval. Empty where `hi <= lo`.
    """
    if hi <= lo:
        return range(0)
    return range(lo // stride * stride, hi, stride)
