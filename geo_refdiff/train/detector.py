"""Trains the change detector (`geo-refdiff train-detector`).

Each pair of dates becomes some samples on the scene grid (of other scales, sensors, exposures); a part of them
shows the same date twice, a part real change of another place pasted into the reference. Labels are the shares of each
class within a scene pixel, so that pixels on borders teach what they can. The same data on the same machine give the
same weights; config.json says how they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geo_refdiff.change.detector import BANDS, LAYOUT, LAYOUT_SIDE, ChangeNetwork, DetectorConfig, change_features
from geo_refdiff.classes import CLASSES
from geo_refdiff.data import Crop, PairDataset
from geo_refdiff.data.synthetic_change import paste_change, random_region
from geo_refdiff.diffusion.checkpoint import match_weights, model_digest, read_weights, save_model
from geo_refdiff.errors import InputError
from geo_refdiff.options import DetectorOptions, fields_of, takes_options
from geo_refdiff.sensor.sensor import DEFAULT_PSF_SIGMA, SensorModel
from geo_refdiff.sensor.units import BYTES

SCALES = (6, 8, 8, 8, 8, 12, 16, 16, 16, 16)
_SIGMAS = (0.0, DEFAULT_PSF_SIGMA, DEFAULT_PSF_SIGMA, 0.45)
_SAME, _PASTED, _NO_NIR = 0.1, 0.12, 0.15
_MIN_LABELLED = 0.5
_BATCH_PIXELS = 9216
Log = Callable[[str], None]

_HELD = 10
"""Every so many pairs of the first source one is kept from training, to choose the threshold on."""


@dataclass(frozen=True)
class LrSample:
    """One sample on the scene grid.

    Attributes:
        features: (CHANNELS, h, w) float16, as of `change_features`.
        shares: (K, h, w) float16 share of each class among the labelled output pixels.
        weight: (h, w) float16, 0 where nothing is labelled.
        scale: output pixels along a scene pixel.
    """

    features: Tensor
    shares: Tensor
    weight: Tensor
    scale: int


def lr_sample(crop: Crop, sensor: SensorModel, *, nir: bool = True, noise: float = 0.0, seed: int = 0) -> LrSample:
    """A pair of dates as the detector sees it: `crop.new` through the sensor, `crop.ref` as the reference.

    Args:
        crop: red, green, blue, nir, DN 0..255; rows and columns that do not fill a scene pixel are left out.
        sensor: makes the LR scene, and is what the detector believes in.
        nir: whether both have near infrared.
        noise: standard deviation of the LR scene's noise, DN.
        seed: of the noise.
    """
    scale = sensor.scale
    height, width = (n // scale * scale for n in crop.mask.shape)
    cut = (slice(height), slice(width))
    new, ref = (
        BYTES.to_model(torch.from_numpy(np.ascontiguousarray(a[:, *cut])).float()) for a in (crop.new, crop.ref)
    )
    ref[:, torch.from_numpy(~crop.ref_valid[cut])] = torch.nan
    lr = sensor.observe(new[None])[0]
    if noise:
        draw = torch.Generator().manual_seed(seed)
        lr += torch.randn(lr.shape, generator=draw) * (noise / BYTES.half_range)
    whole = torch.from_numpy(crop.new_valid[cut]).float()[None]
    valid = F.avg_pool2d(whole, scale)[0] > 0.999
    mask = torch.from_numpy(crop.mask[cut].astype(np.int64))
    one_hot = F.one_hot(mask.clamp(max=len(CLASSES)), len(CLASSES) + 1)[..., : len(CLASSES)].permute(2, 0, 1).float()
    shares = F.avg_pool2d(one_hot, scale)
    labelled = shares.sum(0)
    features = change_features(lr, valid, ref, sensor, nir=nir)
    weight = torch.where((labelled >= _MIN_LABELLED) & (features[-1] > 0) & valid, 1.0, 0.0)
    shares = shares / labelled.clamp(min=1e-3)
    return LrSample(features.half(), shares.half(), weight.half(), scale)


def drawn(crop: Crop, other: Callable[[], Crop], rng: np.random.Generator) -> LrSample:
    """One of the many samples of a pair; `other` gives a pair of another place, of which content may be pasted."""
    chance = rng.random()
    if chance < _SAME:
        crop = crop._replace(ref=crop.new, ref_valid=crop.new_valid, mask=np.zeros_like(crop.mask))
    elif chance < _SAME + _PASTED:
        crop = _pasted(crop, other(), rng)
    new, ref = crop.new.astype(np.float64), crop.ref.astype(np.float64)
    shift = tuple(int(v) for v in np.clip(np.rint(rng.normal(0, 0.7, 2)), -2, 2))
    ref = np.roll(ref, shift, (1, 2))
    one = (4, 1, 1)
    ref = (ref - 110) * rng.normal(1, 0.05, one) + 110 + rng.normal(0, 4, one)
    gain, offset = (
        rng.uniform(0.75, 1.25) * rng.uniform(0.93, 1.07, one),
        rng.uniform(-15, 15) + rng.uniform(-5, 5, one),
    )
    crop = crop._replace(new=(new * gain + offset).clip(0, 255), ref=(ref * gain + offset).clip(0, 255))
    sensor = SensorModel(int(rng.choice(SCALES)), float(rng.choice(_SIGMAS)))
    return lr_sample(
        crop, sensor, nir=rng.random() >= _NO_NIR, noise=float(rng.uniform(0, 2)), seed=int(rng.integers(1 << 31))
    )


def _pasted(crop: Crop, other: Crop, rng: np.random.Generator) -> Crop:
    """Another place in a part of the reference; changed is where its class differs from the one there is now."""
    side = min(*crop.mask.shape, *other.mask.shape)
    at = (slice(side), slice(side))
    ref, mask = crop.ref.copy(), crop.mask.copy()
    old, labels, here, there, content = (
        torch.from_numpy(np.ascontiguousarray(part))
        for part in (ref[:, *at], mask[at], crop.classes[at], other.classes[at], other.new[:, *at].astype(ref.dtype))
    )
    where = random_region(side, rng, torch.device("cpu")) & torch.from_numpy(other.new_valid[at])
    ref[:, *at], mask[at] = (part.numpy() for part in paste_change(old, labels, here, content, where, there))
    return crop._replace(ref=ref, mask=mask)


def whole(dataset: PairDataset, index: int) -> Crop:
    """A pair, all of it."""
    return dataset.read(index, 0, 0, *dataset.shape(index))


def train(network: ChangeNetwork, samples: Sequence[LrSample], steps: int, rate: float, log: Log = print) -> None:
    """Train a network on samples: Adam, one cosine, soft cross-entropy, batches turned and mirrored.

    Args:
        network: float32; changed in place, in evaluation mode afterwards.
        samples: of any sizes; a batch holds one size.
        steps: of the optimizer.
        rate: of learning, at first.
        log: takes a line for the terminal, now and then.
    """
    rng = np.random.default_rng(0)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), rate)
    groups: dict[tuple[int, ...], list[LrSample]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample.weight.shape), []).append(sample)
    keys = list(groups)
    odds = np.array([len(groups[k]) for k in keys]) / len(samples)
    smooth = 0.0
    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = rate * (0.5 + 0.5 * np.cos(np.pi * step / steps)) * min(1.0, step / 50) + 1e-5
        group_key = keys[int(rng.choice(len(keys), p=odds))]
        count = max(4, _BATCH_PIXELS // (group_key[0] * group_key[1]))
        chosen = [groups[group_key][int(i)] for i in rng.integers(len(groups[group_key]), size=min(count, 32))]
        loss = _loss(network, chosen, int(rng.integers(4)), bool(rng.integers(2)))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        smooth = float(loss.detach()) if step == 1 else 0.98 * smooth + 0.02 * float(loss.detach())
        if step % 100 == 0:
            log(f"step {step} of {steps}, loss {smooth:.4f}")
    network.eval()


def _loss(network: ChangeNetwork, batch: Sequence[LrSample], quarters: int, flip: bool) -> Tensor:
    parts = [torch.stack([getattr(s, name) for s in batch]).float() for name in ("features", "shares", "weight")]
    layout = F.pixel_shuffle(parts[0][:, :LAYOUT], LAYOUT_SIDE)  # parts of scene pixels turn, too
    turned = (
        torch.rot90(p.flip(-1) if flip else p, quarters, (-2, -1)) for p in (layout, parts[0][:, LAYOUT:], *parts[1:])
    )
    layout, features, shares, weight = turned
    features = torch.cat([F.pixel_unshuffle(layout, LAYOUT_SIDE), features], 1)
    reach = network.reach
    logits = network(F.pad(features, (reach, reach, reach, reach)))
    loss = -(shares * torch.log_softmax(logits, 1)).sum(1)
    return (loss * weight).sum() / weight.sum().clamp(min=1)


@dataclass(frozen=True)
class Counts:
    """Changed scene pixels: detected and true, detected but not true, true but missed; and all labelled ones."""

    hits: int
    false: int
    missed: int
    pixels: int

    @property
    def f1(self) -> float:
        """F1 score of change."""
        return 2 * self.hits / max(1, 2 * self.hits + self.false + self.missed)


def probabilities(network: ChangeNetwork, sample: LrSample) -> Tensor:
    """(K, h, w) float32 probability of each class."""
    reach = network.reach
    with torch.inference_mode():
        features = F.pad(sample.features.float()[None], (reach, reach, reach, reach))
        return torch.softmax(network(features), 1)[0]


def count(network: ChangeNetwork, samples: Sequence[LrSample], threshold: float) -> Counts:
    """Changed is a scene pixel of whose labelled area at least half changed."""
    totals = np.zeros(4, np.int64)
    for sample in samples:
        labelled = sample.weight > 0
        detected = (1 - probabilities(network, sample)[0] >= threshold)[labelled]
        true = (sample.shares[0] <= 0.5)[labelled]
        totals += [
            int((detected & true).sum()),
            int((detected & ~true).sum()),
            int((~detected & true).sum()),
            int(labelled.sum()),
        ]
    return Counts(*(int(n) for n in totals))


def best_threshold(network: ChangeNetwork, samples: Sequence[LrSample]) -> float:
    """The probability of change with the best F1 score."""
    steps = [round(0.2 + 0.05 * i, 2) for i in range(9)]
    return max(steps, key=lambda t: count(network, samples, t).f1)


def collect(dataset: PairDataset, samples: int, rng: np.random.Generator) -> list[LrSample]:
    """So many samples, spread evenly over the pairs that are not held out; content is pasted from others of these."""
    pairs = [index for index in range(len(dataset)) if not _held(index)]

    def other() -> Crop:
        return whole(dataset, pairs[int(rng.integers(len(pairs)))])

    collected: list[LrSample] = []
    for number, index in enumerate(pairs):
        share = (number + 1) * samples // len(pairs) - number * samples // len(pairs)
        if share:
            crop = whole(dataset, index)
            collected += [drawn(crop, other, rng) for _ in range(share)]
    return collected


def _held(index: int) -> bool:
    """Whether a pair is kept from training."""
    return index % _HELD == _HELD - 1


@dataclass(frozen=True, slots=True)
class DetectorData:
    """Pairs to learn from.

    Attributes:
        name: what config.json calls them.
        dataset: with the bands and classes of the detector.
        samples: how many are drawn of it.
    """

    name: str
    dataset: PairDataset
    samples: int


@takes_options(fields_of(DetectorOptions))
def train_detector(
    out: Path,
    data: Sequence[DetectorData],
    *,
    log: Log = print,
    **options: Any,
) -> Counts:
    """Train on nine of ten pairs, choose the threshold on the tenth of the first data set and write the model.

    The model card in `out` stays; without one a line stands in for it.

    Args:
        out: model folder.
        data: what to learn from.
        log: takes a line for the terminal, now and then.
        options: as listed below.

    Returns:
        Counts over the pairs that were held out, at 8x and 16x.

    Raises:
        InputError: too few pairs to keep one; one that cannot be read.
        ModelError: `init` is no detector of this width.
        OutputError: the model cannot be written.
    """
    chosen = DetectorOptions(**options)
    first = data[0].dataset
    if len(first) < _HELD:
        raise InputError(f"{data[0].name}: {len(first)} pairs; give {_HELD} or more, a tenth is kept to choose on")
    torch.manual_seed(0)
    network = ChangeNetwork(chosen.width, len(CLASSES))
    init = None if chosen.init is None else Path(chosen.init)
    if init is not None:
        weights = read_weights(init)
        match_weights(network, weights, init)
        network.load_state_dict(weights)
    rng = np.random.default_rng(0)
    samples = [sample for part in data for sample in collect(part.dataset, part.samples, rng)]
    train(network, samples, chosen.steps, chosen.rate, log)
    held = (whole(first, index) for index in range(len(first)) if _held(index))
    checks = [lr_sample(crop, SensorModel(scale)) for crop in held for scale in (8, 16)]
    threshold = best_threshold(network, checks)
    counts = count(network, checks, threshold)
    trained: dict[str, Any] = {
        "data": [
            {"source": p.name, "fingerprint": p.dataset.fingerprint(), "pairs": len(p.dataset), "samples": p.samples}
            for p in data
        ],
        "steps": chosen.steps,
        "rate": chosen.rate,
        "threads": torch.get_num_threads(),
        "f1_held_out": round(counts.f1, 4),
    }
    if init is not None:
        trained["init"] = model_digest(init)
    config = DetectorConfig(
        width=chosen.width,
        classes=CLASSES,
        threshold=threshold,
        psf_sigma=DEFAULT_PSF_SIGMA,
        bands=BANDS,
        trained=trained,
    )
    card = out / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else "A change detector; see docs/change-masks.md.\n"
    save_model(out, config, network.state_dict(), text)
    log(f"{out}: threshold {threshold}, F1 {counts.f1:.3f} on {counts.pixels} held-out scene pixels")
    return counts
