"""Sentinel-2 L1C and L2A: .SAFE folders and archives of the compact format (since December 2016).

Digital numbers become reflectance by `(v + offset) / quantification`; the offset is -1000 from processing baseline
04.00 on and stands in the metadata, band by band. 0 is nodata.

Source: Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD, issue 14.9 and 15.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

from geo_refdiff.errors import InputError
from geo_refdiff.products.files import Files, number, parsed_xml
from geo_refdiff.products.record import Band, Product, Quality

COMMON_NAMES = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge071", "B06": "rededge075",
    "B07": "rededge078", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B10": "cirrus", "B11": "swir16",
    "B12": "swir22",
}  # fmt: skip
"""Bands by wavelength; their place here is the metadata's `band_id`, from 0."""

FINE = ("B02", "B03", "B04", "B08")
"""Of 10 m."""

COARSER = {"B05": 20, "B06": 20, "B07": 20, "B8A": 20, "B11": 20, "B12": 20}
"""Of 20 m, in metres."""

_METADATA = r"MTD_MSI(L1C|L2A)\.xml"
_OFFSETS_FROM = 4.0
"""Processing baseline."""


def read_sentinel_2(files: Files) -> Product | None:
    """The product in a folder or archive; None where there is none.

    Raises:
        InputError: incomplete or damaged metadata, files that are missing, an unknown baseline.
    """
    matches = files.matching(_METADATA)
    if not matches:
        if re.fullmatch(r"S2.*\.SAFE(\.zip)?", files.path.name):
            raise InputError(f"{files.path}: has no MTD_MSIL1C.xml or MTD_MSIL2A.xml; fetch the product again")
        return None
    name, level = matches[0][0], matches[0][1]
    where = f"{files.path}/{name}"
    root = parsed_xml(where, files.text(name))
    scale = 1 / _quantification(where, root, level)
    offsets = _offsets(where, root, level)
    images = _images(where, root)
    make = _Bands(files, images, scale, {band: offsets.get(band, 0.0) * scale for band in COMMON_NAMES})
    fine = tuple(make.band(band, 10) for band in FINE)
    coarser = tuple(make.band(band, metres) for band, metres in COARSER.items() if make.stem(band, metres) in images)
    taken = _text(root, "DATATAKE_SENSING_START") or _text(root, "PRODUCT_START_TIME")
    platform = _text(root, "SPACECRAFT_NAME")
    if taken is None or platform is None:
        raise InputError(f"{where}: does not tell platform and time (SPACECRAFT_NAME, PRODUCT_START_TIME)")
    quality = make.scene_classes() if level == "L2A" else make.cloud_mask()
    size, mtime = files.stamp([name, *make.used])
    return Product(
        str(files.path), "Sentinel-2", (_text(root, "PRODUCT_URI") or files.path.name).removesuffix(".SAFE"),
        f"{platform} {level}", taken, fine, coarser, 0.0, quality, size, mtime,
    )  # fmt: skip


class _Bands:
    """Bands as the metadata list their images."""

    def __init__(self, files: Files, images: Mapping[str, str], scale: float, offsets: Mapping[str, float]) -> None:
        self.files, self.images, self.scale, self.offsets = files, images, scale, offsets
        self.used: list[str] = []

    def stem(self, band: str, metres: int) -> str:
        """How the band's image is called after tile and time: with its resolution in L2A."""
        return f"{band}_{metres}m" if f"{band}_{metres}m" in self.images else band

    def band(self, band: str, metres: int) -> Band:
        file = self._file(self.stem(band, metres))
        return Band(band, COMMON_NAMES[band], self.files.gdal(file), 1, self.scale, self.offsets[band])

    def scene_classes(self) -> Quality | None:
        if "SCL_20m" not in self.images:
            return None
        return Quality("scl", self.files.gdal(self._file("SCL_20m")))

    def cloud_mask(self) -> Quality | None:
        """Of L1C: a raster from baseline 04.00 on, polygons before."""
        folder = next(iter(self.images.values())).partition("/IMG_DATA")[0] + "/QI_DATA"
        raster, polygons = f"{folder}/MSK_CLASSI_B00.jp2", f"{folder}/MSK_CLOUDS_B00.gml"
        if self.files.has(raster):
            self.used.append(raster)
            return Quality("msk_classi", self.files.gdal(raster))
        if not self.files.has(polygons):
            return None
        self.used.append(polygons)
        return Quality("msk_clouds", self.files.gdal(polygons), polygons=_polygons(self.files, polygons))

    def _file(self, stem: str) -> str:
        if stem not in self.images:
            raise InputError(
                f"{self.files.path}: its metadata list no image of band {stem}; fetch the product again, or give files "
                f"of single bands as one raster (gdalbuildvrt -separate)"
            )
        name = f"{self.images[stem]}.jp2"
        if not self.files.has(name):
            raise InputError(f"{self.files.path}: band {stem} is missing ({name}); fetch the product again")
        self.used.append(name)
        return name


def _polygons(files: Files, name: str) -> str:
    """The polygons of a mask of the older kind, "CRS;MULTIPOLYGON ...", or "".

    Raises:
        InputError: a damaged file, or one in several CRSs.
    """
    where = f"{files.path}/{name}"
    root = parsed_xml(where, files.text(name))
    systems = {code for e in root.iter() for code in re.findall(r"EPSG:(?:[\d.]*:)?(\d+)$", e.get("srsName", ""))}
    shapes = []
    for element in root.iter("Polygon"):
        rings = []
        for ring in (r for side in ("exterior", "interior") for r in element.findall(f"{side}//posList")):
            numbers = [number(where, "posList", text, float) for text in (ring.text or "").split()]
            step = 3 if ring.get("srsDimension") == "3" else 2
            points = [f"{x!r} {y!r}" for x, y in zip(numbers[::step], numbers[1::step], strict=False)]
            rings.append(f"({', '.join(points)})")
        shapes.append(f"({', '.join(rings)})")
    if not shapes:
        return ""
    if len(systems) != 1:
        raise InputError(f"{where}: its polygons are in {len(systems)} CRSs, expected one; say --cloud-mask none")
    return f"EPSG:{systems.pop()};MULTIPOLYGON ({', '.join(shapes)})"


def _images(where: str, root: ET.Element) -> dict[str, str]:
    """By band, and resolution in L2A: the path of the image within the product, without its ending.

    Raises:
        InputError: no tile, several (products of before December 2016), or the metadata do not list their images.
    """
    granules = list(root.iter("Granule"))
    if len(granules) != 1:
        raise InputError(
            f"{where}: lists {len(granules)} tiles; a product of one tile is read (those of before December 2016 hold "
            f"several: give the tile's bands as one raster, gdalbuildvrt -separate)"
        )
    images = {}
    for element in granules[0].iter("IMAGE_FILE"):
        path = (element.text or "").strip()
        match = re.fullmatch(r".*_([A-Z0-9]{3}(?:_\d\dm)?)", path)
        if match:
            images[match[1]] = path
    return images


def _quantification(where: str, root: ET.Element, level: str) -> float:
    name = "BOA_QUANTIFICATION_VALUE" if level == "L2A" else "QUANTIFICATION_VALUE"
    value = number(where, name, _text(root, name), float)
    if not value > 0:
        raise InputError(f"{where}: {name} is {value:g}; fetch the product again")
    return value


def _offsets(where: str, root: ET.Element, level: str) -> dict[str, float]:
    """Digital numbers to add, by band; none before baseline 04.00.

    Raises:
        InputError: a baseline that is no number, or one that needs offsets and tells none.
    """
    name = "BOA_ADD_OFFSET" if level == "L2A" else "RADIO_ADD_OFFSET"
    bands = list(COMMON_NAMES)
    offsets = {}
    for element in root.iter(name):
        at = number(where, f"band_id of {name}", element.get("band_id"), int)
        if 0 <= at < len(bands):
            offsets[bands[at]] = number(where, name, element.text, float)
    text = _text(root, "PROCESSING_BASELINE")
    baseline = number(where, "PROCESSING_BASELINE", text, float)
    missing = [band for band in FINE if band not in offsets]
    if baseline >= _OFFSETS_FROM and missing:
        raise InputError(
            f"{where}: processing baseline {text} adds an offset to the digital numbers, but {name} of "
            f"{', '.join(missing)} is missing; fetch the product again"
        )
    return offsets


def _text(root: ET.Element, name: str) -> str | None:
    element = next(root.iter(name), None)
    return None if element is None or not (element.text or "").strip() else str(element.text).strip()
