"""PlanetScope: folders and zips with an analytic GeoTIFF of 4 or 8 bands and its usable data mask (UDM2).

Surface reflectance (`_SR`) is `v / 10000`; radiance becomes reflectance at the top of the atmosphere by the
coefficients of the metadata file, band by band. 0 is nodata.

Source: Planet imagery product specifications, PlanetScope analytic assets and UDM 2.1.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from geo_refdiff.errors import InputError
from geo_refdiff.products.files import Files, number, parsed_xml
from geo_refdiff.products.record import Band, Product, Quality

_SR_SCALE = 0.0001
_FOUR = {"blue": "blue", "green": "green", "red": "red", "nir": "nir"}
_EIGHT = {
    "coastal_blue": "coastal", "blue": "blue", "green_i": "green05", "green": "green", "yellow": "yellow",
    "red": "red", "rededge": "rededge071", "nir": "nir",
}  # fmt: skip
_NAME = r"(?P<folder>.*/)?(?P<scene>(?P<day>\d{8})_(?P<time>\d{6})_\w+?)_3B_AnalyticMS(?P<sr>_SR)?(?P<eight>_8b)?"
_ENDING = r"(?:_harmonized)?(?:_clip)?(?:_file_format)?"


def read_planetscope(files: Files) -> Product | None:
    """The product in a folder or archive; None where there is none.

    Raises:
        InputError: several scenes, or radiance without its metadata file.
    """
    matches = files.matching(f"{_NAME}{_ENDING}\\.tif")
    if not matches:
        return None
    if len(matches) > 1:
        some = ", ".join(match[0] for match in matches[:3])
        raise InputError(f"{files.path}: holds {len(matches)} analytic rasters ({some}); give one of them")
    match = matches[0]
    bands = _EIGHT if match["eight"] else _FOUR
    metadata = files.matching(f"(?:.*/)?{re.escape(match['scene'])}_3B_AnalyticMS(?:_8b)?_metadata(?:_clip)?\\.xml")
    used = [match[0], *(m[0] for m in metadata[:1])]
    if match["sr"]:
        scales = [_SR_SCALE] * len(bands)
    elif metadata:
        scales = _coefficients(files, metadata[0][0], len(bands))
    else:
        raise InputError(
            f"{files.path}: the metadata file of {match[0]} is missing (..._metadata.xml), which tells its scales; "
            f"fetch the product again"
        )
    masks = files.matching(f"(?:.*/)?{re.escape(match['scene'])}_3B_udm2(?:_clip)?(?:_file_format)?\\.tif")
    quality = Quality("udm2", files.gdal(masks[0][0])) if masks else None
    if not masks:  # orders of before 2018 have the older mask alone
        masks = files.matching(f"(?:.*/)?{re.escape(match['scene'])}_3B_AnalyticMS(?:_SR|_8b)*_DN_udm(?:_clip)?\\.tif")
        quality = Quality("udm", files.gdal(masks[0][0])) if masks else None
    try:
        taken = datetime.strptime(match["day"] + match["time"], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise InputError(f"{files.path}: {match['scene']} begins with no date and time; keep its name") from None
    size, mtime = files.stamp([*used, *(m[0] for m in masks[:1])])
    return Product(
        str(files.path), "PlanetScope", match["scene"], f"PlanetScope {'SR' if match['sr'] else 'TOA'}",
        taken.strftime("%Y-%m-%dT%H:%M:%SZ"),
        tuple(
            Band(name, common_name, files.gdal(match[0]), index, scale)
            for index, ((name, common_name), scale) in enumerate(zip(bands.items(), scales, strict=True), 1)
        ),
        (), 0.0, quality, size, mtime,
    )  # fmt: skip


def _coefficients(files: Files, name: str, count: int) -> list[float]:
    where = f"{files.path}/{name}"
    coefficients = {}
    for element in parsed_xml(where, files.text(name)).iter("bandSpecificMetadata"):
        band = number(where, "bandNumber", element.findtext("bandNumber"), int)
        coefficients[band] = number(where, "reflectanceCoefficient", element.findtext("reflectanceCoefficient"), float)
    missing = [band for band in range(1, count + 1) if band not in coefficients]
    if missing:
        raise InputError(f"{where}: tells no reflectanceCoefficient of band {missing[0]}; fetch the product again")
    return [coefficients[band] for band in range(1, count + 1)]
