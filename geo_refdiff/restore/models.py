"""Models by name: the classical restorers, bundled models, model folders, models fetched by their URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo_refdiff.errors import ModelError, OptionError
from geo_refdiff.options import MAX_SCALE, SamplingOptions
from geo_refdiff.restore.restorers import CLASSICAL, Restorer
from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA, SensorModel

if TYPE_CHECKING:
    from geo_refdiff.diffusion.denoiser import Denoiser

_WHOLE = 0.02


@dataclass(frozen=True)
class Model:
    """A model, opened.

    Attributes:
        name: as the user calls it.
        sha256: of its files, "" for a classical restorer.
        bands: its channels; empty: any bands will do.
        optional_bands: those that a scene may lack.
        classes: of its masks; empty: any.
        needs_reference: whether it can do nothing without one.
        scales: factors that it knows; empty: any from 1 to 64.
        psf_sigma: of the sensor that it was made for, scene pixels.
        sampler: settings as the plan records them.
        make: (sensor, channels) -> restorer.
        folder: of its files, None for a classical restorer.
        source: the URL that it was fetched from, pinned to a commit or an SHA-256; "" = it was not.
        offline: why the copy in the cache was used unchecked, "" = it was not.
        device: where it runs; it may be opened on another one to plan for workers elsewhere.
        dtype: in which its layers compute.
    """

    name: str
    make: Callable[[SensorModel, tuple[int | None, ...]], Restorer]
    sha256: str = ""
    bands: tuple[str, ...] = ()
    optional_bands: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    needs_reference: bool = False
    scales: tuple[int, ...] = ()
    psf_sigma: float = DEFAULT_PSF_SIGMA
    sampler: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    source: str = ""
    offline: str = ""
    device: str = "cpu"
    dtype: str = "float32"

    def knows(self, scale: int) -> bool:
        """Whether this factor is one of the model's."""
        return not self.scales or scale in self.scales

    @property
    def scales_in_words(self) -> str:
        """In words: "model 'default' knows 4 to 16"."""
        low, high = min(self.scales), max(self.scales)
        whole = len(self.scales) > 2 and tuple(range(low, high + 1)) == self.scales
        return f"model '{self.name}' knows {f'{low} to {high}' if whole else ', '.join(map(str, self.scales))}"

    def way_out(self, scale: int) -> str:
        """What to do for a factor that the model does not know."""
        return f"for {scale} give --model matched-ref --scale {scale} (bicubic-ibp without a reference)"

    def check_scale(self, scale: int) -> None:
        """Whether the model knows this factor.

        Raises:
            ModelError: not one of the model's.
        """
        if not self.knows(scale):
            raise ModelError(f"scale {scale}: {self.scales_in_words}; {self.way_out(scale)}")

    def nearest_scale(self, ratio: float) -> int:
        """The factor that suits a reference `ratio` times finer than the scene.

        A whole ratio that the model knows as it is; for any other, as it comes from a reference in another CRS, the
        nearest power of two that the model knows, or else the nearest factor.
        """
        scales = self.scales or tuple(range(2, MAX_SCALE + 1))
        whole = round(ratio)
        if whole in scales and abs(ratio - whole) <= _WHOLE * ratio:
            return whole
        likely = [s for s in scales if s & (s - 1) == 0] or scales
        return min(likely, key=lambda s: abs(log2(s / ratio)))


def default_batch(device: str) -> int:
    """Windows that are restored together by default."""
    return 8 if device.startswith("cuda") else 1


def open_model(sampling: SamplingOptions, *, device: str = "cpu", dtype: str = "float32") -> Model:
    """Open a model by name, by folder, by URL, or from a function that makes a restorer; an open one is taken as it is.

    Args:
        sampling: the model, and how it is sampled.
        device, dtype: where and in what a network runs; "auto": as of `ComputeOptions`.

    Raises:
        ModelError: unknown, damaged, or not made for these options
        OptionError: a sampler, number of steps or detail that makes no sense, also any for a classical restorer.
    """
    model = sampling.model
    if isinstance(model, Model):
        return model
    if callable(model):
        factory = model
    elif str(model) in CLASSICAL:
        factory = CLASSICAL[str(model)]
    else:
        return _diffusion(sampling, device, dtype)
    name = str(getattr(factory, "name", "")) or getattr(factory, "__name__", "restorer")
    if sampling.sampler is not None or sampling.steps is not None or sampling.detail is not None:
        raise OptionError(f"model '{name}' is no diffusion model: leave out --sampler, --steps and --detail")
    needs_reference = bool(getattr(factory, "uses_reference", False))
    return Model(name, lambda sensor, channels: factory(sensor), needs_reference=needs_reference, device=device)


def _diffusion(sampling: SamplingOptions, device: str, dtype: str) -> Model:
    import torch

    from geo_refdiff.diffusion.checkpoint import bundled_models, load_denoiser, model_digest, resolve_model
    from geo_refdiff.diffusion.model_folder import read_config
    from geo_refdiff.diffusion.remote import fetch_model, is_model_url
    from geo_refdiff.nn.device import chosen_dtype
    from geo_refdiff.restore.diffusion import DiffusionRestorer, sampler_settings

    name, remote = str(sampling.model), fetch_model(sampling.model) if is_model_url(sampling.model) else None
    if remote is None and name not in bundled_models() and not Path(name).expanduser().exists():
        names = ", ".join([*sorted(bundled_models()), *CLASSICAL])
        raise ModelError(f"unknown model '{name}': give a model folder, a URL or one of {names}")
    folder = remote.folder if remote else resolve_model(name)
    dtype = chosen_dtype(dtype, device, bfloat16=read_config(folder).bfloat16)
    denoiser: Denoiser = load_denoiser(folder, device, getattr(torch, dtype))
    settings = sampler_settings(denoiser, sampling)
    config = denoiser.config
    label = remote.name if remote else name if name in bundled_models() else folder.expanduser().resolve().name

    def make(sensor: SensorModel, channels: tuple[int | None, ...]) -> Restorer:
        return DiffusionRestorer(denoiser, settings, sensor, channels, label)

    return Model(
        name=label,
        make=make,
        sha256=model_digest(folder),
        bands=denoiser.bands,
        optional_bands=config.optional_bands,
        classes=config.classes,
        scales=config.scales,
        psf_sigma=config.psf_sigma,
        sampler=settings.to_dict(),
        folder=folder,
        source=remote.source if remote else "",
        offline=remote.offline if remote else "",
        device=device,
        dtype=dtype,
    )
