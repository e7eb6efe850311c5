"""Which bands of the scene and the reference are used, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from geo_refdiff.engine.plan import Bands
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.io.raster_info import RasterInfo

_SENTINEL_2 = {"b02": "blue", "b2": "blue", "b03": "green", "b3": "green", "b04": "red", "b4": "red"} | {
    "b08": "nir",
    "b8": "nir",
}
"""What the bands of the most common coarse scenes are called in their files."""


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
    many bands as are needed is taken in its own order.

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
    names = [_name(scene, p) for p in positions]
    bands = tuple(scene.data_bands[p] for p in positions)
    assigned = _assign(scene, names, channels, optional)
    matched = () if reference is None else _matching(scene, reference, positions)
    rest = [p for p in range(len(scene.data_bands)) if others and p not in positions]
    return Bands(
        bands,
        matched,
        tuple(names),
        assigned,
        tuple(scene.data_bands[p] for p in rest),
        tuple(_name(scene, p) for p in rest),
    )


def comparable_bands(scene: RasterInfo, reference: RasterInfo) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bands of both that can be compared with each other, pair by pair: those of one name, else those of one place."""
    own, other = _keys(scene), _keys(reference)
    common = [k for k in own if own.count(k) == other.count(k) == 1]
    if common:
        pairs = [(own.index(k), other.index(k)) for k in common]
    else:
        pairs = [(p, p) for p in range(min(len(own), len(other)))]
    return tuple(scene.data_bands[a] for a, _ in pairs), tuple(reference.data_bands[b] for _, b in pairs)


def _name(info: RasterInfo, position: int) -> str:
    band = info.data_bands[position]
    text = info.descriptions[band - 1]
    if text:
        return text
    colour = info.colorinterp[band - 1]
    return colour if colour in ("red", "green", "blue") else f"band {band}"


def _keys(info: RasterInfo) -> list[str]:
    names = [_name(info, p).strip().lower() for p in range(len(info.data_bands))]
    return [_SENTINEL_2.get(name, name) for name in names]


def _position(info: RasterInfo, band: str | int) -> int:
    text = str(band).strip()
    keys = _keys(info)
    if text.isdecimal() and int(text) in info.data_bands:
        return info.data_bands.index(int(text))
    if keys.count(text.lower()) == 1:
        return keys.index(text.lower())
    have = ", ".join(
        f"{b} {k}" if k != f"band {b}" else str(b) for b, k in zip(info.data_bands[:16], keys, strict=False)
    )
    raise OptionError(f"{info.path}: has no band '{text}'; its bands are {have}")


def _for_model(scene: RasterInfo, channels: Sequence[str], optional: Sequence[str]) -> list[int]:
    keys = _keys(scene)
    named = [c for c in channels if keys.count(c.lower()) == 1]
    needed = [c for c in channels if c not in optional]
    count = len(scene.data_bands)
    if len(named) < len(channels) and count == len(channels):
        _check_order(scene, keys, [c.lower() for c in channels])
        return list(range(count))
    if named and all(c in named for c in needed):
        return [keys.index(c.lower()) for c in named]
    if count == len(needed):
        _check_order(scene, keys, [c.lower() for c in needed])
        return list(range(count))
    raise InputError(_wrong_count(scene, count, channels, optional))


def _assign(
    scene: RasterInfo, names: Sequence[str], channels: Sequence[str], optional: Sequence[str]
) -> tuple[int | None, ...]:
    """For each channel the position among the chosen bands."""
    if not channels or len(names) == len(channels):
        return tuple(range(len(names)))
    lowered = [_SENTINEL_2.get(key, key) for key in (n.strip().lower() for n in names)]
    if all(c.lower() in lowered or c in optional for c in channels) and set(lowered) <= {c.lower() for c in channels}:
        return tuple(lowered.index(c.lower()) if c.lower() in lowered else None for c in channels)
    needed = [c for c in channels if c not in optional]
    if len(names) == len(needed):
        return tuple(needed.index(c) if c in needed else None for c in channels)
    raise InputError(_wrong_count(scene, len(names), channels, optional))


def _wrong_count(scene: RasterInfo, count: int, channels: Sequence[str], optional: Sequence[str]) -> str:
    wants = ", ".join(f"{c} (optional)" if c in optional else c for c in channels)
    return f"{scene.path}: {count} bands, but the model takes {wants}; choose them with --bands, e.g. --bands 3,2,1"


def _matching(scene: RasterInfo, reference: RasterInfo, positions: Sequence[int]) -> tuple[int, ...]:
    """Bands of the reference for the chosen bands of the scene."""
    own = _keys(scene)
    keys, wanted = _keys(reference), [own[p] for p in positions]
    if all(keys.count(w) == 1 for w in wanted):
        return tuple(reference.data_bands[keys.index(w)] for w in wanted)
    count = len(reference.data_bands)
    if count == len(scene.data_bands):
        _check_order(reference, [keys[p] for p in positions], wanted)
        return tuple(reference.data_bands[p] for p in positions)
    if count == len(positions):
        _check_order(reference, keys, wanted)
        return reference.data_bands
    raise InputError(
        f"{reference.path}: {count} bands, but {len(positions)} of the scene are used ({', '.join(wanted)}); "
        f"name its bands like the scene's, or choose bands that both have with --bands"
    )


def _check_order(info: RasterInfo, keys: Sequence[str], wanted: Sequence[str]) -> None:
    """Bands that are taken by their place must not say by their names that they belong elsewhere."""
    for place, name in enumerate(wanted):
        if name in keys and keys[place] != name:
            raise InputError(
                f"{info.path}: its band {keys.index(name) + 1} is called {name}, expected as band {place + 1}; "
                f"name all bands ({', '.join(wanted)}) or choose them with --bands"
            )
