"""Odd and broken files: a clear line or a right result, never a traceback, a hang, or a wrong place."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
import rasterio

from geo_refdiff.errors import GridError, InputError
from geo_refdiff.raster.geobox import output_geobox, scene_geobox
from geo_refdiff.raster.info import Role, inspect
from geo_refdiff.raster.reader import RasterReader
from geo_refdiff.raster.warp import WarpedReader
from geo_refdiff.raster.window import Window

DATA = Path(os.environ.get("GEO_REFDIFF_DATA", Path(__file__).parents[3] / "shared" / "data"))
FOLDER = DATA / "awkward"
FILES = sorted(p for p in FOLDER.glob("*/*") if p.is_file()) if FOLDER.is_dir() else []
PEAK_BEFORE = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
REFUSED = {"complex", "gcps", "huge-declared", "local-crs", "no-crs", "open-fails", "opens-but-read-fails"}

pytestmark = pytest.mark.skipif(not FILES, reason=f"no odd files in {FOLDER} (set GEO_REFDIFF_DATA)")


@pytest.mark.parametrize("role", ["scene", "reference", "mask"])
@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.name[-40:]}")
def test_it_reads_or_says_in_one_line_why_not(path: Path, role: Role) -> None:
    begun = time.monotonic()
    try:
        info = inspect(path, role)
        assert path.parent.name not in REFUSED
        assert path.suffix.lower() in (".tif", ".tiff")
        with rasterio.open(path) as dataset:
            assert info.transform == tuple(dataset.transform)[:6]
            assert (info.height, info.width) == dataset.shape
        with RasterReader(info, info.data_bands[:3]) as reader:
            values, valid = reader.read(Window(-2, -2, 40, 40))
            assert not valid[:, :2].any()
            assert not values[:, :, :2].any()
            reader.read(Window(info.height - 20, info.width - 20, 40, 40))
        target = output_geobox(scene_geobox(info), 2)
        with WarpedReader(info, info.data_bands[:3], target, "nearest" if role == "mask" else "cubic") as warped:
            values, valid = warped.read(Window(-3, -3, 30, 30))
            assert values.shape[1:] == valid.shape == (30, 30)
    except (InputError, GridError) as error:
        text = str(error)
        assert str(path) in text
        assert "\n" not in text
        assert len(text) < 500
        assert ";" in text  # what is wrong; the way out
    assert time.monotonic() - begun < 20


def test_memory_stays_small() -> None:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - PEAK_BEFORE
    assert grown < 2**20  # KiB
