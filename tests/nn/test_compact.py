"""The compact network: finite receptive field, states of the conditions, equation 3, sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from geo_refdiff.nn import strips
from geo_refdiff.nn.compact import CompactNet, CompactSize, one_hot, opened
from geo_refdiff.nn.layers import PixelNorm, SpatialFeatureTransform
from geo_refdiff.nn.receptive_field import receptive_radius

SMALL = CompactSize(widths=(8, 12, 16), full_width=4, hidden=8, embedding=8)


def network(size: CompactSize = SMALL, bands: int = 3, classes: int = 4) -> CompactNet:
    """A network whose every weight matters: nothing left at the zeros of its start."""
    torch.manual_seed(0)
    net = CompactNet(bands, classes, size)
    for parameter in net.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.2)
    return net.eval().requires_grad_(False)


def conditions(height: int = 64, width: int = 48, bands: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    lr, ref = (torch.randn(2, bands, height, width, generator=draw) * 0.3 for _ in range(2))
    mask = torch.randint(0, 4, (2, 1, height, width), generator=draw).to(torch.uint8)
    return lr, ref, mask


def evaluate(net: CompactNet, lr: torch.Tensor, ref: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    guidance = net.guidance(lr, ref, mask)
    x = torch.randn(lr.shape, generator=torch.Generator().manual_seed(2))
    return net(x, torch.full((len(lr),), -0.5), guidance) + net.start(guidance)


def test_every_condition_matters() -> None:
    net = network()
    lr, ref, mask = conditions()
    result = evaluate(net, lr, ref, mask)
    assert result.shape == lr.shape
    unknown, missing = torch.full_like(mask, 255), torch.full_like(ref, torch.nan)
    for other in (
        (lr + 0.1, ref, mask),
        (lr, ref + 0.1, mask),
        (lr, ref, unknown),
        (lr, ref, mask * 0),
        (lr, missing, mask),
    ):
        changed = evaluate(net, *other)
        assert torch.isfinite(changed).all()
        assert (changed - result).abs().mean() > 1e-4


def test_unknown_is_a_state_of_its_own() -> None:
    mask = torch.tensor([[[[0, 1], [3, 255]]]], dtype=torch.uint8)
    planes = one_hot(mask, 4, torch.float32)
    assert planes.sum(dim=1).tolist() == [[[1.0, 1.0], [1.0, 0.0]]]
    assert planes[0, 0, 0, 0] == planes[0, 1, 0, 1] == planes[0, 3, 1, 0] == 1.0


def test_a_missing_reference_pixel_poisons_nothing() -> None:
    net = network()
    lr, ref, mask = conditions()
    ref[:, :, 20:30, 10:20] = torch.nan
    guidance = net.guidance(lr, ref, mask)
    assert torch.isfinite(net.start(guidance)).all()
    assert (guidance.gate[:, :, 20:30, 10:20] == 0).all()
    ref[:, 1, 40, 40] = torch.nan  # one band alone: the pixel is missing
    assert (net.guidance(lr, ref, mask).gate[:, :, 40, 40] == 0).all()


def test_the_receptive_field_is_finite_and_no_larger_than_found() -> None:
    net = network()
    radius = receptive_radius(net, bands=3)
    size = 2 * radius + 64
    size += -size % net.multiple
    lr, ref, mask = (tensor[:1] for tensor in conditions(size, size))
    result = evaluate(net, lr, ref, mask)
    middle = size // 2
    for which in range(3):
        touched = [lr.clone(), ref.clone(), mask.clone()]
        touched[which][..., middle, middle] += 1
        difference = (evaluate(net, *touched) - result).abs().amax(dim=(0, 1))
        assert difference[middle, middle] > 0
        rows, cols = difference.nonzero(as_tuple=True)
        assert max((rows - middle).abs().max(), (cols - middle).abs().max()) <= radius


def test_autocast_coarsens_features_and_leaves_images_alone() -> None:
    net = network(CompactSize(widths=(8, 12, 16), full_width=4, hidden=8, embedding=8, texture=True))
    lr, ref, mask = conditions()
    exact = net.guidance(lr, ref, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net.guidance(lr, ref, mask)
        start = net.start(rough)
        out = net(lr, torch.full((2,), -0.5), rough)
    assert rough.entry.dtype == out.dtype == torch.bfloat16
    for name in ("mean", "gate", "detail", "copy", "texture"):
        assert getattr(rough, name).dtype == torch.float32
    assert torch.equal(rough.detail, exact.detail)
    assert torch.equal(start, net.start(rough))
    error, residual = rough.mean - exact.mean, exact.mean - lr
    assert error.norm() < 0.03 * residual.norm()
    torch.nn.init.zeros_(net.guide_net.head.conv2.weight)
    torch.nn.init.zeros_(net.guide_net.head.conv2.bias)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net.guidance(lr, ref, mask).mean, lr)


def test_the_norm_s_scale_is_not_coarsened() -> None:
    x = torch.randn(1, 64, 8, 8, generator=torch.Generator().manual_seed(3)).to(torch.bfloat16)
    rough, exact = PixelNorm(64)(x), PixelNorm(64)(x.float())
    assert rough.dtype == torch.bfloat16
    scale = (rough.float() * exact).sum(dim=1) / exact.square().sum(dim=1)  # of a pixel, over its channels
    assert (scale - 1).square().mean().sqrt() < 0.001  # a bfloat16 has steps of 0.0039 to 0.0078


def test_sft_is_equation_3_with_the_guidance_half_computed_once() -> None:
    torch.manual_seed(3)
    sft = SpatialFeatureTransform(5, 7, 6)
    torch.nn.init.normal_(sft.to_maps.weight)
    guidance, features = torch.randn(1, 5, 9, 9), torch.randn(1, 7, 9, 9)
    joined = torch.nn.Conv2d(12, 6, 3, padding=1)  # one convolution over the concatenation (+) of both
    with torch.no_grad():
        joined.weight.zero_()
        joined.weight[:, :5] = sft.from_guidance.weight
        joined.weight[:, 5:, 1:2, 1:2] = sft.from_features.weight
        joined.bias.copy_(sft.from_guidance.bias)  # type: ignore[union-attr, arg-type]
        hidden = torch.nn.functional.leaky_relu(joined(torch.cat([guidance, features], dim=1)), 0.1)
        gamma, beta = sft.to_maps(hidden).chunk(2, dim=1)
        expected = 2 * torch.sigmoid(gamma) * features + beta
        torch.testing.assert_close(sft(features, sft.prepare(guidance)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bands", [3, 4])
def test_sizes_by_config(bands: int) -> None:
    for widths, low, high in (((48, 72, 96), 1e6, 3e6), ((112, 160, 208), 10e6, 15e6)):
        with torch.device("meta"):
            net = CompactNet(bands, 2, CompactSize(widths=widths, hidden=48))
        assert low < sum(parameter.numel() for parameter in net.parameters()) < high


def test_the_start_copies_more_outside_training_where_the_reference_is_trusted() -> None:
    net = network()
    trained = net.train().guidance(*conditions())
    net.copy_exponent = 0.5
    assert torch.equal(net.guidance(*conditions()).plain, trained.plain)
    used = net.eval().guidance(*conditions())
    torch.testing.assert_close(used.copy, opened(trained.copy, 0.5))
    expected = net.plain_start(trained.mean, trained.detail, used.copy, trained.texture)
    torch.testing.assert_close(net.start(used), expected)


def test_what_a_trusted_reference_lends_is_opened_and_what_another_place_lends_is_not() -> None:
    copy = torch.full((1, 2, 64, 192), 0.36)
    copy[..., 64:] = 0.1
    copy[..., 20:24] = 0.0  # missing there
    result = opened(copy, 0.5)
    assert torch.all(result[..., 20:24] == 0)
    torch.testing.assert_close(result[..., :16], torch.full((1, 2, 64, 16), 0.6))
    assert torch.equal(result[..., 112:], copy[..., 112:])
    assert torch.all((result >= copy) & (result <= 0.6 + 1e-6))
    torch.testing.assert_close(opened(copy, 1.0), copy)
    torch.testing.assert_close(opened(copy[..., :50, :14], 0.5), result[..., :50, :14])


def test_the_start_holds_the_reference_where_copy_is_open_and_adds_texture() -> None:
    net = network()
    guidance = net.guidance(*conditions())
    texture = torch.randn_like(guidance.mean)
    start = net.plain_start(guidance.mean, guidance.detail, torch.ones_like(guidance.copy), texture)
    own = net.guide_net.detail_bands(guidance.mean, torch.ones_like(guidance.gate[:, :1]))
    torch.testing.assert_close(start, guidance.mean + sum((guidance.detail - own).chunk(2, dim=1)) + texture)


RESIZED = replace(SMALL, half_width=6, texture=True, around_start=True)


def test_heads_by_interpolation_leave_no_lattice_on_flat_ground() -> None:
    for size in (RESIZED, replace(SMALL, texture=True)):
        net = network(size)
        flat = torch.full((1, 3, 512, 512), 0.1)
        guidance = net.guidance(flat, flat + 0.05, torch.zeros(1, 1, 512, 512, dtype=torch.uint8))
        inner = guidance.plain[..., 240:272, 240:272]
        lattice = float(inner.std(dim=(-2, -1)).max())
        if size is RESIZED:
            assert lattice < 1e-5
        else:  # the shuffle of a network that was not trained leaves one
            assert lattice > 1e-3


def test_noise_goes_around_the_start_and_the_mean_stays_apart() -> None:
    net = network(RESIZED)
    guidance = net.guidance(*conditions())
    assert torch.equal(net.base(guidance), guidance.plain)
    assert torch.equal(net.mean(guidance), guidance.mean)
    assert (guidance.plain - guidance.mean).abs().mean() > 1e-3
    x, level = torch.randn_like(guidance.mean), torch.full((2,), -0.5)
    other = guidance._replace(plain=guidance.plain + 0.1)
    assert not torch.equal(net(x, level, guidance), net(x, level, other))


def test_losses_of_the_start_do_not_move_the_mean() -> None:
    net = network(RESIZED).requires_grad_(True)
    guidance = net.guidance(*conditions())
    gradient = torch.autograd.grad(guidance.plain.sum(), guidance.mean, allow_unused=True)[0]
    assert gradient is None


def test_heads_by_interpolation_need_four_pixels() -> None:
    with pytest.raises(ValueError, match="unshuffle 4, not 2"):
        network(replace(RESIZED, unshuffle=2))


@pytest.mark.parametrize("half_width", [0, 8])
def test_strips_of_a_window_are_the_window(monkeypatch: pytest.MonkeyPatch, half_width: int) -> None:
    net = network(replace(SMALL, texture=True, half_width=half_width)).to(torch.float64)
    lr, ref, mask = (tensor[:1] for tensor in conditions(256, 48))
    lr, ref = lr.double(), ref.double()
    ref[:, :, 100:120, 10:20] = torch.nan
    with torch.inference_mode():
        whole = net.guidance(lr, ref, mask, start_only=True)
        monkeypatch.setattr(strips, "_NUMBERS", 256 * 12)
        cut = net.guidance(lr, ref, mask, start_only=True)
    for name in ("mean", "gate", "detail", "copy", "texture", "plain"):
        torch.testing.assert_close(getattr(cut, name), getattr(whole, name), rtol=0, atol=1e-12)
