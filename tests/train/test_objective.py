"""The losses: what they are at their ends, what weights do, which part of a batch is denoised."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from geo_refdiff.diffusion.checkpoint import build_denoiser, decode_config
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.train.config import PerceptionConfig, TrainingConfig
from geo_refdiff.train.objective import Objective, wavelet_dissimilarity
from geo_refdiff.train.samples import Batch

CONFIG: dict[str, Any] = {
    "architecture": "compact",
    "bands": ["red", "green", "blue"],
    "classes": ["no change", "water"],
    "network": {"unshuffle": 2, "widths": [8, 8], "full_width": 4, "hidden": 8, "embedding": 8, "texture": True},
    "sigma_data": 0.14,
}


def image(seed: int, n: int = 2) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(ndimage.gaussian_filter(rng.normal(0, 1, (n, 3, 32, 32)), (0, 0, 1.5, 1.5))).float()


def batch(n: int = 4, weight: float = 1.0) -> Batch:
    truth = image(1, n)
    mask = torch.full((n, 1, 32, 32), 255, dtype=torch.uint8)
    sensors = (SensorModel(4),) * n
    target = SensorModel(4).observe(truth)
    weights, names = torch.full_like(truth, weight), ("a",) * n
    return Batch(truth, image(2, n), image(3, n), mask, weights, target, sensors, 4, names, ((),) * n)


def terms(made: Objective, of: Batch) -> dict[str, float]:
    return {name: float(term.detach()) for name, term in made(of, torch.Generator().manual_seed(1), 1).items()}


def objective(**training: Any) -> Objective:
    torch.manual_seed(0)
    return Objective(
        build_denoiser(decode_config(CONFIG)), replace(TrainingConfig(bf16=False), **training), PerceptionConfig()
    )


def test_wavelets_of_the_same_image_agree_and_of_other_places_do_not() -> None:
    one, other = image(1), image(2)
    everywhere = torch.ones_like(one)
    assert float(wavelet_dissimilarity(one, one, everywhere)) < 1e-4
    assert float(wavelet_dissimilarity(-one, one, everywhere)) < 1e-4  # magnitudes alone count
    flat = float(wavelet_dissimilarity(torch.zeros_like(one), one, everywhere))
    strange = float(wavelet_dissimilarity(other, one, everywhere))
    assert 0.1 < strange < flat <= 1.0
    half = everywhere.clone()
    half[..., :16] = 0
    mixed = torch.cat([other[..., :16], one[..., 16:]], dim=-1)
    assert float(wavelet_dissimilarity(mixed, one, half)) < 0.25 * strange


def test_terms_carry_their_weights() -> None:
    plain = terms(objective(), batch())
    assert set(plain) == {"mean", "gradient", "gate", "wavelet", "start", "edm"}
    names = ("gradient", "gate", "wavelet", "start", "edm")
    twice = {f"{name}_weight": 2 * getattr(TrainingConfig(), f"{name}_weight") for name in names}
    double = terms(objective(**twice), batch())
    for name in names:
        assert double[name] == pytest.approx(2 * plain[name], rel=1e-5)
    assert double["mean"] == plain["mean"]


def test_what_has_no_weight_does_not_count() -> None:
    whole = batch()
    hidden = torch.arange(32) < 8
    spoilt = replace(
        whole, truth=torch.where(hidden, 9.0, whole.truth), weight=torch.where(hidden, 0.0, whole.weight), scale=4
    )
    usual = replace(spoilt, truth=whole.truth)
    made = objective()
    one, other = terms(made, spoilt), terms(made, usual)
    for name in ("mean", "start"):
        assert one[name] == pytest.approx(other[name], rel=1e-5)


def test_the_edm_loss_takes_its_share_of_the_batch() -> None:
    seen: list[int] = []
    made = objective(edm_share=0.34)
    network: Any = made.denoiser.network
    network.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    made(batch(6), torch.Generator().manual_seed(1), 1)
    made.config = replace(made.config, edm_share=0.0)
    made(batch(6), torch.Generator().manual_seed(1), 1)
    assert seen == [2, 1]  # at least one


def test_gradients_reach_every_parameter() -> None:
    made = objective(edm_share=1.0)
    for _ in range(4):  # layers that begin with zeros let nothing through at first
        made.zero_grad()
        torch.stack(list(made(batch(), torch.Generator().manual_seed(1), 1).values())).sum().backward()
        with torch.no_grad():
            for parameter in made.parameters():
                assert parameter.grad is not None
                parameter -= 0.02 * parameter.grad.sign()
    dead = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead
