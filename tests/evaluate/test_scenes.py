"""Triplets of real scenes: factor from the grids, fit to the truth's sensor, registration, what cannot be run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from pairs import ground, write_index

from geo_refdiff.cli.main import run
from geo_refdiff.errors import GeoRefDiffError, InputError, ModelError, OptionError
from geo_refdiff.evaluate.options import EvaluateOptions
from geo_refdiff.evaluate.perceptual import EfficientNet, pooled_features
from geo_refdiff.evaluate.run import evaluate
from geo_refdiff.evaluate.scenes import is_triplets, open_picture, read_triplets, restore, run_scale, scene_methods
from geo_refdiff.options import SamplingOptions
from geo_refdiff.restore.models import open_model
from geo_refdiff.sensor.sensor import SensorModel

SIDE = 144
NAMES = ("red", "green", "blue")


def write(path: Path, image: np.ndarray, pixel: float, corner: tuple[float, float] = (486_000.0, 5_209_200.0)) -> str:
    profile = {
        "driver": "GTiff", "count": len(image), "height": image.shape[1], "width": image.shape[2], "crs": "EPSG:26914",
        "dtype": image.dtype.name, "transform": Affine(pixel, 0, corner[0], 0, -pixel, corner[1]),
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(image)
        target.descriptions = NAMES[: len(image)]
    return path.name


def write_triplet(folder: Path, scale: int = 3, seed: int = 1, off: float = 0.0) -> dict[str, str]:
    """Truth of 10 m; a scene in other units; the reference is darker, without a square; `off`: of the truth, pixels."""
    truth = ground(seed, 3, SIDE)
    lr = SensorModel(scale).observe(torch.from_numpy(truth).float()[None])[0].numpy()
    ref = (0.6 * truth.astype(float) + 20).astype(np.uint8)
    ref[:, 50:70, 50:70] = 90
    corner = (486_000.0 + 10 * off, 5_209_200.0 - 10 * off)
    return {
        "lr": write(folder / f"{seed}_lr.tif", np.rint(30 * lr + 400).astype(np.uint16), 10.0 * scale),
        "ref": write(folder / f"{seed}_ref.tif", ref, 10.0),
        "truth": write(folder / f"{seed}_truth.tif", truth, 10.0, corner),
    }


@pytest.fixture
def index(tmp_path: Path) -> Path:
    rows = [{"name": f"place/{seed}", **write_triplet(tmp_path, seed=seed)} for seed in (1, 2)]
    return write_index(tmp_path / "real.csv", rows)


def test_a_report_of_scenes_at_3x(index: Path, tiny_compact: Path, judge_file: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_compact / "config.json").read_text())
    (tiny_compact / "config.json").write_text(json.dumps(config | {"scales": [3, 4]}))
    seen: list[tuple[int, int]] = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731
    report = evaluate(index, [tiny_compact], out=tmp_path / "out", steps=0, pictures=1, progress=progress)
    assert seen == [(0, 2), (1, 2), (2, 2)]
    metrics = report.metrics
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    assert list(metrics["methods"]) == ["bicubic", "bicubic-ibp", "matched-ref", "tiny-compact"]
    for scene in metrics["scenes"].values():
        assert scene["factor"] == 3
        assert scene["gain"] == pytest.approx([1 / 30] * 3, rel=0.05)  # the scene's units are undone
        assert scene["offset"] == pytest.approx([-400 / 30] * 3, abs=5)
        assert min(scene["correlation"]) > 0.99
        assert scene["scales"]["tiny-compact"] == 3
    means = {name: method["means"] for name, method in metrics["methods"].items()}
    for figure in ("psnr", "ssim", "haarpsi"):
        assert means["matched-ref"][figure] > means["bicubic-ibp"][figure] > means["bicubic"][figure]
    assert means["matched-ref"]["efflp"] < means["bicubic"]["efflp"]
    assert metrics["methods"]["matched-ref"]["fd"] is None  # one part of 128 pixels a scene: too few
    difference = metrics["differences"]["tiny-compact"]["matched-ref"]["psnr"]
    assert difference["tiles"] == 2
    assert "| place/2, 3x |" in report.text
    assert "Difference to matched-ref, paired" in report.text
    assert [path.name for path in report.files] == ["metrics.json", "table.md", "grid.png", *(
        path.name for path in (tmp_path / "out" / "pictures").iterdir()
    )]  # fmt: skip


def test_the_truth_is_compared_where_it_lies(tmp_path: Path) -> None:
    """Off by less than half a pixel it is left, by more it is moved back; its grid need not be the output's."""
    values = {}
    for off in (0.0, 0.3, 4.0):
        folder = tmp_path / str(off)
        folder.mkdir()
        report = evaluate(write_index(folder / "i.csv", [write_triplet(folder, off=off)]), out=folder / "out", grid=0)
        (scene,) = report.metrics["scenes"].values()
        assert scene["factor"] == 3
        assert scene["truth_shift"] == pytest.approx([off, off], abs=0.2)
        assert ("is moved back" in report.text) == (off > 0.5)
        values[off] = report.metrics["methods"]["bicubic-ibp"]["means"]["psnr"]
    assert values[4.0] > values[0.0] - 0.7


def test_missing_pixels_count_for_nothing(tmp_path: Path) -> None:
    row = write_triplet(tmp_path)
    whole = evaluate(write_index(tmp_path / "a.csv", [row]), out=tmp_path / "a", grid=0).metrics
    for name, half in (("truth", slice(110, None)), ("lr", slice(0, 8))):
        with rasterio.open(tmp_path / row[name], "r+") as file:
            file.nodata = 0
            image = file.read()
            image[:, half] = 0
            file.write(image)
    part = evaluate(write_index(tmp_path / "b.csv", [row]), out=tmp_path / "b", grid=0).metrics
    for method in ("bicubic", "matched-ref"):
        one, other = (m["methods"][method]["means"] for m in (whole, part))
        assert other["psnr"] == pytest.approx(one["psnr"], abs=3)
        assert other["haarpsi"] == pytest.approx(one["haarpsi"], abs=0.05)


def test_a_model_that_does_not_know_the_factor_works_at_a_multiple(index: Path, tiny_compact: Path) -> None:
    config = json.loads((tiny_compact / "config.json").read_text())
    (tiny_compact / "config.json").write_text(json.dumps(config | {"scales": [4, 6, 8, 9]}))
    options = EvaluateOptions.of(device="cpu", steps=0)
    triplet = read_triplets(index, options)[0]
    method = scene_methods([str(tiny_compact)], options)[-1]
    picture = open_picture(triplet, None)
    made, fine = restore(picture, method), restore(replace(picture, factor=6), method).image
    assert made.scale == 6
    assert made.image.shape == (1, 3, SIDE, SIDE)
    assert made.valid.all()
    assert torch.allclose(made.image, fine.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).mean(dim=(-1, -3)), atol=1e-3)
    assert run_scale(open_model(SamplingOptions(model="bicubic")), 7) == 7
    with pytest.raises(ModelError, match="has neither scale 5 nor a multiple of it, only 4, 6, 8, 9"):
        run_scale(method.model, 5)


def test_what_cannot_be_run_is_left_out_and_said(index: Path, tmp_path: Path, tiny_compact: Path) -> None:
    rows: list[dict[str, str]] = [
        {"name": "no ref", **{k: v for k, v in write_triplet(tmp_path, seed=3).items() if k != "ref"}},
        {"name": "no truth", **{k: v for k, v in write_triplet(tmp_path, seed=4).items() if k != "truth"}},
        {"name": "gone", "lr": "gone.tif", "truth": "1_truth.tif"},
        {"name": "whole", **write_triplet(tmp_path, seed=5)},
    ]
    report = evaluate(write_index(tmp_path / "more.csv", rows), [tiny_compact], out=tmp_path / "out", mask=("true",))
    metrics = report.metrics
    assert metrics["tiles"] == ["no ref", "whole"]
    assert "gone.tif" in metrics["left_out"]["gone"]
    assert "needs a reference" in metrics["scenes"]["no ref"]["left_out"]["matched-ref"]
    assert "has neither scale 3" in metrics["scenes"]["whole"]["left_out"]["tiny-compact"]
    assert metrics["scenes"]["no truth"]["gain"] is None
    matched = metrics["methods"]["matched-ref"]
    assert matched["per_tile"]["psnr"][0] is None
    assert matched["means"]["psnr"] == pytest.approx(matched["per_tile"]["psnr"][1])
    assert metrics["common"]["tiles"] == ["whole"]
    assert list(metrics["common"]["methods"]) == ["bicubic", "bicubic-ibp", "matched-ref"]
    bicubic = metrics["common"]["methods"]["bicubic"]["means"]["psnr"]
    assert bicubic == metrics["methods"]["bicubic"]["per_tile"]["psnr"][1]
    assert "Means over the 1 scenes that every method was run on" in report.text
    assert "tiny-compact" not in metrics["methods"] or not metrics["methods"]["tiny-compact"]["means"]
    assert "gone, left out" in report.text


def test_a_coarse_scene_of_the_reference_s_date_makes_one_baseline_more(tmp_path: Path) -> None:
    row = write_triplet(tmp_path)
    with rasterio.open(tmp_path / row["ref"]) as file:
        old = file.read()
    before = SensorModel(3).observe(torch.from_numpy(old).float()[None])[0].numpy()
    row["lr_t1"] = write(tmp_path / "lr_t1.tif", np.rint(50 * before + 100).astype(np.uint16), 30.0)
    with rasterio.open(tmp_path / row["lr"], "r+") as file:  # in units of the same sensor
        file.write(np.rint((file.read() - 400.0) / 30.0 * 30 + 400).astype(np.uint16))
    metrics = evaluate(write_index(tmp_path / "i.csv", [row]), out=tmp_path / "out", grid=0).metrics
    assert list(metrics["methods"]) == ["bicubic", "bicubic-ibp", "matched-ref", "ref+difference"]
    assert metrics["methods"]["ref+difference"]["means"]["haarpsi"] > metrics["methods"]["bicubic"]["means"]["haarpsi"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"paste": True}, "--paste goes with pairs, not with triplets"),
        ({"noise": 2.0}, "--noise goes with pairs"),
        ({"mask": ("wrong",)}, "mask wrong: of real scenes give none, auto or true"),
        ({"reference": ("other",)}, "reference other: of real scenes give given, raw or none"),
        ({"only": ("mars",)}, "only 'mars' fits no place"),
        ({"show": ("mars",)}, "'mars' is no tile"),
    ],
)
def test_options_that_do_not_go_with_scenes(index: Path, tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text) as caught:
        evaluate(index, out=tmp_path / "out", **options)
    assert "\n" not in str(caught.value)


def test_grids_of_no_whole_factor_and_rows_without_files(tmp_path: Path) -> None:
    row = write_triplet(tmp_path)
    odd = write(tmp_path / "odd.tif", ground(1, 3, 120), 12.0)
    with pytest.raises(GeoRefDiffError, match=r"pixels are 2\.5 times finer than the scene's; give a whole factor"):
        evaluate(write_index(tmp_path / "a.csv", [row | {"truth": odd}]), out=tmp_path / "a")
    summary = evaluate(write_index(tmp_path / "a.csv", [row | {"truth": odd}]), out=tmp_path / "a", scale=(3,), grid=0)
    assert next(iter(summary.metrics["scenes"].values()))["factor"] == 3
    with pytest.raises(InputError, match="row 1: 'lr' is empty"):
        evaluate(write_index(tmp_path / "b.csv", [row | {"lr": ""}]), out=tmp_path / "b")
    with pytest.raises(InputError, match="two rows are called 'x'"):
        evaluate(write_index(tmp_path / "c.csv", [row | {"name": "x"}] * 2), out=tmp_path / "c")
    assert is_triplets(tmp_path / "c.csv")
    assert not is_triplets(write_index(tmp_path / "pairs.csv", [{"new": "a.tif", "ref": "b.tif"}]))


def test_parts_of_a_picture_are_pooled_as_images_of_their_own(judge_file: Path) -> None:
    network = EfficientNet(judge_file)
    image = 255 * torch.rand(2, 3, 144, 272, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = network.features(image)
        parts = pooled_features(features, 128)
        assert parts.shape == (2, 2, 2 * (40 + 112))
        layer = features[5][0, :, :16, 16:32]  # block 4: a feature for 8 pixels
        torch.testing.assert_close(parts[0, 1, :40], layer.mean(dim=(1, 2)))
        torch.testing.assert_close(parts[0, 1, 40:80], layer.flatten(1).std(dim=1))
        deep = features[11][1, :, :8, :8]
        torch.testing.assert_close(parts[1, 0, 80:192], deep.mean(dim=(1, 2)))


def test_the_command(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["evaluate", "--data", str(index), "-o", str(out), "--only", "place/1", "--grid", "1"]) == 0
    summary = capsys.readouterr()
    assert summary.out.startswith("# Evaluation of real scenes")
    assert f"written: {out / 'grid.png'}" in summary.out
