"""Lay a reference on a scene: measure, report, and write it aligned, from files to files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from affine import Affine
from odc.geo.geobox import GeoBox

from geo_refdiff import __version__
from geo_refdiff.commands.coregister_picture import draw_registration
from geo_refdiff.engine.finish import delivered
from geo_refdiff.engine.workdir import check_geotiff, check_output
from geo_refdiff.engine.writer import BlockPixels, BlockProgress, BlockRaster, FinishedBlock, write_rasters
from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.options import (
    FIELDS,
    MAX_SCALE,
    CoregisterOptions,
    UpscaleOptions,
    check_names,
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
from geo_refdiff.raster.vrt import VirtualRaster, with_bands_of
from geo_refdiff.raster.warp import WarpedReader, gsd_ratio
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
        lines = [
            f"{what}: {row:+.3f} rows, {col:+.3f} columns of the scene, standard error {registration.sigma:.3f}",
            f"  {hr_row:+.2f} rows, {hr_col:+.2f} columns of pixels {self.scale} times finer; x {x:+.6g}, y {y:+.6g} "
            f"{self.unit}",
            f"  {registration.reason}",
            f"  residual: {registration.before:.3f} scene pixels before, {registration.after:.3f} after (root mean "
            f"square, {len(registration.accepted)} of {len(registration.sites)} places)",
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
    progress: BlockProgress | None = None,
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
    own = CoregisterOptions.pop_from(options)
    check_names(options, OPTIONS)
    scene, ref = name_of(scene), name_of(ref)
    asked = UpscaleOptions.of(**options)
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
    progress: BlockProgress | None,
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
