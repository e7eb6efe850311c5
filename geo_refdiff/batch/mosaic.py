"""Several rasters as one: a VRT in which the first is on top, and bands may come from files of their own."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geo_refdiff.batch.catalogue import Entry
from geo_refdiff.errors import InputError
from geo_refdiff.products.clouds import TAG, own_layer
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.band_names import band_keys
from geo_refdiff.raster.clouds import cloud_layer
from geo_refdiff.raster.files import write_bytes_atomic
from geo_refdiff.raster.geobox import crop, crs_wkt, point, scene_geobox
from geo_refdiff.raster.info import RasterInfo, Role
from geo_refdiff.raster.vrt import VirtualRaster, add_source, band_element, dataset_element, grid_element, xml_text
from geo_refdiff.raster.window import Window, around

_ON_GRID = 1e-3


@dataclass(frozen=True)
class _Layer:
    """An entry, inspected: one (file, 1-based band) and one name, "" if it has none, for each band of the mosaic."""

    infos: tuple[RasterInfo, ...]
    bands: tuple[tuple[RasterInfo, int], ...]
    names: tuple[str, ...]

    @property
    def first(self) -> RasterInfo:
        return self.infos[0]


class Mosaic:
    """Rasters of one role that are laid over each other as they are: nothing is resampled or converted.

    Args:
        role: of the rasters, for the checks.
        coarser: whether a product's bands of coarser pixels come along, see `products.opening.inspect`.
    """

    def __init__(self, role: Role, *, coarser: bool = False) -> None:
        self.role, self.coarser = role, coarser
        self._layers: dict[tuple[str, ...], _Layer] = {}

    def why_not(self, entry: Entry, top: Entry) -> str | None:
        """Why an entry cannot be laid under another one; None if it can.

        Raises:
            InputError: a file of either cannot be used.
        """
        return _difference(self._layer(entry), self._layer(top))

    def write(self, entries: Sequence[Entry], path: Path) -> str:
        """The file to use for entries that go together: the only one as it is, else a VRT over all.

        Where several have a valid pixel, that of the first is taken, band by band (a value that is its file's nodata is
        missing).

        Args:
            entries: the one on top first.
            path: of the VRT, whose folder is made; written only where what it says changes, since runs remember when it
                was written.

        Raises:
            InputError: a file cannot be used.
            OutputError: the VRT cannot be written.
        """
        if len(entries) == 1 and len(entries[0].files) == 1:
            return entries[0].files[0]
        layers = [self._layer(e) for e in entries]
        clouds = _clouds(layers)
        root = _tree(layers, entries[0].bands)
        if clouds is not None:
            layer = path.with_suffix(".clouds.vrt")
            _write(layer, clouds)
            ET.SubElement(ET.SubElement(root, "Metadata"), "MDI", key=TAG).text = f"mask:{layer}"
        _write(path, root)
        return str(path)

    def _layer(self, entry: Entry) -> _Layer:
        if entry.files not in self._layers:
            self._layers[entry.files] = _inspected(entry, self.role, coarser=self.coarser)
        return self._layers[entry.files]


def _inspected(entry: Entry, role: Role, *, coarser: bool) -> _Layer:
    infos = tuple(inspect(file, role, coarser=coarser) for file in entry.files)
    if len(infos) == 1:
        bands = tuple((infos[0], band) for band in range(1, infos[0].count + 1))
        return _Layer(infos, bands, _names(infos[0]))
    first = infos[0]
    for other in infos[1:]:
        if _offset(other, first) != (0, 0) or (other.width, other.height) != (first.width, first.height):
            raise InputError(f"{other.path}: is on another pixel grid than {first.path}; stack bands of one pixel size")
        if other.dtype != first.dtype:
            raise InputError(f"{other.path}: holds {other.dtype}, {first.path} {first.dtype}; stack bands of one type")
    return _Layer(infos, tuple((info, info.data_bands[0]) for info in infos), tuple(entry.bands))


def _names(info: RasterInfo) -> tuple[str, ...]:
    """What the bands measure, "" where unknown."""
    keys = band_keys(info)
    return tuple(k if keys.is_named(p) and p not in keys.assumed else "" for p, k in enumerate(keys.keys))


def _offset(info: RasterInfo, top: RasterInfo) -> tuple[int, int] | None:
    """(row, col) of a raster's corner in pixels of the other; None where their pixels do not coincide."""
    if scene_geobox(info).crs != scene_geobox(top).crs:
        return None
    if not np.allclose(np.take(info.transform, [0, 1, 3, 4]), np.take(top.transform, [0, 1, 3, 4]), rtol=1e-9, atol=0):
        return None
    col, row = point(~Affine(*top.transform), info.transform[2], info.transform[5])
    far = abs(row - round(row)) > _ON_GRID or abs(col - round(col)) > _ON_GRID
    return None if far else (round(row), round(col))


def _difference(layer: _Layer, top: _Layer) -> str | None:
    """What keeps a layer's values from standing beside those of another one."""
    if _offset(layer.first, top.first) is None:
        return "on another pixel grid"
    if len(layer.bands) != len(top.bands):
        return f"{len(layer.bands)} bands instead of {len(top.bands)}"
    if layer.first.dtype != top.first.dtype:
        return f"{layer.first.dtype} instead of {top.first.dtype}"
    if any(own and other and own != other for own, other in zip(layer.names, top.names, strict=False)):
        return f"bands {', '.join(layer.names)} instead of {', '.join(top.names)}"
    for (info, band), (other, at) in zip(layer.bands, top.bands, strict=True):
        for what, own, wanted in (
            ("scale", info.scales[band - 1], other.scales[at - 1]),
            ("offset", info.offsets[band - 1], other.offsets[at - 1]),
            ("unit", info.units[band - 1] or "none", other.units[at - 1] or "none"),
        ):
            if own != wanted:
                return f"{what} {own} instead of {wanted}"
    return None


def _write(path: Path, root: ET.Element) -> None:
    text = ET.tostring(root, encoding="utf-8")
    try:
        same = path.read_bytes() == text
    except OSError:
        same = False
    if not same:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_atomic(path, text)


def _placed(layers: Sequence[_Layer]) -> tuple[GeoBox, list[tuple[_Layer, Window]]]:
    """The grid of the mosaic, and the window of each layer in it."""
    top = layers[0].first
    windows = [layer.first.window.shift(*(_offset(layer.first, top) or (0, 0))) for layer in layers]
    whole = around(windows)
    placed = [(layer, window.shift(-whole.row, -whole.col)) for layer, window in zip(layers, windows, strict=True)]
    return crop(scene_geobox(top), whole), placed


def _clouds(layers: Sequence[_Layer]) -> ET.Element | None:
    """Clouds by the products' quality layers: 255 where the visible layer marks one, else 0; None without any."""
    if all(layer.first.vrt is None for layer in layers):
        return None
    gbox, placed = _placed(layers)
    root = grid_element(gbox, crs_wkt(gbox))
    band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    named = [own_layer(layer.first) for layer, _ in placed]
    for (layer, window), clouds in reversed(list(zip(placed, named, strict=True))):
        info = layer.first
        own = grid_element(scene_geobox(info), info.crs_wkt)
        cloudy = ET.SubElement(own, "VRTRasterBand", dataType="Byte", band="1")
        if clouds is not None:
            clear = cloud_layer(clouds, info).vrt
            source = add_source(cloudy, clear, "1", info.window, relative=False, kind="ComplexSource")
            ET.SubElement(source, "LUT").text = "0:255,255:0"
        add_source(_mask_band(own), info.source, "mask,1", info.window, relative=False)
        seen = add_source(band, xml_text(own), "1", window, relative=False, kind="ComplexSource")
        ET.SubElement(seen, "UseMaskBand").text = "true"
    return root if any(named) else None


def _mask_band(root: ET.Element) -> ET.Element:
    return ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")


def _tree(layers: Sequence[_Layer], names: Sequence[str]) -> ET.Element:
    """The mosaic's VRT; its bands are called `names`, or as those of the layer on top."""
    top, bands = layers[0].first, layers[0].bands
    gbox, placed = _placed(layers)
    mosaic = VirtualRaster(
        geobox=gbox,
        dtype=top.dtype,
        count=len(bands),
        sources=(),
        nodata=float("nan") if top.nodata is None and np.dtype(top.dtype).kind == "f" else top.nodata,
        descriptions=tuple(names or (info.descriptions[band - 1] for info, band in bands)),
        scales=tuple(info.scales[band - 1] for info, band in bands),
        offsets=tuple(info.offsets[band - 1] for info, band in bands),
        units=tuple(info.units[band - 1] for info, band in bands),
        colorinterp=tuple("undefined" if names else info.colorinterp[band - 1] for info, band in bands),
    )
    root = dataset_element(mosaic)
    for index in range(mosaic.count):
        element = band_element(mosaic, index)
        for layer, window in reversed(placed):
            info, band = layer.bands[index]
            source = add_source(element, info.source, str(band), window, relative=False, kind="ComplexSource")
            if info.validity in ("mask", "alpha", "none"):
                ET.SubElement(source, "UseMaskBand").text = "true"
            else:
                ET.SubElement(source, "NODATA").text = "nan" if info.nodata is None else repr(info.nodata)
        root.append(element)
    if top.validity in ("mask", "none"):
        mask = _mask_band(root)
        for layer, window in reversed(placed):
            source = add_source(mask, layer.first.path, "mask,1", window, relative=False, kind="ComplexSource")
            ET.SubElement(source, "NODATA").text = "0"
    return root
