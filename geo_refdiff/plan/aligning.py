"""Whether and how a run moves its reference, and what it says about it."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from statistics import fmean
from typing import Literal, get_args

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.plan.coregistration import Coregistration
from geo_refdiff.plan.records import Bands, Radiometry
from geo_refdiff.plan.survey import ALIKE_UNITS
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.warp import overlap_fraction
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.reading import register_rasters
from geo_refdiff.registration.registration import Registration
from geo_refdiff.registration.sites import Site
from geo_refdiff.restore.restorers import Restorer
from geo_refdiff.sensor.sensor import SensorModel

Coregister = Literal["auto", "global", "local", "off"]
Misregistered = Literal["stop", "no-ref"]

MAX_RESIDUAL = 1.0
"""LR pixels."""

_HALF = 0.5

_POOR = 0.3
"""Correlation of scene and reference after the radiometric fit in any band, below which something is wrong."""

_ALIKE = 0.5
"""Mean of these correlations over the bands, below which a reference that could not be registered is not used. Right
references of other years: .69 to 1 on city tiles of 32 LR pixels, .42 to .63 on fields (which can be registered); of
another place, turned or overcast: .44 and less in half of the cases, .64 and less in 95 %."""

_ENOUGH = 100
"""LR pixels that such a correlation is to rest on."""


@dataclass(frozen=True, slots=True)
class AlignRequest:
    """What the user says of co-registration.

    Attributes:
        mode: "auto": one shift, or a local field where one shift clearly does not do; "global", "local", "off".
        max_residual: what may be left of the shifts after correction, LR pixels.
        on_misregistration: "stop", or "no-ref": go on without the reference where it does not lie right.
    """

    mode: str = "auto"
    max_residual: float = MAX_RESIDUAL
    on_misregistration: str = "stop"

    def check(self) -> None:
        """Whether the options make sense.

        Raises:
            OptionError: one line.
        """
        if self.mode not in get_args(Coregister):
            raise OptionError(f"coregister '{self.mode}': choose {', '.join(get_args(Coregister))}")
        if self.on_misregistration not in get_args(Misregistered):
            raise OptionError(
                f"on misregistration '{self.on_misregistration}': choose {' or '.join(get_args(Misregistered))}"
            )
        if not (np.isfinite(self.max_residual) and self.max_residual > 0):
            raise OptionError(f"max residual {self.max_residual:g}: give a number of LR pixels above 0")


def align_reference(
    request: AlignRequest,
    scene: RasterInfo,
    reference: RasterInfo | None,
    bands: Bands,
    sensor: SensorModel,
    restorer: Restorer,
    notes: list[str],
) -> Coregistration:
    """Measure how the reference lies on the scene, and decide what is done about it, and about the mask with it.

    The whole scene is looked at, whatever the area of interest.

    Raises:
        InputError: the reference does not lie right, and the run is to stop then.
    """
    if request.mode == "off" or reference is None or not (restorer.uses_reference or restorer.uses_mask):
        return Coregistration("off", "off")
    mode: Literal["auto", "global", "local"] = "auto"
    if request.mode in ("global", "local"):
        mode = "global" if request.mode == "global" else "local"
    found = register_rasters(scene, bands.scene, reference, bands.reference, sensor, mode)
    if not found.registered:
        return _not_registered(request, found, reference, notes)
    beyond = found.beyond(request.max_residual)
    if not found.exceeds(request.max_residual):
        _tell(found, sensor.scale, scene, notes)
        return Coregistration.of(found, request.mode)
    told = (
        f"the reference does not lie right on the scene: after correction {found.after:.2f} LR pixels are left (root "
        f"mean square), in {len(beyond)} of {len(found.accepted)} places more than {request.max_residual:g}"
    )
    if request.on_misregistration == "stop":
        raise InputError(
            f"{reference.path}: {told}; try --coregister local, raise --max-residual, or say "
            f"--on-misregistration no-ref"
        )
    if not found.accepted or len(beyond) > _HALF * len(found.accepted):
        notes.append(f"{told}; it is not used")
        return Coregistration.of(found, request.mode, unused=True)
    notes.append(f"{told}; it is not used there")
    return Coregistration.of(found, request.mode, _cells(beyond, found.sites, scene))


def undecided(placed: Coregistration) -> bool:
    """Whether the reference could not be registered in "auto", and may yet lie right."""
    return placed.mode == "auto" and placed.verdict not in ("registered", "off") and not placed.unused


def unfit(radiometry: Radiometry, placed: Coregistration, scene: RasterInfo, reference: RasterInfo) -> str | None:
    """Why the pixels of a reference forbid its use; None: nothing does.

    It cannot be brought to the scene's units, or, where it could not be registered, it does not look like the scene: it
    is of another place, turned, clouded over, black.

    Args:
        radiometry: fitted.
        placed: how it lies.
        scene, reference: as inspected.
    """
    if radiometry.pixels == 0 and scene.dtype != reference.dtype:
        return "too few common pixels to bring the reference to the scene's units: it is not used"
    if undecided(placed) and radiometry.pixels >= _ENOUGH and (alike := fmean(radiometry.correlation)) < _ALIKE:
        return f"the reference does not look like the scene, either (correlation {alike:.2f}): it is not used"
    return None


def note_reference(
    reference: RasterInfo, scene: RasterInfo, target: GeoBox, radiometry: Radiometry, notes: list[str]
) -> None:
    """Tell how much of the scene the reference covers, and how well it agrees."""
    low, high = ALIKE_UNITS
    if scene.dtype == reference.dtype and not low <= min(radiometry.gain) <= max(radiometry.gain) <= high:
        factors = ", ".join(f"{gain:.3g}" for gain in radiometry.gain)
        notes.append(f"the reference is taken to be in other units than the scene, which are {factors} times its own")
    share = overlap_fraction(reference, target)
    if share < 0.999:
        notes.append(f"the reference covers {share:.1%} of the scene; elsewhere there is none")
    if radiometry.pixels == 0:
        notes.append("too few common pixels to match the reference's radiometry: it is taken as it is")
    elif min(radiometry.correlation) < _POOR:
        notes.append(
            f"the reference agrees poorly with the scene (correlation {min(radiometry.correlation):.2f}): "
            f"check its place, bands and date"
        )


def _not_registered(
    request: AlignRequest, found: Registration, reference: RasterInfo, notes: list[str]
) -> Coregistration:
    """What cannot be told is taken as it is in "auto"; what is seen not to match is not."""
    told = f"the reference is not registered: {found.reason}"
    if request.mode == "auto" and found.verdict != "mismatch":
        notes.append(told)
        return Coregistration.of(found, request.mode)
    if request.on_misregistration == "stop":
        raise InputError(
            f"{reference.path}: {told}; check its place, bands and date, say --on-misregistration no-ref to go on "
            f"without it, or --coregister off to take it as it is"
        )
    notes.append(f"{told}; it is not used")
    return Coregistration.of(found, request.mode, unused=True)


def _tell(found: Registration, scale: int, scene: RasterInfo, notes: list[str]) -> None:
    if found.kind == "none":
        return
    length = hypot(*found.shift)
    x, y = found.lengths(scale, Affine(*scene.transform))["crs_units"]
    what = f"the reference is moved by {length:.2f} LR pixels (content lies x {x:+.4g}, y {y:+.4g} CRS units off)"
    if found.kind == "local":
        what = f"the reference is moved by a local field, {length:.2f} LR pixels on average"
    left = f"{found.before:.2f} LR pixels before, {found.after:.2f} after"
    if not found.accepted:
        left = "the scene is too small to measure what is left"
    notes.append(f"{what}; {left}")


def _cells(beyond: tuple[Site, ...], sites: tuple[Site, ...], scene: RasterInfo) -> tuple[Window, ...]:
    """Squares around places, as wide as places are apart."""
    points = np.array([(s.row, s.col) for s in sites])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    side = max(1, int(np.ceil(np.median(apart.min(axis=1)))))
    whole = Window(0, 0, scene.height, scene.width)
    found = (Window(round(s.row - side / 2), round(s.col - side / 2), side, side).intersect(whole) for s in beyond)
    return tuple(w for w in found if w is not None)
