"""The algorithm Validate."""

from qgis.core import QgsProcessingOutputBoolean, QgsProcessingOutputNumber, QgsProcessingOutputString

from .algorithm import Algorithm, facts_of


class Validate(Algorithm):
    """geo-refdiff validate."""

    NAME = "validate"
    TITLE = "Validate"
    HELP = (
        "Checks that an output of Upscale keeps what it promises: its grid, its missing pixels, and that it looks like "
        "the scene through the scene's sensor. With the reference it tells how that is aligned with the scene and how "
        "much of its detail is used; with a fine image of the same time it measures how close the output comes to it."
    )

    def initAlgorithm(self, configuration=None):  # noqa: N802
        """Parameters and outputs."""
        self.raster("INPUT", "Sharp image, made by Upscale")
        self.raster("SCENE", "The scene that it was made of")
        self.raster("REF", "The reference that it was made with", optional=True)
        self.raster("TRUTH", "Fine image of the same time", optional=True)
        self.addOutput(QgsProcessingOutputBoolean("OK", "Whether all promises are kept"))
        self.addOutput(QgsProcessingOutputString("BROKEN", "Promises that are broken"))
        self.addOutput(QgsProcessingOutputNumber("LR_RMS", "Residual between scene and output, root mean square"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        """Runs the command."""
        words = ["validate", self.raster_path("INPUT", parameters, context), "--json"]
        words += ["--scene", self.raster_path("SCENE", parameters, context)]
        for name, option in (("REF", "--ref"), ("TRUTH", "--truth")):
            path = self.raster_path(name, parameters, context)
            words += [option, path] if path else []
        facts = facts_of(self.execute(words, feedback)[1])
        for promise in facts["broken"]:
            feedback.reportError(f"broken: {promise}")
        feedback.pushInfo("all promises are kept" if facts["ok"] else "the output does not keep what it promises")
        return {"OK": facts["ok"], "BROKEN": "; ".join(facts["broken"]), "LR_RMS": facts["scene_residual"]["rms"]}
