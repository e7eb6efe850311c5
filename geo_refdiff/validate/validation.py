"""Validation of a finished output: grid, missing pixels, consistency with the scene, seams, sources of detail."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from torch import Tensor

from geo_refdiff.engine.conditions import enlarged
from geo_refdiff.engine.consistency import LrConsistency, Residual
from geo_refdiff.engine.finish import rounded
from geo_refdiff.options import AUTO, CountCallback
from geo_refdiff.plan.clouds import cloudy_scene
from geo_refdiff.plan.survey import survey_scene
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.geobox import point, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.location import Raster, name_of
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.statistics import EMPTY, BandSums
from geo_refdiff.raster.window import Window, repeated
from geo_refdiff.registration.register import TOO_SMALL
from geo_refdiff.restore.sources import CLASSES, MEANINGS
from geo_refdiff.validate import promises
from geo_refdiff.validate.against import AgainstTruth, against_reference, against_truth, tiles
from geo_refdiff.validate.promises import Declared, read_declared
from geo_refdiff.validate.seams import Gradients, Seams
from geo_refdiff.validate.verdict import ComparedFigure, Promise, Verdict, verdict_of

_LOG = logging.getLogger(__name__)

_TILE = 64
_WHOLE = 1e-3


@dataclass
class Validation:
    """The result of a validation.

    Attributes:
        out: the file.
        promises: those that were looked at.
        lost, invented: output px that are valid in the scene alone, and in the output alone; lost pixels of a polygon,
            and under clouds of an unknown layer, are counted only.
        residual: between scene and output as the declared sensor sees it, in the scene's units.
        bicubic_residual: the same of the scene enlarged by bicubic interpolation, in the output's data type.
        value_range: of the scene, in its units: 255 for uint8, else from the 0.5th to the 99.5th percentile.
        unit: "DN"; for floating-point data the unit of the scene's band, or "scene units".
        consistency: mode declared by the file.
        seams: gradients across borders of scene pixels.
        sources: pixels of each class of the source map, if it is beside the file.
        reference: see `against_reference`; empty without a reference.
        truth: the output compared with a truth; empty without one.
    """

    out: Path
    promises: list[Promise] = field(default_factory=list)
    lost: int = 0
    invented: int = 0
    residual: Residual = field(default_factory=Residual)
    bicubic_residual: Residual = field(default_factory=Residual)
    value_range: float = 255.0
    unit: str = "DN"
    consistency: str = "off"
    seams: Seams = field(default_factory=Seams)
    sources: dict[str, int] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    truth: AgainstTruth = field(default_factory=AgainstTruth)

    @property
    def broken(self) -> list[str]:
        """What does not hold, one line each."""
        return [line for promise in self.promises for line in promise.broken]

    @property
    def verdict(self) -> Verdict:
        """Promises and figures, for people."""
        figures = []
        if self.residual.count:
            unit = f" {self.unit}"
            figures.append(ComparedFigure("scene residual", self.residual.rms, self.bicubic_residual.rms, unit))
        if isfinite(self.seams.detail):
            figures.append(ComparedFigure("sharpness", self.seams.detail, 1.0))
        if self.reference.get("detail_shared") is not None:
            shared = self.reference["detail_shared"], self.reference["bicubic_detail_shared"] or 0.0
            figures.append(ComparedFigure("detail shared", *shared))
        for name, value in self.truth.figures.items():
            if name in self.truth.bicubic:
                figures.append(ComparedFigure(name, value, self.truth.bicubic[name], " dB" if name == "PSNR" else ""))
        return verdict_of(self.promises, figures, "its grid or bands are not the scene's: nothing can be compared")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        measured = self.residual
        residual: dict[str, Any] = {
            "count": measured.count,
            "largest": measured.largest,
            "rms": measured.rms,
            "unit": self.unit,
        }
        if self.unit == "DN":
            residual |= {"beyond": measured.beyond, "saturated": measured.saturated}
        return {
            "out": str(self.out),
            "ok": not self.broken,
            "broken": self.broken,
            "pixels_lost": self.lost,
            "pixels_invented": self.invented,
            "consistency": self.consistency,
            "scene_residual": residual,
            "scene_range": self.value_range,
            "seams": self.seams.to_dict(),
            "sources": self.sources,
            "reference": self.reference,
            "truth": self.truth.figures,
            "truth_unmeasured": self.truth.unmeasured,
            "truth_registration": self.truth.registration,
            "correctness": self.truth.correctness,
            "verdict": self.verdict.to_dict(),
        }

    def __str__(self) -> str:
        measured, unit = self.residual, self.unit
        share = "" if unit == "DN" else f", {measured.largest / self.value_range:.2g} of the scene's range"
        residual = f"{self.consistency}; rms {measured.rms:.4g} {unit}, largest {measured.largest:.4g} {unit}{share}"
        rows = [("missing pixels", f"{self.lost} lost, {self.invented} invented"), ("consistency", residual)]
        if unit == "DN":
            why = f"; {measured.saturated} of them beside saturated pixels" if measured.beyond else ""
            rows.append(
                ("beyond half a DN", f"{measured.beyond} of {measured.count} scene pixels, bands counted apart{why}"),
            )
        rows.append(("seams", str(self.seams)))
        total = sum(self.sources.values()) - self.sources.get(CLASSES[0], 0)
        if total:
            meanings = zip(CLASSES[1:], MEANINGS[1:], strict=True)
            shares = [f"{self.sources[name] / total:.1%} {meaning}" for name, meaning in meanings]
            rows += zip(("detail", "", "", ""), shares, strict=True)
        rows += self._of_reference()
        truth = self.truth
        if truth.registration:
            rows.append(("truth", f"{_describe(truth.registration)}; not moved"))
        rows += [(key, f"{value:.4f}") for key, value in truth.figures.items()]
        rows += [(key, f"not measured: {why}") for key, why in truth.unmeasured.items()]
        places = sum(truth.correctness.values())
        rows += [(key, f"{value / places:.1%} of {places} places") for key, value in truth.correctness.items()]
        lines = [f"{name:18}{text}" for name, text in rows]
        return "\n".join([str(self.out), *lines, str(self.verdict)])

    def _of_reference(self) -> list[tuple[str, str]]:
        if not self.reference:
            return []
        shared = self.reference["detail_shared"]
        return [
            ("reference covers", f"{self.reference['covered']:.1%} of the valid pixels"),
            ("registration", _describe(self.reference["registration"])),
            ("detail shared", "none" if shared is None else f"{shared:.3f} (correlation with the reference's detail)"),
        ]


def validate_product(
    out: Raster,
    scene: Raster,
    truth: Raster | None = None,
    reference: Raster | None = None,
    cloud_mask: str = AUTO,
    progress: CountCallback | None = None,
) -> Validation:
    """Check an output of `upscale` against its scene, tile by tile.

    Args:
        out: as `upscale` wrote it, with its tags.
        scene: that it was made from.
        truth: an image of the same date, as fine as the output, in the scene's units, on any grid; bands are matched by
            name, else by order.
        reference: that it was made with; bands are matched as by `upscale`.
        cloud_mask: that it was made with, as of `upscale`; used where the output was made with clouds.
        progress: called after each tile with their number so far and in all.

    Raises:
        InputError: a file cannot be read, `out` carries no tags of `upscale`, bands of the reference or the truth are
            not those of the output, or the truth has other units than the scene.
    """
    with gdal_env():
        made, source = inspect(name_of(out), "scene"), inspect(name_of(scene), "scene")
        declared = read_declared(made)
        if max(declared.bands) > source.count:
            source = inspect(name_of(scene), "scene", coarser=True)
        if declared.clouds != "none":
            source = cloudy_scene(source, cloud_mask)[0]
        return validate_raster(
            made,
            source,
            None if truth is None else inspect(name_of(truth), "reference"),
            None if reference is None else inspect(name_of(reference), "reference"),
            progress,
        )


def validate_raster(
    info: RasterInfo,
    source: RasterInfo,
    truth: RasterInfo | None = None,
    reference: RasterInfo | None = None,
    progress: CountCallback | None = None,
) -> Validation:
    """Check an output as `validate_product` does: `info` against `source`, all of them inspected."""
    with gdal_env():
        declared = read_declared(info)
        if declared.clouds == "none":
            source = replace(source, clouds=None)
        result = Validation(Path(info.path), consistency=declared.consistency)
        if np.dtype(source.dtype).kind == "f":
            result.unit = source.units[declared.bands[0] - 1] or "scene units"
        corner, problems = _comparable(info, source, declared)
        result.promises.append(Promise("grid", problems))
        if corner is None:
            return result
        half_range = survey_scene(source, declared.bands, model_units=True, scene_range=None).half_range
        result.value_range = 2 * half_range
        sums = _compare(result, info, source, corner, declared, progress)
        result.promises += _judged(result, info, source, declared, sums)
        side = Path(info.path).with_suffix(".source.tif")
        if side.exists():
            with rasterio.open(side) as dataset:
                tags = dataset.tags()
            result.sources = {n: int(tags.get(f"GEO_REFDIFF_PIXELS_{n.upper()}", 0)) for n in CLASSES}
        if truth is not None:
            _LOG.debug("comparing with the truth")
            result.truth = against_truth(info, truth, source, declared, corner, result.value_range)
        if reference is not None:
            _LOG.debug("comparing with the reference")
            result.reference = against_reference(info, reference, source, declared, corner)
        return result


def _judged(
    result: Validation, info: RasterInfo, source: RasterInfo, declared: Declared, sums: list[BandSums]
) -> list[Promise]:
    """All promises but that of the grid."""
    magnitude = max(max(abs(s.minimum), abs(s.maximum)) for s in sums)
    off = promises.consistency(result.residual, declared, source.dtype, result.value_range, magnitude)
    nothing = "nothing is promised: it was made without consistency" if declared.residual is None else ""
    hidden = declared.clouds == "keep" and source.clouds is None
    unseen = "it shows clouds of an unknown layer: give --cloud-mask" if hidden else ""
    unstated = "" if any(declared.statistics) else "the file holds none"
    seams = result.seams
    return [
        Promise("numbers", tuple(promises.metadata(info, source, declared))),
        Promise("missing pixels", tuple(promises.missing(result.lost, result.invented, sums, declared))),
        Promise("consistency", () if hidden else tuple(off), unseen or nothing),
        Promise("statistics", tuple(promises.measured(sums, declared)), unstated),
        Promise("seams", (seams.broken,) if seams.broken and not hidden else (), unseen or seams.unjudged),
    ]


def _comparable(
    info: RasterInfo, source: RasterInfo, declared: Declared
) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """(row, col) of the scene's pixel in the output's corner, None if grids or bands differ; and the problems."""
    corner = _corner(info, source, declared.scale)
    if corner is None:
        return None, ("grid: not the scene's grid divided by the scale",)
    unknown = [b for b in declared.bands if b not in source.data_bands]
    if unknown or len(info.data_bands) != len(declared.bands):
        bands = ", ".join(map(str, declared.bands))
        return None, (
            f"bands: {len(info.data_bands)}, made of bands {bands} of the scene, which has {len(source.data_bands)}",
        )
    row, col = (v * declared.scale for v in corner)
    held = Window(row, col, info.height, info.width)
    problems = []
    if held != declared.extent:
        problems.append(f"extent: {_extent(held)}, the tags say {_extent(declared.extent)}")
    whole = Window(0, 0, source.height * declared.scale, source.width * declared.scale)
    if declared.area == "none" and declared.extent != whole:
        problems.append(f"extent: {_extent(declared.extent)} of the scene's {_extent(whole)}, without any area")
    return corner, tuple(problems)


def _extent(window: Window) -> str:
    return f"{window.width} x {window.height} pixels from row {window.row}, column {window.col}"


def _describe(registration: dict[str, Any]) -> str:
    """A registration on the scene, in words."""
    if registration["shift"] is None:
        return f"{registration['verdict']}: {registration['reason']}"
    row, col = registration["shift"]
    after = registration["after"]
    rest = TOO_SMALL if after is None else f"{after:.3f} remain after correction"
    return f"shift {row:+.3f} rows, {col:+.3f} columns, +- {registration['sigma']:.3f} scene pixels, {rest}"


def _corner(info: RasterInfo, source: RasterInfo, scale: int) -> tuple[int, int] | None:
    """(row, col) of the scene's pixel in the output's corner; None where the grids do not fit."""
    if scene_geobox(info).crs != scene_geobox(source).crs or info.width % scale or info.height % scale:
        return None
    a, b, _, d, e, _ = source.transform
    if not np.allclose([v * scale for v in np.take(info.transform, [0, 1, 3, 4])], [a, b, d, e], rtol=1e-9):
        return None
    col, row = point(~Affine(*source.transform), info.transform[2], info.transform[5])
    inside = Window(round(row), round(col), info.height // scale, info.width // scale)
    fits = Window(0, 0, source.height, source.width).contains(inside)
    return (round(row), round(col)) if fits and max(abs(row - round(row)), abs(col - round(col))) < _WHOLE else None


def _compare(
    result: Validation,
    info: RasterInfo,
    source: RasterInfo,
    corner: tuple[int, int],
    declared: Declared,
    progress: CountCallback | None,
) -> list[BandSums]:
    """Fill in what the pixels say; gives the sums of each band."""
    scale, dtype = declared.scale, np.dtype(source.dtype)
    consistency = LrConsistency(declared.sensors, "off", dtype, info.nodata)
    output, interpolated = Gradients(scale), Gradients(scale)
    sums = [EMPTY] * len(declared.bands)
    shown = replace(source, clouds=None) if declared.clouds == "keep" else source
    with (
        RasterReader(info, info.data_bands) as fine,
        RasterReader(shown, declared.bands) as coarse,
        RasterReader(source, declared.bands) as clear,
    ):
        places = list(tiles(info, scale, _TILE))
        for number, tile in enumerate(places, 1):
            outer = tile.pad(consistency.sees)
            pixels, valid = fine.read(outer.multiply(scale))
            smooth, lr, judged = enlarged(clear, outer.shift(*corner), scale)
            lr_valid = judged if shown is source else coarse.read(outer.shift(*corner))[1]
            own = (slice(None), *tile.multiply(scale).within(outer.multiply(scale)))
            wanted = repeated(lr_valid, scale)[own]
            result.invented += int((valid[own] & ~wanted).any(axis=0).sum())
            if declared.area != "polygon" and (declared.clouds != "nodata" or source.clouds is not None):
                result.lost += int((wanted & ~valid[own]).any(axis=0).sum())
            sums = [a.plus(BandSums.of(p, v)) for a, p, v in zip(sums, pixels[own], valid[own], strict=True)]
            count, height, width = lr.shape
            whole = valid.reshape(count, height, scale, width, scale).all(axis=(2, 4)) & judged
            kept, cut = (torch.from_numpy(part)[None] for part in (whole, judged & ~whole))
            observed = _real(lr), kept, tile.within(outer), cut
            made, plain = _real(pixels), rounded(_real(smooth), dtype)
            result.residual = result.residual.plus(consistency.measure(made, *observed))
            result.bicubic_residual = result.bicubic_residual.plus(consistency.measure(plain, *observed))
            both = valid[own] & repeated(judged, scale)[own]
            output.feed(pixels[own].astype(np.float32), both)
            interpolated.feed(plain[0].to(torch.float32).numpy()[own], both)
            if progress:
                progress(number, len(places))
    result.seams = Seams.of(output, interpolated)
    return sums


def _real(image: NDArray[Any]) -> Tensor:
    """(1, C, h, w) real numbers that hold every value of its type."""
    return torch.from_numpy(image.astype(np.float32 if image.dtype.itemsize <= 2 else np.float64, copy=False))[None]
