"""The training loop: EDM loss for the denoiser, plain losses for the mean estimate and the gate, all in one pass."""

from __future__ import annotations

import copy
import json
import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geo_refdiff.diffusion.checkpoint import save_model
from geo_refdiff.diffusion.denoiser import GuidedDenoiser
from geo_refdiff.diffusion.loss import draw_sigmas, edm_loss
from geo_refdiff.errors import GeoRefDiffError
from geo_refdiff.nn.compact import CompactNet, DetailBands, Guidance
from geo_refdiff.train.samples import Batch, SampleMaker


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; all of it goes into the model card.

    Attributes:
        minutes: wall time after which training stops; the learning rate falls to 0 by then (cosine).
        steps: steps after which it stops, if that comes first; None = time alone.
        batch: samples a step.
        rate: peak learning rate of Adam.
        warmup: steps of linear warm-up.
        ema: decay of the averaged weights.
        gradient_weight, gate_weight: of these losses beside the mean's L1 and the EDM loss, which have weight 1.
        p_mean, p_std: ln sigma ~ N(p_mean, p_std^2), model units.
        seed: of data and noise.
        save_minutes: time between saved models.
        device: "cpu" or "cuda".
        bf16: convolutions in bfloat16; losses, preconditioning and weights stay in float32.
    """

    minutes: float
    steps: int | None = None
    batch: int = 8
    rate: float = 3e-4
    warmup: int = 200
    ema: float = 0.999
    gradient_weight: float = 0.5
    gate_weight: float = 1.0
    p_mean: float = -2.4
    p_std: float = 1.2
    seed: int = 1
    save_minutes: float = 5.0
    bf16: bool = True
    device: str = "cpu"


def prefetched(maker: SampleMaker, batch: int, depth: int = 4) -> Iterator[Batch]:
    """Batches made by one thread ahead of their use, always in the same order."""
    waiting: queue.Queue[Batch | BaseException] = queue.Queue(depth)

    def produce() -> None:
        try:
            while True:
                waiting.put(maker.batch(batch))
        except BaseException as error:
            waiting.put(error)

    threading.Thread(target=produce, daemon=True, name="samples").start()
    while True:
        item = waiting.get()
        if isinstance(item, BaseException):
            raise item
        yield item


def losses(
    denoiser: GuidedDenoiser, bands: DetailBands, batch: Batch, recipe: Recipe, draw: torch.Generator
) -> dict[str, Tensor]:
    """The terms of the loss for one batch, each a scalar: mean (L1), gradient (L1), gate (L2), edm."""
    weight, scale = batch.weight, denoiser.sigma_data
    guidance: Guidance = denoiser.guidance(batch.lr, batch.ref, batch.mask)
    error = (batch.truth - guidance.mean) * weight
    rows, cols = error.diff(dim=-2), error.diff(dim=-1)
    whole = torch.ones_like(guidance.gate[:, :1])
    target = bands(batch.truth, whole)
    gated = torch.cat(
        [guidance.gate[:, k : k + 1] * part for k, part in enumerate(guidance.detail.chunk(2, dim=1))], dim=1
    )
    fixed = guidance._replace(mean=guidance.mean.detach())
    device = batch.truth.device
    sigma = draw_sigmas(len(batch.truth), p_mean=recipe.p_mean, p_std=recipe.p_std, generator=draw).to(device)
    noise = torch.randn(batch.truth.shape, generator=draw).to(device)
    edm = edm_loss(
        lambda x, s: denoiser(x, s, batch.lr, batch.ref, batch.mask, guidance=fixed),
        batch.truth,
        noise,
        sigma,
        scale,
        valid=weight.expand_as(batch.truth),
    )
    return {
        "mean": error.abs().mean() / scale,
        "gradient": recipe.gradient_weight * (rows.abs().mean() + cols.abs().mean()) / scale,
        "gate": recipe.gate_weight * ((target - gated) * weight.repeat(1, 2, 1, 1)).square().mean() / scale**2,
        "edm": edm,
    }


def train(
    network: CompactNet, config: dict[str, Any], maker: SampleMaker, recipe: Recipe, folder: Path, card: str
) -> Path:
    """Train a compact network and write model folders as it goes; the last one holds the averaged weights.

    Args:
        network: trained in place.
        config: of the model, as in config.json; written with the weights.
        maker: where batches come from.
        recipe: see `Recipe`.
        folder: model folder to write; `log.jsonl` lies in it, too.
        card: text of the model card.

    Returns:
        the folder.

    Raises:
        GeoRefDiffError: the loss is not finite; the last saved model stays.
    """
    torch.manual_seed(recipe.seed)
    draw = torch.Generator().manual_seed(recipe.seed)
    network.to(device=recipe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    denoiser = GuidedDenoiser(network, config).train()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    bands = DetailBands()
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    folder.mkdir(parents=True, exist_ok=True)
    begun = saved = time.monotonic()
    sums: dict[str, float] = {}
    for step, batch in enumerate(prefetched(maker, recipe.batch), start=1):
        elapsed = (time.monotonic() - begun) / 60.0
        share = max(elapsed / recipe.minutes, (step - 1) / recipe.steps if recipe.steps else 0.0)
        if share >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * min(1.0, step / recipe.warmup) * 0.5 * (1.0 + math.cos(math.pi * share))
        with torch.autocast(recipe.device, torch.bfloat16, enabled=recipe.bf16):
            terms = losses(denoiser, bands, batch.to(recipe.device), recipe, draw)
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            raise GeoRefDiffError(
                f"the loss is {float(total.detach())} at step {step}; the last saved model is {folder}"
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(recipe.ema, step / (step + 10.0))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, 1.0 - decay)
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term.detach())
        if step % 50 == 0:
            line = {"step": step, "minutes": round(elapsed, 2)}
            line |= {name: round(value / 50, 4) for name, value in sums.items()}
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            sums = {}
        if time.monotonic() - saved > 60.0 * recipe.save_minutes:
            saved = time.monotonic()
            save_model(folder, config | {"trained": asdict(recipe) | {"steps_done": step}}, average.state_dict(), card)
    save_model(folder, config | {"trained": asdict(recipe) | {"steps_done": step - 1}}, average.state_dict(), card)
    return folder
