"""Pairs and samples: alignment, exact labels, every fault, and the same draw for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from geo_refdiff.degrade.resize import upsample
from geo_refdiff.degrade.sensor import SensorModel
from geo_refdiff.train.pairs import Pair, estimate_shift, land_cover, matched_pair
from geo_refdiff.train.samples import Faults, SampleMaker, crop_size

NONE = Faults(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def texture(seed: int, size: int = 256) -> np.ndarray:
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(0, 1, (4, size, size)), (0, 2, 2)) * 160 + 120
    return np.clip(field, 1, 254).astype(np.uint8)


def pair(seed: int = 0, mask: int = 0) -> Pair:
    image = texture(seed)
    classes = np.full(image.shape[1:], 3, np.uint8)
    labels = np.full(classes.shape, mask, np.uint8)
    return Pair("made up", image, image.copy(), np.ones(classes.shape, bool), classes, labels)


@pytest.mark.parametrize("shift", [(2.3, -1.6), (-4.0, 0.5), (0.0, 0.0)])
def test_shift_is_found_with_its_sign(shift: tuple[float, float]) -> None:
    fixed = texture(1)
    moved = np.clip(ndimage.shift(fixed.astype(float), (0, *shift), order=3, mode="nearest"), 0, 255).astype(np.uint8)
    assert estimate_shift(fixed, moved) == pytest.approx((-shift[0], -shift[1]), abs=0.15)


def test_no_shift_is_claimed_between_strangers() -> None:
    assert estimate_shift(texture(2), texture(3)) == (0.0, 0.0)


def test_matched_pair_is_registered_and_in_the_new_radiometry() -> None:
    new = texture(4)
    old = np.clip(ndimage.shift(new * 0.7 + 30.0, (0, 1.5, -2.0), order=3, mode="nearest"), 0, 255).astype(np.uint8)
    made = matched_pair("x", new, old, np.full(new.shape[1:], 3, np.uint8))
    inner = (slice(None), slice(16, -16), slice(16, -16))
    assert np.abs(made.ref[inner].astype(float) - new[inner]).mean() < 3.0
    assert not made.ref_valid[0].any() or not made.ref_valid[-1].any()
    assert (made.mask == 255).all()


def test_land_cover_of_plain_surfaces() -> None:
    surfaces = {1: (20, 35, 40, 12), 2: (170, 140, 110, 150), 3: (110, 125, 90, 190), 4: (45, 60, 45, 130)}
    surfaces[5] = (140, 140, 145, 130)
    for expected, colour in surfaces.items():
        image = np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (4, 32, 32)).copy()
        assert (land_cover(image) == expected).all(), expected


@pytest.mark.parametrize("scale", [4, 6, 8, 10, 16])
def test_truth_reference_and_lr_lie_on_each_other(scale: int) -> None:
    maker = SampleMaker([pair(5)], {scale: 1.0}, 16, 144, 6, seed=1, faults=NONE)
    batch = maker.batch(3)
    assert batch.truth.shape[-1] == crop_size(scale, 16, 144)
    # the same image twice: only alignment can differ
    torch.testing.assert_close(batch.truth, batch.ref, atol=1e-5, rtol=0)
    for sigma in (0.0, 0.35):
        expected = upsample(SensorModel(scale, sigma).observe(batch.truth), scale)
        inner = (..., slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
        noise = (batch.lr - expected)[inner]
        assert noise.abs().mean() < 0.05
        assert abs(float(noise.mean())) < 0.01


def test_a_pasted_change_is_labelled_with_what_is_there_now() -> None:
    faults = Faults(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    maker = SampleMaker([pair(6), pair(7)], {8: 1.0}, 16, 144, 6, seed=2, faults=faults)
    batch = maker.batch(12)
    differs = ((batch.truth - batch.ref).abs() > 0.02).any(dim=1, keepdim=True)
    assert differs.any()
    assert (batch.mask[differs] == 3).all()
    assert set(batch.mask.unique().tolist()) == {0, 3}


def test_faults_show() -> None:
    maker = SampleMaker([pair(8), pair(9)], {8: 1.0}, 16, 144, 6, 3, Faults(0, 1, 0, 1, 0, 0, 1, 0, 0, 0))
    batch = maker.batch(4)
    assert (batch.mask == 255).all()
    assert batch.ref.isnan().all()
    assert (batch.lr[:, 3] == 0).all()
    assert (batch.truth[:, 3] == 0).all()
    assert batch.weight[:, :, 0, 0].tolist() == [[1, 1, 1, 0]] * 4
    part = SampleMaker([pair(8)], {8: 1.0}, 16, 144, 6, 3, Faults(0, 0, 0, 0, 1, 0, 0, 0, 0, 0)).batch(6)
    assert 0 < part.ref.isnan().float().mean() < 1


def test_the_same_seed_draws_the_same_batches() -> None:
    makers = [SampleMaker([pair(1), pair(2)], {8: 0.5, 16: 0.5}, 16, 96, 6, seed=s) for s in (4, 4, 5)]
    first, again, other = ([maker.batch(2) for _ in range(3)] for maker in makers)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.truth, b.truth)
        assert torch.equal(a.lr, b.lr)
        assert torch.equal(a.mask, b.mask)
    differs = [a.scale != b.scale or not torch.equal(a.truth, b.truth) for a, b in zip(first, other, strict=True)]
    assert any(differs)
