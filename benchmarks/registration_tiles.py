"""How well small tiles are registered: `python -m benchmarks.registration_tiles [--city palm_springs]`.

Both orders of two dates of each place of a city, the newer one seen at 8x by the sensor (32 x 32 LR pixels). What is
found is held against the shift at which the edges of the two sharp images agree best, to a whole HR pixel (0.125 LR
pixels), which is better known than anything a coarse scene can tell.
"""

from __future__ import annotations

from math import hypot
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import torch
from affine import Affine
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.private import need_city
from benchmarks.wrong_reference import SCALE, coarse, pairs, read, write
from geo_refdiff.raster.inspection import inspect
from geo_refdiff.registration.reading import register_rasters
from geo_refdiff.registration.registration import Registration
from geo_refdiff.sensor.sensor import SensorModel

_MOST = 14
"""Greatest shift between the sharp images that is looked for, HR pixels."""

_BLUR = 1.5
_BANDS = (1, 2, 3, 4)


def edges(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Edge strength of the visible bands' mean, (h, w)."""
    grey = ndimage.gaussian_filter(image[:3].astype(np.float32).mean(axis=0), _BLUR)
    return np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))


def sharp_shift(new: NDArray[np.uint8], old: NDArray[np.uint8]) -> tuple[float, float]:
    """(rows, columns), LR pixels: what the new image shows at p the old one shows at p + shift."""
    here, there = edges(new), edges(old)
    inner = (slice(_MOST, -_MOST),) * 2
    best, found = -np.inf, (0, 0)
    for row in range(-_MOST, _MOST + 1):
        for col in range(-_MOST, _MOST + 1):
            moved = np.roll(there, (-row, -col), (0, 1))[inner]
            alike = float(np.corrcoef(here[inner].ravel(), moved.ravel())[0, 1])
            if alike > best:
                best, found = alike, (row, col)
    return found[0] / SCALE, found[1] / SCALE


def registered(folder: Path, old: Path, new: Path, seed: int) -> tuple[Registration, tuple[float, float]]:
    """What is found for a scene of `new` and the reference `old`, and what the sharp images show."""
    truth, transform, crs = read(new)
    right, ref_transform, ref_crs = read(old)
    lr = coarse(truth, seed)
    scene = inspect(str(write(folder / "scene.tif", lr, transform @ Affine.scale(SCALE), crs)), "scene")
    reference = inspect(str(write(folder / "ref.tif", right, ref_transform, ref_crs)), "reference")
    return register_rasters(scene, _BANDS, reference, _BANDS, SensorModel(SCALE), "auto"), sharp_shift(truth, right)


@click.command()
@click.option("--city", default="santa_monica", show_default=True)
@click.option("--places", default=92, show_default=True)
def main(city: str, places: int) -> None:
    """Print how many tiles are registered, and how far off they are."""
    need_city(city)
    torch.set_num_threads(1)
    errors: list[tuple[float, str]] = []
    count = 0
    with TemporaryDirectory() as name:
        for index, (place, old, new, _) in enumerate(pairs(city, places)):
            for one, other in ((old, new), (new, old)):
                found, (row, col) = registered(Path(name), one, other, index)
                count += 1
                if found.registered:
                    errors.append((hypot(found.shift[0] - row, found.shift[1] - col), place))
    off = np.array([error for error, _ in errors])
    click.echo(f"{city}: {len(off)} of {count} registered, RMSE {np.sqrt((off**2).mean()):.3f} LR pixels")
    click.echo("worst: " + ", ".join(f"{place} {error:.2f}" for error, place in sorted(errors, reverse=True)[:6]))


if __name__ == "__main__":
    main()
