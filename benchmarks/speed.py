"""What an output megapixel of `upscale` costs, beside another version: `python -m benchmarks.speed [PYTHON ...]`.

Runs the command with one thread on a scene simulated from one date of `naip-knox` with another as reference (8x, 4
bands): the whole scene and an area of 192 x 192 pixels of it, each with and without `--uncertainty 4`; `--large` adds
the scene mirrored to 4,096 x 4,096. PYTHON is the interpreter of an environment in which another version is installed,
for instance `pip install git+https://...@e0dd34d` in a fresh one; its rows stand beside. What starting Python and its
libraries takes is subtracted. `engine` is the part of the wall time that is not spent in the restorer: planning,
reading, writing.

`--gpu` (`make bench-gpu`) measures a GPU instead: megapixels a second end to end of uint16 scenes from COGs on the
local disk, the time that the GPU idles, its memory, and how far its pixels are from the CPU's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window
from scipy import ndimage

_RUN = "import sys; from geo_refdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
_START = "import torch, rasterio, scipy, geo_refdiff"
_SCALE, _AREA, _LARGE, _GPU_SIDE = 8, 192, 4096, 8192
_OPTIONS = ("--scale", str(_SCALE), "--overwrite", "--products", "none", "--json")


@dataclass(frozen=True)
class Cost:
    """What a process took: processor seconds, wall seconds, peak resident MB, and what it printed."""

    cpu: float
    wall: float
    peak: float
    printed: str


def timed(command: Sequence[str], threads: int = 1) -> Cost:
    """Runs a command with some threads."""
    begun = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - begun
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
        out.seek(0)
        return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1e3, out.read())


def mirrored(source: Path, out: Path, side: int) -> Path:
    """An image continued by its mirror image to `side` x `side` pixels."""
    with rasterio.open(source) as dataset:
        image, profile = dataset.read(), dataset.profile
    more = [(0, 0), *((0, side - n) for n in image.shape[1:])]
    profile.update(height=side, width=side, tiled=True, blockxsize=256, blockysize=256, compress="zstd")
    with rasterio.open(out, "w", **profile) as dataset:
        dataset.write(np.pad(image, more, mode="symmetric"))
    return out


def area_of(scene: Path, side: int) -> str:
    """An area of `side` x `side` output pixels, as --aoi takes it."""
    with rasterio.open(scene) as dataset:
        (left, top), (right, bottom) = (dataset.transform @ at for at in ((40, 30), (40 + side // 8, 30 + side // 8)))
    return f"{left},{bottom},{right},{top}"


def cpu_table(data: Path, folder: Path, others: Sequence[str], *, large: bool) -> None:
    """Prints the rows of this version and of others."""
    from geo_refdiff.commands.simulate import simulate

    def pair(side: int | None) -> tuple[Path, Path]:
        new, old = data / "2018.tif", data / "2012.tif"
        if side is not None:
            new, old = (mirrored(file, folder / f"{file.stem}_{side}.tif", side) for file in (new, old))
        scene = folder / f"scene_{side}.tif"
        simulate(str(new), scene, _SCALE)
        return scene, old

    knox = pair(None)
    aoi = ["--aoi", area_of(knox[0], _AREA)]
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")  # an installed package has its own
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    uncertain = ["--uncertainty", "4"]
    runs = [
        ("whole scene", *knox, []),
        (f"area of {_AREA} x {_AREA}", *knox, aoi),
        ("whole scene, --uncertainty 4", *knox, uncertain),
        (f"area of {_AREA} x {_AREA}, --uncertainty 4", *knox, [*aoi, *uncertain]),
    ]
    if large:
        runs.append((f"{_LARGE} x {_LARGE}", *pair(_LARGE), []))
    heads = ("version", "CPU s", "less start", "CPU s/MPix", "wall s/MPix", "engine", "peak MB")
    first = ["upscale", str(knox[0]), "--ref", str(knox[1]), *_OPTIONS, "-o", str(folder / "first.tif")]
    for python in (sys.executable, *others):  # writes it
        timed([python, "-c", _RUN, *first])
    print(f"{'':35} {heads[0]:22}" + "".join(f" {head:>11}" for head in heads[1:]))
    for label, scene, reference, options in runs:
        for number, python in enumerate((sys.executable, *others)):
            start = timed([python, "-c", _START])
            out = ["-o", str(folder / f"out_{number}.tif"), "--threads", "1", *options]
            cost = timed([python, "-c", _RUN, "upscale", str(scene), "--ref", str(reference), *_OPTIONS, *out])
            summary = json.loads(cost.printed)
            pixels, timings = summary["counts"]["pixels"] / 1e6, summary["timings"]
            own = cost.cpu - start.cpu
            shown = "this" if python == sys.executable else Path(python).parent.parent.parent.name
            figures = f"{cost.cpu:11.2f} {own:11.2f} {own / pixels:11.2f} {(cost.wall - start.wall) / pixels:11.2f}"
            engine = 1 - timings["restore"] / timings["total"]
            print(f"{label:35} {shown:22} {figures} {engine:11.0%} {cost.peak:11.0f}", flush=True)


def write_pair(folder: Path, side: int) -> tuple[Path, Path]:
    """A scene of uint16 with 4 bands and an older reference, `side` output pixels wide, as COGs."""
    files = folder / "scene.tif", folder / "reference.tif"
    pixels, sides = (10.0 * _SCALE, 10.0), (side // _SCALE, side)
    for file, pixel, length in zip(files, pixels, sides, strict=True):
        plain = folder / "plain.tif"
        profile: dict[str, Any] = {
            "driver": "GTiff", "count": 4, "height": length, "width": length, "dtype": "uint16", "crs": "EPSG:32633",
            "transform": Affine(pixel, 0, 400_000, 0, -pixel, 5_800_000), "tiled": True, "photometric": "minisblack",
        }  # fmt: skip
        tile = 1024 * length // side
        with rasterio.open(plain, "w", **profile) as dataset:
            dataset.descriptions = ("red", "green", "blue", "nir")
            for row in range(0, length, tile):
                for col in range(0, length, tile):
                    image = _ground((row // tile, col // tile))
                    if length == side:  # the reference, of another year
                        image += 0.1 * _ground((row // tile, col // tile, 1))
                    else:
                        image = image.reshape(4, tile, _SCALE, tile, _SCALE).mean((2, 4))
                    dataset.write(np.round(image).astype("uint16"), window=Window(col, row, tile, tile))
        rasterio.shutil.copy(plain, file, driver="COG", compress="zstd")
        plain.unlink()
    return files


def _ground(seed: tuple[int, ...]) -> np.ndarray:
    """(4, 1024, 1024) of a patchwork of fields, 500 to 4,000."""
    noise = np.random.default_rng(seed).standard_normal((4, 1024, 1024))
    fields = np.sign(ndimage.gaussian_filter(noise[:1], (0, 24, 24), mode="wrap"))
    detail = 6000 * ndimage.gaussian_filter(noise, (0, 2, 2), mode="wrap")
    return np.asarray(np.clip(1800 + 500 * fields + detail, 500, 4000))


def gpu_table(folder: Path) -> None:
    """Prints how quick a GPU is, how long it idles, and how far its pixels are from the CPU's."""
    scene, reference = write_pair(folder, _GPU_SIDE)
    command = [sys.executable, "-c", _RUN, "upscale", str(scene), "--ref", str(reference), *_OPTIONS]
    small = ["--aoi", area_of(scene, 1024)]
    for device in ("cuda", "cpu"):  # the first also warms the disk's cache
        timed([*command, *small, "--device", device, "-o", str(folder / f"{device}.tif")], os.cpu_count() or 1)
    both = []
    for device in ("cuda", "cpu"):
        with rasterio.open(folder / f"{device}.tif") as dataset:
            both.append(dataset.read().astype(np.int64))
    query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-lms", "100"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as watch:
        run = [*command, "--device", "cuda", "-o", str(folder / "large.tif")]
        summary = json.loads(timed(run, os.cpu_count() or 1).printed)
        watch.terminate()
        lines = (watch.stdout.read() if watch.stdout else "").splitlines()
    seen = [tuple(map(float, line.split(","))) for line in lines if line.count(",") == 1]
    timings, pixels = summary["timings"], summary["counts"]["pixels"] / 1e6
    blocks = seen[-max(1, round(10 * (timings["blocks"] + timings["publish"]))) :]
    print(f"{summary['device']}, {_SCALE}x, 4 bands of uint16, {_GPU_SIDE} x {_GPU_SIDE}")
    print(f"MPix/s end to end: {pixels / timings['total']:.1f}; blocks alone: {pixels / timings['blocks']:.1f}")
    print(f"GPU idle while blocks are made: {1 - mean(u for u, _ in blocks) / 100:.0%}")
    print(f"GPU memory: {max(m for _, m in seen):.0f} MiB")
    print(f"from the CPU's pixels, 99.9th percentile: {np.percentile(np.abs(both[0] - both[1]), 99.9):.0f} DN")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="*", help="interpreters of other versions, for rows beside")
    parser.add_argument("--large", action="store_true", help="4,096 x 4,096 pixels, too")
    parser.add_argument("--gpu", action="store_true", help="a GPU instead of the CPU")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with tempfile.TemporaryDirectory() as name:
        if options.gpu:
            import torch

            if not torch.cuda.is_available():
                print("not measured: no CUDA device here")
                return 0
            gpu_table(Path(name))
            return 0
        data = Path(os.environ.get("GEO_REFDIFF_DATA", "../shared/data")).absolute() / "naip-knox"
        if not (data / "2018.tif").exists():
            print(f"skipped: no scene at {data}; set GEO_REFDIFF_DATA")
            return 0
        cpu_table(data, Path(name), options.python, large=options.large)
    return 0


if __name__ == "__main__":
    sys.exit(main())
