"""Bands of coarser pixels come along by --other-bands transfer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geo_refdiff.commands.upscale import upscale
from geo_refdiff.plan.file import read_plan
from geo_refdiff.plan.same_inputs import check_inputs
from geo_refdiff.products.opening import inspect
from geo_refdiff.validate.validation import validate_product

Make = Callable[..., Path]
FINE = ("B02", "B03", "B04", "B08")
COARSER = ("B05", "B06", "B07", "B8A", "B11", "B12")


def run(scene: Path, out: Path, model: Path, **options: Any) -> Any:
    return upscale(scene, out=out, model=model, scale=4, other_bands="transfer", **options)


def test_they_are_resampled_and_get_detail(make_sentinel_2: Make, tiny_compact: Path, tmp_path: Path) -> None:
    folder, out = make_sentinel_2(), tmp_path / "out.tif"
    result = run(folder, out, tiny_compact, plan_only=True)
    plan = read_plan(result.plan_path)
    check_inputs(plan)
    assert plan.scene.coarser == 6
    assert plan.bands.output_names == FINE + COARSER
    assert plan.sensor.noise[: len(FINE)] != (0.0,) * len(FINE)
    assert plan.sensor.noise[len(FINE) :] == (0.0,) * len(COARSER), "resampling has smoothed it"
    widths = dict(zip(plan.bands.names + plan.bands.other_names, plan.sensor.sigmas, strict=True))
    assert all(widths[name] == 0.6 for name in COARSER), "the width of pixels of 20 m"
    assert max(widths[name] for name in FINE) < 0.45
    assert any("B05, B06, B07, B8A, B11, B12 have coarser pixels" in note for note in result.notes)
    run(folder, out, tiny_compact, resume=True)
    found = validate_product(out, folder)
    assert found.broken == []
    with rasterio.open(out) as dataset:
        assert dataset.descriptions == FINE + COARSER
        assert dataset.offsets == pytest.approx([-0.1] * 10)
        values = dataset.read(5).astype(float)
        assert dataset.tags(5)["GEO_REFDIFF_BAND"] == "transfer"
    with rasterio.open(inspect(folder, "scene", coarser=True).source) as dataset:
        small = dataset.read(5).astype(float)
    with rasterio.open(next(folder.rglob("*_B05_20m.jp2"))) as dataset:
        own = dataset.read(1).astype(float)
    assert (small.reshape(12, 2, 12, 2).mean((1, 3))[2:, 2:] - own[2:, 2:]).std() < 0.1 * own[2:, 2:].std()
    means = values.reshape(12, 8, 12, 8).mean((1, 3))
    assert np.corrcoef(means[2:, 2:].ravel(), own[2:, 2:].ravel())[0, 1] > 0.97
    assert (values[:8, :8] == 0).all()


def test_blocks_do_not_change_them(make_sentinel_2: Make, tiny_compact: Path, tmp_path: Path) -> None:
    folder = make_sentinel_2(clouds=True)
    run(folder, tmp_path / "a.tif", tiny_compact, products="none", clouds="nodata")
    run(folder, tmp_path / "b.tif", tiny_compact, products="none", clouds="nodata", block_size=16)
    with rasterio.open(tmp_path / "a.tif") as a, rasterio.open(tmp_path / "b.tif") as b:
        assert np.abs(a.read().astype(int) - b.read()).max() <= 1


def test_without_being_asked_for_they_stay_away(make_sentinel_2: Make, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    upscale(make_sentinel_2(), out=out, model="bicubic-ibp", scale=2)
    with rasterio.open(out) as dataset:
        assert dataset.descriptions == FINE


def test_of_a_stac_item(make_stac_item: Make, tiny_compact: Path, tmp_path: Path) -> None:
    item = make_stac_item()
    run(item, tmp_path / "out.tif", tiny_compact)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.descriptions == (*FINE, "B11")
