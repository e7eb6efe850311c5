"""The algorithm Detect change."""

from qgis.core import QgsProcessingOutputRasterLayer, QgsProcessingParameterRasterDestination

from .algorithm import Algorithm, facts_of, show_facts


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
        self.choice("GRID", "Pixels: of the scene, or of the output of Upscale", ["scene", "output"], "scene", False)
        self.option("scale", "Reference pixels along a scene pixel (empty: from the reference)")
        self.option("min_confidence", "What is less sure becomes unknown (0 to 1; empty: 0)")
        self.option("bands", "Bands of the scene: red, green, blue and, if there, nir (e.g. 3,2,1,4)")
        self._add(QgsProcessingParameterRasterDestination("OUTPUT", "Change mask"))
        self.addOutput(QgsProcessingOutputRasterLayer("CONFIDENCE", "Confidence"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        """Runs the command."""
        words = ["detect-change", *(self.raster_path(name, parameters, context) for name in ("SCENE", "REF"))]
        words += ["--out", self.parameterAsOutputLayer(parameters, "OUTPUT", context), "--overwrite", "--json"]
        words += ["--grid", self.word("GRID", parameters, context)]
        words += self.option_words(("scale", "min_confidence", "bands"), parameters, context)
        facts = facts_of(self.execute(words, feedback)[1])
        show_facts(facts, feedback)
        return {"OUTPUT": facts["out"], "CONFIDENCE": facts["confidence"]}
