"""Which scene, reference and mask serve an area: by overlap, then by date and clouds, then by the least nodata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from geo_refdiff.batch.areas import Area
from geo_refdiff.batch.catalogue import PATH_COLUMNS, TABLES, Entry, check_asset_names, is_stac, read_catalogue
from geo_refdiff.batch.folder import KEPT, output_of
from geo_refdiff.batch.jobs import Job, Settings, files_of, stamps_of
from geo_refdiff.batch.mosaic import Mosaic
from geo_refdiff.engine.shards import check_size
from geo_refdiff.errors import GeoRefDiffError, InputError, OptionError
from geo_refdiff.options import AUTO, MaskOptions, Sources, UpscaleOptions, fields_of
from geo_refdiff.plan.bands import pairing
from geo_refdiff.plan.outline import BLOCK as DEFAULT_BLOCK
from geo_refdiff.plan.outline import Outline, make_outline
from geo_refdiff.products.clouds import own_layer
from geo_refdiff.products.opening import gdal_source, inspect, open_product
from geo_refdiff.raster.clouds import cloud_layer
from geo_refdiff.raster.dates import Span, asked_span
from geo_refdiff.raster.gdal import GDAL_ERRORS, gdal_env, one_line
from geo_refdiff.raster.geobox import compose, translated
from geo_refdiff.raster.info import Role
from geo_refdiff.raster.vector import LayerSource, layer_source
from geo_refdiff.restore.models import Model
from geo_refdiff.signed_urls import unsigned

MOST = 16
"""Inputs of one mosaic."""

_LEAST_GAIN = 1e-4
_WHOLE = 1e-6
_SIDE = 64
_INSPECTED = 1024
"""Files whose description is kept: areas of one scene share it."""

_UNKNOWN = 10**6
_DAYS_OF_CLOUDS = 100
"""Days by which a date may be further off if all of the area is cloudy: one for each percent."""

_POLYGONS = (".gpkg", ".geojson", ".shp", ".fgb", ".parquet", ".geoparquet")
_OF_MASKS = tuple(name for name in fields_of(MaskOptions) if name != "mask")

_Key = tuple[float, int]
_Ranked = tuple[_Key, Entry]

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
        entries: the one that is on top first.
        covered: share of the area within their outlines, 0..1.
        left_out: those that would have filled a gap but cannot be laid under the one on top, and why.
        cloudy: those that would be on top but for their clouds, and the share of the area that is cloudy.
    """

    entries: tuple[Entry, ...]
    covered: float
    left_out: tuple[str, ...] = ()
    cloudy: tuple[str, ...] = ()


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
        clear: whether products whose quality layer marks clouds in the area come later.
    """

    def __init__(self, entries: Sequence[Entry], role: str, *, clear: bool = False) -> None:
        self.entries, self.role, self.clear = list(entries), role, clear
        self._tree = shapely.STRtree([entry.lonlat for entry in self.entries])

    def choose(self, area: BaseGeometry, rank: DateKey, why_not: Fit = lambda entry, top: None) -> Chosen:
        """The best entry, and what fills its gaps, in order.

        Entries that cover the area equally (to a hundredth) are distinguished by date, to which each percent of clouds
        adds a day, then by their missing pixels.
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
        keys = {e: (-round(share, 2), when) for e, share, when in dated if when is not None}
        if not keys:
            dates = ", ".join(sorted({str(e.span or "no date") for e, _ in overlapping})[:6])
            raise NothingFitsError(
                f"no {self.role} of the dates asked for overlaps the area ({dates})", "choose other dates"
            )
        chosen: list[Entry] = []
        left_out: list[str] = []
        cloudy: dict[Entry, float] = {}
        gap, holes = area, False
        for _, group in groupby(self._ranked(keys, area, cloudy), key=lambda k: k[0]):
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
                if len(keys) == 1:  # nothing could fill its gaps
                    break
                own = missing[entry.files] if entry.files in missing else missing_share(entry, area)
                whole = entry.lonlat.covers(area)
                holes = own > 0 if len(chosen) == 1 else holes and (own > 0 or not whole)
                if len(chosen) == MOST or (gap.area / area.area < _WHOLE and not holes):
                    break
            else:
                continue
            break
        before = [e for e in cloudy if keys[e] < keys[chosen[0]]]
        passed = tuple(f"{e.name} ({cloudy[e]:.0%})" for e in before)
        return Chosen(tuple(chosen), 1.0 - gap.area / area.area, tuple(left_out), passed)

    def _ranked(self, keys: Mapping[Entry, _Key], area: BaseGeometry, cloudy: dict[Entry, float]) -> Iterator[_Ranked]:
        """Entries from the best on, with their keys; clouds are looked at only where they can change the order.

        Args:
            keys: by coverage and date.
            cloudy: is filled with the shares that were looked at, where they are not 0.
        """
        waiting = [(key, entry.files, entry, not self.clear) for entry, key in keys.items()]
        heapify(waiting)
        while waiting:
            key, files, entry, final = heappop(waiting)
            if final:
                yield key, entry
                continue
            share = cloudy_share(entry, area)
            if share:
                cloudy[entry] = share
            heappush(waiting, ((key[0], key[1] + round(share * _DAYS_OF_CLOUDS)), files, entry, True))


def missing_share(entry: Entry, area: BaseGeometry) -> float:
    """Share of missing pixels, 0..1, where the area and the entry overlap, from at most 64 x 64 of its pixels.

    Raises:
        InputError: the file cannot be read.
    """
    return _share(gdal_source(entry.files[0]), entry, area, lambda dataset, **part: dataset.dataset_mask(**part) == 0)


def cloudy_share(entry: Entry, area: BaseGeometry) -> float:
    """Share of pixels that a product's own quality layer marks as cloudy, as `missing_share`; 0 without such a layer.

    Raises:
        InputError: the product or its layer cannot be read.
    """
    clear = _clear(entry.files[0])
    return 0.0 if clear is None else _share(clear, entry, area, lambda dataset, **part: dataset.read(1, **part) == 0)


@lru_cache(_INSPECTED)
def _clear(file: str) -> str | None:
    """A VRT of where a product is clear, see `CloudLayer`; None of other rasters, and of products that do not tell."""
    if open_product(file) is None:
        return None
    info = inspect(file, "scene")
    layer = own_layer(info)
    return None if layer is None else cloud_layer(layer, info).vrt


def _share(source: str, entry: Entry, area: BaseGeometry, counted: Callable[..., NDArray[np.bool_]]) -> float:
    """Share of an entry's pixels in an area that count, by a window of what GDAL opens and the shape it is read in."""
    import geopandas
    import rasterio
    from rasterio.features import geometry_mask
    from rasterio.windows import Window

    common = entry.lonlat.intersection(area)
    if common.is_empty:
        return 1.0
    try:
        with gdal_env(), rasterio.open(source) as dataset:
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
            counts = counted(dataset, window=Window(left, top, width, height), out_shape=size)
            grid = compose(translated(dataset.transform, top, left), Affine.scale(width / size[1], height / size[0]))
            inside = geometry_mask([shape], size, grid, all_touched=True, invert=True)
    except GDAL_ERRORS as error:
        raise InputError(
            f"{entry.files[0]}: cannot be read ({one_line(error, 160)}); fetch it again, or leave it out"
        ) from error
    return float(np.mean(counts[inside])) if inside.any() else 0.0


@dataclass(frozen=True, slots=True)
class Selected:
    """What serves an area in one role.

    Attributes:
        file: path or GDAL name; for the mask also a word; None: there is none.
        name: for people, " + " between those of a mosaic.
        files: that `file` is made of.
        span: date of the one on top.
        covered: share of the area, 0..1.
        notes: what deserves a look.
        missing: why there is no file.
    """

    file: str | None = None
    name: str | None = None
    files: tuple[str, ...] = ()
    span: Span | None = None
    covered: float = 0.0
    notes: tuple[str, ...] = ()
    missing: str = ""

    @property
    def date(self) -> str | None:
        """As text."""
        return None if self.span is None else str(self.span)


@dataclass(frozen=True)
class AreaPlan:
    """The job of an area, what was selected for it, and what it is about to cost.

    Attributes:
        job: to be done.
        scene, reference, mask: that serve it.
        shape: (height, width) of the output, pixels.
        raw_bytes: of the output's pixels.
        outline: of the run.
    """

    job: Job
    scene: Selected
    reference: Selected
    mask: Selected
    shape: tuple[int, int]
    raw_bytes: int
    outline: Outline

    @property
    def notes(self) -> tuple[str, ...]:
        """What deserves a look about the inputs."""
        return (*self.scene.notes, *self.reference.notes, *self.mask.notes)

    @property
    def bands(self) -> str:
        """Which bands belong together; "" where there is neither a reference nor a model that knows bands."""
        channels = self.outline.model.bands
        return pairing(self.outline.bands, channels) if self.outline.reference or channels else ""

    def columns(self) -> dict[str, Any]:
        """For the manifest."""
        job = self.job
        return {
            "covered": round(self.scene.covered, 4),
            "scene_date": self.scene.date,
            "scene": self.scene.name,
            "scene_file": None if self.scene.file is None else unsigned(self.scene.file),
            "reference": self.reference.name,
            "ref_date": self.reference.date,
            "mask": self.mask.name,
            "notes": "; ".join(self.notes) or None,
            "output": output_of(job.folder, job.name, job.settings.options).name,
            "inputs": msgspec.json.encode(job.stamps).decode(),
        }


class Planner:
    """Makes jobs.

    Args:
        sources: of the batch.
        folder: of the outputs; mosaics are written into a folder of it.
        options: of `upscale`.
        model: opened.

    Attributes:
        unusable: a line for each file of a folder that is left out.

    Raises:
        InputError: a source cannot be read.
        OptionError: a date or asset that makes no sense.
    """

    def __init__(self, sources: Sources, folder: Path, options: Mapping[str, Any], model: Model) -> None:
        self.folder, self.options, self.model = folder, options, model
        date = None if sources.date is None else asked_span("--date", sources.date)
        self._scene_dates = scene_dates(date, strict=sources.date is not None and "/" in sources.date)
        self._before = None if sources.ref_before is None else asked_span("--ref-before", sources.ref_before)
        self._fixed_mask, masks = _fixed_mask(sources.masks)
        assets = [check_asset_names(text) for text in (sources.scene_asset, sources.ref_asset, sources.mask_asset)]
        self.unusable: list[str] = []
        self._inspect = lru_cache(_INSPECTED)(inspect)
        self._clear = options.get("cloud_mask", AUTO) == AUTO
        self._coarser = options.get("other_bands") == "transfer"
        scenes = read_catalogue(sources.scenes, "scene", assets[0], self.unusable)
        self._scenes = Chooser(scenes, "scene", clear=self._clear)
        self._references = self._chooser(sources.references, "reference", assets[1])
        self._masks = self._chooser(masks, "mask", assets[2])

    def _chooser(self, sources: Sequence[str | Path], role: str, assets: Sequence[str]) -> Chooser | None:
        clear = role == "reference" and self._clear
        return Chooser(read_catalogue(sources, role, assets, self.unusable), role, clear=clear) if sources else None

    def plan(self, area: Area, settings: Settings) -> AreaPlan:
        """The job of an area.

        Args:
            area: of interest.
            settings: of the batch.

        Raises:
            GeoRefDiffError: one line that says why there is none.
        """
        if area.lonlat.is_empty:
            raise InputError("the area has no polygon; draw one, or leave the feature out")
        scene = self._selected(area, self._scenes, "scene", self._scene_dates)
        reference = self._if_any(area, self._references, "reference", reference_dates(scene.span, self._before))
        if reference.file is None and self.model.needs_reference:
            why = reference.missing or "none was given"
            raise InputError(f"{self.model.name} needs a reference, but {why}; give one, or use --model bicubic-ibp")
        mask, without = self._mask(area, scene, reference)
        files = [f for part in (scene, reference, mask) for f in (part.file, *part.files)]
        stamps = stamps_of([*files, *files_of(self.options)])
        outline = self._outline(area, str(scene.file), reference.file, mask.file, without)
        height, width = outline.geobox.shape
        raw_bytes = height * width * len(outline.bands.output) * np.dtype(outline.output.dtype).itemsize
        job = Job(
            str(self.folder),
            settings,
            area.name,
            area.text,
            str(scene.file),
            reference.file,
            mask.file,
            stamps,
            outline.blocks.count,
            None if scene.span is None else scene.span.exact,
            without,
        )
        return AreaPlan(job, scene, reference, mask, (height, width), raw_bytes, outline)

    def _selected(self, area: Area, chooser: Chooser, role: Role, dates: DateKey) -> Selected:
        mosaic = Mosaic(role, coarser=self._coarser and role == "scene")
        chosen = chooser.choose(area.lonlat, dates, mosaic.why_not)
        file = mosaic.write(chosen.entries, self.folder / KEPT / "mosaics" / f"{area.name}.{role}.vrt")
        notes = []
        if chosen.left_out:
            notes.append(f"left out under {role} {chosen.entries[0].name}: {', '.join(chosen.left_out)}")
        if chosen.cloudy:
            notes.append(f"{role}s of better dates are cloudy in the area: {', '.join(chosen.cloudy)}")
        if chosen.covered < 1 - 1e-4:
            notes.append(f"{role}s cover {chosen.covered:.1%} of the area")
        own = tuple(name for entry in chosen.entries for name in entry.files)
        return Selected(file, _names(chosen.entries), own, chosen.entries[0].span, chosen.covered, tuple(notes))

    def _if_any(self, area: Area, chooser: Chooser | None, role: Role, dates: DateKey) -> Selected:
        """As `_selected`; no file where none was given, or none of them serves the area."""
        if chooser is None:
            return Selected()
        try:
            return self._selected(area, chooser, role, dates)
        except NothingFitsError as error:
            return Selected(missing=error.reason, notes=(f"{error.reason}: none is used",))

    def _mask(self, area: Area, scene: Selected, reference: Selected) -> tuple[Selected, tuple[str, ...]]:
        """The mask of an area, and options of masks that do not go for it."""
        if self._masks is not None:
            mask = self._if_any(area, self._masks, "mask", scene_dates(scene.span, strict=False))
            return mask, _OF_MASKS if mask.file is None else ()
        if self._fixed_mask == "auto" and reference.missing:
            return Selected(notes=("without a reference no change can be looked for",)), _OF_MASKS
        return Selected(self._fixed_mask, self._fixed_mask), ()

    def _outline(
        self, area: Area, scene: str, reference: str | None, mask: str | None, without: Sequence[str]
    ) -> Outline:
        of_area = {"mask": mask, "aoi": area.text, "model": self.model}
        options = {k: v for k, v in self.options.items() if k not in without} | of_area
        asked = UpscaleOptions.of(**options)
        with gdal_env():
            taken = self._inspect(scene, "scene", coarser=self._coarser)
            return make_outline(asked, taken, None if reference is None else self._inspect(reference, "reference"))


def plan_or_reason(planner: Planner, area: Area, settings: Settings) -> AreaPlan | str:
    """The plan of an area, or why there is none, on one line: one area's failure never stops the others."""
    try:
        return planner.plan(area, settings)
    except GeoRefDiffError as error:
        return " ".join(str(error).split())
    except Exception as error:  # whatever its inputs make of it
        return f"unexpected {type(error).__name__}: {one_line(error)}"


def check_options(options: Mapping[str, Any]) -> None:
    """Whether options of `upscale` make sense, those that only its end would check, too.

    Raises:
        OptionError: an option is unknown or has a wrong value, or the shards are no multiple of the blocks.
    """
    of_any_mask = {k: v for k, v in options.items() if k not in _OF_MASKS}  # which mask, if any, each area tells
    asked = UpscaleOptions.of(**of_any_mask)
    if asked.output.shard_size is not None:
        check_size(asked.output.shard_size, asked.compute.block_size or DEFAULT_BLOCK)


def _names(entries: Sequence[Entry]) -> str:
    return " + ".join(entry.name for entry in entries)


def _fixed_mask(masks: Sequence[str | Path]) -> tuple[str | None, Sequence[str | Path]]:
    """A mask that serves all areas, else the rasters to choose from."""
    texts = [str(m) for m in masks]
    words = [t for t in texts if t in ("auto", "none")]
    if words and len(texts) > 1:
        raise OptionError(f"mask '{words[0]}' and others: give one of them")
    if words:
        return words[0], ()
    if len(texts) == 1:
        source = layer_source(texts[0])
        if Path(source.path).suffix.lower() in _POLYGONS and not _is_index(source):
            return str(source.absolute), ()
    return None, masks


def _is_index(source: LayerSource) -> bool:
    """Whether a table names files, rather than holding the changes themselves."""
    name = source.path
    if Path(name).suffix.lower() == ".geojson" and is_stac(name):
        return True
    if Path(name).suffix.lower() not in TABLES:
        return False
    try:
        if Path(name).suffix.lower() in (".parquet", ".geoparquet"):
            import pyarrow.parquet

            columns = list(pyarrow.parquet.read_schema(name).names)
        else:
            import pyogrio

            columns = list(pyogrio.read_info(name, layer=source.layer)["fields"])
    except Exception as error:  # pyogrio and pyarrow each have their own
        raise InputError(f"{name}: cannot be read as a mask ({one_line(error, 160)}); check it with ogrinfo") from error
    return any(str(c).lower() in PATH_COLUMNS for c in columns)
