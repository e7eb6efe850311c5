"""The group geo-refdiff of the Processing toolbox, and its one setting."""

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .batch import Batch
from .command import SETTING
from .detect_change import DetectChange
from .upscale import Upscale
from .validate import Validate

ICON = str(Path(__file__).with_name("icon.svg"))


class GeoRefdiffProvider(QgsProcessingProvider):
    """Upscale, Batch, Detect change, Validate."""

    def id(self):
        """Prefix of the algorithms' names."""
        return "georefdiff"

    def name(self):
        """In the toolbox."""
        return "geo-refdiff"

    def icon(self):
        """In the toolbox."""
        return QIcon(ICON)

    def svgIconPath(self):  # noqa: N802
        """The same as a file."""
        return ICON

    def load(self):
        """Announces the setting and the algorithms."""
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        ProcessingConfig.addSetting(
            Setting(self.name(), SETTING, "Command geo-refdiff (empty: found on the PATH)", "", valuetype=Setting.FILE)
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self):
        """Takes the setting back."""
        ProcessingConfig.removeSetting(SETTING)

    def loadAlgorithms(self):  # noqa: N802
        """All four."""
        for algorithm in (Upscale(), Batch(), DetectChange(), Validate()):
            self.addAlgorithm(algorithm)
