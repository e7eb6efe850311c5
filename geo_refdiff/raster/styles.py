"""What desktop GIS show: QGIS styles for images and class rasters, and class names as GDAL side-car.

QGIS takes up a style by itself beside a raster of the same stem. Source: the renderers' writeXml in QGIS 3.22.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from geo_refdiff.classes import COLOURS
from geo_refdiff.raster.files import write_bytes_atomic
from geo_refdiff.raster.picture import Look, look

Colour = tuple[int, int, int]

RAMP = ("#000004", "#57106e", "#bc3754", "#f98e09", "#fcffa4")
"""Five colours of matplotlib's inferno, dark to light."""


def write_class_style(path: Path, names: Sequence[str], colours: Sequence[Colour], *, clear: bool = False) -> None:
    """A QGIS style (.qml) for a raster of classes; value 0 is not drawn.

    Args:
        path: the .qml.
        names, colours: by value.
        clear: whether value 0 is a class of the legend, though see-through; else it is missing.

    Raises:
        OutputError: it cannot be written.
    """
    root, renderer = _style("paletted", band="1")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, (name, colour) in enumerate(zip(names, colours, strict=True)):
        if value or clear:
            text, alpha = "#{:02x}{:02x}{:02x}".format(*colour), "255" if value else "0"
            ET.SubElement(palette, "paletteEntry", value=str(value), color=text, alpha=alpha, label=name)
    _write(path, root)


def write_image_style(preview: Look, path: Path) -> None:
    """A QGIS style (.qml) for an image: its red, green and blue, stretched alike, as in the quicklook.

    Raises:
        OutputError: it cannot be written.
    """
    low, high = preview.range
    high = high if high > low else low + 1.0
    if len(preview.bands) == 3:
        colours = ("red", "green", "blue")
        bands = {f"{c}Band": str(b) for c, b in zip(colours, preview.bands, strict=True)}
        root, renderer = _style("multibandcolor", **bands)
        stretched = [ET.SubElement(renderer, f"{c}ContrastEnhancement") for c in colours]
    else:
        root, renderer = _style("singlebandgray", grayBand=str(preview.bands[0]), gradient="BlackToWhite")
        stretched = [ET.SubElement(renderer, "contrastEnhancement")]
    for element in stretched:
        for key, value in (
            ("minValue", f"{low:.9g}"),
            ("maxValue", f"{high:.9g}"),
            ("algorithm", "StretchToMinimumMaximum"),
        ):
            ET.SubElement(element, key).text = value
    _write(path, root)


def write_ramp_style(raster: Path, path: Path) -> None:
    """A QGIS style (.qml) for a map of one quantity from 0 on: its first band, dark to light up to the 98 percentile.

    Raises:
        OutputError: it cannot be written.
    """
    top = look(raster).range[1]
    top = top if top > 0 else 1.0
    root, renderer = _style("singlebandpseudocolor", band="1", classificationMin="0", classificationMax=f"{top:.9g}")
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue="0",
        maximumValue=f"{top:.9g}",
    )
    for step, colour in enumerate(RAMP):
        value = top * step / (len(RAMP) - 1)
        ET.SubElement(shader, "item", value=f"{value:.9g}", label=f"{value:.3g}", color=colour, alpha="255")
    _write(path, root)


def write_field_style(path: Path, field: str, colours: Mapping[str, Colour]) -> None:
    """A QGIS style (.qml) for polygons: a colour, half see-through, for each value of a field.

    Args:
        path: the .qml.
        field: of the layer, text.
        colours: by value.

    Raises:
        OutputError: it cannot be written.
    """
    root = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ET.SubElement(root, "renderer-v2", type="categorizedSymbol", attr=field, enableorderby="0")
    categories, symbols = ET.SubElement(renderer, "categories"), ET.SubElement(renderer, "symbols")
    for number, (value, colour) in enumerate(colours.items()):
        ET.SubElement(categories, "category", symbol=str(number), value=value, label=value, render="true")
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1", clip_to_extent="1")
        options = ET.SubElement(
            ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0", "locked": "0"}),
            "Option",
            type="Map",
        )
        rgb = ",".join(map(str, colour))
        for key, text in (
            ("color", f"{rgb},128"),
            ("outline_color", f"{rgb},255"),
            ("outline_style", "solid"),
            ("outline_width", "0.4"),
            ("outline_width_unit", "MM"),
            ("style", "solid"),
        ):
            ET.SubElement(options, "Option", type="QString", name=key, value=text)
    _write(path, root)


def class_colours(count: int) -> list[Colour]:
    """Colours of the project's own classes, by index."""
    return [COLOURS[index] if index < len(COLOURS) else (128, 128, 128) for index in range(count)]


def legend_files(raster: Path) -> tuple[Path, Path]:
    """The two files of `write_legend`, beside a class raster."""
    return raster.with_name(f"{raster.name}.aux.xml"), raster.with_suffix(".qml")


def write_legend(raster: Path, names: Sequence[str], colours: Sequence[Colour]) -> None:
    """Names of classes as GDAL's side-car, since a GeoTIFF cannot hold them, and a QGIS style; value 0 is transparent.

    Args:
        raster: a class raster of one band.
        names, colours: of the values 0, 1, 2, ...

    Raises:
        OutputError: disk full, no permission.
    """
    write_category_names(raster, names)
    write_class_style(legend_files(raster)[1], names, colours, clear=True)


def write_category_names(raster: Path, names: Sequence[str]) -> None:
    """GDAL's side-car (raster.aux.xml) with the classes' names.

    Raises:
        OutputError: it cannot be written.
    """
    root = ET.Element("PAMDataset")
    categories = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for name in names:
        ET.SubElement(categories, "Category").text = name
    write_bytes_atomic(legend_files(raster)[0], ET.tostring(root, encoding="utf-8"))


def _style(kind: str, **attributes: str) -> tuple[ET.Element, ET.Element]:
    """A document and its renderer."""
    root = ET.Element("qgis", version="3.22", styleCategories="AllStyleCategories")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(pipe, "rasterrenderer", {"type": kind, "opacity": "1", "alphaBand": "-1", **attributes})
    return root, renderer


def _write(path: Path, root: ET.Element) -> None:
    ET.indent(root)
    document = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + ET.tostring(root, encoding="unicode")
    write_bytes_atomic(path, document.encode())
