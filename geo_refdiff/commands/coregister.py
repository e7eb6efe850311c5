"""Lay a reference on a scene: measure, report, and write it aligned, from files to files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import hypot, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from PIL import Image, ImageDraw
from rasterio.enums import Resampling

from geo_refdiff import __version__
from geo_refdiff.engine.finish import delivered
from geo_refdiff.engine.workdir import check_geotiff, check_output
from geo_refdiff.engine.writer import BlockPixels, BlockRaster, FinishedBlock, write_rasters
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import (
    FIELDS,
    MAX_SCALE,
    CoregisterOptions,
    CountCallback,
    UpscaleOptions,
    fields_of,
    takes_options,
)
from geo_refdiff.plan.bands import choose_bands
from geo_refdiff.plan.clouds import cloudy_reference, cloudy_scene
from geo_refdiff.plan.declared import declared_sensor
from geo_refdiff.plan.layout import plan_blocks
from geo_refdiff.plan.records import Output
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.band_pairs import comparable_bands
from geo_refdiff.raster.crs import unit_of
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.files import write_json_atomic
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.location import Raster, name_of
from geo_refdiff.raster.picture import Panel, reduced, stretch, write_panels
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.vrt import VirtualRaster, with_bands_of
from geo_refdiff.raster.warp import WarpedReader, gsd_ratio
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.rasters import register_rasters
from geo_refdiff.registration.register import Registration
from geo_refdiff.sensor.recognised import recognised
from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA
from geo_refdiff.signed_urls import unsigned

OPTIONS = {name: FIELDS[name] for name in ("bands", "scale", "psf", "cloud_mask", "clouds")}
"""Those of `upscale` that `coregister` takes, too."""

_SIDE = 2048


@dataclass(frozen=True)
class CoregisterResult:
    """What was measured and written.

    Attributes:
        registration: how the reference is aligned with the scene.
        scale: pixels of the aligned reference along a pixel of the scene.
        transform: of the scene, pixel (col, row) to CRS units.
        unit: of the scene's CRS, in the plural: "metres".
        out, report, picture: files that were written; None where not asked for.
        notes: what deserves a look.
    """

    registration: Registration
    scale: int
    transform: tuple[float, ...]
    unit: str
    out: Path | None
    report: Path | None
    picture: Path | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the report, and the files."""
        files = {"out": self.out, "report": self.report, "picture": self.picture}
        return self.registration.to_dict(self.scale, Affine(*self.transform)) | {
            "scale": self.scale,
            "files": {name: None if path is None else str(path) for name, path in files.items()},
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        registration = self.registration
        lengths = registration.lengths(self.scale, Affine(*self.transform))
        (row, col), (hr_row, hr_col), (x, y) = (lengths[k] for k in ("scene_pixels", "output_pixels", "crs_units"))
        what = {
            "none": "the reference is in place to within the error",
            "global": "the reference's content is displaced by one shift",
            "affine": "the reference's content is displaced by an affine, on average",
            "local": "the reference's content is displaced by a local field, on average",
        }[registration.kind]
        measured = f" (root mean square, {len(registration.accepted)} of {len(registration.sites)} places)"
        places = measured if registration.accepted else ""
        lines = [
            f"{what}: {row:+.3f} rows, {col:+.3f} columns of the scene, standard error {registration.sigma:.3f}",
            f"  {hr_row:+.2f} rows, {hr_col:+.2f} columns of pixels {self.scale} times finer; x {x:+.6g}, y {y:+.6g} "
            f"{self.unit}",
            f"  {registration.reason}",
            f"  {registration.residual_text(3)}{places}",
        ]
        files = (("aligned reference", self.out), ("report", self.report), ("picture", self.picture))
        lines += [f"  {name}: {path}" for name, path in files if path is not None]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@takes_options({**fields_of(CoregisterOptions), **OPTIONS})
def coregister(
    scene: Raster,
    ref: Raster,
    out: str | Path | None = None,
    *,
    progress: CountCallback | None = None,
    **options: Any,
) -> CoregisterResult:
    """Measure how a reference is aligned with a scene; write it aligned, and a report.

    The aligned reference has all bands of the reference and its data type, on a grid `scale` times finer than the
    scene's over the scene's extent; it is resampled once. Memory does not depend on the size.

    Args:
        scene, ref: coarse scene; finer reference of any CRS.
        out: GeoTIFF (COG) to write; None: measure only.
        progress: called after each block of the aligned reference.
        options: as listed below, most as of `upscale`; `bands` are those of the scene to compare, by default those that
            both have by name, else by their order; `scale` is that of the aligned reference.

    Raises:
        InputError: the reference cannot be registered; a report that was asked for is written all the same.
        GeoRefDiffError: one line that says what is wrong and what to do; nothing half-written remains.
    """
    own = CoregisterOptions.among(options)
    scene, ref = name_of(scene), name_of(ref)
    asked = UpscaleOptions.among(options)
    bands, psf = asked.radiometry.bands, asked.radiometry.psf
    paths = [None if p is None else Path(p).absolute() for p in (out, own.report, own.picture)]
    final, report_file, picture_file = paths
    if final is not None:
        check_geotiff(final, own.overwrite, (scene, ref))
    _check_outputs([p for p in paths if p is not None], (scene, ref), own.overwrite)
    with gdal_env():
        cloud_mask = asked.clouds.cloud_mask
        lr, of_scene = cloudy_scene(inspect(scene, "scene"), cloud_mask)
        hr, of_reference = cloudy_reference(inspect(ref, "reference"), cloud_mask)
        notes = tuple(note for note in (of_scene, of_reference) if note is not None)
        finer = 1 / gsd_ratio(hr, scene_geobox(lr))
        factor = asked.grid.scale or min(max(1, round(finer)), MAX_SCALE)
        sensor = declared_sensor(psf, DEFAULT_PSF_SIGMA, factor, recognised(lr))[1]
        if bands is None:
            here, there = comparable_bands(lr, hr)
        else:
            chosen = choose_bands(lr, hr, bands, (), ())
            here, there = chosen.scene, chosen.reference
        registration = register_rasters(lr, here, hr, there, sensor, own.mode)
        result = CoregisterResult(
            registration, factor, lr.transform, unit_of(lr.crs_wkt), final, report_file, picture_file, notes
        )
        if picture_file is not None:
            draw_registration(picture_file, lr, here, hr, there, registration, factor)
        if report_file is not None:
            inputs = {"scene": unsigned(lr.path), "reference": unsigned(hr.path)}
            inputs |= {"mode": own.mode, "software": f"geo-refdiff {__version__}"}
            write_json_atomic(report_file, inputs | result.to_dict())
        if not registration.registered:
            why = f"{registration.verdict}): {registration.reason}"
            raise InputError(f"{hr.path}: not registered ({why}; check its place, bands and date")
        if final is not None:
            target = output_geobox(scene_geobox(lr), factor)
            shown = hr if asked.clouds.clouds == "nodata" else replace(hr, clouds=None)
            _write(shown, target, lr, registration.displacement.scaled(factor), final, own.overwrite, progress)
    return result


def _check_outputs(paths: Sequence[Path], inputs: Sequence[str | Path], overwrite: bool) -> None:
    for path in paths:
        check_output(path, overwrite, inputs)
    if len(set(paths)) < len(paths):
        raise OptionError("two outputs have the same name: give each its own")


def _write(
    reference: RasterInfo,
    target: GeoBox,
    scene: RasterInfo,
    displacement: Displacement,
    out: Path,
    overwrite: bool,
    progress: CountCallback | None,
) -> None:
    """The reference on the target, in one warp, block by block."""
    output = Output.of(reference, more=True)
    profile = VirtualRaster(
        geobox=target,
        dtype=output.dtype,
        count=len(reference.data_bands),
        sources=(),
        nodata=output.nodata,
        with_mask=output.mask,
        tags={"AREA_OR_POINT": "Area", "GEO_REFDIFF_VERSION": __version__},
        crs_wkt=scene.crs_wkt,
    )
    raster = BlockRaster(with_bands_of(profile, reference, reference.data_bands))
    height, width = target.shape
    layout = plan_blocks(_SIDE, (height, width))

    def blocks(reader: WarpedReader) -> Iterator[FinishedBlock]:
        for index in range(layout.count):
            values, valid = reader.read(layout.window(index, (height, width)))
            by_band = np.broadcast_to(valid, values.shape)
            image, valid_bands = torch.from_numpy(values), torch.from_numpy(valid).expand(values.shape)
            yield index, [BlockPixels(delivered(image, valid_bands, np.dtype(output.dtype), output.nodata), by_band)]
            if progress:
                progress(index + 1, layout.count)

    with WarpedReader(reference, reference.data_bands, target, "cubic", displacement) as reader:
        write_rasters([raster], [out], layout, blocks(reader), overwrite=overwrite)


_PICTURE_SIDE = 512
_CLOSE = 64
"""Side of the close-up, scene pixels."""

_FIELDS = 8
"""Fields of the chequerboard along an axis."""

_GOOD, _BAD, _LEFT_OUT = (40, 200, 90), (235, 60, 40), (150, 150, 150)

Bytes = NDArray[np.uint8]


def draw_registration(
    path: Path,
    scene: RasterInfo,
    scene_bands: Sequence[int],
    reference: RasterInfo,
    reference_bands: Sequence[int],
    registration: Registration,
    scale: int,
) -> None:
    """Write a PNG: shifts on the scene before and after, and a close-up of scene and reference in a chequerboard.

    Args:
        path: PNG.
        scene, scene_bands, reference, reference_bands: as compared.
        registration: how the reference is aligned with the scene.
        scale: output pixels along a scene pixel.

    Raises:
        OutputError: the file cannot be written.
    """
    overview = _overview(scene, scene_bands)
    longest = max((hypot(*s.shift) for s in registration.accepted), default=hypot(*registration.shift))
    factor = scene.width / 12 / max(longest, 1e-6)
    caption = f"{factor:.0f} times" if factor < 1e4 else "none"
    before, after = (
        f"{when}: {rms:.2f} scene px rms" if isfinite(rms) else f"{when}: not measured"
        for when, rms in (("before", registration.before), ("after", registration.after))
    )
    shifts = [
        Panel(f"{before} (drawn {caption})", _arrows(overview, scene, registration, factor, residual=False)),
        Panel(after, _arrows(overview, scene, registration, factor, residual=True)),
    ]
    close = _close_up(scene, registration)
    boards = [
        Panel(title, _board(scene, scene_bands, reference, reference_bands, close, scale, displacement))
        for title, displacement in (("before: chequerboard", None), ("after", registration.displacement.scaled(scale)))
    ]
    write_panels(path, [shifts, boards], _PICTURE_SIDE)


def _overview(scene: RasterInfo, bands: Sequence[int]) -> Bytes:
    """The scene, or its overview, at most 512 pixels along a side; (3, height, width)."""
    return _shown(*reduced(scene.source, _three(bands), _PICTURE_SIDE, resampling=Resampling.average))


def _arrows(overview: Bytes, scene: RasterInfo, registration: Registration, factor: float, *, residual: bool) -> Bytes:
    """The overview, square, with an arrow for each place: from where the scene shows it to where the reference does."""
    picture = Image.fromarray(np.ascontiguousarray(overview.transpose(1, 2, 0))).resize((_PICTURE_SIDE, _PICTURE_SIDE))
    draw = ImageDraw.Draw(picture)
    across, down = _PICTURE_SIDE / scene.width, _PICTURE_SIDE / scene.height
    places = [(s.row, s.col, s.residual if residual else s.shift, s.accepted) for s in registration.sites]
    if not places and registration.registered:
        shift = (0.0, 0.0) if residual else registration.shift
        places = [(scene.height / 2, scene.width / 2, shift, True)]
    for row, col, (drow, dcol), accepted in places:
        colour = _LEFT_OUT if not accepted else _GOOD if residual else _BAD
        start = (col * across, row * down)
        end = (start[0] + dcol * factor * across, start[1] + drow * factor * down)
        if accepted:
            draw.line([start, end], fill=colour, width=2)
        draw.ellipse([start[0] - 3, start[1] - 3, start[0] + 3, start[1] + 3], outline=colour, width=2)
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _close_up(scene: RasterInfo, registration: Registration) -> Window:
    """Around the accepted place of the highest score, else the middle; scene pixels."""
    best = max(registration.accepted, key=lambda s: s.score, default=None)
    row, col = (scene.height / 2, scene.width / 2) if best is None else (best.row, best.col)
    height, width = min(_CLOSE, scene.height), min(_CLOSE, scene.width)
    top = int(np.clip(row - height / 2, 0, scene.height - height))
    return Window(top, int(np.clip(col - width / 2, 0, scene.width - width)), height, width)


def _board(
    scene: RasterInfo,
    scene_bands: Sequence[int],
    reference: RasterInfo,
    reference_bands: Sequence[int],
    window: Window,
    scale: int,
    displacement: Displacement | None,
) -> Bytes:
    target = output_geobox(scene_geobox(scene), scale)
    with (
        RasterReader(scene, _three(scene_bands)) as lr,
        WarpedReader(reference, _three(reference_bands), target, "cubic", displacement) as hr,
    ):
        coarse, valid = lr.read(window)
        fine, fine_valid = hr.read(window.multiply(scale))
    enlarged = np.repeat(
        np.repeat(_shown(coarse.astype(np.float32), np.asarray(valid.all(axis=0))), scale, 1), scale, 2
    )
    rows, cols = np.indices(fine_valid.shape)
    side = max(1, max(fine_valid.shape) // _FIELDS)
    field = ((rows // side + cols // side) % 2).astype(bool)
    return np.where(field, enlarged, _shown(fine, fine_valid)).astype(np.uint8)


def _three(bands: Sequence[int]) -> list[int]:
    return list(bands[:3]) if len(bands) >= 3 else [bands[0]] * 3


def _shown(image: NDArray[np.float32], valid: NDArray[np.bool_]) -> Bytes:
    if not valid.any():
        return np.zeros(image.shape, dtype=np.uint8)
    low, high = (np.percentile(image[:, valid], q, axis=1) for q in (1, 99))
    return np.where(valid, stretch(image, low, high), 0).astype(np.uint8)
