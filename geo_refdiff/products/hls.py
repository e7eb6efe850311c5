"""Harmonized Landsat Sentinel-2 (HLS) version 2: folders with a GeoTIFF a band, of S30 or L30.

All bands have 30 m; digital numbers become reflectance by 0.0001. -9999 is nodata, band by band.

Source: HLS Product User Guide, version 2.0.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from geo_refdiff.errors import InputError
from geo_refdiff.products.files import Files
from geo_refdiff.products.landsat import OLI
from geo_refdiff.products.record import Band, Product, Quality
from geo_refdiff.products.sentinel2 import COMMON_NAMES

_SCALE = 0.0001
_NODATA = -9999.0
_NAME = r"(?P<stem>HLS\.(?P<kind>[SL]30)\.(?P<tile>T\w{5})\.(?P<time>\d{7}T\d{6})\.v2\.\d)\.(?P<band>B\w{2})\.tif"
_NEEDED = ("B02", "B03", "B04")
_BANDS = {
    "S30": {band: name for band, name in COMMON_NAMES.items() if band not in ("B09", "B10")},
    "L30": {f"B{number:02d}": name for number, name in OLI.items()},
}
_SENSORS = {"S30": "Sentinel-2 HLS S30", "L30": "Landsat HLS L30"}


def read_hls(files: Files) -> Product | None:
    """The product in a folder or archive; None where there is none.

    Raises:
        InputError: no blue, green or red band, or several products.
    """
    matches = files.matching(f"(?:.*/)?{_NAME}")
    if not matches:
        return None
    stems = sorted({match["stem"] for match in matches})
    if len(stems) > 1:
        raise InputError(f"{files.path}: holds {len(stems)} products ({', '.join(stems[:3])}); give one of them")
    kind, time = matches[0]["kind"], matches[0]["time"]
    names = {match["band"]: match[0] for match in matches}
    missing = [band for band in _NEEDED if band not in names]
    if missing:
        raise InputError(f"{files.path}: band {', '.join(missing)} is missing; fetch the product again")
    bands = tuple(
        Band(band, common_name, files.gdal(names[band]), 1, _SCALE)
        for band, common_name in _BANDS[kind].items()
        if band in names
    )
    masks = files.matching(f"(?:.*/)?{re.escape(stems[0])}\\.Fmask\\.tif")
    quality = Quality("fmask", files.gdal(masks[0][0])) if masks else None
    try:
        taken = datetime.strptime(time, "%Y%jT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise InputError(f"{files.path}: '{time}' in {stems[0]} is no year, day and time; keep its name") from None
    size, mtime = files.stamp([names[band.name] for band in bands] + [match[0] for match in masks[:1]])
    return Product(
        str(files.path), "HLS", stems[0], _SENSORS[kind], taken.strftime("%Y-%m-%dT%H:%M:%SZ"),
        bands, (), _NODATA, quality, size, mtime,
    )  # fmt: skip
