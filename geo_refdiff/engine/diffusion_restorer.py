"""The diffusion model as a restorer: start, sampler, noise that belongs to places."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from geo_refdiff.degrade.backproject import project
from geo_refdiff.degrade.resize import upsample
from geo_refdiff.degrade.sensor import SensorModel
from geo_refdiff.diffusion.denoiser import UNKNOWN_CLASS, Denoiser, GuidedDenoiser
from geo_refdiff.diffusion.noise import lattice_noise
from geo_refdiff.diffusion.samplers import SAMPLERS, heun, noisy_start, published_start
from geo_refdiff.diffusion.schedule import karras_sigmas, published_settings
from geo_refdiff.engine.restorers import LR_MARGIN, Conditions, without_margin
from geo_refdiff.errors import ModelError, OptionError
from geo_refdiff.grid.window import Window

BETTER_START = "better-start"
PUBLISHED = "published"
NAMES = (BETTER_START, *SAMPLERS, PUBLISHED)
"""Samplers that the user can name."""

_STEPS = {"heun": 18, "euler": 32, "dpmpp-2m": 20, BETTER_START: 2, PUBLISHED: 256}


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How a window is sampled; all of it is recorded in the plan.

    Attributes:
        name: "heun", "euler", "dpmpp-2m": from the LR plus noise at sigma_max; "better-start": from the
            model's mean estimate plus moderate noise, by Heun; "published": as the published code does, from
            the LR times sigma_max, with churn.
        steps: noise levels; 0 for "better-start" gives the mean estimate alone.
        sigma_start, sigma_min: first and last noise level above 0, model units.
        rho: exponent of the schedule.
        back_project: whether the result is back-projected to the LR.
    """

    name: str
    steps: int
    sigma_start: float
    sigma_min: float
    rho: float
    back_project: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def sampler_settings(denoiser: Denoiser, name: str | None, steps: int | None) -> SamplerSettings:
    """The settings asked for, with the model's own defaults.

    Raises:
        OptionError: an unknown sampler, or a number of steps that it cannot do.
        ModelError: "better-start" for a model without a mean estimate.
    """
    block = denoiser.sampler
    able = bool(getattr(denoiser, "has_start", False))
    default = str(block.get("name") or (BETTER_START if able else "heun"))
    chosen = (name or default).replace("_", "-")
    if chosen not in NAMES:
        raise OptionError(f"unknown sampler '{chosen}': choose {', '.join(NAMES)}")
    if chosen == PUBLISHED and denoiser.config.get("architecture", "published") != "published":
        raise OptionError(f"the {PUBLISHED} sampler is for published networks: choose {', '.join(NAMES[:-1])}")
    if chosen == BETTER_START and not able:
        raise ModelError(f"this model has no mean estimate to start from: choose {', '.join(SAMPLERS)}")
    preset = block.get("steps") if chosen == default else None
    count = int(steps if steps is not None else preset if preset is not None else _STEPS[chosen])
    least = 0 if chosen == BETTER_START else 1
    if not least <= count <= 1000:
        raise OptionError(f"steps {count}: the {chosen} sampler takes {least} to 1000")
    sigma_start = float(block.get("sigma_start", 1.0)) if chosen == BETTER_START else denoiser.sigma_max
    return SamplerSettings(
        chosen, count, sigma_start, denoiser.sigma_min, denoiser.rho, bool(denoiser.config.get("back_project", False))
    )


class DiffusionRestorer:
    """A denoiser, run by a sampler on each window.

    On the CPU windows are sampled one by one, so that the batch size cannot change a bit.

    Args:
        denoiser: in eval mode, on its device.
        settings: from `sampler_settings`.
        sensor: the declared operator.
        seed: of the noise.
        channels: for each channel of the model the band of the scene, None where the scene lacks it (0 in model units).
        name: as the user calls the model.
    """

    local = False
    model_units = True
    uses_reference = True
    uses_mask = True

    def __init__(
        self,
        denoiser: Denoiser,
        settings: SamplerSettings,
        sensor: SensorModel,
        seed: int,
        channels: tuple[int | None, ...],
        name: str,
    ) -> None:
        self.denoiser, self.settings, self.sensor, self.seed = denoiser, settings, sensor, seed
        self.channels, self.name = channels, name
        self.halo, self.multiple = denoiser.halo, denoiser.multiple
        config = denoiser.config
        self.window = _size(config, "window", int(config.get("img_resolution", 512)))
        self.overlap = _size(config, "overlap", 32)
        plain = settings.steps == 0 or settings.name == PUBLISHED
        self.noise_channels = 0 if plain else len(denoiser.bands)

    def restore(self, batch: Conditions) -> Tensor:
        """(N, C, H, W) float32 on the CPU, model units."""
        if self.denoiser.device.type == "cpu":
            return torch.cat([self._restore(batch.take([n])) for n in range(len(batch.windows))])
        return self._restore(batch).cpu()

    def _restore(self, batch: Conditions) -> Tensor:
        device = self.denoiser.device
        scene_lr = self._to_model(batch.lr.to(device))
        lr = upsample(scene_lr, self.sensor.scale, LR_MARGIN)
        if batch.ref is None:
            ref = torch.full_like(lr, math.nan)
        else:
            ref = self._to_model(batch.ref.to(device))
            ref = torch.where(torch.isnan(ref).any(dim=1, keepdim=True), math.nan, ref)
        shape = (lr.shape[0], 1, *lr.shape[-2:])
        if batch.mask is None:
            mask = torch.full(shape, UNKNOWN_CLASS, dtype=torch.uint8, device=device)
        else:
            mask = batch.mask.to(device)
        image = self._sample(lr, ref, mask, batch).to(torch.float32)
        if self.settings.back_project:
            image = project(image, without_margin(scene_lr), self.sensor)
        return self._to_scene(image)

    def _sample(self, lr: Tensor, ref: Tensor, mask: Tensor, batch: Conditions) -> Tensor:
        denoiser, settings = self.denoiser, self.settings
        options: dict[str, Any] = {}
        if isinstance(denoiser, GuidedDenoiser):
            options["guidance"] = denoiser.guidance(lr, ref, mask)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            result: Tensor = denoiser(x, sigma, lr, ref, mask, **options)
            return result

        if settings.name == PUBLISHED:
            return self._published(denoise, lr, batch.windows)
        base = lr
        if settings.name == BETTER_START and isinstance(denoiser, GuidedDenoiser):
            base = denoiser.start(options["guidance"])
        if settings.steps == 0:
            return base
        if batch.noise is None:
            raise ValueError("the conditions carry no noise")
        start = noisy_start(base, settings.sigma_start, batch.noise.to(lr.device))
        sigmas = karras_sigmas(settings.steps, settings.sigma_min, settings.sigma_start, settings.rho, lr.device)
        sampler = heun if settings.name == BETTER_START else SAMPLERS[settings.name]
        return sampler(denoise, start, sigmas)

    def _published(self, denoise: Any, lr: Tensor, windows: tuple[Window, ...]) -> Tensor:
        published = published_settings(self.denoiser.config)

        def noise(step: int) -> Tensor:
            drawn = [torch.from_numpy(lattice_noise(w, lr.shape[1], self.seed, step + 1)) for w in windows]
            return torch.stack(drawn).to(lr.device)

        return heun(
            denoise,
            published_start(lr, published.sigma_max),
            published.sigmas(self.settings.steps, lr.device),
            noise=noise,
            s_churn=published.s_churn,
            s_min=published.s_min,
            s_max=published.s_max,
            s_noise=published.s_noise,
        )

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


def _size(config: Mapping[str, Any], key: str, default: int) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ModelError(f"the model's config has {key} = {value!r}; it must be a whole number of pixels")
    return value
