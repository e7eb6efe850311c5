"""Detect change between a coarse scene and a fine reference, from files to a class raster, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff import __version__
from geo_refdiff.change.detector import BANDS, CONFIDENCE_STEPS, DetectedMask, Detector, load_detector
from geo_refdiff.change.mask_files import TAG as LIES_ON
from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.engine.conditions import ConditionReader
from geo_refdiff.engine.workdir import check_geotiff, check_output
from geo_refdiff.engine.writer import BlockPixels, BlockRaster, FinishedBlock, write_rasters
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import (
    AUTO,
    FIELDS,
    CountCallback,
    DetectChangeOptions,
    UpscaleOptions,
    fields_of,
    takes_options,
)
from geo_refdiff.plan.layout import plan_blocks
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.geobox import scene_geobox
from geo_refdiff.raster.location import Raster, name_of
from geo_refdiff.raster.styles import class_colours, legend_files, write_legend
from geo_refdiff.raster.vrt import VirtualRaster
from geo_refdiff.raster.window import Window, repeated
from geo_refdiff.restore.models import Model
from geo_refdiff.restore.restorers import Classical, Conditions, Restorer
from geo_refdiff.sensor.sensor import SensorModel

OPTIONS = {name: FIELDS[name] for name in ("scale", "bands", "scene_range", "psf", "min_confidence", "cloud_mask")}
"""Those of `upscale` that `detect_change` takes, too."""

_SIDE = 2048
_BLOCK = 16


@dataclass(frozen=True)
class DetectChangeResult:
    """A detected change mask.

    Attributes:
        out: class raster.
        confidence: how sure it is, 0 to 1 after its scale.
        shape: (height, width) of both, pixels.
        grid: "scene", or "output", that of the upscaled scene.
        scale: output pixels along a scene pixel.
        shares: class name -> share of the pixels whose class is not unknown.
        unknown: share of all scene pixels.
        notes: what was decided without being asked, and what deserves a look.
    """

    out: Path
    confidence: Path
    shape: tuple[int, int]
    grid: str
    scale: int
    shares: dict[str, float]
    unknown: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "out": str(self.out),
            "confidence": str(self.confidence),
            "shape": list(self.shape),
            "grid": self.grid,
            "scale": self.scale,
            "shares": {name: round(share, 6) for name, share in self.shares.items()},
            "unknown": round(self.unknown, 6),
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        height, width = self.shape
        shares = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        lines = [f"{self.out}: {width} x {height} pixels, {shares}; unknown {self.unknown:.1%}"]
        return "\n".join([*lines, f"  confidence: {self.confidence}", *(f"  note: {note}" for note in self.notes)])


@takes_options({**fields_of(DetectChangeOptions), **OPTIONS})
def detect_change(
    scene: Raster,
    ref: Raster,
    out: str | Path,
    *,
    block_size: int | None = None,
    progress: CountCallback | None = None,
    **options: Any,
) -> DetectChangeResult:
    """Write where and to what a scene has changed since a reference was taken, and how sure that is.

    The changes are those that `upscale --mask auto` sees; it uses the sure ones only.

    Beside `out` (uint8, 0 = no change, else the class now, 255 = unknown) appear its category names (`.aux.xml`), a
    QGIS style (`.qml`) and `<stem>.confidence.tif` (uint8, scale 1/250, 255 = unknown). Memory depends on the scale,
    not on the size.

    Args:
        scene, ref: coarse scene with red, green, blue and, if there is one, nir; older, finer reference of any CRS.
        out: GeoTIFF (COG) to write.
        block_size: scene pixels along a block, a multiple of 16; changes no pixel.
        progress: called after each block.
        options: as listed below, most as of `upscale`; `scale` is the one at which the reference is looked at, `bands`
            are red, green, blue and, if there, nir.

    Raises:
        GeoRefDiffError: one line that says what is wrong and what to do; nothing half-written remains.
    """
    own = DetectChangeOptions.among(options)
    scene, ref = name_of(scene), name_of(ref)
    out = Path(out).absolute()
    sure = out.with_name(f"{out.stem}.confidence.tif")
    if block_size is not None and (block_size < _BLOCK or block_size % _BLOCK):
        raise OptionError(f"block size {block_size}: give a multiple of {_BLOCK}")
    check_geotiff(out, own.overwrite, (scene, ref))
    for path in (sure, *legend_files(out)):
        check_output(path, own.overwrite, (scene, ref))
    detector = load_detector()
    with gdal_env():
        asked = UpscaleOptions.among(
            options
            | {"mask": AUTO, "model": _model(detector), "device": "cpu", "other_bands": "drop", "products": ()}
            | {"on_misregistration": "no-ref"}
        )
        planned = make_plan(scene, ref, asked)
        if planned.dropped is not None:
            raise InputError(f"{ref}: no change can be looked for: {planned.dropped}")
        plan = _with_all_changes(planned.plan, detector, asked.mask.min_confidence)
        counts = _written(plan, planned.restorer, detector, (out, sure), own, block_size, progress)
    write_legend(out, detector.classes, class_colours(len(detector.classes)))
    classified = max(1, int(counts[:UNKNOWN_CLASS].sum()))
    height, width = plan.target.shape if own.grid == "output" else (plan.scene.height, plan.scene.width)
    return DetectChangeResult(
        out=out,
        confidence=sure,
        shape=(int(height), int(width)),
        grid=own.grid,
        scale=plan.grid.scale,
        shares={name: float(counts[i]) / classified for i, name in enumerate(detector.classes)},
        unknown=float(counts[UNKNOWN_CLASS]) / float(counts.sum()),
        notes=planned.notes,
    )


class _Looker(Classical):
    """Restores nothing; says what has to be opened to detect change."""

    name: ClassVar[str] = "the change detector"
    model_units: ClassVar[bool] = True
    uses_reference: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = True

    def restore(self, batch: Conditions) -> Tensor:
        """The scene itself: there is nothing to restore."""
        return batch.inner_lr


def _model(detector: Detector) -> Model:
    def make(sensor: SensorModel, channels: tuple[int | None, ...]) -> _Looker:
        return _Looker(sensor)

    return Model(
        name=_Looker.name,
        make=make,
        sha256=detector.sha256,
        bands=BANDS,
        optional_bands=("nir",),
        classes=detector.classes,
        psf_sigma=detector.psf_sigma,
    )


def _with_all_changes(plan: Plan, detector: Detector, least: float | None) -> Plan:
    """The plan with a mask that keeps "no change" and what is less sure; a model uses the sure ones only."""
    assert plan.mask is not None
    own = tuple((index, index) for index in range(len(detector.classes)))
    return replace(plan, mask=replace(plan.mask, values=own, min_confidence=least or 0.0))


def _written(
    plan: Plan,
    restorer: Restorer,
    detector: Detector,
    paths: tuple[Path, Path],
    own: DetectChangeOptions,
    block_size: int | None,
    progress: CountCallback | None,
) -> NDArray[np.int64]:
    """Writes classes and confidence; how many pixels of the scene have each class."""
    shape, finer = (plan.scene.height, plan.scene.width), 1 if own.grid == "scene" else plan.grid.scale
    coarse = plan_blocks(block_size or max(_BLOCK, _SIDE // plan.grid.scale // _BLOCK * _BLOCK), shape)
    counts = np.zeros(256, np.int64)

    def blocks(conditions: ConditionReader) -> Iterator[FinishedBlock]:
        for index in range(coarse.count):
            classes, sure = _detected(conditions, coarse.window(index, shape))
            counts[:] += np.bincount(classes.ravel(), minlength=256)
            sure[classes == UNKNOWN_CLASS] = UNKNOWN_CLASS
            layers = [repeated(layer[None], finer) for layer in (classes, sure)]
            yield index, [BlockPixels(layer, layer != UNKNOWN_CLASS) for layer in layers]
            if progress:
                progress(index + 1, coarse.count)

    classes = VirtualRaster(
        geobox=plan.target if own.grid == "output" else scene_geobox(plan.scene),
        dtype="uint8",
        count=1,
        sources=(),
        nodata=float(UNKNOWN_CLASS),
        descriptions=("change class",),
        tags={
            "AREA_OR_POINT": "Area",
            "GEO_REFDIFF_VERSION": __version__,
            "GEO_REFDIFF_DETECTOR_SHA256": detector.sha256,
            "GEO_REFDIFF_SCALE": str(plan.grid.scale),
            LIES_ON: "scene",
        },
        crs_wkt=plan.scene.crs_wkt,
    )
    confidence = replace(classes, descriptions=("confidence",), scales=(1.0 / CONFIDENCE_STEPS,), offsets=(0.0,))
    rasters = [BlockRaster(classes, "", "mode"), BlockRaster(confidence, "confidence")]
    layout = replace(coarse, size=coarse.size * finer)
    with ConditionReader(plan, restorer) as conditions:
        write_rasters(rasters, paths, layout, blocks(conditions), overwrite=own.overwrite)
    return counts


def _detected(conditions: ConditionReader, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Classes and confidence of a window in pixels of the scene."""
    mask = conditions.mask
    if not isinstance(mask, DetectedMask):
        raise OptionError("the plan has no detected change mask: give a reference")
    return mask.detect(window.shift(*conditions.plan.lr_origin))
