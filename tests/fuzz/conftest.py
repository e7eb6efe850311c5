"""Everything that is spoiled: a scene, a reference, a mask, a model, a planned run, a finished batch; all tiny."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geo_refdiff import upscale


@pytest.fixture
def job(make_pair: Callable[..., tuple[Path, Path]], make_raster: Callable[..., Path], tiny_compact: Path) -> Path:
    """A folder with scene.tif, ref.tif, mask.tif, model/, and the plan of job.tif, none of whose blocks is done."""
    scene, ref = make_pair(20, 24, scale=4)
    folder = scene.parent
    make_raster("mask.tif", np.random.default_rng(0).integers(0, 3, (1, 80, 96), np.uint8), pixel=10.0, nodata=255)
    tiny_compact.rename(folder / "model")
    options: dict[str, Any] = {"model": "bicubic", "scale": 4, "block_size": 32, "device": "cpu"}
    upscale(scene, ref=ref, out=folder / "job.tif", plan_only=True, **options)
    return folder


@pytest.fixture
def batch_done(job: Path) -> Path:
    """The folder of a finished batch over scene.tif and areas.gpkg, one of whose three areas cannot be done."""
    import geopandas
    import rasterio
    import shapely

    from geo_refdiff.batch.run import batch
    from geo_refdiff.options import Sources

    with rasterio.open(job / "scene.tif") as dataset:
        west, north, pixel, crs = dataset.transform.c, dataset.transform.f, dataset.transform.a, dataset.crs
    boxes = [shapely.box(west + pixel * a, north - 240, west + pixel * a + 240, north) for a in (1, 8, 500)]
    frame = geopandas.GeoDataFrame({"name": ["one", "two", "far"]}, geometry=boxes, crs=crs)
    frame.to_file(job / "areas.gpkg", driver="GPKG", layer="areas")
    options = {"model": "bicubic", "scale": 4, "device": "cpu", "products": "none"}
    assert batch(job / "areas.gpkg", Sources([job / "scene.tif"]), job / "batch", options=options).done == 2
    return job / "batch"
