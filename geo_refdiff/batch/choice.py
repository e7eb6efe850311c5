"""Which of the inputs serve an area: by overlap, then by date, then by the least nodata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import shapely
from affine import Affine
from shapely.geometry.base import BaseGeometry

from geo_refdiff.batch.entry import Entry
from geo_refdiff.errors import InputError
from geo_refdiff.raster.affine import compose, translated
from geo_refdiff.raster.dates import Span
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env, one_line

MOST = 16
"""Inputs of one mosaic."""

_LEAST_GAIN = 1e-4
_WHOLE = 1e-6
_SIDE = 64
_UNKNOWN = 10**6

DateKey = Callable[[Span | None], int | None]
"""Rank of a date, lower is better; None: not to be used."""

Fit = Callable[[Entry, Entry], str | None]
"""Why an entry cannot be laid under another one, the first; None: it can."""


class NothingFitsError(InputError):
    """No entry serves an area.

    Args:
        reason: why.
        way_out: what helps.
    """

    def __init__(self, reason: str, way_out: str) -> None:
        super().__init__(f"{reason}; {way_out}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Chosen:
    """Inputs for an area.

    Attributes:
        entries: the one that goes on top first.
        covered: share of the area within their outlines, 0..1.
        left_out: those that would have filled a gap but cannot be laid under the one on top, and why.
    """

    entries: tuple[Entry, ...]
    covered: float
    left_out: tuple[str, ...] = ()


def scene_dates(asked: Span | None, strict: bool) -> DateKey:
    """The nearest to a date; `strict`: only those within it, the latest first. Without a date: the latest."""

    def rank(span: Span | None) -> int | None:
        if asked is None or strict:
            inside = asked is None or (span is not None and asked.first <= span.first and span.last <= asked.last)
            return (_UNKNOWN if span is None else -span.last.toordinal()) if inside else None
        return _UNKNOWN if span is None else span.days_from(asked)

    return rank


def reference_dates(scene: Span | None, before: Span | None) -> DateKey:
    """The latest before the scene, else the nearest to it; `before`: only those that are older than its first day."""

    def rank(span: Span | None) -> int | None:
        if before is not None and (span is None or span.last >= before.first):
            return None
        if span is None:
            return _UNKNOWN
        if scene is None:
            return -span.last.toordinal()
        return span.days_from(scene) + (0 if span.last < scene.first else _UNKNOWN // 2)

    return rank


class Chooser:
    """Chooses among the entries of one role.

    Args:
        entries: of the catalogue.
        role: for messages.
    """

    def __init__(self, entries: Sequence[Entry], role: str) -> None:
        self.entries, self.role = list(entries), role
        self._tree = shapely.STRtree([entry.lonlat for entry in self.entries])

    def choose(self, area: BaseGeometry, rank: DateKey, why_not: Fit = lambda entry, top: None) -> Chosen:
        """The best entry, and what fills its gaps, in order.

        Entries that cover the area equally (to a hundredth) are told apart by date, then by their missing pixels.
        As long as a part is not covered, or has missing pixels, the next ones in this order that fit the first are laid
        under.

        Raises:
            NothingFitsError: nothing overlaps, or nothing of the dates that are asked for.
            InputError: a file cannot be read.
        """
        near = [self.entries[i] for i in sorted(self._tree.query(area, predicate="intersects"))]
        shares = [(e, e.lonlat.intersection(area).area / area.area) for e in near]
        overlapping = [(e, share) for e, share in shares if share > _WHOLE]
        if not overlapping:
            raise NothingFitsError(f"no {self.role} of {len(self.entries)} overlaps the area", "give one that does")
        dated = [(e, share, rank(e.span)) for e, share in overlapping]
        keyed = [((-round(share, 2), when), e) for e, share, when in dated if when is not None]
        if not keyed:
            told = ", ".join(sorted({str(e.span or "no date") for e, _ in overlapping})[:6])
            raise NothingFitsError(
                f"no {self.role} of the dates asked for overlaps the area ({told})", "choose other dates"
            )
        chosen: list[Entry] = []
        left_out: list[str] = []
        gap, holes = area, False
        for _, group in groupby(sorted(keyed, key=lambda k: k[0]), key=lambda k: k[0]):
            tied = [e for _, e in group]
            missing = {e.files: missing_share(e, area) for e in tied} if len(tied) > 1 else {}
            for entry in sorted(tied, key=lambda e: (missing.get(e.files, 0.0), e.files)):
                gain = entry.lonlat.intersection(gap).area / area.area
                if chosen and gain < _LEAST_GAIN and not holes:
                    continue
                reason = why_not(entry, chosen[0]) if chosen else None
                if reason is not None:
                    left_out.append(f"{entry.name} ({reason})")
                    continue
                chosen.append(entry)
                gap = gap.difference(entry.lonlat)
                own = missing[entry.files] if entry.files in missing else missing_share(entry, area)
                whole = entry.lonlat.covers(area)
                holes = own > 0 if len(chosen) == 1 else holes and (own > 0 or not whole)
                if len(chosen) == MOST or (gap.area / area.area < _WHOLE and not holes):
                    return Chosen(tuple(chosen), 1.0 - gap.area / area.area, tuple(left_out))
        return Chosen(tuple(chosen), 1.0 - gap.area / area.area, tuple(left_out))


def missing_share(entry: Entry, area: BaseGeometry) -> float:
    """Share of missing pixels, 0..1, where the area and the entry overlap, from at most 64 x 64 of its pixels.

    Raises:
        InputError: the file cannot be read.
    """
    import geopandas
    import rasterio
    from rasterio.features import geometry_mask
    from rasterio.windows import Window

    common = entry.lonlat.intersection(area)
    if common.is_empty:
        return 1.0
    try:
        with gdal_env(), rasterio.open(entry.files[0]) as dataset:
            shape = geopandas.GeoSeries([common], crs=4326).to_crs(dataset.crs).iloc[0]
            a, b, c, d, e, f = (~dataset.transform)[:6]
            xy = shapely.get_coordinates(shape)
            cols, rows = a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f
            left, right = (min(max(v, 0.0), float(dataset.width)) for v in (cols.min(), cols.max()))
            top, bottom = (min(max(v, 0.0), float(dataset.height)) for v in (rows.min(), rows.max()))
            if right <= left or bottom <= top:
                return 1.0
            height, width = bottom - top, right - left
            size = max(1, min(_SIDE, round(height))), max(1, min(_SIDE, round(width)))
            valid = dataset.dataset_mask(window=Window(left, top, width, height), out_shape=size) > 0
            grid = compose(translated(dataset.transform, top, left), Affine.scale(width / size[1], height / size[0]))
            inside = geometry_mask([shape], size, grid, all_touched=True, invert=True)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{entry.files[0]}: cannot be read ({one_line(error, 160)}); fetch it again, or leave it out"
        ) from error
    return float(np.mean(~valid[inside])) if inside.any() else 0.0
