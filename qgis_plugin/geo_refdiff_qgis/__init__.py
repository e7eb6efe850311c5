"""geo-refdiff in the Processing toolbox of QGIS."""


def classFactory(iface):  # noqa: N802
    """QGIS's entry point; `iface` is None in qgis_process."""
    from .plugin import GeoRefdiffPlugin

    return GeoRefdiffPlugin(iface)
