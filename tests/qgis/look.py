"""Run by QGIS's own Python: loads files as layers, as a person would, prints what it sees as JSON, renders a PNG.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 look.py out.png image.tif source.tif manifest.gpkg|layername=areas ...

The PNG shows each layer in a tile of its own over a pink ground, so that missing pixels stand out.
"""

import json
import math
import sys

from qgis.core import (
    QgsApplication,
    QgsMapRendererCustomPainterJob,
    QgsMapSettings,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor, QImage, QPainter

TILE = 480
PINK = (255, 0, 255)


def load(path):
    """The layer with the style that QGIS finds beside it."""
    if path.partition("|")[0].endswith((".gpkg", ".geojson", ".fgb")):
        return QgsVectorLayer(path, "layer", "ogr")
    return QgsRasterLayer(path, "layer", "gdal")


def output(layer, picture):
    """What QGIS says of a layer, JSON-ready."""
    box = layer.extent()
    facts = {
        "valid": layer.isValid(),
        "crs": layer.crs().authid(),
        "extent": [box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()],
    }
    if isinstance(layer, QgsVectorLayer):
        renderer = layer.renderer()
        facts |= {"features": layer.featureCount(), "fields": [f.name() for f in layer.fields()]}
        if renderer.type() == "categorizedSymbol":
            facts["classes"] = [[c.value(), c.label(), c.symbol().color().name()] for c in renderer.categories()]
            facts["by"] = renderer.classAttribute()
        return facts
    provider, renderer = layer.dataProvider(), layer.renderer()
    bands = range(1, layer.bandCount() + 1)
    facts |= {
        "size": [layer.width(), layer.height()],
        "bands": [layer.bandName(b) for b in bands],
        "nodata": [provider.sourceNoDataValue(b) if provider.sourceHasNoDataValue(b) else None for b in bands],
        "renderer": renderer.type(),
        "overviews": sum(p.exists for p in provider.buildPyramidList()),
        "transparent": sum(picture.pixelColor(x, y).getRgb()[:3] == PINK for x in range(TILE) for y in range(TILE)),
        "colours": len({picture.pixel(x, y) for x in range(0, TILE, 7) for y in range(0, TILE, 7)}),
    }
    if renderer.type() == "paletted":
        facts["classes"] = [[c.value, c.label, c.color.name()] for c in renderer.classes()]
    if renderer.type() == "multibandcolor":
        shown = [renderer.redContrastEnhancement(), renderer.greenContrastEnhancement()]
        facts["rgb"] = [renderer.redBand(), renderer.greenBand(), renderer.blueBand()]
        facts["stretch"] = [[e.minimumValue(), e.maximumValue()] for e in shown if e]
        facts["fixed"] = renderer.minMaxOrigin().limits() == getattr(QgsRasterMinMaxOrigin, "None_", 0)
    if renderer.type() == "singlebandgray" and renderer.contrastEnhancement():
        grey = renderer.contrastEnhancement()
        facts["stretch"] = [[grey.minimumValue(), grey.maximumValue()]]
    if renderer.type() == "singlebandpseudocolor":
        facts["stretch"] = [[renderer.classificationMin(), renderer.classificationMax()]]
    return facts


def drawn(layer):
    """The layer on pink, TILE pixels wide and high."""
    picture = QImage(QSize(TILE, TILE), QImage.Format_ARGB32_Premultiplied)
    picture.fill(QColor(*PINK))
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent())
    settings.setOutputSize(QSize(TILE, TILE))
    settings.setBackgroundColor(QColor(*PINK))
    painter = QPainter(picture)
    job = QgsMapRendererCustomPainterJob(settings, painter)
    job.renderSynchronously()
    painter.end()
    return picture


def main():
    """Look at all layers."""
    QgsApplication.setPrefixPath("/usr", True)
    application = QgsApplication([], False)
    application.initQgis()
    out, paths = sys.argv[1], sys.argv[2:]
    cols = math.ceil(math.sqrt(len(paths)))
    sheet = QImage(QSize(cols * TILE, math.ceil(len(paths) / cols) * TILE), QImage.Format_RGB32)
    sheet.fill(QColor("white"))
    painter = QPainter(sheet)
    facts = {}
    for number, path in enumerate(paths):
        layer = load(path)
        picture = drawn(layer) if layer.isValid() else QImage(QSize(TILE, TILE), QImage.Format_RGB32)
        facts[path] = output(layer, picture) if layer.isValid() else {"valid": False}
        painter.drawImage(number % cols * TILE, number // cols * TILE, picture)
        del layer
    painter.end()
    sheet.save(out)
    print(json.dumps(facts))
    application.exitQgis()


main()
