"""From an area to its job: which scene, reference and mask, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geo_refdiff.batch.areas import Area
from geo_refdiff.batch.catalogue import check_asset_names, read_catalogue
from geo_refdiff.batch.choice import Chooser, DateKey, NothingFitsError, reference_dates, scene_dates
from geo_refdiff.batch.entry import Entry
from geo_refdiff.batch.index_table import PATH_COLUMNS, TABLES
from geo_refdiff.batch.jobs import KEPT, Job, files_of, stamps_of
from geo_refdiff.batch.manifest import text_of_notes
from geo_refdiff.batch.mosaic import Mosaic
from geo_refdiff.engine.shards import check_size
from geo_refdiff.errors import GeoRefDiffError, InputError, OptionError
from geo_refdiff.options import MaskOptions, UpscaleOptions, fields_of
from geo_refdiff.plan.outline import BLOCK as DEFAULT_BLOCK
from geo_refdiff.plan.outline import make_outline
from geo_refdiff.raster.dates import Span, asked_span
from geo_refdiff.raster.gdal import gdal_env, one_line
from geo_refdiff.raster.info import Role
from geo_refdiff.raster.inspection import inspect
from geo_refdiff.raster.layer_source import LayerSource, layer_source
from geo_refdiff.restore.models import Model

_POLYGONS = (".gpkg", ".geojson", ".shp", ".fgb", ".parquet", ".geoparquet")
_OF_MASKS = tuple(name for name in fields_of(MaskOptions) if name != "mask")


@dataclass(frozen=True)
class Sources:
    """What a batch may choose from, as the user names it; see `read_catalogue`.

    Attributes:
        scenes, references, masks: files, folders, indices or STAC; masks also "auto", "none" or one file of polygons.
        date: "2021-05-03", "2021" (the nearest is taken) or "FIRST/LAST" (only those within).
        ref_before: references must be older than this.
        assets: for "scene", "reference" and "mask" keys of STAC assets, "red,green,blue".
    """

    scenes: Sequence[str | Path]
    references: Sequence[str | Path] = ()
    masks: Sequence[str | Path] = ()
    date: str | None = None
    ref_before: str | None = None
    assets: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """A job, and what it is about to cost.

    Attributes:
        job: to be done.
        values: for the manifest.
        notes: what deserves a look about the inputs.
        shape: (height, width) of the output, pixels.
        blocks: of the output.
        raw_bytes: of the output's pixels.
    """

    job: Job
    values: Mapping[str, Any]
    notes: tuple[str, ...]
    shape: tuple[int, int]
    blocks: int
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What serves an area in one role: a file or, for the mask, a word; its name for people, and the files in it.

    `span` is the date of the one on top, `covered` the share of the area, 0..1; `missing` says why there is no file.
    """

    file: str | None = None
    name: str | None = None
    made_of: tuple[str, ...] = ()
    span: Span | None = None
    covered: float = 0.0
    notes: tuple[str, ...] = ()
    missing: str = ""


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
        assets = {role: check_asset_names(text) for role, text in sources.assets.items()}
        self.unusable: list[str] = []
        scenes = read_catalogue(sources.scenes, "scene", assets.get("scene", ()), self.unusable)
        self._scenes = Chooser(scenes, "scene")
        self._references = self._chooser(sources.references, "reference", assets.get("reference", ()))
        self._masks = self._chooser(masks, "mask", assets.get("mask", ()))

    def _chooser(self, sources: Sequence[str | Path], role: str, assets: Sequence[str]) -> Chooser | None:
        return Chooser(read_catalogue(sources, role, assets, self.unusable), role) if sources else None

    def plan(self, area: Area) -> Plan:
        """The job of an area.

        Raises:
            GeoRefDiffError: one line that says why there is none.
        """
        if area.lonlat.is_empty:
            raise InputError("the area has no polygon; draw one, or leave the feature out")
        scene = self._found(area, self._scenes, "scene", self._scene_dates)
        reference = self._if_any(area, self._references, "reference", reference_dates(scene.span, self._before))
        if reference.file is None and self.model.needs_reference:
            why = reference.missing or "none was given"
            raise InputError(f"{self.model.name} needs a reference, but {why}; give one, or use --model bicubic-ibp")
        mask, without = self._mask(area, scene, reference)
        notes = (*scene.notes, *reference.notes, *mask.notes)
        values: dict[str, Any] = {
            "covered": round(scene.covered, 4),
            "scene_date": None if scene.span is None else str(scene.span),
            "scene": scene.name,
            "scene_file": scene.file,
            "reference": reference.name,
            "ref_date": None if reference.span is None else str(reference.span),
            "mask": mask.name,
            "notes": text_of_notes(notes) or None,
        }
        files = [f for part in (scene, reference, mask) for f in (part.file, *part.made_of)]
        stamps = stamps_of([*files, *files_of(self.options)])
        taken = None if scene.span is None else scene.span.exact
        job = Job(area.name, area.text, str(scene.file), reference.file, mask.file, stamps, taken, without)
        shape, blocks, raw = self._cost(job)
        return Plan(job, values, notes, shape, blocks, raw)

    def _found(self, area: Area, chooser: Chooser, role: Role, dates: DateKey) -> _Found:
        mosaic = Mosaic(role)
        chosen = chooser.choose(area.lonlat, dates, mosaic.why_not)
        file = mosaic.write(chosen.entries, self.folder / KEPT / "mosaics" / f"{area.name}.{role}.vrt")
        notes = []
        if chosen.left_out:
            notes.append(f"left out under {role} {chosen.entries[0].name}: {', '.join(chosen.left_out)}")
        if chosen.covered < 1 - 1e-4:
            notes.append(f"{role}s cover {chosen.covered:.1%} of the area")
        own = tuple(name for entry in chosen.entries for name in entry.files)
        return _Found(file, _names(chosen.entries), own, chosen.entries[0].span, chosen.covered, tuple(notes))

    def _if_any(self, area: Area, chooser: Chooser | None, role: Role, dates: DateKey) -> _Found:
        """As `_found`; no file where none was given, or none of them serves the area."""
        if chooser is None:
            return _Found()
        try:
            return self._found(area, chooser, role, dates)
        except NothingFitsError as error:
            return _Found(missing=error.reason, notes=(f"{error.reason}: none is used",))

    def _mask(self, area: Area, scene: _Found, reference: _Found) -> tuple[_Found, tuple[str, ...]]:
        """The mask of an area, and options of masks that do not go for it."""
        if self._masks is not None:
            mask = self._if_any(area, self._masks, "mask", scene_dates(scene.span, strict=False))
            return mask, _OF_MASKS if mask.file is None else ()
        if self._fixed_mask == "auto" and reference.missing:
            return _Found(notes=("without a reference no change can be looked for",)), _OF_MASKS
        return _Found(self._fixed_mask, self._fixed_mask), ()

    def _cost(self, job: Job) -> tuple[tuple[int, int], int, int]:
        import numpy as np

        of_area = {"mask": job.mask, "aoi": job.area, "model": self.model}
        options = {k: v for k, v in self.options.items() if k not in job.without} | of_area
        with gdal_env():
            scene = inspect(job.scene, "scene")
            reference = None if job.reference is None else inspect(job.reference, "reference")
            outline = make_outline(UpscaleOptions.of(**options), scene, reference)
        height, width = outline.geobox.shape
        raw = height * width * len(outline.bands.output) * np.dtype(outline.output.dtype).itemsize
        return (height, width), outline.blocks.count, raw


def plan_or_reason(planner: Planner, area: Area) -> Plan | str:
    """The plan of an area, or why there is none, on one line: one area's failure never stops the others."""
    try:
        return planner.plan(area)
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
    from geo_refdiff.batch.stac_source import is_stac

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
