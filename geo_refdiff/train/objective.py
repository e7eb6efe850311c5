"""What training minimises: EDM loss for the denoiser, plain losses for mean, gate and start, all in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geo_refdiff.diffusion.denoiser import Denoiser, GuidedDenoiser
from geo_refdiff.diffusion.loss import draw_sigmas, edm_loss
from geo_refdiff.nn.compact import DetailBands, Guidance
from geo_refdiff.train.config import TrainingConfig
from geo_refdiff.train.pixels import to_device
from geo_refdiff.train.samples import Batch

_CONTRAST = 30.0
"""DN^2 below which a wavelet magnitude counts as none."""
_SCALES = (1, 2, 3)


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
    a, b = (x.float().reshape(n * c, 1, h, w) * 127.5 for x in (image, truth))
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
    magnitudes and a little L1) and edm; for others edm alone.
    """

    def __init__(self, denoiser: Denoiser, config: TrainingConfig) -> None:
        super().__init__()
        self.denoiser, self.config = denoiser, config
        self.bands = DetailBands()

    def forward(self, batch: Batch, draw: torch.Generator) -> dict[str, Tensor]:
        if not isinstance(self.denoiser, GuidedDenoiser):
            return {"edm": self._edm(self.denoiser, batch, draw, {})}
        guidance: Guidance = self.denoiser.guidance(batch.lr, batch.ref, batch.mask)
        with torch.autocast(batch.truth.device.type, enabled=False):
            terms = self._plain(guidance, batch)
        part = max(1, round(len(batch.truth) * self.config.edm_share))
        few = _first(guidance._replace(mean=guidance.mean.detach()), part)
        terms["edm"] = self.config.edm_weight * self._edm(self.denoiser, batch.first(part), draw, {"guidance": few})
        return terms

    def _plain(self, guidance: Guidance, batch: Batch) -> dict[str, Tensor]:
        config, unit = self.config, self.denoiser.sigma_data
        mean, truth, weight = guidance.mean, batch.truth, batch.weight
        error = (truth - mean) * weight
        rows, cols = error.diff(dim=-2), error.diff(dim=-1)
        terms = {
            "mean": error.abs().mean() / unit,
            "gradient": config.gradient_weight * (rows.abs().mean() + cols.abs().mean()) / unit,
        }
        target = self.bands(truth, torch.ones_like(truth[:, :1]))
        gates = guidance.gate.repeat_interleave(truth.shape[1], dim=1)
        missed = (target - gates * guidance.detail) * weight.repeat(1, 2, 1, 1)
        terms["gate"] = config.gate_weight * missed.square().mean() / unit**2
        network: Any = self.denoiser.network
        if network.size.texture:
            start = network.plain_start(guidance._replace(mean=mean.detach()))
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
