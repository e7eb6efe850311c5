"""The verdict names what is kept and what is broken, and holds figures beside those of a true bicubic output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from broken import damaged

from geo_refdiff import upscale
from geo_refdiff.cli.main import run
from geo_refdiff.validate.validation import validate_product
from geo_refdiff.validate.verdict import PROMISES, ComparedFigure

Pair = tuple[Path, Path]


@pytest.fixture
def pair(make_pair: Any) -> Pair:
    """A scene with a hole, and its reference."""
    scene, ref = make_pair(40, 44)
    with rasterio.open(scene, "r+") as dataset:
        dataset.nodata = 0
        dataset.write(np.zeros((3, 4, 6), np.uint8), window=rasterio.windows.Window(12, 35, 6, 4))
    return scene, ref


@pytest.fixture
def sharp(pair: Pair, tmp_path: Path) -> Path:
    return upscale(
        pair[0], ref=pair[1], model="matched-ref", scale=8, out=tmp_path / "o.tif", coregister="off", products="none"
    ).out


def test_figures_stand_beside_those_of_a_bicubic_output(pair: Pair, sharp: Path, tmp_path: Path) -> None:
    scene, ref = pair
    plain = upscale(scene, model="bicubic", scale=8, out=tmp_path / "b.tif", products="none", psf="0.5").out
    with rasterio.open(sharp) as dataset:
        psf = {k: v for k, v in dataset.tags().items() if k.startswith("GEO_REFDIFF_PSF")}
    plain = damaged(plain, tmp_path / "plain.tif", tags=psf)  # seen by the same sensor
    one, other = (validate_product(out, scene, truth=ref, reference=ref) for out in (sharp, plain))
    figures = {f.name: f for f in one.verdict.figures}
    assert set(figures) == {"scene residual", "sharpness", "detail shared", "PSNR", "SSIM", "HaarPSI"}
    for name in ("PSNR", "SSIM", "HaarPSI"):
        assert figures[name].own == one.truth.figures[name]
        assert figures[name].bicubic == pytest.approx(other.truth.figures[name], rel=1e-9)
    assert figures["HaarPSI"].own > figures["HaarPSI"].bicubic
    assert str(figures["HaarPSI"]).endswith(": closer to the truth.")
    assert figures["scene residual"].bicubic == pytest.approx(other.residual.rms, rel=1e-6)
    assert figures["scene residual"].own < figures["scene residual"].bicubic / 5
    shared = other.reference["detail_shared"]
    assert figures["detail shared"].bicubic == pytest.approx(shared, abs=5e-3)  # that file is rounded
    assert {f.name: f.own for f in other.verdict.figures}["sharpness"] == pytest.approx(1.0)


def test_a_good_output_keeps_all_promises(pair: Pair, sharp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(sharp), "--scene", str(pair[0])]) == 0
    text = capsys.readouterr().out
    end = text[text.index("verdict: ") :]
    assert end.startswith("verdict: The file keeps 5 of 6 promises; 1 could not be judged.\n")
    assert [line.split(":")[0].strip() for line in end.splitlines()[1:6]] == [f"kept        {n}" for n in PROMISES][:5]
    assert "not judged  seams: hardly any detail (2.3 times" in end
    assert "BROKEN" not in text
    assert "bicubic by" in end


@pytest.mark.parametrize(
    ("wrong", "broken"),
    [
        ("moved", {"grid"}),
        ("renamed", {"numbers"}),
        ("holed", {"missing pixels"}),
        ("brighter", {"consistency", "statistics"}),
        ("blocks", {"seams", "statistics"}),
        ("cut", {"grid", "missing pixels"}),
    ],
)
def test_each_promise_that_is_broken_is_named(
    pair: Pair, sharp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str, broken: set[str]
) -> None:
    scene, path = pair[0], tmp_path / "bad.tif"
    with rasterio.open(scene) as dataset:
        blocks = dataset.read().repeat(8, 1).repeat(8, 2)
    with rasterio.open(sharp) as dataset:
        moved = dataset.transform @ rasterio.Affine.translation(3, 0)

    def hole(pixels: np.ndarray) -> None:
        pixels[:, 200:203, 100:105] = 0

    def brighten(pixels: np.ndarray) -> None:
        pixels[0, 40:64, 40:64] = np.minimum(pixels[0, 40:64, 40:64], 200) + 9

    options: dict[str, Any] = {
        "moved": {"transform": moved},
        "renamed": {"names": ("green", "red", "blue")},
        "holed": {"change": hole},
        "brighter": {"change": brighten},
        "blocks": {"change": lambda pixels: blocks},
        "cut": {"change": lambda pixels: pixels[:, :-8]},
    }[wrong]
    damaged(sharp, path, **options)
    assert run(["validate", str(path), "--scene", str(scene), "--json"]) == 1
    entry = json.loads(capsys.readouterr().out)
    result = {p["name"]: p["state"] for p in entry["verdict"]["promises"]}
    assert {name for name, state in result.items() if state == "broken"} >= broken
    assert list(result) == list(PROMISES)
    assert entry["verdict"]["summary"].startswith("The file BREAKS ")
    assert all(name in entry["verdict"]["summary"] for name in broken)
    assert entry["ok"] is False
    if wrong == "moved":
        assert [s for n, s in result.items() if n != "grid"] == ["not judged"] * 5
        assert entry["verdict"]["quality"] == []


def test_what_cannot_be_judged_is_not_called_kept(pair: Pair, tmp_path: Path) -> None:
    out = upscale(pair[0], model="bicubic", scale=8, out=tmp_path / "o.tif", products="none").out
    verdict = validate_product(out, pair[0]).verdict
    assert verdict.ok
    unjudged = {p.name: p.text for p in verdict.promises if p.state == "not judged"}
    assert unjudged["consistency"].startswith("nothing is promised")
    assert unjudged["seams"].startswith("hardly any detail")
    assert verdict.summary == "The file keeps 4 of 6 promises; 2 could not be judged."


def test_a_worse_figure_is_called_worse() -> None:
    assert (
        str(ComparedFigure("PSNR", 22.104, 23.9, " dB"))
        == "PSNR is 22.10 dB, bicubic's 23.90 dB: FARTHER from the truth."
    )
    assert str(ComparedFigure("SSIM", 0.50001, 0.5)) == "SSIM is 0.5000, bicubic's 0.5000: as close to the truth."
    assert "hardly sharper than bicubic" in str(ComparedFigure("sharpness", 1.0, 1.0))
