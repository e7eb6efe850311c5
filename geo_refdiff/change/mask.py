"""The change mask of a plan: from the options of the user to a record, and from the record to an open mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from odc.geo.geobox import GeoBox

from geo_refdiff.change.class_map import (
    Key,
    by_names,
    category_names,
    colour_table,
    list_classes,
    read_class_map,
    second_colours,
)
from geo_refdiff.change.mask_files import (
    MIN_CONFIDENCE,
    ChangeMask,
    ClassMask,
    ConfidenceMask,
    check_classes,
    check_colours,
    check_confidence,
    holds_only,
    lies_on_scene,
)
from geo_refdiff.change.polygons import PolygonMask, VectorInfo, class_field, field_values, inspect_polygons, is_vector
from geo_refdiff.classes import NO_CHANGE, UNKNOWN_CLASS, class_index
from geo_refdiff.errors import GridError, InputError, OptionError
from geo_refdiff.options import MaskOptions
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.geobox import Georeferenced
from geo_refdiff.raster.info import RasterInfo, inspect
from geo_refdiff.raster.warp import overlap_fraction

Kind = Literal["classes", "colours", "polygons", "auto"]


@dataclass(frozen=True)
class MaskRecord:
    """A change mask, inspected and mapped to the classes of the model.

    Attributes:
        kind: raster of classes, raster of colours, polygons, or "auto": detected by comparing scene and reference.
        raster: of kinds "classes" and "colours".
        polygons: of kind "polygons".
        values: (value, colour or text in the mask; class index of the model); empty: the mask holds class indices. For
            "auto": (class index of the detector; of the model).
        confidence: raster of the confidence, 0 to 1.
        min_confidence: below it the class is unknown.
        channels: for "auto", positions of red, green, blue, nir among the plan's bands.
        detector: for "auto", SHA-256 of the detector.
        on_scene: whether the mask is aligned with the scene; otherwise it is moved with the reference.
    """

    kind: Kind
    raster: RasterInfo | None = None
    polygons: VectorInfo | None = None
    values: tuple[tuple[Key, int], ...] = ()
    confidence: RasterInfo | None = None
    min_confidence: float = 0.0
    channels: tuple[int | None, ...] = ()
    detector: str = ""
    on_scene: bool = False

    @property
    def mtime_ns(self) -> int:
        """Modification time of the newest file, ns; 0 if unknown."""
        return max((part.mtime_ns for part in (self.raster, self.polygons, self.confidence) if part), default=0)

    @property
    def hides_no_change(self) -> bool:
        """Whether class index 0, no change, is the raster's nodata value and therefore means unknown."""
        return self.kind == "classes" and not self.values and self.raster is not None and self.raster.nodata == 0

    @property
    def classes(self) -> dict[int, int]:
        """For "auto", class index of the detector -> of the model."""
        return {key: index for key, index in self.values if isinstance(key, int)}


def decide_mask(
    asked: MaskOptions, classes: Sequence[str], target: GeoBox, reference: Georeferenced | None = None
) -> MaskRecord | None:
    """Inspect a mask from a file and map its classes to the model's; None without a file.

    Args:
        asked: options of the mask.
        classes: the model's class names; empty: any index will do.
        target: the whole scene's output grid.
        reference: grid of the reference, if there is one.

    Raises:
        InputError, GridError, OptionError: one line; for an unknown class it lists those of the model.
    """
    if asked.file is None:
        return None
    record = _from_polygons(asked, classes, target) if is_vector(asked.file) else _from_raster(asked, classes, target)
    on_scene = asked.mask_lies_on == "scene"
    if asked.mask_lies_on == "auto":
        on_scene = record.raster is None or lies_on_scene(record.raster, target, reference)
    record = replace(record, on_scene=on_scene)
    if asked.mask_confidence is None:
        return record
    confidence = inspect(asked.mask_confidence, "mask")
    overlap_fraction(confidence, target)
    check_confidence(confidence)
    return replace(
        record,
        confidence=confidence,
        min_confidence=MIN_CONFIDENCE if asked.min_confidence is None else asked.min_confidence,
    )


def mask_notes(record: MaskRecord, classes: Sequence[str]) -> list[str]:
    """What a mask from a file is taken for, where people may have meant something else.

    Args:
        record: of the mask.
        classes: the model's class names; empty: none has a meaning.
    """
    notes = []
    if record.hides_no_change:
        notes.append(
            "0 is the mask's nodata value, so it means not known instead of no change; if that is wrong, take it off: "
            "gdal_edit.py -unsetnodata"
        )
    raster = record.raster
    as_index = len(classes) > 1 and record.kind == "classes" and not record.values
    if as_index and raster is not None and holds_only(raster, (0, 1)) and not holds_only(raster, (0,)):
        zeros = "" if record.hides_no_change else "0 is taken for no change, "
        notes.append(
            f"the mask holds 0 and 1 alone: {zeros}1 is taken for '{classes[1]}', the model's class 1; if 1 "
            f'means a change to whatever, say so: --class-map FILE with {{"1": "unknown"}}'
        )
    likely = None if record.polygons is None else class_field(record.polygons)
    if likely is not None:
        notes.append(
            f"the mask's polygons are changes to an unknown class; their field '{likely}' may tell it: "
            f"--mask-field {likely}"
        )
    return notes


def _from_raster(asked: MaskOptions, classes: Sequence[str], target: GeoBox) -> MaskRecord:
    if asked.mask_field is not None:
        raise OptionError(f"--mask-field goes with polygons, but {asked.file} is a raster: leave it out")
    info = inspect(str(asked.file), "mask")
    overlap_fraction(info, target)
    if _is_coloured(info):
        return _from_colours(info, asked, classes)
    values = _values(info, asked, classes)
    if info.validity == "nodata" and (info.nodata in values or info.nodata == asked.no_change):
        raise InputError(
            f"{info.path}: {info.nodata:g} is a class, but also the file's nodata value, which means unknown; take "
            f"that off first: gdal_edit.py -unsetnodata"
        )
    check_classes(info, classes, values)
    return MaskRecord("classes", raster=info, values=_sorted(values))


def _is_coloured(info: RasterInfo) -> bool:
    return len(info.data_bands) >= 3 and info.dtype == "uint8"


def _from_colours(info: RasterInfo, asked: MaskOptions, classes: Sequence[str]) -> MaskRecord:
    if asked.no_change is not None:
        raise OptionError(
            f"--no-change goes with a raster of classes, but {info.path} holds colours: name the colour in --class-map"
        )
    given = None if asked.class_map is None else read_class_map(asked.class_map, classes)
    colours: dict[Key, int] = second_colours(classes)
    if given is not None:
        colours = {k: v for k, v in given.items() if isinstance(k, tuple)}
    if not colours:
        raise InputError(f"{asked.class_map}: the class map names no colours, but {info.path} is a raster of colours")
    check_colours(info, colours, classes)
    return MaskRecord("colours", raster=info, values=_sorted(colours))


def _values(info: RasterInfo, asked: MaskOptions, classes: Sequence[str]) -> dict[Key, int]:
    """Value of the mask -> class index; empty: values are class indices."""
    mapped: dict[Key, int]
    if asked.class_map is not None:
        given = read_class_map(asked.class_map, classes)
        mapped = {k: v for k, v in given.items() if isinstance(k, int)}
        names = category_names(info.path, info.data_bands[0])
        mapped |= {value: given[name.casefold()] for value, name in enumerate(names) if name.casefold() in given}
        mapped |= {value: given[c] for value, c in colour_table(info.path, info.data_bands[0]).items() if c in given}
        if not mapped:
            raise InputError(f"{asked.class_map}: the class map names no value of {info.path}; give rows like 10,water")
        if asked.no_change is None and NO_CHANGE not in mapped.values() and info.nodata != NO_CHANGE:
            mapped.setdefault(NO_CHANGE, NO_CHANGE)
    else:
        names = category_names(info.path, info.data_bands[0]) if classes else ()
        mapped, unmapped = by_names(names, classes)
        if unmapped and not mapped:  # single ones are refused by `check_classes` where they occur
            value, name = next(iter(unmapped.items()))
            raise InputError(
                f"{info.path}: its class {value} '{name}' is no class of the model; its classes are "
                f"{list_classes(classes)}; say what it means with --class-map"
            )
        if classes and not names:
            mapped = _by_palette(info, classes)
    if asked.no_change is not None:
        own: dict[Key, int] = {i: i for i in (*range(len(classes) or UNKNOWN_CLASS), UNKNOWN_CLASS)}
        mapped = {**(mapped or own), asked.no_change: NO_CHANGE}
    return {} if all(k == v for k, v in mapped.items()) and asked.class_map is None else mapped


def _by_palette(info: RasterInfo, classes: Sequence[str]) -> dict[Key, int]:
    """Value -> class index where a mask's colour table gives each of its values one of SECOND's colours, else empty."""
    colours = second_colours(classes)
    table = colour_table(info.path, info.data_bands[0])
    mapped = {value: colours[colour] for value, colour in table.items() if colour in colours}
    return dict(mapped.items()) if mapped and holds_only(info, mapped) else {}


def _from_polygons(asked: MaskOptions, classes: Sequence[str], target: GeoBox) -> MaskRecord:
    if asked.no_change is not None:
        raise OptionError("--no-change goes with a raster: outside of polygons there is no change anyway; leave it out")
    if asked.class_map is not None and asked.mask_field is None:
        raise OptionError("--class-map needs to know which field of the polygons it is for: give --mask-field")
    info = inspect_polygons(str(asked.file), asked.mask_field)
    given = {} if asked.class_map is None else read_class_map(asked.class_map, classes)
    values: dict[Key, int] = {}
    for key in field_values(info):
        index = given.get(key) if given else class_index(str(key), classes)
        if index is None:
            what = "which the class map lacks; its keys" if given else "which is no class of the model; its classes"
            choice = ", ".join(str(k) for k in given) if given else list_classes(classes)
            raise InputError(f"{info.path}: field '{info.field}' holds '{key}', {what} are {choice}")
        values[key] = index
    record = MaskRecord("polygons", polygons=info, values=_sorted(values))
    if not PolygonMask(info, target, values).meets_target():
        raise GridError(f"{info.path}: no polygon is near the scene; check its CRS, or say --mask none")
    return record


def _sorted(values: Mapping[Key, int]) -> tuple[tuple[Key, int], ...]:
    return tuple(sorted(values.items(), key=lambda item: str(item[0])))


def open_mask(
    record: MaskRecord,
    target: GeoBox,
    detected: Callable[[], ChangeMask] | None = None,
    displacement: Displacement | None = None,
) -> ChangeMask:
    """Open the change mask of a plan.

    Args:
        record: of the plan.
        target: the whole scene's output grid.
        detected: gives the mask of kind "auto", in pixels of the target like the others.
        displacement: of the reference: target pixel p is found in it at p + displacement.

    Raises:
        GridError, InputError: a file cannot be opened or placed on the grid.
    """
    values = dict(record.values)
    displacement = None if record.on_scene else displacement
    mask: ChangeMask
    if record.kind == "auto":
        if detected is None:
            raise InputError("a detected change mask needs a reference: give --ref, or --mask none")
        return detected()
    if record.kind == "polygons" and record.polygons:
        mask = PolygonMask(record.polygons, target, values, displacement)
    elif record.raster:
        mask = ClassMask(record.raster, target, values, displacement, colours=record.kind == "colours")
    else:
        raise InputError(f"the plan's change mask is damaged (kind {record.kind} without a file); start over")
    if record.confidence is None:
        return mask
    return ConfidenceMask(mask, record.confidence, target, record.min_confidence, displacement)
