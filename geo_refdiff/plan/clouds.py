"""Which pixels of scene and reference are cloudy, and what is said about it."""

from __future__ import annotations

from pathlib import Path

from geo_refdiff.options import AUTO, NONE, CloudMode
from geo_refdiff.products.clouds import is_product, own_layer
from geo_refdiff.raster.clouds import MEANINGS, NamedLayer, cloud_layer, with_layer
from geo_refdiff.raster.info import RasterInfo


def cloudy_scene(info: RasterInfo, asked: str, mode: CloudMode = "keep") -> tuple[RasterInfo, str | None]:
    """The scene with its clouds, and a note.

    Args:
        info: of the scene.
        asked: "auto": the product's own layer; "none", or a layer.
        mode: what becomes of cloudy pixels.

    Raises:
        InputError: the layer cannot serve, or all is cloudy.
    """
    layer = _layer(info, asked)
    if layer is None:
        note = "the scene's product has no cloud layer; give one with --cloud-mask"
        return info, note if asked == AUTO and is_product(info) else None
    cloudy, share = with_layer(info, cloud_layer(layer, info))
    note = _by_layer(cloudy, share)
    if not share:
        return cloudy, f"the scene is free of clouds, {note}"
    become = "are nodata" if mode == "nodata" else "are marked in the source map (--clouds nodata leaves them out)"
    return cloudy, (
        f"{share:.1%} of the scene is cloudy, {note}: these pixels count for nothing in range, fit, registration and "
        f"changes, and {become}; --cloud-mask none takes them for ground"
    )


def cloudy_reference(info: RasterInfo, asked: str) -> tuple[RasterInfo, str | None]:
    """The reference with its clouds, which count as missing pixels, and a note.

    Args:
        info: of the reference.
        asked: of the scene's clouds; unless "none", the reference product's own layer is used.

    Raises:
        InputError: the layer cannot serve, or all is cloudy.
    """
    layer = None if asked == NONE else own_layer(info)
    if layer is None:
        return info, None
    cloudy, share = with_layer(info, cloud_layer(layer, info))
    if not share:
        return cloudy, None
    return cloudy, f"{share:.1%} of the reference is cloudy, {_by_layer(cloudy, share)}: nothing is taken from there"


def _layer(info: RasterInfo, asked: str) -> NamedLayer | None:
    if asked == NONE:
        return None
    return own_layer(info) if asked == AUTO else NamedLayer.of(asked)


def _by_layer(info: RasterInfo, share: float) -> str:
    assert info.clouds is not None
    name = Path(info.clouds.path).name
    return f"by {name}" + (f" ({MEANINGS[info.clouds.kind]})" if share else "")
