"""Every product opens in QGIS with CRS, extent, names, stretch, legend and transparent gaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.windows import Window as RioWindow

from geo_refdiff import upscale
from geo_refdiff.commands.detect_change import detect_change
from geo_refdiff.restore.sources import CLASSES, COLOURS

Look = Callable[[Sequence[Any]], list[dict[str, Any]]]
TILE = 480
HOLE = (slice(4, 8), slice(10, 16))


@pytest.fixture
def scene_and_ref(make_pair: Any) -> tuple[Path, Path]:
    """40 x 48 pixels with a hole of 4 x 6."""
    scene, reference = make_pair(40, 48)
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
        dataset.write(np.zeros((3, 4, 6), np.uint8), window=RioWindow(10, 4, 6, 4))
    return scene, reference


def grid_of(path: Path) -> dict[str, Any]:
    with rasterio.open(path) as dataset:
        return {"crs": dataset.crs.to_string(), "extent": list(dataset.bounds), "size": [dataset.width, dataset.height]}


def test_products(scene_and_ref: tuple[Path, Path], tiny_compact: Path, look: Look, tmp_path: Path) -> None:
    scene, reference = scene_and_ref
    out = tmp_path / "out.tif"
    upscale(scene, ref=reference, model=tiny_compact, scale=8, out=out, products="all", uncertainty=2, coregister="off")
    paths = [out, tmp_path / "out.source.tif", tmp_path / "out.uncertainty.tif"]
    image, sources, uncertainty = look(paths)
    hole, margins = TILE * TILE * 4 * 6 / 48**2, TILE * TILE * (1 - 40 / 48)
    for path, output in zip(paths, (image, sources, uncertainty), strict=True):
        assert output["valid"]
        assert {k: output[k] for k in ("crs", "extent", "size")} == grid_of(path)
        assert output["transparent"] == pytest.approx(hole + margins, rel=0.05)
    assert image["bands"] == ["Band 1: red", "Band 2: green", "Band 3: blue"]
    assert image["nodata"] == [0, 0, 0]
    assert image["renderer"] == "multibandcolor"
    assert image["rgb"] == [1, 2, 3]
    assert image["fixed"]
    assert image["stretch"][0] == image["stretch"][1]
    low, high = image["stretch"][0]
    with rasterio.open(out) as dataset:
        values = dataset.read()[:, dataset.dataset_mask() > 0]
        assert "STATISTICS_MEAN" in dataset.tags(1)
    assert [low, high] == pytest.approx(np.percentile(values, [2, 98]), abs=4)
    assert image["colours"] > 500
    assert sources["renderer"] == "paletted"
    wanted = [[v, CLASSES[v], "#{:02x}{:02x}{:02x}".format(*COLOURS[v])] for v in (1, 2, 3, 4)]
    assert sources["classes"] == wanted
    assert uncertainty["renderer"] == "singlebandpseudocolor"
    assert uncertainty["stretch"][0][0] == 0
    assert uncertainty["stretch"][0][1] > 0
    assert uncertainty["colours"] > 50


def test_vrt_and_change_mask(scene_and_ref: tuple[Path, Path], look: Look, tmp_path: Path) -> None:
    scene, reference = scene_and_ref
    out = tmp_path / "out.tif"
    upscale(scene, model="bicubic", scale=16, out=out, block_size=256, keep=True, products="style")
    detect_change(scene, reference, out=tmp_path / "change.tif")
    vrt = tmp_path / "out.tif.parts" / "mosaic.vrt"
    image, mosaic, change, sure = look([out, vrt, tmp_path / "change.tif", tmp_path / "change.confidence.tif"])
    assert image["overviews"] == 1
    assert mosaic["valid"]
    assert {k: mosaic[k] for k in ("crs", "extent", "size")} == grid_of(out)
    assert mosaic["bands"] == ["Band 1: red", "Band 2: green", "Band 3: blue"]
    assert change["renderer"] == "paletted"
    names = [name for _, name, _ in change["classes"]]
    assert names == ["no change", "water", "bare ground", "low vegetation", "tree", "built-up"]
    assert change["bands"] == ["Band 1: change class"]
    assert sure["bands"] == ["Band 1: confidence"]
    assert {k: change[k] for k in ("crs", "extent", "size")} == grid_of(scene)


def test_shards_open_by_their_vrt_wherever_they_lie(
    scene_and_ref: tuple[Path, Path], look: Look, tmp_path: Path
) -> None:
    scene, _ = scene_and_ref
    (tmp_path / "made").mkdir()
    options: dict[str, Any] = {"model": "bicubic", "scale": 16, "block_size": 256}
    upscale(scene, out=tmp_path / "whole.tif", **options)
    upscale(scene, out=tmp_path / "made" / "out.vrt", shard_size=512, **options)
    (tmp_path / "made").rename(tmp_path / "moved")
    vrt = tmp_path / "moved" / "out.vrt"
    whole, shards = look([tmp_path / "whole.tif", vrt])
    assert {k: shards[k] for k in ("crs", "extent", "size")} == grid_of(tmp_path / "whole.tif")
    assert len(list((tmp_path / "moved" / "out.shards").glob("r*.tif"))) == 4
    for output in ("valid", "bands", "nodata", "rgb", "stretch", "transparent", "overviews"):
        assert shards[output] == whole[output], output


def test_what_is_missing_is_seen_through_and_the_rest_is_not(
    scene_and_ref: tuple[Path, Path], look: Look, tmp_path: Path
) -> None:
    """In the picture that QGIS draws: pink, the ground, exactly where the scene has its hole."""
    scene, _ = scene_and_ref
    upscale(scene, model="bicubic", scale=4, out=tmp_path / "out.tif", products="style")
    look([tmp_path / "out.tif"])
    picture = np.asarray(Image.open(tmp_path / "look.png").convert("RGB"))
    pink = (picture == (255, 0, 255)).all(axis=-1)
    side = TILE / 48
    top = (TILE - 40 * side) / 2
    rows, cols = HOLE
    at = (
        slice(round(top + rows.start * side), round(top + rows.stop * side)),
        slice(round(cols.start * side), round(cols.stop * side)),
    )
    assert pink[at].mean() > 0.97
    inside = pink[round(top) + 2 : round(TILE - top) - 2].copy()
    inside[at[0].start - round(top) - 4 : at[0].stop - round(top), at[1].start - 2 : at[1].stop + 2] = False
    assert inside.sum() <= 3  # a pixel may happen to be of the ground's own pink


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_bands_in_another_order_are_shown_in_their_colours(
    make_raster: Any, make_texture: Any, look: Look, tmp_path: Path, dtype: str
) -> None:
    """Sentinel-2's order of bands, reflectance times 10,000 and as it is."""
    values = (make_texture((4, 40, 48)) * 3000 + 200) / (1 if dtype == "uint16" else 1e4)
    scene = make_raster("s.tif", values.astype(dtype), names=("blue", "green", "red", "nir"))
    upscale(scene, model="bicubic", scale=4, out=tmp_path / "o.tif", products="style")
    (output,) = look([tmp_path / "o.tif"])
    assert output["rgb"] == [3, 2, 1]
    low, high = (v * (1 if dtype == "uint16" else 1e4) for v in output["stretch"][0])
    assert 150 < low < 900 < 2200 < high < 3300


def test_one_band_is_grey(make_raster: Any, make_texture: Any, look: Look, tmp_path: Path) -> None:
    scene = make_raster("s.tif", (make_texture((1, 40, 48)) * 900 + 50).astype("int16"), names=("vv",))
    upscale(scene, model="bicubic", scale=4, out=tmp_path / "o.tif", products="style")
    (output,) = look([tmp_path / "o.tif"])
    assert output["renderer"] == "singlebandgray"
    assert 40 < output["stretch"][0][0] < 300 < 600 < output["stretch"][0][1] < 1000
    assert output["colours"] > 50
