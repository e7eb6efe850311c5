"""The plugin: it brings a provider of Processing algorithms, nothing else."""

from qgis.core import QgsApplication

from .provider import GeoRefdiffProvider


class GeoRefdiffPlugin:
    """What QGIS loads."""

    def __init__(self, iface):
        self.iface = iface
        self.provider = None

    def initProcessing(self):  # noqa: N802
        """Called by qgis_process, and from `initGui`."""
        self.provider = GeoRefdiffProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self):  # noqa: N802
        """Called by QGIS."""
        self.initProcessing()

    def unload(self):
        """Called when the plugin is switched off."""
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
