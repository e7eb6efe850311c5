"""The plan: everything that decides a pixel of the output, written down as JSON that people can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from odc.geo.geobox import GeoBox

from geo_refdiff.change.record import MaskRecord
from geo_refdiff.errors import ResumeError
from geo_refdiff.plan.coregistration import Coregistration
from geo_refdiff.plan.layout import BlockLayout, WindowLayout
from geo_refdiff.plan.plan_check import check_plan
from geo_refdiff.raster.gdal import one_line
from geo_refdiff.raster.geobox import crop, output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.models import Model
from geo_refdiff.restore.restorers import Restorer
from geo_refdiff.sensor.sensor import Kernel, SensorModel

Mode = Literal["strict", "standard", "off"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""How closely the output keeps to the scene, see `engine.consistency`."""

VERSION = 3
"""Version of the plan's format."""

THREADS = "torch_threads"
"""Key of the plan's software: threads that torch computes with. They move the last bits of convolutions, so a resumed
run takes over those of its plan."""

_NO_PIXELS = ("software", "blocks")
_NOT_IN_DIGEST = ("path", "mtime_ns")


PREDICTORS = ("constant", "spread", "reference", "generated", "gradient", "scene")
"""Energies, squares of model units: 1; variance over runs; of the detail taken from the reference; of generated detail
(both as of `sources.trace`); squared differences of neighbouring HR pixels; squared differences of neighbouring LR
pixels, enlarged. All are local means."""


@dataclass(frozen=True, slots=True)
class UncertaintyRecord:
    """How a run's uncertainty is computed; part of the plan.

    Attributes:
        runs: with other noise; 1 where the restorer draws none.
        coverage: share of pixels whose true value the interval is to hold; 0: the map is the plain spread.
        calibrated: whether the shares were fitted for these very weights, settings and scale.
        known: for each of `PREDICTORS` its share where the reference says something.
        unknown: the same elsewhere.
        factors: for each of the model's bands in the output, where the reference says something and elsewhere.
    """

    runs: int
    coverage: float
    calibrated: bool
    known: tuple[float, ...]
    unknown: tuple[float, ...]
    factors: tuple[tuple[float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        found = asdict(self)
        return found | {k: [list(f) if isinstance(f, tuple) else f for f in v] for k, v in found.items() if _many(v)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UncertaintyRecord:
        """The inverse of `to_dict`."""
        return cls(
            data["runs"],
            data["coverage"],
            data["calibrated"],
            tuple(data["known"]),
            tuple(data["unknown"]),
            tuple((known, unknown) for known, unknown in data["factors"]),
        )

    @property
    def meaning(self) -> str:
        """What a value of the map is."""
        if not self.coverage:
            return f"standard deviation over {self.runs} runs, not calibrated"
        told = "" if self.calibrated else ", calibrated for another model, setting or scale"
        return f"half-width of the {self.coverage:.0%} interval{told}"


def _many(value: Any) -> bool:
    return isinstance(value, list | tuple)


@dataclass(frozen=True, slots=True)
class Grid:
    """The output's grid.

    Attributes:
        scale: HR pixels along an LR pixel.
        origin: (row, col) of the scene's corner on the LR lattice.
        crop: what is worked on, in pixels of the scene.
        aoi: polygon in the scene's CRS as WKT, outside of which nothing is valid; None: all of `crop`.
    """

    scale: int
    origin: tuple[int, int]
    crop: Window
    aoi: str | None = None


@dataclass(frozen=True, slots=True)
class Bands:
    """Which bands play which part.

    Attributes:
        scene: 1-based bands of the scene, in the output's order.
        reference: those of the reference that belong to them; empty without a reference.
        names: their names, or "band N".
        channels: for each channel of the model the position in `scene`, None where the scene lacks it; empty:
            one to one.
        other: 1-based bands of the scene that the model does not know; they follow in the output.
        other_names: their names.
        weights: for each of `other` a weight for each of `scene`: how much of its detail goes over.
        fitness: for each of `other` the correlation of what the weights make of `scene` with it, 0..1.
    """

    scene: tuple[int, ...]
    reference: tuple[int, ...]
    names: tuple[str, ...]
    channels: tuple[int | None, ...] = ()
    other: tuple[int, ...] = ()
    other_names: tuple[str, ...] = ()
    weights: tuple[tuple[float, ...], ...] = ()
    fitness: tuple[float, ...] = ()

    @property
    def output(self) -> tuple[int, ...]:
        """1-based bands of the scene, as the output holds them."""
        return self.scene + self.other

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the output's bands."""
        return self.names + self.other_names


@dataclass(frozen=True, slots=True)
class Radiometry:
    """Digital numbers to model units: `(v - centre) / half_range`; the reference becomes `gain v + offset` before.

    Attributes:
        centre, half_range: of the scene, in its digital numbers; 0 and 1 for restorers that work in digital numbers.
        fill: per band, stands for pixels far from any valid one, digital numbers.
        gain, offset: per band, reference to scene; empty without a reference.
        correlation: per band, of reference and scene after the fit, -1..1.
        pixels: LR pixels that the fit rests on.
    """

    centre: float
    half_range: float
    fill: tuple[float, ...]
    gain: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    correlation: tuple[float, ...] = ()
    pixels: int = 0


@dataclass(frozen=True, slots=True)
class SensorRecord:
    """The declared sensor, and how strictly the output keeps to the scene as it sees it.

    Attributes:
        name: preset, or the width as the user gave it.
        kernel: as of `SensorModel`.
        sigmas: width of the PSF for each band of the output, LR pixels.
        consistency: see `engine.consistency`.
    """

    name: str
    kernel: Kernel
    sigmas: tuple[float, ...]
    consistency: Mode


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Which model: name, SHA-256 of its files ("" for a classical one), bands, classes and sampler settings."""

    name: str
    sha256: str = ""
    bands: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    sampler: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output:
    """How the output tells its pixels.

    Attributes:
        dtype: numpy name, the scene's.
        nodata: value of missing pixels (NaN for floating data), None if a mask tells them or nothing is missing.
        mask: whether an internal mask band tells missing pixels.
    """

    dtype: str
    nodata: float | None
    mask: bool


@dataclass(frozen=True)
class Plan:
    """A run, decided. Immutable; `to_dict` and `from_dict` go through JSON without loss.

    `source_map`: whether it is written where each pixel's detail comes from; `uncertainty`: how sure it is, None: not.
    """

    scene: RasterInfo
    reference: RasterInfo | None
    mask: MaskRecord | None
    grid: Grid
    bands: Bands
    windows: WindowLayout | None
    blocks: BlockLayout
    radiometry: Radiometry
    psf_sigma: float
    sensor: SensorRecord
    model: ModelRecord
    seed: int
    device: str
    dtype: str
    output: Output
    coregistration: Coregistration
    source_map: bool = False
    uncertainty: UncertaintyRecord | None = None
    software: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def target(self) -> GeoBox:
        """The whole scene's output grid, AOI or not."""
        return output_geobox(scene_geobox(self.scene), self.grid.scale)

    @cached_property
    def geobox(self) -> GeoBox:
        """The output's grid."""
        return crop(self.target, self.grid.crop.multiply(self.grid.scale))

    @cached_property
    def crs_name(self) -> str:
        """EPSG:N where the CRS has a number, else its WKT."""
        number = self.geobox.crs.to_epsg() if self.geobox.crs else None
        return self.scene.crs_wkt if number is None else f"EPSG:{number}"

    def restorer(self, model: Model) -> Restorer:
        """The restorer that the plan was made for, of a model opened anew."""
        sensor = SensorModel(self.grid.scale, self.psf_sigma, self.sensor.kernel)
        return model.make(sensor, self.bands.channels)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the output, pixels."""
        return self.grid.crop.height * self.grid.scale, self.grid.crop.width * self.grid.scale

    @property
    def lr_origin(self) -> tuple[int, int]:
        """(row, col) of the scene's corner on the LR lattice."""
        return self.grid.origin

    @property
    def sensors(self) -> tuple[SensorModel, ...]:
        """The declared sensor for each band of the output."""
        return tuple(SensorModel(self.grid.scale, sigma, self.sensor.kernel) for sigma in self.sensor.sigmas)

    def block(self, index: int) -> Window:
        """Block `index` in output pixels."""
        return self.blocks.window(index, self.shape)

    def on_lattice(self, window: Window) -> Window:
        """A window of output pixels on the HR lattice."""
        scale = self.grid.scale
        row, col = self.grid.origin[0] + self.grid.crop.row, self.grid.origin[1] + self.grid.crop.col
        return window.shift(row * scale, col * scale)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with what a reader wants to know of the grid spelled out."""
        height, width = self.shape
        inputs = {"scene": self.scene, "reference": self.reference, "mask": self.mask}
        nodata = self.output.nodata
        return {
            "version": VERSION,
            "inputs": {k: v.to_dict() if v else None for k, v in inputs.items()},
            "bands": _plain(asdict(self.bands)),
            "grid": {
                "crs": self.crs_name,
                "transform": [float(v) for v in self.geobox.affine[:6]],
                "shape": [height, width],
                "scale": self.grid.scale,
                "crop": _plain(asdict(self.grid.crop)),
                "lattice_origin": list(self.grid.origin),
                "aoi": self.grid.aoi,
            },
            "windows": asdict(self.windows) if self.windows else None,
            "blocks": asdict(self.blocks),
            "coregistration": self.coregistration.to_dict(),
            "radiometry": _plain(asdict(self.radiometry)),
            "sensor": {"psf_sigma": self.psf_sigma, **_plain(asdict(self.sensor))},
            "model": {
                "name": self.model.name,
                "sha256": self.model.sha256,
                "bands": list(self.model.bands),
                "classes": list(self.model.classes),
            },
            "sampler": dict(self.model.sampler),
            "seed": self.seed,
            "device": self.device,
            "dtype": self.dtype,
            "output": {
                "dtype": self.output.dtype,
                "nodata": str(nodata) if nodata is not None and not _finite(nodata) else nodata,
                "mask": self.output.mask,
                "source_map": self.source_map,
                "uncertainty": None if self.uncertainty is None else self.uncertainty.to_dict(),
            },
            "software": dict(self.software),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_dict`.

        Raises:
            ResumeError: another version of the format, or a field that is missing, wrong, or at odds with others.
        """
        if data.get("version") != VERSION:
            found = str(data.get("version"))[:20]
            raise ResumeError(
                f"the plan has format version {found}, this program writes {VERSION}; start anew with --overwrite"
            )
        try:
            plan = _parsed(data)
            check_plan(plan)
        except (AttributeError, ArithmeticError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ResumeError(
                f"the plan is damaged ({type(error).__name__}: {one_line(error)}); start anew with --overwrite"
            ) from error
        return plan

    def digest(self) -> str:
        """SHA-256 over all that decides the pixels, but for where the inputs lie and when they were written."""
        data = {k: v for k, v in self.to_dict().items() if k not in _NO_PIXELS}
        data["inputs"] = _without(data["inputs"], _NOT_IN_DIGEST)
        data["output"] = _without(data["output"], ("source_map", "uncertainty"))
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _parsed(data: Mapping[str, Any]) -> Plan:
    inputs, grid, model = data["inputs"], data["grid"], data["model"]
    scene, reference = (RasterInfo.from_dict(inputs[k]) if inputs[k] else None for k in ("scene", "reference"))
    if scene is None:
        raise ValueError("no scene")
    nodata, widths = data["output"]["nodata"], data["output"]["uncertainty"]
    return Plan(
        scene=scene,
        reference=reference,
        mask=MaskRecord.from_dict(inputs["mask"]) if inputs["mask"] else None,
        grid=Grid(grid["scale"], tuple(grid["lattice_origin"]), Window(**grid["crop"]), grid["aoi"]),
        bands=Bands(**_tuples(data["bands"])),
        windows=WindowLayout(**data["windows"]) if data["windows"] else None,
        blocks=BlockLayout(**data["blocks"]),
        radiometry=Radiometry(**_tuples(data["radiometry"])),
        psf_sigma=data["sensor"]["psf_sigma"],
        sensor=SensorRecord(**_tuples({k: v for k, v in data["sensor"].items() if k != "psf_sigma"})),
        model=ModelRecord(
            model["name"], model["sha256"], tuple(model["bands"]), tuple(model["classes"]), dict(data["sampler"])
        ),
        seed=data["seed"],
        device=data["device"],
        dtype=data["dtype"],
        output=Output(data["output"]["dtype"], None if nodata is None else float(nodata), data["output"]["mask"]),
        coregistration=Coregistration.from_dict(data["coregistration"]),
        source_map=data["output"]["source_map"],
        uncertainty=None if widths is None else UncertaintyRecord.from_dict(widths),
        software=dict(data["software"]),
    )


def _tuples(block: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _tuple(v) for k, v in block.items()}


def _tuple(value: Any) -> Any:
    return tuple(_tuple(v) for v in value) if isinstance(value, list) else value


def _plain(block: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _listed(v) for k, v in block.items()}


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


def _without(block: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Without some keys, at any depth."""
    return {k: _without(v, keys) if isinstance(v, Mapping) else v for k, v in block.items() if k not in keys}


def _finite(value: float) -> bool:
    return value == value and value not in (float("inf"), float("-inf"))
