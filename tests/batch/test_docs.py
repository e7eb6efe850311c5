"""Every command in the pages about batches runs as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio

from geo_refdiff import upscale
from geo_refdiff.cli.main import run

from .conftest import Country, square, write_areas

DOCS = Path(__file__).parents[2] / "docs"
CHEAP = ["--model", "bicubic", "--scale", "2", "--device", "cpu"]


def commands(page: str) -> list[str]:
    return re.findall(r"^    (geo-refdiff (?:batch|upscale) .*)$", (DOCS / page).read_text(), re.MULTILINE)


@pytest.fixture
def folder(country: Country, make_raster: Any, make_texture: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages speak of: aois.gpkg, scenes/, archive/, country.tif and archive.tif."""
    (country.root / "archive").mkdir()
    old = (20 + 200 * make_texture((3, 96, 176), seed=4)).astype("uint8")
    make_raster("archive/naip_2018.tif", old, pixel=10.0, names=("red", "green", "blue"))
    make_raster("archive.tif", old, pixel=10.0, names=("red", "green", "blue"))
    shutil.copy(country.scenes / "west_20210503.tif", country.root / "country.tif")
    areas = {"plain": square(2, 2, 8), "seam": square(4, 16, 10)}
    write_areas(country.root / "aois.gpkg", areas, layer="fields")
    monkeypatch.chdir(country.root)
    return country.root


def test_commands_of_the_page_on_batches(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = commands("batch.md")
    assert len(result) == 6
    for command in result:
        assert run([*shlex.split(command)[1:], *CHEAP]) == 0, capsys.readouterr().err
    assert (folder / "sharp" / "seam.tif").exists()
    assert (folder / "fields" / "plain.tif").exists()
    assert (folder / "large" / "plain.vrt").exists()
    assert not (folder / "plan").exists()
    assert (folder / "report.html").stat().st_size > 1000


def test_commands_of_the_page_on_clusters(
    write_scheduler_file: Callable[[Path, int], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = commands("clusters.md")
    assert len(result) == 5
    assert sum("--workers" in command for command in result) == 3
    write_scheduler_file(folder / "scheduler.json", 1)
    for command in result:
        assert run([*shlex.split(command)[1:], *CHEAP]) == 0, capsys.readouterr().err
    one = upscale("country.tif", ref="archive.tif", out="one.tif", model="bicubic", scale=2, device="cpu").out
    assert Path("sharp4.tif").read_bytes() == Path("sharp5.tif").read_bytes() == one.read_bytes()
    with rasterio.open("sharp.vrt") as whole, rasterio.open(one) as single:
        assert (whole.read() == single.read()).all()
    assert (folder / "sharp2" / "seam.tif").read_bytes() == (folder / "sharp3" / "seam.tif").read_bytes()
