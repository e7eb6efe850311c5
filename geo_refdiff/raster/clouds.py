"""Layers that tell clouds, as products and programs write them, brought to the grid of the raster that they belong to.

What counts as cloud is all that hides or dims the ground: clouds of any thickness and their shadows.

Sources: Sentinel-2 Products Specification Document (SCL, MSK_CLASSI, MSK_CLOUDS); Landsat 8-9 Collection 2 Level 2
Science Product Guide (QA_PIXEL); HLS Product User Guide 2.0 (Fmask); Planet imagery product specifications (UDM2, UDM);
Zhu and Woodcock 2012 (Fmask as its own program writes it); s2cloudless; OmniCloudMask.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any, get_args

import numpy as np
import rasterio
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from geo_refdiff.errors import GridError, InputError, OptionError
from geo_refdiff.raster.crs import Overlap, find_overlap, horizontal_crs
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env, one_line, unreadable
from geo_refdiff.raster.geobox import crs_wkt, scene_geobox
from geo_refdiff.raster.info import CloudKind, CloudLayer, RasterInfo, inspect, size_and_time
from geo_refdiff.raster.location import gdal_name
from geo_refdiff.raster.reader import ClearReader
from geo_refdiff.raster.vector import read_aoi
from geo_refdiff.raster.vrt import add_source, grid_element, xml_text

KINDS: tuple[CloudKind, ...] = get_args(CloudKind)

MEANINGS: dict[CloudKind, str] = {
    "scl": "scene classes of Sentinel-2: 3, 8, 9, 10",
    "qa_pixel": "bits of Landsat's QA_PIXEL: 1 to 4",
    "fmask": "bits of HLS' Fmask: 0 to 3",
    "fmask4": "classes of Fmask: 2 and 4",
    "udm": "bits of Planet's UDM: 1",
    "udm2": "bands of Planet's UDM2: 3 to 6",
    "msk_classi": "bands of Sentinel-2's MSK_CLASSI: 1 and 2",
    "msk_clouds": "polygons of Sentinel-2's MSK_CLOUDS",
    "probability": "probability, from 0.4 on",
    "percent": "probability in percent, from 40 on",
    "mask": "all values but 0",
}
"""What counts as cloud, for people."""

_SURE = 0.4
"""Probability from which on s2cloudless speaks of a cloud."""

_NAMES: tuple[tuple[str, CloudKind], ...] = (
    (r"(^|[^a-z])scl([^a-z]|$)", "scl"),
    (r"qa_?pixel", "qa_pixel"),
    (r"^hls\..*fmask", "fmask"),
    (r"fmask", "fmask4"),
    (r"udm2", "udm2"),
    (r"(^|[^a-z])udm([^a-z]|$)", "udm"),
    (r"msk_classi", "msk_classi"),
    (r"(^|[^a-z])ocm([^a-z]|$)|omnicloudmask", "mask"),
)
"""Names of files, and what they hold."""

_PROBABLE = re.compile(r"cld_?prb|cld_?prob|s2_?cloudless|cloud_?prob|probability")

_CLASSES: dict[str, Callable[[NDArray[np.int64]], NDArray[np.bool_]]] = {
    "scl": lambda v: np.isin(v, (3, 8, 9, 10)),
    "qa_pixel": lambda v: (v & 0b11110) > 0,
    "fmask": lambda v: (v & 0b1111) > 0,
    "fmask4": lambda v: np.isin(v, (2, 4)),
    "udm": lambda v: (v & 0b10) > 0,
}
"""Kinds of whole numbers of which the lowest eight bits count."""

_BANDS = {"udm2": (3, 4, 5, 6), "msk_classi": (1, 2)}
"""Bands that tell clouds, each in another way: shadow, light haze, heavy haze, cloud; opaque clouds, cirrus."""

_ALL_OF_IT = 0.999
_SAMPLED = 512


@dataclass(frozen=True, slots=True)
class NamedLayer:
    """A layer as it is given.

    Attributes:
        path: as the user writes it.
        kind: None: to be determined from name and values.
        polygons: of MSK_CLOUDS, see `products.record.Quality`.
    """

    path: str
    kind: CloudKind | None = None
    polygons: str = ""

    @staticmethod
    def of(text: str) -> NamedLayer:
        """From "FILE" or "KIND:FILE"."""
        kind, colon, path = text.partition(":")
        for kinds in KINDS:
            if colon and kind.lower() == kinds:
                return NamedLayer(path, kinds)
        return NamedLayer(text)

    def __str__(self) -> str:
        return self.path if self.kind is None else f"{self.kind}:{self.path}"


def cloud_layer(given: NamedLayer, target: RasterInfo) -> CloudLayer:
    """A layer on the grid of a raster, pixel by pixel: the nearest value, or cloud if any finer value is one.

    Args:
        given: the layer.
        target: the raster it belongs to.

    Raises:
        InputError: it cannot be read, it is not known what its values mean, or it does not cover the raster.
    """
    if given.kind == "msk_clouds":
        return _of_polygons(given, target)
    with gdal_env():
        info = inspect(given.path, "clouds")
        kind = given.kind or _recognised_kind(info)
        _check(info, kind)
        overlap = _overlap(info, target)
        cloudy = _cloudy(info, kind)
        if overlap.offset != (0, 0) or (info.width, info.height) != (target.width, target.height):
            cloudy = _warped(info, cloudy, scene_geobox(target), overlap)
        clear = _looked_up(cloudy, "1", target, "0:255,1:0")
    return CloudLayer(info.path, kind, info.size_bytes, info.mtime_ns, xml_text(clear))


def with_layer(info: RasterInfo, layer: CloudLayer) -> tuple[RasterInfo, float]:
    """The raster with its clouds, and their share of it, from a thin sample.

    Raises:
        InputError: all of the raster is cloudy.
    """
    cloudy = replace(info, clouds=layer)
    with ClearReader(cloudy) as reader:
        share = 1.0 - reader.share(_SAMPLED)
    if share == 1.0:
        raise InputError(
            f"{info.path}: is cloudy everywhere, by {layer.path} ({MEANINGS[layer.kind]}); give another one, or "
            f"say --cloud-mask none"
        )
    return cloudy, share


def check_layer_name(text: str) -> None:
    """Whether a layer is named at all.

    Raises:
        OptionError: only its kind is given.
    """
    if not NamedLayer.of(text).path.strip():
        raise OptionError(f"cloud mask '{text}': give auto, none, or a file, e.g. scl:SCL.tif")


def _recognised_kind(info: RasterInfo) -> CloudKind:
    """What the values of a layer mean, by its name, its bands and its values.

    Raises:
        InputError: neither name nor values show it.
    """
    name = Path(info.path).name.lower()
    for pattern, kind in _NAMES:
        if re.search(pattern, name):
            return kind
    if (info.descriptions[0] or "").strip().lower() == "clear" and info.count >= max(_BANDS["udm2"]):
        return "udm2"
    values = _sampled(info)
    most = float(values.max()) if values.size else 0.0
    least = float(values.min()) if values.size else 0.0
    if np.dtype(info.dtype).kind == "f" and least >= 0 and most <= 1:
        return "probability"
    if _PROBABLE.search(name) and least >= 0 and most <= 100 and not set(values.tolist()) <= {0.0, 1.0}:
        return "percent"
    if info.count == 1 and (set(values.tolist()) <= {0.0, 1.0, 2.0, 3.0} or set(values.tolist()) <= {0.0, 255.0}):
        return "mask"
    raise InputError(
        f"{info.path}: neither its name nor its values ({least:g} to {most:g}) tell what kind of cloud mask it is; say "
        f"so, e.g. --cloud-mask scl:FILE, of {', '.join(KINDS)}"
    )


def _sampled(info: RasterInfo) -> NDArray[Any]:
    shape = min(_SAMPLED, info.height), min(_SAMPLED, info.width)
    try:
        with rasterio.open(gdal_name(info.path)) as dataset:
            values = dataset.read(1, out_shape=shape)
    except GDAL_ERRORS as error:
        raise InputError(f"{info.path}: cannot be read ({one_line(error, 160)}); {unreadable(info.path)}") from error
    values = values[np.isfinite(values)]
    return np.unique(values if info.nodata is None else values[values != info.nodata])


def _check(info: RasterInfo, kind: CloudKind) -> None:
    if info.count < max(_BANDS.get(kind, (1,))):
        way_out = "UDM2 has 8; an older mask is given as udm:FILE" if kind == "udm2" else "MSK_CLASSI has 3"
        raise InputError(f"{info.path}: has {info.count} bands, {way_out}")
    if kind in _CLASSES and np.dtype(info.dtype).kind not in "ui":
        raise InputError(f"{info.path}: holds {info.dtype}, no {kind}; say what it is, e.g. probability:FILE")


def _overlap(info: RasterInfo, target: RasterInfo) -> Overlap:
    try:
        overlap = find_overlap(info, scene_geobox(target))
    except GridError as error:
        raise InputError(
            f"{error}: it is the cloud mask of {target.path}; give another one, or --cloud-mask none"
        ) from None
    if overlap.fraction < _ALL_OF_IT:
        raise InputError(
            f"{info.path}: the cloud mask covers only {overlap.fraction:.1%} of {target.path}; give one that covers "
            f"all of it, or --cloud-mask none"
        )
    return overlap


def _cloudy(info: RasterInfo, kind: CloudKind) -> str:
    """A VRT on the layer's own grid: 255 where it marks a cloud, 0 elsewhere."""
    if kind in _BANDS:
        name = gdal_name(info.path)
        parts = [xml_text(_looked_up(name, str(band), info, "0:0,1:255", info)) for band in _BANDS[kind]]
        root = grid_element(scene_geobox(info), horizontal_crs(info.crs_wkt).to_wkt())
        band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band="1", subClass="VRTDerivedRasterBand")
        ET.SubElement(band, "PixelFunctionType").text = "sum"
        for part in parts:
            add_source(band, part, "1", info.window, relative=False)
        return xml_text(root)
    if kind in _CLASSES:
        marked = _CLASSES[kind](np.arange(256)).tolist()
        table = ",".join(f"{value}:{255 * cloudy}" for value, cloudy in enumerate(marked))
        if np.dtype(info.dtype).itemsize == 1:
            return xml_text(_looked_up(gdal_name(info.path), "1", info, table, info))
        saw = ",".join(f"{start}:0,{start + 255}:255" for start in range(0, 2**16, 256))  # the lowest eight bits
        bits = xml_text(_looked_up(gdal_name(info.path), "1", info, saw, info))
        return xml_text(_looked_up(bits, "1", info, table))
    limit = {"probability": _SURE, "percent": 100 * _SURE, "mask": 1.0}[kind]
    below = limit - (1e-7 if kind == "probability" else 1.0)
    return xml_text(_looked_up(gdal_name(info.path), "1", info, f"{below!r}:0,{limit!r}:255", info))


def _looked_up(source: str, band: str, grid: RasterInfo, table: str, holes: RasterInfo | None = None) -> ET.Element:
    """A VRT of a band whose values are looked up; 0 where `holes`, the raster that it is of, has none."""
    root = grid_element(scene_geobox(grid), horizontal_crs(grid.crs_wkt).to_wkt())
    own = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    element = add_source(own, source, band, grid.window, relative=False, kind="ComplexSource")
    nodata = None if holes is None else holes.nodata
    if holes is not None and np.dtype(holes.dtype).kind == "f":
        nodata = float("nan") if nodata is None else nodata
    if nodata is not None:
        ET.SubElement(element, "NODATA").text = "nan" if isnan(nodata) else repr(nodata)
    ET.SubElement(element, "LUT").text = table
    return root


def _warped(info: RasterInfo, cloudy: str, target: GeoBox, overlap: Overlap) -> str:
    """A VRT on the target's grid."""
    height, width = target.shape
    finer = overlap.gsd_ratio < _ALL_OF_IT
    try:
        with (
            rasterio.open(cloudy) as source,
            WarpedVRT(
                source,
                crs=horizontal_crs(crs_wkt(target)).to_wkt(),
                transform=target.affine,
                width=width,
                height=height,
                resampling=Resampling.max if finer else Resampling.nearest,
                tolerance=1e-6,
                XSCALE=min(1.0, overlap.gsd[0]),
                YSCALE=min(1.0, overlap.gsd[1]),
                ALLOW_BALLPARK="NO",
            ) as warped,
        ):
            return str(warped.tags(ns="xml:VRT")["xml:VRT"])
    except GDAL_ERRORS as error:
        raise InputError(
            f"{info.path}: cannot be brought to the grid of the raster that it belongs to ({one_line(error, 160)}); "
            f"give it on that grid"
        ) from error


def _of_polygons(given: NamedLayer, target: RasterInfo) -> CloudLayer:
    """A layer of polygons: a VRT that warps a raster which is 255 everywhere onto its own grid, cut along them."""
    clear = everywhere = _looked_up(target.source, "1", target, "0:255,1:255")
    if given.polygons:
        a, b, c, d, e, f = (~Affine(*target.transform))[:6]
        area = shapely.affinity.affine_transform(read_aoi(given.polygons, target.crs_wkt), (a, b, d, e, c, f))
        grid = scene_geobox(target)
        with gdal_env():
            cloudy = ET.fromstring(_warped(target, xml_text(everywhere), grid, find_overlap(target, grid)))
        ET.SubElement(cloudy.findall("GDALWarpOptions")[0], "Cutline").text = area.wkt
        clear = _looked_up(xml_text(cloudy), "1", target, "0:255,1:0")
    size, mtime = size_and_time([given.path])
    return CloudLayer(given.path, "msk_clouds", size, mtime, xml_text(clear))
