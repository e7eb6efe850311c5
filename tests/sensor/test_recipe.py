"""Recipes: strict, seeded, drawn as often as they say; what is drawn is what is done."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.jpeg import jpeg
from geo_refdiff.sensor.presets import PRESETS
from geo_refdiff.sensor.recipe import RECIPES, Degradation, DegradationRecipe, draw


def land(n: int, bands: int, height: int, width: int, seed: int = 2) -> torch.Tensor:
    """(n, bands, height, width) float32, DN, different in every image and band."""
    noise = torch.randn(n, bands, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = F.avg_pool2d(noise, 5, stride=1, padding=2)
    return (120 + 130 * smooth + 15 * noise).clamp(0, 255)


def by_hand(hr: torch.Tensor, drawn: Degradation, index: int) -> torch.Tensor:
    """One image through its dense kernel, in float64."""
    seen = []
    for band, image in enumerate(hr[index].double()):
        rows, cols = drawn.kernel(index, band)
        kernel = torch.from_numpy(np.einsum("ri,rj->ij", rows, cols))[None, None]
        reach = (kernel.shape[-1] - drawn.scale) // 2
        padded = F.pad(image[None, None], (reach,) * 4, mode="replicate")
        seen.append(F.conv2d(padded, kernel, stride=drawn.scale)[0, 0])
    return torch.stack(seen)


@pytest.mark.parametrize("scale", [3, 8, 12])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_is_drawn_is_what_is_done(name: str, scale: int) -> None:
    drawn = draw(RECIPES[name], np.random.default_rng(1), 10, scale)
    quiet = replace(drawn, noise=(0.0,) * 10, quality=(0,) * 10)
    hr = land(10, 3, 6 * scale, 5 * scale)
    seen = quiet.apply(hr)
    assert seen.shape == (10, 3, 6, 5)
    for index in range(10):
        torch.testing.assert_close(seen[index].double(), by_hand(hr, quiet, index), atol=2e-3, rtol=0)


def test_shot_noise_grows_with_the_signal() -> None:
    recipe = DegradationRecipe(isotropic=0.0, noise=(6.0, 6.0), shot=1.0)
    drawn = replace(draw(recipe, np.random.default_rng(3), 1, 4), shot=(0.75,))
    for signal, expected in ((0.0, 3.0), (128.0, 6.0), (255.0, 6.0 * (0.25 + 0.75 * 255 / 128) ** 0.5)):
        noise = drawn.apply(torch.full((1, 3, 512, 512), signal)) - signal
        assert float(noise.std()) == pytest.approx(expected, rel=0.03)


def test_bands_of_a_satellite_differ_in_their_sharpness() -> None:
    drawn = draw(RECIPES["satellite"], np.random.default_rng(1), 40, 8)
    sharp = [[drawn.kernel(i, band)[0][0].max() for band in range(4)] for i in range(40)]
    differing = [len({round(float(v), 9) for v in values}) for values in sharp]
    assert max(differing) == 4
    assert all(abs(v) <= RECIPES["satellite"].apart for bands in drawn.apart for v in bands)


def test_noise_and_jpeg_come_after_in_this_order() -> None:
    recipe = DegradationRecipe(noise=(6.0, 6.0), jpeg=0.5, jpeg_quality=(40, 40))
    drawn = draw(recipe, np.random.default_rng(3), 8, 4)
    hr = land(8, 3, 128, 128)
    clean = replace(drawn, noise=(0.0,) * 8, quality=(0,) * 8).apply(hr)
    noisy = replace(drawn, quality=(0,) * 8).apply(hr)
    assert float((noisy - clean).std()) == pytest.approx(6.0, rel=0.05)
    done = drawn.apply(hr)
    assert {0, 40} == set(drawn.quality)
    for index, quality in enumerate(drawn.quality):
        expected = jpeg(noisy[index : index + 1], [quality])[0] if quality else noisy[index]
        assert torch.equal(done[index], expected)
    assert torch.equal(done, drawn.apply(hr))
    assert not torch.equal(noisy, replace(drawn, seed=drawn.seed + 1, quality=(0,) * 8).apply(hr))


def test_the_caller_s_precision_and_autocast_change_nothing() -> None:
    drawn = draw(RECIPES["published"], np.random.default_rng(4), 4, 8)
    hr = land(4, 3, 64, 64)
    seen = drawn.apply(hr)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(drawn.apply(hr), seen)
    assert seen.dtype == torch.float32
    assert drawn.apply(hr.double()).dtype == torch.float64


def test_drawing_is_seeded_and_steps_on() -> None:
    rng = np.random.default_rng(7)
    first, second = (draw(RECIPES["published"], rng, 5, 8) for _ in range(2))
    again = draw(RECIPES["published"], np.random.default_rng(7), 5, 8)
    assert first == again
    assert first != second
    assert json.loads(json.dumps(first.to_dict())) == first.to_dict()
    one, other = np.random.default_rng(7), np.random.default_rng(7)
    draw(RECIPES["published"], one, 5, 8)
    draw(RECIPES["bicubic"], other, 5, 16)
    assert one.random() == other.random()  # the recipe does not move what is drawn later


def test_shares_are_as_the_recipe_says() -> None:
    n = 4000
    drawn = draw(RECIPES["sensor"], np.random.default_rng(0), n, 8)
    bicubic = [kind == "bicubic" for kind in drawn.resize]
    area = [kind == "area" and s == (0.0, 0.0) for kind, s in zip(drawn.resize, drawn.sigma, strict=True)]
    sigma = [s[0] for s in drawn.sigma if s[0]]
    assert np.mean(bicubic) == pytest.approx(0.15, abs=0.02)
    assert np.mean(area) == pytest.approx(0.10, abs=0.02)
    assert all(a == b for a, b in drawn.sigma)
    assert min(sigma) >= 0.25
    assert max(sigma) <= 0.5
    assert np.mean(sigma) == pytest.approx(0.375, abs=0.01)
    assert np.mean(drawn.noise) == pytest.approx(0.75, abs=0.05)
    assert not any(drawn.motion)
    assert not any(drawn.quality)


def counts(scale: int) -> dict[str, float]:
    n = 3000
    drawn = draw(RECIPES["published"], np.random.default_rng(0), n, scale)
    return {
        "anisotropic": sum(a != b for a, b in drawn.sigma) / n,
        "motion": sum(m > 0 for m in drawn.motion) / n,
        "isotropic": sum(a == b > 0 and not m for (a, b), m in zip(drawn.sigma, drawn.motion, strict=True)) / n,
        "noise": sum(v > 0 for v in drawn.noise) / n,
        "jpeg": sum(q > 0 for q in drawn.quality) / n,
        "kinds": len(set(drawn.resize)),
    }


def test_everything_is_published_and_simpler_at_16_than_at_8() -> None:
    eight, twelve, sixteen = counts(8), counts(12), counts(16)
    blurs = {"anisotropic": 0.9 * 0.25, "motion": 0.9 * 0.15, "isotropic": 0.9 * 0.45}
    assert eight == pytest.approx(blurs | {"noise": 0.7, "jpeg": 0.3, "kinds": 4}, abs=0.03)
    for kind in ("anisotropic", "motion", "noise", "jpeg"):
        assert sixteen[kind] == pytest.approx(eight[kind] / 2, abs=0.03)
        assert sixteen[kind] < twelve[kind] < eight[kind]
    assert sixteen["isotropic"] == pytest.approx(eight["isotropic"] + 0.9 * 0.2, abs=0.03)
    assert counts(4) == pytest.approx(eight, abs=0.03)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_is_its_sensor(name: str) -> None:
    hr = land(3, 4, 64, 48)
    drawn = draw(RECIPES[name], np.random.default_rng(0), 3, 8)
    torch.testing.assert_close(drawn.apply(hr), PRESETS[name].sensor(8).observe(hr), atol=2e-3, rtol=0)


def test_a_batch_is_its_images() -> None:
    drawn = draw(replace(RECIPES["published"], noisy=0.0), np.random.default_rng(9), 6, 8)
    hr = land(6, 3, 64, 64)
    together = drawn.apply(hr)
    for index in range(6):
        parts = ("sigma", "apart", "angle", "motion", "resize", "noise", "shot", "quality")
        single = Degradation(8, 0, *((getattr(drawn, k)[index],) for k in parts))
        difference = (single.apply(hr[index : index + 1])[0] - together[index]).abs()
        assert float(difference.mean()) < (0.05 if drawn.quality[index] else 1e-4)


def test_sizes_and_numbers_that_do_not_fit() -> None:
    drawn = draw(RECIPES["sensor"], np.random.default_rng(0), 2, 8)
    with pytest.raises(OptionError, match=r"40 x 44 px is no multiple of the scale 8"):
        drawn.apply(torch.zeros(2, 3, 40, 44))
    with pytest.raises(OptionError, match="3 images need 3 kernels, got 2"):
        drawn.apply(torch.zeros(3, 3, 40, 40))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_go_through_json(name: str) -> None:
    recipe = RECIPES[name]
    assert DegradationRecipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"anisotropy": 0.2}, "unknown key 'anisotropy'; did you mean anisotropic"),
        ({"xyz": 0.2}, "unknown key 'xyz'; the keys are protocol"),
        ({"motion": 1.5}, "motion = 1.5 must be a number in 0..1"),
        ({"jpeg": True}, "jpeg = True must be a number"),
        ({"isotropic": 0.9, "motion": 0.3}, "isotropic + anisotropic + motion = 1.2 is more than 1"),
        ({"area": 0.5}, "area + bilinear + bicubic + nearest = 0.5 must be 1"),
        ({"sigma": [0.5, 0.2]}, r"sigma = [0.5, 0.2] must be two numbers [low, high] in 0..4"),
        ({"noise": 3}, "noise = 3 must be two numbers"),
        ({"jpeg_quality": [50.5, 90]}, "jpeg_quality = [50.5, 90] must be two whole numbers"),
        ({"jpeg_quality": [0, 90]}, "in 1..100"),
    ],
)
def test_recipes_are_strict(change: dict[str, object], text: str) -> None:
    with pytest.raises(OptionError) as caught:
        DegradationRecipe.from_dict(change)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def shift(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """(rows, cols) by which `b` is off `a`, pixels: slope of the phase of their cross spectrum at low frequencies.

    Phase correlation (Kuglin and Hines 1975), solved by least squares as in Stone et al. 2001.
    """
    window = torch.hann_window(a.shape[0], dtype=torch.float64)[:, None] * torch.hann_window(
        a.shape[1], dtype=torch.float64
    )
    spectra = [torch.fft.fft2((x.double() - x.double().mean()) * window) for x in (a, b)]
    cross = spectra[0] * spectra[1].conj()
    rows, cols = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) for n in a.shape), indexing="ij")
    low = (rows.abs() < 0.12) & (cols.abs() < 0.12) & ((rows != 0) | (cols != 0))
    weight = cross.abs()[low].sqrt()
    matrix = 2 * torch.pi * torch.stack((rows[low], cols[low]), 1) * weight[:, None]
    found = torch.linalg.lstsq(matrix, cross.angle()[low][:, None] * weight[:, None]).solution[:, 0]
    return float(found[0]), float(found[1])


def test_the_measure_of_shift_sees_a_shift() -> None:
    image = land(1, 1, 96, 96)[0, 0]
    smooth = F.avg_pool2d(image[None, None], 5, stride=1, padding=2)[0, 0]
    moved = torch.roll(smooth, (1, -2), (0, 1))
    assert shift(smooth, moved) == pytest.approx((1, -2), abs=0.1)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([2, 3, 5, 7, 8, 16]))
def test_registering_finds_no_shift(seed: int, scale: int) -> None:
    """Against the mean over each scene pixel's area, which is where its pixels lie."""
    drawn = draw(replace(RECIPES["published"], noisy=0.0, jpeg=0.0), np.random.default_rng(seed), 2, scale)
    size = 64 * scale
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(2, 1, 24, 24, generator=generator)
    hr = 120 + 40 * F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    seen = drawn.apply(hr)
    area = F.avg_pool2d(hr, scale)
    for index in range(2):
        assert shift(area[index, 0], seen[index, 0]) == pytest.approx((0, 0), abs=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_sees_the_same() -> None:
    drawn = draw(replace(RECIPES["published"], noisy=0.0, jpeg=0.0), np.random.default_rng(9), 16, 8)
    hr = land(16, 4, 128, 128)
    torch.testing.assert_close(drawn.apply(hr.cuda()).cpu(), drawn.apply(hr), atol=0.02, rtol=0)
    noisy = draw(RECIPES["published"], np.random.default_rng(9), 16, 8)
    assert torch.equal(noisy.apply(hr.cuda()), noisy.apply(hr.cuda()))
