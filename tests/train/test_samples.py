"""Samples: alignment, exact labels, every fault, the same draw for the same seed, and what cannot be used.

Batches come in order, made ahead by threads; on a (fake) GPU in streams of their own, from pinned memory.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from geo_refdiff.errors import InputError, OptionError
from geo_refdiff.sensor.resize import upsample
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.train import samples
from geo_refdiff.train.augment import Sample, corrupt
from geo_refdiff.train.config import FaultsConfig, SamplesConfig
from geo_refdiff.train.pixels import MemoryBudget, to_device
from geo_refdiff.train.samples import Batch, DeviceStream, SampleMaker, Source, crop_size, prefetch

NONE = dict.fromkeys(("paste", "mask_unknown", "mask_wrong", "no_reference", "part_reference", "wrong_place"), 0.0)
NONE |= {"no_nir": 0.0, "shift_sigma": 0.0, "ref_gain_sigma": 0.0, "ref_offset_sigma": 0.0}


def maker(
    *datasets: Any, scale: int = 8, crop: int = 144, seed: int = 1, faults: dict[str, Any] | None = None, **options: Any
) -> SampleMaker:
    scales = options.pop("scales", {str(scale): 1.0})
    config = SamplesConfig(
        crop=crop,
        scales=scales,
        degradation=options.pop("degradation", "sensor"),
        averaged=options.pop("averaged", {"1": 1.0}),
        psf_error=options.pop("psf_error", 0.0),
        noise_error=options.pop("noise_error", 0.0),
        faults=FaultsConfig() if faults is None else FaultsConfig(**(NONE | faults)),
    )
    return SampleMaker([Source(data, 1.0) for data in datasets], config, 16, seed, **options)


def same(one: Batch, other: Batch) -> bool:
    tensors = zip(one.tensors(), other.tensors(), strict=True)
    return one.names == other.names and all(torch.equal(a.nan_to_num(9), b.nan_to_num(9)) for a, b in tensors)


@pytest.mark.parametrize("scale", [4, 6, 8, 10, 16])
def test_truth_reference_and_lr_lie_on_each_other(scale: int, textures: Any) -> None:
    batch = maker(textures((5,)), scale=scale, faults={}).batch(3, range(6))
    assert batch.truth.shape == (6, 4, *[crop_size(scale, 16, 144)] * 2)
    # the same image twice: only alignment can differ
    torch.testing.assert_close(batch.truth, batch.ref, atol=1e-5, rtol=0)
    for sigma in (0.0, 0.35):
        expected = upsample(SensorModel(scale, sigma).observe(batch.truth), scale)
        inner = (..., slice(2 * scale, -2 * scale), slice(2 * scale, -2 * scale))
        noise = (batch.lr - expected)[inner]
        assert noise.abs().mean() < 0.05
        assert abs(float(noise.mean())) < 0.01


def test_a_pasted_change_is_labelled_with_what_is_there_now(textures: Any) -> None:
    batch = maker(textures((6, 7)), seed=2, faults={"paste": 1.0}).batch(1, range(12))
    differs = ((batch.truth - batch.ref).abs() > 0.02).any(dim=1, keepdim=True)
    assert differs.any()
    assert (batch.mask[differs] == 3).all()
    assert set(batch.mask.unique().tolist()) == {0, 3}


def test_what_is_missing_is_missing(textures: Any) -> None:
    batch = maker(textures((8, 9)), faults={"mask_unknown": 1.0, "no_reference": 1.0, "no_nir": 1.0}).batch(1, range(4))
    assert (batch.mask == 255).all()
    assert batch.ref.isnan().all()
    assert (batch.lr[:, 3] == 0).all()
    assert (batch.truth[:, 3] == 0).all()
    assert batch.weight[:, :, 0, 0].tolist() == [[1, 1, 1, 0]] * 4
    part = maker(textures((8,)), faults={"part_reference": 1.0}).batch(1, range(6))
    assert 0 < part.ref.isnan().float().mean() < 1


def test_a_wrong_place_is_another_one_and_its_mask_unknown(textures: Any) -> None:
    data = textures((8, 9, 10, 11), mask=0)
    batch = maker(data, faults={"wrong_place": 1.0, "exposure": False}).batch(1, range(4))
    assert (batch.mask == 255).all()
    assert (batch.ref - batch.truth).abs().mean() > 0.1


def test_a_misregistered_reference_is_off_by_whole_pixels(textures: Any) -> None:
    batch = maker(textures((8,)), crop=96, faults={"shift_sigma": 2.0}).batch(1, range(8))
    result = []
    for truth, ref in zip(batch.truth, batch.ref, strict=True):
        inner = (slice(None), slice(8, -8), slice(8, -8))
        off = {
            (r, c): float((torch.roll(truth, (r, c), (1, 2)) - ref)[inner].abs().max())
            for r in range(-4, 5)
            for c in range(-4, 5)
        }
        shift = min(off, key=lambda at: off[at])
        assert off[shift] < 1e-5
        result.append(shift)
    assert len(set(result)) > 4


@pytest.mark.parametrize("bands", [3, 4])
def test_another_season_changes_the_vegetation_of_the_reference_alone(bands: int) -> None:
    grey, green = torch.full((bands, 32, 16), 120.0), torch.tensor([60.0, 110, 50, 190])[:bands, None, None]
    image = torch.cat([grey, green.expand(bands, 32, 16)], dim=2)
    known = torch.zeros(1, 32, 32, dtype=torch.uint8)
    sample = Sample(image, image.clone(), known, torch.ones_like(image))
    faults = FaultsConfig(**(NONE | {"season": 1.0, "exposure": False}))
    reds = []
    for seed in range(8):
        truth, ref, mask, _ = corrupt(
            sample, known[0], faults, 6, np.random.default_rng(seed), lambda: (image, known[0])
        )
        assert torch.equal(truth, image)
        assert torch.equal(mask, known)
        torch.testing.assert_close(ref[..., :16], grey)  # a plain surface has no seasons
        change = (ref - image)[:, 0, 31]
        assert change[0].sign() == change[1].sign() == change[2].sign()
        if bands == 4:
            assert change[3].sign() == -change[0].sign()  # dry leaves are red and reflect less infrared
        reds.append(float(change[0]))
    assert min(reds) < -2 < 2 < max(reds)


def test_a_wrong_mask_is_wrong_in_each_of_four_ways(textures: Any) -> None:
    made = maker(textures((8,), mask=2), faults={"mask_wrong": 1.0})
    masks = made.batch(1, range(40)).mask
    seen = [tuple(mask.unique().tolist()) for mask in masks]
    assert (0, 2) in seen  # missed changes
    assert any(2 in values and set(values) - {0, 2} for values in seen)  # invented changes
    assert any(len(values) == 1 and values != (2,) for values in seen)  # whole classes wrong
    assert (2,) in seen  # shifted borders of a mask that is 2 everywhere


def test_exposure_is_left_alone_if_so_wanted(textures: Any) -> None:
    values = set(BYTES.to_model(torch.from_numpy(textures((3,)).images[0][0]).float()).flatten().tolist())
    plain = maker(textures((3,)), faults={"exposure": False}).batch(1, range(2)).truth
    assert set(plain[:, 0].flatten().tolist()) <= values
    jittered = maker(textures((3,)), faults={}).batch(1, range(2)).truth
    assert len(set(jittered[:, 0].flatten().tolist()) & values) < 0.1 * len(values)


def test_the_same_seed_draws_the_same_batches_in_any_order_and_thread(textures: Any) -> None:
    scales = {"8": 0.5, "16": 0.5}
    one, two, other = (maker(textures((1, 2)), crop=48, seed=s, scales=scales) for s in (4, 4, 5))
    steps = range(1, 6)
    first = [one.batch(step, range(1, 4, 2)) for step in steps]
    with ThreadPoolExecutor(3) as pool:
        again = list(pool.map(lambda step: two.batch(step, range(1, 4, 2)), reversed(steps)))[::-1]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert {batch.scale for batch in first} == {8, 16}
    assert not any(same(a, other.batch(step, range(1, 4, 2))) for step, a in zip(steps, first, strict=True))
    assert not same(first[0], first[1])


def test_a_sample_does_not_depend_on_those_beside_it(textures: Any) -> None:
    made = maker(textures((1, 2)), crop=96, degradation="bicubic")
    whole, part = made.batch(2, range(6)), made.batch(2, range(1, 6, 2))
    for all_of_it, some in zip(whole.tensors(), part.tensors(), strict=True):
        assert torch.equal(all_of_it[1::2].nan_to_num(9), some.nan_to_num(9))


@pytest.mark.parametrize(
    ("step", "scale", "names", "means", "spreads"),
    [
        (10, 16, "112", (-0.0259, -0.0284, -0.0370, 0.9039, 0.9167), (0.2084, 0.1079, 0.2005, 1.3881, 0.2764)),
        (11, 4, "331", (-0.1578, -0.1574, -0.1327, 85.0, 0.9167), (0.2608, 0.232, 0.2677, 120.2169, 0.2764)),
        (12, 8, "213", (-0.1839, -0.1841, -0.1925, 85.8594, 1.0), (0.2435, 0.1995, 0.2239, 119.6153, 0.0)),
    ],
)
def test_draws_are_those_that_made_the_bundled_model(
    step: int, scale: int, names: str, means: tuple[float, ...], spreads: tuple[float, ...], textures: Any
) -> None:
    made = maker(textures((1, 2, 3)), crop=48, scales={"8": 0.5, "16": 0.3, "4": 0.2})
    batch = made.batch(step, range(1, 6, 2))
    assert (batch.scale, batch.names) == (scale, tuple(f"texture {name}" for name in names))
    flat = [t.float().nan_to_num(0) for t in (batch.truth, batch.lr, batch.ref, batch.mask, batch.weight)]
    assert [float(t.mean()) for t in flat] == pytest.approx(means, abs=2e-4)
    assert [float(t.std()) for t in flat] == pytest.approx(spreads, abs=2e-4)


def test_pixels_that_stay_on_the_device_make_the_same_batches(textures: Any) -> None:
    hole = np.ones((256, 256), bool)
    hole[:40] = False
    streamed, held = (textures((1, 2), new_valid=hole), textures((1, 2), new_valid=hole))
    one, two = maker(streamed, crop=96), maker(held, crop=96, budget=MemoryBudget(2**30))
    batches = [(one.batch(step, range(3)), two.batch(step, range(3))) for step in range(1, 5)]
    assert all(same(a, b) for a, b in batches)
    assert any((batch.weight == 0).any() for batch, _ in batches)
    assert sorted(held.reads) == [0, 1]  # each pair once
    assert len(streamed.reads) >= 12
    some = textures((1, 2))
    tight = maker(some, crop=96, budget=MemoryBudget(256 * 256 * 13))
    assert all(tight.batch(step, range(3)).names for step in range(1, 5))
    assert len(some.reads) > 2  # there is room for one; the other is streamed


def test_a_pair_that_cannot_be_read_is_passed_over_by_name(textures: Any) -> None:
    data = textures((1, 2, 3), broken=(1,))
    made = maker(data, crop=96, faults={})
    names = {name for step in range(1, 9) for name in made.batch(step, range(3)).names}
    assert names == {"texture 1", "texture 3"}
    assert made.unusable == {"texture 2": "gone.tif: no such file"}
    strict = maker(data, crop=96, on_error="stop")
    with pytest.raises(InputError, match=r"texture 2: gone.tif: no such file; .*on_error"):
        strict.batch(1, range(24))
    with pytest.raises(InputError, match="20 pairs in a row"):
        maker(textures((1,), broken=(0,))).batch(1, range(1))


def test_pairs_smaller_than_a_crop_are_found_beforehand_and_passed_over(textures: Any) -> None:
    made = maker(textures((1,), size=64), textures((2,)), crop=96, faults={})
    assert made.small_pairs() == ["texture 1: 64 x 64 px, smaller than a crop of 96"]
    assert {name for step in range(1, 5) for name in made.batch(step, range(3)).names} == {"texture 2"}
    strict = maker(textures((1,), size=64), textures((2,)), crop=96, on_error="stop")
    with pytest.raises(InputError, match="texture 1: 64 x 64 px, smaller than a crop of 96"):
        strict.batch(1, range(24))


def test_what_the_truth_lacks_has_no_weight(textures: Any) -> None:
    hole = np.ones((256, 256), bool)
    hole[:, :60] = False
    batch = maker(textures((1,), new_valid=hole), crop=144, faults={}).batch(1, range(6))
    assert 0.5 < batch.weight.mean() < 1
    assert (batch.truth[batch.weight == 0] == 0).all()
    assert torch.isfinite(batch.lr).all()


def test_sources_that_differ_and_unknown_degradations_are_reported(textures: Any) -> None:
    with pytest.raises(OptionError, match=r"the sources differ: bands red, green, blue, nir and red"):
        maker(textures((1,)), textures((2,), bands=("red",)))
    with pytest.raises(OptionError, match=r"samples.degradation is 'fog': choose"):
        maker(textures((1,)), degradation="fog")


def test_coarser_images_are_means_of_the_same_places(textures: Any) -> None:
    data = textures((5,), size=256)
    made = maker(data, textures((6,), size=320), scale=8, crop=144, faults={}, averaged={"2": 1.0})
    assert made.averaged(1) == 2
    assert made.crop(8, 2) == 128  # as much as the smaller pairs have
    batch = made.batch(1, range(8))
    assert batch.truth.shape == (8, 4, 128, 128)
    assert len(set(batch.names)) == 2
    whole = torch.from_numpy(data.images[0]).float().unflatten(1, (128, 2)).unflatten(3, (128, 2)).mean(dim=(2, 4))
    turns = [torch.rot90(m, k, (1, 2)) for m in (whole, whole.flip(-1)) for k in range(4)]
    truths = [t for t, name in zip(batch.truth, batch.names, strict=True) if name == "texture 5"]
    for truth in truths:  # the whole image, turned, with an exposure of its own: a line in each band
        fits = [np.corrcoef(truth[1].flatten(), turn[1].flatten())[0, 1] for turn in turns]
        assert max(fits) > 0.999
    torch.testing.assert_close(batch.truth, batch.ref, atol=1e-5, rtol=0)


def test_averaging_that_leaves_no_crop_is_not_drawn(textures: Any) -> None:
    made = maker(
        textures((5,), size=128), crop=48, scales={"16": 1.0, "12": 1.0}, faults={}, averaged={"1": 1.0, "4": 1.0}
    )
    drawn = {(made.scale(step), made.averaged(step)) for step in range(60)}
    assert drawn == {(16, 1), (16, 4), (12, 1)}  # 12x and the network want 48 px, 32 are left
    for step in range(8):
        side = made.crop(made.scale(step), made.averaged(step))
        assert made.batch(step, range(2)).truth.shape[-1] == side


def test_pixels_without_data_are_not_averaged_in(textures: Any) -> None:
    valid = np.ones((256, 256), np.bool_)
    valid[:, 101:] = False
    batch = maker(textures((5,), new_valid=valid), scale=4, crop=128, faults={}, averaged={"2": 1.0}).batch(1, [0])
    known = batch.weight[0, 0].bool()
    assert int(known.sum()) == 50 * 128  # the pixel half of which is missing is missing


def test_what_is_declared_is_near_the_truth(textures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = maker(textures((5,)), faults={}, degradation="satellite", psf_error=0.1, noise_error=0.2)
    batch = made.batch(2, range(24))
    assert batch.target.shape == (24, 4, 18, 18)
    kinds = {sensor.kernel for sensor in batch.sensors}
    assert kinds <= {"psf", "bicubic"}
    assert len({sensor.psf_sigma for sensor in batch.sensors if sensor.kernel == "psf"}) > 10
    assert all(0.05 <= s.psf_sigma <= 0.7 for s in batch.sensors if s.kernel == "psf")
    declared: list[float] = []

    def noisy(seen: torch.Tensor, sigmas: list[float], margin: int) -> torch.Tensor:
        declared.extend(sigma / 127.5 for sigma in sigmas)
        return seen[..., margin:-margin, margin:-margin]

    monkeypatch.setattr(samples, "without_noise", noisy)
    seen = made.batch(2, range(24)).target
    up = upsample(seen, 8)[..., 24:-24, 24:-24]
    torch.testing.assert_close(up, batch.lr[..., 24:-24, 24:-24], atol=1e-5, rtol=0)
    assert 0.2 < np.mean(np.array(declared) > 0) < 1.0
    errors: list[tuple[float, float]] = []
    for number, sensor in enumerate(batch.sensors):  # as the declared sensor sees the truth, but for noise and error
        clean, noise = sensor.observe(batch.truth[number : number + 1])[0], declared[number]
        apart, filtered = ((x[number] - clean)[:, 3:-3, 3:-3].std() for x in (seen, batch.target))
        assert float(apart) < 1.4 * noise + 0.03
        errors.append((float(apart), float(filtered)))
        assert torch.equal(seen[number], batch.target[number]) == (noise == 0)
    before, after = np.mean(errors, axis=0)
    assert after < before
    with_errors = [s.psf_sigma for s in batch.sensors]
    exact = maker(textures((5,)), faults={}, degradation="satellite").batch(2, range(24))
    off = [abs(a - b.psf_sigma) for a, b in zip(with_errors, exact.sensors, strict=True)]
    assert 0.03 < max(off) <= 0.11


def test_a_coarser_reference_has_less_detail_in_the_same_place(textures: Any) -> None:
    batch = maker(textures((5,)), faults={"coarse": 1.0}).batch(3, range(8))
    for truth, ref in zip(batch.truth, batch.ref, strict=True):
        energy, kept = (float(x.diff(dim=-1).square().mean()) for x in (truth, ref))
        assert 0.2 * energy < kept < energy
        assert np.corrcoef(truth.flatten(), ref.flatten())[0, 1] > 0.95


class Maker:
    """Notes what it is asked for; a batch is the step's number."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at, self.asked, self.threads = fails_at, list[int](), set[int]()

    def batch(self, step: int, numbers: Any) -> Any:
        self.asked.append(step)
        self.threads.add(threading.get_ident())
        time.sleep(0.002 * (step % 3))
        if step == self.fails_at:
            raise RuntimeError(f"step {step}")
        return step


def test_batches_come_in_order_and_no_more_than_a_few_ahead() -> None:
    maker: Any = Maker()
    taken = []
    for batch, waited in prefetch(maker, ((step, range(2)) for step in range(20)), 2, DeviceStream("cpu")):
        assert len(maker.asked) <= len(taken) + 6
        assert waited >= 0
        taken.append(batch)
    assert taken == list(range(20))
    assert threading.get_ident() not in maker.threads


def test_what_fails_in_a_thread_is_raised_where_the_batch_is_due() -> None:
    maker: Any = Maker(fails_at=4)
    coming = prefetch(maker, ((step, range(2)) for step in range(20)), 2, DeviceStream("cpu"))
    assert [next(coming)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="step 4"):
        next(coming)


def test_a_reader_that_leaves_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    maker: Any = Maker()
    coming = prefetch(maker, ((step, range(2)) for step in range(1000)), 3, DeviceStream("cpu"))
    next(coming)
    coming.close()
    assert threading.active_count() == before


class FakeStream:
    """What `DeviceStream` asks of a CUDA stream."""

    def __init__(self, log: list[Any], name: str) -> None:
        self.log, self.name = log, name

    def record_event(self) -> str:
        self.log.append(("event", self.name))
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.log.append(("waits", self.name, event))


class FakeCuda:
    """What `DeviceStream` asks of torch.cuda."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.main = FakeStream(self.log, "main")
        self.made = 0

    def Stream(self, device: str) -> FakeStream:  # noqa: N802
        self.made += 1
        return FakeStream(self.log, f"side {self.made} on {device}")

    @contextmanager
    def stream(self, stream: FakeStream) -> Any:
        self.log.append(("enter", stream.name))
        yield
        self.log.append(("leave", stream.name))

    def current_stream(self, device: str) -> FakeStream:
        return self.main


def test_on_a_gpu_batches_are_made_beside_the_network(textures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: recorded.append((id(tensor), stream)))
    cuda = FakeCuda()
    maker = SampleMaker([Source(textures((1,)), 1.0)], SamplesConfig(crop=32, scales={"4": 1.0}), 4, 1)
    stream = DeviceStream("cuda:1", cuda)
    batches = [batch for batch, _ in prefetch(maker, [(1, range(2)), (2, range(2))], 1, stream)]
    side = "side 1 on cuda:1"
    assert cuda.made == 1  # one stream a thread, not one a batch
    work = [entry for entry in cuda.log if entry[0] != "waits"]
    assert work == [("enter", side), ("event", side), ("leave", side)] * 2
    assert [entry for entry in cuda.log if entry[0] == "waits"] == [("waits", "main", f"event of {side}")] * 2
    assert recorded == [(id(tensor), cuda.main) for batch in batches for tensor in batch.tensors()]


def test_arrays_go_to_a_gpu_from_pinned_memory_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: calls.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **how: calls.append((device, how)) or tensor)
    to_device(np.zeros((2, 3), np.uint8)[:, ::-1], torch.device("cuda:1"))
    assert calls == ["pinned", (torch.device("cuda:1"), {"non_blocking": True})]
    calls.clear()
    to_device(np.zeros(3, np.uint8), torch.device("cpu"))
    assert calls == [(torch.device("cpu"), {})]
