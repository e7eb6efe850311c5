"""Change masks from raster files: classes, or colours that stand for classes, and rasters of confidence."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.change.class_map import Key, category_names, list_classes
from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.errors import InputError
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.geobox import Georeferenced, compose, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader, WarpResampling, gsd_ratio
from geo_refdiff.raster.window import Window

TAG = "GEO_REFDIFF_LIES_ON"
"""Tag of a raster: "scene" if it was made on the scene's grid, so that it must not be moved with the reference."""

MIN_CONFIDENCE = 0.5
"""Default limit where a raster of confidence is given."""

_SCAN = 1024
"""Side of the windows in which a whole file is checked, pixels."""

_ROUNDING = 1e-6
_LATTICE_TOLERANCE = 0.01
"""Pixels of the finer grid, over the whole extent of both."""


class ChangeMask(Protocol):
    """A change mask on the output grid, read by window; a pixel's class does not depend on the window."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices, 255 = unknown; `window` in output pixels, may reach outside the grid."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class _WarpedMask:
    """A raster, warped to the output grid, of which a mask is made.

    Args:
        info: from `inspect(path, "mask")`.
        bands: 1-based.
        target: the whole scene's output grid.
        finer: resampling where its pixels are finer than the target's; coarser ones are read by the nearest pixel.
        displacement: of the mask, see `WarpedReader`.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs.
    """

    def __init__(
        self,
        info: RasterInfo,
        bands: Sequence[int],
        target: GeoBox,
        finer: WarpResampling,
        displacement: Displacement | None,
    ) -> None:
        resampling = finer if gsd_ratio(info, target) < 1 - 1e-6 else "nearest"
        self._reader = WarpedReader(info, bands, target, resampling, displacement)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


class ClassMask(_WarpedMask):
    """Class indices on the output grid from a raster of classes or of colours.

    Of classes finer than the grid the most frequent one counts; of coarser ones, and of colours, the nearest pixel.

    Args:
        info, target, displacement: as of `_WarpedMask`; the first three bands of colours are red, green and blue.
        values: value or colour in the file -> class index; others are unknown. Empty: the values are class indices.
        colours: whether the raster holds colours.
    """

    def __init__(
        self,
        info: RasterInfo,
        target: GeoBox,
        values: Mapping[Key, int] | None = None,
        displacement: Displacement | None = None,
        *,
        colours: bool = False,
    ) -> None:
        bands = info.data_bands[: 3 if colours else 1]
        super().__init__(info, bands, target, "nearest" if colours else "mode", displacement)
        self._merge = pack_colours if colours else _first
        packed = {pack_colour(k) if isinstance(k, tuple) else k: v for k, v in (values or {}).items()}
        self._values = {k: v for k, v in packed.items() if isinstance(k, int)}

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices; 255 = unknown: nodata, outside the mask, or 255 in the file."""
        values, valid = self._reader.read(window)
        classes = self._merge(values)
        return np.where(valid, _look_up(classes, self._values) if self._values else classes, UNKNOWN_CLASS).astype(
            np.uint8
        )


class ConfidenceMask(_WarpedMask):
    """A change mask whose class is unknown where a raster of confidence is below a limit or missing.

    Args:
        mask: the classes.
        info, target, displacement: as of `_WarpedMask`: 0 to 1 after scale and offset; a finer raster is averaged.
        min_confidence: the limit, 0 to 1.
    """

    def __init__(
        self,
        mask: ChangeMask,
        info: RasterInfo,
        target: GeoBox,
        min_confidence: float,
        displacement: Displacement | None = None,
    ) -> None:
        band = info.data_bands[0]
        super().__init__(info, [band], target, "average", displacement)
        self._mask, self._min_confidence = mask, min_confidence
        self._scale, self._offset = info.scales[band - 1], info.offsets[band - 1]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """(height, width) uint8 class indices, 255 = unknown."""
        values, valid = self._reader.read(window)
        confidence = values[0].astype(np.float64) * self._scale + self._offset
        confident = valid & (confidence >= self._min_confidence - _ROUNDING)
        return np.where(confident, self._mask.read(window), UNKNOWN_CLASS).astype(np.uint8)

    def close(self) -> None:
        """Close the files of mask and confidence."""
        self._mask.close()
        super().close()


def _first(bands: NDArray[np.generic]) -> NDArray[np.generic]:
    return np.asarray(bands[0])


def pack_colours(bands: NDArray[np.generic]) -> NDArray[np.int64]:
    """(3, h, w) uint8 red, green, blue -> (h, w) 0xRRGGBB."""
    red, green, blue = bands.astype(np.int64)
    packed: NDArray[np.int64] = (red << 16) | (green << 8) | blue
    return packed


def pack_colour(colour: tuple[int, int, int]) -> int:
    """(red, green, blue) -> 0xRRGGBB."""
    return (colour[0] << 16) | (colour[1] << 8) | colour[2]


def _look_up(values: NDArray[np.generic], table: Mapping[int, int]) -> NDArray[np.uint8]:
    keys = np.array(sorted(table), dtype=np.int64)
    classes = np.array([table[int(k)] for k in keys], dtype=np.uint8)
    at = np.clip(np.searchsorted(keys, values), 0, len(keys) - 1)
    return np.where(keys[at] == values, classes[at], UNKNOWN_CLASS).astype(np.uint8)


def check_classes(info: RasterInfo, classes: Sequence[str], values: Mapping[Key, int] | None = None) -> None:
    """Check the whole mask, window by window, for values that are no class.

    Args:
        info: the mask.
        classes: the model's class names by index; empty: any value from 0 to 254 is a class.
        values: value in the file -> class index; None or empty: the values are class indices.

    Raises:
        InputError: names the value and the classes.
    """
    highest = len(classes) - 1 if classes else UNKNOWN_CLASS - 1

    def is_class(value: float) -> bool:
        return value in values if values else value == UNKNOWN_CLASS or (0 <= value <= highest and value == int(value))

    names = dict(enumerate(category_names(info.path, info.data_bands[0])))
    for value in _other_values(info, info.data_bands[:1], _first, is_class):
        category = f" ('{names[int(value)]}')" if names.get(int(value)) else ""
        mapped = f"mapped values are {', '.join(map(str, values))}; the model's" if values else "the model's"
        raise InputError(
            f"{info.path}: the mask holds {value:g}{category}, which is no class of the model; {mapped} classes are "
            f"{list_classes(classes)}, and 255 for unknown; say what it means with --class-map"
        )


def holds_only(info: RasterInfo, values: Container[float]) -> bool:
    """Whether all valid pixels of a mask hold one of the values; reading stops at the first that does not.

    Raises:
        InputError: the file cannot be read.
    """
    others = _other_values(info, info.data_bands[:1], _first, values.__contains__)
    return next(others, None) is None


def check_colours(info: RasterInfo, values: Mapping[Key, int], classes: Sequence[str]) -> None:
    """Check the whole mask, window by window, for colours that stand for no class.

    Raises:
        InputError: names the colour, the colours that are mapped, and the classes.
    """
    table = {pack_colour(k) for k in values if isinstance(k, tuple)}
    for value in _other_values(info, info.data_bands[:3], pack_colours, lambda v: int(v) in table):
        mapped = ", ".join(f"#{k:06x}" for k in sorted(table))
        raise InputError(
            f"{info.path}: the mask holds the colour #{int(value):06x}, which stands for no class; mapped are "
            f"{mapped}; give a --class-map from colours to {list_classes(classes)}"
        )


def _other_values(
    info: RasterInfo,
    bands: Sequence[int],
    merge: Callable[[NDArray[np.generic]], NDArray[np.generic]],
    accepted: Callable[[float], bool],
) -> Iterator[float]:
    """Values of valid pixels that are not accepted, window by window."""
    with RasterReader(info, bands) as reader:
        for window in info.window.tiles(_SCAN):
            values, valid = reader.read(window)
            for value in np.unique(merge(values)[valid.all(axis=0)]).tolist():
                if not accepted(value):
                    yield value


def check_confidence(info: RasterInfo) -> None:
    """Check a whole raster of confidence, window by window.

    Raises:
        InputError: a value outside 0 to 1.
    """
    band = info.data_bands[0]
    with RasterReader(info, [band]) as reader:
        for window in info.window.tiles(_SCAN):
            values, valid = reader.read(window)
            confidence = values[valid].astype(np.float64) * info.scales[band - 1] + info.offsets[band - 1]
            if confidence.size and (confidence.min() < -_ROUNDING or confidence.max() > 1 + _ROUNDING):
                worst = confidence.max() if confidence.max() > 1 + _ROUNDING else confidence.min()
                raise InputError(
                    f"{info.path}: the confidence holds {worst:g}, but must lie between 0 and 1; declare the "
                    f"file's scale, e.g. gdal_edit.py -scale 0.01 for percent"
                )


def lies_on_scene(mask: RasterInfo, target: GeoBox, reference: Georeferenced | None) -> bool:
    """Whether a mask is aligned with the scene rather than with the reference, by its tag, else by its grid.

    A mask on the reference's grid is aligned with the reference. Otherwise, a mask whose pixels are whole pixels of
    the output grid, or divide them, is aligned with the scene; any other is aligned with the reference.

    Args:
        mask: inspected.
        target: the whole scene's output grid.
        reference: its grid.
    """
    with rasterio.open(mask.path) as dataset:
        tag = dataset.tags().get(TAG)
    if tag in ("scene", "ref"):
        return bool(tag == "scene")
    grid = scene_geobox(mask)
    if reference is not None and _share_lattice(grid, scene_geobox(reference), ratio=1):
        return False
    return _share_lattice(grid, target)


def _share_lattice(first: GeoBox, second: GeoBox, ratio: int | None = None) -> bool:
    """Whether pixels of one grid are whole pixels of the other, `ratio` along an axis (None: any whole number)."""
    if first.crs != second.crs:
        return False
    coarse, fine = sorted((first.affine, second.affine), key=lambda a: -abs(a.determinant))
    step = compose(~fine, coarse)
    factor = round(step.a)
    if factor < 1 or (ratio is not None and factor != ratio):
        return False
    corners = (step.c - round(step.c), step.f - round(step.f))
    longest = max(*first.shape, *second.shape)
    skew = max(abs(step.a - factor), abs(step.e - factor), abs(step.b), abs(step.d))
    return bool(skew * longest + max(map(abs, corners)) < _LATTICE_TOLERANCE)
