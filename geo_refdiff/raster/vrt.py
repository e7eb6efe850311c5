"""Block files, and mosaics of them or of shards as GDAL VRT.

Source: https://gdal.org/en/stable/drivers/raster/vrt.html
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile

from geo_refdiff.errors import InputError
from geo_refdiff.raster.files import atomic_path, write_bytes_atomic
from geo_refdiff.raster.gdal import GDAL_ERRORS, one_line
from geo_refdiff.raster.geobox import crs_wkt
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.statistics import BandStatistics
from geo_refdiff.raster.window import Window

GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}
"""GDAL's name for each numpy dtype."""

TILE = 512


@dataclass(frozen=True)
class VirtualRaster:
    """What the published file will be.

    Attributes:
        geobox: its grid.
        dtype: numpy name.
        count: number of bands.
        sources: (file name relative to the VRT, window in pixels of `geobox`) of each block file, not overlapping.
        nodata: nodata value, or None.
        with_mask: whether the block files carry an internal mask; where there is no source, nothing is valid.
        descriptions, scales, offsets, units, colorinterp: one for each band, or empty.
        statistics: one for each band, or empty.
        tags: dataset metadata.
        band_tags: metadata of each band, or empty.
        overviews: (factor, file name relative to the VRT) of overviews of the whole, with all bands and the mask.
        colours: red, green, blue by value, for a single band of classes.
        crs_wkt: the scene's own CRS text, if it is to be kept to the letter; else that of `geobox`.
    """

    geobox: GeoBox
    dtype: str
    count: int
    sources: tuple[tuple[str, Window], ...]
    nodata: float | None = None
    with_mask: bool = False
    descriptions: tuple[str | None, ...] = ()
    scales: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    units: tuple[str | None, ...] = ()
    colorinterp: tuple[str, ...] = ()
    statistics: tuple[BandStatistics, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    band_tags: tuple[Mapping[str, str], ...] = ()
    overviews: tuple[tuple[int, str], ...] = ()
    colours: tuple[tuple[int, int, int], ...] = ()
    crs_wkt: str | None = None


def with_bands_of(mosaic: VirtualRaster, info: RasterInfo, bands: Sequence[int]) -> VirtualRaster:
    """The mosaic with names, scales, offsets, units and colours of another raster's bands.

    Args:
        mosaic: of as many bands.
        info: the other raster.
        bands: of it, 1-based. All are data here: what is flagged alpha becomes undefined.
    """
    at = [b - 1 for b in bands]
    colours = (info.colorinterp[i] for i in at)
    return replace(
        mosaic,
        descriptions=tuple(info.descriptions[i] for i in at),
        scales=tuple(info.scales[i] for i in at),
        offsets=tuple(info.offsets[i] for i in at),
        units=tuple(info.units[i] for i in at),
        colorinterp=tuple("undefined" if colour == "alpha" else colour for colour in colours),
    )


def write_vrt(path: str | Path, mosaic: VirtualRaster) -> None:
    """Writes the VRT of a mosaic, whole or not at all; source by source, so that it is never all in memory.

    Raises:
        OutputError: disk full, no permission, no such folder.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.writelines(_with_more(dataset_element(mosaic), _bands(mosaic)))


def grid_element(geobox: GeoBox, crs_wkt: str) -> ET.Element:
    """A dataset without bands; without an axis mapping GDAL takes x before y, whatever the CRS's own axis order."""
    height, width = geobox.shape
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ET.SubElement(root, "SRS").text = crs_wkt
    a, b, c, d, e, f = (float(v) for v in geobox.affine[:6])
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(v) for v in (c, a, b, f, d, e))
    return root


def xml_text(element: ET.Element) -> str:
    """A VRT as GDAL opens it without a file."""
    return ET.tostring(element, encoding="unicode")


def add_source(
    band: ET.Element, name: str, source_band: str, window: Window, *, relative: bool, kind: str = "SimpleSource"
) -> ET.Element:
    """Adds the upper left part of a file, as large as `window`, as a source of `band` under `window`."""
    source = ET.SubElement(band, kind)
    ET.SubElement(source, "SourceFilename", relativeToVRT=str(int(relative)), shared="0").text = name
    ET.SubElement(source, "SourceBand").text = source_band
    height, width = (str(v) for v in window.shape)
    ET.SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=width, ySize=height)
    ET.SubElement(source, "DstRect", xOff=str(window.col), yOff=str(window.row), xSize=width, ySize=height)
    return source


def add_overview_elements(band: ET.Element, overviews: Iterable[tuple[int, str]], source_band: str) -> None:
    """Adds files, named relative to the VRT, as overviews of `band`, the finest first."""
    for _, name in sorted(overviews):
        overview = ET.SubElement(band, "Overview")
        ET.SubElement(overview, "SourceFilename", relativeToVRT="1").text = name
        ET.SubElement(overview, "SourceBand").text = source_band


def dataset_element(mosaic: VirtualRaster) -> ET.Element:
    """A mosaic without its bands."""
    root = grid_element(mosaic.geobox, mosaic.crs_wkt or crs_wkt(mosaic.geobox))
    _metadata(root, mosaic.tags)
    return root


def _bands(mosaic: VirtualRaster) -> Iterator[bytes]:
    for index in range(mosaic.count):
        yield from _with_more(band_element(mosaic, index), _sources(mosaic, str(index + 1)))
    if mosaic.with_mask:
        mask = ET.Element("VRTRasterBand", dataType="Byte")
        yield from _with_more(ET.Element("MaskBand"), _with_more(mask, _sources(mosaic, "mask,1")))


def _sources(mosaic: VirtualRaster, source_band: str) -> Iterator[bytes]:
    """Sources and then overviews of a band."""
    for name, window in mosaic.sources:
        yield _text(add_source(ET.Element("VRTRasterBand"), name, source_band, window, relative=True))
    overviews = ET.Element("VRTRasterBand")
    add_overview_elements(overviews, mosaic.overviews, source_band)
    yield from map(_text, overviews)


def _with_more(element: ET.Element, more: Iterator[bytes]) -> Iterator[bytes]:
    """An element as text, with `more` children behind its own."""
    first = next(more, None)
    if first is None:
        yield _text(element)
        return
    mark = ET.SubElement(element, "more")
    head, _, tail = _text(element).rpartition(_text(mark))
    yield head
    yield first
    yield from more
    yield tail


def _text(element: ET.Element) -> bytes:
    return bytes(ET.tostring(element, encoding="utf-8", xml_declaration=False))


def band_element(mosaic: VirtualRaster, index: int) -> ET.Element:
    """A band of a mosaic, 0-based, without its sources."""
    band = ET.Element("VRTRasterBand", dataType=GDAL_TYPES[mosaic.dtype], band=str(index + 1))
    tags = dict(mosaic.band_tags[index]) if mosaic.band_tags else {}
    if mosaic.statistics:
        tags |= mosaic.statistics[index].tags()
    _metadata(band, tags)
    if mosaic.descriptions and mosaic.descriptions[index]:
        ET.SubElement(band, "Description").text = mosaic.descriptions[index]
    if mosaic.nodata is not None:
        ET.SubElement(band, "NoDataValue").text = repr(mosaic.nodata)
    if mosaic.units and mosaic.units[index]:
        ET.SubElement(band, "UnitType").text = mosaic.units[index]
    if mosaic.offsets and mosaic.offsets[index] != 0:
        ET.SubElement(band, "Offset").text = repr(float(mosaic.offsets[index]))
    if mosaic.scales and mosaic.scales[index] != 1:
        ET.SubElement(band, "Scale").text = repr(float(mosaic.scales[index]))
    if mosaic.colorinterp:
        ET.SubElement(band, "ColorInterp").text = mosaic.colorinterp[index].capitalize()
    if mosaic.colours:
        table = ET.SubElement(band, "ColorTable")
        for red, green, blue in mosaic.colours:
            ET.SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")
    return band


def _metadata(parent: ET.Element, items: Mapping[str, str]) -> None:
    if items:
        metadata = ET.SubElement(parent, "Metadata")
        for key, value in items.items():
            ET.SubElement(metadata, "MDI", key=key).text = value


def tiled_geotiff(
    shape: tuple[int, int, int], dtype: str, tile: tuple[int, int], transform: Affine, crs: Any, nodata: float | None
) -> dict[str, Any]:
    """rasterio's profile of a tiled GeoTIFF (ZSTD level 1, predictor).

    Args:
        shape: (C, height, width).
        dtype: numpy name.
        tile: (height, width), multiples of 16.
        transform: pixel (col, row) to CRS units.
        crs: anything rasterio takes for a CRS.
        nodata: nodata value, or None.
    """
    return {
        "driver": "GTiff",
        **dict(zip(("count", "height", "width"), shape, strict=True)),
        "dtype": dtype,
        "crs": crs,
        "transform": transform,
        "nodata": nodata,
        "tiled": True,
        "blockysize": tile[0],
        "blockxsize": tile[1],
        "compress": "zstd",
        "zstd_level": 1,
        "predictor": 3 if np.dtype(dtype).kind == "f" else 2,
        "interleave": "pixel",
        "photometric": "minisblack",
    }


def write_block(
    path: str | Path,
    array: NDArray[Any],
    mask: NDArray[np.uint8] | None,
    transform: Affine,
    crs: Any,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Writes one block as a GeoTIFF (ZSTD level 1, predictor, tiles of 512), whole or not at all.

    The file is encoded in memory and then written, so that a full disk is noticed.

    Args:
        path: the final name.
        array: (C, height, width) in the output's dtype.
        mask: (height, width), 255 = valid, 0 = missing, kept as an internal mask; None: the block has none.
        transform: the block's own affine, pixel (col, row) to CRS units.
        crs: anything rasterio takes for a CRS.
        nodata: nodata value, or None.
        tags: dataset metadata, text by name.

    Raises:
        OutputError: disk full, no permission, no such folder.
    """
    count, height, width = array.shape
    tile = min(TILE, -(-height // 16) * 16), min(TILE, -(-width // 16) * 16)
    profile = tiled_geotiff((count, height, width), array.dtype.name, tile, transform, crs, nodata)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(array)
            if mask is not None:
                dataset.write_mask(mask)
            if tags:
                dataset.update_tags(**tags)
        write_bytes_atomic(path, memory.getbuffer())


def read_block_tags(path: str | Path) -> dict[str, str]:
    """The dataset metadata of a block file.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with rasterio.open(path, driver="GTiff") as dataset:  # a VRT in its place would lead elsewhere
            return {str(k): str(v) for k, v in dataset.tags().items()}
    except GDAL_ERRORS as error:
        text = one_line(error, 160)
        raise InputError(f"{path}: is not a finished block ({text}); delete it and resume") from error
