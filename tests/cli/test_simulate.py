"""`geo-refdiff simulate`: what a user asks for and sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geo_refdiff.cli.main import run
from geo_refdiff.sensor.recipe import RECIPES

LAND = np.random.default_rng(0).integers(20, 220, (3, 83, 101)).astype("uint8")
NAMES = ("red", "green", "blue")


@pytest.fixture
def hr(make_raster: Any) -> Path:
    path: Path = make_raster("hr.tif", LAND, pixel=5.0, names=NAMES)
    return path


def test_summary_for_people_and_machines(hr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", str(hr), "-o", str(tmp_path / "a.tif"), "--scale", "8"]) == 0
    output = capsys.readouterr()
    assert "a.tif: 12 x 10 pixels of 40 metres, 3 bands (red, green, blue), 1/8, sensor default" in output.out
    assert "left out of the input: 3 rows at the bottom and 5 columns at the right" in output.out
    assert output.err == ""
    assert (
        run(["simulate", str(hr), "-o", str(tmp_path / "b.tif"), "--scale", "4", "--preset", "sentinel-2", "--json"])
        == 0
    )
    data = json.loads(capsys.readouterr().out)
    assert data["shape"] == [20, 25]
    assert data["sensor"] == "sentinel-2"
    assert data["parameters"]["psf_sigma"] == {"red": 0.4446, "green": 0.408, "blue": 0.426}
    (note,) = data["notes"]
    assert note.startswith("left out of the input: 3 rows at the bottom and 1 column at the right")


def test_the_file_says_how_it_was_made(hr: Path, tmp_path: Path) -> None:
    out = tmp_path / "lr.tif"
    assert run(["simulate", str(hr), "-o", str(out), "--scale", "8", "--recipe", "published", "--seed", "5"]) == 0
    with rasterio.open(out) as made:
        tags = made.tags()
        assert tags["AREA_OR_POINT"] == "Area"
        assert tags["GEO_REFDIFF_SIMULATED"] == "published"
        assert tags["GEO_REFDIFF_SEED"] == "5"
        assert tags["GEO_REFDIFF_SCALE"] == "8"
        parameters = json.loads(tags["GEO_REFDIFF_PARAMETERS"])
        assert set(parameters) == {"resize", "sigma", "motion", "angle", "noise", "jpeg_quality"}
        assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    other = tmp_path / "again.tif"
    assert run(["simulate", str(hr), "-o", str(other), "--scale", "8", "--recipe", "published", "--seed", "5"]) == 0
    assert other.read_bytes() == out.read_bytes()
    assert run(["simulate", str(hr), "-o", str(other), "--scale", "8", "--recipe", "published", "--overwrite"]) == 0
    assert other.read_bytes() != out.read_bytes()


def test_a_recipe_from_a_file(hr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "own.json"
    recipe.write_text(json.dumps(RECIPES["sensor"].to_dict() | {"protocol": 0.0, "sigma": [0.4, 0.4]}))
    assert (
        run(["simulate", str(hr), "-o", str(tmp_path / "lr.tif"), "--scale", "8", "--recipe", str(recipe), "--json"])
        == 0
    )
    data = json.loads(capsys.readouterr().out)
    assert data["sensor"] == "own.json"
    assert data["parameters"]["sigma"] in ([0.4, 0.4], [0.0, 0.0])
    recipe.write_text('{"sigmas": [0.4, 0.4]}')
    assert run(["simulate", str(hr), "-o", str(tmp_path / "no.tif"), "--scale", "8", "--recipe", str(recipe)]) == 2
    assert "unknown key 'sigmas'; did you mean sigma?" in capsys.readouterr().err
    recipe.write_text("[1, ")
    assert run(["simulate", str(hr), "-o", str(tmp_path / "no.tif"), "--scale", "8", "--recipe", str(recipe)]) == 1
    assert "cannot be read as JSON" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(hr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lr.tif"
    out.write_bytes(b"precious")
    assert run(["simulate", str(hr), "-o", str(out), "--scale", "8"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert out.read_bytes() == b"precious"
    before = hr.read_bytes()
    assert run(["simulate", str(hr), "-o", str(hr), "--scale", "8", "--overwrite"]) == 1
    assert "is one of the inputs" in capsys.readouterr().err
    assert hr.read_bytes() == before
    assert run(["simulate", str(hr), "-o", str(out), "--scale", "8", "--overwrite"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hr.tif", "lr.tif"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["HR"], 2, "Missing option '-o'"),
        (["HR", "-o", "OUT"], 2, "Missing option '--scale'"),
        (["HR", "-o", "OUT", "--scale", "2.5"], 2, "'2.5' is not a valid integer"),
        (["HR", "-o", "OUT", "--scale", "0"], 2, "scale 0: give a whole number from 1 to 64"),
        (["HR", "-o", "OUT", "--scale", "64", "--preset", "modis"], 2, "unknown preset 'modis'; choose from bicubic"),
        (["HR", "-o", "OUT", "--scale", "8", "--recipe", "none"], 2, "unknown recipe 'none': choose from sensor"),
        (["HR", "-o", "OUT", "--scale", "8", "--recipe", "sensor", "--preset", "area"], 2, "choose one"),
        (["HR", "-o", "OUT", "--scale", "8", "--noise", "-1"], 2, "noise -1"),
        (["HR", "-o", "OUT", "--scale", "8", "--range", "9", "2"], 2, "range 9, 2"),
        (["HR", "-o", "OUT", "--scale", "8", "--seed", "-4"], 2, "seed -4"),
        (["none.tif", "-o", "OUT", "--scale", "8"], 1, "no such file"),
        (["HR", "-o", "FOLDER/x/lr.tif", "--scale", "8"], 1, "does not exist"),
    ],
)
def test_errors_are_one_line(
    hr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str
) -> None:
    named = {"HR": str(hr), "OUT": str(tmp_path / "lr.tif")}
    assert run(["simulate", *(named.get(a, a.replace("FOLDER", str(tmp_path))) for a in arguments)]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert output.err.count("\n") == 1
    assert text in output.err
    assert [p.name for p in tmp_path.iterdir()] == ["hr.tif"]


def test_smaller_than_one_pixel(hr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make_raster: Any) -> None:
    small = make_raster("small.tif", LAND[:, :7, :])
    assert run(["simulate", str(small), "-o", str(tmp_path / "lr.tif"), "--scale", "8"]) == 1
    assert "101 x 7 pixels are less than one of the scale 8" in capsys.readouterr().err


def test_eight_bit_recipes_want_a_range_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make_raster: Any
) -> None:
    deep = make_raster("deep.tif", LAND.astype("uint16") * 40)
    command = [
        "simulate",
        str(deep),
        "-o",
        str(tmp_path / "lr.tif"),
        "--scale",
        "8",
        "--recipe",
        "sensor",
        "--seed",
        "1",
    ]
    assert run(command) == 2
    assert "uint16: say with --range LOW HIGH" in capsys.readouterr().err
    assert run([*command, "--range", "0", "10000"]) == 0
    assert run([*command, "--noise", "3", "--overwrite"]) == 0
