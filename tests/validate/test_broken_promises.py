"""An output with one thing broken is found out, by a line that names the promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from broken import damaged, grainy, summary

from geo_refdiff import upscale
from geo_refdiff.cli.main import run
from geo_refdiff.engine.consistency import Residual
from geo_refdiff.raster.info import inspect
from geo_refdiff.validate.promises import Declared, DeclaredResidual, consistency, read_declared
from geo_refdiff.validate.validation import validate_product

Pair = tuple[Path, Path]


@pytest.fixture
def reflectance(make_pair: Any, make_raster: Any) -> Pair:
    """Scene and reference in floating numbers of 0..1."""
    result = []
    for path, pixel in zip(make_pair(40, 44), (40.0, 5.0), strict=True):
        with rasterio.open(path) as dataset:
            values, names = (dataset.read() / 255).astype("float32"), dataset.descriptions
        result.append(make_raster(f"float_{path.name}", values, pixel=pixel, names=names))
    return result[0], result[1]


@pytest.fixture
def numbers(make_pair: Any, make_raster: Any) -> Pair:
    """Scene and reference in uint16 with scale, offset and units."""
    result = []
    for path, pixel in zip(make_pair(40, 44), (40.0, 5.0), strict=True):
        with rasterio.open(path) as dataset:
            values, names = (dataset.read().astype("uint16") * 30 + 500), dataset.descriptions
        made = make_raster(f"uint16_{path.name}", values, pixel=pixel, names=names)
        with rasterio.open(made, "r+") as dataset:
            dataset.scales, dataset.offsets, dataset.units = [1e-4] * 3, [-0.1] * 3, ["reflectance"] * 3
        result.append(made)
    return result[0], result[1]


def sharpened(pair: Pair, out: Path, **options: Any) -> Path:
    return upscale(pair[0], ref=pair[1], model="matched-ref", scale=8, out=out, coregister="off", **options).out


def lines(out: Path, scene: Path) -> str:
    return " | ".join(validate_product(out, scene).broken)


@pytest.mark.parametrize("mode", ["strict", "standard"])
def test_floating_data_are_held_to_their_own_range(reflectance: Pair, tmp_path: Path, mode: str) -> None:
    out = sharpened(reflectance, tmp_path / "o.tif", consistency=mode)
    good = validate_product(out, reflectance[0])
    assert not good.broken
    assert good.residual.largest <= (1e-4 if mode == "strict" else 1e-2) * good.value_range
    with rasterio.open(out) as dataset:
        assert not [key for key in dataset.tags() if "BEYOND" in key]
    text = str(good)
    assert "DN" not in text
    assert f"{good.residual.rms:.4g} scene units" in text
    assert good.to_dict()["scene_residual"].keys() == {"count", "largest", "rms", "unit"}
    for name, change in (("brighter", lambda x: x * 1.04), ("shifted", lambda x: x + np.float32(0.015))):
        result = lines(damaged(out, tmp_path / f"{name}.tif", change), reflectance[0])
        assert "consistency" in result
        assert ("strict mode promises" in result) == (mode == "strict")
        assert "the tags say" in result


def test_pixels_lost_from_a_polygon_are_counted(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(40, 44)
    with rasterio.open(scene) as dataset:
        left, bottom, right, top = dataset.bounds
    triangle = shapely.Polygon([(left + 130, top - 130), (right - 130, top - 300), (left + 400, bottom + 90)])
    out = sharpened((scene, ref), tmp_path / "o.tif", aoi=f"EPSG:26914;{triangle.wkt}")
    assert not validate_product(out, scene).broken

    def half(pixels: np.ndarray) -> None:
        pixels[:, pixels.shape[1] // 2 :] = 0

    with rasterio.open(out) as dataset:
        mask = dataset.read_masks(1)
    path = damaged(out, tmp_path / "half.tif", half)
    mask[mask.shape[0] // 2 :] = 0
    with rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert "valid pixels lost" in lines(path, scene)


def test_the_extent_is_the_declared_one(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(40, 44)
    out = sharpened((scene, ref), tmp_path / "o.tif")
    path = damaged(out, tmp_path / "cut.tif", lambda pixels: pixels[:, :-8, :-8])
    assert "extent: 344 x 312 pixels from row 0, column 0, the tags say 352 x 320" in lines(path, scene)
    assert run(["validate", str(path), "--scene", str(scene)]) == 1
    with rasterio.open(scene) as dataset:
        x, y = dataset.transform @ (4, 6)
    box = f"{x},{y - 1200},{x + 1000},{y}"
    part = sharpened((scene, ref), tmp_path / "part.tif", aoi=box)
    assert not validate_product(part, scene).broken
    assert summary(part, "GEO_REFDIFF_SCENE_PIXELS") > validate_product(part, scene).residual.count
    path = damaged(part, tmp_path / "part_cut.tif", lambda pixels: pixels[:, :-8])
    assert "extent: 200 x 232 pixels from row 48, column 32, the tags say 200 x 240" in lines(path, scene)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"scales": [1.0] * 3, "offsets": [0.0] * 3}, "scale: 1 in band 1, the scene's band red has 0.0001"),
        ({"offsets": [0.0] * 3}, "offset: 0 in band 1, the scene's band red has -0.1"),
        ({"units": ["W"] * 3}, "unit: 'W' in band 1, the scene's band red has 'reflectance'"),
        ({"dtype": "int32"}, "data type: int32, the scene has uint16"),
        ({"names": ("green", "red", "blue")}, "name: 'green' in band 1, the scene's band red has 'red'"),
        ({"nodata": 0}, "nodata: declared as 0, the scene asks for none"),
    ],
)
def test_numbers_are_reported_as_the_scene_tells_them(
    numbers: Pair, tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    out = sharpened(numbers, tmp_path / "o.tif")
    assert not validate_product(damaged(out, tmp_path / "copy.tif"), numbers[0]).broken
    assert expected in lines(damaged(out, tmp_path / "bad.tif", **change), numbers[0])


def test_bands_may_come_in_another_order_than_the_scene_s(numbers: Pair, tmp_path: Path) -> None:
    out = sharpened(numbers, tmp_path / "o.tif", bands=["blue", "red"])
    assert not validate_product(out, numbers[0], reference=numbers[1]).broken
    assert "band" in lines(damaged(out, tmp_path / "bad.tif", names=("red", "blue")), numbers[0])


def test_a_nodata_flag_that_was_lost_is_missed(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(40, 44)
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
        dataset.write(np.zeros((3, 4, 6), np.uint8), window=rasterio.windows.Window(12, 35, 6, 4))
    out = sharpened((scene, ref), tmp_path / "o.tif")
    assert not validate_product(out, scene).broken
    result = lines(damaged(out, tmp_path / "bad.tif", nodata=None), scene)
    assert "nodata: declared as none, the scene asks for 0" in result
    assert "invented" in result


@pytest.mark.parametrize("name", ["noise", "patch"])
def test_rms_and_counts_are_those_of_the_tags(make_pair: Any, tmp_path: Path, name: str) -> None:
    scene, ref = make_pair(40, 44)
    with rasterio.open(scene, "r+") as dataset:  # no image within 0..255 shows this: much is left, in few places
        dataset.write(np.full((3, 2, 2), 255, np.uint8), window=rasterio.windows.Window(20, 20, 2, 2))
        dataset.write(np.zeros((3, 2, 2), np.uint8), window=rasterio.windows.Window(22, 20, 2, 2))
    out = sharpened((scene, ref), tmp_path / "o.tif")
    good = validate_product(out, scene)
    assert not good.broken
    assert good.residual.largest > 9

    def patch(pixels: np.ndarray) -> None:
        pixels[:, 16:80, 16:80] = np.minimum(pixels[:, 16:80, 16:80], 247) + 8

    bad = validate_product(damaged(out, tmp_path / "bad.tif", grainy(8) if name == "noise" else patch), scene)
    assert bad.residual.largest < 1.3 * good.residual.largest
    result = " | ".join(bad.broken)
    assert "a root mean square of" in result
    assert "scene pixels are off by more than half a DN, the tags say" in result


def test_changes_that_no_promise_of_the_sensor_covers_show_in_the_statistics(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(40, 44)
    out = upscale(scene, model="bicubic", scale=8, out=tmp_path / "o.tif").out
    assert not validate_product(out, scene).broken

    def patch(pixels: np.ndarray) -> None:
        pixels[:, 16:80, 16:80] += 8

    assert lines(damaged(out, tmp_path / "bad.tif", patch), scene).startswith("statistics: band 1 has mean")


def test_blocks_are_seams(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(40, 44)
    out = upscale(scene, model="bicubic-ibp", scale=8, out=tmp_path / "o.tif").out
    good = validate_product(out, scene)
    assert not good.broken
    assert "not judged: hardly any detail" in str(good)
    with rasterio.open(scene) as dataset:
        blocks = dataset.read().repeat(8, 1).repeat(8, 2)
    bad = validate_product(damaged(out, tmp_path / "bad.tif", lambda pixels: blocks), scene)
    assert bad.seams.ratio == np.inf
    assert any(line.startswith("seams: ") and "show as blocks" in line for line in bad.broken)
    assert bad.to_dict()["seams"]["ratio"] == "infinite"


def declared(out: Path, change: Callable[[DeclaredResidual], DeclaredResidual]) -> Declared:
    from dataclasses import replace

    result = read_declared(inspect(out, "scene"))
    assert result.residual is not None
    return replace(result, residual=change(result.residual))


def test_a_cut_out_may_leave_less_than_its_tags_say(make_pair: Any, tmp_path: Path) -> None:
    out = sharpened(make_pair(30, 30), tmp_path / "o.tif")
    summary = declared(out, lambda left: DeclaredResidual(2.0, 0.5, 1000, 40, 10))
    assert not consistency(Residual(900, 2.0, 40, 249.0, 10), summary, "uint8", 255, 255)
    assert not consistency(Residual(10, 1.0, 0, 1.0, 0), summary, "uint8", 255, 255)
    assert len(consistency(Residual(900, 2.1, 60, 260.0, 10), summary, "uint8", 255, 255)) == 3
