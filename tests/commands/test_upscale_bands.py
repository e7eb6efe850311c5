"""Bands from files to a file: paired by what they measure, said, and written in the scene's order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geo_refdiff.commands.upscale import upscale
from geo_refdiff.validate.validation import validate_product

NAMES = ("B02", "B03", "B04", "B08")


@pytest.fixture
def pair(make_raster: Any, make_texture: Any) -> tuple[Path, Path]:
    """A scene of blue, green, red and nir, and a reference of red and blue."""
    fine = 20 + 200 * make_texture((4, 96, 96), seed=3)
    scene = fine.reshape(4, 24, 4, 24, 4).mean((2, 4)).round().astype("uint16")
    reference = fine[[2, 0]].round().astype("uint16")
    return (
        make_raster("s.tif", scene, names=NAMES),
        make_raster("r.tif", reference, names=("red", "blue"), pixel=10.0),
    )


def test_bands_that_the_reference_lacks_stay_at_their_place(pair: tuple[Path, Path], tmp_path: Path) -> None:
    scene, reference = pair
    out = tmp_path / "o.tif"
    result = upscale(scene, ref=reference, model="matched-ref", coregister="off", out=out)
    assert result.bands == NAMES
    assert "bands: B02 <- ref band 2 (blue); B04 <- ref band 1 (red)" in result.notes
    lost = "the reference has no B03, B08: they get no detail from it but what is transferred from the other bands"
    assert lost in result.notes
    assert json.loads(json.dumps(result.to_dict()))["pairs"] == [
        {"scene": 1, "name": "B02", "channel": None, "reference": 2, "reference_name": "blue"},
        {"scene": 3, "name": "B04", "channel": None, "reference": 1, "reference_name": "red"},
    ]
    with rasterio.open(out) as dataset, rasterio.open(scene) as coarse:
        assert dataset.descriptions == NAMES
        values, seen = dataset.read().astype(float), coarse.read()
        made = [dataset.tags(b)["GEO_REFDIFF_BAND"] for b in dataset.indexes]
        sigmas = dataset.tags()["GEO_REFDIFF_PSF_SIGMAS"].split(",")
    assert made == ["model", "transfer", "model", "transfer"]
    assert len(sigmas) == 4
    means = values.reshape(4, 24, 4, 24, 4).mean((2, 4))
    for band in range(4):
        correlations = [np.corrcoef(means[band].ravel(), seen[other].ravel())[0, 1] for other in range(4)]
        assert int(np.argmax(correlations)) == band
    checked = validate_product(out, scene, reference=reference)
    assert checked.broken == []
    assert checked.reference["detail_shared"] > 0.3


def test_the_output_keeps_the_scene_s_order_whatever_the_model(pair: tuple[Path, Path], tmp_path: Path) -> None:
    options = {"scale": 8, "plan_only": True, "overwrite": True, "out": tmp_path / "o.tif"}
    result = upscale(pair[0], model="default", **options)
    assert result.bands == NAMES
    output = "bands: B02, the model's blue; B03, the model's green; B04, the model's red; B08, the model's nir"
    assert output in result.notes
    assert upscale(pair[0], model="bicubic", bands=["B04", "B02"], **options).bands == ("B04", "B02")
