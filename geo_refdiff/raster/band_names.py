"""Bands of one raster found in another: by name, else by place."""

from __future__ import annotations

from collections.abc import Sequence

from geo_refdiff.errors import InputError
from geo_refdiff.raster.info import RasterInfo

SENTINEL_2 = {"b02": "blue", "b2": "blue", "b03": "green", "b3": "green", "b04": "red", "b4": "red"} | {
    "b08": "nir",
    "b8": "nir",
}
"""What the bands of the most common coarse scenes are called in their files."""

UNNAMED = "band "
"""Begins what a band without a name is called."""


def band_name(info: RasterInfo, position: int) -> str:
    """What the band at a place among the data bands is called: its description, else its colour, else "band N"."""
    band = info.data_bands[position]
    text = info.descriptions[band - 1]
    if text:
        return text
    colour = info.colorinterp[band - 1]
    return colour if colour in ("red", "green", "blue") else f"{UNNAMED}{band}"


def band_keys(info: RasterInfo) -> list[str]:
    """Names to compare the data bands by: lower case, Sentinel-2's numbers as colours.

    B2, B3 and B4 beside a B1 but no B8 are left as they are: they may be Landsat 4 to 7's, whose B4 is near infrared.
    """
    names = [band_name(info, p).strip().lower() for p in range(len(info.data_bands))]
    doubtful = "b1" in names and "b8" not in names
    return [name if doubtful and len(name) == 2 else SENTINEL_2.get(name, name) for name in names]


def comparable_bands(scene: RasterInfo, reference: RasterInfo) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bands of both that can be compared with each other, pair by pair: those of one name, else those of one place."""
    own, other = band_keys(scene), band_keys(reference)
    common = [k for k in own if own.count(k) == other.count(k) == 1]
    if common:
        pairs = [(own.index(k), other.index(k)) for k in common]
    else:
        pairs = [(p, p) for p in range(min(len(own), len(other)))]
    return tuple(scene.data_bands[a] for a, _ in pairs), tuple(reference.data_bands[b] for _, b in pairs)


def matching_bands(scene: RasterInfo, reference: RasterInfo, positions: Sequence[int]) -> tuple[int, ...]:
    """Bands of the reference for the chosen bands of the scene.

    They are found by name; a reference with as many bands as the scene, or as were chosen, is taken in its order.

    Args:
        scene, reference: as inspected.
        positions: of the chosen bands among the data bands of the scene.

    Raises:
        InputError: too many, too few or unknown bands; says which are needed.
    """
    own = band_keys(scene)
    keys, wanted = band_keys(reference), [own[p] for p in positions]
    if all(keys.count(w) == 1 for w in wanted):
        return tuple(reference.data_bands[keys.index(w)] for w in wanted)
    count = len(reference.data_bands)
    if count == len(scene.data_bands):
        check_order(reference, [keys[p] for p in positions], wanted)
        return tuple(reference.data_bands[p] for p in positions)
    if count == len(positions):
        check_order(reference, keys, wanted)
        return reference.data_bands
    raise InputError(
        f"{reference.path}: {count} bands, but {len(positions)} of the scene are used ({', '.join(wanted)}); "
        f"name its bands like the scene's, or choose bands that both have with --bands (others come along with "
        f"--other-bands transfer)"
    )


def check_order(info: RasterInfo, keys: Sequence[str], wanted: Sequence[str]) -> None:
    """Bands that are taken by their place must not say by their names that they belong elsewhere."""
    for place, name in enumerate(wanted):
        if name in keys and keys[place] != name:
            raise InputError(
                f"{info.path}: its band {keys.index(name) + 1} is called {name}, expected as band {place + 1}; "
                f"name all bands ({', '.join(wanted)}) or choose them with --bands"
            )
