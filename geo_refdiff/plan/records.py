"""The plan: everything that decides a pixel of the output, written down as JSON that people can read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from geo_refdiff.change.mask import MaskRecord
from geo_refdiff.options import CloudMode, Consistency
from geo_refdiff.plan.layout import BlockLayout, WindowLayout
from geo_refdiff.raster.displacement import Displacement
from geo_refdiff.raster.geobox import crop, output_geobox, scene_geobox
from geo_refdiff.raster.info import RasterInfo
from geo_refdiff.raster.nodata import in_dtype
from geo_refdiff.raster.window import Window
from geo_refdiff.registration.register import Registration
from geo_refdiff.restore.models import Model
from geo_refdiff.restore.restorers import Restorer
from geo_refdiff.sensor.resize import LOBES
from geo_refdiff.sensor.sensor import Kernel, SensorModel
from geo_refdiff.sensor.units import Units
from geo_refdiff.sensor.wiener import NoiseFilter
from geo_refdiff.signed_urls import unsigned

VERSION = 6
"""Version of the plan's format."""

THREADS = "torch_threads"
"""Key of the plan's software: threads that torch computes with. They move the last bits of convolutions, so a resumed
run takes over those of its plan."""

_NOT_OF_PIXELS = ("software", "blocks", "source_map", "uncertainty")
_NOT_OF_CONTENT = ("path", "mtime_ns", "vrt", "reference_names")


PREDICTORS = ("constant", "spread", "reference", "generated", "gradient", "scene")
"""Energies, squares of model units: 1; variance over runs; of the detail taken from the reference; of generated detail
(both as of `sources.trace`); squared differences of neighbouring output pixels; squared differences of neighbouring
scene pixels, enlarged. All are local means."""


@dataclass(frozen=True, slots=True)
class UncertaintyRecord:
    """How a run's uncertainty is computed; part of the plan.

    Attributes:
        runs: with other noise; 1 where the restorer draws none.
        coverage: share of pixels whose true value the interval is to hold; 0: the map is the plain spread.
        calibrated: whether the shares were fitted for these very weights, settings and scale.
        with_reference: for each of `PREDICTORS` its share where the reference says something.
        without_reference: the same elsewhere.
        factors: for each of the model's bands in the output, where the reference says something and elsewhere.
    """

    runs: int
    coverage: float
    calibrated: bool
    with_reference: tuple[float, ...]
    without_reference: tuple[float, ...]
    factors: tuple[tuple[float, float], ...]

    @property
    def meaning(self) -> str:
        """What a value of the map is."""
        if not self.coverage:
            return f"standard deviation over {self.runs} runs, not calibrated"
        doubt = "" if self.calibrated else ", calibrated for another model, setting or scale"
        return f"half-width of the {self.coverage:.0%} interval{doubt}"


@dataclass(frozen=True, slots=True)
class Grid:
    """The output's grid.

    Attributes:
        scale: output pixels along a scene pixel.
        origin: (row, col) of the scene's corner on the scene lattice.
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
        scene: 1-based bands of the scene that the model takes, in the scene's order or the user's.
        reference: those of the reference that belong to them; empty without a reference.
        names: their names, or "band N".
        reference_names: those of `reference`.
        channels: for each channel of the model the position in `scene`, None where the scene lacks it; empty:
            one to one.
        other: 1-based bands of the scene that the model does not know.
        other_names: their names.
        weights: for each of `other` a weight for each of `scene`: how much of its detail is transferred.
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
    reference_names: tuple[str, ...] = ()

    @property
    def computed(self) -> tuple[int, ...]:
        """1-based bands of the scene, as they are computed: the model's, then the others."""
        return self.scene + self.other

    @property
    def output(self) -> tuple[int, ...]:
        """1-based bands of the scene, as the output holds them: in the scene's order, unless the user gave another."""
        in_order = tuple(sorted(self.scene)) == self.scene
        return tuple(sorted(self.computed)) if in_order else self.computed

    @property
    def order(self) -> tuple[int, ...]:
        """For each band of the output its place among `computed`."""
        return tuple(self.computed.index(band) for band in self.output)

    def pairs(self, channels: Sequence[str]) -> list[dict[str, Any]]:
        """What belongs together, for each of `scene`: numbers and names, and the channel of a model with `channels`."""
        pairs: list[dict[str, Any]] = []
        for place, (band, name) in enumerate(zip(self.scene, self.names, strict=True)):
            at = self.channels.index(place) if channels and place in self.channels else None
            pairs.append({"scene": band, "name": name, "channel": None if at is None else channels[at]})
            if self.reference:
                pairs[-1] |= {"reference": self.reference[place], "reference_name": self.reference_names[place]}
        return pairs

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the output's bands."""
        return tuple((self.names + self.other_names)[place] for place in self.order)


@dataclass(frozen=True, slots=True)
class Coregistration:
    """How the reference, and the mask with it, is laid on the scene.

    Attributes:
        mode: as asked for: "auto", "global", "local" or "off".
        verdict: "registered", "off", or why it is not registered (see `registration.register`).
        kind: of the displacement: "none", "global" or "local".
        displacement: what the scene shows at p the reference shows at p + displacement; scene pixels from the scene's
            corner.
        sigma, before, after: standard error, and root mean square of the shifts before and after, scene px; None where
            unknown.
        dropped: parts of the scene, scene pixels, where the reference is not used because it is misaligned.
        unused: whether it is used nowhere for that reason.
    """

    mode: str
    verdict: str
    kind: str = "none"
    displacement: Displacement = field(default_factory=Displacement)
    sigma: float | None = None
    before: float | None = None
    after: float | None = None
    dropped: tuple[Window, ...] = ()
    unused: bool = False

    @staticmethod
    def of(
        registration: Registration, mode: str, dropped: tuple[Window, ...] = (), unused: bool = False
    ) -> Coregistration:
        """From what was measured."""
        r = registration
        sigma, before, after = (round(v, 4) if np.isfinite(v) else None for v in (r.sigma, r.before, r.after))
        return Coregistration(mode, r.verdict, r.kind, r.displacement, sigma, before, after, dropped, unused)

    def on_target(self, scale: int) -> Displacement | None:
        """The displacement in output pixels; None if nothing is displaced."""
        return None if self.displacement.is_zero else self.displacement.scaled(scale)

    def kept(self, window: Window, scale: int) -> NDArray[np.bool_] | None:
        """(height, width) True = the reference may be used; None: everywhere.

        Args:
            window: output pixels of the whole scene.
            scale: output pixels along a scene pixel.
        """
        parts = [p for p in (d.multiply(scale).intersect(window) for d in self.dropped) if p is not None]
        if not parts:
            return None
        kept = np.ones(window.shape, dtype=np.bool_)
        for part in parts:
            kept[part.within(window)] = False
        return kept


@dataclass(frozen=True, slots=True)
class Radiometry:
    """Digital numbers to model units: `(v - centre) / half_range`; the reference becomes `gain v + offset` before.

    Attributes:
        centre, half_range: of the scene, in its digital numbers; 0 and 1 for restorers that work in digital numbers.
        fill: per band, stands for pixels far from any valid one, digital numbers.
        gain, offset: per band, reference to scene; empty without a reference.
        correlation: per band, of reference and scene after the fit, -1..1.
        pixels: scene pixels that the fit rests on.
    """

    centre: float
    half_range: float
    fill: tuple[float, ...]
    gain: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    correlation: tuple[float, ...] = ()
    pixels: int = 0

    @property
    def units(self) -> Units:
        """Of the restorer."""
        return Units(self.centre, self.half_range)


@dataclass(frozen=True, slots=True)
class SensorRecord:
    """The declared sensor, and how strictly the output keeps to the scene as it sees it.

    Attributes:
        name: preset, or the width as the user gave it.
        kernel: as of `SensorModel`.
        sigmas: width of the PSF for each of `Bands.computed`, scene pixels.
        consistency: see `engine.consistency`.
        noise: standard deviation of the scene's noise for each computed band, digital numbers; 0 = exact.
        noise_components: mixtures of the bands with noise, see `sensor.wiener.components`.
    """

    name: str
    kernel: Kernel
    sigmas: tuple[float, ...]
    consistency: Consistency
    noise: tuple[float, ...]
    noise_components: tuple[tuple[float, ...], ...]

    @property
    def noise_filter(self) -> NoiseFilter | None:
        """What leaves the noise out of corrections to the scene; None where these are exact."""
        if self.consistency != "standard" or not any(self.noise):
            return None
        return NoiseFilter(self.noise, self.noise_components)


def correction_halo(sensor: SensorRecord, scale: int) -> int:
    """output px at each side of a window whose correction to the scene misses what is beyond: the reach of Lanczos'
    kernel, which spreads it, and of what the sensor sees there."""
    sees = max(-(-SensorModel(scale, sigma, sensor.kernel).reach // scale) for sigma in sensor.sigmas)
    return (sees + LOBES) * scale


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """Which model: name, SHA-256 of its files ("" for a classical one), bands, classes and sampler settings; the URL
    that it was fetched from, pinned ("" = none)."""

    name: str
    sha256: str = ""
    bands: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    sampler: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """Data type and nodata of the output.

    Attributes:
        dtype: numpy name, the scene's.
        nodata: value of missing pixels (NaN for floating data), None if a mask marks them or nothing is missing.
        mask: whether an internal mask band marks missing pixels.
    """

    dtype: str
    nodata: float | None
    mask: bool

    @classmethod
    def of(cls, scene: RasterInfo, *, more: bool) -> Self:
        """That of a scene's type; `more`: pixels are missing beyond the scene's own, as outside of a polygon."""
        dtype, nodata = np.dtype(scene.dtype), scene.nodata
        finite = scene.validity == "nodata" and nodata is not None and isfinite(nodata)
        if finite and nodata is not None and in_dtype(nodata, dtype) is not None:
            return cls(scene.dtype, nodata, False)
        if dtype.kind == "f" and scene.validity in ("nodata", "nan", "none"):
            return cls(scene.dtype, float("nan"), False)
        return cls(scene.dtype, None, scene.validity in ("alpha", "mask") or more)


@dataclass(frozen=True)
class Plan:
    """A run, decided. Immutable; goes through JSON without loss but of signatures of URLs (`to_dict`, `plan.file`).

    `clouds`: what becomes of the scene's cloudy pixels; `source_map`: whether it is written where each pixel's detail
    comes from; `uncertainty`: how sure it is, None: not.
    """

    scene: RasterInfo
    reference: RasterInfo | None
    mask: MaskRecord | None
    grid: Grid
    bands: Bands
    windows: WindowLayout
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
    clouds: CloudMode = "keep"
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
        """The restorer that the plan was made for, with its model opened again."""
        sensor = SensorModel(self.grid.scale, self.psf_sigma, self.sensor.kernel)
        return model.make(sensor, self.bands.channels)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the output, pixels."""
        return self.grid.crop.height * self.grid.scale, self.grid.crop.width * self.grid.scale

    @property
    def lr_origin(self) -> tuple[int, int]:
        """(row, col) of the scene's corner on the scene lattice."""
        return self.grid.origin

    @property
    def sensors(self) -> tuple[SensorModel, ...]:
        """The declared sensor for each of `bands.computed`."""
        return tuple(SensorModel(self.grid.scale, sigma, self.sensor.kernel) for sigma in self.sensor.sigmas)

    @property
    def scene_on_lattice(self) -> Window:
        """The whole scene on the scene lattice."""
        return Window(*self.grid.origin, self.scene.height, self.scene.width)

    def block(self, index: int) -> Window:
        """Block `index` in output pixels."""
        return self.blocks.window(index, self.shape)

    def on_lattice(self, window: Window) -> Window:
        """A window of output pixels on the output lattice."""
        scale = self.grid.scale
        row, col = self.grid.origin[0] + self.grid.crop.row, self.grid.origin[1] + self.grid.crop.col
        return window.shift(row * scale, col * scale)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `plan.file.parsed` is the inverse. Beside the records: version, and the output's CRS and grid.

        URLs come without their signatures, which do not belong into files and change from day to day.
        """
        data: dict[str, Any] = msgspec.to_builtins(self, builtin_types=())
        data = {"version": VERSION, **_as_json(data)}
        data["grid"] |= {"crs": self.crs_name, "transform": list(self.geobox.affine[:6]), "shape": list(self.shape)}
        return data

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that decides the pixels, but for paths and times of the inputs."""
        data = _without({k: v for k, v in self.to_dict().items() if k not in _NOT_OF_PIXELS}, _NOT_OF_CONTENT)
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    """Lists for tuples, text for numbers that JSON has not (NaN and the infinite ones), URLs without signatures."""
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, str):
        return unsigned(value)
    return value if not isinstance(value, float) or isfinite(value) else str(value)


def _without(block: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Without some keys, at any depth."""
    return {k: _without(v, keys) if isinstance(v, Mapping) else v for k, v in block.items() if k not in keys}
