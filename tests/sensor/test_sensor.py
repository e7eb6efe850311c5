"""The sensor operator and back-projection: no shift, mean kept, and the LR scene seen again afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from geo_refdiff.errors import OptionError
from geo_refdiff.sensor.inverse import back_project, inverse_reach
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel


def _land(height: int, width: int, seed: int = 3) -> torch.Tensor:
    """Smooth random image with edges, (1, 2, height, width), DN-like."""
    noise = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 9, stride=1, padding=4) * 200.0
    return 110.0 + smooth + 30.0 * (smooth > 3.0)


@pytest.mark.parametrize("scale", range(2, 17))
@pytest.mark.parametrize("sigma", [0.0, 0.25, 0.35, 0.5, "bicubic"])
def test_an_impulse_stays_where_it_is(scale: int, sigma: float | str) -> None:
    sensor = SensorModel(scale, kernel="bicubic") if isinstance(sigma, str) else SensorModel(scale, sigma)
    image = torch.zeros(1, 1, 21 * scale, 21 * scale, dtype=torch.float64)
    block = slice(10 * scale, 11 * scale)
    image[..., block, block] = 1.0
    seen = sensor.observe(image)[0, 0]
    at = torch.arange(21, dtype=torch.float64)
    assert float((seen.sum(1) * at).sum() / seen.sum()) == pytest.approx(10.0, abs=1e-9)
    assert float((seen.sum(0) * at).sum() / seen.sum()) == pytest.approx(10.0, abs=1e-9)
    assert float(seen.sum()) == pytest.approx(1.0, abs=1e-9)


def test_area_mean_is_the_block_mean() -> None:
    image = _land(48, 32)
    seen = SensorModel(8, 0.0).observe(image)
    torch.testing.assert_close(seen, torch.nn.functional.avg_pool2d(image, 8), atol=1e-3, rtol=0)


def test_bad_operator_and_bad_shape_are_refused() -> None:
    with pytest.raises(OptionError, match="scale 0"):
        SensorModel(0)
    with pytest.raises(OptionError, match="unknown sensor kernel 'lanczos'; choose from psf, bicubic"):
        SensorModel(8, kernel="lanczos")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no multiple"):
        SensorModel(8).observe(torch.zeros(1, 1, 20, 16))


@pytest.mark.parametrize("scale", [2, 3, 5, 8, 16])
def test_the_bicubic_sensor_is_pillows_reduction(scale: int) -> None:
    image = _land(20 * scale, 24 * scale)
    seen = SensorModel(scale, kernel="bicubic").observe(image)[0]
    for band in range(2):
        there = Image.fromarray(image[0, band].numpy()).resize((24, 20), Image.Resampling.BICUBIC)
        inner = (slice(2, -2), slice(2, -2))
        torch.testing.assert_close(seen[band][inner], torch.from_numpy(np.array(there))[inner], atol=1e-3, rtol=0)


def test_the_bicubic_sensor_has_no_psf() -> None:
    image = _land(48, 48)
    one, other = (SensorModel(8, sigma, "bicubic") for sigma in (0.0, 0.5))
    assert torch.equal(one.observe(image), other.observe(image))
    assert one.reach == other.reach == 12


@pytest.mark.parametrize("sensor", [SensorModel(s, kernel=k) for s in (2, 4, 7, 8, 16) for k in ("psf", "bicubic")])
def test_back_projection_converges_for_both_kernels(sensor: SensorModel) -> None:
    truth = _land(24 * sensor.scale, 24 * sensor.scale)
    lr = sensor.observe(truth)
    start = upsample(lr, sensor.scale)
    off = sensor.observe(back_project(start, lr, sensor)) - lr
    inner = off[..., 6:-6, 6:-6]
    assert float(inner.square().mean().sqrt()) < 0.1
    assert float(off.square().mean().sqrt()) < 0.1 * float((sensor.observe(start) - lr).square().mean().sqrt())


@pytest.mark.parametrize("scale", [4, 8, 16])
def test_back_projection_makes_the_sensor_see_the_scene(scale: int) -> None:
    sensor = SensorModel(scale)
    truth = _land(20 * scale, 18 * scale)
    lr = sensor.observe(truth)
    start = upsample(lr, scale)
    before = (sensor.observe(start) - lr).square().mean().sqrt()
    after = (sensor.observe(back_project(start, lr, sensor)) - lr).square().mean().sqrt()
    assert after < 0.1 * before
    assert (back_project(start, lr, sensor) - truth).square().mean() < (start - truth).square().mean()


def test_back_projection_leaves_a_consistent_image_alone() -> None:
    sensor = SensorModel(8)
    truth = _land(160, 160)
    torch.testing.assert_close(back_project(truth, sensor.observe(truth), sensor), truth, atol=1e-3, rtol=0)


def test_a_crop_is_corrected_without_its_border() -> None:
    sensor = SensorModel(8, 0.45)
    truth = _land(160, 160)
    lr = sensor.observe(truth)[..., 2:-2, 2:-2]  # the scene has seen what the crop lacks
    crop = truth[..., 16:-16, 16:-16]
    errors = [(back_project(crop, lr, sensor, border) - crop).abs().mean() for border in (0, 1)]
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.parametrize("sensor", [SensorModel(8), SensorModel(8, kernel="bicubic")])
def test_back_projection_reaches_no_farther_than_it_says(sensor: SensorModel) -> None:
    lr = sensor.observe(_land(320, 320))
    start = upsample(lr, 8)
    touched = start.clone()
    touched[..., 160, 160] += 50.0
    difference = (back_project(touched, lr, sensor) - back_project(start, lr, sensor)).abs().amax(dim=(0, 1))
    far = torch.ones(320, 320, dtype=torch.bool)
    r = inverse_reach(sensor)
    far[160 - r : 161 + r, 160 - r : 161 + r] = False
    assert float(difference[far].max()) == 0.0
    assert float(difference[160, 160]) > 40.0
