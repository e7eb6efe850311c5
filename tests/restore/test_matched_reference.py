"""matched-ref takes the reference's detail as far as scene and reference agree."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.raster.window import Window
from geo_refdiff.restore.restorers import CLASSICAL, LR_MARGIN, Conditions, agreement
from geo_refdiff.restore.sources import INTERPOLATED, REFERENCE, source_classes
from geo_refdiff.sensor.sensor import SensorModel

SENSOR = SensorModel(4)
SIDE = 192


@pytest.fixture
def truth(make_texture: Any) -> Tensor:
    """(1, 2, SIDE, SIDE) digital numbers; its detail is much of it."""
    return torch.from_numpy(40 + 160 * make_texture((1, 2, SIDE, SIDE), 5, 3.0)).float()


def restored(lr: Tensor, ref: Tensor, *, project: bool = True) -> Tensor:
    restorer = CLASSICAL["matched-ref"](SENSOR)
    return restorer.restore(conditions(lr, ref, project=project))


def conditions(lr: Tensor, ref: Tensor, *, project: bool = True) -> Conditions:
    padded = F.pad(lr, (LR_MARGIN,) * 4, mode="replicate")
    return Conditions((Window(0, 0, *ref.shape[-2:]),), padded, ref, project=project)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def test_detail_of_a_reference_that_agrees_is_taken_in_full(truth: Tensor) -> None:
    made = restored(SENSOR.observe(truth), truth)
    assert rms((made - truth)[..., 16:-16, 16:-16]) < 0.5


def test_detail_of_what_has_changed_is_not(truth: Tensor) -> None:
    """Half of the reference is of another place: the result is the scene's interpolation there, elsewhere the truth."""
    ref = truth.clone()
    ref[..., SIDE // 2 :] = truth.flip(-2)[..., SIDE // 2 :]
    lr = SENSOR.observe(truth)
    made, plain = restored(lr, ref, project=False), CLASSICAL["bicubic"](SENSOR).restore(conditions(lr, ref))
    changed, same = (..., slice(8, -8), slice(SIDE // 2 + 24, -8)), (..., slice(8, -8), slice(8, SIDE // 2 - 24))
    assert rms((made - plain)[changed]) < 0.35 * rms((ref - plain)[changed])
    assert rms((made - truth)[same]) < 0.2 * rms((plain - truth)[same])
    trace = CLASSICAL["matched-ref"](SENSOR).trace(conditions(lr, ref), made)[0]
    classes = source_classes(trace)
    assert (classes[same[1:]] == REFERENCE).float().mean() > 0.99
    assert (classes[changed[1:]] == INTERPOLATED).float().mean() > 0.8


def test_a_missing_part_of_the_reference_is_interpolated_and_spoils_nothing_around(truth: Tensor) -> None:
    lr, ref = SENSOR.observe(truth), truth.clone()
    ref[..., 60:120, 70:130] = torch.nan
    made, plain = restored(lr, ref, project=False), CLASSICAL["bicubic"](SENSOR).restore(conditions(lr, ref))
    assert torch.isfinite(made).all()
    torch.testing.assert_close(made[..., 68:112, 78:122], plain[..., 68:112, 78:122])
    around = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    around[50:130, 60:140] = True
    around[60:120, 70:130] = False
    assert rms((made - truth)[..., around]) < 0.3 * rms((plain - truth)[..., around])


def test_what_is_beyond_the_halo_changes_nothing(truth: Tensor) -> None:
    ref = 0.8 * truth + 0.2 * truth.flip(-1)
    lr = SENSOR.observe(truth)
    whole = restored(lr, ref)
    at = 40
    cut = restored(lr[..., at // 4 :, at // 4 :], ref[..., at:, at:])
    halo = CLASSICAL["matched-ref"](SENSOR).halo
    assert halo + at < SIDE - 16
    torch.testing.assert_close(cut[..., halo:, halo:], whole[..., at + halo :, at + halo :], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("level", "gain"), [(0.0, 1.0), (1000.0, 1.0), (0.2, 1e-3)])
def test_agreement_has_no_unit(make_texture: Any, level: float, gain: float) -> None:
    image = torch.from_numpy(200 * make_texture((2, 3, 40, 40), 2, 2.0)).double() - 100
    same, other, opposite = (
        agreement(level + gain * image, level + gain * with_, torch.ones_like(image, dtype=torch.bool))
        for with_ in (image, image.roll(20, -1), -image)
    )
    assert same.min() > 0.999
    assert other.mean() < 0.5
    if not level:
        assert opposite.max() == 0.0


def test_flat_ground_agrees_whatever_its_noise() -> None:
    """Of a meadow, scene and reference share nothing but the level: the reference's texture stays."""
    draw = torch.Generator().manual_seed(0)
    one, other = (1000 + 2 * torch.randn((1, 1, 40, 40), generator=draw) for _ in range(2))
    valid = torch.ones_like(one, dtype=torch.bool)
    assert agreement(one, other, valid).mean() > 0.9
    assert agreement(one, 1000 + 100 * (other - 1000), valid).mean() < 0.2
    assert not agreement(one, other, ~valid).any()
