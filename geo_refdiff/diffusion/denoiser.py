"""Preconditioning: from a plain network F to a denoiser D(x; sigma) of images in model units.

"EDM" is Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models" (arXiv 2206.00364).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from geo_refdiff.classes import UNKNOWN_CLASS
from geo_refdiff.diffusion.config import CompactConfig, ModelConfig
from geo_refdiff.errors import ModelError


def c_skip(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight of the noisy image in the output, EDM table 1: sd^2 / (s^2 + sd^2)."""
    return sigma_data**2 / (sigma**2 + sigma_data**2)


def c_out(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight of the network in the output, EDM table 1: s sd / sqrt(s^2 + sd^2)."""
    return sigma * sigma_data / (sigma**2 + sigma_data**2).sqrt()


def c_in(sigma: Tensor, sigma_data: float) -> Tensor:
    """Scale of the noisy image before the network, EDM table 1: 1 / sqrt(s^2 + sd^2)."""
    return 1.0 / (sigma**2 + sigma_data**2).sqrt()


def c_noise(sigma: Tensor) -> Tensor:
    """Noise level as the network sees it, EDM table 1: ln(s) / 4."""
    return sigma.log() / 4.0


@runtime_checkable
class GuidedNetwork(Protocol):
    """A network whose guidance depends on the conditions only, so that it is computed once a window.

    ``guidance(lr, ref, mask, start_only=False)`` gives what the passes share; calling the network with
    ``(x, c_noise, guidance)``, x (N, C, H, W) already scaled by c_in and c_noise (N,), gives F (N, C, H, W). Three
    methods are optional: ``base(guidance)`` gives the image around which noise is preconditioned (left out: zero),
    ``start(guidance)`` the image where sampling begins and ``mean(guidance)`` a mean estimate of the clean image (left
    out: the base), all (N, C, H, W) in model units. They take what ``start_only=True`` gives, too; calling the network
    does not.
    """

    def guidance(self, lr: Tensor, ref: Tensor, mask: Tensor, *, start_only: bool = False) -> Any: ...


class Denoiser(nn.Module):
    """D(x; sigma | lr, ref, mask): the estimate of the clean image, EDM equation 7.

    Attributes:
        config: of the model.
        sigma_data: standard deviation of images around the base, model units.
        receptive_field: radius in output pixels outside which nothing changes a pixel in ONE evaluation, None = the
            whole window.
        halo: output pixels to drop at each side of a window.
        multiple: height and width must be multiples of it.
        compute_dtype: in which autocast has the network's layers compute (bfloat16), None = the weights' dtype, which
            images, guidance and preconditioning keep.
    """

    def __init__(self, network: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        self.network = network
        self.compute_dtype: torch.dtype | None = None
        self.config = config
        self.sigma_data = config.sigma_data
        field = getattr(network, "receptive_field", None)
        self.receptive_field: int | None = None if field is None else int(field)
        self.multiple: int = int(getattr(network, "multiple", 1))
        whole = 32 if self.receptive_field is None else self.receptive_field
        self.halo = whole if config.halo is None else config.halo

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the image's channels."""
        return self.config.bands

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, and of what goes into the network and comes out: float32 (float64)."""
        return next(self.network.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device on which the network runs."""
        return next(self.network.parameters()).device

    def forward(self, x: Tensor, sigma: Tensor, lr: Tensor, ref: Tensor, mask: Tensor, **options: Any) -> Tensor:
        """Denoise x.

        Args:
            x: (N, C, H, W), the clean image plus sigma times unit normal noise, model units.
            sigma: (N,) or scalar, noise level in model units.
            lr: (N, C, H, W), the scene up-sampled to the output grid, model units.
            ref: (N, C, H, W), the reference, model units; NaN where it is missing.
            mask: (N, 1, H, W), class indices in an integer dtype, or whatever the network was trained with in a
                floating dtype.
            options: ``guidance``, for networks that have one.

        Returns:
            (N, C, H, W), float32 (float64 for a float64 network), model units.

        Raises:
            ModelError: on shapes that do not fit.
        """
        self._check(x, lr, ref, mask)
        return self._denoise(x, sigma, (lr, ref, mask), **options)

    def _denoise(self, x: Tensor, sigma: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        lr, ref, mask = plain_conditions(*conditions)
        x, level = self._levels(x, sigma)
        scaled, lr, ref, mask = c_in(level, self.sigma_data) * x, lr.to(x), ref.to(x), mask.to(x)
        with self._autocast():
            raw: Tensor = self.network(scaled, c_noise(level).flatten(), lr, ref, mask)
        return c_skip(level, self.sigma_data) * x + c_out(level, self.sigma_data) * raw.to(x.dtype)

    def _levels(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x and sigma (N, 1, 1, 1) in the dtype of the preconditioning."""
        level = torch.as_tensor(sigma, device=x.device).to(self.dtype).reshape(-1, 1, 1, 1)
        return x.to(self.dtype), level.expand(x.shape[0], 1, 1, 1)

    def _autocast(self) -> AbstractContextManager[object]:
        """Layers compute in `compute_dtype`; without one a caller's own autocast stays."""
        if self.compute_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.compute_dtype)

    def _check(self, x: Tensor, lr: Tensor, ref: Tensor, mask: Tensor) -> None:
        channels, size = len(self.bands), x.shape[-2:]
        wanted = (x.shape[0], channels, *size)
        for name, tensor, shape in (
            ("x", x, wanted),
            ("lr", lr, wanted),
            ("ref", ref, wanted),
            ("mask", mask, (x.shape[0], 1, *size)),
        ):
            if tuple(tensor.shape) != shape:
                raise ModelError(f"{name} has shape {tuple(tensor.shape)}, the model needs {shape} (N, C, H, W)")
        if size[0] % self.multiple or size[1] % self.multiple:
            raise ModelError(
                f"a window of {size[0]} x {size[1]} pixels does not fit: the model needs multiples of {self.multiple}"
            )


class GuidedDenoiser(Denoiser):
    """A denoiser over a `GuidedNetwork`: guidance once a window, evaluations as often as needed.

    With a base image b (from ``network.base``) the noise is preconditioned around it: D(x) = b + c_skip (x - b) +
    c_out F(c_in (x - b)), EDM equation 7 for the residual x - b, whose standard deviation is sigma_data.
    """

    def guidance(self, lr: Tensor, ref: Tensor, mask: Tensor, *, start_only: bool = False) -> Any:
        """What all evaluations of one window share; shapes as in `Denoiser.forward`.

        Args:
            start_only: leaves out what only evaluations need.
        """
        self._check(lr, lr, ref, mask)
        held = mask.to(self.dtype) if mask.is_floating_point() else mask
        with self._autocast():
            conditions = (lr.to(self.dtype), ref.to(self.dtype), held)
            return self.network.guidance(*conditions, start_only=start_only)  # type: ignore[operator]

    def start(self, guidance: Any) -> Tensor:
        """The image where sampling begins, (N, C, H, W), model units; ModelError where the network has none."""
        if not self.has_start:
            raise ModelError(
                "this model has no mean estimate to start from: choose the heun, euler or dpmpp-2m sampler"
            )
        mean: Tensor = self.network.start(guidance)  # type: ignore[operator]
        return mean

    @property
    def around_start(self) -> bool:
        """Whether noise is preconditioned around the start: samples then stay near it whatever they begin with."""
        return isinstance(self.config, CompactConfig) and self.config.network.around_start

    @property
    def has_start(self) -> bool:
        """Whether `start` gives a mean estimate."""
        return hasattr(self.network, "start")

    def _denoise(self, x: Tensor, sigma: Tensor, conditions: tuple[Tensor, ...], guidance: Any = None) -> Tensor:
        if guidance is None:
            guidance = self.guidance(*conditions)
        x, level = self._levels(x, sigma)
        base = self.base(guidance, x)
        residual = x - base
        scaled = c_in(level, self.sigma_data) * residual
        with self._autocast():
            raw: Tensor = self.network(scaled, c_noise(level).flatten(), guidance)
        estimate = c_skip(level, self.sigma_data) * residual + c_out(level, self.sigma_data) * raw.to(x.dtype)
        return base + estimate

    def mean(self, guidance: Any, x: Tensor) -> Tensor:
        """The network's mean estimate of the clean image, in shape and dtype of x; its base where it has none."""
        if not hasattr(self.network, "mean"):
            return self.base(guidance, x)
        mean: Tensor = self.network.mean(guidance)  # type: ignore[operator]
        return mean.to(x.dtype)

    def base(self, guidance: Any, x: Tensor) -> Tensor:
        """The image around which noise is preconditioned, in shape and dtype of x; zero where the network has none."""
        if not hasattr(self.network, "base"):
            return torch.zeros_like(x)
        base: Tensor = self.network.base(guidance)  # type: ignore[operator]
        return base.to(x.dtype)


def wrap_network(network: nn.Module, config: ModelConfig) -> Denoiser:
    """The denoiser class that fits the network."""
    if isinstance(network, Denoiser):
        return network
    return GuidedDenoiser(network, config) if isinstance(network, GuidedNetwork) else Denoiser(network, config)


def plain_conditions(lr: Tensor, ref: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Conditions for a network that knows neither missing references nor unknown classes, as the published one.

    A missing reference pixel (NaN) becomes the LR's; an integer mask becomes index / 255, with 0 (no change) for "no
    change known", which is how the published network was trained. Floating masks pass as they are.
    """
    ref = torch.where(torch.isnan(ref), lr.to(ref.dtype), ref)
    if not mask.is_floating_point():
        mask = torch.where(mask == UNKNOWN_CLASS, torch.zeros_like(mask), mask).to(lr.dtype) / 255.0
    return lr, ref, mask
