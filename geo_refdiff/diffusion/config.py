"""config.json of a model: what it is made of and how it is used, as typed records that are decoded strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor

from geo_refdiff.diffusion.schedule import karras_sigmas
from geo_refdiff.errors import ModelError
from geo_refdiff.nn.compact import CompactSize
from geo_refdiff.records import decode
from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA

Channels = Annotated[int, Meta(ge=1, le=1 << 16)]
Pixels = Annotated[int, Meta(ge=0, le=1 << 16)]
Level = Annotated[float, Meta(gt=0, le=1e6)]
NotNegative = Annotated[float, Meta(ge=0, le=1e6)]
Names = Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(max_length=1 << 16)]
SomeNames = Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1, max_length=1 << 16)]


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """How a model is sampled unless the user says otherwise; noise levels in model units.

    Attributes:
        name: of the sampler, None = "better-start" for a model with a mean estimate, else "heun".
        steps: noise levels, None = the sampler's own number.
        sigma_start: first level of "better-start"; sigma_full: that of all detail (None = sigma_start).
        sigma_min, sigma_max, rho: the schedule's ends and exponent (EDM equation 5).
        S_churn, S_min, S_max, S_noise: the churn of the published sampler (EDM algorithm 2).
    """

    name: Annotated[str, Meta(max_length=40)] | None = None
    steps: Annotated[int, Meta(ge=0, le=1000)] | None = None
    sigma_start: Level = 1.0
    sigma_full: Level | None = None
    sigma_min: Level = 0.002
    sigma_max: Level = 80.0
    rho: Level = 7.0
    S_churn: NotNegative = 40.0
    S_min: NotNegative = 0.05
    S_max: NotNegative = 50.0
    S_noise: NotNegative = 1.003

    def sigmas(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """The schedule of n steps, (n + 1,) float64."""
        return karras_sigmas(n, self.sigma_min, self.sigma_max, self.rho, device)

    def churns(self, n: int) -> bool:
        """Whether any of n steps of the published sampler raises the noise level."""
        inside = any(self.S_min <= float(sigma) <= self.S_max for sigma in self.sigmas(n)[:-1])
        return inside and self.S_churn > 0 and self.S_noise > 0


@dataclass(frozen=True, slots=True)
class Init:
    """The model whose weights a training began with, and its SHA-256."""

    model: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ImportSource:
    """The published file that a model was imported from: its name, SHA-256, the part that was read, its step."""

    file: str
    sha256: str
    branch: str = ""
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyModelConfig:
    """What config.json says of a model of either architecture.

    Attributes:
        optional_bands: bands that a scene may lack.
        scales: factors that it knows; empty = any.
        sigma_data: standard deviation of images around the base, model units.
        halo: output pixels to drop at each side of a window; None = its receptive field, or 32 where it has none.
        receptive_field: radius in output pixels outside which nothing changes a pixel in one evaluation.
        window, overlap: output pixels; None = 512, or what the published network was trained on.
        back_project: whether results are back-projected to the scene.
        bfloat16: whether results stay as good in it.
        psf_sigma: of the sensor that it was made for, scene pixels.
        detail: amount of detail at which it is used.
        init, trained, provenance: how it came about.
    """

    optional_bands: Names = ()
    scales: tuple[Annotated[int, Meta(ge=1, le=64)], ...] = ()
    sigma_data: Level = 0.5
    halo: Pixels | None = None
    receptive_field: Annotated[int, Meta(ge=0, le=1 << 20)] | None = None
    window: Annotated[int, Meta(ge=1, le=1 << 16)] | None = None
    overlap: Pixels = 32
    back_project: bool = False
    bfloat16: bool = False
    psf_sigma: Annotated[float, Meta(ge=0, le=4)] = DEFAULT_PSF_SIGMA
    detail: Annotated[float, Meta(ge=0, le=1)] = 0.5
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    init: Init | None = None
    trained: dict[str, Any] = field(default_factory=dict)
    provenance: ImportSource | None = None

    def _check_names(self, **lists: tuple[str, ...]) -> None:
        """Whether names can be printed and are different."""
        for key, names in {**lists, "optional_bands": self.optional_bands}.items():
            wrong = [name for name in names if not name.isprintable()]
            if wrong or len(set(names)) < len(names):
                raise ValueError(f"{key} must be different names that can be printed")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactConfig(AnyModelConfig):
    """A model of the compact network.

    Attributes:
        bands: names of the image's channels.
        classes: names of the mask's classes, the first is no change.
        network: its size.
        copy_exponent: see `CompactNet`.
    """

    architecture: Literal["compact"] = "compact"
    bands: SomeNames
    classes: SomeNames
    network: CompactSize
    copy_exponent: Annotated[float, Meta(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        self._check_names(bands=self.bands, classes=self.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedConfig(AnyModelConfig):
    """A model of the published network; the options are those of its own code, see `PublishedUNet`.

    Attributes:
        bands: names of the image's channels; empty = red, green, blue, or band1, band2, ... where there are more.
        classes: names of the mask's classes; empty = any.
    """

    architecture: Literal["published"] = "published"
    bands: Names = ()
    classes: Names = ()
    img_resolution: Channels = 256
    img_channels: Channels = 3
    model_channels: Channels = 128
    channel_mult: Annotated[tuple[Channels, ...], Meta(min_length=1, max_length=16)] = (2, 2, 2)
    num_blocks: Annotated[int, Meta(ge=1, le=64)] = 4
    attn_resolutions: Annotated[tuple[Channels, ...], Meta(max_length=64)] = (16,)
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.2

    def __post_init__(self) -> None:
        if not self.bands:
            count = self.img_channels
            names = ("red", "green", "blue")[:count] if count <= 3 else tuple(f"band{n}" for n in range(1, count + 1))
            object.__setattr__(self, "bands", names)
        self._check_names(bands=self.bands, classes=self.classes)
        if len(self.bands) != self.img_channels:
            raise ValueError(f"bands names {len(self.bands)} for img_channels = {self.img_channels}")


ModelConfig = CompactConfig | PublishedConfig
_ARCHITECTURES: dict[str, type[CompactConfig] | type[PublishedConfig]] = {
    "compact": CompactConfig,
    "published": PublishedConfig,
}


_FORMER = frozenset({"gate_gain", "sharpen"})
"""Keys of models made before `copy_exponent`, which took their place; not read."""


def decode_config(raw: Mapping[str, Any], where: str = "the model's config") -> ModelConfig:
    """The record that config.json stands for.

    Args:
        raw: as read from JSON; without an `architecture` it is the published one.
        where: what an error calls it.

    Raises:
        ModelError: an unknown architecture or key, a value of the wrong type or out of its range.
    """
    architecture = raw.get("architecture", "published")
    kind = _ARCHITECTURES.get(architecture) if isinstance(architecture, str) else None
    if kind is None:
        raise ModelError(f"{where}: architecture is {repr(architecture)[:60]}: choose {', '.join(_ARCHITECTURES)}")
    try:
        return decode(kind, {key: raw[key] for key in raw if key not in _FORMER}, where, ModelError)
    except RecursionError:
        raise ModelError(f"{where}: it is nested too deeply") from None
