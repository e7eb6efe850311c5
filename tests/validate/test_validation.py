"""A good output passes; one with a shifted value, a hole or another grid does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from broken import damaged

from geo_refdiff import upscale
from geo_refdiff.cli.main import run
from geo_refdiff.errors import InputError
from geo_refdiff.validate.validation import validate_product


def test_validate(make_pair: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, ref = make_pair(40, 44)
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
        dataset.write(np.zeros((3, 4, 6), np.uint8), window=rasterio.windows.Window(12, 35, 6, 4))
    out = upscale(
        scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "o.tif", consistency="strict", products="source"
    ).out
    good = validate_product(out, scene, truth=ref)
    assert not good.broken
    assert (good.lost, good.invented, good.residual.beyond) == (0, 0, 0)
    assert good.residual.count == 3 * (40 * 44 - 24)
    assert good.residual.largest <= 0.5
    assert 0.8 < good.seams.ratio < 1.25
    assert good.sources["reference"] == 64 * (40 * 44 - 24)
    assert good.truth.figures["PSNR"] > 15

    def brighten(pixels: np.ndarray) -> None:
        pixels[0, 40:64, 40:64] = np.minimum(pixels[0, 40:64, 40:64], 200) + 9

    bright = validate_product(damaged(out, tmp_path / "bright.tif", brighten), scene)
    assert "consistency" in bright.broken[0]

    def hole(pixels: np.ndarray) -> None:
        pixels[:, 200:203, 100:105] = 0

    assert validate_product(damaged(out, tmp_path / "hole.tif", hole), scene).lost == 15
    with rasterio.open(out) as dataset:
        moved = dataset.transform @ rasterio.Affine.translation(3, 0)
    path = damaged(out, tmp_path / "moved.tif", lambda pixels: None, transform=moved)
    assert run(["validate", str(path), "--scene", str(scene), "--json"]) == 1
    assert "grid" in json.loads(capsys.readouterr().out)["broken"][0]
    with pytest.raises(InputError, match="no tags of geo-refdiff"):
        validate_product(scene, scene)


def test_the_reference_and_its_use(make_pair: Any, make_raster: Any, make_texture: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(64, 64)
    out = upscale(scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "o.tif", coregister="off").out
    used = validate_product(out, scene, reference=ref)
    assert used.reference["covered"] == 1.0
    assert used.reference["registration"]["verdict"] == "registered"
    assert np.abs(used.reference["registration"]["shift"]).max() < 0.1
    assert used.reference["detail_shared"] > 0.9
    assert f"scene pixels, {used.reference['registration']['after']:.3f} remain after correction" in str(used)
    other = np.round(255 * make_texture((3, 512, 512), 9)).astype("uint8")
    elsewhere = make_raster("elsewhere.tif", other, pixel=5.0)
    stranger = validate_product(out, scene, reference=elsewhere)
    assert stranger.reference["registration"]["shift"] is None
    assert abs(stranger.reference["detail_shared"]) < 0.2
    assert "detail shared" in str(stranger)
    assert json.dumps(stranger.to_dict(), allow_nan=False)


def test_strict_mode_is_held_to_half_a_number(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(30, 30)
    out = upscale(scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "o.tif", consistency="strict").out

    def change(pixels: np.ndarray) -> None:
        pixels[1, 80:88, 80:88] = pixels[1, 80:88, 80:88] // 2 + 64

    bad = damaged(out, tmp_path / "bad.tif", change, {"GEO_REFDIFF_SCENE_RESIDUAL_MAX": "99"})
    assert not validate_product(out, scene).broken
    assert "strict mode promises half a DN" in validate_product(bad, scene).broken[0]


def reordered(path: Path, out: Path, order: list[int], names: list[str], transform: Any = None) -> Path:
    """Bands in another order, under their names."""
    with rasterio.open(path) as source:
        values, profile, affine = source.read([b + 1 for b in order]), source.profile, source.transform
    options = profile | {"transform": transform or affine, "photometric": "minisblack", "alpha": "no"}
    with rasterio.open(out, "w", **options) as target:
        target.write(values)
        target.descriptions = [names[b] for b in order]
    return out


def test_bands_are_found_by_name_and_the_reference_is_moved_to_its_place(make_pair: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(64, 64)
    with rasterio.open(ref) as dataset:
        names, away = list(dataset.descriptions), dataset.transform @ rasterio.Affine.translation(9, -6)
    out = upscale(scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "o.tif", coregister="off").out
    straight = validate_product(out, scene, truth=ref, reference=ref)
    turned = reordered(ref, tmp_path / "turned.tif", [2, 0, 1], names)
    same = validate_product(out, scene, truth=turned, reference=turned)
    assert same.truth.figures == straight.truth.figures
    assert same.reference["detail_shared"] == straight.reference["detail_shared"]
    moved = reordered(ref, tmp_path / "moved.tif", [2, 0, 1], names, away)
    result = validate_product(out, scene, reference=moved).reference
    np.testing.assert_allclose(np.abs(result["registration"]["shift"]), [6 / 8, 9 / 8], atol=0.1)
    assert result["detail_shared"] > 0.9


@pytest.mark.parametrize("model", ["matched-ref", "bicubic-ibp"])
def test_the_reference_is_paired_as_the_run_paired_it(
    make_pair: Any, make_raster: Any, tmp_path: Path, model: str
) -> None:
    scene, ref = make_pair(64, 64)
    with rasterio.open(ref) as dataset:
        names = list(dataset.descriptions)
    straight = upscale(scene, ref=ref, model=model, scale=8, out=tmp_path / "o.tif", coregister="off").out
    wrong = reordered(ref, tmp_path / "wrong.tif", [2, 0, 1], [names[2], names[1], names[0]])  # names of others
    options: dict[str, Any] = {"model": model, "scale": 8, "coregister": "off", "ref_bands": (2, 3, 1)}
    out = upscale(scene, ref=wrong, out=tmp_path / "p.tif", **options).out
    result = validate_product(out, scene, reference=wrong).reference
    assert result["detail_shared"] == validate_product(straight, scene, reference=ref).reference["detail_shared"]
    short = make_raster("short.tif", np.ones((2, 512, 512), np.uint8), pixel=5.0, names=names[:2])
    with pytest.raises(InputError, match=r"short\.tif: has bands .* the output was made with 2, 3, 1 of its reference"):
        validate_product(out, scene, reference=short)


def test_psnr_is_of_all_valid_pixels_and_small_outputs_are_measured(
    make_pair: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, _ = make_pair(40, 66)
    out = upscale(scene, model="bicubic-ibp", scale=8, out=tmp_path / "o.tif").out
    noise = np.random.default_rng(0).normal(0, 6, (3, 320, 528))
    noise[:, :256, :256] = 0  # a whole tile is the same

    def spoil(pixels: np.ndarray) -> None:
        pixels[:] = np.clip(np.rint(pixels + noise), 1, 255)

    truth = damaged(out, tmp_path / "truth.tif", spoil)
    with rasterio.open(out) as a, rasterio.open(truth) as b:
        mse = float(((a.read().astype(float) - b.read()) ** 2).mean())
    result = validate_product(out, scene, truth=truth)
    assert result.truth.figures["PSNR"] == pytest.approx(10 * np.log10(255**2 / mse))
    assert 0.5 < result.truth.figures["SSIM"] < 0.99
    assert not result.truth.unmeasured
    same = validate_product(out, scene, truth=out)
    assert "PSNR" not in same.truth.figures
    assert "PSNR              not measured: all common pixels are the same" in str(same)

    small = upscale(
        scene, model="bicubic-ibp", scale=8, out=tmp_path / "s.tif", aoi="487904,5208128,488384,5208608"
    ).out
    with rasterio.open(small) as dataset:
        assert dataset.shape == (96, 96)
    assert set(validate_product(small, scene, truth=truth).truth.figures) == {"PSNR", "SSIM", "HaarPSI"}
    with rasterio.open(truth, "r+") as dataset:
        dataset.nodata = 0
        dataset.write(np.zeros((3, 2, 2), np.uint8), window=rasterio.windows.Window(440, 168, 2, 2))
    assert run(["validate", str(small), "--scene", str(scene), "--truth", str(truth), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert set(summary["truth"]) == {"PSNR"}
    assert summary["truth_unmeasured"]["SSIM"].endswith("without missing or cloudy pixels")


def test_a_truth_in_other_units_is_refused(make_pair: Any, make_raster: Any, tmp_path: Path) -> None:
    scene, ref = make_pair(40, 44)
    out = upscale(scene, ref=ref, model="matched-ref", scale=8, out=tmp_path / "o.tif", coregister="off").out
    with rasterio.open(ref) as dataset:
        values, names = dataset.read(), dataset.descriptions
    for name, other in (("wide", values.astype("uint16") * 40), ("small", (values / 255).astype("float32"))):
        truth = make_raster(f"{name}.tif", other, pixel=5.0, names=names)
        with pytest.raises(InputError, match=r"holds .* where the scene holds .*; give a truth in the scene's own"):
            validate_product(out, scene, truth=truth)
    for path, unit in ((scene, "K"), (tmp_path / "wide.tif", "degC")):
        with rasterio.open(path, "r+") as dataset:
            dataset.units = [unit] * 3
    with pytest.raises(InputError, match="has unit degC, the scene's band 1 has K"):
        validate_product(out, scene, truth=tmp_path / "wide.tif")
    as_floats = make_raster("floats.tif", values.astype("float32"), pixel=5.0, names=names)
    assert validate_product(out, scene, truth=as_floats).truth.figures["PSNR"] > 15
