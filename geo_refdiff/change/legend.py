"""Names and colours of a class raster: category names for GDAL and a style for QGIS, both beside the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from geo_refdiff.classes import COLOURS
from geo_refdiff.raster.styles import write_category_names, write_class_style

Colour = tuple[int, int, int]


def class_colours(count: int) -> list[Colour]:
    """Colours of the project's own classes, by index."""
    return [COLOURS[index] if index < len(COLOURS) else (128, 128, 128) for index in range(count)]


def legend_files(raster: Path) -> tuple[Path, Path]:
    """The two files of `write_legend`, beside a class raster."""
    return raster.with_name(f"{raster.name}.aux.xml"), raster.with_suffix(".qml")


def write_legend(raster: Path, names: Sequence[str], colours: Sequence[Colour]) -> tuple[Path, Path]:
    """Write `raster.aux.xml` (GDAL's category names) and the QGIS style of the same stem, each whole or not at all.

    Args:
        raster: a class raster of one band.
        names, colours: of the values 0, 1, 2, ...; value 0 is drawn transparent.

    Raises:
        OutputError: disk full, no permission.
    """
    write_category_names(raster, names)
    files = legend_files(raster)
    write_class_style(files[1], names, colours, clear=True)
    return files
