"""Which bands of the scene and the reference are used, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.plan.records import Bands
from geo_refdiff.raster.band_names import SENTINEL_2, UNNAMED, band_keys, band_name, check_order, matching_bands
from geo_refdiff.raster.info import RasterInfo


def choose_bands(
    scene: RasterInfo,
    reference: RasterInfo | None,
    wanted: Sequence[str | int] | None,
    channels: Sequence[str],
    optional: Sequence[str],
    others: bool = False,
) -> Bands:
    """Bands of the scene for the model's channels, and those of the reference that belong to them.

    Bands are found by name (band descriptions, else colour interpretations), else by number: a file with as
    many bands as are needed is taken in its own order. Without `wanted`, the scene's bands that the reference lacks
    count among its other bands, unless the model needs them.

    Args:
        scene, reference: as inspected.
        wanted: what the user asks for, names or 1-based numbers, in the order of the model's channels; None:
            by themselves.
        channels: the model's; empty: any bands will do.
        optional: channels that the scene may lack.
        others: whether the scene's other bands follow in the output.

    Raises:
        OptionError: a band that the scene does not have.
        InputError: too many, too few or unknown bands; says which are needed.
    """
    if wanted is not None:
        positions = [_position(scene, band) for band in wanted]
        if not positions or len(set(positions)) < len(positions):
            raise OptionError(f"bands {', '.join(map(str, wanted))}: name each band once, and at least one")
    else:
        positions = _for_model(scene, channels, optional) if channels else list(range(len(scene.data_bands)))
    matched: tuple[int, ...] = ()
    if reference is not None:
        if wanted is None:
            positions = _of_both(scene, reference, positions, channels, optional)
        matched = matching_bands(scene, reference, positions)
    names = [band_name(scene, p) for p in positions]
    bands = tuple(scene.data_bands[p] for p in positions)
    assigned = _assign(scene, positions, channels, optional)
    rest = [p for p in range(len(scene.data_bands)) if others and p not in positions]
    return Bands(
        bands,
        matched,
        tuple(names),
        assigned,
        tuple(scene.data_bands[p] for p in rest),
        tuple(band_name(scene, p) for p in rest),
    )


def _position(info: RasterInfo, band: str | int) -> int:
    text = str(band).strip()
    keys = band_keys(info)
    if text.isdecimal() and int(text) in info.data_bands:
        return info.data_bands.index(int(text))
    for wanted in (text.lower(), SENTINEL_2.get(text.lower())):
        if wanted is not None and keys.count(wanted) == 1:
            return keys.index(wanted)
    names = [band_name(info, p) for p in range(len(keys))]
    have = ", ".join(
        f"{b} {n}" if n != f"band {b}" else str(b) for b, n in zip(info.data_bands[:16], names, strict=False)
    )
    raise OptionError(f"{info.path}: has no band '{text}'; its bands are {have}")


def _of_both(
    scene: RasterInfo,
    reference: RasterInfo,
    positions: Sequence[int],
    channels: Sequence[str],
    optional: Sequence[str],
) -> list[int]:
    """The positions without those of bands that the reference does not have, if the model can do without them."""
    own, theirs = band_keys(scene), band_keys(reference)
    roles = dict(zip(positions, channels, strict=True)) if len(positions) == len(channels) else {}
    needed = [p for p in positions if roles.get(p, own[p]) not in optional] if channels else []
    both = [p for p in positions if not own[p].startswith(UNNAMED) and theirs.count(own[p]) == 1]
    named = not any(key.startswith(UNNAMED) for key in theirs)
    if both and set(needed) <= set(both) and (named or len(theirs) < len(positions)):
        return both
    return needed if needed and len(theirs) == len(needed) else list(positions)


def _for_model(scene: RasterInfo, channels: Sequence[str], optional: Sequence[str]) -> list[int]:
    keys = band_keys(scene)
    named = [c for c in channels if keys.count(c.lower()) == 1]
    needed = [c for c in channels if c not in optional]
    count = len(scene.data_bands)
    if len(named) < len(channels) and count == len(channels):
        check_order(scene, keys, [c.lower() for c in channels])
        return list(range(count))
    if named and all(c in named for c in needed):
        return [keys.index(c.lower()) for c in named]
    if count == len(needed):
        check_order(scene, keys, [c.lower() for c in needed])
        return list(range(count))
    raise InputError(_wrong_count(scene, count, channels, optional))


def _assign(
    scene: RasterInfo, positions: Sequence[int], channels: Sequence[str], optional: Sequence[str]
) -> tuple[int | None, ...]:
    """For each channel the position among the chosen bands."""
    if not channels or len(positions) == len(channels):
        return tuple(range(len(positions)))
    keys = band_keys(scene)
    lowered = [keys[p] for p in positions]
    if all(c.lower() in lowered or c in optional for c in channels) and set(lowered) <= {c.lower() for c in channels}:
        return tuple(lowered.index(c.lower()) if c.lower() in lowered else None for c in channels)
    needed = [c for c in channels if c not in optional]
    if len(positions) == len(needed):
        return tuple(needed.index(c) if c in needed else None for c in channels)
    raise InputError(_wrong_count(scene, len(positions), channels, optional))


def _wrong_count(scene: RasterInfo, count: int, channels: Sequence[str], optional: Sequence[str]) -> str:
    wants = ", ".join(f"{c} (optional)" if c in optional else c for c in channels)
    way = "choose them with --bands, e.g. --bands 3,2,1"
    if count < len(channels) - len(optional):
        way = "take a model for any bands: --model matched-ref, or bicubic-ibp without a reference"
    return f"{scene.path}: {count} band{'s' * (count != 1)}, but the model takes {wants}; {way}"
