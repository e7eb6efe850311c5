"""Preconditioning (EDM table 1, equation 7) and what the denoiser does to its conditions."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from geo_refdiff.diffusion.config import PublishedConfig
from geo_refdiff.diffusion.denoiser import (
    Denoiser,
    GuidedDenoiser,
    c_in,
    c_noise,
    c_out,
    c_skip,
    plain_conditions,
    wrap_network,
)
from geo_refdiff.errors import ModelError

SIGMAS = torch.tensor([1e-3, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)


class Plain(nn.Module):
    """Records what it is given; gives a constant."""

    multiple = 2

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.25))
        self.seen: tuple[Tensor, ...] = ()

    def forward(self, x: Tensor, c_noise: Tensor, lr: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
        self.seen = (x, c_noise, lr, ref, mask)
        return self.level.expand_as(x)


class Guided(nn.Module):
    """A network with guidance, a base and a start."""

    receptive_field = 7

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.calls = 0

    def guidance(self, lr: Tensor, ref: Tensor, mask: Tensor, *, start_only: bool = False) -> Tensor:
        self.calls += 1
        return lr * self.weight

    def base(self, guidance: Tensor) -> Tensor:
        return guidance

    def start(self, guidance: Tensor) -> Tensor:
        return guidance + 1

    def forward(self, x: Tensor, c_noise: Tensor, guidance: Tensor) -> Tensor:
        return x * self.weight


def conditions(**changes: Any) -> dict[str, Tensor]:
    given = {"lr": torch.full((2, 3, 4, 6), 0.1), "ref": torch.full((2, 3, 4, 6), 0.2), "mask": torch.zeros(2, 1, 4, 6)}
    return given | changes


def test_input_and_target_have_unit_variance():
    """What EDM table 1 is derived from: c_in makes the input's variance 1; c_out and c_skip make the target's 1."""
    sd = 0.5
    variance = SIGMAS**2 + sd**2
    torch.testing.assert_close(c_in(SIGMAS, sd) ** 2 * variance, torch.ones_like(SIGMAS))
    target = ((1 - c_skip(SIGMAS, sd)) ** 2 * sd**2 + (c_skip(SIGMAS, sd) * SIGMAS) ** 2) / c_out(SIGMAS, sd) ** 2
    torch.testing.assert_close(target, torch.ones_like(SIGMAS))
    torch.testing.assert_close(c_noise(SIGMAS), SIGMAS.log() / 4)


def test_denoiser_is_equation_7():
    network = Plain()
    denoiser = Denoiser(network, PublishedConfig())
    x, sigma = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([0.3, 2.0])
    found = denoiser(x, sigma, **conditions())
    level = sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(found, c_skip(level, 0.5) * x + c_out(level, 0.5) * 0.25)
    seen_x, seen_noise, lr, _, _ = network.seen
    torch.testing.assert_close(seen_x, c_in(level, 0.5) * x)
    torch.testing.assert_close(seen_noise, sigma.log() / 4)
    assert torch.equal(lr, conditions()["lr"])


def test_one_sigma_for_the_whole_batch():
    denoiser = Denoiser(Plain(), PublishedConfig())
    x = torch.ones(2, 3, 4, 6)
    scalar = denoiser(x, torch.tensor(0.7), **conditions())
    assert torch.equal(scalar, denoiser(x, torch.tensor([0.7, 0.7]), **conditions()))


def test_missing_reference_becomes_lr_and_unknown_class_no_change():
    ref = torch.full((1, 3, 2, 2), 0.2)
    ref[:, :, 0, 0] = torch.nan
    mask = torch.tensor([[[[0, 255], [5, 1]]]], dtype=torch.uint8)
    _, plain_ref, plain_mask = plain_conditions(torch.full((1, 3, 2, 2), 0.9), ref, mask)
    assert plain_ref[0, 0].flatten().tolist() == pytest.approx([0.9, 0.2, 0.2, 0.2])
    assert plain_mask.flatten().tolist() == pytest.approx([0, 0, 5 / 255, 1 / 255])
    floating = torch.rand(1, 1, 2, 2)
    assert plain_conditions(ref, ref, floating)[2] is floating


class Layered(Plain):
    """Computes with a layer, whose dtype it records."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.inner: set[torch.dtype] = set()

    def forward(self, x: Tensor, c_noise: Tensor, lr: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = self.layer(super().forward(x, c_noise, lr, ref, mask))
        self.inner.add(out.dtype)
        return out


def test_layers_compute_in_bfloat16_images_stay_float32():
    network = Layered()
    denoiser = Denoiser(network, PublishedConfig())
    x = torch.full((2, 3, 4, 6), 1.2345678, dtype=torch.float64)
    exact = denoiser(x, torch.tensor(0.001), **conditions())
    denoiser.compute_dtype = torch.bfloat16
    found = denoiser(x, torch.tensor(0.001), **conditions())
    assert network.inner == {torch.float32, torch.bfloat16}
    assert [tensor.dtype for tensor in network.seen] == [torch.float32] * 5
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 1e-5  # c_out is 0.001


def test_guidance_is_computed_in_bfloat16_its_images_stay_float32():
    class Cast(Guided):
        def guidance(self, lr: Tensor, ref: Tensor, mask: Tensor, *, start_only: bool = False) -> Tensor:
            assert lr.dtype == ref.dtype == torch.float32
            self.products.append((lr[0, 0] @ lr[0, 0].T).dtype)
            return super().guidance(lr, ref, mask, start_only=start_only)

        def start(self, guidance: Tensor) -> Tensor:
            self.products.append((guidance[0, 0] @ guidance[0, 0].T).dtype)
            return super().start(guidance)

        products: ClassVar[list[torch.dtype]] = []

    network = Cast()
    denoiser = GuidedDenoiser(network, PublishedConfig())
    denoiser.compute_dtype = torch.bfloat16
    guidance = denoiser.guidance(**conditions())
    assert guidance.dtype == denoiser.start(guidance).dtype == torch.float32
    assert network.products == [torch.bfloat16, torch.float32]


def test_float64_network_stays_float64():
    denoiser = Denoiser(Plain(), PublishedConfig()).to(torch.float64)
    assert denoiser(torch.ones(2, 3, 4, 6), torch.ones(2), **conditions()).dtype == torch.float64


def test_guidance_is_computed_once_and_base_is_preconditioned_around():
    network = Guided()
    denoiser = wrap_network(network, PublishedConfig(sigma_data=0.2, halo=5))
    assert isinstance(denoiser, GuidedDenoiser)
    assert (denoiser.receptive_field, denoiser.halo, denoiser.multiple) == (7, 5, 1)
    given = conditions()
    guidance = denoiser.guidance(**given)
    x, level = torch.full((2, 3, 4, 6), 0.4), torch.tensor(0.3)
    found = denoiser(x, level, **given, guidance=guidance)
    denoiser(x, level, **given, guidance=guidance)
    assert network.calls == 1
    torch.testing.assert_close(found, denoiser(x, level, **given))
    assert network.calls == 2
    residual = x - 0.05
    wanted = 0.05 + c_skip(level, 0.2) * residual + c_out(level, 0.2) * 0.5 * c_in(level, 0.2) * residual
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(denoiser.start(guidance), guidance + 1)


def test_network_without_start_says_so():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def guidance(self, lr: Tensor, ref: Tensor, mask: Tensor, *, start_only: bool = False) -> Tensor:
            return lr

        def forward(self, x: Tensor, c_noise: Tensor, guidance: Tensor) -> Tensor:
            return x * 0

    denoiser = GuidedDenoiser(Bare(), PublishedConfig())
    guidance = denoiser.guidance(**conditions())
    assert not denoiser.has_start
    with pytest.raises(ModelError, match="no mean estimate"):
        denoiser.start(guidance)
    x = torch.ones(2, 3, 4, 6)
    torch.testing.assert_close(denoiser(x, torch.tensor(0.5), **conditions(), guidance=guidance), x / 2)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lr": torch.zeros(2, 3, 2, 6)}, "lr has shape"),
        ({"ref": torch.zeros(2, 4, 4, 6)}, "ref has shape"),
        ({"mask": torch.zeros(2, 3, 4, 6)}, "mask has shape"),
    ],
)
def test_shapes_that_do_not_fit(changes, text):
    with pytest.raises(ModelError, match=text):
        Denoiser(Plain(), PublishedConfig())(torch.zeros(2, 3, 4, 6), torch.ones(2), **conditions(**changes))


def test_window_that_the_levels_do_not_divide():
    z = torch.zeros(1, 3, 5, 6)
    with pytest.raises(ModelError, match="5 x 6 pixels does not fit"):
        Denoiser(Plain(), PublishedConfig())(z, torch.ones(1), z, z, z[:, :1])
