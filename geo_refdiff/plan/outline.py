"""What a run will make, determined from its inputs' metadata, before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, hypot
from typing import Any

import pyproj
from odc.geo.geobox import GeoBox

from geo_refdiff.errors import GridError, InputError, OptionError
from geo_refdiff.nn.device import chosen_device
from geo_refdiff.options import MAX_SCALE, GridOptions, UpscaleOptions
from geo_refdiff.plan.bands import band_notes, choose_bands
from geo_refdiff.plan.declared import transfers
from geo_refdiff.plan.layout import BlockLayout, plan_blocks
from geo_refdiff.plan.records import Bands, Output
from geo_refdiff.products.opening import inspect
from geo_refdiff.raster.crs import find_overlap, horizontal_crs, in_degrees, unit_of
from geo_refdiff.raster.geobox import crop, output_geobox, refinement, scene_geobox
from geo_refdiff.raster.globe import turned
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.vector import AreaOfInterest, is_box, is_wkt, other_meanings, read_aoi
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.models import Model, open_model

DEFAULT_SCALE = 8
"""Where there is no reference to tell."""

BLOCK = 2048
"""Side of a block where none is asked for, output pixels."""

_EDGE = 1e-6
_SHOWN = 60
_SHARPER = 1.5
_ON_PIXELS = 0.01
"""Output pixels by which the output's pixels may be off those of --like."""

_SHIFT_TOLD = 1.0
"""Metres: nothing is said of frames that are taken for one another, as ETRS89 and WGS 84."""


@dataclass(frozen=True)
class Outline:
    """A run in outline; a plan agrees with it in all that is stated here, but for a reference that turns out useless.

    Attributes:
        scene, reference: as inspected.
        model: opened.
        bands: which play which part.
        scale: output pixels along a scene pixel.
        device, dtype: where and in what the network runs.
        crop: what is worked on, in pixels of the scene.
        polygon: the area of interest in the scene's CRS as WKT, None if it is just a box.
        blocks: of the output.
        notes: what was decided without being asked.
        hides_clouds: whether the scene's cloudy pixels become nodata.
    """

    scene: RasterInfo
    reference: RasterInfo | None
    model: Model
    bands: Bands
    scale: int
    device: str
    dtype: str
    crop: Window
    polygon: str | None
    blocks: BlockLayout
    notes: tuple[str, ...] = ()
    hides_clouds: bool = False

    @cached_property
    def target(self) -> GeoBox:
        """The whole scene's output grid."""
        return output_geobox(scene_geobox(self.scene), self.scale)

    @cached_property
    def geobox(self) -> GeoBox:
        """The output's grid."""
        return crop(self.target, self.crop.multiply(self.scale))

    @property
    def output(self) -> Output:
        """Data type and nodata of the output."""
        return Output.of(self.scene, more=self.polygon is not None or self.hides_clouds)


def make_outline(options: UpscaleOptions, scene: RasterInfo, reference: RasterInfo | None) -> Outline:
    """Open the model and decide all that can be decided without pixels.

    Args:
        options: of the user.
        scene, reference: the rasters to upscale and to take detail from, or what will stand for them.

    Raises:
        InputError, GridError, ModelError, OptionError: one line each.
    """
    notes: list[str] = []
    sampling, compute, wanted = options.sampling, options.compute, options.radiometry
    opened = sampling.model if isinstance(sampling.model, Model) else None
    device = opened.device if opened else chosen_device(compute.device)
    registered = options.registration.coregister != "off"
    ratio = None if reference is None else _reference_ratio(reference, scene_geobox(scene), registered, notes)
    model = open_model(sampling, device=device, dtype=compute.dtype)
    if model.offline:
        notes.append(
            f"the model is the copy in the cache ({model.source}); its server was not reached: {model.offline}"
        )
    others = transfers(wanted)
    alone = choose_bands(scene, None, wanted.bands, model.bands, model.optional_bands, others)
    bands = alone
    if reference is None and wanted.ref_bands is not None:
        raise OptionError(f"ref bands {', '.join(map(str, wanted.ref_bands))}: there is no reference; give --ref")
    if reference is not None:
        bands = choose_bands(
            scene, reference, wanted.bands, model.bands, model.optional_bands, others, wanted.ref_bands
        )
    scale, note = _scale(wanted_scale(options.grid, scene), ratio, model)
    notes += [] if note is None else [note]
    notes += band_notes(scene, reference, bands, alone, model.bands, wanted.ref_bands is not None)
    area, polygon = _area(options.grid.aoi, scene, scale)
    blocks = plan_blocks(compute.block_size or BLOCK, (area.height * scale, area.width * scale))
    hides = options.clouds.clouds == "nodata" and (scene.clouds is not None or options.clouds.file is not None)
    return Outline(
        scene, reference, model, bands, scale, device, model.dtype, area, polygon, blocks, tuple(notes), hides
    )


def _reference_ratio(reference: RasterInfo, gbox: Any, registered: bool, notes: list[str]) -> float:
    """GSD of the reference in scene pixels; a doubtful datum shift is noted."""
    overlap = find_overlap(reference, gbox)
    if overlap.accuracy is not None and overlap.accuracy > _SHIFT_TOLD:
        rest = "registration takes out what remains" if registered else "without registration what remains stays"
        notes.append(
            f"the datum shift from the reference's CRS to the scene's is accurate to {overlap.accuracy:g} metres with "
            f"what PROJ has here (projsync fetches finer grids); {rest}"
        )
    ratio = overlap.gsd_ratio
    if ratio > 1 + 1e-3:
        raise InputError(
            f"{reference.path}: the reference is coarser than the scene ({ratio:.3g} scene pixels a pixel); "
            f"give a finer one, or swap scene and reference"
        )
    return ratio


def _scale(wanted: int | None, ratio: float | None, model: Model) -> tuple[int, str | None]:
    """The factor, and a note where it was not asked for."""
    if wanted is not None:
        model.check_scale(wanted)
        return wanted, None
    if ratio is None:
        scale = model.nearest_scale(DEFAULT_SCALE)
        return scale, f"scale {scale}x (default without a reference); choose another with --scale"
    if 1 / ratio < _SHARPER:
        raise OptionError(
            f"the reference's pixels are only {1 / ratio:.3g} times finer than the scene's: say which --scale is wanted"
        )
    scale = model.nearest_scale(1 / ratio)
    note = f"scale {scale}x (the reference's pixels are {1 / ratio:.3g} times finer"
    if scale != round(1 / ratio) and not model.knows(round(1 / ratio)):
        return scale, f"{note}, but {model.scales_in_words}); {model.way_out(round(1 / ratio))}"
    return scale, f"{note}); choose another with --scale"


def wanted_scale(asked: GridOptions, scene: RasterInfo) -> int | None:
    """The factor that was asked for, by --scale or by --like.

    Raises:
        GridError: the output's pixels cannot be those.
        OptionError: both were given, and differ.
    """
    return asked.scale if asked.like is None else scale_of(inspect(asked.like, "reference"), scene, asked.scale)


def scale_of(like: RasterInfo, scene: RasterInfo, scale: int | None = None) -> int:
    """The factor at which the output's pixels are those of another raster.

    Args:
        like: that raster.
        scene: as inspected.
        scale: that was asked for beside it.

    Raises:
        GridError: the output's pixels cannot be those.
        OptionError: the factor is another one.
    """
    own, other = horizontal_crs(scene.crs_wkt), horizontal_crs(like.crs_wkt)
    if not own.equals(other, ignore_axis_order=True):
        raise GridError(
            f"--like {like.path}: is in {other.name}, the scene in {own.name}, which the output keeps; reproject the "
            f"scene first (gdalwarp -t_srs), or leave --like out and reproject the output"
        )
    refined = refinement(scene_geobox(scene), scene_geobox(like), _ON_PIXELS)
    if refined.is_exact(_ON_PIXELS):
        if scale not in (None, refined.scale):
            raise OptionError(f"scale {scale}: pixels like those of {like.path} want {refined.scale}; leave one out")
        return refined.scale
    if not refined.scale:
        raise GridError(
            f"--like {like.path}: {refined.size:.6g} of its pixels go into one of the scene along each axis, no whole "
            f"number, or they are turned or mirrored; leave --like out and resample the output (gdalwarp -te -tr)"
        )
    finer = [n for n in range(2, MAX_SCALE // refined.scale + 1) if refined.is_exact(_ON_PIXELS, n)]
    way_out = (
        f"with --scale {refined.scale * finer[0]}, {finer[0]} x {finer[0]} output pixels make one of its: average them "
        f"(gdalwarp -r average -te ... -tr ...)"
        if finer
        else "leave --like out and resample the output (gdalwarp -te -tr)"
    )
    raise GridError(
        f"--like {like.path}: the scene's corner is {refined.col % 1:.3g} columns and {refined.row % 1:.3g} rows into "
        f"a pixel of it, so that the output's pixels cannot be those; {way_out}"
    )


def _area(aoi: str | None, scene: RasterInfo, scale: int) -> tuple[Window, str | None]:
    """The crop in pixels of the scene, snapped outwards, and the polygon if the area is not just a box."""
    whole = Window(0, 0, scene.height, scene.width)
    if aoi is None:
        return whole, None
    import shapely

    gbox = scene_geobox(scene)
    geometry = read_aoi(aoi, gbox.crs)
    xmin, ymin, xmax, ymax = gbox.extent.boundingbox.bbox
    if in_degrees(pyproj.CRS.from_user_input(str(gbox.crs))):
        geometry = turned(geometry, xmin, xmax)
    a, b, c, d, e, f = (~gbox.affine)[:6]
    xy = shapely.get_coordinates(geometry)
    cols, rows = a * xy[:, 0] + b * xy[:, 1] + c, d * xy[:, 0] + e * xy[:, 1] + f
    left, top = floor(cols.min() + _EDGE), floor(rows.min() + _EDGE)
    right, bottom = ceil(cols.max() - _EDGE), ceil(rows.max() - _EDGE)
    snapped = Window(top, left, max(1, bottom - top), max(1, right - left))
    crop = snapped.intersect(whole)
    if crop is None:
        within = [
            how for how, other in other_meanings(aoi, gbox.crs) if other.intersects(shapely.box(xmin, ymin, xmax, ymax))
        ]
        way_out = f"it is inside as {within[0]}" if within else "a vector file may be in any CRS"
        raise GridError(
            f"area of interest '{_cut(aoi)}' is outside of {scene.path}, which covers x {xmin:.10g} to {xmax:.10g}, "
            f"y {ymin:.10g} to {ymax:.10g} in its own CRS; {way_out}"
        )
    if is_box(aoi):
        return crop, None
    polygon = shapely.to_wkt(geometry, rounding_precision=-1)
    if AreaOfInterest(polygon, output_geobox(gbox, scale), crop.multiply(scale)).is_empty:
        raise GridError(
            f"area of interest '{_cut(aoi)}': no pixel centre of the output "
            f"is inside, which has pixels of {hypot(a, d) ** -1 / scale:.4g} {unit_of(scene.crs_wkt)}; draw it "
            f"larger, or give a larger --scale"
        )
    return crop, polygon


def _cut(aoi: str) -> str:
    """An area of interest for a message."""
    return f"{aoi[:_SHOWN]}..." if is_wkt(aoi) and len(aoi) > _SHOWN else aoi
