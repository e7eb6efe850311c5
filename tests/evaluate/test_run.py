"""Whole evaluations on small pairs: compared on the same tiles, measured as the parts measure, reported as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from pairs import Numbered, write_pairs, write_pairs16, write_refsr
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from geo_refdiff import upscale
from geo_refdiff.change.detector import ChangeNetwork, Detector
from geo_refdiff.data import open_dataset
from geo_refdiff.errors import GeoRefDiffError, OptionError, OutputError
from geo_refdiff.evaluate import metrics
from geo_refdiff.evaluate.masks import TileDetector
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.evaluate.perceptual import EfficientNet, feature_distances, frechet_distance, pooled_features
from geo_refdiff.evaluate.pictures import choose
from geo_refdiff.evaluate.run import evaluate
from geo_refdiff.evaluate.tiles import TileSource
from geo_refdiff.sensor.sensor import SensorModel

NAMES = ["town_000_2016_2020", "town_001_2016_2020"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    folder = tmp_path / "data"
    folder.mkdir()
    return str(write_pairs(folder))


def means(summary: dict[str, Any], method: str, scale: int = 8) -> dict[str, float]:
    figures: dict[str, float] = summary["scales"][str(scale)]["methods"][method]["means"]
    return figures


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_figures_and_files_of_a_whole_report(data: str, tiny_compact: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate(
        data,
        models=(str(tiny_compact),),
        tile=64,
        pictures=1,
        images=True,
        mask=("none", "true"),
        out=tmp_path / "out",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == report.metrics
    assert (tmp_path / "out" / "table.md").read_text() == report.text
    scale = report.metrics["scales"]["8"]
    assert scale["tiles"] == NAMES
    assert scale["labelled_tiles"] == 2
    runs = ["tiny-compact, mask none", "tiny-compact, mask true"]
    assert list(scale["methods"]) == ["bicubic", "bicubic-ibp", "ref", "matched-ref", *runs]
    written = sorted((tmp_path / "out" / "images" / "8x").iterdir())
    assert {path.name for path in written} >= {"LR", "Ref", "mask", "truth", "bicubic-ibp", runs[0]}
    with Image.open(tmp_path / "out" / "grid_8x.png") as grid:
        assert grid.size[1] > 2 * 64
    assert len(list((tmp_path / "out" / "pictures" / "8x").iterdir())) == 1
    # every figure is what the metric says of the image that was written
    folder = tmp_path / "out" / "images" / "8x"
    for method in scale["methods"]:
        for number, name in enumerate(NAMES):
            image, truth = (
                torch.from_numpy(pixels(folder / kind / f"{name}.png")).float()[None] for kind in (method, "truth")
            )
            changed = torch.from_numpy(pixels(folder / "mask" / f"{name}.png"))[None] == 2
            assert int(changed.sum()) == 16 * 16
            lr = SensorModel(8).observe(truth)
            per_tile = scale["methods"][method]["per_tile"]
            for key, value in {
                "psnr": metrics.psnr(image, truth),
                "haarpsi": metrics.haarpsi(image, truth),
                "haarpsi_changed": metrics.haarpsi(image, truth, changed),
                "psnr_unchanged": metrics.psnr(image, truth, ~changed),
                "energy": metrics.gradient_energy_ratio(image, truth),
                "lr_rmse": (SensorModel(8).observe(image) - lr).square().mean().sqrt(),
            }.items():
                assert per_tile[key][number] == pytest.approx(float(value), rel=1e-4), (method, key)
    assert means(report.metrics, "ref")["psnr_unchanged"] == pytest.approx(120.0 + 20 * np.log10(255) - 0, abs=1)
    assert (
        means(report.metrics, "matched-ref")["haarpsi_unchanged"]
        > means(report.metrics, "matched-ref")["haarpsi_changed"]
    )
    assert means(report.metrics, "bicubic-ibp")["lr_rmse"] < means(report.metrics, "bicubic")["lr_rmse"]


def test_differences_are_paired_by_tile(data: str, tiny_compact: Path, tmp_path: Path) -> None:
    report = evaluate(data, models=(str(tiny_compact),), tile=64, grid=0, out=tmp_path / "out")
    methods = report.metrics["scales"]["8"]["methods"]
    ours, theirs = (np.array(methods[m]["per_tile"]["haarpsi"]) for m in ("tiny-compact", "bicubic-ibp"))
    summary = report.metrics["scales"]["8"]["differences"]["tiny-compact"]["bicubic-ibp"]["haarpsi"]
    assert summary["mean"] == pytest.approx(float((ours - theirs).mean()), abs=1e-6)
    assert summary["standard_error"] == pytest.approx(float((ours - theirs).std(ddof=1) / np.sqrt(2)), abs=1e-6)
    assert summary["tiles"] == 2
    assert f"{summary['mean']:+.3f} ± {summary['standard_error']:.4f}" in report.text
    assert not (tmp_path / "out" / "grid_8x.png").exists()


def test_a_method_of_perfect_images_is_perfect_and_only_common_tiles_count(data: str, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    truth = pixels(Path(data).parent / "1_new.tif")
    Image.fromarray(truth.transpose(1, 2, 0).copy()).save(theirs / f"{NAMES[1]}.png")
    report = evaluate(data, tile=64, outputs={"DATSR": theirs}, grid=1, out=tmp_path / "out")
    scale = report.metrics["scales"]["8"]
    assert scale["tiles"] == NAMES[1:]
    assert list(scale["missing"]["DATSR"]) == NAMES[:1]
    assert f"8x, missing in DATSR: 1 tiles ({NAMES[0]})" in report.text
    figures = means(report.metrics, "DATSR")
    assert figures["ssim"] == pytest.approx(1)
    assert figures["gmsd"] == pytest.approx(0, abs=1e-5)
    assert figures["lr_rmse"] == pytest.approx(0, abs=1e-4)
    for key in ("energy", "flat_noise", "lattice", "haarpsi", "haarpsi_changed"):
        assert figures[key] == pytest.approx(1, abs=1e-4)
    assert len(scale["methods"]["bicubic"]["per_tile"]["psnr"]) == 1
    (theirs / f"{NAMES[1]}.png").rename(theirs / "other.png")
    with pytest.raises(GeoRefDiffError, match="no tile can be compared: DATSR lacks 2 of them"):
        evaluate(data, tile=64, outputs={"DATSR": theirs}, out=tmp_path / "empty")


def test_scales_have_folders_of_their_own(data: str, tmp_path: Path) -> None:
    first = evaluate(data, tile=64, scale=(4, 8), images=True, grid=0, out=tmp_path / "first")
    given = tmp_path / "first" / "images"
    again = tmp_path / "again"
    for scale in (4, 8):
        (again / f"{scale}x").mkdir(parents=True)
        for path in (given / f"{scale}x" / "bicubic-ibp").iterdir():
            path.rename(again / f"{scale}x" / path.name)
    second = evaluate(data, tile=64, scale=(4, 8), outputs={"copy": again}, grid=0, out=tmp_path / "second")
    for scale in (4, 8):
        assert means(second.metrics, "copy", scale) == pytest.approx(
            means(first.metrics, "bicubic-ibp", scale), abs=1e-4
        )
    (again / "4x").rename(again / "four")
    with pytest.raises(GeoRefDiffError, match="has no folder 4x"):
        evaluate(data, tile=64, scale=(4, 8), outputs={"copy": again}, out=tmp_path / "third")


def test_lr_images_of_a_protocol_take_the_place_of_simulated_ones(data: str, tmp_path: Path) -> None:
    plain = evaluate(data, tile=64, images=True, grid=0, out=tmp_path / "plain")
    lr = tmp_path / "plain" / "images" / "8x" / "LR"
    same = evaluate(data, tile=64, lr=lr, grid=0, out=tmp_path / "same")
    assert means(same.metrics, "bicubic")["psnr"] == pytest.approx(means(plain.metrics, "bicubic")["psnr"], abs=0.02)
    for path in lr.iterdir():
        Image.fromarray(np.full((8, 8, 3), 9, np.uint8)).save(path)
    dark = evaluate(data, tile=64, lr=lr, grid=0, out=tmp_path / "dark")
    assert means(dark.metrics, "bicubic")["psnr"] < 12
    assert f"images of {lr}" in dark.text


def test_the_protocol_of_the_paper_in_one_go(tiny_published: Path, tmp_path: Path) -> None:
    data = write_refsr(tmp_path / "SECOND")
    theirs = tmp_path / "ttsr"
    theirs.mkdir()
    for path in (data / "test" / "HR_64").iterdir():
        (theirs / path.name).write_bytes(path.read_bytes())
    report = evaluate(
        str(data),
        split="test",
        models=(str(tiny_published),),
        tile=64,
        lr=Path("own"),
        degradation="bicubic",
        mask=("true",),
        reference=("raw",),
        outputs={"TTSR": theirs},
        steps=2,
        out=tmp_path / "out",
    )
    scale = report.metrics["scales"]["8"]
    assert scale["tiles"] == ["test_00000", "test_00001"]
    assert scale["labelled_tiles"] == 2
    assert "- changed pixels: the data set's masks" in report.text
    assert means(report.metrics, "TTSR")["ssim"] == pytest.approx(1)
    assert means(report.metrics, "TTSR")["lr_rmse"] == pytest.approx(0.29, abs=0.05)  # the LR images are rounded
    assert means(report.metrics, "ref")["psnr_changed"] < 20 < means(report.metrics, "ref")["psnr_unchanged"]
    with pytest.raises(GeoRefDiffError, match="has no LR images for 4x, only bic 8x"):
        evaluate(str(data), tile=64, scale=(4,), lr=Path("own"), out=tmp_path / "four")


def test_what_is_measured_is_what_the_product_writes(tiny_compact: Path, tmp_path: Path) -> None:
    """The same pixels as `upscale` writes for the tile as a scene, away from its border; without noise."""
    folder = tmp_path / "one"
    folder.mkdir()
    data = write_pairs(folder, places=1, side=256, mask=False)
    (folder / "0_old.tif").write_bytes((folder / "0_new.tif").read_bytes())  # so that the radiometric fit is 1
    evaluate(
        str(data),
        models=(str(tiny_compact),),
        tile=256,
        steps=0,
        images=True,
        grid=0,
        scale=(4,),
        out=tmp_path / "out",
    )
    images = tmp_path / "out" / "images" / "4x"
    with rasterio.open(folder / "0_new.tif") as source:
        truth, profile = source.read(), source.profile
    lr = SensorModel(4).observe(torch.from_numpy(truth).float()[None])[0].numpy()
    profile.update(height=64, width=64, dtype="float32", transform=profile["transform"] @ rasterio.Affine.scale(4))
    with rasterio.open(tmp_path / "scene.tif", "w", **profile) as target:
        target.write(lr)
        target.descriptions = ("red", "green", "blue")
    for name, model, options in (("tiny-compact", str(tiny_compact), {"steps": 0}), ("bicubic-ibp", "bicubic-ibp", {})):
        out = upscale(
            tmp_path / "scene.tif", ref=None if name == "bicubic-ibp" else folder / "0_old.tif", scale=4, model=model,
            out=tmp_path / f"{name}.tif", scene_range=(0.0, 255.0), device="cpu",
            noise=0.0, **options,
        ).out  # fmt: skip
        with pytest.warns(NotGeoreferencedWarning):
            measured = pixels(images / name / f"{NAMES[0]}.png")
        gap = np.abs(np.clip(pixels(out), 0, 255) - measured)[:, 64:-64, 64:-64]
        assert gap.max() <= 0.75, name  # the scene is float32, so that the product does not round


def test_masks_reference_and_detail_reach_the_model(data: str, tiny_compact: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in NAMES:
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(masks / f"{name}.png")
    models = {"models": (str(tiny_compact),), "tile": 64, "grid": 0, "places": 2}
    report = evaluate(
        data, mask=("none", "true", "wrong", str(masks)), reference=("none", "given"), **models, out=tmp_path / "out"
    )
    runs = {name: tuple(means(report.metrics, name).values()) for name in report.metrics["models"]}
    assert list(runs)[-1] == "tiny-compact, mask masks, ref given"
    assert len(runs) == len(set(runs.values())) == 4 * 2
    twin = tmp_path / "twin" / "masks"
    shutil.copytree(masks, twin)
    twins = evaluate(data, mask=(str(masks), str(twin)), **models, out=tmp_path / "twins")
    assert list(twins.metrics["models"]) == [
        f"tiny-compact, mask {folder.parent.name}/masks" for folder in (masks, twin)
    ]
    other = evaluate(data, reference=("given", "other"), detail=(0.0, 0.5), **models, out=tmp_path / "b")
    runs = {name: tuple(means(other.metrics, name).values()) for name in other.metrics["models"]}
    assert list(runs)[-1] == "tiny-compact, ref other, detail 0.5"
    assert len(runs) == len(set(runs.values())) == 2 * 2
    strangers = next(iter(report.metrics["models"].values()))["classes_it_does_not_know"]
    assert strangers == ["bare ground", "low vegetation", "tree"]  # "built-up" is its "building"


def test_the_mask_that_the_product_finds_by_itself(
    tiny_compact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "four"
    folder.mkdir()
    data = str(write_pairs(folder, places=1, bands=3, mask=False))
    torch.manual_seed(0)
    network = ChangeNetwork(8, 3).double().eval().requires_grad_(False)
    network.last.bias[1] += 4  # sure of water nearly everywhere
    detector = Detector(network, ("no change", "water", "tree"), 0.6, 0.35, "0")
    monkeypatch.setattr("geo_refdiff.evaluate.opening.load_detector", lambda: detector)
    report = evaluate(data, models=(str(tiny_compact),), tile=64, grid=0, mask=("none", "auto"), out=tmp_path / "out")
    plain, auto = (means(report.metrics, f"tiny-compact, mask {name}")["psnr"] for name in ("none", "auto"))
    assert plain != auto
    pair = TileSource(open_dataset(data), size=64)
    tile = pair.read(pair.specs[0])
    lr = SensorModel(8).observe(tile.truth)
    mask = TileDetector(detector, ("red", "green", "blue")).detect(lr, tile.ref, SensorModel(8))
    assert mask.shape == (1, 1, 64, 64)
    assert torch.equal(mask[..., ::8, ::8].repeat_interleave(8, -1).repeat_interleave(8, -2), mask)
    missing = TileDetector(detector, ("red", "green", "blue")).detect(lr, tile.ref * torch.nan, SensorModel(8))
    assert missing.unique().tolist() == [255]
    with pytest.raises(OptionError, match="mask auto needs the bands red, green, blue"):
        TileDetector(detector, ("red", "nir"))


def test_pasted_change_is_where_the_mask_says(data: str, tmp_path: Path) -> None:
    folder = tmp_path / "four"
    folder.mkdir()
    report = evaluate(str(write_pairs(folder, 3, 64, 4)), tile=64, paste=True, grid=1, out=tmp_path / "out")
    figures = means(report.metrics, "matched-ref")
    assert figures["psnr_changed"] < figures["psnr_unchanged"]
    assert report.metrics["data"]["pasted_change"] is True
    assert "changed pixels: pasted into the reference from other places, exact" in report.text


def test_window_disagreement_is_measured_at_the_stated_halo(tiny_compact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    data = str(write_pairs(folder, places=1, side=128))
    report = evaluate(data, models=(str(tiny_compact),), tile=128, windows=True, grid=0, out=tmp_path / "out")
    assert 0 <= means(report.metrics, "tiny-compact")["windows"] < 255
    assert "windows" not in means(report.metrics, "bicubic")
    with pytest.raises(OptionError, match="too small for two windows"):
        evaluate(data, models=(str(tiny_compact),), tile=64, windows=True, out=tmp_path / "small")


@pytest.mark.parametrize("wanted", [False, True])
def test_deep_figures_are_there_with_their_weights_and_else_reported_as_missing(
    data: str, tmp_path: Path, lpips_files: tuple[Path, Path], inception_file: Path, wanted: bool
) -> None:
    weights = {"alexnet": lpips_files[0], "lpips": lpips_files[1], "inception": inception_file} if wanted else {}
    report = evaluate(data, tile=64, grid=0, **weights, out=tmp_path / "out")  # type: ignore[arg-type]
    figures = means(report.metrics, "matched-ref")
    fids = [method["fid"] for method in report.metrics["scales"]["8"]["methods"].values()]
    if wanted:
        assert 0 < figures["lpips_unchanged"] < figures["lpips"] < figures["lpips_changed"]
        assert means(report.metrics, "bicubic")["lpips"] > figures["lpips"]
        assert min(fids) > 0
        assert "| FID" in report.text
        assert str(inception_file) in report.text
    else:
        assert not any(key.startswith("lpips") for key in figures)
        assert fids == [None] * 4
        assert "- LPIPS: not measured: no weights were named" in report.text
        assert "- FID: not measured: no weights were named" in report.text
        assert "| FID" not in report.text


def test_an_earlier_report_is_not_overwritten(data: str, tmp_path: Path) -> None:
    evaluate(data, tile=64, grid=0, out=tmp_path / "out")
    before = (tmp_path / "out" / "metrics.json").read_bytes()
    with pytest.raises(OutputError, match="holds a report already"):
        evaluate(data, tile=64, grid=0, degradation="bicubic", out=tmp_path / "out")
    assert (tmp_path / "out" / "metrics.json").read_bytes() == before
    evaluate(data, tile=64, grid=0, degradation="bicubic", overwrite=True, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["degradation"]["kernel"] == "bicubic"


def test_a_torn_pair_is_left_out_by_name(data: str, tmp_path: Path) -> None:
    file = Path(data).parent / "0_old.tif"
    file.write_bytes(file.read_bytes()[:2000])
    report = evaluate(data, tile=64, grid=0, out=tmp_path / "out")
    scale = report.metrics["scales"]["8"]
    assert scale["tiles"] == NAMES[1:]
    lost = {**scale["left_out"], **report.metrics["data"]["pairs_left_out"]}
    assert len(lost) == 1
    assert "0_old.tif" in next(iter(lost.values()))
    assert "left out" in report.text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tile": 60}, "scale 8: give a --tile that is a multiple of it, not 60"),
        ({"scale": (8, 8)}, "give each once"),
        ({"reference": ()}, "at least one"),
        ({"degradation": "nearest"}, "degradation 'nearest': choose psf or bicubic"),
        ({"reference": ("mine",)}, "reference mine: choose given, raw, none, other"),
        ({"alexnet": Path("a.pth")}, "give both --alexnet and --lpips"),
        ({"consistency": "loose"}, "consistency 'loose': choose window, standard, strict"),
        ({"places": 0}, "places 0"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"device": "tpu9"}, "device 'tpu9': give auto, cpu, cuda"),
        ({"models": ("unheard-of",)}, "unknown model 'unheard-of'"),
        ({"scale": (2,), "models": ("TINY",)}, "scale 2: model .* knows 4, 8; give one of these"),
        ({"bands": ("red",), "models": ("TINY",)}, "takes the bands red, green, blue, the data set has red"),
        ({"bands": ("nir",)}, "band 'nir'"),
        ({"mask": ("nowhere",)}, "nowhere: no such folder"),
        ({"show": ("nobody",)}, "'nobody' is no tile"),
        ({"models": ("TINY", "TINY")}, "named twice"),
        ({"inception": Path("none.pt")}, r"none\.pt: no such file"),
        ({"lr": Path("own")}, "has no LR images; name a folder"),
        ({"detail": (2.0,), "models": ("TINY",)}, "detail 2"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    data: str, tiny_compact: Path, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    if "models" in options:
        options = {**options, "models": tuple(str(tiny_compact) if m == "TINY" else m for m in options["models"])}
    with pytest.raises(GeoRefDiffError, match=text) as caught:
        evaluate(**{"data": data, "tile": 64, **options}, out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_random_tiles_are_shown_by_seed_and_more_of_them_include_the_fewer(tmp_path: Path) -> None:
    specs = TileSource(Numbered([f"p{n} a->b" for n in range(20)]), size=96).specs
    few, more = choose(specs, (), 3, 1), choose(specs, (), 8, 1)
    assert set(few) < set(more)
    assert more == sorted(more, key=[spec.name for spec in specs].index)
    assert choose(specs, (), 3, 2) != few
    assert choose(specs, ("p7 a->b", "p3_a_b"), 1, 0) == ["p3_a_b", "p7_a_b"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_uint16_is_measured_as_delivered(tmp_path: Path, tiny_compact: Path) -> None:
    """In steps of one of its own digital numbers, and beyond the range that the figures are scaled by."""
    low, high = 500.0, 3000.0
    index = write_pairs16(tmp_path, low, high)
    truth = pixels(tmp_path / "new.tif")
    outputs = tmp_path / "theirs"
    outputs.mkdir()
    with rasterio.open(outputs / "town_007_2016_2020.tif", "w", **profile(truth)) as file:
        file.write(truth + np.uint16(1))
    report = evaluate(
        str(index),
        models=(str(tiny_compact),),
        tile=64,
        images=True,
        consistency="strict",
        grid=1,
        outputs={"theirs": outputs},
        out=tmp_path / "out",
    )
    folder = tmp_path / "out" / "images" / "8x"
    np.testing.assert_array_equal(pixels(folder / "truth" / "town_007_2016_2020.tif"), truth)
    for method in ("bicubic", "bicubic-ibp", "tiny-compact", "theirs"):
        image = pixels(folder / method / "town_007_2016_2020.tif")
        assert image.dtype == np.uint16
        rms = np.sqrt(np.mean((image.astype(float) - truth) ** 2))
        assert means(report.metrics, method)["psnr"] == pytest.approx(20 * np.log10((high - low) / rms), abs=1e-3)
        lr = SensorModel(8).observe(torch.from_numpy(truth.astype(np.float32))[None])
        residual = SensorModel(8).observe(torch.from_numpy(image.astype(np.float32))[None]) - lr
        summary = means(report.metrics, method)["lr_rmse"] * (high - low) / 255
        assert summary == pytest.approx(float(residual.square().mean().sqrt()), abs=0.02)
        if method == "bicubic-ibp":  # strict: away from the border to half a digital number
            assert residual[..., 1:-1, 1:-1].abs().max() < 0.51
    assert means(report.metrics, "theirs")["psnr"] == pytest.approx(20 * np.log10(high - low), abs=1e-3)
    assert "500 to 3000 in uint16" in report.text


def profile(image: np.ndarray) -> dict[str, Any]:
    """Of a plain GeoTIFF."""
    count, height, width = image.shape
    return {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": image.dtype.name}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_results_in_other_numbers_than_the_data_s_are_refused(tmp_path: Path) -> None:
    index = write_pairs16(tmp_path, 500.0, 3000.0)
    outputs = tmp_path / "theirs"
    outputs.mkdir()
    image = np.zeros((3, 64, 64), np.uint8)
    with rasterio.open(outputs / "town_007_2016_2020.tif", "w", **profile(image)) as file:
        file.write(image)
    with pytest.raises(GeoRefDiffError, match="holds uint8; save it as uint16 or float32, in the digital numbers"):
        evaluate(str(index), tile=64, outputs={"theirs": outputs}, out=tmp_path / "out")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_judge_that_no_loss_has_seen(judge_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data = str(write_pairs(tmp_path / "data", places=5))
    report = evaluate(data, tile=64, grid=0, images=True, out=tmp_path / "out")
    methods = report.metrics["scales"]["8"]["methods"]
    judge = EfficientNet(judge_file)
    folder = tmp_path / "out" / "images" / "8x"
    rows: dict[str, list[torch.Tensor]] = {}
    for number, name in enumerate(report.metrics["scales"]["8"]["tiles"]):
        image, truth = (
            torch.from_numpy(pixels(folder / kind / f"{name}.png")).float()[None] for kind in ("bicubic", "truth")
        )
        with torch.inference_mode():
            seen, real = judge.features(image), judge.features(truth)
        layers = torch.stack([layer.mean() for layer in feature_distances(seen, real)])
        assert methods["bicubic"]["per_tile"]["efflp"][number] == pytest.approx(float(layers.mean()), rel=1e-4)
        for kind, features in (("bicubic", seen), ("truth", real)):
            rows.setdefault(kind, []).append(pooled_features(features)[0])
    made, real_rows = (torch.stack(rows[kind]).double().numpy() for kind in ("bicubic", "truth"))
    assert methods["bicubic"]["fd"] == pytest.approx(frechet_distance(made, real_rows), rel=1e-3)
    assert methods["bicubic"]["fd_standard_error"] > 0
    assert methods["bicubic"]["means"]["efflp_changed"] > 0
    assert "| FD " in report.text
    assert "- effLP, FD: EfficientNet-Lite0" in report.text


def test_without_the_judge_its_figures_are_left_out_and_said(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geo_refdiff.evaluate.opening.efficientnet_weights", lambda: None)
    report = evaluate(data, tile=64, grid=0, out=tmp_path / "out")
    assert "efflp" not in report.metrics["scales"]["8"]["methods"]["bicubic"]["means"]
    assert "- effLP, FD: not measured: needs pip install 'geo-refdiff[perceptual]'" in report.text


def test_noise_and_a_psf_that_is_declared_wrongly(data: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"data": data, "tile": 64, "grid": 0, "psf_sigma": 0.5}
    clean = evaluate(**common, out=tmp_path / "clean").metrics
    noisy = evaluate(**common, noise=6.0, consistency="window", out=tmp_path / "noisy").metrics
    again = evaluate(**common, noise=6.0, consistency="window", out=tmp_path / "again").metrics
    aware = evaluate(**common, noise=6.0, out=tmp_path / "aware").metrics
    wrong = evaluate(**common, declared_psf=0.2, out=tmp_path / "wrong")
    assert (
        noisy["scales"]["8"]["methods"]["bicubic"]["per_tile"] == again["scales"]["8"]["methods"]["bicubic"]["per_tile"]
    )
    assert noisy["degradation"] == {"kernel": "psf", "psf_sigma": 0.5, "declared_psf": None, "noise": 6.0, "lr": None}
    for method in ("bicubic", "bicubic-ibp", "matched-ref"):
        assert means(noisy, method)["psnr"] < means(clean, method)["psnr"]
    for method in ("bicubic-ibp", "matched-ref"):  # what is corrected exactly takes the noise in
        assert means(aware, method)["psnr"] > means(noisy, method)["psnr"]
    assert means(wrong.metrics, "bicubic") == means(clean, "bicubic")
    assert means(wrong.metrics, "bicubic-ibp")["lr_rmse"] > 2 * means(clean, "bicubic-ibp")["lr_rmse"]
    assert "Gaussian PSF of 0.5 scene pixels, then area means; declared as 0.2 scene pixels" in wrong.text
    with pytest.raises(OptionError, match="noise -1: give a standard deviation of 0 to 255 DN"):
        EvaluateOptions.of(noise=-1.0)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_coarser_images_are_means(data: str, tmp_path: Path) -> None:
    report = evaluate(data, tile=32, average=2, scale=(4,), grid=0, images=True, out=tmp_path / "half")
    whole = evaluate(data, tile=64, scale=(4,), grid=0, images=True, out=tmp_path / "whole")
    assert report.metrics["data"]["average"] == 2
    assert "tiles of 32 px that are means of 2 x 2 px" in report.text
    for name in whole.metrics["scales"]["4"]["tiles"]:
        fine, half = (pixels(tmp_path / kind / "images" / "4x" / "truth" / f"{name}.png") for kind in ("whole", "half"))
        means = fine.reshape(len(fine), 32, 2, 32, 2).mean(axis=(2, 4))
        assert np.abs(half - means).max() <= 0.5
    with pytest.raises(OptionError, match="average 0: give a whole number, 1 or more"):
        EvaluateOptions.of(average=0)
