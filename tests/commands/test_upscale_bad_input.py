"""Bad input gets one clear line; nothing is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from geo_refdiff import upscale
from geo_refdiff.engine.run import Progress, RunCounts
from geo_refdiff.errors import GeoRefDiffError, GridError, InputError, ModelError, OptionError, OutputError

FLAT = np.full((3, 16, 16), 7, np.uint8)


def not_a_raster(make: Any, folder: Path) -> dict[str, Any]:
    path = folder / "text.tif"
    path.write_text("hello")
    return {"scene": path}


def truncated(make: Any, folder: Path) -> dict[str, Any]:
    noise = np.random.default_rng(0).integers(0, 255, (3, 200, 200), np.uint8)
    path = make("cut.tif", noise)
    os.truncate(path, path.stat().st_size // 2)
    return {"scene": path}


def palette(make: Any, folder: Path) -> dict[str, Any]:
    path = make("palette.tif", FLAT[:1])
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {7: (255, 0, 0, 255)})
        dataset.colorinterp = [ColorInterp.palette]
    return {"scene": path}


FAR = Affine(5, 0, 700_000, 0, -5, 5_209_248)
Case = Callable[[Any, Path], dict[str, Any]]
CASES: dict[str, tuple[Case, type[GeoRefDiffError], str]] = {
    "not a raster": (not_a_raster, InputError, "cannot be opened"),
    "missing": (lambda m, f: {"scene": f / "none.tif"}, InputError, "no such file"),
    "truncated": (truncated, InputError, "cannot be"),
    "palette": (palette, InputError, "palette"),
    "no CRS": (lambda m, f: {"scene": m("a.tif", FLAT, crs=None)}, InputError, "no CRS"),
    "complex": (lambda m, f: {"scene": m("a.tif", FLAT.astype("complex64"))}, InputError, "complex"),
    "no overlap": (lambda m, f: {"ref": m("r.tif", FLAT, transform=FAR)}, GridError, "does not overlap"),
    "mask without overlap": (lambda m, f: {"mask": m("r.tif", FLAT[:1], transform=FAR)}, GridError, "does not overlap"),
    "coarser reference": (lambda m, f: {"ref": m("r.tif", FLAT, pixel=90)}, InputError, "coarser than the scene"),
    "reference bands": (
        lambda m, f: {"ref": m("r.tif", FLAT[:2], pixel=5)},
        InputError,
        "is known to be the scene's band 1, band 2, band 3",
    ),
    "mask bands": (lambda m, f: {"mask": m("r.tif", FLAT[:2], pixel=5)}, InputError, "a change mask has one"),
    "scene bands": (lambda m, f: {"bands": ["swir"]}, OptionError, "no band 'swir'"),
    "no area": (lambda m, f: {"aoi": "5,5,5,9"}, GridError, "empty"),
    "area outside": (lambda m, f: {"aoi": "0,0,10,10"}, GridError, "outside"),
    "area file missing": (lambda m, f: {"aoi": str(f / "none.gpkg")}, InputError, "no such file"),
    "unknown model": (lambda m, f: {"model": "no-such-model"}, ModelError, "unknown model 'no-such-model'"),
    "folder missing": (lambda m, f: {"out": f / "none" / "out.tif"}, OutputError, "does not exist"),
    "output is a folder": (lambda m, f: {"out": f}, OutputError, "is a folder"),
    "scale": (lambda m, f: {"scale": 0}, OptionError, "scale 0"),
    "huge scale": (lambda m, f: {"scale": 1000}, OptionError, "scale 1000"),
    "batch": (lambda m, f: {"batch_size": 0}, OptionError, "batch size 0"),
    "block": (lambda m, f: {"block_size": 100}, OptionError, "block size 100"),
    "device": (lambda m, f: {"device": "tpu"}, OptionError, "device 'tpu'"),
    "dtype": (lambda m, f: {"dtype": "int8"}, OptionError, "dtype 'int8'"),
    "steps": (lambda m, f: {"steps": 5}, OptionError, "no diffusion model"),
    "range": (lambda m, f: {"scene_range": (5.0, 5.0)}, OptionError, "scene range"),
    "matched-ref alone": (lambda m, f: {"model": "matched-ref"}, OptionError, "needs a reference"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_clear_line(make_raster: Any, tmp_path: Path, name: str) -> None:
    change, kind, text = CASES[name]
    options: dict[str, Any] = {"model": "bicubic", "scale": 2, "out": tmp_path / "out.tif"}
    options |= change(make_raster, tmp_path)
    scene = options.pop("scene", None) or make_raster("scene.tif", FLAT)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind) as caught:
        upscale(scene, **options)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def corrupt(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("spoil", "options", "kind", "text"),
    [
        (corrupt, {}, ModelError, "safetensors"),
        (lambda f: (f / "config.json").write_text("{"), {}, ModelError, "config.json"),
        (lambda f: (f / "model.safetensors").unlink(), {}, ModelError, "no weights"),
        (
            None,
            {"scale": 3},
            ModelError,
            "scale 3: model 'tiny-compact' knows 4, 8; for 3 give --model matched-ref",
        ),
        (None, {"sampler": "magic"}, OptionError, "unknown sampler 'magic'"),
        (None, {"steps": -1}, OptionError, "steps -1"),
        (None, {"bands": ["1"]}, InputError, "1 band, but the model takes red, green, blue; take a model"),
        (None, {"window": 9000}, OptionError, "8192"),
        (None, {"mask": 9}, InputError, "holds 9, which is no class"),
    ],
)
def test_models(
    make_raster: Any, tmp_path: Path, tiny_compact: Path, spoil: Any, options: dict[str, Any], kind: Any, text: str
) -> None:
    if spoil:
        spoil(tiny_compact)
    if "mask" in options:
        options = {"mask": make_raster("mask.tif", np.full((1, 16, 16), options["mask"], np.uint8))}
    scene = make_raster("scene.tif", FLAT)
    with pytest.raises(kind) as caught:
        upscale(scene, model=tiny_compact, out=tmp_path / "out.tif", **({"scale": 4} | options))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.tif.parts").exists()


def test_damage_in_the_middle(make_raster: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 512, 512), np.uint8)
    scene = make_raster("scene.tif", noise, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    raw = bytearray(scene.read_bytes())
    third = len(raw) // 3
    raw[third : third + 9000] = bytes(9000)
    scene.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        upscale(scene, model="bicubic", scale=2, out=tmp_path / "out.tif", block_size=256)
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


def test_damage_in_mid_run_loses_no_block(make_raster: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 512, 512), np.uint8)
    scene = make_raster("scene.tif", noise, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    whole, times, blocks = scene.read_bytes(), scene.stat(), tmp_path / "out.tif.parts" / "blocks"
    options: dict[str, Any] = {"model": "bicubic", "scale": 2, "out": tmp_path / "out.tif", "block_size": 256}
    options["products"] = "none"

    def damage(progress: Progress) -> None:
        if progress.done == 6:
            with scene.open("r+b") as stream:
                stream.seek(len(whole) // 2)
                stream.write(bytes(len(whole) // 2))

    with pytest.raises(InputError, match=r"cut short.* of 16 blocks are finished in .*; continue with --resume$"):
        upscale(scene, **options, progress=damage)
    kept = sorted(blocks.iterdir())
    assert len(kept) >= 6
    with pytest.raises(InputError, match="cut short"):  # now found while planning
        upscale(scene, **options, overwrite=True)
    assert sorted(blocks.iterdir()) == kept
    scene.write_bytes(whole)
    os.utime(scene, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert upscale(scene, **options, resume=True).counts["blocks_resumed"] == len(kept)


def test_a_run_that_fails_before_its_first_block_leaves_nothing(make_raster: Any, tmp_path: Path) -> None:
    def refuse(*args: Any, **options: Any) -> RunCounts:
        raise InputError("the server answers 403")

    scene, out = make_raster("scene.tif", FLAT), tmp_path / "out.tif"
    with pytest.raises(InputError, match=r"^the server answers 403$"):
        upscale(scene, model="bicubic", scale=2, out=out, runner=refuse)
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 kB; skips where it cannot be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting a small tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(make_raster: Any, tmp_path: Path, small_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 260, 260), np.uint8)
    scene = make_raster("scene.tif", noise)
    out = small_disk / "out.tif"
    with pytest.raises(OutputError, match="disk is full"):
        upscale(scene, model="bicubic", scale=3, out=out, block_size=128)
    assert not out.exists()
    assert not list(small_disk.glob("*.tif"))
    with pytest.raises(OutputError, match="need at least"):
        upscale(scene, model="bicubic", scale=8, out=small_disk / "big.tif")
    assert not (small_disk / "big.tif.parts").exists()


def test_read_only_folder(make_raster: Any, tmp_path: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutputError, match="read-only"):
        upscale(make_raster("scene.tif", FLAT), model="bicubic", scale=2, out=small_disk / "out.tif")
