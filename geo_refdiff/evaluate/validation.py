"""Whether a finished output keeps what it promises: its grid, its missing pixels, the scene as the sensor sees it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from geo_refdiff.degrade.sensor import SensorModel
from geo_refdiff.engine.consistency import LrConsistency, Residual
from geo_refdiff.engine.publish import PLAN_TAG
from geo_refdiff.engine.sources import CLASSES
from geo_refdiff.errors import InputError
from geo_refdiff.evaluate.against import against_reference, against_truth, tiles
from geo_refdiff.grid.geobox import scene_geobox
from geo_refdiff.grid.window import Window
from geo_refdiff.io.gdal import gdal_env
from geo_refdiff.io.raster import RasterReader, inspect
from geo_refdiff.io.raster_info import RasterInfo

_TILE = 64
_SLACK = 1.05
"""Figures are read from tags with four digits, and values that would have been nodata were moved by one number."""
_WHOLE = 1e-3


@dataclass
class Validation:
    """What was found.

    Attributes:
        out: the file.
        broken: promises that do not hold, one line each; empty if all do.
        lost, invented: HR pixels that should be valid and are not, and the other way round.
        residual: between scene and output as the declared sensor sees it, digital numbers.
        consistency: mode that the file declares.
        seams: gradient across borders of LR pixels over that inside; 1 = none.
        sources: pixels of each class, where the map lies beside the file.
        reference: as `against_reference` tells; empty without a reference.
        truth: PSNR (dB), SSIM and HaarPSI, means over tiles without missing pixels; empty without a truth.
        correctness: places of each class, see `evaluate.correctness`; empty without a truth.
    """

    out: Path
    broken: list[str] = field(default_factory=list)
    lost: int = 0
    invented: int = 0
    residual: Residual = field(default_factory=Residual)
    consistency: str = "off"
    seams: float = float("nan")
    sources: dict[str, int] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, float] = field(default_factory=dict)
    correctness: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "out": str(self.out),
            "ok": not self.broken,
            "broken": self.broken,
            "pixels_lost": self.lost,
            "pixels_invented": self.invented,
            "consistency": self.consistency,
            "lr_residual": {**asdict(self.residual), "rms": self.residual.rms},
            "seams": self.seams if isfinite(self.seams) else None,
            "sources": self.sources,
            "reference": self.reference,
            "truth": self.truth,
            "correctness": self.correctness,
        }

    def __str__(self) -> str:
        left = self.residual
        rows = [
            ("missing pixels", f"{self.lost} lost, {self.invented} invented"),
            ("consistency", f"{self.consistency}; rms {left.rms:.3f} DN, largest {left.largest:.3f} DN"),
            ("beyond half a DN", f"{left.beyond} of {left.count} scene pixels, bands counted apart" + self._why()),
            ("seams", f"{self.seams:.4f} (gradient across borders of scene pixels over inside)"),
        ]
        total = sum(self.sources.values()) - self.sources.get(CLASSES[0], 0)
        if total:
            rows.append(("detail from", ", ".join(f"{n} {self.sources[n] / total:.1%}" for n in CLASSES[1:])))
        rows += self._of_reference()
        rows += [(key, f"{value:.4f}") for key, value in self.truth.items()]
        places = sum(self.correctness.values())
        rows += [(key, f"{value / places:.1%} of {places} places") for key, value in self.correctness.items()]
        lines = [f"{name:18}{text}" for name, text in rows]
        return "\n".join([str(self.out), *lines, *(f"BROKEN: {b}" for b in self.broken)])

    def _why(self) -> str:
        return f"; {self.residual.saturated} of them beside saturated pixels" if self.residual.beyond else ""

    def _of_reference(self) -> list[tuple[str, str]]:
        if not self.reference:
            return []
        found, shared = self.reference["registration"], self.reference["detail_shared"]
        told = f"{found['verdict']}: {found['reason']}"
        if found["shift"] is not None:
            row, col = found["shift"]
            told = f"shift {row:+.3f} rows, {col:+.3f} columns, +- {found['sigma']:.3f} scene pixels, as the files lie"
        return [
            ("reference covers", f"{self.reference['covered']:.1%} of the valid pixels"),
            ("registration", told),
            ("detail shared", "none" if shared is None else f"{shared:.3f} (correlation with the reference's detail)"),
        ]


def validate_product(
    out: str | Path, scene: str | Path, truth: str | Path | None = None, reference: str | Path | None = None
) -> Validation:
    """Check an output of `upscale` against its scene, tile by tile.

    Args:
        out: as `upscale` wrote it, with its tags.
        scene: what it was made of.
        truth: a fine image of the same time with the output's bands in its order, any grid.
        reference: that it was made with, its bands in the output's order.

    Raises:
        InputError: a file cannot be read, or `out` carries no tags of `upscale`.
    """
    with gdal_env():
        info, source = inspect(out, "scene"), inspect(scene, "scene")
        with rasterio.open(info.path) as dataset:
            tags = dataset.tags()
        if PLAN_TAG not in tags or "GEO_REFDIFF_BANDS" not in tags:
            raise InputError(f"{out}: carries no tags of geo-refdiff upscale; give a file as it was written")
        result = Validation(Path(out), consistency=tags["GEO_REFDIFF_CONSISTENCY"])
        scale = int(tags["GEO_REFDIFF_SCALE"])
        corner = _corner(info, source, scale)
        if corner is None:
            result.broken.append("grid: not the scene's grid divided by the scale")
            return result
        bands = [int(b) for b in tags["GEO_REFDIFF_BANDS"].split(",")]
        _compare(result, info, source, corner, scale, tags)
        _judge(result, tags, info.dtype)
        side = Path(info.path).with_suffix(".source.tif")
        if side.exists():
            with rasterio.open(side) as dataset:
                found = dataset.tags()
            result.sources = {n: int(found.get(f"GEO_REFDIFF_PIXELS_{n.upper()}", 0)) for n in CLASSES}
        if truth is not None:
            true = inspect(truth, "reference")
            result.truth, result.correctness = against_truth(info, true, source, bands, corner, scale)
        if reference is not None:
            kernel: Any = tags["GEO_REFDIFF_PSF_KERNEL"]
            sensor = SensorModel(scale, float(tags["GEO_REFDIFF_PSF_SIGMAS"].split(",")[0]), kernel)
            result.reference = against_reference(info, inspect(reference, "reference"), source, bands, sensor)
        return result


def _corner(info: RasterInfo, source: RasterInfo, scale: int) -> tuple[int, int] | None:
    """(row, col) of the scene's pixel in the output's corner; None where the grids do not fit."""
    if scene_geobox(info).crs != scene_geobox(source).crs or info.width % scale or info.height % scale:
        return None
    a, b, _, d, e, _ = source.transform
    if not np.allclose([v * scale for v in np.take(info.transform, [0, 1, 3, 4])], [a, b, d, e], rtol=1e-9):
        return None
    col, row = ~Affine(*source.transform) @ (info.transform[2], info.transform[5])
    inside = Window(round(row), round(col), info.height // scale, info.width // scale)
    fits = Window(0, 0, source.height, source.width).contains(inside)
    return (round(row), round(col)) if fits and max(abs(row - round(row)), abs(col - round(col))) < _WHOLE else None


def _compare(
    result: Validation,
    info: RasterInfo,
    source: RasterInfo,
    corner: tuple[int, int],
    scale: int,
    tags: dict[str, str],
) -> None:
    kernel: Any = tags["GEO_REFDIFF_PSF_KERNEL"]
    sensors = tuple(SensorModel(scale, float(s), kernel) for s in tags["GEO_REFDIFF_PSF_SIGMAS"].split(","))
    consistency = LrConsistency(sensors, "off", np.dtype(info.dtype), info.nodata)
    bands = [int(b) for b in tags["GEO_REFDIFF_BANDS"].split(",")]
    across, inside = np.zeros(2), np.zeros(2)
    with RasterReader(info, info.data_bands) as fine, RasterReader(source, bands) as coarse:
        for tile in tiles(info, scale, _TILE):
            outer = tile.pad(consistency.sees)
            pixels, valid = fine.read(outer.multiply(scale))
            lr, lr_valid = coarse.read(outer.shift(*corner))
            own = (slice(None), *tile.multiply(scale).within(outer.multiply(scale)))
            wanted = np.repeat(np.repeat(lr_valid, scale, axis=1), scale, axis=2)[own]
            result.invented += int((valid[own] & ~wanted).any(axis=0).sum())
            if tags.get("GEO_REFDIFF_AOI") != "polygon":
                result.lost += int((wanted & ~valid[own]).any(axis=0).sum())
            count, height, width = lr.shape
            whole = valid.reshape(count, height, scale, width, scale).all(axis=(2, 4)) & lr_valid
            cut = lr_valid & ~whole
            result.residual = result.residual.plus(consistency.measure(pixels, lr, whole, tile.within(outer), cut))
            _add_gradients(across, inside, pixels[own].astype(np.float32), valid[own], scale)
    if across[1] and inside[1] and inside[0]:
        result.seams = float(across[0] / across[1] / (inside[0] / inside[1]))


def _add_gradients(
    across: NDArray[np.float64],
    inside: NDArray[np.float64],
    pixels: NDArray[np.float32],
    valid: NDArray[np.bool_],
    scale: int,
) -> None:
    """Adds (sum, number) of absolute differences of neighbours, across borders of LR pixels and inside."""
    for image, known in ((pixels, valid), (pixels.swapaxes(1, 2), valid.swapaxes(1, 2))):
        step = np.abs(np.diff(image, axis=2))
        good = known[:, :, 1:] & known[:, :, :-1]
        border = np.arange(step.shape[2]) % scale == scale - 1
        for sums, chosen in ((across, good & border), (inside, good & ~border)):
            sums += (float(step[chosen].sum(dtype=np.float64)), float(chosen.sum()))


def _judge(result: Validation, tags: dict[str, str], dtype: str) -> None:
    if result.lost or result.invented:
        result.broken.append(f"nodata: {result.lost} valid pixels lost, {result.invented} invented")
    unexplained = result.residual.beyond - result.residual.saturated
    whole_numbers = np.dtype(dtype).kind != "f"
    if result.consistency == "strict" and unexplained and whole_numbers:
        result.broken.append(
            f"LR consistency: strict mode promises half a DN, {unexplained} scene pixels are off by more without a "
            f"saturated pixel in sight"
        )
    if "GEO_REFDIFF_LR_RESIDUAL_MAX" in tags:
        told = float(tags["GEO_REFDIFF_LR_RESIDUAL_MAX"])
        if result.residual.largest > told * _SLACK + 0.02:
            result.broken.append(
                f"LR consistency: {result.residual.largest:.3f} DN are left, the tags promise {told:g} DN"
            )
