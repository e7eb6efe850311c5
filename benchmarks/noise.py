"""What the scene's noise does to outputs: `python -m benchmarks.noise [--scene city] [--model default]`.

Scenes are made from aerial images as Sentinel-2 would deliver them: uint16, a modulation of .2 to .26 at the Nyquist
frequency, white noise of some percent of each band's reflectance over dark fields (its 5th percentile). Cities are
places beside each other, "knox" is the rural scene; references are of another year. Each is sharpened by the command's
own way, with the sensor declared (`--psf`) and not, and compared with the truth and with the same run without noise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from PIL import Image as Picture

from benchmarks.private import DATA, markdown, need_scenes, observed, read_float, write_raster
from geo_refdiff import upscale
from geo_refdiff.evaluate import metrics
from geo_refdiff.raster.picture import stretch
from geo_refdiff.sensor.presets import psf_sigma_from_mtf
from geo_refdiff.sensor.sensor import SensorModel

SCALE = 8
GAIN = 40
"""Numbers of the simulated product for one of the aerial image."""
CRS = "EPSG:32611"
CITIES = {"city": ("long_beach", 0), "claremont": ("claremont", 16), "desert": ("palm_springs", 32)}
"""Folder of the places and the first of them. Nothing here is chosen by santa_monica."""
SCENES = (*CITIES, "knox")
SIDE = 4
"""Places along each side of a city's mosaic."""

SHOWN = 384
"""Side of pictures, output pixels."""

MODELS = ("bicubic-ibp", "matched-ref", "default")
PERCENTS = (0.0, 0.5, 1.0, 2.5)
DARK = 5.0
"""Percentile of a band that stands for the reflectance of dark fields."""
MOST_CHROMA, MOST_LOST, AT = 1.15, 0.3, 1.0
"""What holds: times the chroma without noise, and dB lost to it at so many percent; and PSNR is nowhere below that of
bicubic on the same scene."""

Image = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """One run.

    Attributes:
        scene: of `SCENES`.
        model: as `--model` names it.
        mtf: of the simulated sensor at Nyquist.
        declared: whether `--psf` declares it.
        percent: noise, of the reflectance of dark fields.
    """

    scene: str
    model: str
    mtf: float
    declared: bool
    percent: float

    @property
    def name(self) -> str:
        """For files and lines."""
        psf = "declared" if self.declared else "unknown"
        return f"{self.scene}-{Path(self.model).name}-{self.mtf:g}-{psf}-{self.percent:g}"


@dataclass(frozen=True, slots=True)
class Figures:
    """Against the truth, in numbers of 8 bits.

    Attributes:
        psnr, haarpsi: of all bands; of red, green and blue.
        chroma: energy above a quarter of a cycle a scene pixel, see `chroma_energy`.
        noise: standard deviation of the plan, over that which was added, mean of
            the bands where that is above 1; NaN without.
    """

    psnr: float
    haarpsi: float
    chroma: float
    noise: float


def chroma_energy(image: NDArray[np.floating], scale: int) -> float:
    """Mean square of red - green and blue - green above .25 cycles a scene pixel, under a Hann window.

    Args:
        image: (C, H, W), the first three bands red, green and blue.
        scale: pixels along a scene pixel.
    """
    colour = np.stack([image[0] - image[1], image[2] - image[1]]).astype(np.float64)
    colour -= colour.mean(axis=(1, 2), keepdims=True)
    height, width = colour.shape[1:]
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2(colour * window)) ** 2
    rows, cols = np.fft.fftfreq(height) * scale, np.fft.rfftfreq(width) * scale
    power[:, :, 1:] *= 2  # what a real transform leaves out
    fine = np.hypot(rows[:, None], cols[None]) > 0.25
    return float(power[:, fine].sum() / (window**2).sum() / height / width)


def mosaic(city: str, first: int, year: int) -> Image:
    """Places of a year beside each other, (C, 256 SIDE, 256 SIDE)."""
    folders = sorted(f for f in (DATA / "naip-ca" / city).iterdir() if (f / f"{year}.tif").exists())
    rows = []
    for row in range(SIDE):
        at = first + row * SIDE
        rows.append(np.concatenate([read_float(folder / f"{year}.tif") for folder in folders[at : at + SIDE]], axis=2))
    return np.concatenate(rows, axis=1)


def ground(scene: str) -> tuple[Image, Image]:
    """Truth and reference, (C, H, W) in whole scene pixels, 1..255."""
    if scene == "knox":
        height, width = (n // SCALE * SCALE for n in read_float(DATA / "naip-knox/2018.tif").shape[1:])
        truth, reference = (read_float(DATA / f"naip-knox/{year}.tif")[:, :height, :width] for year in (2018, 2015))
    else:
        truth, reference = (mosaic(*CITIES[scene], year) for year in (2018, 2016))
    return np.clip(truth, 1, 255), np.clip(reference, 1, 255)


def _grid(pixel: float) -> Affine:
    """From a corner on the lattice of scene pixels."""
    return Affine(pixel, 0, 480_000.0, 0, -pixel, 4_000_000.0)


def simulated(
    truth: Image, mtf: float, percent: float, seed: int = 7
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """The scene as it is delivered, and the standard deviation of each band's noise, numbers of the product."""
    sensor = SensorModel(SCALE, psf_sigma_from_mtf(mtf))
    clean = observed(truth, sensor) * GAIN
    sigma = np.percentile(clean.reshape(len(clean), -1), DARK, axis=1) * percent / 100
    noise = np.random.default_rng(seed).standard_normal(clean.shape) * sigma[:, None, None]
    return np.rint(np.clip(clean + noise, 1, 65535)).astype(np.uint16), sigma


def measured(case: Case, picture: Path | None = None) -> Figures:
    """Run a case.

    Args:
        picture: PNG to write of the output's middle.
    """
    truth, reference = ground(case.scene)
    scene, sigma = simulated(truth, case.mtf, case.percent)
    options: dict[str, Any] = {"psf": psf_sigma_from_mtf(case.mtf)} if case.declared else {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        lr = write_raster(folder / "scene.tif", scene, _grid(8.0), CRS)
        if case.model not in ("bicubic", "bicubic-ibp"):
            options["ref"] = write_raster(folder / "ref.tif", reference.astype(np.uint8), _grid(1.0), CRS)
        done = upscale(
            lr, out=folder / "out.tif", scale=SCALE, model=case.model, products=[], on_misregistration="no-ref",
            keep=True, **options
        )  # fmt: skip
        image = read_float(Path(done.out)) / np.float32(GAIN)
        assert done.plan_path is not None
        planned = np.array(json.loads(done.plan_path.read_text())["sensor"]["noise"])
    a, b = torch.from_numpy(image)[None], torch.from_numpy(truth)[None]
    if picture is not None:
        Picture.fromarray(_shown(image, truth)).save(picture)
    there = sigma > 1  # the rest is less than rounding
    ratio = float((planned[there] / sigma[there]).mean()) if case.percent else float("nan")
    return Figures(
        float(metrics.psnr(a, b)), float(metrics.haarpsi(a[:, :3], b[:, :3])), chroma_energy(image, SCALE), ratio
    )


def _shown(image: Image, truth: Image) -> NDArray[np.uint8]:
    """The middle, red, green and blue, stretched as the truth."""
    low, high = np.percentile(truth[:3].reshape(3, -1), [1, 99], axis=1)
    row, col = ((n - SHOWN) // 2 for n in truth.shape[1:])
    middle = image[:3, row : row + SHOWN, col : col + SHOWN]
    return np.ascontiguousarray(np.moveaxis(stretch(middle, low, high), 0, 2))


def table(results: dict[Case, Figures]) -> tuple[str, bool]:
    """A line for each scene, model and sensor; and whether all holds."""
    rows, every = [], True
    for case in results:
        if case.percent or case.model == "bicubic":
            continue
        noisy = [p for p in PERCENTS if p and replace(case, percent=p) in results]
        figures = {p: results[replace(case, percent=p)] for p in (0.0, *noisy)}
        plain = {p: results[replace(case, percent=p, model="bicubic", declared=False)] for p in figures}
        chroma = {p: figures[p].chroma / figures[0.0].chroma for p in noisy}
        above = {p: figures[p].psnr - plain[p].psnr for p in figures}
        lost = figures[0.0].psnr - figures[AT].psnr if AT in figures else 0.0
        holds = max(chroma.values(), default=1.0) <= MOST_CHROMA and lost <= MOST_LOST and min(above.values()) >= 0
        every &= holds
        rows.append(
            [
                case.scene, case.model, f"{case.mtf:g}, {'declared' if case.declared else 'unknown'}",
                " ".join(f"{f.psnr:.2f}" for f in figures.values()), f"{-lost:+.2f}",
                " ".join(f"{d:+.2f}" for d in above.values()), " ".join(f"{c:.2f}" for c in chroma.values()),
                " ".join(f"{f.haarpsi:.3f}" for f in figures.values()),
                " ".join(f"{figures[p].noise:.2f}" for p in noisy), "yes" if holds else "**no**",
            ]
        )  # fmt: skip
    head = [
        "scene", "model", "MTF", f"PSNR at {' '.join(f'{p:g}' for p in PERCENTS)} %", f"lost at {AT:g} %",
        "above bicubic", "chroma", "HaarPSI", "noise estimated", "holds",
    ]  # fmt: skip
    return markdown(head, rows), every


def cases(scenes: Sequence[str], models: Sequence[str], mtfs: Sequence[float]) -> list[Case]:
    """All runs that the table needs; bicubic, which needs no sensor, once."""
    return [
        Case(scene, model, mtf, declared, percent)
        for scene in scenes
        for mtf in mtfs
        for model in ("bicubic", *models)
        for declared in ((False,) if model == "bicubic" else (False, True))
        for percent in PERCENTS
    ]


@click.command()
@click.option("--scene", "scenes", multiple=True, type=click.Choice(SCENES), default=SCENES, help="To take alone.")
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True, help="To take alone.")
@click.option("--mtf", "mtfs", multiple=True, type=float, default=(0.2, 0.26), show_default=True, help="At Nyquist.")
@click.option("--pictures", type=click.Path(path_type=Path, file_okay=False), help="Folder for the outputs' middles.")
@click.option("--jobs", default=2, show_default=True, help="Runs at once, one thread each.")
def main(
    scenes: tuple[str, ...], models: tuple[str, ...], mtfs: tuple[float, ...], pictures: Path | None, jobs: int
) -> None:
    """Print what noise costs; ends with 1 where something does not hold."""
    need_scenes("naip-ca", "naip-knox")
    todo = cases(scenes, models, mtfs)
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        waiting = [pool.submit(measured, case, pictures and pictures / f"{case.name}.png") for case in todo]
        results = {}
        for case, future in zip(todo, waiting, strict=True):
            results[case] = future.result()
            click.echo(f"{case.name}: {results[case]}", err=True)
    text, holds = table(results)
    click.echo(text)
    if not holds:
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main()
