"""Detect change between a coarse scene and a fine reference, from files to a class raster, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from torch import Tensor

from geo_refdiff import __version__
from geo_refdiff.change.detector import BANDS, CONFIDENCE_STEPS, DetectedMask, Detector, load_detector
from geo_refdiff.change.legend import class_colours, legend_files, write_legend
from geo_refdiff.change.mask_files import TAG as LIES_ON
from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.engine.conditions import ConditionReader
from geo_refdiff.engine.workdir import check_geotiff, check_output
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import AUTO, UpscaleOptions, check_names, takes_options
from geo_refdiff.plan.planning import make_plan
from geo_refdiff.plan.records import Plan
from geo_refdiff.raster.block_file import write_block
from geo_refdiff.raster.cog import publish_cog
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.geobox import crop, scene_geobox
from geo_refdiff.raster.reduce import repeated
from geo_refdiff.raster.vrt import Mosaic, write_vrt
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.models import Model
from geo_refdiff.restore.restorers import Classical, Conditions, Restorer
from geo_refdiff.sensor.sensor import SensorModel

Grid = Literal["lr", "hr"]
Progress = Callable[[int, int], None]

OPTIONS = ("scale", "bands", "scene_range", "psf", "min_confidence")
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
        grid: "lr", the scene's, or "hr", that of the upscaled scene.
        scale: HR pixels along an LR pixel.
        shares: class name -> share of the known LR pixels.
        unknown: share of all LR pixels.
        notes: what was decided without being asked, and what deserves a look.
    """

    out: Path
    confidence: Path
    shape: tuple[int, int]
    grid: Grid
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
        told = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        lines = [f"{self.out}: {width} x {height} pixels, {told}; unknown {self.unknown:.1%}"]
        return "\n".join([*lines, f"  confidence: {self.confidence}", *(f"  note: {note}" for note in self.notes)])


@takes_options(*OPTIONS)
def detect_change(
    scene: str | Path,
    ref: str | Path,
    out: str | Path,
    *,
    grid: Grid = "lr",
    overwrite: bool = False,
    block_size: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> DetectChangeResult:
    """Write where and to what a scene has changed since a reference was taken, and how sure that is.

    The changes are those that `upscale --mask auto` sees; it heeds the sure ones only.

    Beside `out` (uint8, 0 = no change, else the class now, 255 = unknown) appear its category names (`.aux.xml`), a
    QGIS style (`.qml`) and `<stem>.confidence.tif` (uint8, scale 1/250, 255 = unknown). Memory depends on the scale,
    not on the size.

    Args:
        scene, ref: coarse scene with red, green, blue and, if there is one, nir; older, finer reference of any CRS.
        out: GeoTIFF (COG) to write.
        grid: "lr", the scene's grid, or "hr", `scale` times finer.
        overwrite: replace files that are there.
        block_size: scene pixels along a block, a multiple of 16; changes no pixel.
        progress: called after each block.
        options: as of `upscale`; `scale` is the one at which the reference is looked at, `bands` are red, green, blue
            and, if there, nir.

    Raises:
        GeoRefDiffError: one line that says what is wrong and what to do; nothing half-written is left.
    """
    check_names(options, OPTIONS)
    out = Path(out).absolute()
    sure = out.with_name(f"{out.stem}.confidence.tif")
    if grid not in get_args(Grid):
        raise OptionError(f"grid '{grid}': give lr (the scene's) or hr (that of the upscaled scene)")
    if block_size is not None and (block_size < _BLOCK or block_size % _BLOCK):
        raise OptionError(f"block size {block_size}: give a multiple of {_BLOCK}")
    check_geotiff(out, overwrite, (scene, ref))
    for path in (sure, *legend_files(out)):
        check_output(path, overwrite, (scene, ref))
    found = load_detector()
    with gdal_env():
        asked = UpscaleOptions.of(
            mask=AUTO, model=_model(found), device="cpu", other_bands="drop", on_misregistration="no-ref", products=(),
            **options,
        )  # fmt: skip
        planned = make_plan(scene, ref, asked)
        if planned.dropped is not None:
            raise InputError(f"{ref}: no change can be looked for: {planned.dropped}")
        plan = _telling_all(planned.plan, found, asked.mask.min_confidence)
        geobox = scene_geobox(plan.scene) if grid == "lr" else plan.target
        counts = _written(plan, planned.restorer, found, (out, sure), grid, geobox, block_size, overwrite, progress)
    write_legend(out, found.classes, class_colours(len(found.classes)))
    known = max(1, int(counts[:UNKNOWN_CLASS].sum()))
    height, width = geobox.shape
    return DetectChangeResult(
        out=out,
        confidence=sure,
        shape=(int(height), int(width)),
        grid=grid,
        scale=plan.grid.scale,
        shares={name: float(counts[i]) / known for i, name in enumerate(found.classes)},
        unknown=float(counts[UNKNOWN_CLASS]) / float(counts.sum()),
        notes=planned.notes,
    )


class _Looker(Classical):
    """Restores nothing; says what has to be opened to detect change."""

    name: ClassVar[str] = "the change detector"
    local: ClassVar[bool] = True
    model_units: ClassVar[bool] = True
    uses_reference: ClassVar[bool] = True
    uses_mask: ClassVar[bool] = True

    def restore(self, batch: Conditions) -> Tensor:
        """The LR itself: there is nothing to restore."""
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


def _telling_all(plan: Plan, detector: Detector, least: float | None) -> Plan:
    """The plan with a mask that keeps "no change" and what is less sure; a model is told less."""
    assert plan.mask is not None
    own = tuple((index, index) for index in range(len(detector.classes)))
    return replace(plan, mask=replace(plan.mask, values=own, min_confidence=least or 0.0))


def _written(
    plan: Plan,
    restorer: Restorer,
    detector: Detector,
    paths: tuple[Path, Path],
    grid: Grid,
    geobox: GeoBox,
    block_size: int | None,
    overwrite: bool,
    progress: Progress | None,
) -> NDArray[np.int64]:
    """Writes classes and confidence; how many LR pixels have each class."""
    windows = list(_windows(plan, block_size))
    counts = np.zeros(256, np.int64)
    with (
        TemporaryDirectory(prefix=f".{paths[0].name}.parts-", dir=paths[0].parent) as name,
        ConditionReader(plan, restorer) as conditions,
    ):
        folder = Path(name)
        sources: list[tuple[str, Window]] = []
        for number, window in enumerate(windows):
            classes, sure = _detected(conditions, window)
            counts += np.bincount(classes.ravel(), minlength=256)
            sure[classes == UNKNOWN_CLASS] = UNKNOWN_CLASS
            sources.append((f"{number:06d}.tif", window if grid == "lr" else window.multiply(plan.grid.scale)))
            for kind, layer in (("c", classes), ("s", sure)):
                fine = layer if grid == "lr" else repeated(layer, plan.grid.scale)
                affine = crop(geobox, sources[-1][1]).affine
                write_block(
                    folder / f"{kind}{number:06d}.tif", fine[None], None, affine, plan.scene.crs_wkt, UNKNOWN_CLASS
                )
            if progress:
                progress(number + 1, len(windows))
        tags = {
            "AREA_OR_POINT": "Area",
            "GEO_REFDIFF_VERSION": __version__,
            "GEO_REFDIFF_DETECTOR_SHA256": detector.sha256,
            "GEO_REFDIFF_SCALE": str(plan.grid.scale),
            LIES_ON: "scene",
        }
        for path, kind in zip(paths, "cs", strict=True):
            mosaic = _mosaic(plan, geobox, [(kind + file, at) for file, at in sources], tags, confidence=kind == "s")
            write_vrt(folder / f"{kind}.vrt", mosaic)
            publish_cog(folder / f"{kind}.vrt", path, overview_resampling="nearest", overwrite=overwrite)
    return counts


def _detected(conditions: ConditionReader, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Classes and confidence of a window in pixels of the scene."""
    mask = conditions.mask
    if not isinstance(mask, DetectedMask):
        raise OptionError("the plan has no detected change mask: give a reference")
    return mask.detect(window.shift(*conditions.plan.lr_origin))


def _windows(plan: Plan, block_size: int | None) -> Iterator[Window]:
    """Blocks of the scene, row by row, LR pixels."""
    side = block_size or max(_BLOCK, _SIDE // plan.grid.scale // _BLOCK * _BLOCK)
    return Window(0, 0, plan.scene.height, plan.scene.width).tiles(side)


def _mosaic(
    plan: Plan, geobox: GeoBox, sources: Sequence[tuple[str, Window]], tags: dict[str, str], *, confidence: bool
) -> Mosaic:
    return Mosaic(
        geobox=geobox,
        dtype="uint8",
        count=1,
        sources=tuple(sources),
        nodata=float(UNKNOWN_CLASS),
        descriptions=("confidence" if confidence else "change class",),
        scales=(1.0 / CONFIDENCE_STEPS,) if confidence else (),
        offsets=(0.0,) if confidence else (),
        tags=tags,
        crs_wkt=plan.scene.crs_wkt,
    )
