"""geo-refdiff index, as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geo_refdiff.cli.main import run
from geo_refdiff.data import open_dataset
from geo_refdiff.data.index import read_index


@pytest.fixture
def tree(tmp_path: Path, make_raster: Callable[..., Path]) -> Path:
    """Two towns of one place each at two dates."""
    rng = np.random.default_rng(0)
    for town in ("here", "there"):
        (tmp_path / "data" / town / "000").mkdir(parents=True)
        ground = rng.integers(20, 220, (4, 16, 16)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
        for year in ("2016", "2020"):
            noise = rng.integers(0, 10, ground.shape).astype(np.uint8)
            make_raster(f"data/{town}/000/{year}.tif", ground + noise, names=("red", "green", "blue", "nir"))
    return tmp_path / "data"


def test_an_index_is_written_and_summed_up(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "pairs.csv"
    assert run(["index", str(tree), "-o", str(out), "--split", "train"]) == 0
    output = capsys.readouterr()
    assert "4 ordered pairs of 2 places; 4 of 4 pairs are used" in output.out
    assert "shift between dates: median 0." in output.out
    assert output.err == ""
    assert {row.split for row in read_index(out)} == {"train"}
    assert len(open_dataset(out)) == 4
    assert run(["index", str(tree), "-o", str(out)]) == 1
    assert "exists already; choose another name or say --overwrite" in capsys.readouterr().err
    command = ["index", str(tree), "-o", str(out), "--overwrite", "--exclude", "there", "--json"]
    assert run([*command, "--root", str(tmp_path), "--pattern", "<city>/<place>/<year>", "--no-register"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["pairs"], summary["places"], summary["valid"], summary["left_out"]) == (2, 1, 2, [])
    assert read_index(out)[0].new.startswith("data/here/000/")


def test_errors_are_one_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [
        (["index", str(tmp_path / "none"), "-o", "i.csv"], 1, "no such folder"),
        (["index", str(tree), "-o", str(tmp_path / "i.txt")], 2, "an index ends in"),
        (
            ["index", str(tree), "-o", str(tmp_path / "i.csv"), "--only", "heer"],
            2,
            "fits no place; there are e.g. here",
        ),
        (["index", str(tree), "-o", str(tmp_path / "i.csv"), "--pattern", "<city>"], 2, "give <date> or <year> once"),
        (["index", str(tree)], 2, "Missing option '-o'"),
    ]
    for command, code, message in cases:
        assert run(command) == code
        output = capsys.readouterr()
        assert message in output.err
        assert len(output.err.splitlines()) == 1
    (tree / "here/000/2016.tif").write_bytes(b"x")
    assert run(["index", str(tree), "-o", str(tmp_path / "i.csv")]) == 0
    output = capsys.readouterr()
    assert "2 left out as missing or unreadable" in output.out
    assert "here/000 2016->2020: " in output.out
    assert run(["index", str(tree), "-o", str(tmp_path / "j.csv"), "--on-error", "stop"]) == 1
    assert "cannot be opened as a raster" in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_real_places_open_and_agree(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "bishop.csv"
    folder = shared_data / "naip-ca"
    command = ["index", str(folder), "-o", str(out), "--root", str(shared_data), "--only", "claremont/051"]
    assert run([*command, "--only", "palm_springs/010"]) == 0
    dataset = open_dataset(out, root=shared_data, pseudo_change=True)
    assert len(dataset) == 12
    shares = {}
    for index in range(len(dataset)):
        crop = dataset.read(index, 8, 8, 240, 240)
        difference = np.abs(crop.new.astype(float) - crop.ref)[:, crop.ref_valid]
        assert difference.mean() < 45
        assert set(np.unique(crop.classes)) <= {1, 2, 3, 4, 5}
        known = crop.mask != 255
        shares[dataset.name(index)] = float((crop.mask[known] > 0).mean())
    assert shares["claremont/051 2016->2020"] > 0.05  # earthworks to houses
    assert shares["claremont/051 2016->2020"] > 2 * shares["palm_springs/010 2018->2020"]


def test_one_place_whose_grids_differ(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "knox.gpkg"
    assert run(["index", str(shared_data / "naip-knox"), "-o", str(out), "--root", str(shared_data)]) == 0
    dataset = open_dataset(out, root=shared_data, resident=False)
    assert len(dataset) == 12
    assert {row.place for row in read_index(out)} == {"naip-knox"}
    pair = [dataset.name(i) for i in range(12)].index("naip-knox 2012->2018")
    crop = dataset.read(pair, 200, 300, 128, 128)
    assert crop.ref_valid.all()
    raw = open_dataset(out, root=shared_data, resident=False, match=False).read(pair, 200, 300, 128, 128)
    apart = [np.abs(c.new.astype(float) - c.ref).mean() for c in (crop, raw)]
    assert apart[0] < apart[1]
