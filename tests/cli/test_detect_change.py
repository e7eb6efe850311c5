"""`detect-change` and the masks of `upscale`, as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine

from geo_refdiff.change.class_map import category_names
from geo_refdiff.classes import CLASSES
from geo_refdiff.cli.main import run
from geo_refdiff.commands.detect_change import detect_change
from geo_refdiff.commands.upscale import upscale
from geo_refdiff.sensor.sensor import SensorModel
from sample_tiles.painter.landscape import render_pair

SCALE, SIDE = 8, 192
Make = Callable[..., Path]


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """(LR of the new date, HR of the old one), 4 bands."""
    place = render_pair(30_000, (SIDE, SIDE))
    lr = SensorModel(SCALE).observe(torch.from_numpy(place.new).float()[None])[0].numpy()
    return np.rint(lr).clip(1, 255).astype(np.uint8), place.old


@pytest.fixture
def pair(make_raster: Make, images: tuple[np.ndarray, np.ndarray]) -> tuple[Path, Path]:
    names = ("red", "green", "blue", "nir")
    lr, old = images
    return make_raster("scene.tif", lr, names=names), make_raster("ref.tif", old, pixel=5, names=names)


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_the_command_writes_classes_confidence_names_and_style(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "change.tif"
    assert run(["detect-change", str(pair[0]), str(pair[1]), "-o", str(out), "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)
    with rasterio.open(pair[0]) as scene, rasterio.open(out) as mask, rasterio.open(reported["confidence"]) as sure:
        assert mask.transform == sure.transform == scene.transform
        assert mask.shape == sure.shape == scene.shape
        assert mask.nodata == sure.nodata == 255
        classes, steps = mask.read(1), sure.read(1)
        assert sure.scales == (0.004,)
    assert set(np.unique(classes).tolist()) <= {0, 1, 2, 3, 4, 5, 255}
    assert (steps[classes != 255] <= 250).all()
    assert ((steps == 255) == (classes == 255)).all()
    assert category_names(str(out)) == CLASSES
    assert out.with_suffix(".qml").exists()
    known = (classes != 255).sum()
    assert reported["shares"]["no change"] == pytest.approx((classes == 0).sum() / known, abs=1e-5)
    assert run(["detect-change", str(pair[0]), str(pair[1]), "-o", str(out)]) == 1
    assert "exists already" in capsys.readouterr().err
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["change.confidence.tif", "change.qml", "change.tif", "change.tif.aux.xml", "ref.tif", "scene.tif"]


@pytest.mark.parametrize("name", ["change.qml", "change.tif.aux.xml"])
def test_no_file_beside_the_mask_is_replaced_unasked(
    name: str, pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "change.tif"
    (tmp_path / name).write_text("mine")
    asked = ["detect-change", str(pair[0]), str(pair[1]), "-o", str(out)]
    assert run(asked) == 1
    assert f"{name}: exists already; choose another name or say --overwrite" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
    assert not out.exists()
    assert run([*asked, "--overwrite"]) == 0
    assert (tmp_path / name).read_text() != "mine"


def test_blocks_change_no_pixel_and_hr_is_lr_enlarged(pair: tuple[Path, Path], tmp_path: Path) -> None:
    whole = detect_change(*pair, tmp_path / "a.tif")
    pieces = detect_change(*pair, tmp_path / "b.tif", block_size=16)
    fine = detect_change(*pair, tmp_path / "c.tif", grid="output")
    assert (pixels(whole.out) == pixels(pieces.out)).all()
    assert (pixels(whole.confidence) == pixels(pieces.confidence)).all()
    assert (pixels(fine.out)[0] == pixels(whole.out)[0].repeat(SCALE, 0).repeat(SCALE, 1)).all()
    assert fine.shape == (SIDE, SIDE)
    with rasterio.open(fine.out) as enlarged, rasterio.open(pair[1]) as ref:
        assert enlarged.transform == ref.transform


def test_auto_is_the_detected_mask_and_the_same_in_a_cut_out(
    pair: tuple[Path, Path], tiny_compact: Path, tmp_path: Path
) -> None:
    scene, ref = pair
    options = {"ref": ref, "model": tiny_compact, "device": "cpu", "bands": ["red", "green", "blue"]}
    auto = upscale(scene, out=tmp_path / "auto.tif", min_confidence=0.5, **options)  # type: ignore[arg-type]
    mask = detect_change(
        scene, ref, tmp_path / "m.tif", grid="output", bands=["red", "green", "blue"], min_confidence=0.5
    )
    classes = {"0": "unknown", "1": "water", "2": "unknown", "3": "unknown", "4": "unknown", "5": "building"}
    (tmp_path / "map.json").write_text(json.dumps(classes))
    given = upscale(
        scene,
        mask=mask.out,
        class_map=tmp_path / "map.json",
        out=tmp_path / "given.tif",
        **options,  # type: ignore[arg-type]
    )
    none = upscale(scene, mask="none", out=tmp_path / "none.tif", **options)  # type: ignore[arg-type]
    assert (pixels(auto.out) == pixels(given.out)).all()
    assert (pixels(auto.out) != pixels(none.out)).any()
    with rasterio.open(scene) as dataset:
        west, _, _, north = dataset.bounds
    box = f"{west + 240},{north - 720},{west + 720},{north - 160}"
    part = upscale(scene, mask="auto", aoi=box, out=tmp_path / "part.tif", min_confidence=0.5, **options)  # type: ignore[arg-type]
    assert (pixels(part.out) == pixels(auto.out)[:, 32:144, 48:144]).all()


def test_polygons_and_the_raster_that_they_make_give_the_same_picture(
    pair: tuple[Path, Path], tiny_compact: Path, make_raster: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, ref = pair
    with rasterio.open(ref) as dataset:
        west, _, _, north = dataset.bounds
    box = shapely.box(west + 200, north - 500, west + 600, north - 100)
    frame = geopandas.GeoDataFrame({"now": ["water"]}, geometry=[box], crs="EPSG:26914")
    frame.to_file(tmp_path / "p.gpkg", layer="changes")
    far = 256  # windows reach beyond the scene, where polygons know that nothing changed and a raster's end does not
    values = np.zeros((1, SIDE + 2 * far, SIDE + 2 * far), np.uint8)
    values[0, far + 20 : far + 100, far + 40 : far + 120] = 1
    raster = make_raster("m.tif", values, transform=Affine(5, 0, west - 5 * far, 0, -5, north + 5 * far))
    base = ["upscale", str(scene), "--ref", str(ref), "--model", str(tiny_compact), "--bands", "red,green,blue"]
    vector = ["--mask", f"{tmp_path / 'p.gpkg'}|layername=changes", "--mask-field", "now"]
    assert run([*base, *vector, "-o", str(tmp_path / "v.tif")]) == 0
    assert run([*base, "--mask", str(raster), "-o", str(tmp_path / "r.tif")]) == 0
    assert (pixels(tmp_path / "v.tif") == pixels(tmp_path / "r.tif")).all()
    capsys.readouterr()
    frame["now"] = "tree"
    frame.to_file(tmp_path / "p.gpkg", layer="changes")
    assert run([*base, *vector, "-o", str(tmp_path / "w.tif")]) == 1
    reported = capsys.readouterr().err
    assert "holds 'tree', which is no class of the model; its classes are 0 no change, 1 water, 2 building" in reported
    assert len(reported.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--mask", "auto"], 2, "--mask auto compares the scene with a reference: give --ref"),
        (["--mask", "none", "--no-change", "3"], 2, "--no-change goes with a mask from a file"),
        (["--min-confidence", "0.5"], 2, "--min-confidence needs a confidence"),
    ],
)
def test_options_of_the_mask_are_reported_in_one_line(
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    words: str,
) -> None:
    assert run(["upscale", str(pair[0]), *options, "-o", str(tmp_path / "o.tif")]) == code
    reported = capsys.readouterr().err.strip()
    assert words in reported
    assert "\n" not in reported
