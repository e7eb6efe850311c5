"""STAC items: bands by the common names of their assets, read where they lie.

Sources: STAC item specification 1.0 and 1.1; extensions eo 1.1 and 2.0, raster 1.1 and 2.0, processing 1.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geo_refdiff.errors import InputError
from geo_refdiff.products.files import number
from geo_refdiff.products.record import Band, Product, Quality, QualityKind
from geo_refdiff.raster.dates import span_of
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.location import URL, gdal_name, located, text_of

_ORDER = (
    "coastal", "blue", "green05", "green", "yellow", "red", "rededge", "rededge071", "rededge075", "rededge078", "nir",
    "nir08", "swir16", "swir22",
)  # fmt: skip
"""Common names by wavelength; others (panchromatic, thermal, cirrus) are no part of a reflectance image."""

_QUALITY: dict[str, QualityKind] = {
    "scl": "scl", "qa_pixel": "qa_pixel", "fmask": "fmask", "udm2": "udm2", "ortho_udm2": "udm2"
}  # fmt: skip
_ENDINGS = (".json", ".geojson")
_OF_API = re.compile(r"/items/[^/?]+(\?|$)")
_NO_MEASUREMENT = {"thumbnail", "overview", "visual", "metadata"}
_RASTERS = ("image/tiff", "image/jp2", "image/vnd.stac.geotiff", "application/x-geotiff", "image/x.geotiff")
_SENTINEL_2_SCALE, _SENTINEL_2_OFFSET, _OFFSETS_FROM = 0.0001, -0.1, 4.0


def is_stac_item(name: str) -> bool:
    """Whether a path or URL leads to a STAC item, or cannot be read although it is called like one.

    Items of an ItemCollection are called FILE#ID; those of an API end in /items/ID.
    """
    file, number = _item_in(name)
    if not file.partition("?")[0].lower().endswith(_ENDINGS):
        return URL.match(file) is not None and (bool(number) or _OF_API.search(file) is not None)
    try:
        data = json.loads(text_of(file))
    except (OSError, ValueError):
        return URL.match(file) is not None
    return isinstance(data, dict) and ("stac_version" in data or _features(data) is not None)


def item_file(name: str) -> str:
    """The file that is read for an item, which may be one of several in it; any other name as it is."""
    return _item_in(name)[0]


def has_bands(item: Mapping[str, Any]) -> bool:
    """Whether some assets of an item tell by common names what they measure."""
    assets = _mapping(item.get("assets"))
    return any(
        True
        for key, asset in assets.items()
        if isinstance(asset, dict) and _is_measured(str(key), asset)
        for _ in _bands_of(str(key), asset)
    )


def _item_in(name: str) -> tuple[str, str]:
    """The file, and the id of an item in it; "" for a file that is one."""
    file, hash_, number = name.rpartition("#")
    named = hash_ and (URL.match(file) or file.lower().endswith(_ENDINGS)) and not Path(name).exists()
    return (file, number) if named else (name, "")


def _features(data: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The STAC items of a FeatureCollection; None where it is none."""
    items = data.get("features")
    if data.get("type") != "FeatureCollection" or not isinstance(items, list) or not items:
        return None
    return items if all(isinstance(item, dict) and "stac_version" in item for item in items) else None


def _item(source: str) -> dict[str, Any]:
    """An item as it stands in its file.

    Raises:
        InputError: unreadable, no item, or no such item.
    """
    file, number = _item_in(source)
    try:
        item = json.loads(text_of(file))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({one_line(error, 120)}); give a STAC item") from error
    several = _features(item) if isinstance(item, dict) else None
    if several is not None:
        names = [str(one.get("id")) for one in several]
        if number in names or (len(names) == 1 and not number):
            return several[names.index(number) if number else 0]
        what = f"has no item '{number}'" if number else f"holds {len(names)} items"
        raise InputError(f"{file}: {what}; give one of them, e.g. {file}#{names[0]}, or all to a batch")
    if not isinstance(item, dict) or item.get("type") != "Feature":
        kind = item.get("type") if isinstance(item, dict) else "no object"
        raise InputError(f"{source}: is no STAC item but {kind}; give one of its items")
    return item


def read_stac_item(source: str) -> Product:
    """The product that an item describes.

    Args:
        source: path or URL of the item; with "#ID" of an ItemCollection that holds it.

    Raises:
        InputError: unreadable, no item, or without assets that can serve.
    """
    item = _item(source)
    assets = {str(key): asset for key, asset in _mapping(item.get("assets")).items() if isinstance(asset, dict)}
    if not assets:
        raise InputError(f"{source}: the STAC item has no assets; give one whose assets are rasters")
    properties = _mapping(item.get("properties"))
    measured = [band for key, asset in assets.items() if _is_measured(key, asset) for band in _bands_of(key, asset)]
    fine, coarser = _by_resolution(measured)
    if not fine:
        raise InputError(
            f"{source}: none of its assets ({', '.join(assets)}) is a raster whose bands tell a common name "
            f"(eo:bands); give the raster itself"
        )
    taken = span_of(properties.get("datetime") or properties.get("start_datetime"))
    if taken is None:
        raise InputError(f"{source}: its datetime '{properties.get('datetime')}' is no date")
    bands = [_band(source, one, properties) for one in fine]
    quality = _quality(source, assets)
    size, mtime = _stamp([band.file for band in bands] + ([quality.file] if quality else []))
    return Product(
        source if URL.match(source) else str(Path(source).absolute()), "STAC",
        str(item.get("id") or Path(source).stem), _platform(properties), taken.exact, tuple(bands),
        tuple(_band(source, one, properties) for one in coarser), _nodata(source, fine, properties),
        quality, size, mtime,
    )  # fmt: skip


class _AssetBand:
    """A band of an asset, as the item tells it."""

    def __init__(
        self, key: str, asset: Mapping[str, Any], index: int, eo: Mapping[str, Any], raster: Mapping[str, Any]
    ):
        self.key, self.asset, self.index, self.raster = key, asset, index, raster
        self.common_name = str(eo.get("eo:common_name") or eo.get("common_name") or "")
        self.name = str(eo.get("name") or key)
        self.jp2 = "jp2" in str(asset.get("type"))

    @property
    def pixel(self) -> float | None:
        """Side in metres, where it is stated."""
        resolution = self.raster.get("spatial_resolution") or self.raster.get("raster:spatial_resolution")
        resolution = (
            resolution or self.raster.get("gsd") or self.asset.get("gsd") or self.asset.get("raster:spatial_resolution")
        )
        grid = self.asset.get("proj:transform")
        if resolution is None and isinstance(grid, list) and grid:
            resolution = grid[0]
        return abs(float(resolution)) if isinstance(resolution, int | float) and resolution else None


def _bands_of(key: str, asset: Mapping[str, Any]) -> Iterator[_AssetBand]:
    one = asset.get("bands") or asset.get("eo:bands") or []
    rasters = asset.get("raster:bands") or asset.get("bands") or []
    for index, eo in enumerate(one if isinstance(one, list) else [], 1):
        raster = rasters[index - 1] if isinstance(rasters, list) and len(rasters) >= index else {}
        band = _AssetBand(key, asset, index, _mapping(eo), _mapping(raster))
        if band.common_name in _ORDER:
            yield band


def _is_measured(key: str, asset: Mapping[str, Any]) -> bool:
    kind = str(asset.get("type") or "").partition(";")[0].strip().lower()
    roles = {str(role) for role in asset.get("roles") or ()}
    ending = Path(str(asset.get("href")).partition("?")[0]).suffix.lower()
    raster = kind in _RASTERS or (not kind and ending in (".tif", ".tiff", ".jp2"))
    return raster and not roles & _NO_MEASUREMENT and key.lower() not in _NO_MEASUREMENT


def _by_resolution(bands: Sequence[_AssetBand]) -> tuple[list[_AssetBand], list[_AssetBand]]:
    """Bands of the red one's resolution, and coarser ones, by wavelength, each common name once."""
    once: dict[str, _AssetBand] = {}
    for one in sorted(bands, key=lambda f: (f.jp2, f.pixel or 0.0)):
        once.setdefault(one.common_name, one)
    ordered = [once[name] for name in _ORDER if name in once]
    sizes = [one.pixel for one in ordered]
    resolutions = [size for size in sizes if size is not None]
    if not resolutions:
        return ordered, []
    lead = once["red"].pixel if "red" in once else None
    least = min(resolutions) if lead is None else lead
    return (
        [one for one, size in zip(ordered, sizes, strict=True) if size is None or size <= least],
        [one for one, size in zip(ordered, sizes, strict=True) if size is not None and size > least],
    )


def _band(source: str, band: _AssetBand, properties: Mapping[str, Any]) -> Band:
    href = band.asset.get("href")
    if not isinstance(href, str) or not href:
        raise InputError(f"{source}: its asset '{band.key}' has no href")
    scale, offset = _scale(source, band, properties)
    return Band(band.name, band.common_name, gdal_name(located(href, item_file(source))), band.index, scale, offset)


def _scale(source: str, band: _AssetBand, properties: Mapping[str, Any]) -> tuple[float, float]:
    """Digital numbers to reflectance.

    Sentinel-2's offset is stated in three ways: by the asset; by the baseline alone; not at all where the catalogue has
    taken it off the pixels (`earthsearch:boa_offset_applied`), whatever the asset says.
    """
    values = [band.raster.get(name, band.raster.get(f"raster:{name}")) for name in ("scale", "offset")]
    scale, offset = (
        None if v is None else number(f"{source}, asset '{band.key}'", n, str(v), float)
        for n, v in zip(("scale", "offset"), values, strict=True)
    )
    if _is_sentinel_2(properties):
        scale = _SENTINEL_2_SCALE if scale is None else scale
        if properties.get("earthsearch:boa_offset_applied") is True:
            offset = 0.0
        elif offset is None:
            offset = _SENTINEL_2_OFFSET if _baseline(source, properties) >= _OFFSETS_FROM else 0.0
    return 1.0 if scale is None else scale, 0.0 if offset is None else offset


def _baseline(source: str, properties: Mapping[str, Any]) -> float:
    baseline = properties.get("s2:processing_baseline", properties.get("processing:version"))
    if baseline is None:
        raise InputError(f"{source}: tells neither the offset of its bands nor s2:processing_baseline")
    return number(source, "s2:processing_baseline", str(baseline), float)


def _nodata(source: str, bands: Sequence[_AssetBand], properties: Mapping[str, Any]) -> float | None:
    values = next((b.raster["nodata"] for b in bands if b.raster.get("nodata") is not None), None)
    if values is not None:
        return number(source, "nodata", str(values), float)
    return 0.0 if _is_sentinel_2(properties) else None


def _is_sentinel_2(properties: Mapping[str, Any]) -> bool:
    return str(properties.get("platform") or properties.get("constellation")).lower().startswith("sentinel-2")


def _platform(properties: Mapping[str, Any]) -> str:
    return str(properties.get("platform") or properties.get("constellation") or "unknown").capitalize()


def _quality(source: str, assets: Mapping[str, Mapping[str, Any]]) -> Quality | None:
    for key, asset in assets.items():
        kind = _QUALITY.get(key.lower())
        if kind is not None and isinstance(asset.get("href"), str):
            return Quality(kind, gdal_name(located(str(asset["href"]), item_file(source))))
    return None


def _stamp(files: Sequence[str]) -> tuple[int, int]:
    """Size and latest change of those that lie here."""
    states = [Path(file).stat() for file in dict.fromkeys(files) if Path(file).is_file()]
    return sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
