"""The algorithm Detect change."""

from qgis.core import QgsProcessingOutputRasterLayer, QgsProcessingParameterRasterDestination

from .algorithm import Algorithm, facts_of, told


class DetectChange(Algorithm):
    """geo-refdiff detect-change."""

    NAME = "detectchange"
    TITLE = "Detect change"
    HELP = (
        "Writes where, and to what, a coarse scene has changed since a fine reference was taken: a raster of classes "
        "with a legend, and how sure it is. Both serve Upscale as mask and confidence."
    )

    def initAlgorithm(self, configuration=None):  # noqa: N802
        """Parameters and outputs."""
        self.raster("SCENE", "Coarse scene")
        self.raster("REF", "Older, finer reference")
        self.choice("GRID", "Pixels: of the scene (lr), or of the scene once it is upscaled (hr)", ["lr", "hr"], False)
        self.number("SCALE", "Reference pixels along a scene pixel (empty: from the reference)", 1, 64)
        self.number("MIN_CONFIDENCE", "What is less sure becomes unknown (0 to 1)", 0, 1, None, whole=False)
        self.text("BANDS", "Bands of the scene: red, green, blue and, if there, nir (e.g. 3,2,1,4)")
        self._add(QgsProcessingParameterRasterDestination("OUTPUT", "Change mask"))
        self.addOutput(QgsProcessingOutputRasterLayer("CONFIDENCE", "Confidence"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        """Runs the command."""
        words = ["detect-change", *(self.raster_path(name, parameters, context) for name in ("SCENE", "REF"))]
        words += ["--out", self.parameterAsOutputLayer(parameters, "OUTPUT", context), "--overwrite", "--json"]
        words += ["--grid", self.word("GRID", parameters, context)]
        if parameters.get("SCALE") is not None:
            words += ["--scale", str(self.parameterAsInt(parameters, "SCALE", context))]
        if parameters.get("MIN_CONFIDENCE") is not None:
            words += ["--min-confidence", str(self.parameterAsDouble(parameters, "MIN_CONFIDENCE", context))]
        if self.string("BANDS", parameters, context):
            words += ["--bands", self.string("BANDS", parameters, context)]
        facts = facts_of(self.execute(words, feedback)[1])
        told(facts, feedback)
        return {"OUTPUT": facts["out"], "CONFIDENCE": facts["confidence"]}
