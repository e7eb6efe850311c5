"""The algorithm Batch."""

import os

from qgis.core import (
    QgsProcessing,
    QgsProcessingException,
    QgsProcessingOutputNumber,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
)

from .algorithm import POLYGONS, Algorithm, facts_of, path_of

_ROLES = (
    ("SCENE", "--scene", "Scenes", False),
    ("REF", "--ref", "References", True),
    ("MASK", "--mask", "Change masks", True),
)


class Batch(Algorithm):
    """geo-refdiff batch."""

    NAME = "batch"
    TITLE = "Batch"
    HELP = (
        "Upscales every area of a layer into a GeoTIFF of its own and keeps a manifest, which opens as a layer. For "
        "each area the right scene, reference and mask are chosen, by overlap and date. Scenes, references and masks "
        "are layers, or a folder, an index (CSV, GeoPackage) or a STAC catalogue.\n\n"
        "The same run on the same folder continues where it stopped."
    )

    def initAlgorithm(self, configuration=None):  # noqa: N802
        """Parameters and outputs."""
        self._add(QgsProcessingParameterFeatureSource("AREAS", "Areas (polygons)", [POLYGONS]))
        self._add(
            QgsProcessingParameterField(
                "NAME_FIELD", "Field that names the outputs", parentLayerParameterName="AREAS", optional=True
            )
        )
        for name, _, text, _ in _ROLES:
            self._add(
                QgsProcessingParameterMultipleLayers(f"{name}_LAYERS", text, QgsProcessing.TypeRaster, optional=True)
            )
            self.text(f"{name}_SOURCE", f"{text}: folder, index or STAC, path or URL", advanced=False)
        self.text("DATE", "Date of the scenes: DATE or FIRST/LAST (empty: the latest)", advanced=False)
        self.text("REF_BEFORE", "Only references older than this date", advanced=False)
        self.number("WORKERS", "Processes on this machine (empty: one)", 1, 256)
        self.shared()
        self.option("shard_size", "Cut outputs into GeoTIFFs of so many pixels a side (empty: one)")
        self._add(QgsProcessingParameterBoolean("RETRY_FAILED", "Try areas that failed before again", False))
        self._add(QgsProcessingParameterFile("SCHEDULER_FILE", "Dask scheduler file", optional=True), advanced=True)
        self._add(QgsProcessingParameterFolderDestination("FOLDER", "Folder of outputs and manifest"))
        self.addOutput(QgsProcessingOutputVectorLayer("MANIFEST", "Manifest"))
        self.addOutput(QgsProcessingOutputNumber("FAILED", "Areas that failed"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        """Runs the command."""
        path, layer = self.parameterAsCompatibleSourceLayerPathAndLayerName(
            parameters, "AREAS", context, ["gpkg", "shp", "geojson", "fgb"], "gpkg", feedback
        )
        folder = self.parameterAsString(parameters, "FOLDER", context)
        os.makedirs(folder, exist_ok=True)
        words = ["batch", f"{path}|layername={layer}" if layer else path, "--out", folder, "--json"]
        for name, option, text, optional in _ROLES:
            sources = [path_of(r) for r in self.parameterAsLayerList(parameters, f"{name}_LAYERS", context) or []]
            sources += [s for s in [self.string(f"{name}_SOURCE", parameters, context)] if s]
            if not sources and not optional:
                raise QgsProcessingException(f"{text}: choose layers, or name a folder, an index or a STAC catalogue")
            words += [word for source in sources for word in (option, source)]
        for name, option in (
            ("NAME_FIELD", "--name-field"),
            ("DATE", "--date"),
            ("REF_BEFORE", "--ref-before"),
            ("SCHEDULER_FILE", "--scheduler-file"),
        ):
            value = self.string(name, parameters, context)
            words += [option, value] if value else []
        if parameters.get("WORKERS") is not None:
            words += ["--workers", str(self.parameterAsInt(parameters, "WORKERS", context))]
        words += self.option_words(("shard_size",), parameters, context)
        if self.parameterAsBool(parameters, "RETRY_FAILED", context):
            words.append("--retry-failed")
        code, printed = self.execute([*words, *self.shared_words(parameters, context)], feedback)
        manifest = os.path.join(folder, "manifest.gpkg")
        facts = facts_of(printed)
        if code:
            feedback.reportError(f"not all areas are done, see {manifest}")
        return {"FOLDER": folder, "MANIFEST": manifest, "FAILED": facts.get("failed", 0)}
