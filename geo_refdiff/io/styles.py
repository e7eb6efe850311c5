"""What desktop GIS show of class rasters: names and colours as QGIS style and as GDAL side-car."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from geo_refdiff.io.atomic import write_bytes_atomic

Colour = tuple[int, int, int]


def write_class_style(path: Path, names: Sequence[str], colours: Sequence[Colour]) -> None:
    """A QGIS style (.qml) for a raster of classes 1, 2, ...; QGIS takes it up by itself beside a raster of its stem.

    Args:
        path: the .qml.
        names, colours: by value, 0 (nodata) included, which is not shown.

    Raises:
        OutputError: it cannot be written.
    """
    root = ET.Element("qgis", version="3.22", styleCategories="AllStyleCategories")
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"), "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for value, (name, colour) in enumerate(zip(names, colours, strict=True)):
        if value:
            text = "#{:02x}{:02x}{:02x}".format(*colour)
            ET.SubElement(palette, "paletteEntry", value=str(value), label=name, color=text, alpha="255")
    document = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, encoding="unicode")
    write_bytes_atomic(path, document.encode())


def write_category_names(raster: Path, names: Sequence[str]) -> None:
    """GDAL's side-car (raster.aux.xml) with the classes' names; a GeoTIFF itself cannot hold them.

    Raises:
        OutputError: it cannot be written.
    """
    root = ET.Element("PAMDataset")
    categories = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for name in names:
        ET.SubElement(categories, "Category").text = name
    write_bytes_atomic(raster.with_name(f"{raster.name}.aux.xml"), ET.tostring(root, encoding="utf-8"))
