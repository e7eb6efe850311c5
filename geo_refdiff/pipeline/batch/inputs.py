"""From an area to its job: which scene, reference and mask, and what it will cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geo_refdiff.engine.shards import check_size
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.io.gdal import gdal_env, one_line
from geo_refdiff.io.inspection import inspect
from geo_refdiff.io.layer_source import LayerSource, layer_source
from geo_refdiff.io.raster_info import Role
from geo_refdiff.pipeline.batch.areas import Area
from geo_refdiff.pipeline.batch.catalogue import check_asset_names, read_catalogue
from geo_refdiff.pipeline.batch.choice import Chooser, DateKey, reference_dates, scene_dates
from geo_refdiff.pipeline.batch.entry import Entry
from geo_refdiff.pipeline.batch.index_table import PATH_COLUMNS, TABLES
from geo_refdiff.pipeline.batch.jobs import KEPT, Job, files_of, stamps_of
from geo_refdiff.pipeline.batch.manifest import text_of_notes
from geo_refdiff.pipeline.batch.mosaic import Mosaic
from geo_refdiff.pipeline.dates import Span, asked_span
from geo_refdiff.pipeline.models import Model
from geo_refdiff.pipeline.outline import BLOCK as DEFAULT_BLOCK
from geo_refdiff.pipeline.outline import make_outline
from geo_refdiff.pipeline.planning import Request

_POLYGONS = (".gpkg", ".geojson", ".shp", ".fgb", ".parquet", ".geoparquet")
_NOT_OF_REQUEST = ("products", "batch_size", "shard_size")


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
        scene, span, covered, notes = self._one(area, self._scenes, "scene", self._scene_dates)
        used = [*scene[2]]
        values: dict[str, Any] = {"covered": round(covered, 4), "scene_date": None if span is None else str(span)}
        values |= {"scene": scene[1], "scene_file": scene[0]}
        reference: tuple[str | None, str | None, Sequence[str]] = (None, None, ())
        if self._references is not None:
            dates = reference_dates(span, self._before)
            reference, taken, _, more = self._one(area, self._references, "reference", dates)
            values |= {"reference": reference[1], "ref_date": None if taken is None else str(taken)}
            notes += more
        mask, named = self._fixed_mask, self._fixed_mask
        if self._masks is not None:
            (mask, named, own), _, _, more = self._one(area, self._masks, "mask", scene_dates(span, strict=False))
            notes += more
            used += own
        values |= {"mask": named, "notes": text_of_notes(notes) or None}
        files = [scene[0], reference[0], mask, *used, *reference[2], *files_of(self.options)]
        job = Job(area.name, area.text, scene[0], reference[0], mask, stamps_of(files), values["scene_date"])
        shape, blocks, raw = self._cost(job)
        return Plan(job, values, tuple(notes), shape, blocks, raw)

    def _one(
        self, area: Area, chooser: Chooser, role: Role, dates: DateKey
    ) -> tuple[tuple[str, str, Sequence[str]], Span | None, float, list[str]]:
        """(file, name for people, files that it is made of), date of the one on top, share covered, notes."""
        mosaic = Mosaic(role)
        chosen = chooser.choose(area.lonlat, dates, mosaic.why_not)
        file = mosaic.write(chosen.entries, self.folder / KEPT / "mosaics" / f"{area.name}.{role}.vrt")
        notes = []
        if chosen.left_out:
            notes.append(f"left out under {role} {chosen.entries[0].name}: {', '.join(chosen.left_out)}")
        if chosen.covered < 1 - 1e-4:
            notes.append(f"{role}s cover {chosen.covered:.1%} of the area")
        own = [name for entry in chosen.entries for name in entry.files]
        return (file, _names(chosen.entries), own), chosen.entries[0].span, chosen.covered, notes

    def _cost(self, job: Job) -> tuple[tuple[int, int], int, int]:
        import numpy as np

        wanted = {k: v for k, v in self.options.items() if k not in _NOT_OF_REQUEST} | {"model": self.model}
        with gdal_env():
            scene = inspect(job.scene, "scene")
            reference = None if job.reference is None else inspect(job.reference, "reference")
            outline = make_outline(Request(job.scene, job.reference, job.mask, job.area, **wanted), scene, reference)
        height, width = outline.geobox.shape
        raw = height * width * len(outline.bands.output) * np.dtype(outline.output.dtype).itemsize
        return (height, width), outline.blocks.count, raw


def check_options(options: Mapping[str, Any]) -> None:
    """Whether options of `upscale` that only its end would check make sense.

    Raises:
        OptionError: the shards are no multiple of the blocks.
    """
    if options.get("shard_size") is not None:
        check_size(options["shard_size"], options.get("block_size") or DEFAULT_BLOCK)


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
    from geo_refdiff.pipeline.batch.stac_source import is_stac

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
