"""Which bands of the scene and the reference are used for which channel of the model, and what is said about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.plan.records import Bands
from geo_refdiff.raster.band_names import UNNAMED, BandKeys, band_keys, band_name, meaning
from geo_refdiff.raster.band_pairs import band_list, lacks, paired_bands
from geo_refdiff.raster.info import RasterInfo

NO_BAND = "-"
"""Stands for no band of the reference."""


def choose_bands(
    scene: RasterInfo,
    reference: RasterInfo | None,
    wanted: Sequence[str | int] | None,
    channels: Sequence[str],
    optional: Sequence[str],
    others: bool = False,
    ref_wanted: Sequence[str | int] | None = None,
) -> Bands:
    """Bands of the scene for the model's channels, and those of the reference that belong to them.

    Bands are found by name (see `raster.band_names`), else by number: a file with as many bands as are needed is taken
    in its own order. Without `wanted` they keep the scene's order, and the scene's bands that the reference lacks count
    among its other bands, unless the model needs them.

    Args:
        scene, reference: as inspected.
        wanted: what the user asks for, names or 1-based numbers, in the order of the model's channels; None:
            by themselves.
        channels: the model's; empty: any bands will do.
        optional: channels that the scene may lack.
        others: whether the scene's other bands follow in the output.
        ref_wanted: names or numbers of the reference's bands for `wanted`, else for the scene's bands that the model
            takes, in the scene's order; "-" for none.

    Raises:
        OptionError: a band that the scene or the reference does not have.
        InputError: too many, too few or unknown bands; says which are needed.
    """
    keys = band_keys(scene)
    if wanted is not None:
        positions = [_position(scene, band) for band in wanted]
        if not positions or len(set(positions)) < len(positions):
            raise OptionError(f"bands {', '.join(map(str, wanted))}: name each band once, and at least one")
    else:
        positions = _for_model(scene, keys, channels, optional) if channels else list(range(len(scene.data_bands)))
    roles = _roles(scene, keys, positions, channels, optional)
    if wanted is None:
        positions.sort()
    matched: list[int | None] = []
    if reference is not None:
        matched = _matched(scene, reference, positions, ref_wanted)
        lacking = [p for p, band in zip(positions, matched, strict=True) if band is None]
        needed = {p for c, p in zip(channels, roles, strict=True) if c not in optional} if channels else set()
        by_itself = wanted is None or ref_wanted is not None
        if lacking and (len(lacking) == len(positions) or not by_itself or needed & set(lacking)):
            raise InputError(lacks(scene, reference, lacking))
        positions = [p for p in positions if p not in lacking]
    bands = tuple(band for band in matched if band is not None)
    rest = [p for p in range(len(scene.data_bands)) if others and p not in positions]
    return Bands(
        scene=tuple(scene.data_bands[p] for p in positions),
        reference=bands,
        names=tuple(band_name(scene, p) for p in positions),
        channels=tuple(positions.index(p) if p in positions else None for p in roles)
        if channels
        else tuple(range(len(positions))),
        other=tuple(scene.data_bands[p] for p in rest),
        other_names=tuple(band_name(scene, p) for p in rest),
        reference_names=tuple(band_name(reference, reference.data_bands.index(b)) for b in bands) if reference else (),
    )


def band_notes(
    scene: RasterInfo,
    reference: RasterInfo | None,
    bands: Bands,
    alone: Bands,
    channels: Sequence[str],
    chosen: bool = False,
) -> Iterator[str]:
    """What belongs to what, and what that rests on.

    Args:
        scene, reference: as inspected.
        bands: as chosen.
        alone: as they would be chosen without a reference.
        channels: the model's.
        chosen: whether the user says which of the reference's bands are used.
    """
    for info, role, option in ((scene, "scene", "--bands"), (reference, "reference", "--ref-bands")):
        keys = None if info is None else band_keys(info)
        if keys is not None and keys.assumed and (channels or reference is not None):
            taken = ", ".join(f"{p + 1} for {keys.keys[p]}" for p in keys.assumed)
            noun = "bands without names are" if len(keys.assumed) > 1 else "band without a name is"
            yield f"the {role}'s {noun} taken by place: {taken}; choose otherwise with {option}"
    if reference is not None or channels:
        yield f"bands: {pairing(bands, channels)}"
    if reference is not None and not chosen:
        own, theirs = band_keys(scene), band_keys(reference)
        placed = [
            name
            for band, other, name in zip(bands.scene, bands.reference, bands.names, strict=True)
            if own.keys[scene.data_bands.index(band)] != theirs.keys[reference.data_bands.index(other)]
            or not own.is_named(scene.data_bands.index(band))
        ]
        if placed:
            taken = ", ".join(placed)
            yield f"no name says which band of the reference is {taken}: taken by place; choose with --ref-bands"
    lost = [name for name in alone.names if name not in bands.names]
    if lost:
        names, get = ", ".join(lost), "it gets" if len(lost) == 1 else "they get"
        yield (
            f"the reference has no {names}: {get} no detail from it but what is transferred from the other bands"
            if set(lost) <= set(bands.other_names)
            else f"the reference has no {names}, left out with --other-bands drop"
        )


def coarser_note(scene: RasterInfo) -> str | None:
    """What became of bands of a product's coarser pixels; None where there are none."""
    if not scene.coarser:
        return None
    count = len(scene.data_bands)
    names = ", ".join(band_name(scene, place) for place in range(count - scene.coarser, count))
    return (
        f"{names} have coarser pixels: they are resampled to those of the others and get detail that is finer than "
        f"these; what is between the two sizes stays soft"
    )


def pairing(bands: Bands, channels: Sequence[str]) -> str:
    """Which bands of the scene, the reference and the model belong together, one after the other."""
    return "; ".join(map(_pair, bands.pairs(channels)))


def _pair(pair: Mapping[str, Any]) -> str:
    """ "B04 <- ref band 1 (red), the model's red"."""
    text, channel = str(pair["name"]), pair["channel"]
    if "reference" in pair:
        name = pair["reference_name"]
        text += f" <- ref band {pair['reference']}" + ("" if name.startswith(UNNAMED) else f" ({name})")
    return text if channel in (None, str(pair["name"]).lower()) else f"{text}, the model's {channel}"


def _matched(
    scene: RasterInfo, reference: RasterInfo, positions: Sequence[int], wanted: Sequence[str | int] | None
) -> list[int | None]:
    if wanted is None:
        return list(paired_bands(scene, reference, positions))
    if len(wanted) != len(positions):
        names = ", ".join(band_name(scene, p) for p in positions)
        raise OptionError(
            f"ref bands {', '.join(map(str, wanted))}: give {len(positions)}, for {names} ({NO_BAND} for none)"
        )
    return [
        None if str(band).strip() == NO_BAND else reference.data_bands[_position(reference, band)] for band in wanted
    ]


def _position(info: RasterInfo, band: str | int) -> int:
    """Place among the data bands of one that the user names, by number, by its own name or by what it measures."""
    text, keys = str(band).strip(), band_keys(info)
    if text.isdecimal() and int(text) in info.data_bands:
        return info.data_bands.index(int(text))
    own = [band_name(info, p).lower() for p in range(len(info.data_bands))]
    if own.count(text.lower()) == 1:
        return own.index(text.lower())
    for wanted in (text.lower(), meaning(text, "msi")):
        place = None if wanted is None else keys.place(wanted)
        if place is not None:
            return place
    have = ", ".join(
        f"{b} {n}" if n != f"{UNNAMED}{b}" else str(b)
        for b, n in zip(info.data_bands[:16], (band_name(info, p) for p in range(len(own))), strict=False)
    )
    raise OptionError(f"{info.path}: has no band '{text}'; its bands are {have}")


def _for_model(scene: RasterInfo, keys: BandKeys, channels: Sequence[str], optional: Sequence[str]) -> list[int]:
    """Places for the model's channels, in their order."""
    places = {c: keys.place(c.lower()) for c in channels}
    named = [p for p in places.values() if p is not None]
    needed = [c for c in channels if c not in optional]
    count = len(keys.keys)
    if named and all(places[c] is not None for c in needed):
        return named
    for order in (list(channels), needed):
        if count == len(order):
            _check_order(scene, keys, order, needed)
            return list(range(count))
    raise InputError(_wrong_count(scene, [c for c in needed if places[c] is None], count, channels, optional))


def _check_order(info: RasterInfo, keys: BandKeys, wanted: Sequence[str], needed: Sequence[str]) -> None:
    """Bands that are taken by their place must not say by their names that they are others."""
    if not any(keys.is_known(p) and keys.keys[p] != channel.lower() for p, channel in enumerate(wanted)):
        return
    lacking = ", ".join(c for c in needed if keys.place(c.lower()) is None)
    raise InputError(
        f"{info.path}: the model takes {', '.join(needed)}, and none of the scene's bands ({band_list(info)}) is "
        f"known to be {lacking}; name that band, choose all in this order with --bands, or take a model for any bands: "
        f"--model matched-ref, or bicubic-ibp without a reference"
    )


def _roles(
    scene: RasterInfo, keys: BandKeys, positions: Sequence[int], channels: Sequence[str], optional: Sequence[str]
) -> tuple[int | None, ...]:
    """For each channel the position of the band that plays it."""
    if len(positions) == len(channels):
        return tuple(positions)
    places = {keys.keys[p]: p for p in positions}
    lowered = [c.lower() for c in channels]
    if set(places) <= set(lowered) and all(c.lower() in places or c in optional for c in channels):
        return tuple(places.get(c) for c in lowered)
    needed = [c for c in channels if c not in optional]
    if len(positions) == len(needed):
        return tuple(positions[needed.index(c)] if c in needed else None for c in channels)
    if not channels:
        return ()
    raise InputError(_wrong_count(scene, [], len(positions), channels, optional))


def _wrong_count(
    scene: RasterInfo, lacking: Sequence[str], count: int, channels: Sequence[str], optional: Sequence[str]
) -> str:
    wants = ", ".join(f"{c} (optional)" if c in optional else c for c in channels)
    way = "choose them with --bands, e.g. --bands 3,2,1"
    if count < len(channels) - len(optional):
        way = "take a model for any bands: --model matched-ref, or bicubic-ibp without a reference"
    unknown = f" and none of them ({band_list(scene)}) is known to be {', '.join(lacking)}" if lacking else ""
    return f"{scene.path}: {count} band{'s' * (count != 1)}, but the model takes {wants}{unknown}; {way}"
