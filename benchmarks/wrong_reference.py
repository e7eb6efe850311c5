"""What a wrong reference costs: `python -m benchmarks.wrong_reference [--city knox]`.

Scenes made from places that no model was trained on (tiles of a city, too small to be registered with certainty, or the
whole rural scene of naip-knox) are sharpened by the command's own way with the right reference and with wrong ones: of
another place, turned, black, cloudy, overcast. HaarPSI against the truth is compared place by place
with the same run without a reference, beside the share of the output whose detail comes from the reference by the
source map, and in how many places the notes say that something is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.private import DATA, markdown, need_city, need_scenes, observed, paired, plus_minus, write_raster
from geo_refdiff import upscale
from geo_refdiff.evaluate import metrics
from geo_refdiff.sensor.sensor import SensorModel

SCALE = 8
NOISE = 0.7
"""Standard deviation of the scene's noise, DN."""

CORNER = (352 * -18_000 + 64, 352 * 1_000 + 64)
"""(row, col) on the lattice where tiles are put: there one of 256 px is in a single window of the model `default`."""

KNOX = "knox"
"""Name of the rural scene, among cities."""

_CLOUD_DN = 235.0
_WARNINGS = ("is not used", "agrees poorly", "does not lie right")

Bytes = NDArray[np.uint8]
Judgement = tuple[float, float, bool]
"""HaarPSI, share of the output whose detail is from the reference, whether the notes warn."""


def clouded(image: Bytes, share: float, seed: int) -> Bytes:
    """Soft bright clouds over about `share` of an image (C, h, w), 1 = dense over all of it."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(image.shape[1:]), 30)
    thick = np.clip((field - np.quantile(field, 1 - share)) / field.std() * 6, 0, 1)
    if share >= 1:
        thick = np.ones_like(field)
    relief = ndimage.gaussian_filter(rng.standard_normal(image.shape[1:]), 6)
    white = _CLOUD_DN + 5 * relief / relief.std()
    return np.asarray(np.rint(np.clip(image * (1 - thick) + white * thick, 0, 255)), dtype=np.uint8)


def wrong_references(right: Bytes, other: Bytes, seed: int) -> Iterator[tuple[str, Bytes]]:
    """Name and image of each kind, the right one first."""
    yield "right, other year", right
    yield "another place", other
    yield "rotated by 90 degrees", np.ascontiguousarray(np.rot90(right, 1, (1, 2)))
    yield "black", np.zeros_like(right)
    yield "30 % clouds", clouded(right, 0.3, seed)
    yield "70 % clouds", clouded(right, 0.7, seed)
    yield "overcast", clouded(right, 1.0, seed)


def read(path: Path) -> tuple[Bytes, Affine, Any]:
    """Red, green, blue, nir in whole scene pixels and as many rows as columns, its affine, its CRS."""
    with rasterio.open(path) as dataset:
        side = min(dataset.shape) // SCALE * SCALE
        return dataset.read(window=((0, side), (0, side))), dataset.transform, dataset.crs


def pairs(city: str, places: int) -> Iterator[tuple[str, Path, Path, Bytes]]:
    """Name, older and newer image, an image of another place."""
    if city == KNOX:
        years = sorted((DATA / "naip-knox").glob("*.tif"))
        for old, new in pairwise(years):
            other = read(old)[0]
            yield f"{old.stem}, {new.stem}", old, new, np.roll(other[:, :, ::-1], other.shape[1] // 3, axis=1)
        return
    folders = sorted((DATA / "naip-ca" / city).iterdir())
    chosen = [folders[k * len(folders) // places] for k in range(min(places, len(folders)))]
    for index, place in enumerate(chosen):
        images = sorted(place.glob("*.tif"))
        yield place.name, images[0], images[-1], read(sorted(chosen[index - 1].glob("*.tif"))[0])[0]


def coarse(truth: Bytes, seed: int) -> Bytes:
    """What the sensor sees of an image, with its noise."""
    lr = observed(truth, SensorModel(SCALE))
    lr += np.random.default_rng(seed).normal(0, NOISE, lr.shape)
    return np.rint(np.clip(lr, 0, 255)).astype(np.uint8)


def judged(folder: Path, scene: Path, truth: Bytes, **options: Any) -> Judgement:
    done = upscale(scene, out=folder / "out.tif", products=["source", "stac"], overwrite=True, **options)
    with rasterio.open(done.out) as dataset:
        image = torch.from_numpy(dataset.read().astype(np.float32))[None]
    sources = json.loads((folder / "out.json").read_text())["properties"]["geo_refdiff:sources"]
    share = sources["reference"] / max(1, sum(v for k, v in sources.items() if k != "nodata"))
    quality = float(metrics.haarpsi(image, torch.from_numpy(truth.astype(np.float32))[None]))
    return quality, share, any(w in note for note in done.notes for w in _WARNINGS)


def _to_corner(transform: Affine) -> Affine:
    """Moves the image with this affine, and whatever is around it, to `CORNER`."""
    row, col = CORNER
    return Affine.translation(transform.a * col - transform.c, transform.e * row - transform.f)


def measured(index: int, old: Path, new: Path, other: Bytes) -> tuple[float, dict[tuple[str, str], Judgement]]:
    """HaarPSI of a place without a reference, and what each kind of reference and way of co-registration gave."""
    truth, transform, crs = read(new)
    right, ref_transform, ref_crs = read(old)
    if ref_crs != crs:
        raise click.ClickException(f"{old}: is in {ref_crs}, {new} in {crs}")
    moved = _to_corner(transform)
    results: dict[tuple[str, str], Judgement] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        scene = write_raster(folder / "scene.tif", coarse(truth, index), moved @ transform @ Affine.scale(SCALE), crs)
        plain = judged(folder, scene, truth, scale=SCALE)[0]
        for kind, image in wrong_references(right, other, index):
            ref = write_raster(folder / "ref.tif", image, moved @ ref_transform, crs)
            for mode in ("auto", "off"):
                results[kind, mode] = judged(
                    folder, scene, truth, scale=SCALE, ref=ref, coregister=mode, on_misregistration="no-ref"
                )
    return plain, results


@click.command()
@click.option("--places", default=16, show_default=True, help="So many places, spread over the city, one direction.")
@click.option("--city", default="santa_monica", show_default=True, help="Of naip-ca, or knox.")
@click.option("--jobs", default=2, show_default=True, help="Places at once, one thread each.")
def main(places: int, city: str, jobs: int) -> None:
    """Print HaarPSI less that without a reference, for each kind of reference and way of co-registration."""
    if city == KNOX:
        need_scenes("naip-knox")
    else:
        need_city(city)
    results: dict[tuple[str, str], list[Judgement]] = {}
    plain: list[float] = []
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        waiting = [
            (place, pool.submit(measured, index, old, new, other))
            for index, (place, old, new, other) in enumerate(pairs(city, places))
        ]
        for place, future in waiting:
            without, of_place = future.result()
            plain.append(without)
            for key, judgement in of_place.items():
                results.setdefault(key, []).append(judgement)
            click.echo(f"{place}: without {without:.4f}", err=True)
    rows = []
    for (kind, mode), judgements in results.items():
        quality, share, warned = zip(*judgements, strict=True)
        worst = min(a - b for a, b in zip(quality, plain, strict=True))
        rows.append(
            [kind, mode, plus_minus(*paired(quality, plain)), f"{worst:+.4f}", f"{np.mean(share):.1%}",
             f"{sum(warned)} of {len(warned)}"]
        )  # fmt: skip
    head = ["reference", "--coregister", "HaarPSI less that without", "worst place", "from the reference", "warned of"]
    click.echo(f"{len(plain)} places of {city}, {SCALE}x, without a reference {np.mean(plain):.4f}\n")
    click.echo(markdown(head, rows))


if __name__ == "__main__":
    main()
