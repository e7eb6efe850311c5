"""Whether a truth holds the same numbers as the scene: the same units, not another scale of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geo_refdiff.errors import InputError
from geo_refdiff.raster.crs import footprint
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.sampling import spread_tiles
from geo_refdiff.raster.warp import WarpedReader

_SIDE, _TILES = 32, 4
"""scene pixels along a tile, and tiles along an axis."""

_FACTOR = 3.0
"""How many times wider one range may be than the other: other light or season stays well below."""

_TELLING = 0.1
"""Of the scene's range: what spreads less, and is closer, may be anything (a lake)."""

_LOW, _HIGH = 0.5, 99.5
_FEWEST = 16


def check_units(
    source: RasterInfo,
    bands: Sequence[int],
    truth: RasterInfo,
    chosen: Sequence[int],
    scale: int,
    value_range: float,
) -> None:
    """Whether truth and scene can be compared number by number, by what they declare and by their values.

    Args:
        source, truth: as inspected.
        bands, chosen: 1-based, pair by pair.
        scale: output pixels along a scene pixel.
        value_range: of the scene, in its numbers.

    Raises:
        InputError: units, scale or offset that both declare differ; or values over the same ground lie apart by more
            than they spread, or one spreads 3 times as wide as the other.
        GridError: no overlap.
    """
    for band, other in zip(bands, chosen, strict=True):
        ours, theirs = _declared(source, band), _declared(truth, other)
        for what, own, problem in zip(("unit", "scale and offset"), ours, theirs, strict=True):
            if own is not None and problem is not None and own != problem:
                raise InputError(
                    f"{truth.path}: its band {other} has {what} {problem}, the scene's band {band} has {own}; "
                    f"give a truth in the scene's own numbers"
                )
    for place, (a, b) in enumerate(_samples(source, bands, truth, chosen, scale)):
        if a.size < _FEWEST:
            continue
        (low, high), (least, most) = np.percentile(a, [_LOW, _HIGH]), np.percentile(b, [_LOW, _HIGH])
        narrow, wide = sorted((high - low, most - least))
        apart = abs(float(np.median(a)) - float(np.median(b)))
        if max(apart, wide) > _TELLING * value_range and (apart > wide or wide > _FACTOR * narrow):
            raise InputError(
                f"{truth.path}: its band {chosen[place]} holds {least:.4g} to {most:.4g} where the scene holds "
                f"{low:.4g} to {high:.4g}; give a truth in the scene's own numbers (gdal_translate -scale ... -ot ...)"
            )


def _declared(info: RasterInfo, band: int) -> tuple[str | None, tuple[float, float] | None]:
    """Unit, and (scale, offset); None where nothing is said."""
    pair = (info.scales[band - 1], info.offsets[band - 1])
    return info.units[band - 1] or None, None if pair == (1.0, 0.0) else pair


def _samples(
    source: RasterInfo, bands: Sequence[int], truth: RasterInfo, chosen: Sequence[int], scale: int
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each band values of the scene and means of the truth over the same scene pixels."""
    samples: list[list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = [[] for _ in bands]
    target = output_geobox(scene_geobox(source), scale)
    with RasterReader(source, bands) as coarse, WarpedReader(truth, chosen, target, "cubic") as fine:
        for tile in spread_tiles(footprint(truth, source), _SIDE, _TILES, _TILES):
            values, valid = coarse.read(tile)
            image, truth_valid = fine.read(tile.multiply(scale))
            cells = (tile.height, scale, tile.width, scale)
            whole = truth_valid.reshape(cells).all(axis=(1, 3))
            means = image.astype(np.float64).reshape(len(bands), *cells).mean(axis=(2, 4))
            for band, pairs in enumerate(samples):
                good = whole & valid[band]
                pairs.append((values[band][good].astype(np.float64), means[band][good]))
    none = np.zeros(0)
    return [
        (np.concatenate([none, *(a for a, _ in pairs)]), np.concatenate([none, *(b for _, b in pairs)]))
        for pairs in samples
    ]
