"""What a run will make, told from what is known of its inputs before any pixel is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, hypot
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
from odc.geo.geobox import GeoBox

from geo_refdiff.errors import GridError, InputError, OptionError
from geo_refdiff.nn.device import chosen_device
from geo_refdiff.plan.bands import choose_bands
from geo_refdiff.plan.declared import transfers
from geo_refdiff.plan.layout import BlockLayout, plan_blocks
from geo_refdiff.plan.output import output_of
from geo_refdiff.plan.records import Bands, Output
from geo_refdiff.raster.aoi import AreaOfInterest
from geo_refdiff.raster.geobox import crop, output_geobox, scene_geobox
from geo_refdiff.raster.globe import turned
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.vector import in_degrees, is_box, read_aoi
from geo_refdiff.raster.warp import gsd_ratio
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.models import Model, open_model

if TYPE_CHECKING:
    from geo_refdiff.plan.planning import Request

DEFAULT_SCALE = 8
"""Where there is no reference to tell."""

BLOCK = 2048
"""Side of a block where none is asked for, output pixels."""

_EDGE = 1e-6
_SHOWN = 60
_SHARPER = 1.5
_DTYPES = {"float32": "float32", "fp32": "float32", "bfloat16": "bfloat16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Outline:
    """A run in outline; a plan agrees with it in all that is told here, but for a reference that turns out useless.

    Attributes:
        scene, reference: as inspected.
        model: opened.
        bands: which play which part.
        scale: HR pixels along an LR pixel.
        device, dtype: where and in what the network runs.
        crop: what is worked on, in pixels of the scene.
        polygon: the area of interest in the scene's CRS as WKT, None if it is just a box.
        blocks: of the output.
        notes: what was decided without being asked.
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
        """How the output tells its pixels."""
        return output_of(self.scene, self.polygon is not None)


def make_outline(request: Request, scene: RasterInfo, reference: RasterInfo | None) -> Outline:
    """Open the model and decide all that can be decided without pixels.

    Args:
        request: what the user asks for.
        scene, reference: the rasters that it names, or that will stand for them.

    Raises:
        InputError, GridError, ModelError, OptionError: one line each.
    """
    notes: list[str] = []
    opened = request.model if isinstance(request.model, Model) else None
    device, dtype = opened.device if opened else chosen_device(request.device), chosen_dtype(request.dtype)
    ratio = None if reference is None else _reference_ratio(reference, scene_geobox(scene))
    model = open_model(
        request.model,
        sampler=request.sampler,
        steps=request.steps,
        detail=request.detail,
        device=device,
        dtype=dtype,
    )
    others = transfers(request.other_bands, request.bands is not None)
    bands = choose_bands(scene, reference, request.bands, model.bands, model.optional_bands, others)
    alone = choose_bands(scene, None, request.bands, model.bands, model.optional_bands, others)
    lacking = [name for name in alone.names if name not in bands.names]
    if lacking:
        notes.append(f"the reference has no {', '.join(lacking)}: the model goes without")
    scale = _scale(request.scale, ratio, model, notes)
    area, polygon = _area(request.aoi, scene, scale)
    blocks = plan_blocks(request.block_size or BLOCK, (area.height * scale, area.width * scale))
    return Outline(scene, reference, model, bands, scale, device, dtype, area, polygon, blocks, tuple(notes))


def check_options(request: Request) -> None:
    """Whether numbers are numbers and options go together.

    Raises:
        OptionError: one line.
    """
    request.prior.check()
    request.alignment.check()
    for name in ("scale", "steps", "window", "overlap", "block_size", "seed"):
        value: Any = getattr(request, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise OptionError(f"{name} {value!r}: give a whole number")
    if request.scene_range is not None:
        low, high = request.scene_range
        if not (np.isfinite([low, high]).all() and low < high):
            raise OptionError(f"scene range {low}, {high}: give two numbers, the lower one first")
    if request.window is not None and request.window < 1:
        raise OptionError(f"window {request.window}: give at least 1 pixel")


def chosen_dtype(name: str) -> str:
    """ "float32" or "bfloat16", also from their short names.

    Raises:
        OptionError: another.
    """
    if name not in _DTYPES:
        raise OptionError(f"dtype '{name}': give float32 or bfloat16")
    return _DTYPES[name]


def _reference_ratio(reference: RasterInfo, gbox: Any) -> float:
    """GSD of the reference in scene pixels."""
    ratio = gsd_ratio(reference, gbox)
    if ratio > 1 + 1e-3:
        raise InputError(
            f"{reference.path}: the reference is coarser than the scene ({ratio:.3g} scene pixels a pixel); "
            f"give a finer one, or swap scene and reference"
        )
    return ratio


def _scale(wanted: int | None, ratio: float | None, model: Model, notes: list[str]) -> int:
    if wanted is not None:
        model.check_scale(wanted)
        return wanted
    if ratio is None:
        scale = model.nearest_scale(DEFAULT_SCALE)
        notes.append(f"scale {scale} by default; choose it with --scale")
    elif 1 / ratio < _SHARPER:
        raise OptionError(
            f"the reference's pixels are only {1 / ratio:.3g} times finer than the scene's: say which --scale is wanted"
        )
    else:
        scale = model.nearest_scale(1 / ratio)
        notes.append(
            f"scale {scale} from the reference, whose pixels are {1 / ratio:.3g} times finer; choose it with --scale"
        )
    return scale


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
        raise GridError(
            f"area of interest '{aoi}' lies outside of {scene.path}, which covers x {xmin:.10g} to {xmax:.10g}, y "
            f"{ymin:.10g} to {ymax:.10g} in its own CRS; a vector file may be in any CRS"
        )
    if is_box(aoi):
        return crop, None
    polygon = shapely.to_wkt(geometry, rounding_precision=-1)
    if AreaOfInterest(polygon, output_geobox(gbox, scale), crop.multiply(scale)).is_empty:
        raise GridError(
            f"area of interest '{aoi if len(aoi) <= _SHOWN else aoi[:_SHOWN] + '...'}': no pixel centre of the output "
            f"lies inside, which has pixels of {hypot(a, d) ** -1 / scale:.4g} units of the scene's CRS; draw it "
            f"larger, or give a larger --scale"
        )
    return crop, polygon
