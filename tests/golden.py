"""Golden outputs: what a hundred small jobs of the public commands write, to compare before and after a change.

    python tests/golden.py record tests/golden.json             # run all jobs, write their digests
    python tests/golden.py compare tests/golden.json            # run all jobs, print each difference, exit 1 if any
    python tests/golden.py compare tests/golden.json 'mask-*'   # only the jobs whose names match
    python tests/golden.py list                                 # names of the jobs

Compare before a step of work (it must be clean) and after it. A job whose result changes on purpose is recorded again
(`record` with patterns replaces those jobs alone) in the commit that changes it, with the reason in its message.

Jobs go through the installed command `geo-refdiff`, and through `geo_refdiff.upscale`, `geo_refdiff.load_denoiser` and
`geo_refdiff.xarray`; nothing else of the package is imported, so modules may move. Kept of a job are:

- the exit code of each command, the error line of those that fail, the summary that `--json` prints;
- the names of the files that are left;
- of rasters the sha256 and mean of each band, digests of masks and overviews, and grid, CRS, data type, nodata, names,
  scales, offsets, units, colours, tags, structure;
- of plans the sections in `PLAN`; of STAC items, reports, tables (CSV, GeoPackage), pictures and styles what they hold.

Left out is what differs from run to run or from release to release (times, sizes on disk, paths, digests of plans and
models, versions: `VOLATILE`), and notes in words. Numbers in JSON are rounded to 5 digits, displacements to 1e-4. HTML,
Parquet and the prose of README files count only as files that are there. Pixels are the same bit for bit on one machine
with one thread. Weights are compared by rounded norms: the norm tells how far off they are, and their last bits follow
the order of sums in torch's backward pass, which nobody promises.

Kernels of torch, OpenCV and BLAS depend on the processor and the versions: both are kept in the file, and `compare`
says what differs. All jobs take about four minutes of one core.
"""

# ruff: noqa: E402  (the number of threads is settled before the libraries are loaded)

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"

import contextlib
import hashlib
import io
import json
import math
import pickle
import platform
import re
import shutil
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache, cached_property
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import cv2
import geopandas
import numpy as np
import rasterio
import safetensors.torch
import shapely
import torch
from affine import Affine
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.warp import Resampling, calculate_default_transform, reproject
from rasters import write_raster
from scipy import ndimage

import geo_refdiff

UTM = "EPSG:26914"
CORNER = (485_904.0, 5_209_248.0)
PIXEL = 40.0
SCALE = 8
ROWS, COLS = 40, 48
"""Of the scene; the reference is SCALE times finer."""
RGB, RGBN = ("red", "green", "blue"), ("red", "green", "blue", "nir")
LIBRARIES = (
    "torch", "numpy", "scipy", "opencv-python-headless", "rasterio", "pyproj", "shapely", "geopandas", "pillow",
    "safetensors", "dask", "distributed", "xarray", "rioxarray",
)  # fmt: skip
PLAN = (
    "bands", "grid", "windows", "blocks", "coregistration", "radiometry", "sensor", "sampler", "model", "output",
    "seed", "dtype", "mask",
)  # fmt: skip
"""Sections of plan.json that are compared, as its third format had them."""
VOLATILE = {
    "seconds", "timings", "datetime", "created", "updated", "software", "version", "versions", "notes", "path",
    "paths", "size_bytes", "mtime_ns", "crs_wkt", "file:size", "file:checksum", "plan_sha256",
    "GEO_REFDIFF_PLAN_SHA256", "GEO_REFDIFF_VERSION", "started", "finished", "worker", "sha256",
    "GEO_REFDIFF_MODEL_SHA256", "fingerprint", "command", "pixels_per_second", "host", "scene_file",
    "reference_file", "mask_file", "threads", "memory", "folder", "inputs", "seconds_per_tile", "geo_refdiff",
}  # fmt: skip
"""Keys that are left out wherever they stand, with or without a prefix `geo_refdiff:`."""


def box(row: int, col: int, side: int) -> str:
    """A square of scene pixels as xmin,ymin,xmax,ymax."""
    west, north = CORNER[0] + col * PIXEL, CORNER[1] - row * PIXEL
    return f"{west},{north - side * PIXEL},{west + side * PIXEL},{north}"


BOXES = {"@crop": box(6, 6, 20), "@small": box(8, 20, 10)}
"""Areas of interest."""

Digest = dict[str, Any]
JOBS: dict[str, Callable[[Session], None]] = {}


# --- digests ------------------------------------------------------------------------------------------------


def sha(data: bytes) -> str:
    """The first 16 digits of the sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def of_array(values: np.ndarray) -> str:
    """Digest of type, shape and values; all NaN are one."""
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
    return sha(f"{values.dtype}{values.shape}".encode() + np.ascontiguousarray(values).tobytes())


def of_raster(path: Path) -> Digest:
    """What a reader sees of a raster: pixels, masks, overviews and metadata."""
    with rasterio.open(path) as source:
        pixels, count = source.read(), source.count
        means = [float(np.nanmean(band)) if not np.isnan(band).all() else None for band in pixels.astype(float)]
        structure = source.tags(ns="IMAGE_STRUCTURE")
        found: Digest = {
            "driver": source.driver,
            "shape": list(source.shape),
            "dtypes": list(source.dtypes),
            "crs": crs_name(source.crs),
            "transform": [round(value, 9) for value in source.transform[:6]],
            "nodata": source.nodata,
            "descriptions": source.descriptions,
            "scales": source.scales,
            "offsets": source.offsets,
            "units": source.units,
            "colorinterp": [interpretation.name for interpretation in source.colorinterp],
            "mask_flags": [[flag.name for flag in flags] for flags in source.mask_flag_enums],
            "pixels": [of_array(band) for band in pixels],
            "means": means,
            "masks": [of_array(mask) for mask in source.read_masks()],
            "overviews": source.overviews(1),
            "structure": {key: structure.get(key) for key in ("LAYOUT", "COMPRESSION", "PREDICTOR", "INTERLEAVE")},
            "block_shapes": source.block_shapes,
            "tags": source.tags(),
            "band_tags": [source.tags(band) for band in source.indexes],
        }  # fmt: skip
        if source.colorinterp[0] is ColorInterp.palette:
            found["colormap"] = sha(json.dumps(source.colormap(1)).encode())
    for level in range(len(found["overviews"])):
        with rasterio.open(path, overview_level=level) as source:
            found[f"overview_{level}"] = [of_array(source.read(band + 1)) for band in range(count)]
            found[f"overview_{level}_masks"] = [of_array(mask) for mask in source.read_masks()]
    return found


def crs_name(crs: Any) -> str | None:
    """EPSG code, else a digest of the definition."""
    return None if crs is None else f"EPSG:{crs.to_epsg()}" if crs.to_epsg() else sha(crs.to_wkt().encode())


def of_plan(path: Path) -> Digest:
    """The decisions of a plan."""
    plan = json.loads(path.read_text())
    plan["sampler"] = plan["model"].pop("sampler")
    plan["grid"]["lattice_origin"] = plan["grid"].pop("origin")
    plan["sensor"]["psf_sigma"] = plan["psf_sigma"]
    plan["output"] |= {name: plan[name] for name in ("source_map", "uncertainty")}
    return {name: plan.get(name) for name in PLAN}


def of_table(path: Path) -> Digest:
    """Columns and values of a table."""
    import pandas

    frame = pandas.read_csv(path, dtype=str) if path.suffix == ".csv" else geopandas.read_file(path)
    rows = json.loads(pandas.DataFrame(frame.drop(columns="geometry", errors="ignore")).to_json(orient="records"))
    found: Digest = {"columns": ", ".join(frame.columns), "rows": rows}
    if "geometry" in frame and path.suffix == ".gpkg":
        found["crs"] = str(frame.crs)
        found["bounds"] = frame.total_bounds.tolist()
    return found


def of_file(path: Path) -> Any:
    """Digest of a file by its kind."""
    kind = path.suffix.lower()
    if path.name == "plan.json":
        return of_plan(path)
    if kind in (".tif", ".vrt"):
        return of_raster(path)
    if kind == ".json":
        return json.loads(path.read_text())
    if kind in (".csv", ".gpkg"):
        return of_table(path)
    if kind == ".png":
        return of_array(np.asarray(Image.open(path)))
    if kind in (".qml", ".xml"):
        return sha(path.read_bytes())
    if kind == ".safetensors":
        state = safetensors.torch.load_file(path)
        shapes = json.dumps([[name, list(state[name].shape)] for name in sorted(state)])
        norms = {}
        for name, value in state.items():
            part = ".".join(name.split(".")[:2])
            norms[part] = math.hypot(norms.get(part, 0.0), float(value.double().norm()))
        return {"tensors": len(state), "shapes": sha(shapes.encode()), "norms": norms}
    return "there"


def stable(value: Any, name: str = "") -> Any:
    """JSON without what differs from run to run; numbers rounded, lists of objects as objects of lists."""
    if isinstance(value, dict):
        return {
            key: stable(entry, key) for key, entry in value.items() if key.removeprefix("geo_refdiff:") not in VOLATILE
        }
    if isinstance(value, float):
        return rounded(value, name)
    if isinstance(value, (list, tuple)) and value and all(isinstance(entry, dict) for entry in value):
        keys = dict.fromkeys(key for entry in value for key in entry)
        return stable({key: [entry.get(key) for entry in value] for key in keys}, name)
    if isinstance(value, (list, tuple)):
        entries = [stable(entry, name) for entry in value]
        text = json.dumps(entries)
        if len(entries) > 1 and all(entry == entries[0] for entry in entries) and name not in ("shape", "proj:shape"):
            return f"{len(entries)} x {json.dumps(entries[0])}"
        return entries if len(text) <= 400 else f"{len(entries)} entries, {sha(text.encode())}"
    if isinstance(value, str) and len(value) > 200:
        return f"{len(value)} characters, {sha(value.encode())}"
    return value


def rounded(value: float, name: str) -> float | str:
    """Displacements to 1e-4, all else to 5 digits."""
    if not math.isfinite(value):
        return str(value)
    if name in ("matrix", "drows", "dcols", "shift_scene_pixels"):
        return round(value, 4) + 0.0
    return value if name in ("transform", "proj:transform") else float(f"{value:.5g}")


# --- running ------------------------------------------------------------------------------------------------


@dataclass
class Session:
    """One job: a folder of its own, in which it runs, and what was recorded."""

    folder: Path
    inputs: Inputs
    record: Digest = field(default_factory=dict)

    def run(self, text: str) -> None:
        """A command line, its words as in a shell; `@NAME` is an input or one of BOXES."""
        words = (BOXES.get(word) or (str(self.inputs[word[1:]]) if word[0] == "@" else word) for word in text.split())
        self.execute(list(words))

    def execute(self, command: list[str]) -> None:
        """A command, run in this process; its exit code, error and JSON summary are recorded."""
        out, err = io.StringIO(), io.StringIO()
        before = sys.argv
        sys.argv = ["geo-refdiff", *command]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                program()(command)
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.argv = before
        number = len([key for key in self.record if key.startswith("run")]) + 1
        self.record[f"run{number}"] = entry = {"exit": code}
        if code:
            entry["error"] = self.scrubbed(what_failed(err.getvalue().splitlines()))
        if "--json" in command and out.getvalue().strip():
            entry["summary"] = json.loads(self.scrubbed(out.getvalue()))

    def upscale(self, scene: str, options: str, out: str = "out.tif", products: str = "none") -> None:
        """Upscales an input; the plan is kept."""
        self.run(f"upscale @{scene} -o {out} --device cpu --keep --products {products} --json {options}")

    def files(self) -> None:
        """Record all files of the folder; of what unfinished runs keep, the plan alone."""
        found = {}
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            name = path.relative_to(self.folder).as_posix()
            if ".parts/" not in name or path.name == "plan.json":
                try:
                    found[name] = json.loads(self.scrubbed(json.dumps(of_file(path), default=list)))
                except (KeyError, TypeError, ValueError, rasterio.RasterioIOError) as error:
                    found[name] = f"cannot be read: {type(error).__name__}: {error}"
        self.record["products"] = list(found)
        self.record["files"] = found

    def scrubbed(self, text: str) -> str:
        """Without the folders of this run."""
        for folder in (self.folder, self.inputs.folder):
            for form in {str(folder), str(folder.resolve())}:
                text = text.replace(form + "/", "").replace(form, ".")
        return text


def what_failed(lines: Sequence[str]) -> str:
    """The error's line; for a batch, whose areas fail in any order, their lines without their numbers."""
    errors = [line for line in lines if line.startswith("error:")]
    failed = sorted(re.sub(r"^\[\d+/\d+\] ", "", line) for line in lines if " failed: " in line)
    return (errors or ["; ".join(failed)] if failed or errors else [*lines, ""])[0]


@cache
def program() -> Callable[[Sequence[str]], None]:
    """The installed command."""
    (script,) = entry_points(group="console_scripts", name="geo-refdiff")
    command: Callable[[Sequence[str]], None] = script.load()
    return command


def job(name: str) -> Callable[[Callable[[Session], None]], Callable[[Session], None]]:
    """Registers a job under its name."""

    def register(work: Callable[[Session], None]) -> Callable[[Session], None]:
        assert name not in JOBS, name
        JOBS[name] = work
        return work

    return register


def upscale_job(name: str, scene: str, options: str, products: str = "none", out: str = "out.tif") -> None:
    """Registers one upscale."""

    @job(name)
    def work(session: Session) -> None:
        session.upscale(scene, options, out, products)


# --- inputs -------------------------------------------------------------------------------------------------


def texture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Structure of all sizes with fields, roads and houses; (bands, height, width), 0..1."""
    rng = np.random.default_rng(seed)
    height, width = shape[-2:]
    total = np.zeros(shape)
    for octave in range(4):
        layer = ndimage.gaussian_filter(rng.standard_normal(shape), [0.0] * (len(shape) - 2) + [1.5 * 2**octave] * 2)
        total += 0.5 * layer / layer.std() * (octave + 1)
    for _ in range(height * width // 1500):
        row, col = int(rng.integers(height)), int(rng.integers(width))
        size = rng.integers(4, 48, 2)
        step = rng.normal(0, 4, (shape[0], 1, 1)) * 0.4 + rng.normal(0, 3)
        total[..., row : row + size[0], col : col + size[1]] += step
    low, high = np.percentile(total, [1, 99])
    return np.clip((total - low) / (high - low), 0, 1)


def reduced(fine: np.ndarray, scale: int) -> np.ndarray:
    """Means of squares of `scale` pixels."""
    bands, height, width = fine.shape
    return fine.reshape(bands, height // scale, scale, width // scale, scale).mean((2, 4))


def write(
    path: Path,
    array: np.ndarray,
    pixel: float = PIXEL,
    *,
    transform: Affine | None = None,
    crs: str = UTM,
    scale: float | None = None,
    **more: Any,
) -> Path:
    """A GeoTIFF, pixels of `pixel` metres from CORNER on; `more` as of `write_raster`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = transform or Affine(pixel, 0, CORNER[0], 0, -pixel, CORNER[1])
    scaled = None if scale is None else (scale, -0.1)
    return write_raster(path, array, place, crs=crs, scaled=scaled, **more)


def hole(height: int, width: int) -> np.ndarray:
    """True in a corner, a square and at some single pixels."""
    missing = np.zeros((height, width), bool)
    missing[: height // 6, : width // 5] = True
    missing[height // 2 : height // 2 + 5, width // 2 : width // 2 + 7] = True
    missing[np.random.default_rng(9).random((height, width)) < 0.01] = True
    return missing


@dataclass
class Inputs:
    """Input files by name, made when they are first asked for."""

    folder: Path
    made: dict[str, Path] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Path:
        if name not in self.made:
            self.made[name] = getattr(self, name.replace("-", "_").split(":")[0])(*name.split(":")[1:])
        return self.made[name]

    @cached_property
    def fine(self) -> np.ndarray:
        """What is on the ground now."""
        return texture((4, ROWS * SCALE, COLS * SCALE), seed=1)

    @cached_property
    def coarse(self) -> np.ndarray:
        """What a sensor sees of it."""
        return reduced(self.fine, SCALE)

    @cached_property
    def old(self) -> np.ndarray:
        """What was there before: a block has changed, all is a little different."""
        old = np.clip(0.05 + 0.85 * self.fine + 0.06 * texture(self.fine.shape, seed=2), 0, 1)
        old[:, 80:144, 200:280] = 0.3 * texture((4, 64, 80), seed=3) + 0.3
        return old

    def scene(self, dtype: str = "uint8", bands: str = "4", missing: str = "none") -> Path:
        """The scene: of a data type, a number of bands, a kind of missing pixels."""
        count = int(bands)
        low, span = {"uint8": (20, 200), "int16": (-900, 4000), "float32": (0.02, 0.5)}.get(dtype, (300, 5000))
        values = low + span * np.concatenate([self.coarse, self.coarse[:1]])[:count]
        array = values.astype(dtype) if dtype.startswith("float") else np.round(values).astype(dtype)
        names = (*RGBN, "coastal")[:count] if count > 1 else ("gray",)
        more: dict[str, Any] = {}
        gone = hole(ROWS, COLS)
        if missing == "value":
            array[:, gone] = more["nodata"] = 0 if dtype != "int16" else -32768
        elif missing == "nan":
            array[:, gone] = more["nodata"] = np.nan
            array[0, 30:33, 3:9] = np.nan
        elif missing == "alpha":
            alpha = np.where(gone, 0, np.iinfo(dtype).max).astype(dtype)
            array, names = np.concatenate([array, alpha[None]]), (*names, "alpha")
            others = [ColorInterp.undefined] * (count - 3)
            more["colorinterp"] = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, *others, ColorInterp.alpha]
        elif missing == "mask":
            more["mask"] = np.where(gone, 0, 255).astype("uint8")
        elif missing == "scaled":
            more["scale"] = 1e-4
        return write(self.folder / f"scene_{dtype}_{bands}_{missing}.tif", array, names=names, **more)

    def scene_rotated(self) -> Path:
        """The scene on axes turned by 20 degrees."""
        turned = Affine.translation(*CORNER) * Affine.rotation(-20) * Affine.scale(PIXEL, -PIXEL)
        return write(self.folder / "rotated.tif", self._bytes(self.coarse), transform=turned, names=RGBN)

    def scene_south_up(self) -> Path:
        """The scene with its last row first."""
        flipped = Affine(PIXEL, 0, CORNER[0], 0, PIXEL, CORNER[1] - ROWS * PIXEL)
        return write(self.folder / "south_up.tif", self._bytes(self.coarse)[:, ::-1], transform=flipped, names=RGBN)

    def ref(self, dtype: str = "uint8", bands: str = "4", missing: str = "none") -> Path:
        """The reference on the scene's lattice, eight times finer."""
        values = self.old[: int(bands)]
        array = self._bytes(values) if dtype == "uint8" else np.round(100 + 9000 * values).astype(dtype)
        more: dict[str, Any] = {}
        if missing == "value":
            array[:, hole(*array.shape[1:])] = more["nodata"] = 0
        path = self.folder / f"ref_{dtype}_{bands}_{missing}.tif"
        return write(path, array, PIXEL / SCALE, names=RGBN[: int(bands)], **more)

    def ref_moved(self) -> Path:
        """The reference with a georeference that is 9 and -6 of its pixels off."""
        step = PIXEL / SCALE
        moved = Affine(step, 0, CORNER[0] + 9 * step, 0, -step, CORNER[1] + 6 * step)
        return write(self.folder / "ref_moved.tif", self._bytes(self.old), transform=moved, names=RGBN)

    def ref_wrong(self) -> Path:
        """The reference upside down."""
        turned = self._bytes(self.old)[:, ::-1, ::-1].copy()
        return write(self.folder / "ref_wrong.tif", turned, PIXEL / SCALE, names=RGBN)

    def ref_blank(self) -> Path:
        """A reference without any feature."""
        flat = np.full((4, ROWS * SCALE, COLS * SCALE), 90, "uint8")
        return write(self.folder / "ref_blank.tif", flat, PIXEL / SCALE, names=RGBN)

    def ref_elsewhere(self) -> Path:
        """The reference in LAEA Europe's way of projecting, around it nodata 0."""
        path = self.folder / "ref_elsewhere.tif"
        with rasterio.open(self["ref"]) as source, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crs = "EPSG:5070"
            size = (source.width, source.height)
            transform, width, height = calculate_default_transform(source.crs, crs, *size, *source.bounds)
            array = np.zeros((source.count, height, width), "uint8")
            reproject(
                source.read(),
                array,
                src_transform=source.transform,
                src_crs=source.crs,
                dst_transform=transform,
                dst_crs=crs,
                resampling=Resampling.cubic,
                dst_nodata=0,
            )
        return write(path, array, transform=transform, crs=crs, nodata=0, names=RGBN)

    @cached_property
    def wide(self) -> np.ndarray:
        """A ground of 160 x 160 scene pixels at 4x."""
        return texture((4, 640, 640), seed=5)

    def wide_scene(self) -> Path:
        """The scene of it, pixels of 20 m."""
        return write(self.folder / "wide_scene.tif", self._bytes(reduced(self.wide, 4)), 20.0, names=RGBN)

    def wide_ref(self) -> Path:
        """A reference of it that is bent by some scene pixels."""
        rows, cols = np.mgrid[:640, :640].astype(float)
        at = [rows + 4 * np.sin(cols / 160), cols + 3 * np.cos(rows / 140)]
        bent = np.stack([ndimage.map_coordinates(band, at, order=1, mode="nearest") for band in self.wide])
        return write(self.folder / "wide_ref.tif", self._bytes(bent), 5.0, names=RGBN)

    def wide_ref_wrong(self) -> Path:
        """The same ground upside down."""
        return write(self.folder / "wide_ref_wrong.tif", self._bytes(self.wide)[:, ::-1, ::-1].copy(), 5.0, names=RGBN)

    def mask(self, kind: str = "classes") -> Path:
        """A change mask: classes on the scene's grid or the reference's, other values, colours, confidence."""
        fine = np.zeros((1, ROWS * SCALE, COLS * SCALE), "uint8")
        fine[0, 80:144, 200:280] = 5
        fine[0, 200:290, 30:120] = 1
        coarse = fine[:, SCALE // 2 :: SCALE, SCALE // 2 :: SCALE].copy()
        path = self.folder / f"mask_{kind}.tif"
        if kind == "fine":
            return write(path, fine, PIXEL / SCALE)
        if kind == "values":
            return write(path, (coarse.astype("int16") * 10), nodata=-1)
        if kind == "colours":  # SECOND's: white, red (building), blue (water)
            table = np.zeros((6, 3), "uint8")
            table[0], table[1], table[5] = (255, 255, 255), (0, 0, 255), (128, 0, 0)
            return write(path, np.moveaxis(table[coarse[0]], -1, 0))
        if kind == "confidence":
            return write(path, np.linspace(0, 1, ROWS * COLS, dtype="float32").reshape(1, ROWS, COLS))
        return write(path, coarse)

    def polygons(self) -> Path:
        """Changes as polygons in degrees, with class names."""
        shapes = {"water": self._box(30, 5, 10), "built-up": self._box(10, 25, 9).centroid.buffer(200)}
        frame = geopandas.GeoDataFrame({"cover": list(shapes)}, geometry=list(shapes.values()), crs=UTM)
        path = self.folder / "changes.gpkg"
        frame.to_crs("EPSG:4326").to_file(path, driver="GPKG")
        return path

    def class_map(self) -> Path:
        """Meaning of the values of mask:values."""
        path = self.folder / "classes.json"
        path.write_text(json.dumps({"0": "no change", "10": "water", "50": "built-up"}))
        return path

    def field(self) -> Path:
        """An area of interest: a circle, in degrees."""
        circle = self._box(12, 14, 18).centroid.buffer(360)
        path = self.folder / "field.geojson"
        geopandas.GeoSeries([circle], crs=UTM).to_crs("EPSG:4326").to_file(path, driver="GeoJSON")
        return path

    def areas(self) -> Path:
        """Three areas of a batch: two in the scene, one outside of it."""
        named = {
            "square": self._box(2, 2, 12),
            "round": self._box(18, 20, 14).centroid.buffer(250),
            "away": self._box(90, 90, 8),
        }
        path = self.folder / "areas.gpkg"
        frame = geopandas.GeoDataFrame({"name": list(named)}, geometry=list(named.values()), crs=UTM)
        frame.to_file(path, driver="GPKG")
        return path

    def areas_in_degrees(self) -> Path:
        """Two of these areas as GeoJSON."""
        path = self.folder / "areas.geojson"
        geopandas.read_file(self["areas"]).iloc[:2].to_crs("EPSG:4326").to_file(path, driver="GeoJSON")
        return path

    def archive(self) -> Path:
        """A folder of scenes of two dates."""
        for date, gain in (("20200504", 0.8), ("20210610", 1.0)):
            write(self.folder / "archive" / f"scene_{date}.tif", self._bytes(gain * self.coarse), names=RGBN, nodata=0)
        return self.folder / "archive"

    def scene_table(self) -> Path:
        """The same scenes as an index."""
        path = self["archive"].parent / "scenes.csv"
        lines = [f"archive/scene_{date.replace('-', '')}.tif,{date}" for date in ("2020-05-04", "2021-06-10")]
        path.write_text("\n".join(["path,date", *lines]) + "\n")
        return path

    def tree(self) -> Path:
        """Four places of two dates each, to make pairs of."""
        for number, place in enumerate(("east", "north", "south", "west")):
            ground = texture((4, 256, 256), seed=20 + number)
            for year, gain in (("2016", 0.8), ("2020", 1.0)):
                array = self._bytes(np.clip(gain * ground + 0.05 * texture(ground.shape, seed=int(year)), 0, 1))
                write(self.folder / "tree" / place / "000" / f"{year}.tif", array, 0.6, names=RGBN)
        return self.folder / "tree"

    def pairs(self) -> Path:
        """Index of the tree."""
        return self._made_by(["index", str(self["tree"])], self.folder / "pairs.csv")

    def trained(self, architecture: str = "compact") -> Path:
        """The folder of a model after two steps of training."""
        run = self.folder / f"run_{architecture}"
        return self._made_by(["train", *training(self["pairs"], architecture)], run) / "model"

    def tiny(self, architecture: str = "compact") -> Path:
        """A small model with weights drawn name by name, so that nothing of the training is in them."""
        folder = self.folder / f"tiny_{architecture}"
        shutil.copytree(self[f"trained:{architecture}"], folder)
        state = safetensors.torch.load_file(folder / "model.safetensors")
        for name, value in state.items():
            if value.is_floating_point() and not name.endswith("resample_filter"):
                generator = torch.Generator().manual_seed(int(sha(name.encode())[:8], 16))
                state[name] = torch.randn(value.shape, generator=generator) * 0.1
        safetensors.torch.save_file(state, folder / "model.safetensors")
        config = json.loads((folder / "config.json").read_text())
        config.pop("trained", None)
        if architecture == "compact":
            config |= {"halo": 16, "window": 96, "overlap": 16, "scales": [4, 8], "receptive_field": None}
            sampler = {"name": "better-start", "steps": 2, "sigma_start": 0.6, "sigma_min": 0.1, "rho": 7.0}
        else:
            config |= {"halo": 8, "window": 64, "overlap": 8}
            sampler = {"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
        config["sampler"] = sampler
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
        return folder

    def published(self) -> Path:
        """A checkpoint as the public training code writes it: modules pickled with their source and their state."""
        network = geo_refdiff.load_denoiser(self["tiny:published"]).network
        package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

        def _reconstruct_persistent_obj(meta: Any) -> Any:
            raise AssertionError(meta)

        _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
        _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
        module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
        sys.modules |= {"torch_utils": package, "torch_utils.persistence": module}

        class Recorded:
            def __init__(self, module: torch.nn.Module, **more: Any) -> None:
                self.module, self.more = module, more

            def __reduce__(self) -> tuple[Any, ...]:
                children = {
                    name: Recorded(child) if list(child.children()) else child
                    for name, child in self.module._modules.items()
                    if child is not None
                }
                state = dict(self.module.__dict__) | self.more | {"_modules": children}
                meta = {"type": "class", "version": 6, "module_src": "", "class_name": "X", "state": state}
                return _reconstruct_persistent_obj, (meta,)

        path = self.folder / "published.pt"
        more = {"sigma_data": 0.5, "sigma_min": 0, "img_resolution": 32}
        try:
            torch.save({"ema": Recorded(network, **more), "step": 17}, path, pickle_module=pickle)
        finally:
            del sys.modules["torch_utils"], sys.modules["torch_utils.persistence"]
        return path

    def _made_by(self, command: list[str], out: Path) -> Path:
        session = Session(self.folder, self)
        session.execute([*command, "-o", str(out)])
        if session.record["run1"]["exit"]:
            raise RuntimeError(f"an input cannot be made: {session.record['run1']}")
        return out

    @staticmethod
    def _bytes(values: np.ndarray) -> np.ndarray:
        return np.round(20 + 200 * values).astype("uint8")

    @staticmethod
    def _box(row: float, col: float, side: float) -> shapely.Polygon:
        west, north = CORNER[0] + col * PIXEL, CORNER[1] - row * PIXEL
        return shapely.box(west, north - side * PIXEL, west + side * PIXEL, north)


def training(pairs: Path, architecture: str = "compact") -> list[str]:
    """Arguments of a training of two steps."""
    settings = {
        "data.train": json.dumps([str(pairs)]), "data.validation": "[]", "samples.crop": "32", "training.steps": "2",
        "training.batch": "2", "training.warmup": "1", "training.workers": "1", "training.compile": "off",
    }  # fmt: skip
    if architecture == "compact":
        settings["model.widths"] = "[8,8]"
    else:
        network = (
            "img_resolution=32, model_channels=16, channel_mult=[1,2], num_blocks=1, attn_resolutions=[16], dropout=0.0"
        )
        settings |= {"model.architecture": "published", "model.published": f"{{{network}}}", "model.sigma_data": "0.5"}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["cpu-minutes", *sets, "--device", "cpu"]


# --- jobs: models, grids, types, missing pixels -------------------------------------------------------------

TINY = "--model @tiny --scale 8"
MATCHED = "--ref @ref --model matched-ref --mask none"
IBP = "--model bicubic-ibp --scale 4"

upscale_job("model-default", "scene", "--ref @ref --mask @mask --aoi @crop", products="all")
upscale_job("model-default-no-ref-4x", "scene", "--scale 4 --aoi @crop")
upscale_job("model-default-rgb-auto-mask", "scene:uint8:3", "--ref @ref:uint8:3 --aoi @crop")
upscale_job("model-default-detail-seed", "scene", "--ref @ref --mask none --aoi @crop --detail 1 --seed 7")
upscale_job("model-default-bfloat16", "scene", "--ref @ref --mask none --aoi @crop --dtype bfloat16")
upscale_job("model-bicubic", "scene", "--model bicubic --scale 4", products="all")
upscale_job("model-bicubic-ibp", "scene", IBP, products="all")
upscale_job("model-matched-ref", "scene", MATCHED, products="all")
PUBLISHED = "--model @tiny:published --scale 8 --ref @ref --aoi @small --steps 2"
upscale_job("model-published", "scene", f"{PUBLISHED} --mask @mask", products="source")
upscale_job("model-published-no-mask", "scene:uint16:4:value", f"{PUBLISHED} --mask none --sampler published")
upscale_job("model-compact", "scene", f"{TINY} --ref @ref --mask @mask", products="all")
upscale_job("model-compact-blocks", "scene", f"{TINY} --ref @ref --mask @mask --block-size 128 --batch-size 3")
upscale_job("model-compact-windows", "scene", f"{TINY} --ref @ref --mask none --window 128 --overlap 32")
for sampler in ("heun", "euler", "dpmpp-2m"):
    options = f"{TINY} --ref @ref --mask none --aoi @crop --steps 3 --sampler {sampler}"
    upscale_job(f"sampler-{sampler}", "scene", options)
upscale_job("dtype-uint16", "scene:uint16", MATCHED)
upscale_job("dtype-uint16-scaled", "scene:uint16:4:scaled", MATCHED)
upscale_job("dtype-uint16-compact", "scene:uint16", f"{TINY} --ref @ref:uint16 --mask none --aoi @crop")
upscale_job("dtype-int16", "scene:int16:4:value", MATCHED, products="all")
upscale_job("dtype-float32", "scene:float32", MATCHED)
upscale_job("dtype-float64", "scene:float64", IBP)
upscale_job("dtype-one-band", "scene:uint8:1", IBP)
upscale_job("nodata-value", "scene:uint8:4:value", MATCHED, products="all")
upscale_job("nodata-nan", "scene:float32:4:nan", MATCHED, products="all")
upscale_job("nodata-alpha", "scene:uint8:4:alpha", MATCHED, products="all")
upscale_job("nodata-mask-band", "scene:uint16:4:mask", IBP, products="all")
upscale_job("nodata-of-reference", "scene", "--ref @ref:uint8:4:value --model matched-ref --mask none")
upscale_job("nodata-compact", "scene:uint8:4:value", f"{TINY} --ref @ref:uint8:4:value --mask @mask", products="source")
upscale_job("grid-rotated", "scene-rotated", IBP)
upscale_job("grid-south-up", "scene-south-up", MATCHED)
upscale_job("grid-reference-reprojected", "scene", "--ref @ref-elsewhere --model matched-ref --mask none --scale 8")
upscale_job("model-compact-scale-refused", "scene", "--model @tiny --scale 3")
upscale_job("overviews-nodata", "scene:uint8:4:value", "--model bicubic --scale 16")
upscale_job("overviews-nan", "scene:float32:4:nan", "--model bicubic --scale 16")
upscale_job("overviews-alpha", "scene:uint8:4:alpha", "--model bicubic --scale 16", products="quicklook")
upscale_job("overviews-mask-band", "scene:uint16:4:mask", "--model bicubic --scale 16")
upscale_job("aoi-box-cut", "scene", f"{MATCHED} --aoi @crop")
upscale_job("aoi-polygon", "scene", f"{MATCHED} --aoi @field", products="all")
upscale_job("aoi-polygon-float", "scene:float32", f"{IBP} --aoi @field")
upscale_job("aoi-outside", "scene", f"{IBP} --aoi 0,0,100,100")
upscale_job("bands-transfer", "scene:uint16:5", f"{TINY} --ref @ref --mask none --aoi @crop", products="source,stac")
upscale_job("bands-drop", "scene:uint16:5", f"{TINY} --ref @ref --mask none --aoi @crop --other-bands drop")
upscale_job("bands-chosen", "scene", "--model bicubic-ibp --scale 4 --bands nir,red")

# --- jobs: masks, registration, radiometry, products --------------------------------------------------------

MASKED = f"{TINY} --ref @ref"
upscale_job("mask-fine", "scene", f"{MASKED} --mask @mask:fine")
upscale_job("mask-class-map", "scene", f"{MASKED} --mask @mask:values --class-map @class-map")
upscale_job("mask-colours", "scene", f"{MASKED} --mask @mask:colours")
upscale_job("mask-polygons", "scene", f"{MASKED} --mask @polygons --mask-field cover")
upscale_job("mask-polygons-unknown", "scene", f"{MASKED} --mask @polygons")
SURE = "--mask @mask --mask-confidence @mask:confidence --min-confidence 0.6"
upscale_job("mask-confidence", "scene", f"{MASKED} {SURE}")
upscale_job("mask-auto", "scene", f"{MASKED} --mask auto")
upscale_job("mask-none", "scene", f"{MASKED} --mask none")
upscale_job("mask-lies-on-ref", "scene", f"{TINY} --ref @ref-moved --mask @mask --mask-lies-on ref")
upscale_job("mask-no-change-value", "scene", f"{MASKED} --mask @mask --no-change 5")
upscale_job("mask-without-class", "scene", f"{MASKED} --mask @mask:values")

MOVED = "--ref @ref-moved --model matched-ref --mask none --scale 8"
WIDE = "--ref @wide-ref --model matched-ref --mask none --scale 4"
upscale_job("registration-auto", "scene", MOVED)
upscale_job("registration-off", "scene", f"{MOVED} --coregister off")
upscale_job("registration-global", "scene", f"{MOVED} --coregister global")
upscale_job("registration-wide-auto", "wide-scene", WIDE)
upscale_job("registration-wide-global", "wide-scene", f"{WIDE} --coregister global")
upscale_job("registration-wide-local", "wide-scene", f"{WIDE} --coregister local --max-residual 0.8")
upscale_job("registration-too-small", "scene", f"--ref @ref-wrong {TINY} --mask none")
WRONG = "--ref @wide-ref-wrong --model @tiny --mask none --scale 4"
upscale_job("registration-refused", "wide-scene", WRONG)
upscale_job("registration-without-ref", "wide-scene", f"{WRONG} --on-misregistration no-ref", products="source,stac")
upscale_job("registration-featureless", "scene", f"--ref @ref-blank {TINY} --mask none")

upscale_job("radiometry-strict", "scene", f"{MATCHED} --consistency strict")
upscale_job("radiometry-off", "scene", f"{MATCHED} --consistency off")
upscale_job("radiometry-sentinel-2", "scene", f"{MATCHED} --psf sentinel-2")
upscale_job("radiometry-area", "scene", f"{MATCHED} --psf area")
upscale_job("radiometry-bicubic-psf", "scene", f"{MATCHED} --psf bicubic")
upscale_job("radiometry-width", "scene", f"{MATCHED} --psf 0.45")
upscale_job("radiometry-scene-range", "scene:uint16", f"{MASKED} --mask none --aoi @crop --scene-range 0 6000")

upscale_job("products-uncertainty", "scene", f"{MASKED} --mask none --aoi @crop --uncertainty 2", products="all")
upscale_job("products-uncertainty-default", "scene", "--ref @ref --mask none --aoi @crop --uncertainty 2")
upscale_job("products-scene-date", "scene", f"{IBP} --scene-date 2021-05-03", products="stac")
upscale_job("products-shards", "scene", f"{MATCHED} --shard-size 128 --block-size 64", products="all", out="out.vrt")
upscale_job("products-plan-only", "scene", f"{MATCHED} --plan-only", products="all")


@job("products-nothing-kept")
def _(session: Session) -> None:
    shutil.copy(session.inputs["scene"], "scene.tif")
    session.run("upscale scene.tif --ref @ref --model matched-ref --json")
    session.run("upscale scene.tif --ref @ref --model matched-ref")
    Path("scene.tif").unlink()


# --- jobs: resume, batch, dask, xarray ----------------------------------------------------------------------


@job("resume-interrupted")
def _(session: Session) -> None:
    scene, ref, model = (session.inputs[name] for name in ("scene", "ref", "tiny"))

    def stop(progress: Any) -> None:
        if progress.stage == "blocks" and progress.done >= 3:
            raise KeyboardInterrupt

    out = session.folder / "out.tif"
    try:
        geo_refdiff.upscale(
            scene,
            ref=ref,
            mask="none",
            model=model,
            scale=8,
            block_size=96,
            device="cpu",
            products="none",
            out=out,
            progress=stop,
        )
    except BaseException as error:  # its class is what is looked at
        session.record["interrupted"] = type(error).__name__
    session.record["unfinished"] = not out.exists()
    options = f"{MASKED} --mask none --block-size 96"
    session.upscale("scene", options)
    session.upscale("scene", f"{options} --seed 3 --resume")
    session.upscale("scene", f"{options} --resume")


@job("resume-planned")
def _(session: Session) -> None:
    session.upscale("scene", f"{MATCHED} --block-size 128 --plan-only", products="source")
    session.upscale("scene", f"{MATCHED} --block-size 128 --resume", products="source")


@job("python-upscale")
def _(session: Session) -> None:
    scene, ref, mask, model = (session.inputs[name] for name in ("scene", "ref", "mask", "tiny"))
    out = session.folder / "out.tif"
    result = geo_refdiff.upscale(scene, ref=ref, mask=mask, model=model, out=out, scale=8, device="cpu")
    session.record["result"] = json.loads(session.scrubbed(json.dumps(result.to_dict())))


@job("python-denoiser")
def _(session: Session) -> None:
    for name in ("default", session.inputs["tiny:published"]):
        denoiser = geo_refdiff.load_denoiser(name)
        generator = torch.Generator().manual_seed(5)
        x, lr, ref = (torch.randn((1, 4, 64, 64), generator=generator) * 0.3 for _ in range(3))
        mask = torch.zeros((1, 1, 64, 64), dtype=torch.long)
        mask[..., 10:30, 20:50] = 1
        with torch.no_grad():
            made = denoiser(x, torch.tensor([0.3]), lr, ref, mask)
        facts = {"shape": list(made.shape), "pixels": of_array(made.numpy()), "mean": float(made.mean())}
        session.record[Path(name).name] = facts


@job("xarray")
def _(session: Session) -> None:
    import dask
    import rioxarray

    import geo_refdiff.xarray  # noqa: F401

    scene = rioxarray.open_rasterio(session.inputs["scene:uint8:4:value"], chunks={"x": 16, "y": 16})
    ref, mask, model = (str(session.inputs[name]) for name in ("ref", "mask", "tiny"))
    with dask.config.set(scheduler="synchronous"):
        sharp = scene.refdiff.upscale(ref=ref, mask=mask, model=model, scale=8, block_size=128)
        session.record["array"] = {
            "dims": sharp.dims,
            "shape": sharp.shape,
            "dtype": str(sharp.dtype),
            "chunks": sharp.chunks,
            "nodata": float(sharp.rio.nodata),
            "transform": list(sharp.rio.transform())[:6],
            "crs": crs_name(rasterio.crs.CRS.from_wkt(sharp.rio.crs.to_wkt())),
            "x": of_array(sharp.x.values),
            "y": of_array(sharp.y.values),
            "attributes": sorted(sharp.attrs),
            "part": of_array(sharp[:, :128, :128].values),
        }
        sharp.rio.to_raster("sharp.tif")


@job("xarray-time-aoi")
def _(session: Session) -> None:
    import dask
    import rioxarray
    import xarray

    import geo_refdiff.xarray  # noqa: F401

    scene = rioxarray.open_rasterio(session.inputs["scene"], chunks={})
    cube = xarray.concat([scene, scene // 2 + 60], "time")
    ref = rioxarray.open_rasterio(session.inputs["ref"], chunks={})
    with dask.config.set(scheduler="synchronous"):
        sharp = cube.refdiff.upscale(ref=ref, model="matched-ref", scale=8, aoi=BOXES["@crop"])
        facts = {"dims": sharp.dims, "shape": sharp.shape, "dtype": str(sharp.dtype), "pixels": of_array(sharp.values)}
        session.record["array"] = facts


@job("batch")
def _(session: Session) -> None:
    command = f"batch @areas --scene @archive {MATCHED} --products all --out sharp --device cpu --json"
    session.run(f"{command} --report report.html")
    session.run(f"{command} --retry-failed")


@job("batch-index-date-shards")
def _(session: Session) -> None:
    command = f"batch @areas-in-degrees --scene @scene-table {IBP} --products source --out sharp --device cpu --json"
    session.run(f"{command} --date 2020-05 --shard-size 32 --block-size 32 --plan-only")
    session.run(f"{command} --date 2020-05 --shard-size 32 --block-size 32")


@job("batch-compact-auto-mask")
def _(session: Session) -> None:
    command = "batch @areas-in-degrees --scene @archive --ref @ref --model @tiny --products none"
    session.run(f"{command} --out sharp --device cpu --json")


@job("batch-workers")
def _(session: Session) -> None:
    command = "batch @areas --scene @archive --ref @ref --model @tiny --mask none --products stac --block-size 64"
    session.run(f"{command} --out sharp --device cpu --json --workers 2 --split 2 --threads 1")


@job("upscale-workers")
def _(session: Session) -> None:
    session.upscale("scene", f"{MASKED} --mask none --block-size 96 --workers 2")


# --- jobs: the other commands -------------------------------------------------------------------------------


@job("coregister")
def _(session: Session) -> None:
    session.run("coregister @scene @ref-moved -o aligned.tif --report report.json --picture picture.png --json")
    session.run("coregister @scene @ref-wrong --json")


@job("coregister-affine-local")
def _(session: Session) -> None:
    session.run("coregister @wide-scene @wide-ref -o affine.tif --mode affine --json")
    session.run("coregister @wide-scene @wide-ref -o local.tif --mode local --scale 2 --psf landsat --json")


@job("detect-change")
def _(session: Session) -> None:
    command = "detect-change @scene:uint8:4:value @ref --json"
    session.run(f"{command} -o change.tif")
    session.run(f"{command} -o fine.tif --grid output --min-confidence 0.7 --bands red,green,blue")


@job("detect-change-as-mask")
def _(session: Session) -> None:
    session.run("detect-change @scene @ref-moved -o change.tif --json")
    session.upscale("scene", f"{TINY} --ref @ref-moved --mask change.tif --mask-confidence change.confidence.tif")


@job("simulate")
def _(session: Session) -> None:
    session.run("simulate @ref -o default.tif --scale 8 --json")
    session.run("simulate @ref -o sentinel.tif --scale 7 --preset sentinel-2 --noise 1.5 --seed 3 --json")
    session.run("simulate @ref -o bicubic.tif --scale 4 --preset bicubic --json")
    session.run("simulate @ref -o default.tif --scale 8 --json")


@job("simulate-recipes")
def _(session: Session) -> None:
    session.run("simulate @ref -o sensor.tif --scale 8 --recipe sensor --seed 5 --json")
    session.run("simulate @ref -o published.tif --scale 8 --recipe published --seed 7 --json")
    session.run("simulate @ref:uint16:4:value -o missing.tif --scale 8 --recipe sensor --range 0 9000 --json")


@job("validate")
def _(session: Session) -> None:
    session.upscale("scene:uint8:4:value", MATCHED, products="source")
    session.run("validate out.tif --scene @scene:uint8:4:value --ref @ref --truth @ref --json")
    with rasterio.open("out.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as out:
        pixels = out.read(1)
        pixels[100:140, 200:260] //= 2
        out.write(pixels, 1)
    session.run("validate out.tif --scene @scene:uint8:4:value --json")


@job("models")
def _(session: Session) -> None:
    session.run("models list --json")
    session.run("models info default --json")
    session.run("models info @tiny:published --json")
    session.run("models info nonsense --json")


@job("models-import")
def _(session: Session) -> None:
    session.run("models import @published imported")
    session.run("models info imported --json")
    session.run("models import @published imported")


@job("index")
def _(session: Session) -> None:
    session.run(f"index @tree -o pairs.csv --root {session.inputs.folder} --json")
    session.run("index @tree -o some.gpkg --only north --split test --no-register --json")


@job("demo")
def _(session: Session) -> None:
    session.run("demo demo")


@job("train")
def _(session: Session) -> None:
    session.execute(["train", *training(session.inputs["pairs"]), "-o", "run"])
    session.record["weights"] = of_file(Path("run/model/model.safetensors"))
    shutil.rmtree("run")


@job("train-published")
def _(session: Session) -> None:
    session.record["weights"] = of_file(session.inputs["trained:published"] / "model.safetensors")


@job("evaluate")
def _(session: Session) -> None:
    session.run("evaluate @tiny --data @pairs -o report --device cpu")


@job("calibrate")
def _(session: Session) -> None:
    shutil.copytree(session.inputs["tiny"], "model")
    session.run("calibrate model --data @pairs --scales 8 --places 4 --json")


@job("errors")
def _(session: Session) -> None:
    Path("broken.tif").write_bytes(session.inputs["scene"].read_bytes()[:300])
    for options in (
        "broken.tif",
        "missing.tif",
        "@scene --ref broken.tif",
        "@scene --scale 0",
        "@scene --model nonsense",
        "@scene --model matched-ref",
        "@scene --steps many",
        "@scene --ref @ref --bands red,purple",
        "@scene --products cake",
        "@scene --dtype float8",
        "@scene --ref @ref --mask missing.tif",
        "@scene -o nowhere/out.tif",
    ):
        session.run(f"upscale -o out.tif --device cpu {options}")
    session.run("nonsense")
    Path("broken.tif").unlink()


# --- recording and comparing --------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """What the bits of a result depend on beside the code."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    processor = names[0].split(":")[1].strip() if names else platform.processor()
    return {
        "processor": processor,
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "gdal": rasterio.__gdal_version__,
        **{name: version(name) for name in LIBRARIES},
    }


def run_jobs(names: Sequence[str]) -> Iterator[tuple[str, Digest]]:
    """Each job's digests."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    home = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="golden-") as root:
        inputs = Inputs(Path(root) / "inputs")
        inputs.folder.mkdir()
        for number, name in enumerate(names, 1):
            session = Session(Path(root) / "job", inputs)
            session.folder.mkdir()
            os.chdir(session.folder)
            begun, busy = time.monotonic(), time.process_time()
            try:
                JOBS[name](session)
                session.files()
            except Exception as error:
                session.record["crash"] = f"{type(error).__name__}: {session.scrubbed(str(error))}"
            finally:
                os.chdir(home)
            took = f"{time.monotonic() - begun:.1f} s ({time.process_time() - busy:.1f} s of processor)"
            codes = [entry["exit"] for key, entry in session.record.items() if key.startswith("run")]
            print(f"[{number}/{len(names)}] {name}: exit {codes}, {took}", file=sys.stderr)
            for key, entry in session.record.items():
                if key.startswith("run") and "error" in entry:
                    print(f"    {entry['error']}", file=sys.stderr)
            if "crash" in session.record:
                print(f"    crashed: {session.record['crash']}", file=sys.stderr)
            shutil.rmtree(session.folder)
            yield name, json.loads(json.dumps(stable(session.record)))


def as_text(value: Any, depth: int = 1) -> str:
    """JSON with one line for each entry of an object, lists on one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    lines = (f"{' ' * depth}{json.dumps(key)}: {as_text(value[key], depth + 1)}" for key in sorted(value))
    return "{\n" + ",\n".join(lines) + "\n" + " " * (depth - 1) + "}"


def differences(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """A line for each leaf that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            place = f"{at}.{key}" if at else key
            if key not in after:
                yield f"{place}: gone; was {short(before[key])}"
            elif key not in before:
                yield f"{place}: new: {short(after[key])}"
            else:
                yield from differences(before[key], after[key], place)
    elif before != after:
        yield f"{at}: {short(before)} -> {short(after)}"


def short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def chosen(patterns: Sequence[str]) -> list[str]:
    """Names of jobs that match one of the patterns; all without patterns."""
    names = [name for name in JOBS if not patterns or any(fnmatch(name, pattern) for pattern in patterns)]
    if not names:
        raise SystemExit(f"no job matches {' '.join(patterns)}; python tests/golden.py list")
    return names


def record(path: Path, patterns: Sequence[str]) -> int:
    """Write the digests; with patterns, those of the jobs that match alone."""
    jobs = json.loads(path.read_text())["jobs"] if patterns and path.exists() else {}
    jobs |= dict(run_jobs(chosen(patterns)))
    jobs = {name: jobs[name] for name in sorted(jobs) if name in JOBS}
    path.write_text(as_text({"machine": machine(), "jobs": jobs}) + "\n")
    crashed = [name for name, found in jobs.items() if "crash" in found]
    print(f"{path}: {len(jobs)} jobs" + (f", crashed: {', '.join(crashed)}" if crashed else ""))
    return 1 if crashed else 0


def compare(path: Path, patterns: Sequence[str]) -> int:
    """Print what differs from the file."""
    golden = json.loads(path.read_text())
    elsewhere = list(differences(golden["machine"], machine()))
    for line in elsewhere:
        print(f"recorded on another machine: {line}")
    wrong = 0
    names = chosen(patterns)
    for name, found in run_jobs(names):
        lines = list(differences(golden["jobs"].get(name, {}), found))
        wrong += bool(lines)
        print("".join(f"{name}: {line}\n" for line in lines), end="", flush=True)
    gone = [] if patterns else sorted(golden["jobs"].keys() - JOBS.keys())
    for name in gone:
        print(f"{name}: the job is gone")
    hint = "; kernels of another machine may round differently" if elsewhere and wrong else ""
    print(f"{len(names) - wrong} of {len(names)} jobs as recorded{hint}")
    return 1 if wrong or gone else 0


def main(args: Sequence[str]) -> int:
    """The command line."""
    warnings.simplefilter("ignore")
    match args:
        case ["list"]:
            print("\n".join(JOBS))
            return 0
        case ["record", path, *patterns]:
            return record(Path(path), patterns)
        case ["compare", path, *patterns]:
            return compare(Path(path), patterns)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
