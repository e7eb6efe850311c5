"""How well changes are detected, and what the mask is worth: `python -m benchmarks.change_detection`.

Three tables: F1 of change on generated landscapes that the detector never saw (exact truth, a scene pixel is changed
where at least half of it is); changes reported on real pairs of a city that no model was trained on (there is no truth:
the same date against itself, with another exposure, and another year, in which some 2 to 5 % really changed); HaarPSI
of the bundled model with a true, a partly wrong, the detected and no mask ("auto": as `upscale` gives it).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.private import DATA, lacking, need_city, need_index, paired
from geo_refdiff.change.detector import AUTO_MIN_CONFIDENCE, ChangeNetwork, load_detector
from geo_refdiff.classes import CLASSES
from geo_refdiff.data import Crop, open_dataset
from geo_refdiff.data.make_index import make_index
from geo_refdiff.data.matching import match_radiometry
from geo_refdiff.evaluate import metrics
from geo_refdiff.evaluate.figures import mean_and_error
from geo_refdiff.evaluate.masks import corrupted_mask
from geo_refdiff.options import SamplingOptions
from geo_refdiff.raster.window import Window
from geo_refdiff.restore.models import open_model
from geo_refdiff.restore.restorers import LR_MARGIN, Conditions, Restorer
from geo_refdiff.sensor.sensor import SensorModel
from geo_refdiff.sensor.units import BYTES
from geo_refdiff.train.detector import LrSample, count, lr_sample, probabilities, whole

LANDSCAPES = "build/landscapes-31000-31009.csv"


def real(city: str, places: int) -> list[Crop]:
    """All ordered pairs of dates of the first places of a city, registered, matched, whole; no change is claimed."""
    names = [f"{city}/{folder.name}" for folder in sorted((DATA / "naip-ca" / city).iterdir())[:places]]
    with TemporaryDirectory() as folder:
        index = Path(folder) / "pairs.csv"
        make_index(DATA / "naip-ca", index, root=DATA, only=names)
        data = open_dataset(str(index), root=DATA, pseudo_change=False, resident=True)
        crops = [whole(data, i) for i in range(len(data))]
    return [crop._replace(mask=np.zeros_like(crop.mask)) for crop in crops]


def against(crop: Crop, ref: np.ndarray) -> Crop:
    """With another reference, complete."""
    return crop._replace(ref=ref, ref_valid=np.ones_like(crop.ref_valid))


def reported(network: ChangeNetwork, samples: Iterable[LrSample], threshold: float) -> float:
    """Share of labelled scene pixels that are reported as changed."""
    cells = labelled = 0
    for sample in samples:
        ok = sample.weight > 0
        cells += int((1 - probabilities(network, sample)[0][ok] >= threshold).sum())
        labelled += int(ok.sum())
    return cells / max(1, labelled)


def exposed(image: np.ndarray) -> np.ndarray:
    """Another exposure: half a stop darker, bluer, a little gamma; then fitted again, as a plan does."""
    gain = np.array([0.72, 0.76, 0.84, 0.78])[:, None, None]
    other = np.clip(255 * (image / 255 * gain + 0.02) ** 0.92, 0, 255).round().astype(np.uint8)
    return match_radiometry(image, other, np.ones(image.shape[1:], np.bool_))


def detected(network: ChangeNetwork, sample: LrSample, threshold: float, least: float, *, changes_only: bool) -> Tensor:
    """(1, 1, H, W) uint8 mask on the output grid, 255 where less sure than `least`, or where there is no change."""
    share = probabilities(network, sample)
    now = share[1:].argmax(0) + 1
    changed = 1 - share[0] >= threshold
    classes = torch.where(changed, now, 0).to(torch.uint8)
    sure = torch.where(changed, share.gather(0, now[None])[0], share[0])
    classes[(sure < least) | (sample.weight == 0) | (~changed & changes_only)] = 255
    return classes.repeat_interleave(sample.scale, 0).repeat_interleave(sample.scale, 1)[None, None]


def restored(restorer: Restorer, lr: Tensor, ref: Tensor, mask: Tensor | None) -> Tensor:
    """(1, C, H, W) DN of a model for one window at the lattice's origin; images in DN."""
    window = Window(0, 0, *ref.shape[-2:])
    units = F.pad(BYTES.to_model(lr), (LR_MARGIN,) * 4, mode="replicate")
    with torch.inference_mode():
        return BYTES.to_numbers(restorer.restore(Conditions((window,), units, BYTES.to_model(ref), mask)))


def worth(restorer: Restorer, crops: list[Crop], masks: list[dict[str, Tensor | None]], scale: int) -> None:
    """Prints HaarPSI for each kind of mask, over all pixels, and over those that changed."""
    rows: dict[str, list[tuple[float, float]]] = {}
    sensor = SensorModel(scale)
    for crop, kinds in zip(crops, masks, strict=True):
        new, ref = (torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32))[None] for a in (crop.new, crop.ref))
        ref = torch.where(torch.from_numpy(crop.ref_valid), ref, torch.nan)
        changed = torch.from_numpy((crop.mask > 0) & (crop.mask < 255))[None, None]
        for name, mask in kinds.items():
            image = restored(restorer, sensor.observe(new), ref, mask)
            inside = metrics.haarpsi(image, new, changed) if bool(changed.any()) else torch.tensor(torch.nan)
            rows.setdefault(name, []).append((float(metrics.haarpsi(image, new)), float(inside)))
    for name, values in rows.items():
        means = [mean_and_error(column)[0] for column in zip(*values, strict=True)]
        _, error = paired([v[0] for v in values], [v[0] for v in rows["none"]])
        click.echo(f"  {name:24}{means[0]:8.4f}{means[1]:10.4f}   se of the difference to none {error:.4f}")


@click.command()
@click.option("--landscapes", default=LANDSCAPES, show_default=True, help="Index of landscapes that it never saw.")
@click.option("--places", default=24, show_default=True, help="Real places, two ordered pairs each.")
@click.option("--city", default="santa_monica", show_default=True)
@click.option("--restore", default=6, show_default=True, help="Pairs of each kind that are restored; 0 = none.")
@click.option("--model", default="default", show_default=True)
def main(landscapes: str, places: int, city: str, restore: int, model: str) -> None:
    """Print the three tables."""
    need_index(landscapes, LANDSCAPES)
    detector = load_detector()
    network, limit = detector.networks[torch.float32], detector.threshold
    painted = open_dataset(landscapes)
    generated = [whole(painted, i) for i in range(len(painted))]
    for scale in (8, 16):
        c = count(network, [lr_sample(crop, SensorModel(scale)) for crop in generated], limit)
        rates = f"precision {c.hits / max(1, c.hits + c.false):.3f}, recall {c.hits / max(1, c.hits + c.missed):.3f}"
        click.echo(f"landscapes {scale:2}x: F1 {c.f1:.3f}, {rates}, {c.pixels} scene pixels of {len(generated)}")
    if places and (reason := lacking("naip-ca")):
        click.echo(f"real pairs skipped: {reason}")
        places = 0
    if places:
        need_city(city)
    pairs = real(city, places) if places else []
    for scale in (8, 16) if pairs else ():
        sensor = SensorModel(scale)
        kinds = {
            "same date": [lr_sample(against(p, p.new), sensor, noise=1.0) for p in pairs[::2]],
            "same date, other exposure": [lr_sample(against(p, exposed(p.new)), sensor, noise=1.0) for p in pairs[::2]],
            "another year": [lr_sample(p, sensor) for p in pairs],
        }
        shares = ", ".join(f"{name} {reported(network, samples, limit):.2%}" for name, samples in kinds.items())
        click.echo(f"{city} {scale:2}x, reported as changed: {shares}")
    if not restore:
        return
    opened = open_model(SamplingOptions(model=model))
    for scale in (8, 16):
        sensor = SensorModel(scale)
        restorer = opened.make(sensor, (0, 1, 2, 3))
        small = [Crop._make(a[..., :256, :256] for a in crop) for crop in generated[:restore]]
        for title, crops in (("landscapes", small), (city, pairs[:restore])):
            masks: list[dict[str, Tensor | None]] = []
            for number, crop in enumerate(crops):
                sample = lr_sample(crop, sensor)
                true = torch.from_numpy(crop.mask)[None, None]
                kinds_of: dict[str, Tensor | None] = {"none": None}
                for name, least, only in (("auto", AUTO_MIN_CONFIDENCE, True), ("auto, all of it", 0.0, False)):
                    kinds_of[name] = detected(network, sample, limit, least, changes_only=only)
                if title == "landscapes":
                    wrong = corrupted_mask(true, len(CLASSES), number)
                    kinds_of |= {"true": true, "true, 30 % wrong": wrong}
                masks.append(kinds_of)
            if crops:
                click.echo(f"HaarPSI, {title}, {scale}x, {len(crops)} tiles: all and changed pixels")
                worth(restorer, crops, masks, scale)


if __name__ == "__main__":
    main()
