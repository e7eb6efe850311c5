"""The published network against the files of the public code, and against oracles written here."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.diffusion.checkpoint import load_denoiser
from geo_refdiff.diffusion.denoiser import Denoiser
from geo_refdiff.diffusion.samplers import heun, published_start
from geo_refdiff.nn.published import PublishedUNet
from geo_refdiff.nn.published_blocks import PositionalEmbedding, PublishedFeatureTransform, UNetBlock

SMALL = {
    "img_resolution": 16,
    "img_channels": 3,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.0,
}


@pytest.fixture(scope="module")
def golden() -> tuple[Denoiser, dict[str, Tensor]]:
    default = Path(__file__).parents[2].parent / "shared" / "spec" / "golden" / "a"
    folder = Path(os.environ.get("GEO_REFDIFF_GOLDEN", default))
    if not (folder / "tensors.safetensors").is_file():
        pytest.skip(f"no files of the public code at {folder}; set GEO_REFDIFF_GOLDEN to their folder")
    return load_denoiser(folder), load_file(folder / "tensors.safetensors")


KNOWN = [
    *(-0.029775, 0.310064, 0.541554),
    *(-0.027305, 0.391636, 0.646201),
    *(-0.024226, 0.568459, 0.875321),
    *(0.001497, 0.480517, 0.734115),
]


def relative(found: Tensor, wanted: Tensor) -> float:
    """The larger of the relative errors in norm and in maximum."""
    error = found - wanted
    return max(float(error.norm() / wanted.norm()), float(error.abs().max() / wanted.abs().max()))


def filled(network: torch.nn.Module) -> torch.nn.Module:
    """Weights from a formula: the same on every machine, in every version."""
    with torch.no_grad():
        for number, (_, value) in enumerate(sorted(network.named_parameters())):
            wave = torch.sin(torch.arange(value.numel(), dtype=torch.float64) * (0.7 + 0.01 * number) + number)
            fan = value[0].numel() if value.ndim > 1 else 4
            value.copy_((wave * (1.5 / math.sqrt(fan))).reshape(value.shape))
    return network.eval()


def pattern(*shape: int, pace: float) -> Tensor:
    return torch.cos(torch.arange(math.prod(shape), dtype=torch.float64) * pace).to(torch.float32).reshape(shape)


@torch.inference_mode()
def test_one_evaluation_as_the_public_code(golden):
    denoiser, t = golden
    assert relative(denoiser(t["x"], t["sigma"], t["lr"], t["ref"], t["mask"]), t["denoised"]) < 1e-4


@torch.inference_mode()
def test_heun_as_the_public_code(golden):
    denoiser, t = golden
    settings = denoiser.config.sampler

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, t["lr"], t["ref"], t["mask"])

    start = published_start(t["lr"], settings.sigma_max)
    assert relative(heun(denoise, start, settings.sigmas(6)), t["heun_6_steps"]) < 1e-4


@torch.inference_mode()
def test_churn_as_the_public_code(golden):
    denoiser, t = golden
    settings = denoiser.config.sampler

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, t["lr"], t["ref"], t["mask"])

    found = heun(
        denoise,
        published_start(t["lr"], settings.sigma_max),
        settings.sigmas(4),
        noise=lambda step: t["churn_noise"][step],
        s_churn=settings.S_churn,
        s_min=settings.S_min,
        s_max=settings.S_max,
        s_noise=settings.S_noise,
    )
    assert relative(found, t["churn_4_steps"]) < 1e-4


def test_published_widths_have_the_published_number_of_parameters():
    with torch.device("meta"):
        network = PublishedUNet()
    assert sum(value.numel() for value in network.parameters()) == 116_740_739
    assert network.multiple == 4
    assert network.receptive_field is None


def test_published_parameter_names():
    names = set(PublishedUNet(**SMALL).state_dict())
    for name in (
        "model.map_layer0.weight",
        "model.enc.16x16_conv.weight",
        "model.enc.8x8_down.conv0.resample_filter",
        "model.enc.8x8_block0.qkv.weight",
        "model.dec.8x8_in0.proj.bias",
        "model.dec.8x8_in1.sft0.mul_conv1.weight",
        "model.dec.8x8_block1.norm2.weight",
        "model.dec.16x16_up.skip.resample_filter",
        "model.dec.16x16_block1.sft1.add_conv2.bias",
        "model.dec.16x16_aux_norm.weight",
        "model.dec.16x16_aux_conv.bias",
    ):
        assert name in names
    assert "model.dec.8x8_block0.norm2.weight" not in names
    assert "model.dec.8x8_in1.qkv.weight" not in names
    assert "model.enc.16x16_block0.skip.weight" not in names
    assert "model.dec.8x8_aux_conv.weight" not in names


def test_attention_stands_where_the_training_size_says():
    wide = {name for name in PublishedUNet(**{**SMALL, "img_resolution": 32}).state_dict() if "qkv" in name}
    assert wide == {"model.dec.16x16_in0.qkv.weight", "model.dec.16x16_in0.qkv.bias"}


def test_output_of_known_weights():
    """Numbers from this implementation, at a time when it agreed with the public code to 2e-6."""
    network = filled(PublishedUNet(**SMALL))
    x, lr, ref = (pattern(2, 3, 16, 24, pace=pace) for pace in (0.9, 0.013, 0.21))
    mask = (pattern(2, 1, 16, 24, pace=0.05) > 0.5).float()
    with torch.inference_mode():
        out = network(x, torch.tensor([-0.6, 0.4]), lr, ref, mask)
    found = torch.cat([out[0, :, 0, 0], out[1, :, 7, 11], out[1, :, 15, 23], out.mean((0, 2, 3))])
    torch.testing.assert_close(found, torch.tensor(KNOWN), rtol=1e-4, atol=1e-5)


def test_runs_at_any_size_that_its_levels_divide():
    network = filled(PublishedUNet(**SMALL))
    for height, width in ((16, 16), (2, 6), (30, 18), (64, 8)):
        x = pattern(1, 3, height, width, pace=0.3)
        with torch.inference_mode():
            assert network(x, torch.zeros(1), x, x, x[:, :1]).shape == (1, 3, height, width)


def test_samples_of_a_batch_do_not_touch_each_other():
    network = filled(PublishedUNet(**SMALL))
    x = pattern(3, 3, 16, 16, pace=0.3)
    noise = torch.tensor([-1.0, 0.0, 1.0])
    with torch.inference_mode():
        together = network(x, noise, x.flip(2), x.flip(3), x[:, :1])
        alone = network(x[1:2], noise[1:2], x[1:2].flip(2), x[1:2].flip(3), x[1:2, :1])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-5)


def test_positional_embedding():
    found = PositionalEmbedding(6)(torch.tensor([0.5]))[0]
    wanted = [math.sin(0.5 * f) for f in (1, 1e-2, 1e-4)] + [math.cos(0.5 * f) for f in (1, 1e-2, 1e-4)]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_spatial_feature_transform_is_equation_3():
    sft = PublishedFeatureTransform(4, 8)
    filled(sft)
    features, condition = pattern(1, 8, 5, 6, pace=0.3), pattern(1, 4, 10, 12, pace=0.11)
    joined = torch.cat([features, condition[:, :, ::2, ::2]], dim=1)

    def branch(first: torch.nn.Conv2d, second: torch.nn.Conv2d) -> Tensor:
        h = F.conv2d(joined, first.weight, first.bias, padding=1)
        return F.conv2d(torch.maximum(h, 0.1 * h), second.weight, second.bias, padding=1)

    gamma = 1 / (1 + torch.exp(-branch(sft.mul_conv1, sft.mul_conv2)))
    torch.testing.assert_close(sft(features, condition), gamma * features + branch(sft.add_conv1, sft.add_conv2))


def test_attention_is_softmax_over_pixels():
    block = UNetBlock(8, 8, 16, attention=True)
    filled(block)
    x = pattern(2, 8, 3, 4, pace=0.37)
    with torch.no_grad():
        found = block._attend(x)
        q, k, v = block.qkv(block.norm2(x)).reshape(2, 8, 3, 12).unbind(2)
        weights = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(8)).softmax(dim=2)
        seen = torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape)
        wanted = (x + block.proj(seen)) * math.sqrt(0.5)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_resampling_is_by_a_box(direction):
    block = UNetBlock(8, 8, 16, direction=direction)
    x = pattern(1, 8, 4, 6, pace=0.37)
    with torch.no_grad():
        torch.nn.init.dirac_(block.skip.weight)
        torch.nn.init.zeros_(block.skip.bias)
        found = block.skip(x)
    wanted = F.interpolate(x, scale_factor=2, mode="nearest") if direction == "up" else F.avg_pool2d(x, 2)
    torch.testing.assert_close(found, wanted)


def test_dropout_only_in_training():
    network = filled(PublishedUNet(16, 3, 8, (1, 2), 1, (8,), 0.5))
    x = pattern(1, 3, 16, 16, pace=0.3)
    args = (x, torch.zeros(1), x, x, x[:, :1])
    with torch.no_grad():
        assert torch.equal(network(*args), network(*args))
        network.train()
        assert not torch.equal(network(*args), network(*args))
