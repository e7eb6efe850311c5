"""The algorithm Upscale."""

import os

from qgis.core import (
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingOutputRasterLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterRasterDestination,
    QgsVectorLayer,
)

from .algorithm import OPTIONS, POLYGONS, Algorithm, facts_of, path_of


class Upscale(Algorithm):
    """geo-refdiff upscale."""

    NAME = "upscale"
    TITLE = "Upscale"
    HELP = (
        "Turns a coarse scene into a sharp GeoTIFF on a grid a whole number of times finer, with the detail of an "
        "older, finer reference where nothing has changed. Reference and mask may be in any CRS.\n\n"
        "The mask tells what has changed: a raster of classes (0 = no change), or polygons with a field that names the "
        "class. Without one, changes are looked for by comparing scene and reference, and the sure ones are heeded.\n\n"
        "A cancelled run can be continued: choose the same output and 'Continue with an unfinished run'."
    )

    def initAlgorithm(self, configuration=None):  # noqa: N802
        """Parameters and outputs."""
        self.raster("SCENE", "Coarse scene")
        self.raster("REF", "Older, finer reference", optional=True)
        self._add(
            QgsProcessingParameterMapLayer(
                "MASK", "Change mask: raster or polygons", optional=True, types=[QgsProcessing.TypeRaster, POLYGONS]
            )
        )
        label = OPTIONS["mask_field"]["label"]
        self._add(QgsProcessingParameterField("MASK_FIELD", label, parentLayerParameterName="MASK", optional=True))
        self.raster("MASK_CONFIDENCE", OPTIONS["mask_confidence"]["label"], optional=True)
        self._add(
            QgsProcessingParameterBoolean("AUTO_MASK", "Without a mask: look for changes since the reference", True)
        )
        self._add(QgsProcessingParameterFeatureSource("AOI", "Area of interest (polygons)", [POLYGONS], optional=True))
        self._add(QgsProcessingParameterExtent("EXTENT", "Area of interest (extent)", optional=True))
        self.shared()
        self.option("uncertainty", "Map of uncertainty from so many runs (empty: none; 2 to 64)")
        self._add(QgsProcessingParameterBoolean("RESUME", "Continue with an unfinished run", False), advanced=True)
        self._add(QgsProcessingParameterRasterDestination("OUTPUT", "Sharp image"))
        self.addOutput(QgsProcessingOutputRasterLayer("SOURCES", "Where detail comes from"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        """Runs the command."""
        out = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        words = ["upscale", self.raster_path("SCENE", parameters, context), "--out", out, "--json"]
        reference = self.raster_path("REF", parameters, context)
        words += ["--ref", reference] if reference else []
        confidence = self.raster_path("MASK_CONFIDENCE", parameters, context)
        words += ["--mask-confidence", confidence] if confidence else []
        words += self._mask(parameters, context) + self._area(parameters, context, feedback)
        words += self.shared_words(parameters, context)
        words += self.option_words(("uncertainty",), parameters, context)
        words.append("--resume" if self.parameterAsBool(parameters, "RESUME", context) else "--overwrite")
        facts = facts_of(self.execute(words, feedback)[1])  # its notes have come while it ran
        sources = f"{os.path.splitext(out)[0]}.source.tif"
        return {"OUTPUT": facts["out"], "SOURCES": sources if os.path.exists(sources) else None}

    def _mask(self, parameters, context):
        layer = self.parameterAsLayer(parameters, "MASK", context)
        if layer is None:
            return [] if self.parameterAsBool(parameters, "AUTO_MASK", context) else ["--mask", "none"]
        if not isinstance(layer, QgsVectorLayer):
            return ["--mask", path_of(layer)]
        if layer.dataProvider().name() != "ogr" or layer.subsetString():
            raise QgsProcessingException(
                f"layer {layer.name()}: is no plain vector file; save it as a GeoPackage first"
            )
        field = self.string("MASK_FIELD", parameters, context)
        return ["--mask", layer.source(), *(["--mask-field", field] if field else [])]

    def _area(self, parameters, context, feedback):
        extent = parameters.get("EXTENT")
        if parameters.get("AOI"):
            if extent:
                raise QgsProcessingException("give polygons or an extent as area of interest, not both")
            path, layer = self.parameterAsCompatibleSourceLayerPathAndLayerName(
                parameters, "AOI", context, ["gpkg", "shp", "geojson", "fgb"], "gpkg", feedback
            )
            return ["--aoi", f"{path}|layername={layer}" if layer else path]
        if not extent:
            return []
        crs = self.parameterAsRasterLayer(parameters, "SCENE", context).crs()
        box = self.parameterAsExtent(parameters, "EXTENT", context, crs)
        return ["--aoi", f"{box.xMinimum()!r},{box.yMinimum()!r},{box.xMaximum()!r},{box.yMaximum()!r}"]
