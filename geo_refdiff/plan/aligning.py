"""Whether and how a run moves its reference, and what it says about it."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from statistics import fmean

import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox

from geo_refdiff.errors import InputError
from geo_refdiff.options import RegistrationMode, RegistrationOptions
from geo_refdiff.plan.records import Bands, Coregistration, Radiometry
from geo_refdiff.plan.survey import ALIKE_UNITS, remembered
from geo_refdiff.raster.crs import unit_of
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.warp import overlap_fraction
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.estimate import Site
from geo_refdiff.registration.rasters import register_rasters
from geo_refdiff.registration.register import Registration
from geo_refdiff.restore.restorers import Restorer
from geo_refdiff.sensor.sensor import SensorModel

_HALF = 0.5

_POOR = 0.3
"""Correlation of scene and reference after the radiometric fit in any band, below which something is wrong."""

_ALIKE = 0.5
"""Mean of these correlations over the bands, below which a reference that could not be registered is not used. Right
references of other years: .69 to 1 on city tiles of 32 scene pixels, .42 to .63 on fields (which can be registered); of
another place, turned or overcast: .44 and less in half of the cases, .64 and less in 95 %."""

_ENOUGH = 100
"""scene pixels that such a correlation is to rest on."""


def align_reference(
    asked: RegistrationOptions,
    scene: RasterInfo,
    reference: RasterInfo | None,
    bands: Bands,
    sensor: SensorModel,
    restorer: Restorer,
) -> tuple[Coregistration, str | None]:
    """Measure how the reference is aligned with the scene, and decide what is done about it and the mask.

    The whole scene is looked at, whatever the area of interest.

    Returns:
        what the plan remembers, and a note for the user, None where nothing is done.

    Raises:
        InputError: the reference is misaligned, and the run is to stop then.
    """
    if asked.coregister == "off" or reference is None or not (restorer.uses_reference or restorer.uses_mask):
        return Coregistration("off", "off"), None
    registration = _registered(scene, bands.scene, reference, bands.reference, sensor, asked.coregister)
    if not registration.registered:
        return _not_registered(asked, registration, reference)
    beyond = registration.beyond(asked.max_residual)
    if not registration.exceeds(asked.max_residual):
        return Coregistration.of(registration, asked.coregister), _shift_note(registration, scene)
    problem = (
        f"the reference is misaligned with the scene: after correction {registration.after:.2f} scene pixels "
        f"remain (root mean square), in {len(beyond)} of {len(registration.accepted)} places more than "
        f"{asked.max_residual:g}"
    )
    if asked.on_misregistration == "stop":
        raise InputError(
            f"{reference.path}: {problem}; try --coregister local, raise --max-residual, or say "
            f"--on-misregistration no-ref"
        )
    if not registration.accepted or len(beyond) > _HALF * len(registration.accepted):
        return Coregistration.of(registration, asked.coregister, unused=True), f"{problem}; it is not used"
    dropped = _cells(beyond, registration.sites, scene)
    return Coregistration.of(registration, asked.coregister, dropped), f"{problem}; it is not used there"


@remembered
def _registered(
    scene: RasterInfo,
    scene_bands: tuple[int, ...],
    reference: RasterInfo,
    reference_bands: tuple[int, ...],
    sensor: SensorModel,
    mode: RegistrationMode,
) -> Registration:
    return register_rasters(scene, scene_bands, reference, reference_bands, sensor, mode)


def undecided(placed: Coregistration) -> bool:
    """Whether the reference could not be registered in "auto", but may be aligned."""
    return placed.mode == "auto" and placed.verdict not in ("registered", "off") and not placed.unused


def unfit(radiometry: Radiometry, placed: Coregistration, scene: RasterInfo, reference: RasterInfo) -> str | None:
    """Why the pixels of a reference forbid its use; None: nothing does.

    It cannot be brought to the scene's units, or, where it could not be registered, it does not look like the scene: it
    is of another place, turned, clouded over, black.

    Args:
        radiometry: fitted.
        placed: how it is.
        scene, reference: as inspected.
    """
    if radiometry.pixels == 0 and scene.dtype != reference.dtype:
        return "too few common pixels to fit the reference to the scene's units: it is not used"
    if undecided(placed) and radiometry.pixels >= _ENOUGH and (alike := fmean(radiometry.correlation)) < _ALIKE:
        return f"the reference does not look like the scene, either (correlation {alike:.2f}): it is not used"
    return None


def reference_notes(
    reference: RasterInfo, scene: RasterInfo, target: GeoBox, radiometry: Radiometry, names: Sequence[str]
) -> list[str]:
    """How much of the scene the reference covers, and how well it agrees, where that deserves a look.

    Args:
        names: of the scene's bands that `radiometry` was fitted to.
    """
    low, high = ALIKE_UNITS
    notes = []
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
            f"the reference agrees poorly with the scene (correlation {min(radiometry.correlation):.2f} in "
            f"{names[radiometry.correlation.index(min(radiometry.correlation))]}): check its place, bands and date"
        )
    return notes


def _not_registered(
    asked: RegistrationOptions, registration: Registration, reference: RasterInfo
) -> tuple[Coregistration, str]:
    """What cannot be determined is taken as it is in "auto"; what is seen not to match is not."""
    problem = f"the reference is not registered: {registration.reason}"
    if asked.coregister == "auto" and registration.verdict != "mismatch":
        return Coregistration.of(registration, asked.coregister), problem
    if asked.on_misregistration == "stop":
        raise InputError(
            f"{reference.path}: {problem}; check its place, bands and date, say --on-misregistration no-ref to "
            f"continue without it, or --coregister off to take it as it is"
        )
    return Coregistration.of(registration, asked.coregister, unused=True), f"{problem}; it is not used"


def _shift_note(registration: Registration, scene: RasterInfo) -> str | None:
    if registration.kind == "none":
        return None
    length = hypot(*registration.shift)
    what = f"the reference is moved by {length:.2f} scene pixels (its content is {shift_text(registration, scene)} off)"
    if registration.kind == "local":
        what = f"the reference is moved by a local field, {length:.2f} scene pixels on average"
    return f"{what}; {registration.residual_text()}"


def shift_text(registration: Registration, scene: RasterInfo) -> str:
    """The mean shift along x and y in the unit of the scene's CRS, for people: "x +12.5, y -3 metres"."""
    x, y = registration.lengths(1, Affine(*scene.transform))["crs_units"]
    return f"x {x:+.4g}, y {y:+.4g} {unit_of(scene.crs_wkt)}"


def _cells(beyond: tuple[Site, ...], sites: tuple[Site, ...], scene: RasterInfo) -> tuple[Window, ...]:
    """Squares around places, as wide as places are apart."""
    points = np.array([(s.row, s.col) for s in sites])
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    side = max(1, int(np.ceil(np.median(apart.min(axis=1)))))
    whole = Window(0, 0, scene.height, scene.width)
    cells = (Window(round(s.row - side / 2), round(s.col - side / 2), side, side).intersect(whole) for s in beyond)
    return tuple(w for w in cells if w is not None)
