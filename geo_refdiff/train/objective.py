"""What training minimises: the EDM loss of the denoiser, pixelwise losses of mean, gate and start, and perceptual and
adversarial losses of start and sample; all in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.diffusion.denoiser import Denoiser, GuidedDenoiser
from geo_refdiff.diffusion.loss import draw_sigmas, edm_loss
from geo_refdiff.errors import OptionError
from geo_refdiff.nn.compact import DetailBands, Guidance
from geo_refdiff.sensor.inverse import back_project
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.train.config import PerceptionConfig, TrainingConfig
from geo_refdiff.train.perceptual import (
    CHANNELS,
    Heads,
    Trunk,
    discriminator_loss,
    feature_distance,
    generator_loss,
    grain_distance,
    normalised,
    strength_distance,
    trunk_weights,
)
from geo_refdiff.train.pixels import to_device
from geo_refdiff.train.samples import Batch

_CONTRAST = 30.0
"""DN^2 below which a wavelet magnitude counts as none."""
_SCALES = (1, 2, 3)
_VIEW = 112
"""Side of the part of a crop that the trunk sees, pixels. It may be anywhere: were its pooling always at one phase of
the network's lattice, that lattice would show in the images."""
_PHASES = 8
_JUDGED = 1
"""First level that the discriminator sees: that at full resolution makes the network learn speckle."""
_FALSE_COLOUR = 0.25
"""Share of batches whose features are taken of near infrared, red, green."""
_NIR = 3


def wavelet_dissimilarity(image: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """1 - the mean similarity of local Haar magnitudes on scales of 2, 4 and 8 px, weighted where either has structure.

    Phase counts only through the places of the magnitudes, so texture of the right strength is rewarded where its exact
    form cannot be known; the similarity (2 a b + c) / (a^2 + b^2 + c) is that of structural similarity (Wang et al.
    2004) on wavelets, as in Reisenhofer et al. 2018.

    Args:
        image, truth: (N, C, H, W) model units.
        weight: (N, C, H, W) or what broadcasts to it, 0 = does not count.

    Returns:
        A scalar in 0..1.
    """
    n, c, h, w = truth.shape
    a, b = (x.float().reshape(n * c, 1, h, w) * BYTES.half_range for x in (image, truth))
    counts = weight.float().expand(n, c, h, w).reshape(n * c, 1, h, w)
    terms, total = [], []
    for turned in (False, True):
        structure = torch.maximum(_haar(a, 4, turned).abs(), _haar(b, 4, turned).abs()).detach() * counts
        for scale in _SCALES:
            p, q = _haar(a, scale, turned), _haar(b, scale, turned)
            p, q = (p.square() + 1e-3).sqrt(), q.abs()
            similarity = (2.0 * p * q + _CONTRAST) / (p.square() + q.square() + _CONTRAST)
            terms.append(((1.0 - similarity) * structure).sum())
            total.append(structure.sum())
    return torch.stack(terms).sum() / torch.stack(total).sum().clamp(min=1e-6)


def _haar(x: Tensor, scale: int, turned: bool) -> Tensor:
    """Haar response on 2^scale px at every pixel, DN: half against half, in the metric's measure from 4 px upwards."""
    size = 2**scale
    half = size // 2
    along, across = (3, 2) if turned else (2, 3)
    x = F.pad(x, (half, half - 1, half, half - 1), mode="replicate")
    x = _sums(_sums(x, across, size), along, half)
    n = x.shape[along] - half
    response: Tensor = (x.narrow(along, half, n) - x.narrow(along, 0, n)) / (size * half)
    return response * max(1.0, 2.0 ** (scale - 2))


def _sums(x: Tensor, dim: int, count: int) -> Tensor:
    """Sums of `count` (a power of two) neighbours along an axis, by doubling."""
    reach = 1
    while reach < count:
        n = x.shape[dim] - reach
        x = x.narrow(dim, 0, n) + x.narrow(dim, reach, n)
        reach *= 2
    return x


class Objective(nn.Module):
    """Batch -> the terms of the loss, each a scalar that already carries its weight.

    For networks with a mean estimate: mean (L1 and L1 of gradients), gate (L2 of the truth's detail), start (wavelet
    magnitudes and a little L1) and edm; with perception, of start and sample what `PerceptionConfig` says; for other
    networks edm alone.

    Args:
        denoiser: the network.
        config: weights.
        perception: weights of what needs the trunk.

    Attributes:
        heads: the discriminator, None without one; its loss is a term as well, which moves nothing else.

    Raises:
        OptionError: perception for a network without a start, or without the trunk's weights.
    """

    def __init__(self, denoiser: Denoiser, config: TrainingConfig, perception: PerceptionConfig) -> None:
        super().__init__()
        self.denoiser, self.config, self.perception = denoiser, config, perception
        self.bands = DetailBands()
        self.trunk: Trunk | None = None
        self.heads: Heads | None = None
        if perception.active:
            if not isinstance(denoiser, GuidedDenoiser) or len(denoiser.bands) < 3:
                raise OptionError("[perception] needs a compact network of red, green and blue: leave it out")
            self.trunk = Trunk(trunk_weights()).to(denoiser.device)
            if perception.adversarial > 0:
                self.heads = Heads(CHANNELS[_JUDGED:]).to(denoiser.device)

    def forward(self, batch: Batch, draw: torch.Generator, step: int) -> dict[str, Tensor]:
        if not isinstance(self.denoiser, GuidedDenoiser):
            return {"edm": self._edm(self.denoiser, batch, draw, {})}
        guidance: Guidance = self.denoiser.guidance(batch.lr, batch.ref, batch.mask)
        with torch.autocast(batch.truth.device.type, enabled=False):
            terms = self._pixelwise(guidance, batch)
        begin = guidance._replace(mean=guidance.mean.detach(), plain=guidance.plain.detach())
        part = round(len(batch.truth) * self.config.edm_share)
        if part or not self.trunk:
            few = _first(begin, max(part, 1))
            edm = self._edm(self.denoiser, batch.first(max(part, 1)), draw, {"guidance": few})
            terms["edm"] = self.config.edm_weight * edm
        if self.trunk is not None:
            made = [guidance.plain.float()]
            if self.perception.sample:
                made.append(self._sample(self.denoiser, begin, batch, draw))
            terms |= self._perceptual(self.trunk, made, batch, draw, step)
        return terms

    def _sample(self, denoiser: GuidedDenoiser, guidance: Guidance, batch: Batch, draw: torch.Generator) -> Tensor:
        """What a user gets of one evaluation from the start, before the correction towards the scene."""
        sigma = torch.full((len(batch.truth),), self.perception.sigma, device=batch.truth.device)
        noisy = denoiser.start(guidance) + self.perception.sigma * _normal(batch.truth, draw)
        sample: Tensor = denoiser(noisy, sigma, batch.lr, batch.ref, batch.mask, guidance=guidance)
        return sample.float()

    def _perceptual(
        self, trunk: Trunk, made: list[Tensor], batch: Batch, draw: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """Terms of starts and, behind them, samples if there are any; (N, C, H, W) each."""
        config, truth, n = self.perception, batch.truth, len(made)
        with torch.autocast(truth.device.type, enabled=False):
            projected = [self._corrected(image, batch) for image in made]
            counted = [truth + (x - truth) * batch.weight for x in projected]
            apart = (counted[-1] - truth).abs().mean() / self.denoiser.sigma_data
            images = torch.cat([truth, *counted])[:, self._shown(draw)]
        images = self._view(images, draw)
        with torch.no_grad():
            real = trunk(images[: len(truth)])
        features = trunk(images[len(truth) :])
        with torch.autocast(truth.device.type, enabled=False):
            sharp, wanted = normalised(features), normalised(real)
            starts, samples = ([f.chunk(n)[k] for f in sharp] for k in (0, -1))
            terms = {"fidelity": config.fidelity * apart}
            if config.start:
                terms["perceptual_start"] = config.start * feature_distance(starts, wanted)
            if config.sample:
                terms["perceptual"] = config.sample * feature_distance(samples, wanted)
            if config.strength:
                last = [f.chunk(n)[-1] for f in features]
                grain = grain_distance(images[n * len(truth) :], images[: len(truth)])
                terms |= {"strength": config.strength * strength_distance(last, real), "grain": config.strength * grain}
        if self.heads is not None:
            samples, wanted = samples[_JUDGED:], wanted[_JUDGED:]
            self.heads.requires_grad_(False)
            terms["adversarial"] = config.adversary(step) * generator_loss(self.heads(samples))
            self.heads.requires_grad_(True)
            terms["discriminator"] = discriminator_loss(self.heads(wanted), self.heads([f.detach() for f in samples]))
        return terms

    def _corrected(self, image: Tensor, batch: Batch) -> Tensor:
        """Images corrected towards their scenes as the product does it; a crop lacks what its border's pixels see."""
        parts = zip(image[:, None], batch.target[:, None], batch.sensors, strict=True)
        return torch.cat([back_project(x, lr, sensor, border=1) for x, lr, sensor in parts])

    def _view(self, images: Tensor, draw: torch.Generator) -> Tensor:
        """A part of the images at any phase."""
        for dim in (2, 3):
            side = min(_VIEW, images.shape[dim] - _PHASES)
            at = int(torch.randint(images.shape[dim] - side + 1, (1,), generator=draw))
            images = images.narrow(dim, at, side)
        return images

    def _shown(self, draw: torch.Generator) -> list[int]:
        """Which three bands the trunk sees."""
        false_colour = len(self.denoiser.bands) > _NIR and float(torch.rand(1, generator=draw)) < _FALSE_COLOUR
        return [_NIR, 0, 1] if false_colour else [0, 1, 2]

    def _pixelwise(self, guidance: Guidance, batch: Batch) -> dict[str, Tensor]:
        config, unit = self.config, self.denoiser.sigma_data
        mean, truth, weight = guidance.mean, batch.truth, batch.weight
        error = (truth - mean) * weight
        rows, cols = error.diff(dim=-2), error.diff(dim=-1)
        terms = {
            "mean": error.abs().mean() / unit,
            "gradient": config.gradient_weight * (rows.abs().mean() + cols.abs().mean()) / unit,
        }
        target = self.bands(truth)
        gates = guidance.gate.float().repeat_interleave(truth.shape[1], dim=1)
        missed = (target - gates * guidance.detail.float()) * weight.repeat(1, 2, 1, 1)
        terms["gate"] = config.gate_weight * missed.square().mean() / unit**2
        network: Any = self.denoiser.network
        if network.size.texture:
            start = guidance.plain.float()
            if config.wavelet_weight:
                terms["wavelet"] = config.wavelet_weight * wavelet_dissimilarity(start, truth, weight)
            terms["start"] = config.start_weight * ((truth - start) * weight).abs().mean() / unit
        return terms

    def _edm(self, denoiser: Denoiser, batch: Batch, draw: torch.Generator, options: dict[str, Any]) -> Tensor:
        sigma = draw_sigmas(len(batch.truth), p_mean=self.config.p_mean, p_std=self.config.p_std, generator=draw)
        noise = _normal(batch.truth, draw)
        return edm_loss(
            lambda x, s: denoiser(x, s, batch.lr, batch.ref, batch.mask, **options),
            batch.truth,
            noise,
            to_device(sigma, batch.truth.device),
            denoiser.sigma_data,
            valid=batch.weight.expand_as(batch.truth),
        )


def _normal(like: Tensor, draw: torch.Generator) -> Tensor:
    """Unit normal noise, drawn where it is used: drawing on a CPU would keep a GPU waiting."""
    if like.device.type == "cpu":
        return torch.randn(like.shape, generator=draw)
    there = torch.Generator(like.device).manual_seed(draw.initial_seed())
    return torch.randn(like.shape, generator=there, device=like.device)


def _first(guidance: Guidance, n: int) -> Guidance:
    prepared = tuple((None if a is None else a[:n], None if b is None else b[:n]) for a, b in guidance.prepared)
    parts = {name: getattr(guidance, name)[:n] for name in guidance._fields if name != "prepared"}
    return Guidance(**parts, prepared=prepared)
