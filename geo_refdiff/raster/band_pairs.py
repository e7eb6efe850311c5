"""Bands of one raster found in another: by what they measure, else by their place."""

from __future__ import annotations

from collections.abc import Sequence

from geo_refdiff.errors import InputError
from geo_refdiff.raster.band_names import BandKeys, band_keys, band_name
from geo_refdiff.raster.info import RasterInfo


def paired_bands(scene: RasterInfo, reference: RasterInfo, positions: Sequence[int]) -> tuple[int | None, ...]:
    """For each of some bands of the scene that of the reference, 1-based; None where the reference has none.

    Bands of one name belong together. What is left over is taken by its place where both have as many bands, or as many
    as are chosen, and no name speaks against it.

    Args:
        scene, reference: as inspected.
        positions: of the chosen bands among the data bands of the scene.
    """
    scene_keys, reference_keys = band_keys(scene), band_keys(reference)
    places = {
        p: reference_keys.place(scene_keys.keys[p])
        if scene_keys.place(scene_keys.keys[p]) == p and scene_keys.is_named(p)
        else None
        for p in positions
    }
    if None in places.values():
        count = len(reference_keys.keys)
        if count == len(scene_keys.keys) and _same_places(scene_keys, reference_keys, range(count)):
            places = {p: p for p in positions}
        elif count == len(positions) and _same_places(scene_keys, reference_keys, positions):
            places = {p: place for place, p in enumerate(positions)}
    return tuple(None if place is None else reference.data_bands[place] for place in places.values())


def comparable_bands(scene: RasterInfo, reference: RasterInfo) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bands of both that can be compared with each other, pair by pair; by place where none is known to be the same."""
    paired = paired_bands(scene, reference, range(len(scene.data_bands)))
    pairs = [(a, b) for a, b in zip(scene.data_bands, paired, strict=True) if b is not None]
    pairs = pairs or list(zip(scene.data_bands, reference.data_bands, strict=False))
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)


def matching_bands(scene: RasterInfo, reference: RasterInfo, positions: Sequence[int]) -> tuple[int, ...]:
    """Bands of the reference for all of some bands of the scene, see `paired_bands`.

    Raises:
        InputError: the reference lacks some; says which.
    """
    paired = paired_bands(scene, reference, positions)
    bands = tuple(band for band in paired if band is not None)
    if len(bands) < len(paired):
        raise InputError(lacks(scene, reference, [p for p, b in zip(positions, paired, strict=True) if b is None]))
    return bands


def lacks(scene: RasterInfo, reference: RasterInfo, positions: Sequence[int]) -> str:
    """That a reference has no bands for some of the scene's."""
    names = ", ".join(band_name(scene, p) for p in positions)
    return (
        f"{reference.path}: none of its bands ({band_list(reference)}) is known to be the scene's {names}; "
        f"name its bands, or say which belong together with --bands and --ref-bands"
    )


def _same_places(scene: BandKeys, reference: BandKeys, positions: Sequence[int]) -> bool:
    """Whether bands may belong together by their place: of each pair that differs, one name at least is not understood,
    and none is found elsewhere."""
    for place, position in enumerate(positions):
        scene_key, reference_key = scene.keys[position], reference.keys[place]
        if scene_key == reference_key:
            continue
        if scene.is_known(position) and reference.is_known(place):
            return False
        if (scene.is_named(position) and scene_key in reference.keys) or (
            reference.is_named(place) and reference_key in scene.keys
        ):
            return False
    return True


def band_list(info: RasterInfo) -> str:
    """The names of a raster's data bands."""
    names = [band_name(info, p) for p in range(len(info.data_bands))]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
