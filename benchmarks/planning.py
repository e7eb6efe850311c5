"""Time and memory of planning and of publishing by the number of blocks: scenes as VRTs that stretch a small raster.

Planning is what a run does before its first block: look the inputs over, decide the plan, write plan.json, make the
folder, find the finished blocks, and put the others in order. Publishing is what it does after the last: here with
blocks of 16 x 16 pixels, of which the engine writes the first and the others are links to it. Each case runs in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy import ndimage

from benchmarks.tables import markdown

SCALE = 8
BLOCK = 2048
"""HR pixels, the default."""
SMALL_BLOCK = 16
"""HR pixels, the least, of blocks that are published."""
_BLOCKS_A_SHARD = 32
_LINKS = 50_000
"""To one file: file systems have a limit."""
_SIDE = 1024
_CORNER = (400_000.0, 5_800_000.0)
_EXTENT = 80_000.0
"""Metres that a scene covers, whatever its number of pixels: the CRS ends somewhere."""
_BANDS = ("red", "green", "blue")


def make_virtual(path: Path, side: int, source: Path) -> Path:
    """A VRT of `side` x `side` pixels that shows the small raster, stretched."""
    with rasterio.open(source) as dataset:
        crs, count = dataset.crs.to_wkt(), dataset.count
    pixel = _EXTENT / side
    root = ET.Element("VRTDataset", rasterXSize=str(side), rasterYSize=str(side))
    ET.SubElement(root, "SRS").text = crs
    ET.SubElement(root, "GeoTransform").text = f"{_CORNER[0]}, {pixel!r}, 0, {_CORNER[1]}, 0, {-pixel!r}"
    for index in range(count):
        band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band=str(index + 1))
        ET.SubElement(band, "Description").text = _BANDS[index]
        part = ET.SubElement(band, "SimpleSource")
        ET.SubElement(part, "SourceFilename", relativeToVRT="0").text = str(source)
        ET.SubElement(part, "SourceBand").text = str(index + 1)
        ET.SubElement(part, "SrcRect", xOff="0", yOff="0", xSize=str(_SIDE), ySize=str(_SIDE))
        ET.SubElement(part, "DstRect", xOff="0", yOff="0", xSize=str(side), ySize=str(side))
    path.write_bytes(ET.tostring(root))
    return path


def make_source(path: Path) -> Path:
    """The small raster: texture in three bands of uint8."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((3, _SIDE, _SIDE)), (0, 2, 2))
    profile = {
        "driver": "GTiff", "count": 3, "height": _SIDE, "width": _SIDE, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": Affine(_EXTENT / _SIDE, 0, _CORNER[0], 0, -_EXTENT / _SIDE, _CORNER[1]), "tiled": True,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.clip(110 + 250 * noise, 1, 255).astype("uint8"))
    return path


def plan_once(side: int, model: str, *, with_reference: bool) -> dict[str, float]:
    """Plans a scene of `side` x `side` pixels in this process.

    Returns:
        blocks, seconds, and the peak of resident memory in MiB, of which `imports` was there before.
    """
    from geo_refdiff.engine.workdir import Workdir
    from geo_refdiff.plan.planning import Request, make_plan
    from geo_refdiff.raster.gdal import gdal_env

    with tempfile.TemporaryDirectory(prefix="geo-refdiff-") as scratch:
        folder = Path(scratch)
        source = make_source(folder / "source.tif")
        scene = make_virtual(folder / "scene.vrt", side, source)
        ref = make_virtual(folder / "ref.vrt", side * SCALE, source) if with_reference else None
        before = _peak()
        started = time.perf_counter()
        with gdal_env():
            request = Request(
                scene, ref, scale=SCALE, model=model, block_size=BLOCK, device="cpu", on_misregistration="no-ref"
            )  # stretched pictures are too smooth to be registered with certainty: every site is tried
            plan = make_plan(request).plan
        workdir = Workdir(folder / "out.tif.parts")
        with workdir.locked():
            workdir.prepare(plan, resume=False, overwrite=False)
            found = workdir.done(plan.blocks)
            todo = [index for index in plan.blocks.serpentine() if index not in found]
        return {
            "blocks": len(todo),
            "seconds": time.perf_counter() - started,
            "peak": _peak(),
            "imports": before,
        }


def publish_once(side: int, *, sharded: bool) -> dict[str, float]:
    """Publishes `side` x `side` blocks in this process, into one file or into shards of 32 x 32 blocks.

    Returns:
        as `plan_once`; `imports` is the peak before publishing.
    """
    from geo_refdiff.engine.publish import publish
    from geo_refdiff.engine.run import run_blocks
    from geo_refdiff.engine.shards import publish_shards
    from geo_refdiff.engine.workdir import Workdir, workdir_of
    from geo_refdiff.plan.planning import Request, make_plan
    from geo_refdiff.raster.gdal import gdal_env
    from geo_refdiff.raster.memory import steady_heap

    steady_heap()
    with tempfile.TemporaryDirectory(prefix="geo-refdiff-") as scratch:
        folder = Path(scratch)
        scene = make_virtual(folder / "scene.vrt", side * SMALL_BLOCK // SCALE, make_source(folder / "source.tif"))
        with gdal_env():
            planned = make_plan(
                Request(scene, None, scale=SCALE, model="bicubic", block_size=SMALL_BLOCK, device="cpu")
            )
        plan, out = planned.plan, folder / ("out.vrt" if sharded else "out.tif")
        workdir = Workdir(workdir_of(out))
        with workdir.locked():
            workdir.prepare(plan, resume=False, overwrite=False)
            run_blocks(plan, workdir, planned.restorer, order=[0])
            source = workdir.block(0, plan.blocks)
            for index in range(1, plan.blocks.count):
                block = workdir.block(index, plan.blocks)
                if index % _LINKS:
                    os.link(source, block)
                else:
                    source = Path(shutil.copy(source, block))
            before, started = _peak(), time.perf_counter()
            if sharded:
                publish_shards(plan, workdir, out, _BLOCKS_A_SHARD * SMALL_BLOCK)
            else:
                publish(plan, workdir, out)
            return {
                "blocks": plan.blocks.count,
                "seconds": time.perf_counter() - started,
                "peak": _peak(),
                "imports": before,
            }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(*arguments: str) -> dict[str, float]:
    """What this module finds with arguments of one case, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.planning", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, nargs="*", default=[100, 2_000_000], help="blocks to plan, at least")
    parser.add_argument("--publish", type=int, nargs="*", default=[1_000, 10_000], help="blocks to publish, at least")
    parser.add_argument("--model", default="default", help="of the case with a reference")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=("plan", "file", "shards"), default="plan", help=argparse.SUPPRESS)
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        if options.case == "plan":
            print(json.dumps(plan_once(options.one, options.model, with_reference=options.reference)))
        else:
            print(json.dumps(publish_once(options.one, sharded=options.case == "shards")))
        return 0
    if options.blocks:
        print(markdown(["blocks", "output", "model", "seconds", "peak RSS, MiB"], _planned(options)))
    if options.publish:
        head = ["blocks", "published as", "seconds", "peak RSS, MiB", "of it for publishing"]
        print(markdown(head, _published(options)))
    return 0


def _planned(options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for count in options.blocks:
        side = int(np.ceil(np.sqrt(count))) * BLOCK // SCALE
        for model, more in (("bicubic", ()), (options.model, ("--reference",))):
            found = measure("--one", str(side), "--model", model, *more)
            rows.append(
                [
                    f"{found['blocks']:,.0f}",
                    f"{side * SCALE:,} x {side * SCALE:,}",
                    f"{model}{', with a reference' if more else ''}",
                    f"{found['seconds']:.1f}",
                    f"{found['peak']:.0f}",
                ]
            )
    return rows


def _published(options: argparse.Namespace) -> list[list[str]]:
    rows = []
    for case, name in (("file", "one GeoTIFF"), ("shards", f"shards of {_BLOCKS_A_SHARD**2:,} blocks")):
        for count in options.publish:
            found = measure("--one", str(int(np.ceil(np.sqrt(count)))), "--case", case)
            rows.append(
                [
                    f"{found['blocks']:,.0f}",
                    name,
                    f"{found['seconds']:.1f}",
                    f"{found['peak']:.0f}",
                    f"{found['peak'] - found['imports']:.0f}",
                ]
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
