"""What the algorithms share: parameters, words of a command line, and how a run ends."""

import json
import os
import shlex

from qgis.core import (
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsRasterLayer,
)
from qgis.PyQt.QtGui import QIcon

from .command import SETTING, CancelledError, find_command, run

MODELS = ["default", "bicubic", "bicubic-ibp", "matched-ref"]

with open(os.path.join(os.path.dirname(__file__), "options.json"), encoding="utf-8") as stream:
    OPTIONS = json.load(stream)
"""What the command's options are, by name; written by qgis_plugin/pack.py."""

SHARED = ("scale", "detail", "seed", "device", "bands", "coregister", "on_misregistration")
"""Options that Upscale and Batch both ask for."""


class Algorithm(QgsProcessingAlgorithm):
    """An algorithm that is a sub-command of geo-refdiff."""

    NAME = TITLE = HELP = ""

    def name(self):
        """After the provider's prefix."""
        return self.NAME

    def displayName(self):  # noqa: N802
        """In the toolbox."""
        return self.TITLE

    def shortHelpString(self):  # noqa: N802
        """At the dialog's side."""
        return self.HELP

    def icon(self):
        """In the toolbox."""
        return QIcon(self.provider().svgIconPath()) if self.provider() else super().icon()

    def createInstance(self):  # noqa: N802
        """A fresh one."""
        return type(self)()

    def canExecute(self):  # noqa: N802
        """Whether the command is installed."""
        if find_command():
            return True, ""
        return False, (
            "The command geo-refdiff was not found. Install it (pip install geo-refdiff) and, if it is not on the "
            f"PATH, name it in Settings, Options, Processing, Providers, geo-refdiff, or in the variable {SETTING}."
        )

    def raster(self, name, text, optional=False, advanced=False):
        """Adds a parameter: a raster layer."""
        self._add(QgsProcessingParameterRasterLayer(name, text, optional=optional), advanced)

    def choice(self, name, text, options, default, advanced=True):
        """Adds a parameter: one of some words, optional without a default."""
        self._add(
            QgsProcessingParameterEnum(
                name, text, options, defaultValue=default, optional=default is None, usesStaticStrings=True
            ),
            advanced,
        )

    def number(self, name, text, low, high=None, default=None, whole=True, advanced=True):
        """Adds a parameter: a number, optional without a default."""
        kind = QgsProcessingParameterNumber.Integer if whole else QgsProcessingParameterNumber.Double
        limits = {k: v for k, v in (("minValue", low), ("maxValue", high)) if v is not None}
        self._add(QgsProcessingParameterNumber(name, text, kind, default, optional=default is None, **limits), advanced)

    def text(self, name, text, advanced=True):
        """Adds a parameter: optional text."""
        self._add(QgsProcessingParameterString(name, text, optional=True), advanced)

    def option(self, name, text=None, advanced=True):
        """Adds a parameter: an option of the command, as options.json tells it.

        Args:
            name: of the option; the parameter's is the same in capitals.
            text: label, where the option's own does not do.
            advanced: whether the dialog folds it away.
        """
        option = OPTIONS[name]
        label, default = text or option["label"], option["default"]
        if option["kind"] == "choice":
            self.choice(name.upper(), label, option["choices"], default, advanced)
        elif option["kind"] == "text":
            self.text(name.upper(), label, advanced)
        else:
            whole = option["kind"] == "integer"
            self.number(name.upper(), label, option["low"], option["high"], default, whole, advanced)

    def option_words(self, names, parameters, context):
        """The command's words for options that were added so; none for what remains empty."""
        words = []
        for name in names:
            option, key = OPTIONS[name], name.upper()
            if option["kind"] == "choice":
                value = self.word(key, parameters, context)
            elif option["kind"] == "text":
                value = self.string(key, parameters, context)
            elif parameters.get(key) is None:
                value = ""
            elif option["kind"] == "integer":
                value = str(self.parameterAsInt(parameters, key, context))
            else:
                value = str(self.parameterAsDouble(parameters, key, context))
            words += [option["flag"], value] if value else []
        return words

    def shared(self):
        """Adds what Upscale and Batch both have."""
        self.choice("MODEL", "Model", MODELS, MODELS[0], advanced=False)
        self.text("MODEL_FOLDER", "Model folder, instead of a bundled model")
        for name in SHARED:
            self.option(name, advanced=name not in ("scale", "detail"))
        self.text("EXTRA", "More options of the command line")

    def shared_words(self, parameters, context):
        """The command's words for them."""
        words = ["--model", self.string("MODEL_FOLDER", parameters, context) or self.word("MODEL", parameters, context)]
        words += self.option_words(SHARED, parameters, context)
        return words + shlex.split(self.string("EXTRA", parameters, context))

    def string(self, name, parameters, context):
        """Text without blanks at its ends."""
        return (self.parameterAsString(parameters, name, context) or "").strip()

    def word(self, name, parameters, context):
        """The choice of an enumeration."""
        return self.parameterAsEnumString(parameters, name, context)

    def raster_path(self, name, parameters, context):
        """Where a raster layer is, "" without one."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            if parameters.get(name):
                raise QgsProcessingException(self.invalidRasterError(parameters, name))
            return ""
        return path_of(layer)

    def execute(self, words, feedback):
        """Run the command; (exit code, what it printed).

        Raises:
            QgsProcessingException: it cannot be started, or was cancelled.
        """
        try:
            code, printed, error = run(words, feedback)
        except CancelledError:
            raise QgsProcessingException("cancelled; what is finished is kept") from None
        except OSError as problem:
            raise QgsProcessingException(f"geo-refdiff cannot be started: {problem}. {self.canExecute()[1]}") from None
        if code and error:
            raise QgsProcessingException(error)
        return code, printed

    def _add(self, parameter, advanced=False):
        if advanced:
            parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(parameter)


def path_of(layer):
    """A raster layer's file, as GDAL names it.

    Raises:
        QgsProcessingException: it is no file that GDAL reads.
    """
    if not isinstance(layer, QgsRasterLayer) or layer.dataProvider() is None or layer.dataProvider().name() != "gdal":
        raise QgsProcessingException(f"layer {layer.name()}: is no raster file; save it as a GeoTIFF first")
    return layer.source().partition("|")[0]


def facts_of(printed):
    """The JSON that a command printed.

    Raises:
        QgsProcessingException: it printed none.
    """
    try:
        return json.loads(printed.splitlines()[-1])
    except (ValueError, IndexError):
        raise QgsProcessingException(
            f"geo-refdiff ended without a result: {printed[-400:] or 'nothing was printed'}"
        ) from None


def show_facts(facts, feedback):
    """Passes the notes of a run on to people."""
    for note in facts.get("notes", []):
        feedback.pushInfo(f"note: {note}")


POLYGONS = QgsProcessing.TypeVectorPolygon
