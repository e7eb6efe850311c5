"""Pictures and styles show red as red, however the bands say it."""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp

from geo_refdiff import upscale
from geo_refdiff.raster.gdal import gdal_env
from geo_refdiff.raster.picture import Panel, fitted, look, write_panels


@pytest.mark.parametrize(
    ("names", "colours", "wanted"),
    [
        (("B02", "B03", "B04", "B08"), (), (3, 2, 1)),
        (("nir", "Red", "green", "blue"), (), (2, 3, 4)),
        ((), ("blue", "green", "red", "undefined"), (3, 2, 1)),
        ((), ("alpha", "undefined", "undefined", "undefined"), (2, 3, 4)),
        ((), (), (1, 2, 3)),
        (("B11", "B12"), (), (1,)),
    ],
)
def test_which_bands_are_shown(make_raster: Any, names: Any, colours: Any, wanted: tuple[int, ...]) -> None:
    pixels = np.full((len(names) or 4, 8, 8), 255, np.uint8)
    path = make_raster("r.tif", pixels, names=names, colorinterp=[ColorInterp[c] for c in colours])
    assert look(path).bands == wanted


def test_a_look_at_many_wide_bands_decodes_each_block_once(make_raster: Any) -> None:
    """Not once for each row of the picture: a row of blocks of four float32 bands is more than GDAL's small cache."""
    values = np.random.default_rng(0).random((4, 512, 1536), dtype=np.float32)
    path = make_raster("r.tif", values, tiled=True, blockxsize=512, blockysize=512, interleave="pixel", compress="zstd")
    busy = process_time()
    with gdal_env():
        assert look(path, 1000).values.shape == (3, 333, 1000)
    assert process_time() - busy < 5.0  # seconds: .1, or 40


def test_the_style_of_an_output_shows_sentinel_2_in_its_colours(make_pair: Any, tmp_path: Path) -> None:
    scene, _ = make_pair(16, 16, bands=4)
    with rasterio.open(scene, "r+") as dataset:
        dataset.descriptions = ("B02", "B03", "B04", "B08")
    upscale(scene, model="bicubic", scale=4, out=tmp_path / "o.tif", products="style")
    style = (tmp_path / "o.qml").read_text()
    for output in ('redBand="3"', 'greenBand="2"', 'blueBand="1"'):
        assert output in style


def test_a_panel_stays_under_its_own_title(tmp_path: Path) -> None:
    """A long title is cut in the middle; it does not run over that of the next panel."""
    grey = np.full((3, 64, 64), 128, dtype=np.uint8)
    long, short = Panel("LR, claremont/050, 2014-06-04 from 2016-07-11", grey), Panel("", grey)
    write_panels(tmp_path / "long.png", [[long, short]], 64)
    sheet = np.array(Image.open(tmp_path / "long.png"))[:, :, 0]
    title = sheet[8:38]
    assert title[:, 8:72].min() < 100
    assert title[:, 80:].min() == 255
    assert fitted("abcdefgh", 8, len) == "abcdefgh"
    assert fitted("abcdefghi", 8, len) == "abc...hi"
    assert fitted("abc", 2, len) == "..."
