"""Memory, speed and scratch space of the engine by output size: `geo-refdiff upscale --model bicubic`, by itself.

The sources are a COG and a VRT over it, 8x coarser than the output, 3 bands of uint8.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window
from scipy import ndimage

SCALE = 8
_TILE = 512


@dataclass(frozen=True)
class Run:
    """One run: wall seconds, peak resident memory, largest scratch space and output, all in bytes."""

    seconds: float
    peak: int
    scratch: int
    output: int


def make_source(folder: Path, side: int, pixel: float = 10.0) -> Path:
    """A textured scene of `side` x `side` pixels of `pixel` metres as a COG, and a VRT over it, which is returned."""
    plain, cog, vrt = folder / f"{side}_plain.tif", folder / f"{side}.tif", folder / f"{side}.vrt"
    rng = np.random.default_rng(side)
    profile = {
        "driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": Affine(pixel, 0, 400_000, 0, -pixel, 5_800_000), "tiled": True, "compress": "zstd",
    }  # fmt: skip
    with rasterio.open(plain, "w", **profile) as dataset:
        dataset.descriptions = ("red", "green", "blue")
        for row in range(0, side, _TILE):
            for col in range(0, side, _TILE):
                window = Window(col, row, min(_TILE, side - col), min(_TILE, side - row))
                noise = rng.standard_normal((3, window.height, window.width))
                image = 110 + 60 * ndimage.gaussian_filter(noise, (0, 3, 3)) * 6 + 6 * noise
                dataset.write(np.clip(image, 1, 255).astype("uint8"), window=window)
    rasterio.shutil.copy(plain, cog, driver="COG", compress="zstd")
    plain.unlink()
    rasterio.shutil.copy(cog, vrt, driver="VRT")
    return vrt


def measure(scene: Path, out: Path, model: str) -> Run:
    """One run of the command, watched from outside."""
    parts = out.with_name(f"{out.name}.parts")
    arguments = [str(scene), "--model", model, "--scale", str(SCALE), "--device", "cpu", "--overwrite", "-o", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "geo_refdiff.cli.main", "upscale", *arguments], stdout=subprocess.DEVNULL
    )
    scratch = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        scratch = max(scratch, _scratch(parts))
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the run failed with exit code {process.returncode}")
    run = Run(seconds, usage.ru_maxrss * 1024, scratch, out.stat().st_size)
    out.unlink()
    return run


def _scratch(parts: Path) -> int:
    """Bytes in the run's folder, without the output that is growing there."""
    total = 0
    for folder, _, names in os.walk(parts):
        for name in names:
            if name.startswith((".published.tmp", "published")) and name.endswith(".tif"):
                continue
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one row a size: medians over the repeats, sizes in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8_000, 40_000], help="sides of the output, pixels")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--model", default="bicubic")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    folder = Path(tempfile.mkdtemp(prefix="geo-refdiff-bench-", dir=options.folder))
    try:
        scenes = {size: make_source(folder, size // SCALE) for size in options.sizes}
        runs: dict[int, list[Run]] = {size: [] for size in options.sizes}
        for _ in range(options.repeats):
            for size, scene in scenes.items():
                runs[size].append(measure(scene, folder / f"out_{size}.tif", options.model))
    finally:
        shutil.rmtree(folder)
    print(f"--model {options.model}, {SCALE}x, 3 bands uint8, median of {options.repeats}")
    heads = ("seconds", "MPix/s", "peak MiB", "/ first", "output MiB", "scratch / output")
    print(f"{'output':>16}" + "".join(f"{head:>{len(head) + 3}}" for head in heads))
    first: float | None = None
    for size in options.sizes:
        seconds, peak, scratch, output = (
            median(getattr(r, key) for r in runs[size]) for key in ("seconds", "peak", "scratch", "output")
        )
        first = first or peak
        print(
            f"{size:>7} x {size:<6}{seconds:10.1f}{size * size / 1e6 / seconds:9.1f}{peak / 2**20:11.0f}"
            f"{peak / first:10.3f}{output / 2**20:13.0f}{scratch / output:19.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
