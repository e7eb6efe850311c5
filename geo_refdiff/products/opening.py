"""Products recognised, and inspected as one raster.

A product is handed on as XML of a GDAL VRT (`RasterInfo.vrt`), which GDAL opens like a file: it needs no file of its
own, so nothing has to be kept for a resumed run or be carried to workers.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from pathlib import Path

import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from geo_refdiff.errors import InputError
from geo_refdiff.products.files import Files, is_archive
from geo_refdiff.products.hls import read_hls
from geo_refdiff.products.landsat import read_landsat
from geo_refdiff.products.planetscope import read_planetscope
from geo_refdiff.products.record import SENSOR_TAG, Band, Product
from geo_refdiff.products.sentinel2 import read_sentinel_2
from geo_refdiff.products.stac_item import is_stac_item, read_stac_item
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env, is_gdal_name, one_line, unreadable
from geo_refdiff.raster.info import RasterInfo, Role
from geo_refdiff.raster.info import inspect as inspect_file
from geo_refdiff.raster.location import URL
from geo_refdiff.raster.vrt import VirtualRaster, add_source, band_element, dataset_element
from geo_refdiff.raster.window import Window

_READERS = (read_sentinel_2, read_landsat, read_hls, read_planetscope)
_ONE = r"MTD_MSI(L1C|L2A)\.xml|[^/]*_MTL\.(json|txt|xml)"
"""Metadata that make a folder a product, whatever it lacks."""

_COLOURS = {"red": "red", "green": "green", "blue": "blue"} | (
    {"nir": "nir", "nir08": "nir"} if hasattr(ColorInterp, "nir") else {}
)
"""Colour interpretation by common name; near infrared from GDAL 3.10 on."""


def inspect(path: str | Path, role: Role, *, coarser: bool = False) -> RasterInfo:
    """What a raster file or a product holds, after checking that it can serve (see `raster.info.inspect`).

    Args:
        path: of a file, folder, archive or STAC item, or a URL.
        role: what it is to be.
        coarser: whether a product's bands of coarser pixels come along, resampled, behind the others.

    Raises:
        InputError: one line that names the file, what is wrong and the way out.
    """
    product = open_product(path)
    if product is None:
        return inspect_file(path, role)
    with gdal_env():
        info = inspect_file(product.path, role, vrt=product_vrt(product, coarser=coarser))
    more = len(product.coarser) if coarser else 0
    return replace(info, size_bytes=product.size_bytes, mtime_ns=product.mtime_ns, coarser=more)


def open_product(path: str | Path) -> Product | None:
    """The product that a path or URL leads to; None for any other raster.

    Raises:
        InputError: it is one, but incomplete or damaged; or a folder that holds none.
    """
    name = str(path)
    if is_stac_item(name):
        return read_stac_item(name)
    if URL.match(name) or is_gdal_name(name):
        return None
    place = Path(name).absolute()
    if not (place.is_dir() or is_archive(place)):
        return None
    product = _read(Files(place))
    if product is not None:
        return product
    what = "folder" if place.is_dir() else "archive"
    raise InputError(
        f"{name}: is a {what} without a product of Sentinel-2 (MTD_MSIL2A.xml), Landsat Collection 2 (MTL), HLS or "
        f"PlanetScope; give one of them, or the path of a GeoTIFF, COG or VRT"
    )


def holds_product(path: Path) -> bool:
    """Whether a folder or archive is one product; one that is incomplete is one, several together are none."""
    try:
        files = Files(path)
        return bool(files.matching(_ONE)) or _read(files) is not None
    except InputError:
        return False


def gdal_source(path: str) -> str:
    """What GDAL opens for a path: XML of a VRT for a product, else the path itself.

    Raises:
        InputError: an incomplete product.
    """
    product = open_product(path)
    if product is None:
        return path
    with gdal_env():
        return product_vrt(product)


def _read(files: Files) -> Product | None:
    return next((product for product in (read(files) for read in _READERS) if product is not None), None)


def product_vrt(product: Product, *, coarser: bool = False) -> str:
    """XML of a VRT of the product's bands, with names, scales, offsets, nodata, colours and time.

    Args:
        product: opened.
        coarser: whether the bands of coarser pixels follow, resampled by cubic convolution.

    Raises:
        InputError: a band cannot be opened, or is on another grid than the first.
    """
    bands = product.bands + (product.coarser if coarser else ())
    first = _opened(product, bands[0])
    for band in product.bands[1:]:
        grid = _opened(product, band)
        if grid != first:
            sizes = " where ".join(
                f"{b.name} has {g.width} x {g.height} pixels of {g.affine.a:g} ({g.dtype})"
                for b, g in ((band, grid), (bands[0], first))
            )
            raise InputError(f"{product.path}: its bands do not lie on one grid: {sizes}; fetch the product again")
    geobox = GeoBox((first.height, first.width), first.affine, first.crs)
    mosaic = VirtualRaster(
        geobox=geobox,
        dtype=first.dtype,
        count=len(bands),
        sources=(),
        nodata=first.nodata if product.nodata is None else product.nodata,
        descriptions=tuple(band.name for band in bands),
        scales=tuple(band.scale for band in bands),
        offsets=tuple(band.offset for band in bands),
        colorinterp=tuple(_COLOURS.get(band.common_name, "undefined") for band in bands),
        tags={"AREA_OR_POINT": "Area", "ACQUISITIONDATETIME": product.taken, SENSOR_TAG: product.sensor},
        crs_wkt=first.crs,
    )
    root = dataset_element(mosaic)
    whole = Window(0, 0, first.height, first.width)
    for index, band in enumerate(bands):
        element = band_element(mosaic, index)
        file = band.file if index < len(product.bands) else _resampled(product, band, first, mosaic.nodata)
        add_source(element, file, str(band.index), whole, relative=False)
        root.append(element)
    return ET.tostring(root, encoding="unicode")


def _resampled(product: Product, band: Band, grid: _Grid, nodata: float | None) -> str:
    """XML of a VRT of a band's file on the grid of the other bands.

    Raises:
        InputError: it cannot be opened, or is of another data type.
    """
    own = _opened(product, band)
    if own.dtype != grid.dtype:
        raise InputError(f"{product.path}: band {band.name} holds {own.dtype}, the others {grid.dtype}; leave it out")
    try:
        with (
            rasterio.open(band.file) as source,
            WarpedVRT(
                source, crs=grid.crs, transform=grid.affine, width=grid.width, height=grid.height,
                resampling=Resampling.cubic, src_nodata=nodata, nodata=nodata, tolerance=1e-6,
            ) as warped,
        ):  # fmt: skip
            return str(warped.tags(ns="xml:VRT")["xml:VRT"])
    except GDAL_ERRORS as error:
        raise InputError(
            f"{product.path}: band {band.name} cannot be resampled ({one_line(error, 160)}); {unreadable(band.file)}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Grid:
    """What the files of a product's bands have in common."""

    width: int
    height: int
    affine: Affine
    crs: str
    dtype: str
    nodata: float | None


def _opened(product: Product, band: Band) -> _Grid:
    """The grid of the file that holds a band.

    Raises:
        InputError: it cannot be opened, has no such band or no CRS.
    """
    where = f"{product.path}: band {band.name}"
    try:
        with rasterio.open(band.file) as dataset:
            if not 1 <= band.index <= dataset.count:
                raise InputError(f"{where} is to be band {band.index} of {band.file}, which has {dataset.count}")
            if not dataset.crs:
                raise InputError(f"{where} has no CRS ({band.file}); fetch the product again")
            return _Grid(
                dataset.width,
                dataset.height,
                dataset.transform,
                dataset.crs.to_wkt(),
                dataset.dtypes[band.index - 1],
                dataset.nodatavals[band.index - 1],
            )
    except GDAL_ERRORS as error:
        raise InputError(f"{where} cannot be opened ({one_line(error, 160)}); {unreadable(band.file)}") from error
