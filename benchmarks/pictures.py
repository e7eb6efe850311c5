"""The pictures of README and docs: `python -m benchmarks.pictures [FOLDER]`, all of the bundled sample scene.

What each shows is computed by the commands that it explains, with their defaults unless the title says otherwise.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from scipy import ndimage

from benchmarks.noise import GAIN, simulated
from benchmarks.wrong_reference import clouded
from geo_refdiff import upscale
from geo_refdiff.commands.coregister import coregister
from geo_refdiff.commands.detect_change import detect_change
from geo_refdiff.raster.picture import Panel, stretch, write_panels
from geo_refdiff.raster.styles import class_colours
from geo_refdiff.restore.sources import COLOURS
from geo_refdiff.sample_tiles import sample
from geo_refdiff.sensor.presets import psf_sigma_from_mtf
from geo_refdiff.sensor.sensor import SensorModel

SIDE = 300
"""Of a panel, screen pixels."""

_SHIFT = 15
"""Of the reference in the picture of co-registration, its own pixels (right and down)."""

_QUALITY = 80
_AREA = (300, 60, 384)
"""(row, col, side) of close-ups, output pixels."""

Bytes = NDArray[np.uint8]
DATA = sample()


def read(path: Path) -> Bytes:
    """All bands."""
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


def on_truth(path: Path) -> Bytes:
    """An image on the truth's grid."""
    with rasterio.open(DATA.truth) as grid, rasterio.open(path) as source:
        where = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
        with WarpedVRT(source, resampling=Resampling.cubic, **where) as warped:
            return np.asarray(warped.read())


def close(image: NDArray[np.generic], scale: int = 1) -> NDArray[np.generic]:
    """The close-up of an image on the output grid, or on one `scale` times coarser."""
    row, col, side = (v // scale for v in _AREA)
    return image[:, row : row + side, col : col + side]


def natural(image: NDArray[np.generic], truth: Bytes) -> Bytes:
    """Red, green, blue as a picture, stretched as the truth is."""
    shown = truth[:3][:, (truth > 0).all(axis=0)]
    return stretch(image[:3], *(np.percentile(shown, q, axis=1) for q in (0.5, 99.5)))


def coloured(classes: Bytes, colours: dict[int, tuple[int, int, int]]) -> Bytes:
    """(height, width) class values as a picture."""
    table = np.full((256, 3), 128, np.uint8)
    for value, colour in colours.items():
        table[value] = colour
    return table[classes].transpose(2, 0, 1)


def ramp(values: NDArray[np.floating], top: float) -> Bytes:
    """(height, width) as grey, 0 black, `top` white."""
    return stretch(np.repeat(values[None], 3, 0), np.zeros(3), np.full(3, top))


def save(path: Path, rows: list[list[Panel]]) -> None:
    """As WebP."""
    with TemporaryDirectory() as folder:
        write_panels(Path(folder) / "sheet.png", rows, SIDE)
        as_webp(Path(folder) / "sheet.png", path)


def as_webp(png: Path, out: Path) -> None:
    """A picture, small enough for the repository."""
    with Image.open(png) as sheet:
        sheet.convert("RGB").save(out, quality=_QUALITY, method=6)
    click.echo(f"{out}: {out.stat().st_size / 1024:.0f} KiB")


def other_reference(path: Path, image: Bytes, moved: Affine | None = None) -> Path:
    """The bundled reference with other pixels, or moved by some of its pixels."""
    with rasterio.open(DATA.reference) as dataset:
        profile, names = dataset.profile, dataset.descriptions
    if moved is not None:
        profile["transform"] = profile["transform"] @ moved
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(image)
        dataset.descriptions = names
    return path


def draw_coregistration(out: Path, folder: Path) -> None:
    """The reference moved away, registered and moved back."""
    image = read(DATA.reference)
    moved = other_reference(folder / "moved.tif", image, Affine.translation(_SHIFT, _SHIFT / 3))
    coregister(DATA.scene, moved, report=folder / "r.json", picture=folder / "r.png")
    as_webp(folder / "r.png", out)


def draw_products(out: Path, folder: Path, truth: Bytes) -> None:
    """Output, source map, uncertainty and error of a run with all products."""
    done = upscale(
        DATA.scene, ref=DATA.reference, mask=DATA.mask, out=folder / "out.tif", products="all", uncertainty=2
    )
    image = read(done.out)
    half, source = read(folder / "out.uncertainty.tif"), read(folder / "out.source.tif")[0]
    error = np.abs(image.astype(np.float32) - truth)[:3].mean(axis=0)
    top = float(np.nanpercentile(half[:3], 99))
    sources = dict(enumerate(COLOURS))
    shares = json.loads((folder / "out.json").read_text())["properties"]["geo_refdiff:sources"]
    click.echo(f"sources: {shares}")
    uncertain = np.nan_to_num(half[:3].mean(axis=0))
    save(
        out,
        [
            [
                Panel("scene, 8 m", natural(close(read(DATA.scene), 8), truth)),
                Panel("out.tif, 1 m", natural(close(image), truth)),
                Panel("truth", natural(close(truth), truth)),
            ],
            [
                Panel("out.source.tif: reference, generated", coloured(close(source[None])[0], sources)),
                Panel(f"out.uncertainty.tif, white: {top:.0f} DN", ramp(close(uncertain[None])[0], top)),
                Panel(f"true error, white: {top:.0f} DN", ramp(close(error[None])[0], top)),
            ],
        ],
    )


def draw_masks(out: Path, folder: Path, truth: Bytes) -> None:
    """The true mask beside the detected one."""
    detection = detect_change(DATA.scene, DATA.reference, folder / "change.tif", grid="output")
    colours = dict(enumerate(class_colours(6))) | {0: (255, 255, 255), 255: (128, 128, 128)}
    reference = on_truth(DATA.reference)
    sure = read(detection.confidence)[0].astype(np.float32)
    save(
        out,
        [
            [
                Panel("scene, now", natural(close(read(DATA.scene), 8), truth)),
                Panel("reference, old", natural(close(reference), truth)),
                Panel("truth, now", natural(close(truth), truth)),
            ],
            [
                Panel("true change mask", coloured(close(read(DATA.mask))[0], colours)),
                Panel("geo-refdiff detect-change", coloured(close(read(detection.out))[0], colours)),
                Panel("its confidence, white: 1", ramp(close(np.where(sure == 255, 0, sure)[None])[0], 250.0)),
            ],
        ],
    )


def draw_wrong_references(out: Path, folder: Path, truth: Bytes) -> None:
    """Outputs and source maps with the right reference and with wrong ones."""
    image = read(DATA.reference)
    valid = (image > 0).all(axis=0)
    kinds = {
        "right reference": image,
        "turned by 180 degrees": np.where(valid, image[:, ::-1, ::-1], 0),
        "half under clouds": np.where(valid, np.maximum(clouded(image, 0.5, 1), 1), 0),
    }
    sources = dict(enumerate(COLOURS))
    rows: list[list[Panel]] = [[], [], []]
    for number, (title, pixels) in enumerate(kinds.items()):
        way = "off" if "clouds" in title else "auto"
        ref = other_reference(folder / f"ref{number}.tif", pixels.astype(np.uint8))
        done = upscale(
            DATA.scene, ref=ref, out=folder / f"wrong{number}.tif", products="source", coregister=way,
            on_misregistration="no-ref",
        )  # fmt: skip
        click.echo(f"{title}: {'; '.join(done.notes)}")
        rows[0].append(Panel(title, natural(close(on_truth(ref)), truth)))
        rows[1].append(Panel(f"output, --coregister {way}", natural(close(read(done.out)), truth)))
        classes = close(read(folder / f"wrong{number}.source.tif"))[0]
        rows[2].append(Panel("source map", coloured(classes, sources)))
    save(out, rows)


def draw_consistency(out: Path, folder: Path, truth: Bytes) -> None:
    """How far what the declared sensor sees of an output is from the scene: bicubic, and the default model."""
    scene = read(DATA.scene).astype(np.float32)
    inner = ndimage.binary_erosion((scene > 0).all(axis=0), np.ones((3, 3)))
    rows = []
    for model, right in (
        ("bicubic", Panel("scene, 8 m", natural(scene, truth))),
        ("default", Panel("truth", natural(truth, truth))),
    ):
        image = read(upscale(DATA.scene, ref=DATA.reference, mask="none", out=folder / f"{model}.tif", model=model).out)
        seen = SensorModel(8).observe(torch.from_numpy(image.astype(np.float32))[None])[0].numpy()
        left = np.where(inner, np.sqrt(((seen - scene) ** 2).mean(axis=0)), 0)
        rms = float(np.sqrt((left[inner] ** 2).mean()))
        rows.append(
            [
                right,
                Panel(f"--model {model}", natural(image, truth)),
                Panel(f"as the sensor sees it, less scene: {rms:.2f} DN", ramp(left, 20.0)),
            ]
        )
    save(out, rows)


def draw_noise(out: Path, folder: Path, truth: Bytes) -> None:
    """What noise of 2.5 % of dark fields does to outputs that take it for the ground, and to those that do not."""
    lr, _ = simulated(truth.astype(np.float32), 0.23, 2.5)
    with rasterio.open(DATA.scene) as dataset:
        profile, names = dataset.profile | {"dtype": "uint16"}, dataset.descriptions
    scene = folder / "noisy.tif"
    with rasterio.open(scene, "w", **profile) as dataset:
        dataset.write(lr)
        dataset.descriptions = names
    rows = []
    for model, first in (
        ("bicubic-ibp", Panel("scene with noise", natural(close(lr / GAIN, 8), truth))),
        ("default", Panel("truth", natural(close(truth), truth))),
    ):
        row = [first]
        for noise in (0, "auto"):
            path = folder / f"noise-{model}-{noise}.tif"
            done = upscale(scene, ref=DATA.reference, out=path, model=model, psf=psf_sigma_from_mtf(0.23), noise=noise)
            row.append(Panel(f"--model {model} --noise {noise}", natural(close(read(done.out) / GAIN), truth)))
        rows.append(row)
    save(out, rows)


@click.command()
@click.argument("out", default="docs", type=click.Path(path_type=Path, file_okay=False, exists=True))
def main(out: Path) -> None:
    """Write all pictures into OUT."""
    truth = read(DATA.truth)
    with TemporaryDirectory() as name:
        folder = Path(name)
        draw_coregistration(out / "coregistration.webp", folder)
        draw_products(out / "products.webp", folder, truth)
        draw_masks(out / "change_masks.webp", folder, truth)
        draw_consistency(out / "consistency.webp", folder, truth)
        draw_noise(out / "noise.webp", folder, truth)
        draw_wrong_references(out / "wrong_reference.webp", folder, truth)


if __name__ == "__main__":
    main()
