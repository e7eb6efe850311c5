"""A product as its metadata describe it."""

from __future__ import annotations

from typing import Literal

import msgspec

Family = Literal["Sentinel-2", "Landsat", "HLS", "PlanetScope", "STAC"]
QualityKind = Literal["scl", "qa_pixel", "fmask", "udm", "udm2", "msk_classi", "msk_clouds"]

SENSOR_TAG = "SENSOR"
"""Metadata item of the VRT that a product is read through: platform and level."""


class Band(msgspec.Struct, frozen=True):
    """A band of a product.

    Attributes:
        name: as the agency calls it: "B02", "SR_B2", "coastal_blue".
        common_name: STAC's word for its wavelengths: "blue", "nir", "swir16".
        file: path or GDAL name.
        index: band of that file, 1-based.
        scale, offset: digital numbers to reflectance, `v * scale + offset`.
    """

    name: str
    common_name: str
    file: str
    index: int = 1
    scale: float = 1.0
    offset: float = 0.0


class Quality(msgspec.Struct, frozen=True):
    """The cloud layer.

    Attributes:
        kind: what its values mean.
        file: path or GDAL name.
        index: band of that file, 1-based; of UDM2 and MSK_CLASSI the first of all.
        polygons: of MSK_CLOUDS: the clouds, as `raster.vector.read_aoi` takes them; "" where there are none.
    """

    kind: QualityKind
    file: str
    index: int = 1
    polygons: str = ""


class Product(msgspec.Struct, frozen=True):
    """A product, opened.

    Attributes:
        path: of the folder or archive, or path or URL of the STAC item.
        family: who reads it.
        name: the product's own.
        sensor: platform and level, for people and for what follows from the instrument: "Sentinel-2A L2A".
        taken: when, ISO 8601 in UTC, with the time of day where it is stated.
        bands: of the resolution that is upsampled, by wavelength.
        coarser: the other bands of measurements, of coarser pixels.
        nodata: of all bands; None: as their files tell.
        quality: None where the product comes without.
        size_bytes, mtime_ns: of its files together, and the latest change; 0 if unknown.
    """

    path: str
    family: Family
    name: str
    sensor: str
    taken: str
    bands: tuple[Band, ...]
    coarser: tuple[Band, ...] = ()
    nodata: float | None = None
    quality: Quality | None = None
    size_bytes: int = 0
    mtime_ns: int = 0
