"""From what the user says of a change mask to what the plan remembers, and from there to a prior that can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from odc.geo.geobox import GeoBox

from geo_refdiff.change.class_map import (
    Key,
    by_names,
    category_names,
    colour_table,
    known_classes,
    read_class_map,
    second_colours,
)
from geo_refdiff.change.confidence import MIN_CONFIDENCE, ConfidentPrior, Prior, check_confidence
from geo_refdiff.change.placing import check_lies_on, lies_on_scene
from geo_refdiff.change.polygons import PolygonPrior, field_values, inspect_polygons, is_vector
from geo_refdiff.change.raster import ColourPrior, MaskPrior, check_classes, check_colours, holds_only
from geo_refdiff.change.record import MaskRecord
from geo_refdiff.classes import NO_CHANGE, UNKNOWN_CLASS, class_index
from geo_refdiff.errors import GridError, InputError, OptionError
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.geobox import Georeferenced
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.layer_source import layer_source
from geo_refdiff.raster.reader import inspect
from geo_refdiff.raster.warp import overlap_fraction

AUTO, NONE = "auto", "none"
"""What a mask may be called instead of a file: found by comparing scene and reference, or none at all."""


@dataclass(frozen=True, slots=True)
class MaskRequest:
    """What the user says of a mask.

    Attributes:
        mask: a raster or vector file, "auto", "none" or None: not said, "auto" where that is possible.
        no_change: value of a raster that means "no change".
        class_map: JSON or CSV file, see `read_class_map`.
        field: of a vector file, whose values tell the class.
        confidence: raster that says how sure the mask is, 0 to 1.
        least: confidence below which a class is unknown; None: 0.5 where a confidence is given, 0.7 for "auto".
        lies_on: "scene", "ref" (it is moved with the reference), or "auto": see `lies_on_scene`; polygons are moved.
    """

    mask: str | Path | None = None
    no_change: int | None = None
    class_map: str | Path | None = None
    field: str | None = None
    confidence: str | Path | None = None
    least: float | None = None
    lies_on: str = "auto"

    @property
    def file(self) -> str | None:
        """The mask's file, None where there is none."""
        return None if self.mask is None or str(self.mask) in (AUTO, NONE) else str(self.mask)

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read, without the names of layers."""
        given = (self.file, self.class_map, self.confidence)
        return tuple(layer_source(name).path for name in given if name is not None)

    def check(self) -> None:
        """Whether the options go together.

        Raises:
            OptionError: one line.
        """
        if self.least is not None and not (isfinite(self.least) and 0 <= self.least <= 1):
            raise OptionError(f"min confidence {self.least}: give a number from 0 to 1")
        check_lies_on(self.lies_on)
        told = [
            name
            for name, value in (
                ("--mask-lies-on", None if self.lies_on == "auto" else self.lies_on),
                ("--no-change", self.no_change),
                ("--class-map", self.class_map),
                ("--mask-field", self.field),
                ("--mask-confidence", self.confidence),
            )
            if value is not None
        ]
        if told and self.file is None:
            raise OptionError(f"{told[0]} goes with a mask from a file: give --mask FILE, or leave it out")
        if self.least is not None and self.confidence is None and self.mask is not None and str(self.mask) != AUTO:
            raise OptionError("--min-confidence needs a confidence: give --mask-confidence, or --mask auto")


def decide_mask(
    request: MaskRequest, classes: Sequence[str], target: GeoBox, reference: Georeferenced | None = None
) -> MaskRecord | None:
    """Inspect a mask from a file and map its classes to the model's; None without a file.

    Args:
        request: checked.
        classes: the model's class names; empty: any index will do.
        target: the whole scene's output grid.
        reference: grid of the reference, if there is one.

    Raises:
        InputError, GridError, OptionError: one line; an unknown class is told with the known ones.
    """
    if request.file is None:
        return None
    record = (
        _from_polygons(request, classes, target) if is_vector(request.file) else _from_raster(request, classes, target)
    )
    on_scene = request.lies_on == "scene"
    if request.lies_on == "auto" and record.raster is not None:
        on_scene = lies_on_scene(record.raster, target, reference)
    record = replace(record, on_scene=on_scene)
    if request.confidence is None:
        return record
    confidence = inspect(request.confidence, "mask")
    overlap_fraction(confidence, target)
    check_confidence(confidence)
    return replace(
        record, confidence=confidence, min_confidence=MIN_CONFIDENCE if request.least is None else request.least
    )


def _from_raster(request: MaskRequest, classes: Sequence[str], target: GeoBox) -> MaskRecord:
    if request.field is not None:
        raise OptionError(f"--mask-field goes with polygons, but {request.file} is a raster: leave it out")
    info = inspect(str(request.file), "mask")
    overlap_fraction(info, target)
    if _is_coloured(info):
        return _from_colours(info, request, classes)
    values = _values(info, request, classes)
    if info.validity == "nodata" and (info.nodata in values or info.nodata == request.no_change):
        raise InputError(
            f"{info.path}: {info.nodata:g} is a class, but also the file's nodata value, which means not known; take "
            f"that off first: gdal_edit.py -unsetnodata"
        )
    check_classes(info, classes, values)
    return MaskRecord("classes", raster=info, values=_sorted(values))


def _is_coloured(info: RasterInfo) -> bool:
    return len(info.data_bands) >= 3 and info.dtype == "uint8"


def _from_colours(info: RasterInfo, request: MaskRequest, classes: Sequence[str]) -> MaskRecord:
    if request.no_change is not None:
        raise OptionError(
            f"--no-change goes with a raster of classes, but {info.path} holds colours: name the colour in --class-map"
        )
    given = None if request.class_map is None else read_class_map(request.class_map, classes)
    colours: dict[Key, int] = second_colours(classes)
    if given is not None:
        colours = {k: v for k, v in given.items() if isinstance(k, tuple)}
    if not colours:
        raise InputError(f"{request.class_map}: the class map names no colours, but {info.path} is a raster of colours")
    check_colours(info, colours, classes)
    return MaskRecord("colours", raster=info, values=_sorted(colours))


def _values(info: RasterInfo, request: MaskRequest, classes: Sequence[str]) -> dict[Key, int]:
    """Value of the mask -> class index; empty: values are class indices."""
    found: dict[Key, int]
    if request.class_map is not None:
        given = read_class_map(request.class_map, classes)
        found = {k: v for k, v in given.items() if isinstance(k, int)}
        names = category_names(info.path, info.data_bands[0])
        found |= {value: given[name.casefold()] for value, name in enumerate(names) if name.casefold() in given}
        found |= {value: given[c] for value, c in colour_table(info.path, info.data_bands[0]).items() if c in given}
        if not found:
            raise InputError(
                f"{request.class_map}: the class map names no value of {info.path}; give rows like 10,water"
            )
        if request.no_change is None and NO_CHANGE not in found.values() and info.nodata != NO_CHANGE:
            found.setdefault(NO_CHANGE, NO_CHANGE)
    else:
        names = category_names(info.path, info.data_bands[0]) if classes else ()
        found, strange = by_names(names, classes)
        _check_strange(info, found, strange, classes)
        if classes and not names:
            found = _by_palette(info, classes)
    if request.no_change is not None:
        own: dict[Key, int] = {i: i for i in (*range(len(classes) or UNKNOWN_CLASS), UNKNOWN_CLASS)}
        found = {**(found or own), request.no_change: NO_CHANGE}
    return {} if all(k == v for k, v in found.items()) and request.class_map is None else found


def _by_palette(info: RasterInfo, classes: Sequence[str]) -> dict[Key, int]:
    """Value -> class index where a mask's colour table gives each of its values one of SECOND's colours, else empty."""
    colours = second_colours(classes)
    table = colour_table(info.path, info.data_bands[0])
    found = {value: colours[colour] for value, colour in table.items() if colour in colours}
    return dict(found.items()) if found and holds_only(info, found) else {}


def _check_strange(
    info: RasterInfo, found: Mapping[Key, int], strange: Mapping[int, str], classes: Sequence[str]
) -> None:
    """Names that are no classes matter where the values occur; those that do not are left to `check_classes`."""
    if strange and not found:
        value, name = next(iter(strange.items()))
        raise InputError(
            f"{info.path}: its class {value} '{name}' is no class of the model; known are {known_classes(classes)}; "
            f"say what it means with --class-map"
        )


def _from_polygons(request: MaskRequest, classes: Sequence[str], target: GeoBox) -> MaskRecord:
    if request.no_change is not None:
        raise OptionError("--no-change goes with a raster: outside of polygons there is no change anyway; leave it out")
    if request.class_map is not None and request.field is None:
        raise OptionError("--class-map needs to know which field of the polygons it is for: give --mask-field")
    info = inspect_polygons(str(request.file), request.field)
    given = {} if request.class_map is None else read_class_map(request.class_map, classes)
    values: dict[Key, int] = {}
    for key in field_values(info):
        index = given.get(key) if given else class_index(str(key), classes)
        if index is None:
            known = ", ".join(str(k) for k in given) if given else known_classes(classes)
            what = "which the class map does not know" if given else "which is no class of the model"
            raise InputError(f"{info.path}: field '{info.field}' holds '{key}', {what}; known are {known}")
        values[key] = index
    record = MaskRecord("polygons", polygons=info, values=_sorted(values))
    if not PolygonPrior(info, target, values).meets_target():
        raise GridError(f"{info.path}: no polygon lies near the scene; check its CRS, or say --mask none")
    return record


def _sorted(values: Mapping[Key, int]) -> tuple[tuple[Key, int], ...]:
    return tuple(sorted(values.items(), key=lambda item: str(item[0])))


def open_prior(
    record: MaskRecord,
    target: GeoBox,
    detected: Callable[[], Prior] | None = None,
    displacement: Displacement | None = None,
) -> Prior:
    """The prior that a plan remembers.

    Args:
        record: of the plan.
        target: the whole scene's output grid.
        detected: makes the prior for "auto", in pixels of the target as the others.
        displacement: of the reference, pixels of the target: what belongs at p it has at p + displacement.

    Raises:
        GridError, InputError: a file cannot be opened or placed on the grid.
    """
    values = dict(record.values)
    displacement = None if record.on_scene else displacement
    prior: Prior
    if record.kind == "auto":
        if detected is None:
            raise InputError("a detected change mask needs a reference: give --ref, or --mask none")
        return detected()
    if record.kind == "polygons" and record.polygons:
        prior = PolygonPrior(record.polygons, target, values, displacement)
    elif record.kind == "colours" and record.raster:
        prior = ColourPrior(record.raster, target, values, displacement)
    elif record.raster:
        prior = MaskPrior(record.raster, target, values, displacement)
    else:
        raise InputError(f"the plan's change mask is damaged (kind {record.kind} without a file); start anew")
    if record.confidence is None:
        return prior
    return ConfidentPrior(prior, record.confidence, target, record.min_confidence, displacement)
