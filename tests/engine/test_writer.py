"""Many blocks by way of VRTs in between: the bytes that one VRT over all would give, in bounded memory."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from geo_refdiff import upscale
from geo_refdiff.engine import writer as module
from geo_refdiff.engine.shards import shards_of
from geo_refdiff.engine.writer import BlockFiles, BlockPixels, BlockRaster, FinishedBlock, write_rasters
from geo_refdiff.errors import OutputError
from geo_refdiff.plan.layout import plan_blocks
from geo_refdiff.raster.vrt import VirtualRaster
from geo_refdiff.raster.window import Window

OPTIONS: dict[str, Any] = {
    "model": "bicubic-ibp", "scale": 4, "block_size": 16, "window": 64, "device": "cpu", "products": "source",
}  # fmt: skip


def scene_of(make_raster: Any, make_texture: Any, kind: str) -> Path:
    """A scene of 13 x 18 pixels, 4 x 5 blocks, with holes of several shapes."""
    values = np.round(20 + 200 * make_texture((2, 13, 18), seed=5)).astype("uint8")
    hole = np.zeros(values.shape[1:], bool)
    hole[:8, :9] = hole[9:11, 10:] = hole[12, 3] = True
    if kind == "nan":
        floats = values.astype("float32")
        floats[:, hole] = np.nan
        return Path(make_raster("scene.tif", floats, nodata=float("nan")))
    if kind == "mask":
        return Path(make_raster("scene.tif", values, mask=np.where(hole, 0, 255).astype("uint8")))
    values[:, hole] = 0
    return Path(make_raster("scene.tif", values, nodata=0))


def bytes_of(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in [out, out.with_suffix(".source.tif"), *shards_of(out).glob("*")]}


@pytest.mark.parametrize("kind", ["nodata", "nan", "mask"])
@pytest.mark.parametrize("shard_size", [None, 48])
@pytest.mark.parametrize("most", [2, 7])
def test_bytes_are_those_of_one_vrt(
    make_raster: Any,
    make_texture: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    shard_size: int | None,
    most: int,
) -> None:
    scene = scene_of(make_raster, make_texture, kind)
    found = []
    for folder, number in (("a", 1024), ("b", most)):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(module, "MAX_SOURCES", number)
        out = tmp_path / folder / ("x.tif" if shard_size is None else "x.vrt")
        with rasterio.open(scene):  # GDAL's pool of files lives on
            found.append(bytes_of(upscale(scene, out=out, shard_size=shard_size, **OPTIONS).out))
        assert not list((tmp_path / folder).glob("*.parts"))
    assert found[0] == found[1]


def test_uncertainty_of_many_blocks(
    make_pair: Any, tiny_compact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, ref = make_pair(6, 8)
    options: dict[str, Any] = {"ref": ref, "model": tiny_compact, "block_size": 16, "device": "cpu", "uncertainty": 2}
    found = []
    for number in (1024, 5):
        monkeypatch.setattr(module, "MAX_SOURCES", number)
        out = upscale(scene, out=tmp_path / "x.tif", overwrite=True, coregister="off", **options).out
        found.append((out.read_bytes(), out.with_suffix(".uncertainty.tif").read_bytes()))
    assert found[0] == found[1]


def raster(height: int, width: int) -> BlockRaster:
    return BlockRaster(
        VirtualRaster(GeoBox((height, width), Affine(1, 0, 500000, 0, -1, 4600000), "EPSG:32631"), "uint8", 1, ())
    )


def leaves(folder: Path, name: str, at: Window) -> dict[str, Window]:
    """Blocks that a source leads to, with their windows in the whole."""
    if name.endswith(".tif"):
        return {Path(name).name: at}
    found: dict[str, Window] = {}
    text = (folder / name).read_text()
    size = re.search(r'rasterXSize="(\d+)" rasterYSize="(\d+)"', text)
    assert size is not None
    assert (int(size[2]), int(size[1])) == at.shape
    pattern = r'>([^<]+)</SourceFilename>.*?<DstRect xOff="(\d+)" yOff="(\d+)" xSize="(\d+)" ySize="(\d+)"'
    members = re.findall(pattern, text)
    assert 0 < len(members) <= module.MAX_SOURCES
    for member, col, row, width, height in members:
        window = Window(int(row), int(col), int(height), int(width)).shift(at.row, at.col)
        assert at.contains(window)
        below = leaves(folder, f"{Path(name).parent}/{member}", window)
        assert not set(below) & set(found)
        found |= below
    return found


@settings(max_examples=25)
@given(
    st.integers(1, 14), st.integers(1, 14), st.integers(2, 12), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 2**31)
)
def test_every_block_is_named_once_and_in_order(rows: int, cols: int, most: int, share: float, seed: int) -> None:
    from tempfile import TemporaryDirectory

    shape = (rows * 16 - 3, cols * 16 - 5)
    layout = plan_blocks(16, shape)
    filled = set(np.flatnonzero(np.random.default_rng(seed).random(layout.count) < share).tolist())
    met: list[int] = []
    with TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_SOURCES", most)
        patch.setattr(module, "read_block_tags", lambda file: {"FILE": file.name})
        files = BlockFiles(Path(scratch), layout)
        (files.folder / "blocks").mkdir()
        names = {files.file(i).name: i for i in range(layout.count)}
        made, _ = files.mosaic(raster(*shape), filled=filled, on_block=lambda tags: met.append(names[tags["FILE"]]))
        assert len(made.sources) <= most
        found: dict[str, Window] = {}
        for name, window in made.sources:
            found |= leaves(files.folder, name, window)
    assert met == sorted(filled)
    assert found == {files.file(i).name: layout.window(i, shape) for i in filled}


def test_memory_does_not_grow_with_the_number_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_block_tags", lambda file: {})
    peaks = []
    for number, side in enumerate((96, 48, 96)):  # the first time Python's own table of names may grow
        shape = (side * 16, side * 16)
        files = BlockFiles(tmp_path / str(number), plan_blocks(16, shape))
        (files.folder / "blocks").mkdir(parents=True)
        filled = range(files.layout.count)
        tracemalloc.start()
        made, _ = files.mosaic(raster(*shape), filled=filled)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(made.sources) <= module.MAX_SOURCES
    assert peaks[2] < peaks[1] + 2**18


def test_two_rasters_of_the_same_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, (40, 70)).astype(np.uint8)
    classes[16:32, 32:48] = 9
    sure = np.where(classes == 9, 9, rng.integers(10, 250, (40, 70))).astype(np.uint8)
    layout = plan_blocks(16, (40, 70))
    profile = replace(raster(40, 70).profile, nodata=9)
    written: list[int] = []

    def blocks() -> Iterator[FinishedBlock]:
        for index in reversed(range(layout.count)):
            rows, cols = layout.window(index, (40, 70)).within(Window(0, 0, 40, 70))
            layers = [band[None, rows, cols] for band in (classes, sure)]
            yield index, [BlockPixels(layer, layer != 9) for layer in layers]
            written.append(len(list(tmp_path.glob(".a.tif.parts-*/blocks/*.tif"))))

    outs = [tmp_path / "a.tif", tmp_path / "b.tif"]
    write_rasters([BlockRaster(profile, "", "mode"), BlockRaster(profile, "sure")], outs, layout, blocks())
    assert sorted(tmp_path.iterdir()) == outs
    assert 2 * (layout.count - 4) <= max(written) <= 2 * (layout.count - 1)  # none of the empty block
    for out, band in zip(outs, (classes, sure), strict=True):
        with rasterio.open(out) as dataset:
            np.testing.assert_array_equal(dataset.read(1), band)
            tags = dataset.tags(1)
        if out.name == "a.tif":
            assert "STATISTICS_MEAN" not in tags
        else:
            assert float(tags["STATISTICS_MEAN"]) == pytest.approx(sure[sure != 9].mean())
            assert float(tags["STATISTICS_MAXIMUM"]) == sure.max()
    with pytest.raises(OutputError, match="exists already"):
        write_rasters([BlockRaster(profile), BlockRaster(profile, "sure")], outs, layout, blocks())


def test_nothing_is_left_after_an_interrupt(tmp_path: Path) -> None:
    def blocks() -> Iterator[FinishedBlock]:
        yield 0, [BlockPixels(np.ones((1, 16, 16), np.uint8))]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rasters([raster(32, 32)], [tmp_path / "a.tif"], plan_blocks(16, (32, 32)), blocks())
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="does not exist"):
        write_rasters([raster(32, 32)], [tmp_path / "no" / "a.tif"], plan_blocks(16, (32, 32)), blocks())
