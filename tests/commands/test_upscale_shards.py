"""An output as many GeoTIFFs and a VRT: the same pixels, the same habits, whatever befalls the run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import ColorInterp, MaskFlags

from geo_refdiff import upscale
from geo_refdiff.cli.main import run as cli
from geo_refdiff.commands.upscale import Interrupted
from geo_refdiff.engine import shards
from geo_refdiff.engine.shards import published_size, shards_of
from geo_refdiff.errors import OutputError
from geo_refdiff.plan.layout import BlockLayout, plan_blocks

OPTIONS: dict[str, Any] = {"model": "bicubic", "scale": 8, "block_size": 64, "device": "cpu", "products": "none"}
HEIGHT, WIDTH = 60, 90
"""Of the scene: 480 x 720 output pixels, so that there is an overview of the whole."""


def pixels(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rng = np.random.default_rng(7)
    return rng.integers(1, 250, (3, height, width)).astype("uint8")


@pytest.fixture(params=["nodata", "nan", "mask", "all valid"])
def scene(request: pytest.FixtureRequest, make_raster: Any) -> Path:
    """A scene in which all of the first shard (128 pixels), and a bit more, is missing, reported in several ways."""
    array, named = pixels(), {"names": ("red", "green", "near infrared")}
    hole = np.zeros((HEIGHT, WIDTH), bool)
    hole[:19, :21] = hole[50:, 60] = True
    if request.param == "nodata":
        array[:, hole] = 0
        path = make_raster("scene.tif", array, nodata=0, **named)
    elif request.param == "nan":
        floats = array.astype("float32") / 7
        floats[:, hole] = np.nan
        path = make_raster("scene.tif", floats, nodata=float("nan"), **named)
    elif request.param == "mask":
        path = make_raster("scene.tif", array, mask=np.where(hole, 0, 255).astype("uint8"), **named)
    else:
        path = make_raster("scene.tif", array, **named)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets, dataset.units = (0.01,) * 3, (-0.5,) * 3, ("reflectance",) * 3
        dataset.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.undefined)
    return Path(path)


def test_shards_are_the_single_file_cut_up(scene: Path, tmp_path: Path) -> None:
    one = upscale(scene, out=tmp_path / "one.tif", **OPTIONS).out
    (tmp_path / "made").mkdir()
    made = upscale(scene, out=tmp_path / "made" / "many.vrt", shard_size=128, **OPTIONS | {"products": "all"}).out
    assert {p.name for p in made.parent.iterdir()} >= {"many.vrt", "many.shards", "many.qml", "many.json", "many.png"}
    assert not list(made.parent.glob("*.parts"))
    many = shutil.move(made.parent, tmp_path / "moved") / "many.vrt"
    assert str(tmp_path) not in many.read_text()
    with rasterio.open(one) as single, rasterio.open(many) as whole:
        assert np.array_equal(single.read(), whole.read(), equal_nan=single.dtypes[0] == "float32")
        assert np.array_equal(single.read_masks(), whole.read_masks())
        for key in ("crs", "transform", "shape", "dtypes", "descriptions", "scales", "offsets", "units", "colorinterp"):
            assert getattr(single, key) == getattr(whole, key), key
        assert str(single.nodata) == str(whole.nodata)
        assert single.mask_flag_enums == whole.mask_flag_enums
        assert whole.tags() == single.tags() | {shards.SIZE_TAG: "128"}
        for band in single.indexes:
            assert whole.tags(band) == single.tags(band)
            assert "STATISTICS_MEAN" in single.tags(band)
        assert whole.overviews(1) == single.overviews(1) == [2]
        missing = single.dataset_mask()[:128, :128].max() == 0
    with rasterio.open(one, overview_level=0) as single, rasterio.open(many, overview_level=0) as whole:
        assert np.array_equal(single.read(), whole.read(), equal_nan=single.dtypes[0] == "float32")
        assert np.array_equal(single.dataset_mask(), whole.dataset_mask())
    files = sorted(p.name for p in shards_of(many).glob("r*.tif"))
    assert len(files) == 4 * 6 - missing
    assert missing != ("r00000_c00000.tif" in files)


def test_a_shard_stands_alone(make_raster: Any, tmp_path: Path) -> None:
    scene = make_raster("scene.tif", pixels(150, 170))
    options = OPTIONS | {"block_size": 512}
    one = upscale(scene, out=tmp_path / "one.tif", **options).out
    many = upscale(scene, out=tmp_path / "many.vrt", shard_size=1024, **options).out
    with rasterio.open(one) as single, rasterio.open(many) as whole:
        assert single.overviews(1) == [2, 4]
        assert whole.overviews(1) == [4]
        expected = single.read(out_shape=(3, 600, 680))
        assert np.array_equal(expected, whole.read(out_shape=(3, 600, 680)))
    for row, col in ((0, 0), (0, 1), (1, 0), (1, 1)):
        with rasterio.open(shards_of(many) / f"r{row:05d}_c{col:05d}.tif") as shard:
            assert shard.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert shard.overviews(1) == [2]
            values = shard.read()
            with rasterio.open(one) as single:
                window = single.window(*shard.bounds)
                assert np.array_equal(values, single.read(window=window))
            assert float(shard.tags(1)["STATISTICS_MEAN"]) == pytest.approx(values[0].mean())
            assert float(shard.tags(1)["STATISTICS_MAXIMUM"]) == values[0].max()
    with rasterio.open(one, overview_level=1) as single, rasterio.open(many, overview_level=0) as whole:
        assert np.array_equal(single.read(), whole.read())


def stop_at(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> list[Path]:
    """Ctrl-C instead of the call of that number; gives what the calls before wrote."""
    written: list[Path] = []
    real = getattr(shards, name)

    def stopping(*args: Any, **more: Any) -> Any:
        if len(written) + 1 == call:
            raise KeyboardInterrupt
        written.append(Path(args[1] if name == "publish_cog" else args[0]))
        return real(*args, **more)

    monkeypatch.setattr(shards, name, stopping)
    return written


def bytes_of(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in [out, *shards_of(out).iterdir()]}


def test_resumed_in_the_midst_of_shards(make_raster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_raster("scene.tif", pixels())
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    expected = bytes_of(upscale(scene, out=tmp_path / "a" / "x.vrt", shard_size=256, **OPTIONS).out)
    out = tmp_path / "b" / "x.vrt"
    with monkeypatch.context() as patch:
        stop_at(patch, "publish_cog", 4)
        with pytest.raises(Interrupted):
            upscale(scene, out=out, shard_size=256, **OPTIONS)
    assert [p.name for p in out.parent.iterdir()] == ["x.vrt.parts"]
    with monkeypatch.context() as patch:
        later = stop_at(patch, "publish_cog", 0)
        result = upscale(scene, out=out, shard_size=256, resume=True, **OPTIONS)
    assert result.counts["windows"] == 0
    assert len(later) == 2 * 3 - 3
    assert bytes_of(out) == expected
    assert sorted(p.name for p in out.parent.iterdir()) == ["x.shards", "x.vrt"]


def test_the_vrt_appears_last(make_raster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_raster("scene.tif", pixels())
    out = upscale(scene, out=tmp_path / "x.vrt", shard_size=256, **OPTIONS).out
    expected = bytes_of(out)
    with monkeypatch.context() as patch:
        stop_at(patch, "write_vrt", 8)  # six shards, the whole, the output
        with pytest.raises(Interrupted):
            upscale(scene, out=out, shard_size=256, overwrite=True, **OPTIONS)
    assert not out.exists()
    upscale(scene, out=out, shard_size=256, resume=True, **OPTIONS)
    assert bytes_of(out) == expected
    again = upscale(scene, out=out, shard_size=256, resume=True, **OPTIONS)
    assert "finished already" in again.notes[0]
    next(shards_of(out).glob("r*.tif")).unlink()
    assert published_size(out) is None
    upscale(scene, out=out, shard_size=256, resume=True, **OPTIONS)
    assert bytes_of(out) == expected


def test_overwriting_leaves_nothing_old_and_takes_nothing_foreign(make_raster: Any, tmp_path: Path) -> None:
    scene = make_raster("scene.tif", pixels())
    out = upscale(scene, out=tmp_path / "x.vrt", shard_size=64, **OPTIONS).out
    with pytest.raises(OutputError, match="exists already"):
        upscale(scene, out=out, shard_size=256, **OPTIONS)
    upscale(scene, out=out, shard_size=256, overwrite=True, **OPTIONS)
    assert len(list(shards_of(out).glob("r*.tif"))) == 6
    inside = shards_of(out) / "r00000_c00000.tif"
    with pytest.raises(OutputError, match="is one of the inputs"):
        upscale(inside, out=out, shard_size=256, overwrite=True, **OPTIONS | {"scale": 2})
    out.unlink()
    with pytest.raises(OutputError, match=r"x\.shards: exists already"):
        upscale(scene, out=out, shard_size=256, **OPTIONS)
    (shards_of(out) / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"diary\.txt is there; move it away"):
        upscale(scene, out=out, shard_size=256, overwrite=True, **OPTIONS)
    assert (shards_of(out) / "diary.txt").read_text() == "mine"
    assert inside.exists()
    (shards_of(out) / "diary.txt").unlink()
    elsewhere = shards_of(out).rename(tmp_path / "elsewhere")
    shards_of(out).symlink_to(elsewhere)
    with pytest.raises(OutputError, match=r"x\.shards: is a link, which is not followed"):
        upscale(scene, out=out, shard_size=256, overwrite=True, **OPTIONS)
    assert len(list(elsewhere.iterdir())) == 6 + 1


def test_nothing_but_missing_pixels(make_raster: Any, tmp_path: Path) -> None:
    array = pixels()
    array[:, :, :60] = 0
    scene = make_raster("scene.tif", array, nodata=0)
    out = upscale(scene, out=tmp_path / "x.vrt", shard_size=448, aoi="485904,5209000,486904,5209248", **OPTIONS).out
    assert list(shards_of(out).iterdir()) == []
    with rasterio.open(out) as whole:
        assert whole.nodata == 0
        assert not whole.read().any()
        assert MaskFlags.nodata in whole.mask_flag_enums[0]


@pytest.mark.parametrize(
    ("more", "reported"),
    [
        (["--shard-size", "0", "-o", "x.vrt"], "shard size 0: give a multiple of 64, the block size"),
        (["--shard-size", "-64", "-o", "x.vrt"], "shard size -64: give a multiple of 64"),
        (["--shard-size", "100", "-o", "x.vrt"], "shard size 100: give a multiple of 64"),
        (["--shard-size", "128", "-o", "x.tif"], "x.tif: with --shard-size the output is a VRT; call it x.vrt"),
        (["-o", "x.vrt"], "x.vrt: a GeoTIFF is written; call it x.tif, or give --shard-size"),
        (["--workers", "0"], "workers 0: give 1 or more"),
        (["--workers", "2", "--scheduler", "tcp://x:1"], "give one of --workers, --scheduler and --scheduler-file"),
        (["--resource", "GPU=1"], "--resource needs workers"),
        (["--workers", "2", "--resource", "GPU=x"], "resource 'GPU=x': give NAME=NUMBER"),
        (["--threads", "0"], "threads 0: give 1 or more"),
    ],
)
def test_senseless_values_are_one_line(
    make_raster: Any, tmp_path: Path, monkeypatch: Any, capsys: Any, more: list[str], reported: str
) -> None:
    monkeypatch.chdir(tmp_path)
    scene = make_raster("scene.tif", pixels(12, 12))
    command = ["upscale", str(scene), "--model", "bicubic", "--scale", "8", "--block-size", "64", *more]
    assert cli(command) == 2
    actual = capsys.readouterr().err
    assert actual.count("\n") == 1
    assert reported in actual
    assert [p.name for p in tmp_path.iterdir()] == ["scene.tif"]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_shards_share_out_the_blocks(height: int, width: int, ratio: int) -> None:
    shape = height * 7, width * 7
    blocks = plan_blocks(16, shape)
    size = 16 * ratio
    layout = BlockLayout(size, -(-shape[0] // size), -(-shape[1] // size))
    actual = [list(blocks.within(layout.window(i, shape))) for i in range(layout.count)]
    assert sorted(i for part in actual for i in part) == list(range(blocks.count))
    for index, part in enumerate(actual):
        assert part == sorted(part)
        assert all(layout.window(index, shape).contains(blocks.window(i, shape)) for i in part)
