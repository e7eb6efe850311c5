"""The options of commands, each said once: name, type, default, help and check.

Of `upscale` the command's flags, the keywords of `geo_refdiff.upscale` and of the xarray accessor, the settings that a
batch keeps and the forms of the QGIS plugin are derived from the records here, and the records themselves travel to the
code that plans a run. Flags and keywords of `simulate`, `index`, `train` and `train-detector`, and the keywords of
`open_dataset`, are derived from records in the same way.
"""

import difflib
import inspect
import math
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property, partial, wraps
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from geo_refdiff.classes import CLASSES
from geo_refdiff.errors import OptionError
from geo_refdiff.raster.dates import asked_span

CountCallback = Callable[[int, int], None]
"""Called with the number of parts that are done, and of all."""

_F = TypeVar("_F", bound=Callable[..., Any])

MAX_SCALE = 64
MAX_RUNS = 64
AUTO, NONE = "auto", "none"
"""What a mask may be called instead of a file: detected by comparing scene and reference, or none at all."""

LiesOn = Literal["auto", "scene", "ref"]
Coregister = Literal["auto", "global", "local", "off"]
RegistrationMode = Literal["auto", "global", "local", "affine"]
Misregistered = Literal["stop", "no-ref"]
Consistency = Literal["strict", "standard", "off"]
OtherBands = Literal["transfer", "drop"]
CloudMode = Literal["keep", "nodata"]
Dtype = Literal["auto", "float32", "bfloat16"]
Product = Literal["source", "style", "stac", "quicklook", "report"]

PRODUCTS: tuple[Product, ...] = get_args(Product)
"""What can be written beside an output."""

USUAL_PRODUCTS = tuple(p for p in PRODUCTS if p != "report")
"""What is written unless said otherwise: all that needs no second look at every pixel."""

GROUPS = ("Basic", "Model", "Bands and radiometry", "Registration", "Change mask", "Clouds", "Compute", "Cluster")
"""Headings under which help shows options."""

_SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
_KINDS: dict[Any, str] = {
    bool: "True or False", int: "a whole number", float: "a number", str: "a text", tuple[str, ...]: "a list of texts"
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What people read about an option, and which of its type's values it takes.

    Attributes:
        help: one or two sentences.
        default: what happens without it, where the default is None.
        metavar: stands for the value; default the choices, or the type's name.
        group: heading in the help, where it is not that of the record.
        low, high: least and greatest number.
        check: raises an OptionError of its own for a value that makes no sense.
        fits: whether a value makes sense.
        give: what to give instead of one that does not; default from type and limits.
        parse: other spellings -> the value; must leave a value as it is.
        flag: on the command line, where it is not the name.
        repeated: of a tuple: the flag is given once for each value.
    """

    help: str
    default: str = ""
    metavar: str = ""
    group: str = ""
    low: float | None = None
    high: float | None = None
    check: Callable[[Any], object] | None = None
    fits: Callable[[Any], bool] | None = None
    give: str = ""
    parse: Callable[[Any], Any] | None = None
    flag: str = ""
    repeated: bool = False


@dataclass(frozen=True)
class Field:
    """An option as a field of its record.

    Attributes:
        name: keyword; the flag has hyphens instead of underscores.
        kind: its type, without None.
        optional: whether None is a value.
        default: of the field.
        option: help and checks.
        group: heading in the help.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    option: Option
    group: str

    @property
    def flag(self) -> str:
        """On the command line."""
        return self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is msgspec.NODEFAULT

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """The words that it takes; empty: other values, too."""
        return get_args(self.item) if get_origin(self.item) is Literal else ()

    @property
    def item(self) -> Any:
        """The type of what one flag gives."""
        return get_args(self.kind)[0] if self.option.repeated else self.kind

    @property
    def help(self) -> str:
        """Its help, with the default where that is None."""
        return f"{self.option.help}  [default: {self.option.default}]" if self.option.default else self.option.help

    def accepted(self, value: Any) -> Any:
        """A value in the field's own type.

        Raises:
            OptionError: wrong type or value, with the value and the way out.
        """
        value = _plain(value)
        if value is None and self.optional:
            return None
        if self.option.parse is not None:
            value = self.option.parse(value)
        try:
            value = msgspec.convert(value, self.kind)
        except msgspec.ValidationError:
            raise OptionError(self._refusal(value)) from None
        if not self._fits(value):
            raise OptionError(self._refusal(value))
        if self.option.check is not None:
            self.option.check(value)
        return value

    def _fits(self, value: Any) -> bool:
        low, high = self.option.low, self.option.high
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if (low is not None and value < low) or (high is not None and value > high):
            return False
        return self.option.fits is None or self.option.fits(value)

    def _refusal(self, value: Any) -> str:
        repeated = self.option.repeated and isinstance(value, tuple)
        if self.choices and not (repeated and set(value) <= set(self.choices)):
            return f"{self._shown(value)}: choose {(' or ' if len(self.choices) == 2 else ', ').join(self.choices)}"
        return f"{self._shown(value)}: give {self.option.give or self._wanted}"

    def _shown(self, value: Any) -> str:
        if isinstance(value, float):
            shown = f"{value:g}"
        elif isinstance(value, tuple):
            shown = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) or "none"
        else:
            shown = " ".join(repr(value).split())[:80]
        return f"{self.name.replace('_', ' ')} {shown}"

    @property
    def _wanted(self) -> str:
        what, low, high = _KINDS.get(self.kind, "another value"), self.option.low, self.option.high
        if low is not None and high is not None:
            return f"{what} from {low:g} to {high:g}"
        return what if low is None else f"{what}, {low:g} or more"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A record of options, checked and brought to its types when it is made.

    Raises:
        OptionError: a value that makes no sense, or does not go together with another; one line.
    """

    group: ClassVar[str] = "Basic"

    def __post_init__(self) -> None:
        for field in fields_of(type(self)).values():
            msgspec.structs.force_setattr(self, field.name, field.accepted(getattr(self, field.name)))

    @classmethod
    def among(cls, given: Mapping[str, Any]) -> Self:
        """The record made of those keywords that are its own."""
        return cls(**{name: given[name] for name in fields_of(cls) if name in given})


@cache
def fields_of(record: type[Options]) -> Mapping[str, Field]:
    """The options of a record by name."""
    hints, fields = get_type_hints(record, include_extras=True), {}
    for item in msgspec.structs.fields(record):
        kind, option = get_args(hints[item.name])
        others = tuple(part for part in get_args(kind) if part is not type(None))
        optional = get_origin(kind) is not Literal and len(others) < len(get_args(kind))
        if optional:
            kind = others[0] if len(others) == 1 else kind
        fields[item.name] = Field(item.name, kind, optional, item.default, option, option.group or record.group)
    return fields


def chosen_products(products: Any) -> Any:
    """Names from "source,stac", "all", "none", None or a list of names, in the order in which they are written.

    Raises:
        OptionError: unknown.
    """
    if products is None:
        return ()
    names = [str(n).strip() for n in (products.split(",") if isinstance(products, str) else products)]
    if names in (["none"], []):
        return ()
    if names == ["all"]:
        return PRODUCTS
    if any(n not in PRODUCTS for n in names):
        raise OptionError(f"products '{','.join(names)}': choose of {', '.join(PRODUCTS)}, or all, or none")
    return tuple(p for p in PRODUCTS if p in names)


def _plain(value: Any) -> Any:
    """Paths and open datasets as text, numbers of numpy as Python's, lists as tuples.

    Raises:
        InputError: a dataset without a name of its own, or an array.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    package = type(value).__module__.partition(".")[0]
    if package == "numpy" and hasattr(value, "item") and value.size == 1:
        return value.item()
    if package in ("rasterio", "xarray"):
        from geo_refdiff.raster.location import name_of

        return name_of(value)
    return value


def _area(value: Any) -> Any:
    """Polygons of Python as text."""
    if value is None or isinstance(value, str):
        return value
    from geo_refdiff.raster.vector import area_text

    return area_text(value)


def comma_separated(value: Any, kind: Callable[[str], Any] = str) -> Any:
    """The parts of a text "a,b", in the type that they are to have; anything else comes back as it is."""
    if not isinstance(value, str):
        return value
    with suppress(ValueError):
        return tuple(kind(part.strip()) for part in value.split(",") if part.strip())
    return value


def _long_dtype(value: Any) -> Any:
    return _SHORT_DTYPES.get(value, value) if isinstance(value, str) else value


def _noise_of(value: Any) -> Any:
    text = value.strip() if isinstance(value, str) else value
    try:
        return float(text)
    except (TypeError, ValueError):
        return text.lower() if isinstance(text, str) else value


def snr_of(noise: str | float) -> float:
    """The ratio in "snr:RATIO"; 0 for "auto" and for standard deviations.

    Raises:
        OptionError: none of the three.
    """
    match = re.fullmatch(r"snr:([0-9.]+(?:e[0-9]+)?)", noise) if isinstance(noise, str) else None
    try:
        ratio = float(match[1]) if match else 0.0
    except ValueError:
        ratio = math.nan
    sound = ratio > 0 if match else noise == AUTO or (isinstance(noise, float) and 0 <= noise < math.inf)
    if not sound:
        raise OptionError(f"noise {noise!r}: give auto, a standard deviation of 0 or more, or SNR:RATIO, e.g. SNR:150")
    return ratio


def resource_amounts(texts: Iterable[str]) -> dict[str, float]:
    """Resources as dask's command line takes them, "GPU=1" or "GPU", by name.

    Raises:
        OptionError: no name, or no number above 0.
    """
    amounts = {}
    for text in texts:
        name, _, number = (part.strip() for part in text.partition("="))
        try:
            amounts[name] = float(number or 1)
        except ValueError:
            amounts[name] = 0.0
        if not name or not 0 < amounts[name] < math.inf:
            raise OptionError(f"resource '{text}': give NAME=NUMBER, for example GPU=1")
    return amounts


class GridOptions(Options, frozen=True, kw_only=True):
    """Which part of the scene becomes how fine."""

    aoi: Annotated[
        str | None,
        Option(
            help="Area of interest: a vector file (any CRS), a box in the scene's CRS, or a box in degrees "
            "(XMIN,YMIN,XMAX,YMAX,EPSG:4326); snapped outwards to scene pixels.",
            default="the whole scene",
            metavar="FILE|XMIN,YMIN,XMAX,YMAX",
            parse=_area,
            give="a vector file, a box, polygons of shapely or a GeoDataFrame",
        ),
    ] = None
    scale: Annotated[
        int | None,
        Option(
            help="Output pixels along a scene pixel.",
            default="from the reference's pixel size, else 8",
            low=1,
            high=MAX_SCALE,
        ),
    ] = None
    like: Annotated[
        str | None,
        Option(
            help="Raster, such as the reference, on whose grid the output's pixels are to be: it sets --scale, and is "
            "refused where the scene's pixels are not made of whole ones of it.",
            metavar="FILE",
        ),
    ] = None


class MaskOptions(Options, frozen=True, kw_only=True):
    """The change mask, and how it is read."""

    group: ClassVar[str] = "Change mask"

    mask: Annotated[
        str | None,
        Option(
            help="Change mask in any CRS: a raster of classes (0 = no change) or colours, or polygons "
            "(FILE|layername=NAME for one layer of several); auto compares the scene with the reference; none: no "
            "change is assumed known.",
            default="auto where there is a reference",
            metavar="FILE|auto|none",
            group="Basic",
        ),
    ] = None
    no_change: Annotated[
        int | None,
        Option(help="Value of a raster mask that means no change.", default="0", metavar="VALUE"),
    ] = None
    class_map: Annotated[
        str | None,
        Option(
            help="JSON or CSV file that maps values, colours or names of the mask to the model's classes.",
            metavar="FILE",
        ),
    ] = None
    mask_field: Annotated[
        str | None,
        Option(
            help="Field of a vector mask that holds the class; without it polygons are changes to an unknown class.",
            metavar="NAME",
        ),
    ] = None
    mask_confidence: Annotated[str | None, Option(help="Raster of 0 to 1: how sure the mask is.", metavar="FILE")] = (
        None
    )
    min_confidence: Annotated[
        float | None,
        Option(
            help="Where the mask is less sure than this, it is treated as unknown.",
            default="0.5 with --mask-confidence, 0.7 with --mask auto",
            metavar="0..1",
            low=0,
            high=1,
        ),
    ] = None
    mask_lies_on: Annotated[
        LiesOn,
        Option(
            help="Whether the mask is aligned with the scene or with the reference; one aligned with the reference is "
            "shifted together with it. auto: by the mask's tag or grid; polygons belong to the scene."
        ),
    ] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_confidence is not None and self.mask_confidence is None and self.mask not in (None, AUTO):
            raise OptionError("--min-confidence needs a confidence: give --mask-confidence, or --mask auto")
        for name in ("mask_lies_on", "no_change", "class_map", "mask_field", "mask_confidence"):
            field = fields_of(MaskOptions)[name]
            if getattr(self, name) != field.default and self.file is None:
                raise OptionError(f"{field.flag} goes with a mask from a file: give --mask FILE, or leave it out")

    @property
    def file(self) -> str | None:
        """The mask's file, None where there is none."""
        return None if self.mask in (None, AUTO, NONE) else self.mask

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read, without the names of layers."""
        from geo_refdiff.raster.vector import layer_source

        given = (self.file, self.class_map, self.mask_confidence)
        return tuple(layer_source(name).path for name in given if name is not None)


class RegistrationOptions(Options, frozen=True, kw_only=True):
    """How the reference is aligned with the scene."""

    group: ClassVar[str] = "Registration"

    coregister: Annotated[
        Coregister,
        Option(
            help="How the reference, and a mask that belongs to it, is shifted onto the scene: by one shift for all "
            "(global), by a field of shifts (local), whichever is needed (auto), or not at all (off)."
        ),
    ] = "auto"
    max_residual: Annotated[
        float,
        Option(
            help="Largest misregistration that may remain, in scene pixels.",
            metavar="PIXELS",
            fits=lambda pixels: bool(pixels > 0),
            give="a number of scene pixels above 0",
        ),
    ] = 1.0
    on_misregistration: Annotated[
        Misregistered,
        Option(
            help="What to do where more remains, or where the reference does not match the scene: stop, or continue "
            "without the reference there."
        ),
    ] = "stop"


class SamplingOptions(Options, frozen=True, kw_only=True):
    """The model, and how it is sampled."""

    group: ClassVar[str] = "Model"

    model: Annotated[
        Any,
        Option(
            help="A bundled model, a model folder, a model elsewhere (hf://owner/name[@revision], "
            "https://.../model.tar.gz), or one of the classical methods bicubic, bicubic-ibp and matched-ref.",
            metavar="NAME|DIR|URL",
            group="Basic",
        ),
    ] = "default"
    detail: Annotated[
        float | None,
        Option(
            help="0 = conditional mean: soft and safe; 1 = a full sample: crisp and partly invented.",
            default="the model's",
            metavar="0..1",
            low=0,
            high=1,
            give="a number from 0 (conditional mean) to 1 (a full sample)",
        ),
    ] = None
    steps: Annotated[int | None, Option(help="Sampling steps.", default="the model's")] = None
    sampler: Annotated[
        str | None,
        Option(
            help="better-start, heun, euler, dpmpp-2m or published.",
            default="the model's",
            metavar="NAME",
            parse=lambda name: name.replace("_", "-") if isinstance(name, str) else name,
        ),
    ] = None
    seed: Annotated[int, Option(help="Seed of the noise.")] = 0


class RadiometryOptions(Options, frozen=True, kw_only=True):
    """Which bands are used, what their values mean, and which sensor has taken them."""

    group: ClassVar[str] = "Bands and radiometry"

    bands: Annotated[
        tuple[str | int, ...] | None,
        Option(
            help="Bands to use, names or numbers from 1, in the order of the model's channels.",
            default="those that the model knows",
            metavar="B,B,...",
            parse=comma_separated,
            give="names or numbers of bands",
        ),
    ] = None
    ref_bands: Annotated[
        tuple[str | int, ...] | None,
        Option(
            help="Bands of the reference for these (without --bands for those that the model takes, in the scene's "
            "order), names or numbers from 1; - stands for none.",
            default="by their names",
            metavar="B,B,...",
            parse=comma_separated,
            give="names or numbers of bands",
        ),
    ] = None
    other_bands: Annotated[
        OtherBands | None,
        Option(
            help="What happens to bands that the model does not know: detail is transferred to them, or they are left "
            "out. transfer, if it is said, also takes a product's bands of coarser pixels (Sentinel-2: 20 m) along.",
            default="transfer, or drop with --bands",
        ),
    ] = None
    scene_range: Annotated[
        tuple[float, float] | None,
        Option(
            help="Values of the scene that the model sees as black and white.",
            default="from the scene's data type and values",
            metavar="LOW HIGH",
            fits=lambda ends: math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1],
            give="two numbers, the lower one first",
        ),
    ] = None
    psf: Annotated[
        str | float | None,
        Option(
            help="The scene's sensor: sentinel-2, landsat, area, default, bicubic, or the standard deviation of its "
            "Gaussian point spread function in scene pixels.",
            default="given by product, file or band names, else the one that the model was made for",
            metavar="NAME|SIGMA",
        ),
    ] = None
    noise: Annotated[
        str | float,
        Option(
            help="Standard deviation of the scene's noise in digital numbers, 0 for none, or SNR:RATIO, the ratio of "
            "each band's mid value to it; auto: estimated for each band.",
            metavar="auto|SIGMA|SNR:RATIO",
            parse=_noise_of,
            check=snr_of,
            give="auto, a standard deviation of 0 or more, or SNR:RATIO",
        ),
    ] = AUTO
    consistency: Annotated[
        Consistency | None,
        Option(
            help="How closely the output, seen by that sensor, must match the scene: standard, before values are "
            "clipped and rounded; strict, to half a digital number in the file, saturated pixels included.",
            default="standard, or off for bicubic",
        ),
    ] = None


def _check_cloud_mask(text: str) -> None:
    from geo_refdiff.raster.clouds import check_layer_name

    check_layer_name(text)


class CloudOptions(Options, frozen=True, kw_only=True):
    """Which pixels are cloudy, and how they are treated."""

    group: ClassVar[str] = "Clouds"

    cloud_mask: Annotated[
        str,
        Option(
            help="Source of the scene's clouds and their shadows: auto, the quality layers of products (also of the "
            "reference); none; or a raster that covers the scene, which may be named by its kind: scl:FILE, "
            "qa_pixel:, fmask:, udm2:, probability:, percent:, mask: (0 = clear; OmniCloudMask).",
            metavar="auto|none|[KIND:]FILE",
            check=_check_cloud_mask,
        ),
    ] = AUTO
    clouds: Annotated[
        CloudMode,
        Option(
            help="What becomes of cloudy pixels, which in any case count for nothing in range, fit, registration and "
            "changes: they are upscaled as they are and marked in the source map, or are nodata."
        ),
    ] = "keep"

    @property
    def file(self) -> str | None:
        """The layer's file, None where none is named."""
        from geo_refdiff.raster.clouds import NamedLayer

        return None if self.cloud_mask in (AUTO, NONE) else NamedLayer.of(self.cloud_mask).path


class OutputOptions(Options, frozen=True, kw_only=True):
    """What is written."""

    products: Annotated[
        tuple[Product, ...],
        Option(
            help="What is written beside the output: source (where each pixel's detail comes from), style (for QGIS), "
            "stac, quicklook, report (a page for people: pictures, what was decided, and whether promises are kept).",
            metavar="P,P,...|all|none",
            parse=chosen_products,
        ),
    ] = USUAL_PRODUCTS
    uncertainty: Annotated[
        int | None,
        Option(
            help="Also write NAME.uncertainty.tif, half-widths of 90 % intervals, from this many runs with different "
            "noise.",
            metavar="RUNS",
            low=2,
            high=MAX_RUNS,
            give=f"a number of runs from 2 to {MAX_RUNS}",
        ),
    ] = None
    scene_date: Annotated[
        str | None,
        Option(
            help="When the scene was taken, for the STAC item.",
            default="its metadata, its name, the file's time",
            metavar="DATE|FIRST/LAST",
            check=partial(asked_span, "--scene-date"),
        ),
    ] = None
    shard_size: Annotated[
        int | None,
        Option(
            help="Write GeoTIFFs of this many output pixels a side into NAME.shards, and NAME.vrt that refers to them; "
            "a multiple of the block size.",
            default="one GeoTIFF",
            metavar="PIXELS",
        ),
    ] = None


class ComputeOptions(Options, frozen=True, kw_only=True):
    """Where and in which portions the work is done."""

    group: ClassVar[str] = "Compute"

    device: Annotated[str, Option(help="Where the model runs.", metavar="auto|cpu|cuda[:N]")] = "auto"
    dtype: Annotated[
        Dtype,
        Option(
            help="Floating-point type in which the network's layers compute; auto: bfloat16 where the device is made "
            "for it and the model says that it costs no quality.",
            parse=_long_dtype,
        ),
    ] = "auto"
    window: Annotated[
        int | None,
        Option(
            help="Side of the windows that the model sees at once, output pixels.",
            default="the model's",
            metavar="PIXELS",
            low=1,
            give="at least 1 pixel",
        ),
    ] = None
    overlap: Annotated[
        int | None,
        Option(help="Cross-fade between windows, output pixels.", default="the model's", metavar="PIXELS"),
    ] = None
    batch_size: Annotated[
        int | None,
        Option(
            help="Windows computed together; changes no pixel on a CPU.",
            default="1 on a CPU, 8 on a GPU",
            metavar="N",
            low=1,
            give="1 or more",
        ),
    ] = None
    block_size: Annotated[
        int | None,
        Option(
            help="Side of the blocks that are finished and kept one by one, output pixels, a multiple of 16; changes "
            "no pixel.",
            default="2048",
            metavar="PIXELS",
        ),
    ] = None
    threads: Annotated[
        int | None,
        Option(
            help="CPU threads of each process; their number moves the last bits of results.",
            default="all cores",
            metavar="N",
            low=1,
            give="1 or more",
        ),
    ] = None


class RunOptions(Options, frozen=True, kw_only=True):
    """How one run of `upscale` begins and ends; no part of what it computes."""

    resume: Annotated[
        bool,
        Option(help="Continue with an unfinished run of the same inputs and options; begin one where there is none."),
    ] = False
    overwrite: Annotated[bool, Option(help="Replace an existing output or unfinished run.")] = False
    plan_only: Annotated[
        bool,
        Option(help="Check everything, write the plan (and OUT.run.toml, from the command line), compute nothing."),
    ] = False
    keep: Annotated[bool, Option(help="Keep the run's folder, with plan and blocks.")] = False


class CoregisterOptions(Options, frozen=True, kw_only=True):
    """How `coregister` moves a reference, and what it writes beside it."""

    mode: Annotated[RegistrationMode, Option(help="What may be done to the reference.")] = "auto"
    report: Annotated[
        str | None,
        Option(
            help="JSON report to write: the shift, the field, residuals before and after, every place with its "
            "reliability.",
            metavar="FILE",
        ),
    ] = None
    picture: Annotated[str | None, Option(help="PNG of the shifts to write.", metavar="FILE")] = None
    overwrite: Annotated[bool, Option(help="Replace existing outputs.")] = False


class DetectChangeOptions(Options, frozen=True, kw_only=True):
    """What `detect-change` writes."""

    grid: Annotated[
        Literal["scene", "output"],
        Option(help="Whose pixels the mask has: the scene's, or the output's of upscale, `scale` times finer."),
    ] = "scene"
    overwrite: Annotated[bool, Option(help="Replace existing outputs.")] = False


class CalibrateOptions(Options, frozen=True, kw_only=True):
    """What `calibrate` runs a model on."""

    root: Annotated[
        str | None,
        Option(help="Folder of the pairs' files.", default="that of the index, or GEO_REFDIFF_DATA", metavar="DIR"),
    ] = None
    scales: Annotated[
        tuple[int, ...],
        Option(
            help="Output pixels along a scene pixel.",
            metavar="N,N,...",
            parse=lambda value: comma_separated(value, int),
            fits=bool,
            give="whole numbers, as 8,16",
        ),
    ] = (8, 16)
    runs: Annotated[int, Option(help="Sampling runs for each tile, 2 to 64.", low=2, high=MAX_RUNS)] = 2
    places: Annotated[
        int,
        Option(help="How many places, spread over the data, 4 or more; half fit, half give the factors.", low=4),
    ] = 48
    overwrite: Annotated[bool, Option(help="Replace a calibration that the folder holds.")] = False


class SimulateOptions(Options, frozen=True, kw_only=True):
    """What `simulate` makes of a fine raster."""

    scale: Annotated[int, Option(help="Input pixels along an output pixel, 1 to 64.", low=1, high=MAX_SCALE)]
    preset: Annotated[
        str | None,
        Option(help="bicubic, area, default, sentinel-2 or landsat.", default="default", metavar="NAME"),
    ] = None
    recipe: Annotated[
        Any,
        Option(
            help="Instead of a preset, drawn once by --seed: sensor, published, a preset's name or a JSON file.",
            metavar="NAME|FILE.json",
        ),
    ] = None
    seed: Annotated[int, Option(help="Seed of the draw and of the noise.", low=0)] = 0
    noise: Annotated[
        float | None,
        Option(
            help="Standard deviation of the noise.",
            default="the recipe's",
            metavar="DN",
            low=0,
            give="a standard deviation in digital numbers, 0 or more",
        ),
    ] = None
    value_range: Annotated[
        tuple[float, float] | None,
        Option(
            help="Values that a recipe's noise and JPEG take for 0 and 255.",
            default="0 255",
            metavar="LOW HIGH",
            flag="--range",
            fits=lambda ends: math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1],
            give="two numbers, the lower one first",
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset is not None and self.recipe is not None:
            raise OptionError("both a preset and a recipe are given; choose one")


class Sources(Options, frozen=True):
    """What a batch chooses from; see `batch.catalogue.read_catalogue`."""

    scenes: Annotated[
        tuple[str, ...],
        Option(
            help="Scenes to choose from: files, a folder, an index (CSV, GeoPackage) or STAC (path or URL); may be "
            "given again.",
            metavar="SOURCE",
            flag="--scene",
            repeated=True,
        ),
    ]
    references: Annotated[
        tuple[str, ...],
        Option(help="References, named as scenes are.", metavar="SOURCE", flag="--ref", repeated=True),
    ] = ()
    masks: Annotated[
        tuple[str, ...],
        Option(
            help="Change masks, named as scenes are; or one file of polygons; auto compares scene and reference.",
            default="auto where there is a reference",
            metavar="SOURCE|auto|none",
            flag="--mask",
            repeated=True,
        ),
    ] = ()
    date: Annotated[
        str | None,
        Option(
            help="The scene nearest to a date, or only those within.", default="the latest", metavar="DATE|FIRST/LAST"
        ),
    ] = None
    ref_before: Annotated[
        str | None,
        Option(
            help="Only references older than this.",
            default="the latest before the scene, else the nearest",
            metavar="DATE",
        ),
    ] = None
    scene_asset: Annotated[
        str | None, Option(help="STAC assets of the scenes; several are stacked as bands.", metavar="KEY,...")
    ] = None
    ref_asset: Annotated[str | None, Option(help="STAC assets of the references.", metavar="KEY,...")] = None
    mask_asset: Annotated[str | None, Option(help="STAC assets of the masks.", metavar="KEY,...")] = None


class BatchOptions(Options, frozen=True, kw_only=True):
    """How `batch` runs; what is computed of each area is said by the options of `upscale`."""

    name_field: Annotated[
        str | None,
        Option(
            help="Field of the areas that names the outputs.", default="name, aoi, id, tile or grid_id", metavar="NAME"
        ),
    ] = None
    threads: Annotated[
        int | None,
        Option(
            help="CPU threads for one area; kept for the whole batch.",
            default="all; 1 for workers",
            metavar="N",
            group="Compute",
            low=1,
            give="1 or more",
        ),
    ] = None
    retry_failed: Annotated[bool, Option(help="Try areas that failed before once more.")] = False
    overwrite: Annotated[bool, Option(help="Start over; replace outputs that are there.")] = False
    report: Annotated[
        str | None,
        Option(help="HTML page to write: map, thumbnails, figures; replaces its own.", metavar="FILE"),
    ] = None


class ClusterOptions(Options, frozen=True, kw_only=True):
    """The workers that do the work; none of the first three: this process."""

    group: ClassVar[str] = "Cluster"

    workers: Annotated[
        int | None,
        Option(help="Do the work in N processes of this machine (needs dask).", metavar="N", low=1, give="1 or more"),
    ] = None
    scheduler: Annotated[
        str | None, Option(help="Do the work on an existing dask cluster.", metavar="tcp://HOST:PORT")
    ] = None
    scheduler_file: Annotated[str | None, Option(help="The same, with the address from a file.", metavar="FILE")] = None
    resources: Annotated[
        tuple[str, ...],
        Option(
            help="What a worker must have for a task: GPU=1.",
            metavar="NAME=N",
            flag="--resource",
            repeated=True,
            check=resource_amounts,
        ),
    ] = ()
    worker_wait: Annotated[
        float,
        Option(
            help="How long to wait while the cluster has no worker for the work.",
            metavar="MINUTES",
            low=0,
            give="minutes, 0 or more",
        ),
    ] = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        places = [v for v in (self.workers, self.scheduler, self.scheduler_file) if v is not None]
        if len(places) > 1:
            raise OptionError("give one of --workers, --scheduler and --scheduler-file")
        if self.resources and not places:
            raise OptionError("--resource needs workers: give --scheduler, --scheduler-file or --workers, too")

    @property
    def elsewhere(self) -> bool:
        """Whether the workers are those of an existing cluster, which may be other machines."""
        return self.scheduler is not None or self.scheduler_file is not None

    @property
    def used(self) -> bool:
        """Whether there are workers at all."""
        return self.elsewhere or self.workers is not None


class BatchClusterOptions(ClusterOptions, frozen=True, kw_only=True):
    """The workers of a batch."""

    split: Annotated[
        int, Option(help="Areas of more blocks are shared by all workers; 0 = never.", metavar="N", low=0)
    ] = 16


OnError = Literal["skip", "stop"]


_Only = Annotated[
    tuple[str, ...],
    Option(help="Take these places, or parts of their paths, alone.", metavar="NAME", repeated=True),
]
_Exclude = Annotated[
    tuple[str, ...],
    Option(help="Leave these places, or parts of their paths, out.", metavar="NAME", repeated=True),
]
_OnUnreadable = Annotated[
    OnError,
    Option(help="Whether pairs that are missing or unreadable are left out and listed, or stop the work."),
]


class IndexOptions(Options, frozen=True, kw_only=True):
    """How `index` pairs the dates under a folder."""

    root: Annotated[
        str | None,
        Option(help="Folder that the paths in the index are relative to.", default="the index's own", metavar="DIR"),
    ] = None
    pattern: Annotated[
        str | None,
        Option(
            help="Path of a date, e.g. '<city>/<place>/<year>' or '<date>/<place>'.",
            default="a folder is a place",
            metavar="TEMPLATE",
        ),
    ] = None
    split: Annotated[str, Option(help="Split to write, e.g. train, where the pattern gives none.", metavar="NAME")] = ""
    only: _Only = ()
    exclude: _Exclude = ()
    register: Annotated[bool, Option(help="Look for the shift between dates.")] = True
    on_error: _OnUnreadable = "skip"


class ReadOptions(Options, frozen=True, kw_only=True):
    """How the files of a data set are read."""

    bands: Annotated[
        tuple[str, ...],
        Option(help="Names of the bands wanted, in this order; empty: those of the first file.", parse=comma_separated),
    ] = ()
    classes: Annotated[
        tuple[str, ...], Option(help='Names of the classes that masks hold; class 0 is "no change".')
    ] = CLASSES
    pseudo_classes: Annotated[
        bool,
        Option(help="Land cover by rules where none is given and red, green, blue, nir are read."),
    ] = True
    pseudo_change: Annotated[
        bool, Option(help="Change by rules where no mask is given; else such a mask is 255, unknown.")
    ] = False
    match: Annotated[bool, Option(help="Move the reference onto the new date and fit its radiometry to it.")] = True
    clip: Annotated[bool, Option(help="Values beyond an index's low and high become 0 and 255.")] = True


class DatasetOptions(ReadOptions, frozen=True, kw_only=True):
    """How `open_dataset` opens a data set of pairs of dates."""

    root: Annotated[
        str | None,
        Option(
            help="Folder that the paths of an index are relative to.",
            default="the index's own if they are found there, else the environment variable GEO_REFDIFF_DATA",
        ),
    ] = None
    split: Annotated[
        str | None,
        Option(help="Take the pairs of this split alone.", default="all of an index; of a folder train"),
    ] = None
    only: _Only = ()
    exclude: _Exclude = ()
    on_error: _OnUnreadable = "skip"
    resident: Annotated[
        bool | Literal["auto"],
        Option(help='Hold the pixels in memory; "auto": if they take no more than `budget` bytes.'),
    ] = "auto"
    budget: Annotated[int, Option(help='Bytes of pixels that "auto" holds in memory at most.', low=0)] = 3 * 2**30
    class_map: Annotated[
        dict[str, int] | Literal["own"] | None,
        Option(help='Class names of a folder\'s labels -> index in CLASSES, or "own" to keep its classes.'),
    ] = None
    labels: Annotated[
        Literal["auto", "colour", "grey"],
        Option(help="Which labels of a folder in the layout of reference-based super-resolution are read."),
    ] = "auto"


class TrainOptions(Options, frozen=True, kw_only=True):
    """How `train` runs; what is learned, and from what, is in its configuration."""

    device: Annotated[Literal["auto", "cpu", "cuda"], Option(help="Where to compute.")] = "auto"
    resume: Annotated[bool, Option(help="Continue with the run in the folder; begin where there is none.")] = False
    overwrite: Annotated[bool, Option(help="Start over although the folder holds a run.")] = False
    dry_run: Annotated[bool, Option(help="Check configuration and data, make one batch, train nothing.")] = False


class DetectorOptions(Options, frozen=True, kw_only=True):
    """How `train-detector` trains."""

    steps: Annotated[int, Option(help="Optimizer steps.", low=1)] = 10_000
    width: Annotated[int, Option(help="Channels of the network.", low=1)] = 64
    rate: Annotated[
        float, Option(help="Learning rate at first.", fits=lambda rate: bool(rate > 0), give="a number above 0")
    ] = 3e-3
    init: Annotated[str | None, Option(help="Begin with the weights of this detector.", metavar="DIR")] = None


class OptionRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Options in several records, gathered from keywords and given out as such.

    Attributes:
        taken: names of the options of a record, where they are not all of it.
    """

    taken: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @classmethod
    def names(cls) -> dict[str, tuple[str, ...]]:
        """Names of the options, record by record."""
        return {f.name: cls.taken.get(f.name) or tuple(fields_of(f.type)) for f in msgspec.structs.fields(cls)}

    @classmethod
    def of(cls, **given: Any) -> Self:
        """From keywords.

        Raises:
            OptionError: an unknown name, with the nearest known one, or what a record does not take.
        """
        check_names(given, [name for some in cls.names().values() for name in some])
        return cls.among(given)

    @classmethod
    def among(cls, given: Mapping[str, Any]) -> Self:
        """The records made of those keywords that are their own."""
        names = cls.names()
        return cls(
            **{
                f.name: f.type(**{name: given[name] for name in names[f.name] if name in given})
                for f in msgspec.structs.fields(cls)
            }
        )

    def flat(self) -> dict[str, Any]:
        """The keywords that make it, each with its value."""
        return {name: getattr(getattr(self, part), name) for part, some in self.names().items() for name in some}


class UpscaleOptions(OptionRecords, frozen=True, kw_only=True):
    """All options of `upscale` that say what is computed and written, in records."""

    grid: GridOptions = GridOptions()
    mask: MaskOptions = MaskOptions()
    registration: RegistrationOptions = RegistrationOptions()
    sampling: SamplingOptions = SamplingOptions()
    radiometry: RadiometryOptions = RadiometryOptions()
    clouds: CloudOptions = CloudOptions()
    output: OutputOptions = OutputOptions()
    compute: ComputeOptions = ComputeOptions()


FIELDS: Mapping[str, Field] = {
    name: f for part in msgspec.structs.fields(UpscaleOptions) for name, f in fields_of(part.type).items()
}
"""All options by name."""


def check_names(given: Iterable[str], allowed: Iterable[str]) -> None:
    """Whether all names are options.

    Raises:
        OptionError: the first that is not, with the nearest one that is.
    """
    names = list(allowed)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"choose of {', '.join(names)}"
            raise OptionError(f"unknown option '{name}': {hint}")


_INDENTED: dict[str, Any] = {"initial_indent": " " * 4, "subsequent_indent": " " * 8}


def takes_options(fields: Mapping[str, Field]) -> Callable[[_F], _F]:
    """For a function with `**options`: the options in its signature and at the end of its docstring, names checked.

    Args:
        fields: the options that it takes, parameters of its own included.

    Raises:
        OptionError: (the function) an unknown name, with the nearest known one.
    """

    def described(function: _F) -> _F:
        signature = inspect.signature(function)

        @wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            check_names((name for name in given if name not in signature.parameters), fields)
            return function(*args, **given)

        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        more = [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=inspect.Parameter.empty if f.required else f.default
            )
            for f in fields.values()
            if f.name not in signature.parameters
        ]
        checked.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        lines = [textwrap.fill(f"{f.name}: {f.help}", 116, **_INDENTED) for f in fields.values()]
        checked.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Options:", *lines])
        return cast(_F, checked)

    return described


def as_forms() -> dict[str, dict[str, Any]]:
    """What a form needs to ask for each option, JSON-ready: flag, label, kind, default, choices and limits."""
    kinds = {int: "integer", float: "number"}
    return {
        name: {
            "flag": field.flag,
            "label": field.option.help.rstrip(".")
            + (f" (empty: {field.option.default})" if field.option.default else ""),
            "kind": "choice" if field.choices else kinds.get(field.kind, "text"),
            "default": list(field.default) if isinstance(field.default, tuple) else field.default,
            "choices": list(field.choices),
            "low": field.option.low,
            "high": field.option.high,
        }
        for name, field in FIELDS.items()
    }
