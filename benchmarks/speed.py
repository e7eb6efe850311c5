"""Processor seconds an output megapixel of `upscale`, beside another version: `python -m benchmarks.speed [PYTHON]`.

Runs the command on a scene simulated from one date of `shared/data/naip-knox` with another as reference (8x, 4 bands,
one thread): the whole scene, an area of 192 x 192 pixels of it, and the scene with `--uncertainty 4`. PYTHON is the
interpreter of an environment in which another version is installed, for instance
`pip install git+https://...@e0dd34d` in a fresh one; its rows stand beside. What starting the program takes
(`geo-refdiff --version` and imports) is told apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_RUN = "import sys; from geo_refdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
_START = "import torch, rasterio, scipy, geo_refdiff"
_SIDE = 192


def timed(command: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Processor seconds, wall seconds and peak resident MB of a process with one thread, run in a folder."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, cwd=folder
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with status {status}")
    return used.ru_utime + used.ru_stime, time.perf_counter() - begun, used.ru_maxrss / 1e3


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table."""
    import rasterio

    from geo_refdiff.commands.simulate import simulate

    others = list(sys.argv[1:] if arguments is None else arguments)
    data = Path(os.environ.get("GEO_REFDIFF_DATA", "../shared/data")).absolute() / "naip-knox"
    if not (data / "2018.tif").exists():
        print(f"left out: no scene at {data}; set GEO_REFDIFF_DATA")
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = folder / "scene.tif"
        simulate(str(data / "2018.tif"), scene, 8)
        with rasterio.open(scene) as dataset:
            pixels = dataset.height * dataset.width * 64
            corners = [dataset.transform @ at for at in ((40, 30), (40 + _SIDE // 8, 30 + _SIDE // 8))]
        (left, top), (right, bottom) = corners
        area = f"{left},{bottom},{right},{top}"
        runs = {
            "whole scene": (pixels, []),
            f"area of {_SIDE} x {_SIDE}": (_SIDE**2, ["--aoi", area]),
            "whole scene, --uncertainty 4": (pixels, ["--uncertainty", "4"]),
        }
        print(f"{'':30} {'version':24} {'CPU s':>7} {'less start':>10} {'CPU s/MPix':>11} {'wall s':>7} {'peak MB':>8}")
        for label, (size, options) in runs.items():
            for python in (sys.executable, *others):
                start, _, _ = timed([python, "-c", _START], folder)
                command = [python, "-c", _RUN, "upscale", str(scene), "--ref", str(data / "2012.tif"), "--scale", "8"]
                command += ["-o", str(folder / "out.tif"), "--overwrite", "--products", "none", "--threads", "1"]
                cpu, wall, peak = timed([*command, *options], folder)
                own = cpu - start
                shown = "this" if python == sys.executable else Path(python).parent.parent.parent.name
                print(f"{label:30} {shown:24} {cpu:7.2f} {own:10.2f} {own / size * 1e6:11.2f} {wall:7.1f} {peak:8.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
