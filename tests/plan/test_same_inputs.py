"""Whoever computes blocks sees to it that all inputs, and the detector, are the plan's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely

from geo_refdiff import upscale
from geo_refdiff.engine import conditions
from geo_refdiff.errors import InputError, ModelError
from geo_refdiff.plan.file import read_plan
from geo_refdiff.plan.same_inputs import check_inputs

ROLES = ("scene", "ref", "mask", "mask_confidence")


@pytest.fixture
def inputs(make_pair: Any, make_raster: Any, tiny_compact: Path) -> dict[str, Path]:
    """All that a run reads."""
    scene, reference = make_pair(24, 24)
    with rasterio.open(scene) as dataset:
        bounds = dataset.bounds
    polygons = scene.parent / "mask.gpkg"
    shape = shapely.box(*bounds).buffer(-200)
    geopandas.GeoDataFrame({"class": ["water"]}, geometry=[shape], crs=dataset.crs).to_file(polygons)
    confidence = make_raster("confidence.tif", np.full((1, 24, 24), 0.9, "float32"))
    return {"scene": scene, "ref": reference, "mask": polygons, "mask_confidence": confidence, "model": tiny_compact}


def planned(inputs: dict[str, Path], folder: Path, **more: Any) -> Any:
    path = upscale(
        inputs["scene"], out=folder / "out.tif", plan_only=True, device="cpu", coregister="off",
        **{k: v for k, v in inputs.items() if k != "scene"}, **more,
    ).plan_path  # fmt: skip
    assert path is not None
    return read_plan(path)


@pytest.mark.parametrize("role", ROLES)
def test_each_input_is_looked_at(inputs: dict[str, Path], tmp_path: Path, role: str) -> None:
    plan = planned(inputs, tmp_path, mask_field="class")
    check_inputs(plan)
    os.utime(inputs[role], ns=(1, 1))
    with pytest.raises(InputError, match=rf"{inputs[role].name}: is another file here, or was changed"):
        check_inputs(plan)
    inputs[role].unlink()
    with pytest.raises(InputError, match=inputs[role].name):
        check_inputs(plan)


def test_a_mask_of_classes_is_looked_at(inputs: dict[str, Path], make_raster: Callable[..., Path]) -> None:
    mask = make_raster("classes.tif", np.ones((1, 24, 24), "uint8"))
    plan = planned(inputs | {"mask": mask}, mask.parent)
    check_inputs(plan)
    make_raster("classes.tif", np.full((1, 24, 24), 2, "uint8"))
    with pytest.raises(InputError, match=r"classes.tif: is another file here, or was changed"):
        check_inputs(plan)


def test_another_detector_is_refused(inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {k: v for k, v in inputs.items() if not k.startswith("mask")} | {"mask": "auto", "model": "default"}
    detector = conditions.load_detector()
    planned(given, tmp_path)
    monkeypatch.setattr(conditions, "load_detector", lambda: replace(detector, sha256="0" * 64))
    with pytest.raises(ModelError, match="the change detector here has SHA-256 000000000000, the plan was made with"):
        upscale(given.pop("scene"), out=tmp_path / "out.tif", resume=True, device="cpu", coregister="off", **given)
