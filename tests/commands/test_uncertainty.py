"""How sure each pixel is: a map that is the same for any layout of blocks, fitted to known errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch

from benchmarks.uncertainty import judge_intervals
from geo_refdiff import upscale
from geo_refdiff.commands.calibrate import conformal_factor, fit_shares
from geo_refdiff.diffusion.model_folder import model_digest
from geo_refdiff.engine.uncertainty import Spread
from geo_refdiff.errors import ModelError, OptionError
from geo_refdiff.plan.file import read_plan
from geo_refdiff.plan.records import PREDICTORS
from geo_refdiff.plan.uncertainty import FILE


def calibrated(folder: Path, **more: Any) -> Path:
    """Puts a calibration into a model's folder."""
    part = {"shares": [0.001, 2.0, 0.5, 1.0, 0.3, 0.1], "factors": [1.5, 1.6, 1.7]}
    actual = {
        "format": 1, "predictors": list(PREDICTORS), "model_sha256": model_digest(folder), "coverage": 0.9, "runs": 2,
        "sampler": {}, "bands": ["red", "green", "blue"], "tables": {"8": {"known": part, "unknown": part}},
        "origin": {},
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps(actual | more))
    return folder


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read()


def test_the_map_does_not_depend_on_blocks(make_pair: Any, tiny_compact: Path, tmp_path: Path) -> None:
    scene, ref = make_pair(26, 30)
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
        dataset.write(np.zeros((3, 4, 6), np.uint8), window=rasterio.windows.Window(12, 15, 6, 4))
        dataset.scales, dataset.offsets, dataset.units = (1e-4,) * 3, (-0.1,) * 3, ("reflectance",) * 3
    options: dict[str, Any] = {"ref": ref, "model": calibrated(tiny_compact), "scale": 8, "coregister": "off"}
    plain = upscale(scene, out=tmp_path / "plain.tif", **options).out
    maps = []
    for name, size in (("one", 2048), ("many", 80)):
        out = upscale(scene, out=tmp_path / f"{name}.tif", uncertainty=3, block_size=size, **options).out
        np.testing.assert_array_equal(read(out), read(plain))
        maps.append(read(out.with_suffix(".uncertainty.tif")))
    np.testing.assert_array_equal(maps[0], maps[1])
    with rasterio.open(tmp_path / "one.uncertainty.tif") as dataset, rasterio.open(plain) as image:
        assert dataset.dtypes == ("float32",) * 3
        assert dataset.descriptions == ("red", "green", "blue")
        assert (dataset.scales, dataset.offsets, dataset.units) == ((1e-4,) * 3, (0.0,) * 3, ("reflectance",) * 3)
        np.testing.assert_array_equal(np.isfinite(dataset.read(1)), image.dataset_mask() > 0)
        assert dataset.tags()["GEO_REFDIFF_UNCERTAINTY_COVERAGE"] == "0.9"
    known = maps[0][np.isfinite(maps[0])]
    assert known.min() > 0
    assert known.std() > 0.01 * known.mean()


def test_an_unfinished_run_with_a_map_goes_on(make_pair: Any, tiny_compact: Path, tmp_path: Path) -> None:
    scene, ref = make_pair(26, 30)
    options: dict[str, Any] = {"ref": ref, "model": tiny_compact, "scale": 8, "uncertainty": 2, "block_size": 80}
    whole = upscale(scene, out=tmp_path / "whole.tif", **options).out
    calls = []

    def stop(progress: Any) -> None:
        calls.append(progress)
        if progress.done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale(scene, out=tmp_path / "cut.tif", progress=stop, **options)
    plan = read_plan(tmp_path / "cut.tif.parts" / "plan.json")
    assert plan.uncertainty is not None
    assert plan.uncertainty.runs == 2
    done = upscale(scene, out=tmp_path / "cut.tif", resume=True, **options)
    assert done.counts["blocks_resumed"] > 0
    for suffix in (".tif", ".uncertainty.tif"):
        np.testing.assert_array_equal(read(done.out.with_suffix(suffix)), read(whole.with_suffix(suffix)))


def test_without_a_calibration_it_is_the_plain_spread(make_pair: Any, tiny_compact: Path, tmp_path: Path) -> None:
    scene, ref = make_pair(12, 12)
    result = upscale(scene, ref=ref, model=tiny_compact, out=tmp_path / "o.tif", scale=8, uncertainty=2)
    assert any("no calibration" in note for note in result.notes)
    with rasterio.open(tmp_path / "o.uncertainty.tif") as dataset:
        tags, plain = dataset.tags(), dataset.read()
    assert tags["GEO_REFDIFF_UNCERTAINTY_CALIBRATED"] == "no"
    assert "standard deviation over 2 runs" in tags["TIFFTAG_IMAGEDESCRIPTION"]
    assert plain.min() >= 0
    assert plain.max() > 0
    other = upscale(
        scene, ref=ref, model=calibrated(tiny_compact, model_sha256="0" * 64), out=tmp_path / "p.tif", scale=8,
        uncertainty=2,
    )  # fmt: skip
    assert any("other weights" in note for note in other.notes)


def test_churn_is_noise(make_pair: Any, tiny_published: Path, tmp_path: Path) -> None:
    """The published sampler begins without noise and adds some between steps, unless its churn is none."""
    scene, ref = make_pair(6, 6)
    options: dict[str, Any] = {"ref": ref, "model": tiny_published, "sampler": "published", "steps": 4, "scale": 8}
    out = upscale(scene, out=tmp_path / "o.tif", uncertainty=2, keep=True, **options).out
    assert (read(out) != read(upscale(scene, out=tmp_path / "p.tif", seed=1, **options).out)).any()
    plan = read_plan(tmp_path / "o.tif.parts" / "plan.json")
    assert plan.uncertainty is not None
    assert plan.uncertainty.runs == 2
    assert plan.model.sampler["s_churn"] == 40.0
    assert np.isfinite(read(out.with_suffix(".uncertainty.tif"))).all()
    assert read(out.with_suffix(".uncertainty.tif")).max() > 0
    config = json.loads((tiny_published / "config.json").read_text())
    config["sampler"]["S_churn"] = 0
    (tiny_published / "config.json").write_text(json.dumps(config))
    with pytest.raises(OptionError, match="draws no noise"):
        upscale(scene, out=tmp_path / "q.tif", uncertainty=2, **options)


@pytest.mark.parametrize("runs", [0, 1, 65, True])
def test_a_number_of_runs_that_makes_no_sense(make_pair: Any, tmp_path: Path, tiny_compact: Path, runs: Any) -> None:
    scene, ref = make_pair(12, 12)
    with pytest.raises(OptionError, match="2 to 64"):
        upscale(scene, ref=ref, model=tiny_compact, out=tmp_path / "o.tif", scale=8, uncertainty=runs)


def test_what_there_is_nothing_to_go_by_for(make_pair: Any, tmp_path: Path, tiny_compact: Path) -> None:
    scene, ref = make_pair(12, 12)
    with pytest.raises(OptionError, match="draws no noise"):
        upscale(scene, model="bicubic-ibp", out=tmp_path / "o.tif", scale=8, uncertainty=2)
    calibrated(tiny_compact, tables={})
    with pytest.raises(ModelError, match="no calibration"):
        upscale(scene, ref=ref, model=tiny_compact, out=tmp_path / "o.tif", scale=8, uncertainty=2)


def test_the_spread_is_the_variance() -> None:
    runs = torch.from_numpy(np.random.default_rng(0).normal(100, 5, (7, 2, 9, 9)).astype(np.float32))
    spread = Spread(runs[0])
    for run in runs[1:]:
        spread.feed(run)
    torch.testing.assert_close(spread.variance(), runs.var(dim=0), rtol=1e-4, atol=0)


def test_shares_and_factors_find_what_made_the_errors() -> None:
    rng = np.random.default_rng(1)
    energies = rng.gamma(1.0, 1.0, (60_000, 4))
    true = np.array([0.2, 0.0, 1.5, 0.0])
    errors = rng.laplace(0, 1, 60_000) * np.sqrt(energies @ true / 2)
    shares = fit_shares(energies[::2], errors[::2])
    np.testing.assert_allclose(shares, true, atol=0.08)
    spreads = np.sqrt(energies[1::2] @ shares)
    factor = conformal_factor(errors[1::4], spreads[::2], 0.9)
    assert (np.abs(errors[3::4]) <= factor * spreads[1::2]).mean() == pytest.approx(0.9, abs=0.01)


def test_judging_intervals() -> None:
    rng = np.random.default_rng(2)
    sigma = rng.gamma(2.0, 2.0, (4, 1, 8, 8)).repeat(8, 2).repeat(8, 3)
    errors = rng.normal(0, 1, sigma.shape) * sigma
    good, blind = (
        judge_intervals(errors, 1.645 * sigma),
        judge_intervals(errors, np.full(sigma.shape, 6.0) + 1e-6 * rng.random(sigma.shape)),
    )
    assert good.coverage == pytest.approx(0.9, abs=0.01)
    assert good.spearman_local > good.spearman > 0.3
    assert abs(blind.spearman) < 0.05
