"""A raster's own cloud layer."""

from __future__ import annotations

import rasterio

from geo_refdiff.products.opening import open_product
from geo_refdiff.raster.clouds import NamedLayer
from geo_refdiff.raster.gdal import GDAL_ERRORS
from geo_refdiff.raster.info import RasterInfo

TAG = "GEO_REFDIFF_CLOUD_LAYER"
"""Metadata item of a raster that is put together of others: its layer of clouds, as KIND:FILE."""


def own_layer(info: RasterInfo) -> NamedLayer | None:
    """The quality layer of a product, or the one that a mosaic of products names; None where there is none.

    Raises:
        InputError: an incomplete product.
    """
    product = open_product(info.path)
    if product is not None:
        quality = product.quality
        return None if quality is None else NamedLayer(quality.file, quality.kind, quality.polygons)
    try:
        with rasterio.open(info.source) as dataset:
            named = dataset.tags().get(TAG)
    except GDAL_ERRORS:
        return None
    return None if named is None else NamedLayer.of(named)


def is_product(info: RasterInfo) -> bool:
    """Whether a raster is a product as agencies ship them, which may tell its clouds."""
    return info.vrt is not None
