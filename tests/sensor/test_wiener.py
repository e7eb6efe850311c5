"""Noise is taken off a scene, edges stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from geo_refdiff.sensor.inverse import back_project
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.wiener import REACH, NoiseFilter, components, without_noise

SENSORS = (SensorModel(8, 0.45), SensorModel(8, 0.3))


def land(n: int = 2, side: int = 192) -> torch.Tensor:
    noise = torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(3))
    return 0.4 * F.avg_pool2d(noise, 9, stride=1, padding=4) * 3 + 0.02 * noise


def scene(truth: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    clean = torch.cat([s.observe(t[None]) for s, t in zip(SENSORS, truth, strict=True)])
    return clean + noise * torch.randn(clean.shape, generator=torch.Generator().manual_seed(4)), clean


def inner(x: torch.Tensor) -> torch.Tensor:
    return x[..., 24:-24, 24:-24]


def error(x: torch.Tensor, truth: torch.Tensor) -> float:
    return float(inner(x - truth).square().mean())


def corrected(image: torch.Tensor, lr: torch.Tensor) -> torch.Tensor:
    return torch.cat([back_project(image[i : i + 1], lr[i : i + 1], SENSORS[i]) for i in range(2)])


@pytest.mark.parametrize("amount", [0.03, 0.08])
def test_noise_is_not_written_into_the_image(amount: float) -> None:
    truth = land()
    lr, clean = scene(truth, amount)
    good = upsample(clean, 8)  # an image that is better than the scene
    done, exact = corrected(good, without_noise(lr, (amount, amount))), corrected(good, lr)
    assert error(done, truth) < 0.8 * error(exact, truth)
    if amount < 0.05:  # what is more signal than noise is corrected
        assert error(done, truth) < error(good, truth)


def test_each_scene_has_its_own_noise_and_what_is_beyond_a_margin_helps() -> None:
    lr, clean = scene(land(), 0.05)
    both = without_noise(lr, (0.05, 0.0))
    assert torch.equal(both[1], lr[1])
    torch.testing.assert_close(both[:1], without_noise(lr[:1], (0.05,)))
    inside = (..., slice(3, -3), slice(3, -3))
    assert (both[0] - clean[0]).square().mean() < 0.7 * (lr[0] - clean[0]).square().mean()
    cut = without_noise(lr, (0.05, 0.0), margin=3)
    assert cut.shape == lr[inside].shape
    torch.testing.assert_close(cut, both[inside])


SIGMAS = (3.0, 4.0, 2.0)


def ground(side: int = 96, seed: int = 0) -> torch.Tensor:
    """(1, 3, side, side) fields with sharp edges that bands share, in other colours each, and faint texture."""
    rng = np.random.default_rng(seed)
    plots = ndimage.zoom(rng.uniform(40, 200, (side // 16, side // 16)), 16, order=0)
    texture = 8 * ndimage.gaussian_filter(rng.standard_normal((side, side)), 1.5)
    tint = ndimage.zoom(rng.uniform(-20, 20, (3, side // 16, side // 16)), (1, 16, 16), order=0)
    image = plots + 10 * texture + tint
    return torch.from_numpy(np.stack([ndimage.gaussian_filter(band, 0.7) for band in image]))[None].float()


def with_noise(image: torch.Tensor, seed: int = 1) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return image + torch.randn(image.shape, generator=draw) * torch.tensor(SIGMAS).view(3, 1, 1)


def rms(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean(dim=(0, 2, 3)).sqrt()


def noise_filter(scene: torch.Tensor, sigmas: tuple[float, ...] = SIGMAS) -> NoiseFilter:
    return NoiseFilter(sigmas, components(scene.numpy(), sigmas))


def test_noise_is_taken_off_and_edges_stay() -> None:
    clean = ground()
    scene = with_noise(clean)
    remaining = scene - noise_filter(scene).estimate(scene) - clean
    assert (rms(remaining) < 0.65 * torch.tensor(SIGMAS)).all()
    colour = remaining[:, 0] - remaining[:, 1]
    assert colour.square().mean().sqrt() < 0.5 * float(np.hypot(SIGMAS[0], SIGMAS[1]))  # bands share the ground
    step = clean.diff(dim=-1).abs().amax(dim=1, keepdim=True) > 20
    assert (remaining[..., 1:] * step).abs().max() < 5 * max(SIGMAS)


def test_without_noise_nothing_is_taken_off() -> None:
    clean = ground()
    assert not noise_filter(clean, (0.0, 0.0, 0.0)).estimate(clean).any()
    faint = noise_filter(clean, (1e-3,) * 3).estimate(clean)
    assert faint.abs().max() < 0.01


def test_bands_without_noise_stay_as_they_are_and_guide_no_others() -> None:
    clean = ground()
    scene = with_noise(clean)
    noise = noise_filter(scene, (3.0, 0.0, 2.0)).estimate(scene)
    assert not noise[:, 1].any()
    two = noise_filter(scene[:, ::2], (3.0, 2.0)).estimate(scene[:, ::2])
    torch.testing.assert_close(noise[:, ::2], two)


def test_a_pixel_depends_on_its_surroundings_alone() -> None:
    scene = with_noise(ground())
    filtered = noise_filter(scene)
    whole = filtered.estimate(scene)
    part = filtered.estimate(scene[..., 11 : 11 + 40, 5 : 5 + 33])
    inner = (..., slice(REACH, -REACH), slice(REACH, -REACH))
    same = whole[..., 11 : 11 + 40, 5 : 5 + 33]
    torch.testing.assert_close(part[inner], same[inner], atol=1e-3, rtol=0)
    assert rms(part - same).max() < 1.0  # at the edges fewer squares give it


def test_scenes_smaller_than_a_square_have_noise_taken_off_too() -> None:
    scene = with_noise(torch.full((1, 3, 5, 40), 100.0))
    noise = noise_filter(scene).estimate(scene)
    assert noise.shape == scene.shape
    assert (rms(scene - noise - 100) < 0.7 * torch.tensor(SIGMAS)).all()


def test_mixtures_have_noise_of_one_and_nothing_in_common() -> None:
    scene = with_noise(ground())
    tiles = [scene[0, :, :48].numpy(), scene[0, :, 48:].numpy()]
    tiles[0][:, 5:9, 5:9] = np.nan
    mix = np.array(components(tiles, SIGMAS))
    np.testing.assert_allclose(mix @ mix.T, np.eye(3), atol=1e-9)
    mixed = np.einsum("kc,chw->khw", mix / np.array(SIGMAS), tiles[1].astype(np.float64))
    steps = np.concatenate([np.diff(mixed, axis=axis).reshape(3, -1) for axis in (1, 2)], axis=1)
    assert np.abs(np.corrcoef(steps) - np.eye(3)).max() < 0.2
    assert steps.var(axis=1)[0] > 5 * steps.var(axis=1)[1:].max()  # what bands share comes first
    assert steps.var(axis=1)[2] < 3
    assert components([np.full((2, 5, 5), np.nan)], (1.0, 2.0)) == ((1.0, 0.0), (0.0, 1.0))
