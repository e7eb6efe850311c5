"""Names and colours of a class raster for people: category names for GDAL, a style for QGIS, both beside the file.

Sources: https://gdal.org/en/stable/drivers/raster/gtiff.html (PAM), QGIS's paletted raster renderer.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from geo_refdiff.io.atomic import write_bytes_atomic
from geo_refdiff.sample_tiles.landcover import COLOURS

Colour = tuple[int, int, int]


def class_colours(count: int) -> list[Colour]:
    """Colours of the project's own classes, by index."""
    return [COLOURS.get(index, (128, 128, 128)) for index in range(count)]


def write_legend(raster: Path, names: Sequence[str], colours: Sequence[Colour]) -> tuple[Path, Path]:
    """Writes `raster.aux.xml` (GDAL's category names) and the QGIS style of the same stem, each whole or not at all.

    Args:
        raster: a class raster of one band.
        names, colours: of the values 0, 1, 2, ...; value 0 is drawn transparent.

    Raises:
        OutputError: disk full, no permission.
    """
    pam = ET.Element("PAMDataset")
    categories = ET.SubElement(ET.SubElement(pam, "PAMRasterBand", band="1"), "CategoryNames")
    for name in names:
        ET.SubElement(categories, "Category").text = name
    style = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ET.SubElement(
        ET.SubElement(style, "pipe"), "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for value, (name, colour) in enumerate(zip(names, colours, strict=True)):
        shown = "#{:02x}{:02x}{:02x}".format(*colour)
        alpha = "0" if value == 0 else "255"
        ET.SubElement(palette, "paletteEntry", value=str(value), color=shown, alpha=alpha, label=name)
    aside = raster.with_name(raster.name + ".aux.xml"), raster.with_suffix(".qml")
    for path, root, head in zip(aside, (pam, style), (b"", b"<!DOCTYPE qgis>\n"), strict=True):
        ET.indent(root)
        write_bytes_atomic(path, head + ET.tostring(root, encoding="utf-8") + b"\n")
    return aside
