"""`da.refdiff.upscale` gives the command's pixels, block by block, and none before they are asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import rasterio
import xarray
from affine import Affine
from rasterio.windows import Window as RioWindow

from geo_refdiff import upscale
from geo_refdiff.errors import GeoRefDiffError, ResumeError
from geo_refdiff.xarray.store import temporary_folder

Opened = Callable[..., xarray.DataArray]
Command = Callable[..., np.ndarray]
STILL = {"coregister": "off"}


@pytest.fixture
def inputs(make_pair: Any, make_raster: Any, make_texture: Any, tiny_compact: Path) -> dict[str, Path]:
    """A scene with a hole, a reference and a mask, and a model with random weights."""
    scene, reference = make_pair(40, 48)
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
        dataset.write(np.zeros((3, 5, 6), np.uint8), window=RioWindow(9, 20, 6, 5))
    classes = (make_texture((1, 160, 192), seed=4) * 2.99).astype("uint8")
    return {
        "scene": scene,
        "ref": reference,
        "mask": make_raster("mask.tif", classes, pixel=10.0),
        "model": tiny_compact,
    }


@pytest.mark.parametrize("chunks", [None, {"x": 19, "y": 23}], ids=["numpy", "dask"])
def test_the_commands_pixels_whole_and_block_by_block(
    inputs: dict[str, Path], opened: Opened, command: Command, chunks: dict[str, int] | None
) -> None:
    options = {k: v for k, v in inputs.items() if k != "scene"} | {"block_size": 128, "seed": 3, **STILL}
    wanted = command(inputs["scene"], **options)
    array = opened(inputs["scene"], chunks)
    lazy = array.refdiff.upscale(**options)
    assert lazy.chunks == ((3,), (128, 128, 64), (128, 128, 128))
    assert lazy.dtype == wanted.dtype == np.uint8
    with dask.config.set(scheduler="threads", num_workers=3):
        np.testing.assert_array_equal(lazy[:, 128:256, 256:].values, wanted[:, 128:256, 256:])  # one chunk, first
        np.testing.assert_array_equal(lazy[:, 100:300:3, 17].values, wanted[:, 100:300:3, 17])
        np.testing.assert_array_equal(lazy.values, wanted)


def test_the_model_that_ships(make_pair: Any, opened: Opened, command: Command) -> None:
    scene, reference = make_pair(16, 20)
    lazy = opened(scene).refdiff.upscale(ref=reference, block_size=128, **STILL)
    other_blocks = command(scene, ref=reference, **STILL)
    assert np.abs(lazy.values.astype(int) - other_blocks).max() <= 1  # they cut other windows
    same_blocks = command(scene, ref=reference, block_size=128, **STILL)
    np.testing.assert_array_equal(lazy.values, same_blocks)


def test_nothing_is_computed_until_it_is_asked_for(make_pair: Any, opened: Opened, tmp_path: Path) -> None:
    scene, reference = make_pair()
    read: list[int] = []

    def seen(chunk: np.ndarray) -> np.ndarray:
        read.append(chunk.size)
        return chunk

    array = opened(scene, {"x": 16, "y": 16})
    array = array.copy(data=array.data.map_blocks(seen, dtype=array.dtype, meta=np.empty((0, 0, 0), array.dtype)))
    lazy = array.refdiff.upscale(ref=reference, model="bicubic", block_size=64, folder=tmp_path)
    assert lazy.shape == (3, 320, 384)
    assert not read
    assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
    lazy[:, 0, 0].compute()
    assert len(read) == 9
    assert sum(read) == 3 * 40 * 48


def test_an_area_of_interest(make_pair: Any, opened: Opened, command: Command) -> None:
    scene, _ = make_pair()
    with rasterio.open(scene) as dataset:
        x, y = dataset.transform @ (7, 5)
    aoi = f"{x},{y - 40 * 20},{x + 40 * 30},{y}"
    lazy = opened(scene).refdiff.upscale(model="bicubic", scale=4, aoi=aoi, block_size=64)
    np.testing.assert_array_equal(lazy.values, command(scene, model="bicubic", scale=4, aoi=aoi))
    assert lazy.rio.transform().almost_equals(Affine(10, 0, x, 0, -10, y), 1e-9)


def test_reference_and_mask_as_arrays(inputs: dict[str, Path], opened: Opened, command: Command) -> None:
    wanted = command(**inputs, block_size=128)
    lazy = opened(inputs["scene"]).refdiff.upscale(
        ref=opened(inputs["ref"], {"x": 100, "y": 100}),
        mask=opened(inputs["mask"])[0],
        model=inputs["model"],
        block_size=128,
    )
    np.testing.assert_array_equal(lazy.values, wanted)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_types_and_missing_values(
    make_raster: Any, make_texture: Any, opened: Opened, command: Command, dtype: str
) -> None:
    values = (make_texture((2, 20, 24)) * 900 + 40).astype(dtype)
    values[:, 3:6, 4:9] = np.nan if dtype.startswith("float") else 7
    if dtype == "float64":
        values[0, 12, 12] = np.nan
    scene = make_raster("s.tif", values, nodata=None if dtype.startswith("float") else 7, names=["b1", "b2"])
    lazy = opened(scene).refdiff.upscale(model="bicubic-ibp", scale=4, block_size=48)
    np.testing.assert_array_equal(lazy.values, command(scene, model="bicubic-ibp", scale=4))
    assert lazy.dtype == dtype


def test_south_up_and_rotated(make_raster: Any, make_texture: Any, opened: Opened, command: Command) -> None:
    values = (make_texture((1, 20, 24)) * 200).astype("uint8")
    for name, affine in (
        ("up", Affine(40, 0, 485_904, 0, 40, 5_209_248)),
        ("turned", Affine(30, 12, 485_904, 12, -30, 5_209_248)),
    ):
        scene = make_raster(f"{name}.tif", values, transform=affine)
        lazy = opened(scene).refdiff.upscale(model="bicubic", scale=4, block_size=48)
        np.testing.assert_array_equal(lazy.values, command(scene, model="bicubic", scale=4))
        fine = Affine(affine.a / 4, affine.b / 4, affine.c, affine.d / 4, affine.e / 4, affine.f)
        assert lazy.rio.transform().almost_equals(fine, 1e-9)


def test_an_array_cut_out_is_a_scene_of_its_own(inputs: dict[str, Path], opened: Opened, tmp_path: Path) -> None:
    """Cut out by index, its stale GeoTransform notwithstanding; what the command makes of the same cut-out."""
    array = opened(inputs["scene"])[:, 6:30, 9:41]
    small = tmp_path / "small.tif"
    with rasterio.open(inputs["scene"]) as dataset:
        window = RioWindow(9, 6, 32, 24)
        profile = dataset.profile | {"width": 32, "height": 24, "transform": dataset.window_transform(window)}
        with rasterio.open(small, "w", **profile) as target:
            target.write(dataset.read(window=window))
            target.descriptions = dataset.descriptions
    options = {k: inputs[k] for k in ("ref", "mask", "model")} | STILL
    upscale(small, out=tmp_path / "out.tif", **options)
    lazy = array.refdiff.upscale(block_size=128, **options)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        np.testing.assert_array_equal(lazy.values, dataset.read())
        assert lazy.rio.transform() == dataset.transform


def test_other_processes_need_nothing_but_the_graph(
    inputs: dict[str, Path], opened: Opened, command: Command, start_cluster: Callable[[int], Any]
) -> None:
    """A worker in a process of its own, as on a cluster."""
    distributed = pytest.importorskip("distributed")
    options = {k: inputs[k] for k in ("ref", "model")} | {"block_size": 128, **STILL}
    wanted = command(inputs["scene"], **options)
    lazy = opened(inputs["scene"], {"x": 24, "y": 24}).refdiff.upscale(**options)
    pickle.loads(pickle.dumps(lazy))
    with distributed.Client(start_cluster(1)):
        np.testing.assert_array_equal(lazy.values, wanted)


def test_a_kept_folder_is_used_again(make_pair: Any, opened: Opened, tmp_path: Path) -> None:
    scene, reference = make_pair()
    folder = tmp_path / "kept"
    folder.mkdir()
    first = opened(scene).refdiff.upscale(ref=reference, model="matched-ref", folder=folder, **STILL)
    values = first.values
    files = {p: p.stat().st_mtime_ns for p in folder.glob("*/*")}
    assert any(p.name.startswith("plan-") for p in files)
    again = opened(scene).refdiff.upscale(ref=reference, model="matched-ref", folder=folder, **STILL)
    np.testing.assert_array_equal(again.values, values)
    assert {p: p.stat().st_mtime_ns for p in folder.glob("*/*")} == files


def test_a_plan_that_reads_other_files_is_refused(
    make_pair: Any, make_raster: Any, opened: Opened, tmp_path: Path
) -> None:
    scene, reference = make_pair()
    folder = tmp_path / "kept"
    folder.mkdir()

    def upscaled() -> Any:
        return opened(scene).refdiff.upscale(ref=reference, model="matched-ref", folder=folder, **STILL)

    wanted = upscaled().values
    (file,) = folder.glob("*/plan-*.json")
    kept = file.read_text()
    secret = make_raster("secret.tif", np.ones((3, 8, 8), np.uint8))
    file.write_text(kept.replace(str(reference), str(secret)))
    with pytest.raises(ResumeError, match=r"names .*secret\.tif, which was not asked for"):
        upscaled().compute()
    file.write_text(kept)
    np.testing.assert_array_equal(upscaled().values, wanted)


def test_the_temporary_folder_goes_with_the_process(make_pair: Any) -> None:
    import subprocess
    import sys

    scene, _ = make_pair()
    code = (
        "import sys, warnings; warnings.simplefilter('ignore'); import rioxarray, geo_refdiff.xarray\n"
        "from geo_refdiff.xarray.store import temporary_folder\n"
        "da = rioxarray.open_rasterio(sys.argv[1]).refdiff.upscale(model='bicubic', scale=2)\n"
        "da.compute(); print(temporary_folder(), len(list(temporary_folder().glob('*/*.tif'))))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(scene)], capture_output=True, text=True, check=True)
    folder, count = run.stdout.split()
    assert int(count) == 1
    assert not Path(folder).exists()
    assert Path(folder) != temporary_folder()


@pytest.mark.parametrize("clouds", ["keep", "nodata"])
def test_clouds_as_a_file_and_as_an_array(
    make_pair: Any, make_raster: Any, opened: Opened, command: Command, clouds: str
) -> None:
    scene, _ = make_pair(40, 48)
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
    classes = np.full((1, 20, 24), 4, np.uint8)
    classes[0, 5:9, 6:10] = 9
    layer = make_raster("SCL.tif", classes, pixel=80.0)
    options = {"model": "bicubic-ibp", "scale": 2, "clouds": clouds, "block_size": 64}
    wanted = command(scene, cloud_mask=str(layer), **options)
    array = opened(layer, {"x": 10, "y": 10}).rename("scl")
    for given in (str(layer), array):
        lazy = opened(scene).refdiff.upscale(cloud_mask=given, **options)
        np.testing.assert_array_equal(lazy.values, wanted)
    cloudy = np.kron(classes[0] == 9, np.ones((4, 4), bool))
    assert (wanted == 0).all(axis=0)[cloudy].all() == (clouds == "nodata")
    assert (wanted == 0).all(axis=0)[~cloudy].mean() < 0.01


@pytest.mark.parametrize("kind", ["array", "dataset"])
def test_like_as_an_array(make_pair: Any, opened: Opened, command: Command, kind: str) -> None:
    scene, reference = make_pair(16, 20, scale=4)
    like = opened(reference, {"x": 40, "y": 40})
    given = like if kind == "array" else like.to_dataset(dim="band").rename({1: "a", 2: "b", 3: "c"})
    lazy = opened(scene).refdiff.upscale(model="bicubic", like=given)
    np.testing.assert_array_equal(lazy.values, command(scene, model="bicubic", scale=4))
    with pytest.raises(GeoRefDiffError, match="scale 8: pixels like those of array want 4"):
        opened(scene).refdiff.upscale(model="bicubic", like=given, scale=8)


@pytest.mark.parametrize("name", ["like", "cloud_mask"])
def test_arrays_beside_files_are_refused_with_the_way_out(
    make_pair: Any, opened: Opened, tmp_path: Path, name: str
) -> None:
    scene, reference = make_pair(16, 20)
    options: dict[str, Any] = {"model": "bicubic", "out": tmp_path / "o.tif"}
    with pytest.raises(GeoRefDiffError, match=r"an array is no file: .* call array\.refdiff\.upscale"):
        upscale(scene, **options, **{name: opened(reference)})
    with pytest.raises(GeoRefDiffError, match="give a text") as error:
        upscale(scene, **options, **{name: np.zeros((40, 40))})
    assert "\n" not in str(error.value)
