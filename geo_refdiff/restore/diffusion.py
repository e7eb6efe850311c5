"""The diffusion model as a restorer: start, sampler, noise that belongs to places."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.diffusion.config import PublishedConfig, SamplerConfig
from geo_refdiff.diffusion.denoiser import Denoiser, GuidedDenoiser
from geo_refdiff.diffusion.noise import lattice_noise
from geo_refdiff.diffusion.samplers import SAMPLERS, heun, noisy_start, published_start
from geo_refdiff.diffusion.schedule import karras_sigmas
from geo_refdiff.errors import ModelError, OptionError
from geo_refdiff.options import SamplingOptions
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions
from geo_refdiff.restore.sources import NOTICEABLE, trace
from geo_refdiff.sensor.inverse import back_project
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel

BETTER_START = "better-start"
PUBLISHED = "published"
NAMES = (BETTER_START, *SAMPLERS, PUBLISHED)
"""Samplers that the user can name."""

_PLAIN_START = 0.5
"""The amount of detail at which a sample begins at the model's start with its sigma_start."""
_FULL_STEPS = 4
_STEPS = {"heun": 18, "euler": 32, "dpmpp-2m": 20, BETTER_START: 2, PUBLISHED: 256}


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How a window is sampled; all of it is recorded in the plan.

    Attributes:
        name: "heun", "euler", "dpmpp-2m": from the up-sampled scene plus noise at sigma_max; "better-start": from the
            model's mean estimate plus moderate noise, by Heun; "published": as the published code does, from
            the up-sampled scene times sigma_max, with churn.
        steps: noise levels; 0 for "better-start" gives the start without diffusion.
        sigma_start, sigma_min: first and last noise level above 0, model units.
        rho: exponent of the schedule.
        back_project: whether the result is back-projected to the scene.
        blend: "better-start" begins at mean + blend (start - mean); 0 = the conditional mean. Where noise is
            preconditioned around the start, what was sampled from it is blended with the mean instead.
        churn: noise that "published" adds between steps; None for the others.
    """

    name: str
    steps: int
    sigma_start: float
    sigma_min: float
    rho: float
    back_project: bool
    blend: float = 1.0
    churn: SamplerConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; of the churn what the other settings do not say: s_churn, s_min, s_max and s_noise."""
        settings = asdict(self)
        churn = settings.pop("churn") or {}
        return settings | {key.lower(): value for key, value in churn.items() if key.startswith("S_")}

    @property
    def noisy_start(self) -> bool:
        """Whether a sample begins with noise."""
        return self.steps > 0 and self.name != PUBLISHED

    @property
    def stochastic(self) -> bool:
        """Whether another seed gives another sample."""
        return self.noisy_start or (self.churn is not None and self.churn.churns(self.steps))


def sampler_settings(denoiser: Denoiser, asked: SamplingOptions) -> SamplerSettings:
    """The settings asked for, with the model's own defaults.

    Args:
        denoiser: the model.
        asked: `sampler`, `steps` (noise levels), and for "better-start" `detail`: 0 gives the conditional mean, up to
            0.5 more and more of the start's detail (with noise of up to the model's sigma_start), beyond that noise up
            to sigma_full: a sample.

    Raises:
        OptionError: an unknown sampler, or a number of steps or an amount of detail that it cannot do.
        ModelError: "better-start" for a model without a mean estimate.
    """
    config, block = denoiser.config, denoiser.config.sampler
    able = bool(getattr(denoiser, "has_start", False))
    default = block.name or (BETTER_START if able else "heun")
    chosen = asked.sampler or default
    if chosen not in NAMES:
        raise OptionError(f"unknown sampler '{chosen}': choose {', '.join(NAMES)}")
    if chosen == PUBLISHED and config.architecture != "published":
        raise OptionError(f"the {PUBLISHED} sampler is for published networks: choose {', '.join(NAMES[:-1])}")
    if chosen == BETTER_START and not able:
        raise ModelError(f"this model has no mean estimate to start from: choose {', '.join(SAMPLERS)}")
    preset = block.steps if chosen == default else None
    count = int(asked.steps if asked.steps is not None else preset if preset is not None else _STEPS[chosen])
    least = 0 if chosen == BETTER_START else 1
    if not least <= count <= 1000:
        raise OptionError(f"steps {count}: the {chosen} sampler takes {least} to 1000")
    back_project = config.back_project
    if chosen != BETTER_START:
        if asked.detail is not None:
            raise OptionError(f"the {chosen} sampler draws full samples: leave out --detail, or use {BETTER_START}")
        churn = block if chosen == PUBLISHED else None
        return SamplerSettings(chosen, count, block.sigma_max, block.sigma_min, block.rho, back_project, churn=churn)
    blend, sigma, more = _detailed(denoiser, asked.detail)
    if asked.steps is None and more is not None:
        count = more
    if sigma <= block.sigma_min:
        count = 0
    return SamplerSettings(chosen, count, sigma, block.sigma_min, block.rho, back_project, blend)


def _detailed(denoiser: Denoiser, detail: float | None) -> tuple[float, float, int | None]:
    """(blend, first noise level, steps or None for the model's own) of an amount of detail."""
    block = denoiser.config.sampler
    sigma = block.sigma_start
    full = max(sigma, block.sigma_full or sigma)
    amount = denoiser.config.detail if detail is None else detail
    around = isinstance(denoiser, GuidedDenoiser) and denoiser.around_start
    if amount <= _PLAIN_START:
        share = amount / _PLAIN_START
        return share, sigma if around and share > 0 else sigma * share, None
    share = (amount - _PLAIN_START) / (1.0 - _PLAIN_START)
    level = sigma * (full / sigma) ** share
    return 1.0, level, _FULL_STEPS if level > 2 * sigma else None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What all samples of some windows share.

    Attributes:
        batch: the conditions.
        lr: (N, C, H, W) the scene up-sampled, in the model's channels.
        ref: the same shape, NaN where missing.
        mask: (N, 1, H, W) uint8.
        guidance: of networks that have one.
        start: (N, C, H, W) of the model, for "better-start"; None for other samplers.
    """

    batch: Conditions
    lr: Tensor
    ref: Tensor
    mask: Tensor
    guidance: Any
    start: Tensor | None


class DiffusionRestorer:
    """A denoiser, run by a sampler on each window.

    Args:
        denoiser: in eval mode, on its device.
        settings: from `sampler_settings`.
        sensor: the declared operator.
        channels: for each channel of the model the band of the scene, None where the scene lacks it (0 in model units).
        name: as the user calls the model.
    """

    model_units = True
    uses_reference = True
    uses_mask = True

    def __init__(
        self,
        denoiser: Denoiser,
        settings: SamplerSettings,
        sensor: SensorModel,
        channels: tuple[int | None, ...],
        name: str,
    ) -> None:
        self.denoiser = denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.settings, self.sensor = settings, sensor
        self.channels, self.name = channels, name
        self.consistent = settings.back_project
        self.halo, self.multiple = denoiser.halo, denoiser.multiple
        self.finite = denoiser.receptive_field is not None
        config = denoiser.config
        self.window = config.window or (config.img_resolution if isinstance(config, PublishedConfig) else 512)
        self.overlap = config.overlap
        self.stochastic = settings.stochastic

    def prepare(self, batch: Conditions) -> _Prepared:
        """Guidance and start."""
        lr = upsample(self._to_model(batch.lr), self.sensor.scale, LR_MARGIN)
        if batch.ref is None:
            ref = torch.full_like(lr, math.nan)
        else:
            ref = self._to_model(batch.ref)
            ref = torch.where(torch.isnan(ref).any(dim=1, keepdim=True), math.nan, ref)
        mask = batch.mask
        if mask is None:
            mask = torch.full((len(lr), 1, *lr.shape[-2:]), UNKNOWN_CLASS, dtype=torch.uint8, device=lr.device)
        denoiser, settings = self.denoiser, self.settings
        guidance = start = None
        if isinstance(denoiser, GuidedDenoiser):
            guidance = denoiser.guidance(lr, ref, mask, start_only=settings.steps == 0)
            if settings.name == BETTER_START:
                start = denoiser.start(guidance)
        return _Prepared(batch, lr, ref, mask, guidance, start)

    def sample(self, prepared: _Prepared, seed: int) -> Tensor:
        """(N, C, H, W) float32, model units."""
        image = self._sample(prepared, seed).to(torch.float32)
        if self.settings.back_project and prepared.batch.project:
            image = back_project(image, self._to_model(prepared.batch.inner_lr), self.sensor)
        return self._to_scene(image)

    def restore(self, batch: Conditions) -> Tensor:
        """(N, C, H, W) float32, model units: a sample with the conditions' own seed."""
        return self.sample(self.prepare(batch), batch.seed)

    def trace(self, prepared: _Prepared, image: Tensor) -> Tensor:
        """What was copied from the reference, what the mean estimate adds, and what the image has beyond both."""
        copied, explained, learned = torch.zeros_like(image), prepared.lr, torch.zeros_like(image)
        leaning = torch.zeros_like(image[:, :1])
        denoiser, guidance, blend = self.denoiser, prepared.guidance, self.settings.blend
        if prepared.start is not None and isinstance(denoiser, GuidedDenoiser):
            mean = explained = denoiser.mean(guidance, prepared.lr)
            if hasattr(guidance, "copy"):
                fine, medium = guidance.detail.chunk(2, dim=1)
                parts = (guidance.copy[:, :1] * fine, guidance.copy[:, 1:] * medium)
                copied = blend * torch.cat([self._to_scene(part) for part in parts], dim=1)
                explained = mean + blend * (prepared.start - guidance.texture - mean)
                shows = guidance.detail.abs().amax(dim=1, keepdim=True) > NOTICEABLE  # a flat reference lends nothing
                leaning = guidance.gate.mean(dim=1, keepdim=True).to(image.dtype) * shows
            nothing = torch.zeros_like(self._to_model(prepared.batch.inner_lr))
            learned = self._to_scene(back_project(mean - prepared.lr, nothing, self.sensor))
        return trace(copied, image - self._to_scene(explained), learned, leaning)

    def _sample(self, prepared: _Prepared, seed: int) -> Tensor:
        denoiser, settings, lr = self.denoiser, self.settings, prepared.lr
        options: dict[str, Any] = {} if prepared.guidance is None else {"guidance": prepared.guidance}

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            result: Tensor = denoiser(x, sigma, lr, prepared.ref, prepared.mask, **options)
            return result

        def noise(step: int) -> Tensor:
            windows = prepared.batch.windows
            return torch.stack([lattice_noise(w, lr.shape[1], seed, step, lr.device) for w in windows])

        if settings.name == PUBLISHED:
            churn = settings.churn
            assert churn is not None
            return heun(
                denoise,
                published_start(lr, churn.sigma_max),
                churn.sigmas(settings.steps),
                noise=lambda step: noise(step + 1),
                s_churn=churn.S_churn,
                s_min=churn.S_min,
                s_max=churn.S_max,
                s_noise=churn.S_noise,
            )
        base, mean = lr, None
        if prepared.start is not None and isinstance(denoiser, GuidedDenoiser):
            base = prepared.start
            if settings.blend < 1.0:
                mean = denoiser.mean(prepared.guidance, base)
                if not denoiser.around_start or settings.steps == 0:
                    base, mean = torch.lerp(mean, base, settings.blend), None
        if settings.steps == 0:
            return base
        start = noisy_start(base, settings.sigma_start, noise(0))
        sigmas = karras_sigmas(settings.steps, settings.sigma_min, settings.sigma_start, settings.rho)
        sampler = heun if settings.name == BETTER_START else SAMPLERS[settings.name]
        sampled: Tensor = sampler(denoise, start, sigmas)
        return sampled if mean is None else torch.lerp(mean.to(sampled.dtype), sampled, settings.blend)

    def _to_model(self, image: Tensor) -> Tensor:
        """Scene bands -> the model's channels."""
        if self.channels == tuple(range(image.shape[1])):
            return image
        blank = torch.zeros_like(image[:, :1])
        return torch.cat([blank if c is None else image[:, c : c + 1] for c in self.channels], dim=1)

    def _to_scene(self, image: Tensor) -> Tensor:
        """The model's channels -> scene bands."""
        bands = [c for c in self.channels if c is not None]
        if self.channels == tuple(range(len(bands))):
            return image
        order = [self.channels.index(b) for b in sorted(bands)]
        return image[:, order]
