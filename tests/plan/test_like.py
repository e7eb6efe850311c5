"""Outputs whose pixels lie on those of another raster, and factors of 2 and 3, as between Landsat and Sentinel-2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from geo_refdiff import upscale
from geo_refdiff.cli.main import run
from geo_refdiff.commands.coregister import coregister
from geo_refdiff.commands.detect_change import detect_change
from geo_refdiff.errors import GeoRefDiffError, GridError, ModelError, OptionError
from geo_refdiff.options import UpscaleOptions
from geo_refdiff.plan.outline import make_outline
from geo_refdiff.raster.info import inspect

WEST, NORTH = 600_000.0, 5_400_000.0
SCENE = Affine(30, 0, WEST + 30 * 7, 0, -30, NORTH - 30 * 4)
NAMES = ("red", "green", "blue")


@pytest.fixture
def scene(make_raster: Any) -> Path:
    values = np.random.default_rng(0).integers(1, 200, (3, 20, 24), np.uint8)
    return make_raster("scene.tif", values, transform=SCENE, names=NAMES)


@pytest.fixture
def like(make_raster: Any) -> Any:
    """A raster of pixels of 10 m, or as they are given."""

    def make(transform: Affine | None = None, crs: str = "EPSG:26914") -> Path:
        transform = transform or Affine(10, 0, WEST, 0, -10, NORTH)
        return make_raster("like.tif", np.full((1, 90, 120), 7, np.uint8), transform=transform, crs=crs)

    return make


def scale_of(scene: Path, like: Path, **options: Any) -> int:
    asked = UpscaleOptions.of(**{"model": "bicubic", "like": like, **options})
    return make_outline(asked, inspect(scene, "scene"), None).scale


def test_the_output_lies_on_the_pixels_of_another_raster(scene: Path, like: Any, tmp_path: Path) -> None:
    other = like()
    result = upscale(scene, model="bicubic", like=other, products=None, out=tmp_path / "o.tif")
    assert result.scale == 3
    with rasterio.open(result.out) as out, rasterio.open(other) as beside:
        assert (out.transform.a, out.transform.e) == (10, -10)
        col, row = ~beside.transform @ (out.transform.c, out.transform.f)
        assert (col, row) == (21, 12)


@pytest.mark.parametrize("off", [0.0, 0.05, -0.05])
def test_a_hundredth_of_a_pixel_is_exact(scene: Path, like: Any, off: float) -> None:
    assert scale_of(scene, like(Affine(10, 0, WEST + off, 0, -10, NORTH - off))) == 3
    assert scale_of(scene, like(Affine(10 + off / 1000, 0, WEST + 210, 0, -10, NORTH - 120))) == 3


@pytest.mark.parametrize(
    ("transform", "crs", "words"),
    [
        (Affine(10, 0, WEST + 15, 0, -10, NORTH + 15), None, "with --scale 6, 2 x 2 output pixels make one of its"),
        (Affine(10, 0, WEST + 2.5, 0, -10, NORTH), None, "0.75 columns and 0 rows into a pixel of it"),
        (Affine(10, 0, WEST + 0.2, 0, -10, NORTH), None, "leave --like out and resample the output"),
        (Affine(9, 0, WEST, 0, -9, NORTH), None, "3.33333 of its pixels go into one of the scene"),
        (Affine(10.01, 0, WEST + 210, 0, -10.01, NORTH - 120), None, "2.997 of its pixels go into one of the scene"),
        (Affine(10, 0, WEST, 0, 10, NORTH), None, "turned or mirrored"),
        (Affine(10, 0.01, WEST + 210, 0, -10, NORTH - 120), None, "turned or mirrored"),
        (Affine(60, 0, WEST, 0, -60, NORTH), None, "0.5 of its pixels go into one of the scene"),
        (None, "EPSG:32614", "is in WGS 84 / UTM zone 14N, the scene in NAD83 / UTM zone 14N"),
    ],
)
def test_what_is_no_refinement_is_refused_with_the_way_out(
    transform: Affine | None, crs: str | None, words: str, scene: Path, like: Any
) -> None:
    with pytest.raises(GridError) as caught:
        scale_of(scene, like(transform, crs or "EPSG:26914"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_landsat_beside_sentinel_2_goes_by_half_pixels(make_raster: Any, like: Any) -> None:
    """Corners of Landsat's 30 m pixels lie at odd multiples of 15 m: what the message says to do is right."""
    values = np.full((3, 6, 6), 9, np.uint8)
    scene = make_raster("l.tif", values, transform=Affine(30, 0, WEST - 15, 0, -30, NORTH + 15), names=NAMES)
    with pytest.raises(GridError, match="--scale 6, 2 x 2 output pixels make one of its: average them"):
        scale_of(scene, like())
    assert scale_of(scene, like(Affine(5, 0, WEST, 0, -5, NORTH))) == 6


def test_a_factor_beside_it_must_be_the_same(scene: Path, like: Any) -> None:
    assert scale_of(scene, like(), scale=3) == 3
    with pytest.raises(OptionError, match=r"scale 4: pixels like those of .*like\.tif want 3; leave one out"):
        scale_of(scene, like(), scale=4)
    with pytest.raises(GeoRefDiffError, match=r"gone\.tif: no such file"):
        scale_of(scene, Path("gone.tif"))


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("model", ["bicubic", "bicubic-ibp", "matched-ref"])
def test_small_factors_go_with_the_classical_models(make_pair: Any, tmp_path: Path, scale: int, model: str) -> None:
    scene, ref = make_pair(40, 48, scale=scale)
    result = upscale(scene, ref=ref, like=ref, model=model, products=None, out=tmp_path / "o.tif")
    with rasterio.open(result.out) as out, rasterio.open(ref) as fine, rasterio.open(scene) as coarse:
        assert (out.transform, out.shape) == (fine.transform, fine.shape)
        seen = out.read().reshape(3, 40, scale, 48, scale).mean((2, 4))
        assert np.abs(seen - coarse.read()).mean() < 4
    found = coregister(scene, ref)
    assert found.scale == scale
    change = detect_change(scene, ref, out=tmp_path / "c.tif")
    assert change.scale == scale


def test_a_model_that_does_not_know_the_factor_says_so_with_the_way_out(
    make_pair: Any, tiny_compact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, ref = make_pair(16, 16, scale=3)
    asked = UpscaleOptions.of(model=str(tiny_compact), scale=3)
    with pytest.raises(ModelError, match="scale 3: model 'tiny-compact' knows 4, 8; for 3 give --model matched-ref"):
        make_outline(asked, inspect(scene, "scene"), inspect(ref, "reference"))
    made = make_outline(UpscaleOptions.of(model=str(tiny_compact)), inspect(scene, "scene"), inspect(ref, "reference"))
    assert made.scale == 4
    assert made.notes[0] == (
        "scale 4x (the reference's pixels are 3 times finer, but model 'tiny-compact' knows 4, 8); for 3 give "
        "--model matched-ref --scale 3 (bicubic-ibp without a reference)"
    )
    command = ["upscale", str(scene), "--ref", str(ref), "--like", str(ref), "--model", str(tiny_compact)]
    assert run([*command, "-o", str(tmp_path / "o.tif")]) == 1
    assert "scale 3: model 'tiny-compact' knows 4, 8" in capsys.readouterr().err
