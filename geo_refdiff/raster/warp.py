"""Exact warp of a raster to the output grid, in a single resampling, independent of the windows that are read."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import lru_cache
from math import isnan, nan
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RioWindow

from geo_refdiff.errors import InputError
from geo_refdiff.raster.crs import Overlap, find_overlap, horizontal_crs
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.gdal import GDAL_ERRORS, one_line, unreadable
from geo_refdiff.raster.geobox import apply, crs_wkt, scene_geobox, translated
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.nodata import is_sentinel
from geo_refdiff.raster.reader import RasterReader, ThreadHandles, check_bands
from geo_refdiff.raster.vrt import GDAL_TYPES, add_source, grid_element, xml_text
from geo_refdiff.raster.window import TileCache, Window

WarpResampling = Literal["nearest", "bilinear", "cubic", "lanczos", "average", "mode"]

TILE = 256
"""Side of the fixed tiles, counted from the target's corner, in which pixels are warped."""

MARGIN = 8 * TILE
"""How far windows may reach outside the target, target pixels; beyond that nothing is valid."""

_TOLERANCE = 1e-6  # source pixels; with fixed tiles even a coarse one would not depend on the windows
_BENT_TOLERANCE = 0.01  # of a field of shifts, which is accurate to a few tenths of a target pixel at best
_BENT_POINTS = 5
_CACHE_BYTES = 64 * 2**20
_CLASSES = ("nearest", "mode")


def gsd_ratio(info: RasterInfo, target: GeoBox) -> float:
    """Ground sampling distance of the raster in target pixels at the centre of the overlap; above 1 is coarser.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is available.
    """
    return find_overlap(info, target).gsd_ratio


def overlap_fraction(info: RasterInfo, target: GeoBox) -> float:
    """The part of the target's area that the raster's extent covers, in (0, 1].

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is available.
    """
    return find_overlap(info, target).fraction


class WarpedReader:
    """Reader of a raster on another grid, safe in threads.

    Pixels do not depend on windows: fixed tiles are warped with an exact transformation (error below 1e-6 source
    pixels) and with kernel sizes fixed for the whole target. For a source finer than the target the kernel is widened.
    A source whose grid differs from the target by whole pixels only is passed through bit for bit.

    Args:
        info: from `inspect`.
        bands: 1-based band indices, in the order wanted.
        target: output grid of the whole scene, even if only a part of it is processed.
        resampling: "cubic" etc. give float32; "nearest" and "mode" keep the file's dtype.
        displacement: target pixel p is read at p + displacement by the raster's georeference, target pixels; None: no
            displacement. It is part of the warp: nothing is resampled twice.

    Raises:
        GridError: no overlap, or no exact transformation between the CRSs is known.
        InputError: no such band.

    Sources:
        https://gdal.org/en/stable/api/gdalwarp_cpp.html (XSCALE, YSCALE, UNIFIED_SRC_NODATA)
    """

    def __init__(
        self,
        info: RasterInfo,
        bands: Sequence[int],
        target: GeoBox,
        resampling: WarpResampling = "cubic",
        displacement: Displacement | None = None,
    ) -> None:
        self.info = info
        self.bands = check_bands(info, bands)
        self.target = target
        self.resampling = resampling
        self.dtype = np.dtype(info.dtype if resampling in _CLASSES else "float32")
        bent, asked = None, target
        if displacement is not None and displacement.is_linear:
            target = GeoBox(target.shape, displacement.moved(target.affine), target.crs)
        elif displacement is not None and not displacement.is_zero:
            bent = displacement
        overlap = find_overlap(info, target)
        self._offset = overlap.offset if bent is None else None
        self._handles: ThreadHandles
        if self._offset is None:
            self._handles = _WarpHandles(info, self.bands, target, resampling, self.dtype, overlap, bent)
        else:
            self._handles = RasterReader(info, self.bands)
        height, width = target.shape
        self._reach = Window(0, 0, height, width).pad(MARGIN)
        tile_bytes = TILE * TILE * (len(self.bands) * self.dtype.itemsize + 1)
        kept = _kept_tiles if info.mtime_ns else _kept_tiles.__wrapped__  # which change with the file
        self._tiles = kept(max(16, _CACHE_BYTES // tile_bytes), info, self.bands, asked, resampling, displacement)

    def read(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The pixels of a window, in pixels of the target; it may reach outside.

        Returns:
            The values (C, height, width), float32 or the file's dtype, and valid (height, width), True = valid in
            every band; values are 0 where not valid.

        Raises:
            InputError: the file cannot be read there.
        """
        if self._offset is not None:
            return self._read_aligned(window, self._offset)
        values = np.zeros((len(self.bands), *window.shape), dtype=self.dtype)
        valid = np.zeros(window.shape, dtype=np.bool_)
        inside = window.intersect(self._reach)
        if inside is None:
            return values, valid
        for tile, part in inside.cells(TILE):
            tile_values, tile_valid = self._tiles.get(tile, self._warp)
            to, at = part.within(window), part.within(tile)
            values[:, to[0], to[1]] = tile_values[:, at[0], at[1]]
            valid[to] = tile_valid[at]
        return values, valid

    def close(self) -> None:
        """Close the files of all threads, once no thread reads any more."""
        self._handles.close()

    def __enter__(self) -> WarpedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_aligned(self, window: Window, offset: tuple[int, int]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        assert isinstance(self._handles, RasterReader)
        values, ok = self._handles.read(window.shift(-offset[0], -offset[1]))
        valid = np.asarray(ok.all(axis=0), dtype=np.bool_)
        values = values.astype(self.dtype, copy=False)
        values[:, ~valid] = 0
        return values, valid

    def _warp(self, tile: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        assert isinstance(self._handles, _WarpHandles)
        try:
            everything = self._handles.read(tile)
        except GDAL_ERRORS as error:
            raise InputError(
                f"{self.info.path}: cannot be read for output pixels {tile} ({one_line(error, 160)}); "
                f"{unreadable(self.info.path)}"
            ) from error
        values = everything[:-1]
        valid = np.asarray(everything[-1] > 0, dtype=np.bool_)
        if values.dtype.kind == "f":
            valid = np.logical_and(valid, np.isfinite(values).all(axis=0))
        values[:, ~valid] = 0
        return values, valid


@lru_cache(maxsize=2)
def _kept_tiles(capacity: int, *warp: Hashable) -> TileCache[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Tiles of one warp, for all its readers: a plan's survey has warped some of what blocks need, or all of it."""
    return TileCache(capacity)


os.register_at_fork(after_in_child=_kept_tiles.cache_clear)  # a thread of the parent may hold a lock


class _WarpHandles(ThreadHandles):
    """A warped VRT for each thread: the bands, warped to the target with a margin around it."""

    def __init__(
        self,
        info: RasterInfo,
        bands: tuple[int, ...],
        target: GeoBox,
        resampling: WarpResampling,
        dtype: np.dtype[Any],
        overlap: Overlap,
        bent: Displacement | None,
    ) -> None:
        super().__init__(info)
        self._xml = source_vrt(info, bands, overlap)
        self._affine, self._bent = target.affine, bent
        height, width = target.shape
        self._options: dict[str, Any] = {
            "crs": horizontal_crs(crs_wkt(target)).to_wkt(),
            "transform": translated(target.affine, -MARGIN, -MARGIN),
            "width": width + 2 * MARGIN,
            "height": height + 2 * MARGIN,
            "resampling": Resampling[resampling],
            "tolerance": _TOLERANCE if bent is None else _BENT_TOLERANCE,
            "dtype": dtype.name,
            "add_alpha": True,
            "XSCALE": _kernel_scale(overlap.gsd[0]),
            "YSCALE": _kernel_scale(overlap.gsd[1]),
            "UNIFIED_SRC_NODATA": "YES",
            "ALLOW_BALLPARK": "NO",
        }

    def open(self) -> list[Any]:
        source = rasterio.open(self._xml)
        return [WarpedVRT(source, **self._options), source]

    def read(self, tile: Window) -> NDArray[Any]:
        """All bands and alpha of a tile of the target."""
        if self._bent is None:
            window = RioWindow(tile.col + MARGIN, tile.row + MARGIN, TILE, TILE)
            return np.asarray(self.get().read(window=window))
        straight = self.get().tags(ns="xml:VRT")["xml:VRT"]
        with rasterio.open(_bent_tile(straight, tile, self._affine, self._bent)) as dataset:
            return np.asarray(dataset.read())


def _bent_tile(straight: str, tile: Window, affine: Affine, displacement: Displacement) -> str:
    """VRT of one tile whose pixels are displaced.

    Within a tile the displacement is a second-order polynomial, given to GDAL as control points of the target.
    """
    root = ET.fromstring(straight)
    for name, value in (("rasterXSize", tile.width), ("rasterYSize", tile.height)):
        root.set(name, str(value))
    sides = (("BlockXSize", tile.width), ("BlockYSize", tile.height))
    for name, value in sides:
        element = root.find(name)
        if element is not None:
            element.text = str(value)
    transformer = root.find(".//GenImgProjTransformer")
    corner, inverse = (root.find(f".//{name}") for name in ("DstGeoTransform", "DstInvGeoTransform"))
    if transformer is None or corner is None or inverse is None:
        raise InputError("this version of GDAL describes warped views in an unknown way; use rasterio 1.4")
    place = list(transformer).index(corner)
    transformer.remove(corner)
    transformer.remove(inverse)
    bent = ET.Element("DstGCPTransformer")
    polynomial = ET.SubElement(bent, "GCPTransformer")
    ET.SubElement(polynomial, "Order").text = "2"
    ET.SubElement(polynomial, "Reversed").text = "0"
    points = ET.SubElement(polynomial, "GCPList")
    rows, cols = (v.ravel() for v in np.meshgrid(*(np.linspace(0, n, _BENT_POINTS) for n in tile.shape), indexing="ij"))
    drows, dcols = displacement.at(tile.row + rows, tile.col + cols)
    x, y = apply(affine, tile.col + cols + dcols, tile.row + rows + drows)
    for number, values in enumerate(zip(cols, rows, x, y, strict=True)):
        names = zip(("Pixel", "Line", "X", "Y"), values, strict=True)
        ET.SubElement(points, "GCP", {"Id": str(number)} | {name: repr(float(v)) for name, v in names})
    transformer.insert(place, bent)
    return xml_text(root)


def _kernel_scale(gsd: float) -> float:
    """GDAL's XSCALE or YSCALE: target pixels per source pixel, at most 1."""
    return 1.0 if gsd > 0.99 else gsd


def source_vrt(info: RasterInfo, bands: Sequence[int], overlap: Overlap) -> str:
    """VRT of some bands of a raster, with the grid and validity found by `inspect` and nothing else (no RPCs, no
    control points), so that the warp uses what was checked.

    A pixel with NaN or a sentinel nodata value in any of the bands is missing, and so is a cloudy one, however else the
    file marks missing ones; GDAL would let it spoil all that the kernel reaches.

    Args:
        info, bands: of the raster.
        overlap: says where its x belong.
    """
    a, b, c, d, e, f = info.transform
    info = replace(info, transform=(a, b, c + overlap.shift, d, e, f), crs_wkt=overlap.crs_wkt)
    real = np.dtype(info.dtype).kind == "f"
    by_band = all(is_sentinel(np.dtype(info.dtype), info.nodata, info.offsets[band - 1]) for band in bands)
    masked = real or by_band or info.clouds is not None
    nodata = info.nodata if info.validity == "nodata" and not masked else None
    root = _bands_vrt(info, [(info.source, str(band)) for band in bands], nodata)
    masks: list[tuple[str, str]] = []
    if info.validity in ("alpha", "mask"):
        alpha = sorted(set(range(1, info.count + 1)) - set(info.data_bands))
        masks.append((info.source, "mask,1" if info.validity == "mask" else str(alpha[0])))
    if real:
        numbers = xml_text(_bands_vrt(info, [(info.source, str(band)) for band in bands], nan))
        masks += [(numbers, f"mask,{index}") for index in range(1, len(bands) + 1)]
    if masked and info.validity == "nodata":
        own = [(info.source, f"mask,{band}") for band in bands]
        if by_band:
            masks += own
        else:
            any_band = ET.Element("VRTDataset", rasterXSize=str(info.width), rasterYSize=str(info.height))
            _combined(any_band, info, own, "sum")
            masks.append((xml_text(any_band), "1"))
    if info.clouds is not None:
        masks.append((info.clouds.vrt, "1"))
    if masks:
        _combined(ET.SubElement(root, "MaskBand"), info, masks, "mul")
    return xml_text(root)


def _bands_vrt(info: RasterInfo, sources: Sequence[tuple[str, str]], nodata: float | None) -> ET.Element:
    root = grid_element(scene_geobox(info), horizontal_crs(info.crs_wkt).to_wkt())
    for index, (name, band) in enumerate(sources, 1):
        element = ET.SubElement(root, "VRTRasterBand", dataType=GDAL_TYPES[info.dtype], band=str(index))
        if nodata is not None:
            ET.SubElement(element, "NoDataValue").text = "nan" if isnan(nodata) else repr(nodata)
        add_source(element, name, band, info.window, relative=False)
    return root


def _combined(parent: ET.Element, info: RasterInfo, masks: Sequence[tuple[str, str]], function: str) -> None:
    """A band of masks (0 or 255) put together pixel by pixel: "mul": valid in all, "sum": in any."""
    band = ET.SubElement(parent, "VRTRasterBand", dataType="Byte", band="1")
    if len(masks) > 1:
        band.set("subClass", "VRTDerivedRasterBand")
        ET.SubElement(band, "PixelFunctionType").text = function
    for name, source in masks:
        add_source(band, name, source, info.window, relative=False)
